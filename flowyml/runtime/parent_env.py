"""The settings of a parent process with which a child finds the same modules and classes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowyml.artifacts.pickling import decide_on_pickles, set_worker_main
from flowyml.core.logs import levels_here
from flowyml.core.modules import shipped_name

__all__ = ["apply_parent_env", "read_parent_env"]


def read_parent_env() -> dict[str, Any]:
    """Read this process's settings as plain JSON.

    They are its import path, the name of its script as a module, the script's arguments, the levels of its loggers, and
    the reason if pickles are forbidden.
    """
    main = shipped_name("__main__")
    is_script = main is not None and main.partition(".")[0] != "flowyml"
    arguments = sys.argv[1:] if is_script else []
    return {
        "path": _import_path(), "main": main, "arguments": arguments, "levels": levels_here(),
        "no_pickles": decide_on_pickles(),
    }  # fmt: skip


def apply_parent_env(caller: Mapping[str, Any]) -> None:
    """Import from the parent's folders, after this process's own; find classes of its ``__main__`` by their other name.

    The script's module gets the script's arguments, too.
    """
    sys.path.extend(path for path in caller.get("path", ()) if path not in sys.path)
    if "arguments" in caller:
        sys.argv[1:] = caller["arguments"]
    if main := caller.get("main"):
        set_worker_main(main)


def _import_path() -> list[str]:
    """Return the import path, absolute: a relative path leads nowhere if the working folder has been deleted."""
    paths = []
    for path in sys.path:
        with suppress(FileNotFoundError):
            paths.append(str(Path(path).absolute()))
    return paths
