"""Replaces parts of a module that is loaded, by code of a file that imports nothing by a name made at run time.

The code of a replacement counts, with all that its file may import: of a test module that is the whole checkout.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

__all__ = ["NEGATED", "NINE", "REPLACED", "Kind", "wrapped"]

NEGATED: Callable[[int], int] = lambda x: -x  # noqa: E731  # a lambda has no name of its own
NINE: Callable[[], int] = lambda: 9  # noqa: E731  # the same


class Kind:
    """With a method of the name of one that it replaces, as mocks have that keep the name."""

    def factor(self) -> int:
        return 4


def wrapped(function: Callable[..., Any], value: int = 9) -> Callable[..., Any]:
    return wraps(function)(lambda *_: value)


REPLACED: dict[str, Callable[[Any, int], None]] = {
    "replace a global": lambda helper, value: setattr(helper, "RATE", value),
    "replace a class's attribute": lambda helper, value: setattr(helper.Kind, "SIZE", value),
    "replace a method": lambda helper, value: setattr(helper.Kind, "factor", lambda self: value),
    "replace a default": lambda helper, value: setattr(helper.closure, "__defaults__", (value,)),
    "replace a registered function": lambda helper, value: helper.registered.update(one=lambda: value),
    "replace a function by a wrapper": lambda helper, value: setattr(helper, "scaled", wrapped(helper.scaled, value)),
    "replace a method by a wrapper": lambda helper, value: setattr(
        helper.Kind, "factor", wrapped(helper.Kind.factor, value)
    ),
    "replace a dataclass's field": lambda helper, value: setattr(helper, "Shape", lambda: value),
}
