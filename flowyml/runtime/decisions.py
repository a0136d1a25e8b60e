"""Decide whether a branch is taken, and which lists a loop iterates over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowyml.core.errors import StepError
from flowyml.plan.conditions import holds
from flowyml.plan.groups import Branch, Loop
from flowyml.plan.values import Source
from flowyml.runtime.tracebacks import described

__all__ = ["checked_lists", "is_taken"]


def is_taken(branches: Sequence[Branch], value_of: Callable[[Source], Any]) -> bool:
    """Return whether the last of these branches of a choice is taken: its condition holds, and no earlier one does.

    Raises ``StepError`` for a condition that raises.
    """
    for branch in branches:
        try:
            is_true = branch.condition is None or holds(branch.condition, value_of)
        except Exception as error:
            raise StepError(f"The condition of branch {branch.name!r} cannot be decided: {described(error)}") from error
        if is_true:
            return branch is branches[-1]
    return False


def checked_lists(loop: Loop, given: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the lists of a loop, by name.

    Raises ``StepError`` for a value that is not a list, and for lists of different lengths.
    """
    lists = {item.name: given[item.name] for item in loop.over}
    for name, items in lists.items():
        if not isinstance(items, list | tuple):
            what = "over a value" if name == "item" else f"over {name!r}"
            raise StepError(
                f"Loop {loop.name!r} goes {what} that is not a list: {type(items).__name__}. Return a list."
            )
    if len({len(items) for items in lists.values()}) > 1:
        shown = ", ".join(f"{name!r} has {len(items)}" for name, items in lists.items())
        raise StepError(f"The lists of loop {loop.name!r} are taken item by item and must be equally long: {shown}.")
    return lists
