"""The files of the user's modules as this process imported them, since an editor may save them later."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from flowyml.authoring.source_units import hash_of
from flowyml.core.modules import is_installed

__all__ = ["imported_digest", "note_modules"]


def note_modules() -> None:
    """Note the digests of the loaded modules' files. Call it when a cached step is defined: soon after the imports."""
    for name in sys.modules.keys() - _skipped:
        module = sys.modules[name]
        path = Path(getattr(module, "__file__", None) or "")
        if path.suffix != ".py" or name.startswith("flowyml.") or is_installed(path):
            _skipped.add(name)
        elif imported_digest(module) is None:
            with suppress(OSError):
                _noted[name] = getattr(module, "__spec__", None), hash_of(path)


def imported_digest(module: ModuleType) -> str | None:
    """Return the SHA-256 of the file that the module was imported from, in hexadecimal; None if it is not known."""
    spec, digest = _noted.get(module.__name__, (None, None))
    return digest if spec is getattr(module, "__spec__", None) else None  # a reload makes another specification


_skipped: set[str] = set()
_noted: dict[str, tuple[object, str]] = {}
