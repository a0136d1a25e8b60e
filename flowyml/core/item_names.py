"""The name of a step with the item of a loop that it works on. Workers import this, and not the records of runs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["labelled"]


def labelled(name: str, index: Sequence[int]) -> str:
    """A step, or what else is in a loop, with the item that it works on: ``train[3]``."""
    return f"{name}{''.join(f'[{number}]' for number in index)}"
