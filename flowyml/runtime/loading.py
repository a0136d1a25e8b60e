"""Bring the user's code to life: from an unpacked bundle to functions and hooks."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from flowyml.core.errors import PlanError
from flowyml.core.hooks import PipelineHook
from flowyml.plan.model import Plan
from flowyml.runtime.bootstrap import unpacked
from flowyml.runtime.code import Code

__all__ = ["StopLoading", "is_loading", "load_code", "load_function", "loading", "stop_if_loading", "unpacked"]

_loading: ContextVar[bool] = ContextVar("flowyml_loading", default=False)


class StopLoading(BaseException):
    """Ends the import of a module at the line that would run a pipeline; what stands above is all that is needed."""


def is_loading() -> bool:
    """True while the runtime imports the user's modules, in this thread."""
    return _loading.get()


def stop_if_loading(pipeline: str, verb: str) -> None:
    """Called before a pipeline is run, submitted or scheduled: a script that is only imported must not do so again."""
    if is_loading():
        raise StopLoading(f"pipeline {pipeline!r}: {verb} while its module is loaded")


@contextmanager
def loading() -> Iterator[None]:
    """Mark what happens within as the loading of code."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def load_code(folder: str | Path, plan: Plan) -> Code:
    """The functions and hooks of a plan, from its unpacked bundle."""
    root = Path(folder)
    return Code({step.name: load_function(root, step.function) for step in plan}, load_hooks(root))


def load_function(folder: Path, reference: str) -> Callable[..., Any]:
    """One function, as a plan refers to it. Raises ``PlanError``, or whatever the user's module raises."""
    import_from(folder)
    if reference.startswith("pickle:"):
        function = load_object(folder, reference.removeprefix("pickle:"))
    else:
        module, _, qualname = reference.partition(":")
        function = _resolve(module, qualname)
    return _bare(function)


def load_hooks(folder: Path) -> Sequence[PipelineHook]:
    """The hooks of a bundle; none if it has none."""
    import_from(folder)
    return tuple(load_object(folder, "hooks")) if (folder / "objects" / "hooks.pkl").is_file() else ()


def load_object(folder: Path, key: str) -> Any:
    """Unpickle one of the bundle's objects."""
    data = (folder / "objects" / f"{key}.pkl").read_bytes()
    with loading():
        return _Unpickler(io.BytesIO(data), folder).load()


def import_from(folder: Path) -> None:
    """Let modules be imported from a bundle: the user's before installed ones, as beside a script."""
    code = str(folder / "code")
    if code not in sys.path:
        sys.path.insert(0, code)
        sys.path.append(str(folder))  # cloudpickle, if no newer one is installed
        sys.meta_path.insert(0, _Finder(code))


def main_module(folder: Path) -> str | None:
    """The module that was ``__main__`` where the pipeline was defined."""
    path = folder / "bundle.json"
    main = json.loads(path.read_bytes()).get("main") if path.is_file() else None
    return main if isinstance(main, str) else None


class _Unpickler(pickle.Unpickler):
    """Reads pickles that were made in a script, where the script's own classes are those of ``__main__``."""

    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file)
        self._main = main_module(folder)

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(self._main if module == "__main__" and self._main else module, name)


class _Finder:
    """Finds the bundle's own modules, and ends their import quietly where it would start a run."""

    def __init__(self, code: str) -> None:
        self.code = code

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, [self.code] if path is None else [p for p in path if p.startswith(self.code)])
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _QuietLoader(spec.loader.name, str(spec.loader.path))
        return spec


class _QuietLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except StopLoading:
            return


def _resolve(module: str, qualname: str) -> Any:
    with loading():
        found = import_module(module)
    try:
        return reduce(getattr, qualname.split("."), found)
    except AttributeError as error:
        raise PlanError(
            f"Module {module!r} has no {qualname!r} when it is imported. Define steps above the line that runs the "
            f"pipeline, and outside `if __name__ == '__main__'`."
        ) from error


def _bare(found: Any) -> Callable[..., Any]:
    """The function itself where ``@step`` has wrapped it."""
    if type(found).__module__.startswith("flowyml.authoring"):
        found = found.function
    if not callable(found):
        raise PlanError(f"The plan refers to {found!r:.80}, which is no function.")
    return found  # type: ignore[no-any-return]  # callable() says so
