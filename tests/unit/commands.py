"""The command line in tests: in this process, which is quick, and in one of its own; and the script that it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from flowyml.cli import main

PIPELINE = """
import os, subprocess, sys, time
from pathlib import Path
from flowyml import Context, Pipeline, step

print("printed while loading")

@step(outputs=["rows_loaded"])
def load(rows: int, label: str) -> int:
    print("printed by a step")
    subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
    if label == "fail":
        raise ValueError("the label is fail")
    return rows

@step(outputs=["message", "things"])
def tell(rows_loaded: int, label: str, wait: float) -> tuple[str, object]:
    for _ in range(int(wait * 20)):  # an exception reaches it between two of them
        time.sleep(0.05)
    return f"{label}: {rows_loaded}", {"path": Path("/x"), "nan": float("nan"), "tuple": (1, 2)}

training = Pipeline("training", context=Context(rows=3, label="plain", wait=0.0)).add_step(load).add_step(tell)
training.run()
"""

RUN_KEYS = {
    "job_id", "run_id", "pipeline", "orchestrator", "status", "raw_status", "created_at", "started_at", "ended_at",
    "duration_seconds", "error", "url", "parameters", "revision",
}  # fmt: skip

STEP_KEYS = {
    "name", "index", "status", "raw_status", "attempt", "started_at", "ended_at", "duration_seconds", "error",
    "cached_from",
}  # fmt: skip


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which is the last line of standard error."""
        document: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return document


def flowyml(*arguments: str) -> Done:
    """In this process, which is quick."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(arguments)
    return Done(code, out.getvalue(), err.getvalue())


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(*arguments: str) -> list[str]:
    """The lines that a command writes to a terminal, which is as wide as COLUMNS says; without their colours."""
    with redirect_stdout(Terminal()) as out:
        assert main(arguments) == 0
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in out.getvalue().splitlines()]


def command(*arguments: str, **environment: str) -> Done:
    """In a process of its own, where it matters."""
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", *arguments],
        capture_output=True, text=True, timeout=2400, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def python(folder: Path, *words: str, **environment: str) -> Done:
    """A Python in a process of its own, which has to end well."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=2400,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)
