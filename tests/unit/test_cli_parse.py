"""Two ways read a command line, and they agree: the quick one for what is plainly right, Typer for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.cli.app import COMMANDS, Call, app
from flowyml.cli.fast_parse import parse
from tests.unit.commands import python


def by_typer(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
    calls: list[Call] = []
    app(calls.append)(args=list(arguments), prog_name="flowyml", standalone_mode=False)
    return called(calls[-1])


def called(call: Call) -> tuple[str, dict[str, Any]]:
    assert isinstance(call, partial)
    return call.func.__name__, {name: value or None for name, value in call.keywords.items()}


def quickly(arguments: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    name = next(name for name in (" ".join(arguments[:2]), arguments[0]) if name in COMMANDS)
    room, function = COMMANDS[name].split(":")
    command = getattr(__import__(f"flowyml.cli.{room}", fromlist=[function]), function)
    values = parse(command, arguments[len(name.split()) :])
    return None if values is None else (command.__name__, {key: value or None for key, value in values.items()})


LINES = [
    "run train.py:two --on prefect -p rows=5 -p label=x --run-id a --json",
    "run --detach train.py",
    "compile --to=plan train.py -o flow.py",
    "graph train.py -f svg --expand",
    "watch job-1 --timeout 1.5",
    "logs -f job-1 --step load",
    "retry job-1 --step load --step train[3]",
    "outputs job-1 model --download out",
    "runs -n 5 --pipeline p",
    "backfill etl 2026-03-01 2026-03-31 --on prod --json",
    "cache clear --older-than 7d --json",
    "prune --older-than 8w --max-size=2GB --dry-run --json",
    "schedule create train.py daily 03:00 --timezone Europe/Berlin --catch-up",
    "schedule list --on prefect",
    "backends show local",
    "airflow cutover daily --to prefect --pipeline daily.py --timeout 60 --json",
    "import airflow dags --root . --env A=b --variables v.json --json",
]


def test_usual_lines_are_read_quickly_and_mean_the_same_to_typer() -> None:
    for line in LINES:
        quick = quickly(line.split())
        assert quick is not None, line
        assert quick == by_typer(line.split())


def test_what_is_not_plain_is_left_to_typer() -> None:
    for line in ("run", "run a b", "run a --on", "run a --timeout -1", "graph a -f png", "run -h", "run a --json=1"):
        assert quickly(line.split()) is None


def test_the_usual_line_imports_neither_typer_nor_rich_nor_pydantic(tmp_path: Path) -> None:
    text = "from flowyml import pipeline, step\n@step\ndef one(): ...\n@pipeline\ndef p():\n    return one()\n"
    (tmp_path / "train.py").write_text(text)
    code = (
        "import sys; from flowyml.cli import main; main(['compile', 'train.py', '--to', 'plan']);"
        "print([m for m in ('typer', 'rich', 'pydantic', 'prefect', 'asyncio') if m in sys.modules], file=sys.stderr)"
    )
    assert python(tmp_path, "-c", code).err.strip() == "[]"
