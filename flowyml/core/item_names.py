"""The items of loops in an engine's records: their names and their number. Workers import this alone."""

from __future__ import annotations

from collections.abc import Sequence

from flowyml.core.errors import EngineError

__all__ = ["MOST_ITEMS", "checked_items", "labelled"]

MOST_ITEMS = 1_000_000
"""The most items of a run's loops that FlowyML takes from an engine's records, which others may write to."""


def checked_items(count: int, name: str) -> int:
    """Return the number of items of a loop, or of a step in it. Raises ``EngineError`` if it is more than those."""
    if 0 <= count <= MOST_ITEMS:
        return count
    raise EngineError(
        f"The engine has a record of {count} items of {name!r}, of which FlowyML reads {MOST_ITEMS} in a run. If the "
        f"loop has fewer, another program has written the record: start the run again, and see who may write there."
    )


def labelled(name: str, index: Sequence[int]) -> str:
    """Return a step, or another node in a loop, with its item: ``train[3]``."""
    return f"{name}{''.join(f'[{number}]' for number in index)}"
