"""Find the code that a pipeline needs on workers: references to functions, and files for the bundle.

A function that can be imported is referred to by name, and its modules are shipped as files. A function that cannot be
imported, from a notebook or inside another function, is pickled by value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml.authoring.data_files import chosen_files, read_included
from flowyml.authoring.module_files import imported_files
from flowyml.authoring.steps import Step
from flowyml.core.hooks import PipelineHook
from flowyml.core.modules import found_by_name, import_root, shipped_name, source_file
from flowyml.plan.names import slug

if TYPE_CHECKING:
    from flowyml.core.origin import Origin
    from flowyml.plan.bundle import Bundle
    from flowyml.plan.model import Plan

__all__ = ["collect", "function_reference", "included_files"]


def function_reference(step: Step[..., Any], name: str) -> str:
    """Return a worker's reference to the function: ``"module:qualified.name"``, or ``"pickle:KEY"``."""
    function = step.function
    module = shipped_name(getattr(function, "__module__", None))
    found = found_by_name(function)
    if module is not None and (found is function or (isinstance(found, Step) and found.function is function)):
        return f"{module}:{function.__qualname__}"
    return f"pickle:{slug(name)}"


def collect(
    plan: Plan,
    steps: Mapping[str, Step[..., Any]],
    hooks: Sequence[PipelineHook],
    home: Callable[..., Any] | None,
    include: Iterable[str],
    origin: Origin,
) -> Bundle:
    """Build the bundle of a plan: its modules, its data files, and its pickles."""
    from flowyml.authoring.function_versions import code_version
    from flowyml.authoring.pickles import pickled
    from flowyml.orchestrators.registry import worker_packages
    from flowyml.plan.bundle import build

    referred: dict[str, None] = {}  # a dict keeps the order
    objects = {
        step.function.removeprefix("pickle:"): pickled(steps[step.name].function, f"step {step.name!r}", referred)
        for step in plan
        if step.function.startswith("pickle:")
    }
    versions = {
        step.function.removeprefix("pickle:"): code_version(steps[step.name].function)
        for step in plan
        if step.function.startswith("pickle:")
    }
    if hooks:
        objects["hooks"] = pickled(tuple(hooks), "hooks", referred)
    first = home or next(iter(steps.values())).function
    owners = [first, *(step.function for step in steps.values()), *map(type, hooks)]
    modules = dict.fromkeys([*map(_module_of, owners), *referred])
    beside = _loaded_beside(_main_folder()) if any(shipped_name(module) is None for module in modules) else ()
    files = imported_files([*modules, *beside])[0]
    folder, data = _included(include, _module_of(first), plan.name)
    files |= data
    main = shipped_name("__main__") if any(b"__main__" in data for data in objects.values()) else None
    code = [*(data for path, data in files.items() if path.endswith(".py")), *objects.values()]
    return build(
        plan, files=files, objects=objects, main=main, origin=origin, versions=versions, folder=folder,
        packages=worker_packages(code) - {path.partition("/")[0].removesuffix(".py") for path in files},
    )  # fmt: skip


def included_files(globs: Iterable[str], owner: Callable[..., Any], pipeline: str) -> dict[str, Path]:
    """Return the data files of the bundle, by their paths below the folder of ``owner``'s file.

    Raises ``DefinitionError`` for globs that a bundle cannot contain.
    """
    return chosen_files(_folder_of(_module_of(owner)), globs, pipeline)[0]


def _folder_of(module: str) -> Path:
    """Return the folder of a module's file; that of a notebook is the working folder."""
    path = source_file(sys.modules[module]) if module in sys.modules else None
    return path.parent if path else Path.cwd()


def _module_of(owner: Any) -> str:
    """Return the module of a function or class; for a partial, that of its function."""
    while isinstance(owner, partial):
        owner = owner.func
    return getattr(owner, "__module__", None) or type(owner).__module__


def _main_folder() -> Path:
    """Return the folder of a script's modules; for a notebook, the working folder."""
    path = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    return path.resolve().parent if path.is_file() else Path.cwd()


def _loaded_beside(root: Path) -> Iterator[str]:
    """Yield the modules that a notebook has imported from its own folder: its cells cannot be scanned for imports."""
    for name, module in list(sys.modules.items()):
        path = source_file(module)
        if path is not None and path.is_relative_to(root) and import_root(name, path) == root:
            yield name


def _included(globs: Iterable[str], module: str, pipeline: str) -> tuple[str, dict[str, bytes]]:
    """Return the folder of a module, relative to the one that it is imported from, and the data files below it.

    They have the same relative paths.
    """
    shipped = shipped_name(module)
    path = source_file(sys.modules[module]) if module in sys.modules else None
    folder = _folder_of(module)
    beside = folder.relative_to(import_root(shipped, path) if path and shipped else folder)
    files = read_included(folder, globs, pipeline)
    return beside.as_posix(), {(beside / name).as_posix(): data for name, data in files.items()}
