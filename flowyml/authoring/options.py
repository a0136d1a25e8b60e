"""Keywords that do not exist get an answer, not only a refusal."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import ParamSpec, TypeVar

from flowyml.core.errors import UnknownOptionError

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["names_unknown_options"]


def names_unknown_options(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a callable so that an unknown keyword raises ``UnknownOptionError`` with the nearest known one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = [name for name in inspect.signature(function).parameters if name != "self"]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known:
                    near = get_close_matches(name, known, 1)
                    hint = f" Did you mean {near[0]!r}?" if near else ""
                    raise UnknownOptionError(f"{what} has no option {name!r}.{hint} It takes: {', '.join(known)}.")
            return function(*args, **kwargs)

        return checked

    return decorate
