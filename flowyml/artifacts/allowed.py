"""Whether values may be pickled: reading a pickle runs whatever its writer wanted."""

from __future__ import annotations

import os
from pathlib import Path

from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import read_settings, settings_file

__all__ = ["why_no_pickles"]

_VARIABLE = "FLOWYML_ALLOW_PICKLE"
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def why_no_pickles() -> str | None:
    """What forbids them here; None if nothing does.

    That is the environment, which wins, or ``allow_pickle = false`` in the settings. It is asked when a run begins, and
    a step may delete the working folder: the settings that were found before count then. Raises
    ``ConfigurationError`` for a word that is neither yes nor no.
    """
    if word := os.environ.get(_VARIABLE):
        return None if _meant(word, _VARIABLE) else f"{_VARIABLE}={word}"
    file = _file()
    found = read_settings(file).get("allow_pickle", True) if file else True
    return None if _meant(found, f"{file}: allow_pickle") else f"allow_pickle = false in {file}"


_known: list[Path | None] = []


def _file() -> Path | None:
    try:
        _known[:] = [settings_file()]
    except ConfigurationError:
        if not _known:
            raise
    return _known[0]


def _meant(word: object, place: str) -> bool:
    meant = word if isinstance(word, bool) else _WORDS.get(str(word).strip().lower())
    if meant is None:
        raise ConfigurationError(f"{place} is {word!r}. Write true or false.")
    return meant
