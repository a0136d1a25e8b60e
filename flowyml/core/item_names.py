"""The name of a step with its item of a loop. Workers import this instead of the records of runs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["labelled"]


def labelled(name: str, index: Sequence[int]) -> str:
    """Return a step, or another node in a loop, with its item: ``train[3]``."""
    return f"{name}{''.join(f'[{number}]' for number in index)}"
