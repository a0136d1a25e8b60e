"""Shell, YAML and make: change pins, and report code that reads status strings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flowyml.migration.legacy.checklist import Item, Note, unaccepted
from flowyml.migration.legacy.pins import LONGEST_LINE, update_pins
from flowyml.migration.legacy.python import Migrated
from flowyml.migration.legacy.statuses import STATUS_WORDS

__all__ = ["migrate_script"]

_WORD = re.compile(rf"(?<![\w.-])({'|'.join(sorted(STATUS_WORDS))})(?![\w-])")
_LOWER_WORD = re.compile(rf"(['\"])({'|'.join(sorted(STATUS_WORDS)).lower()})\1")
_READS = re.compile(
    r"==|!=|=~|\[\[? |\btest\b|\b[ef]?grep\b|\bjq\b|\bawk\b|\bsed\b|\bcontains\(|\bselect\(|\bfindstr\b"
)
_PATTERN = re.compile(r"^\s*\(?[\"']?[A-Z_]+[\"']?(\s*\|\s*[\"']?[A-Z_]+[\"']?)*\)")
_ADVICE = "reads a status string: go by the exit code of `flowyml run` or `flowyml status`, or by `--json`"


def migrate_script(text: str, modules: Iterable[str]) -> Migrated:
    """Migrate a script. ``modules`` are the names of the project's Python files that use FlowyML.

    A script that runs one of them is checked.
    """
    pins = update_pins(text, "shell")
    if not _is_concerned(text, modules):
        return pins
    notes = list(pins.notes)
    for number, line in enumerate(pins.text.split("\n"), 1):
        if len(line) > LONGEST_LINE or line.lstrip().startswith("#"):
            continue
        is_read = _WORD.search(line) and (_READS.search(line) or _PATTERN.match(line))
        if is_read or (_LOWER_WORD.search(line) and "==" in line):
            notes.append(Note(Item.SCRIPTS, number, _ADVICE, False))
    return Migrated(pins.text, unaccepted(notes, text))


def _is_concerned(text: str, modules: Iterable[str]) -> bool:
    if "flowyml" in text.lower():
        return True
    names = [name for name in modules if name not in ("__init__", "setup", "conftest")]
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(\.py\b|\b(?=\s|$))", text) for name in names if name in text)
