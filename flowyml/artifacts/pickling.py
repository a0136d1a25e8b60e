"""Pickles that mean the same in a script and on the workers that import it."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any, BinaryIO

from flowyml.core.modules import shipped_name

__all__ = ["Unpickler", "main_is", "read_pickle", "write_pickle"]

_main: list[str] = []  # on workers, the module that is __main__ where the pipeline was defined


def main_is(module: str | None) -> None:
    """Tell which module pickles mean by ``__main__``: that of the script which defined the pipeline."""
    _main[:] = [module] if module else []


def write_pickle(value: Any, file: BinaryIO) -> None:
    """By reference to importable classes where that is possible, else by value with cloudpickle."""
    if shipped_name("__main__") is not None:
        try:
            file.write(pickle.dumps(value, protocol=5))
        except (pickle.PicklingError, AttributeError, TypeError):
            pass
        else:
            return
    import cloudpickle

    file.write(cloudpickle.dumps(value, protocol=5))


def read_pickle(path: Path) -> Any:
    """Read what ``write_pickle`` wrote, here or in another process."""
    with path.open("rb") as file:
        return Unpickler(file).load()


class Unpickler(pickle.Unpickler):
    """Finds the classes of a script both where it is ``__main__`` and where it is imported by its name."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__" and _main:
            module = _main[0]
        elif module not in sys.modules and module == shipped_name("__main__"):
            module = "__main__"
        return super().find_class(module, name)
