"""The databases of local runs whose bundles are in FlowyML's data folder: the usual one, and noted ones.

So pruning can read them before it removes a bundle.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from flowyml.core.files import write_whole

__all__ = ["note_record", "records"]

_NOTE = ".record-"


def note_record(folder: Path, record: Path) -> None:
    """Note that a database at another path refers to bundles in a folder. Raises ``OSError``."""
    note = folder / f"{_NOTE}{hashlib.sha256(str(record).encode()).hexdigest()[:16]}"
    if not note.exists():
        write_whole(note, str(record).encode(), 0o600)


def records(folder: Path) -> list[Path]:
    """Return the databases that are noted in a folder of bundles. Raises ``OSError``."""
    return [Path(note.read_text("utf-8")) for note in sorted(folder.glob(f"{_NOTE}*"))]
