"""Check the options of a pipeline and its steps for one engine, ``@step(airflow={…})``: their names and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowyml.core.errors import UnknownOptionError
from flowyml.core.near_names import did_you_mean

__all__ = ["Check", "check_options"]

Check = tuple[str, Callable[[Any], bool]]
"""A description of valid values, in words that follow "is not", and a check."""


def check_options(
    engine: str, subject: str, options: Mapping[str, Any], known: Mapping[str, Check], hints: Mapping[str, str] = {}
) -> None:
    """Raise ``UnknownOptionError`` for an unknown name, or an invalid value.

    ``hints`` say why some names are unknown; they follow the name.
    """
    if unknown := sorted(options.keys() - known.keys()):
        hint = hints.get(unknown[0], "")
        near = "" if hint else did_you_mean(unknown[0], known)
        raise UnknownOptionError(
            f"{subject}: {engine} has no option {', '.join(map(repr, unknown))}{hint}.{near} "
            + (f"Known: {', '.join(sorted(known))}." if known else "It takes none.")
        )
    for name, value in options.items():
        expected, fits = known[name]
        if not fits(value):
            raise UnknownOptionError(f"{subject}: {engine} {name}={value!r:.80} is not {expected}.")
