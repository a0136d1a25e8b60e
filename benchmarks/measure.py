"""Fresh processes, taken in turns, medians: so that two numbers of one row can be compared."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Row", "Sample", "sample", "side_by_side"]


@dataclass(frozen=True)
class Sample:
    """One fresh process: its seconds of a processor; ``values`` is what it printed as JSON on its last line."""

    cpu: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One claim: ``value`` beside ``base``, and the aim of the project where there is one."""

    what: str
    value: float
    unit: str
    beside: str
    base: float
    aim: str = ""

    @property
    def ratio(self) -> float:
        """How many times the base the value is."""
        return self.value / self.base if self.base else float("inf")

    def as_json(self) -> str:
        """One line for machines."""
        return json.dumps({**asdict(self), "ratio": round(self.ratio, 3)})


def sample(script: str, *arguments: str, environment: Mapping[str, str] = {}) -> Sample:
    """Run Python code in a fresh process with a data home of its own.

    What it imports is compiled once and kept, as that of installed packages is, whatever the environment says.
    """
    with tempfile.TemporaryDirectory(prefix="flowyml-bench-") as home:
        path = Path(home) / "script.py"
        path.write_text(textwrap.dedent(script))
        ours = {"FLOWYML_HOME": home, "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": ""}
        settings = {**os.environ, **ours, **environment}
        command = [sys.executable, str(path), *arguments]
        with subprocess.Popen(command, env=settings, cwd=home, stdout=subprocess.PIPE) as process:
            return _finished(process)


def _finished(process: subprocess.Popen[bytes]) -> Sample:
    assert process.stdout is not None
    printed = process.stdout.read().decode().strip()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"The benchmark's script ended with {process.returncode}.")
    last = printed.splitlines()[-1] if printed else "{}"
    values = json.loads(last) if last.startswith("{") else {}
    return Sample(usage.ru_utime + usage.ru_stime, values)


def side_by_side(scripts: Mapping[str, str], repeats: int = 5) -> dict[str, Sample]:
    """The median sample of each script; one of each first, unmeasured, then in turns."""
    for script in scripts.values():
        sample(script)
    taken: dict[str, list[Sample]] = {name: [] for name in scripts}
    for _ in range(repeats):
        for name, script in scripts.items():
            taken[name].append(sample(script))
    return {name: _median(samples) for name, samples in taken.items()}


def _median(samples: list[Sample]) -> Sample:
    keys = samples[0].values
    return Sample(
        cpu=statistics.median(s.cpu for s in samples),
        values={key: statistics.median(s.values[key] for s in samples) for key in keys},
    )
