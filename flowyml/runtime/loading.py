"""Load the user's code: from an unpacked bundle to functions and hooks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from flowyml.artifacts.pickling import read_pickle, set_worker_main
from flowyml.core.errors import PlanError, StepError
from flowyml.core.hooks import PipelineHook
from flowyml.core.loading import is_loading, loading
from flowyml.plan.model import Plan, Step
from flowyml.runtime.bytecode_cache import KeepingLoader
from flowyml.runtime.code import Code
from flowyml.runtime.execution import step_error

__all__ = [
    "ENDS_LOADING",
    "StopLoading",
    "import_from",
    "is_loading",
    "load_code",
    "load_function",
    "load_hooks",
    "load_step",
    "loading",
    "stop_if_loading",
]

ENDS_LOADING = frozenset({"run", "submit", "schedule", "deploy"})
"""The methods of a pipeline that end the loading of the script that calls them."""


class StopLoading(BaseException):
    """Ends the import of a module at the line that would run a pipeline; only the code above it is needed."""


def stop_if_loading(pipeline: str, verb: str) -> None:
    """Stop here if a script is only being imported: it must not run, submit or schedule its pipeline again."""
    if is_loading():
        raise StopLoading(f"pipeline {pipeline!r}: {verb}() while its module is loaded")


def load_code(folder: str | Path, plan: Plan) -> Code:
    """Return the functions and hooks of a plan, from its unpacked bundle. Raises whatever the user's modules raise."""
    root = Path(folder)
    return Code({step.name: load_step(root, step) for step in plan}, load_hooks(root))


def load_step(folder: Path, step: Step) -> Callable[..., Any]:
    """Return the function of a step. Raises ``PlanError``, ``StepError``, or whatever the user's module raises."""
    try:
        return load_function(folder, step.function)
    except SystemExit as exit_:  # as argparse does, which finds other arguments here, or none
        message = f"the module of step {step.name!r} called sys.exit({exit_.code!r}) when it was imported"
        raise step_error(StepError, step, f"{message}. Put that under `if __name__ == '__main__'`.") from exit_


def load_function(folder: Path, reference: str) -> Callable[..., Any]:
    """Return a function, by its reference in a plan. Raises ``PlanError``, or whatever the user's module raises."""
    import_from(folder)
    if reference.startswith("pickle:"):
        return _bare(_load_object(folder, reference.removeprefix("pickle:")))
    module, _, qualname = reference.partition(":")
    return _bare(_resolve(module, qualname))


def load_hooks(folder: Path) -> Sequence[PipelineHook]:
    import_from(folder)
    return tuple(_load_object(folder, "hooks")) if (folder / "objects" / "hooks.pkl").is_file() else ()


def _load_object(folder: Path, key: str) -> Any:
    with loading():
        return read_pickle(folder / "objects" / f"{key}.pkl")


def _resolve(module: str, qualname: str) -> Any:
    with loading():
        value = import_module(module)
    try:
        return reduce(getattr, qualname.split("."), value)
    except AttributeError as error:
        raise PlanError(
            f"Module {module!r} has no {qualname!r} when it is imported. Define steps above the line that runs the "
            f"pipeline, and outside `if __name__ == '__main__'`."
        ) from error


def _bare(value: Any) -> Callable[..., Any]:
    """Return the function itself, if ``@step`` has wrapped it."""
    if type(value).__name__ == "Step" and type(value).__module__.partition(".")[0] == "flowyml":
        value = value.function
    if not callable(value):
        raise PlanError(f"The plan refers to {value!r:.80}, which is not a function.")
    return value  # type: ignore[no-any-return]  # callable() says so


def import_from(folder: Path) -> None:
    """Make a bundle's modules importable: the user's before installed ones, as beside a script."""
    code = str(folder / "code")
    if any(isinstance(finder, _Finder) and finder.code == code for finder in sys.meta_path):
        return
    _forget_others()
    sys.path.insert(0, code)
    sys.path.append(str(folder))  # cloudpickle, where none is installed
    sys.meta_path.insert(0, _Finder(str(folder), code))
    _borrow_rooms(folder)
    invalidate_caches()
    set_worker_main(json.loads((folder / "bundle.json").read_bytes())["main"])


def _borrow_rooms(folder: Path) -> None:
    """Import packages that the bundle lacks, such as ``flowyml.graph``, from an installed FlowyML, if there is one."""
    rooms = sys.modules["flowyml"].__path__
    others = [Path(place, "flowyml") for place in sys.path if Path(place).is_absolute() and Path(place) != folder]
    installed = [str(other) for other in others if (other / "__init__.py").is_file()]
    rooms.extend(place for place in installed if place not in rooms)


def _forget_others() -> None:
    """Forget modules of another bundle, which may have the same names."""
    for finder in [finder for finder in sys.meta_path if isinstance(finder, _Finder)]:
        sys.meta_path.remove(finder)
        if finder.code in sys.path:  # the user's code may have changed it
            sys.path.remove(finder.code)
        for name, module in list(sys.modules.items()):
            if isinstance(getattr(module, "__loader__", None), _QuietLoader):
                del sys.modules[name]


class _Finder:
    """Finds the bundle's own modules, the user's and FlowyML's."""

    def __init__(self, folder: str, code: str) -> None:
        self.folder = folder
        self.code = code

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        places = [self.code] if path is None else [place for place in path if place.startswith(self.folder)]
        spec = PathFinder.find_spec(name, places)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        kind = _QuietLoader if str(spec.loader.path).startswith(self.code) else KeepingLoader
        spec.loader = kind(spec.loader.name, str(spec.loader.path))
        return spec


class _QuietLoader(KeepingLoader):
    """Ends the import of a module, without an error, at the line that would start a run."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, up to the line that would start a run."""
        with loading(), suppress(StopLoading):
            super().exec_module(module)
