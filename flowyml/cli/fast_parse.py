"""Command lines that are plainly right, read without Typer. Whatever is not plain is left to it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flowyml.cli.options import Argument, Option

__all__ = ["parse"]

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")


class _NotPlain(Exception):
    """Typer is to read it, and to explain what is wrong, if anything is."""


def parse(command: Callable[..., object], arguments: Sequence[str]) -> dict[str, Any] | None:
    """The values for a command; None for help, mistakes, and rare spellings such as ``-n5`` or ``--``."""
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters
    words = [name for name, hint in hints.items() if name in parameters and _is_argument(hint)]
    options = {
        spelling: name
        for name, hint in hints.items()
        if name in parameters and isinstance(hint.__metadata__[0], Option)
        for spelling in hint.__metadata__[0].names
    }
    try:
        values = _read(arguments, words, options, hints)
    except _NotPlain:
        return None
    for name, parameter in parameters.items():
        if name not in values:
            if parameter.default is parameter.empty:
                return None
            values[name] = parameter.default
    return values


def _read(
    arguments: Sequence[str], words: Sequence[str], options: Mapping[str, str], hints: Mapping[str, Any]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    left, free = list(arguments), list(words)
    while left:
        spelling, equals, text = (word := left.pop(0)).partition("=")
        if word.startswith("-"):
            name = options.get(spelling)
            if name is None or (equals and not word.startswith("--")):
                raise _NotPlain
            hint = hints[name].__origin__
            if hint is bool:
                if equals:
                    raise _NotPlain
                values[name] = True
                continue
            if not equals:
                text = _next(left)
            _set(values, name, hint, hints[name].__metadata__[0], text)
        elif free and word:
            _set(values, (name := free.pop(0)), hints[name].__origin__, None, word)
        else:
            raise _NotPlain
    return values


def _next(left: list[str]) -> str:
    if not left or left[0].startswith("-"):
        raise _NotPlain
    return left.pop(0)


def _set(values: dict[str, Any], name: str, hint: Any, option: Option | None, text: str) -> None:
    kind = _plain_kind(hint)
    if get_origin(kind) is list:
        values.setdefault(name, []).append(text)
        return
    value = _value(kind, text)
    if option is not None and option.min is not None and value < option.min:
        raise _NotPlain
    values[name] = value


def _plain_kind(hint: Any) -> Any:
    """The type itself where None is the other choice."""
    if isinstance(hint, UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    if kind is Path:
        return Path(text)
    if get_origin(kind) is Literal and text in get_args(kind):
        return text
    if kind in (int, float) and _NUMBER.fullmatch(text) and (kind is float or text.isdecimal()):
        return kind(text)
    raise _NotPlain


def _is_argument(hint: Any) -> bool:
    return isinstance(hint.__metadata__[0], Argument) if hasattr(hint, "__metadata__") else False
