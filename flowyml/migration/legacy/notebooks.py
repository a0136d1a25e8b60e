"""Notebooks: the code cells are one module, since they share their names; lines that are not Python stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flowyml.migration.legacy.checklist import Note
from flowyml.migration.legacy.pins import LONGEST_LINE, update_pins
from flowyml.migration.legacy.python import Migrated, migrate_python, uses_flowyml
from flowyml.migration.legacy.source import Unreadable

_MARK = "#flowyml-migrate-cell "
_MAGIC = "pass  #flowyml-migrate-magic "
_IS_MAGIC = re.compile(r"(\s*)([%!?].*|.*\?{1,2}\s*)$")


def migrate_notebook(text: str) -> tuple[Migrated, list[int]]:
    """Return the new notebook, with lines counted over all code cells, and the line where each cell begins.

    Raises ``Unreadable``.
    """
    try:
        document = json.loads(text)
        cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        codes = [_code(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"is not a notebook that can be read ({type(error).__name__})") from None
    if not any(map(uses_flowyml, codes)):
        return Migrated(text, ()), []
    write = _writer(text, document)
    if any(_MARK in code or _MAGIC in code for code in codes):
        raise Unreadable("has a comment of this command's own in it")
    kept: list[str] = []
    pins: list[Note] = []
    joined, starts = "", []
    for number, code in enumerate(codes):
        joined += f"{_MARK}{number}\n"
        starts.append(joined.count("\n"))
        joined += "".join(_without_magic(code, kept, pins, joined.count("\n")))
    migrated = migrate_python(joined)
    parts = re.split(rf"^{_MARK}\d+\n", migrated.text, flags=re.MULTILINE)[1:]
    restored = [re.sub(rf"{_MAGIC}(\d+)", lambda match: kept[int(match[1])], part) for part in parts]
    if len(parts) != len(codes):
        raise Unreadable("has cells that look alike once they are changed")
    for cell, before, after in zip(cells, codes, restored, strict=True):
        if after.removesuffix("\n") != before.removesuffix("\n"):
            new = after if before.endswith("\n") else after.removesuffix("\n")
            cell["source"] = new.splitlines(keepends=True) if isinstance(cell["source"], list) else new
    is_changed = any(
        after.removesuffix("\n") != before.removesuffix("\n") for after, before in zip(restored, codes, strict=True)
    )
    notes = sorted([*migrated.notes, *pins], key=lambda note: note.line)
    return replace(migrated, text=write(document) if is_changed else text, notes=notes), starts


def _code(source: object) -> str:
    if isinstance(source, str):
        return source
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        return "".join(source)
    raise TypeError("a cell's source is text, or lines of it")


def _without_magic(code: str, kept: list[str], pins: list[Note], before: int) -> Iterator[str]:
    """Yield the lines of Python; lines for IPython are set aside, and so is a whole cell of another language."""
    if code.lstrip().startswith("%%"):
        kept.append(code)
        yield f"{_MAGIC}{len(kept) - 1}\n"
        return
    for number, line in enumerate(code.splitlines(keepends=True), before + 1):
        match = _IS_MAGIC.match(line.rstrip("\n")) if len(line) <= LONGEST_LINE else None
        if match is None or (line.rstrip().endswith("?") and not match[2].startswith(("%", "!", "?"))):
            yield line if line.endswith("\n") else f"{line}\n"
            continue
        made = update_pins(match[2], "shell")
        pins += [replace(note, line=number) for note in made.notes]
        kept.append(made.text)
        yield f"{match[1]}{_MAGIC}{len(kept) - 1}\n"


def _writer(text: str, document: Any) -> Any:
    """Return the formatting of the notebook's JSON. Raises ``Unreadable`` for an unknown one."""
    end = text[len(text.rstrip()) :]
    for indent in (1, 2, 4, None):
        for is_ascii in (False, True):

            def write(value: Any, indent: int | None = indent, is_ascii: bool = is_ascii) -> str:
                return json.dumps(value, indent=indent, ensure_ascii=is_ascii) + end

            if write(document) == text:
                return write
    raise Unreadable("is JSON in a layout that cannot be written back as it is: save it in Jupyter first")
