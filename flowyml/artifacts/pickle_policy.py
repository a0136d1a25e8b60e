"""The decision whether values may be pickled: reading a pickle runs whatever its writer wanted.

It is made once, when a run begins, and passed to the run's workers: the user's code may change or delete the working
folder, where settings are looked up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import read_settings, settings_file

__all__ = ["decide_on_pickles", "pickles_decided", "why_no_pickles"]

_VARIABLE = "FLOWYML_ALLOW_PICKLE"
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


_decided: ContextVar[tuple[str | None] | None] = ContextVar("flowyml_pickles", default=None)


def why_no_pickles() -> str | None:
    """Say what forbids pickles here; None if nothing does.

    That is the decision for the run, else the environment, else ``allow_pickle = false`` in the settings. Raises
    ``ConfigurationError`` for a word that is neither yes nor no, and for settings that cannot be read.
    """
    if decided := _decided.get():
        return decided[0]
    if word := os.environ.get(_VARIABLE):
        return None if _meant(word, _VARIABLE) else f"{_VARIABLE}={word}"
    file = settings_file()
    found = read_settings(file).get("allow_pickle", True) if file else True
    return None if _meant(found, f"{file}: allow_pickle") else f"allow_pickle = false in {file}"


def decide_on_pickles() -> str | None:
    """Decide for a whole run, whose code may change the working folder. An error forbids pickles."""
    try:
        return why_no_pickles()
    except ConfigurationError as error:
        return str(error)


@contextmanager
def pickles_decided(reason: str | None) -> Iterator[None]:
    """Apply a result of ``decide_on_pickles`` within this context, and in threads that copy it."""
    token = _decided.set((reason,))
    try:
        yield
    finally:
        _decided.reset(token)


def _meant(word: object, place: str) -> bool:
    meant = word if isinstance(word, bool) else _WORDS.get(str(word).strip().lower())
    if meant is None:
        raise ConfigurationError(f"{place} is {word!r}. Write true or false.")
    return meant
