"""What a process must know of the process that started it, so that it finds the same modules and classes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowyml.artifacts.allowed import decide_on_pickles
from flowyml.artifacts.pickling import set_worker_main
from flowyml.core.logs import levels_here
from flowyml.core.modules import shipped_name

__all__ = ["apply_parent_env", "read_parent_env"]


def read_parent_env() -> dict[str, Any]:
    """As plain JSON: where this process imports from, the name of its script as a module, the script's arguments, the
    levels of its loggers, and what forbids pickles.
    """
    main = shipped_name("__main__")
    is_script = main is not None and main.partition(".")[0] != "flowyml"
    arguments = sys.argv[1:] if is_script else []
    return {
        "path": _import_path(), "main": main, "arguments": arguments, "levels": levels_here(),
        "no_pickles": decide_on_pickles(),
    }  # fmt: skip


def apply_parent_env(caller: Mapping[str, Any]) -> None:
    """Import from the same places, after this process's own, and find classes of ``__main__`` by their other name.

    The script's module finds the script's arguments, too.
    """
    sys.path.extend(path for path in caller.get("path", ()) if path not in sys.path)
    if "arguments" in caller:
        sys.argv[1:] = caller["arguments"]
    if main := caller.get("main"):
        set_worker_main(main)


def _import_path() -> list[str]:
    """Absolute paths. A relative one leads nowhere if the working folder has been deleted."""
    paths = []
    for path in sys.path:
        with suppress(FileNotFoundError):
            paths.append(str(Path(path).absolute()))
    return paths
