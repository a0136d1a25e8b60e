"""Load a pipeline and its parameters from the arguments of a command, ``FILE[:NAME]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowyml.authoring.pipeline import Pipeline
from flowyml.cli.errors import UsageError
from flowyml.core.errors import DefinitionError, FlowymlError, ParameterError
from flowyml.core.modules import is_module_name
from flowyml.plan.groups import Section
from flowyml.plan.model import Parameter, Plan
from flowyml.plan.parameters import is_json, is_too_deep, too_deep
from flowyml.runtime.loading import StopLoading, loading

if TYPE_CHECKING:
    from flowyml.orchestrators.base import RunnablePipeline

__all__ = ["load", "read_parameters", "read_values"]

_WORDS = ("NaN", "Infinity", "-Infinity")
"""Words that Python's JSON reader accepts as numbers. Alone, such a word is text; in a list or a dict it is refused."""


def load(reference: str) -> RunnablePipeline:
    """Return the pipeline in a file, a module or a bundle.

    Lines that would run it when the file is executed have no effect.
    """
    place, name = _parted(reference)
    if place.endswith(".pyz"):
        return _bundled(place, name)
    module, stopped = _module(place)
    return _chosen(module, place, name, stopped)


def read_parameters(plan: Plan, assignments: Iterable[str]) -> dict[str, Any]:
    """Read ``-p NAME=VALUE``: plain text for a text parameter, else JSON if the value is JSON."""
    return read_values(assignments, {parameter.name: parameter for parameter in plan.parameters})


def read_values(assignments: Iterable[str], known: Mapping[str, Parameter] = {}) -> dict[str, Any]:
    """Read the same if the pipeline's own parameters are unknown."""
    values = {}
    for item in assignments:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"-p {item!r}: write NAME=VALUE, such as -p rows=500.")
        if name in values:
            raise UsageError(f'-p {name}: it is given twice. A list is written as JSON: -p \'{name}=["a", "b"]\'.')
        values[name] = _value(name, text, known.get(name))
    return values


def _value(name: str, text: str, parameter: Parameter | None) -> Any:
    if parameter is not None and parameter.schema.get("type") == "string":
        return text
    if text in _WORDS:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise UsageError(too_deep(f"-p {name}")) from None
    if parameter is None and is_too_deep(value):
        raise UsageError(too_deep(f"-p {name}"))
    if parameter is None and not is_json(value):  # else the check of the parameter refuses it
        raise UsageError(f"-p {name}: {value!r:.60} is not plain JSON, which has no NaN and no infinity.")
    return text if parameter is not None and parameter.schema and _fits_only_as_text(parameter, value, text) else value


def _fits_only_as_text(parameter: Parameter, value: Any, text: str) -> bool:
    """Return whether a value fits only as text, for a parameter of several types: ``-p tag=7`` for ``str | None``."""
    from flowyml.plan.parameters import check_values

    def fits(candidate: Any) -> bool:
        with suppress(ParameterError):
            check_values("", [parameter], {parameter.name: candidate})
            return True
        return False

    return not fits(value) and fits(text)


def _parted(reference: str) -> tuple[str, str | None]:
    """Return the file or module, and the name after the colon."""
    if Path(reference).exists():
        return reference, None
    place, colon, name = reference.rpartition(":")
    return (place, name) if colon and place and name else (reference, None)


def _bundled(place: str, name: str | None) -> RunnablePipeline:
    from flowyml.orchestrators.bundled import BundledPipeline

    if not Path(place).is_file():
        raise UsageError(f"{place} does not exist. Name a bundle, as `flowyml bundle` writes it.")
    pipeline = BundledPipeline(place)
    if name not in (None, pipeline.name):
        raise UsageError(f"{place} contains the pipeline {pipeline.name!r}, not {name!r}.")
    return pipeline


def _module(place: str) -> tuple[ModuleType, bool]:
    """Return the module, and whether a line that would have run a pipeline ended its import."""
    if place.endswith(".py") or "/" in place or Path(place).is_file():
        return _of_file(Path(place))
    sys.path.insert(0, str(Path.cwd()))
    try:
        with _loading(place):
            spec = _found(place)
    except StopLoading:
        raise UsageError(
            f"{place}: importing its package runs a pipeline. Move that out of the package's __init__.py."
        ) from None
    if spec is None or spec.loader is None:
        raise UsageError(f"{place!r} is neither a file nor a module. Name a Python file, a module, or a bundle.")
    return _execute(spec, place)


def _found(name: str) -> ModuleSpec | None:
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        return find_spec(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise


def _of_file(path: Path) -> tuple[ModuleType, bool]:
    """Return the module of a file, under its name on workers."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Name a Python file in it, a module such as package.train, or a bundle.")
    if not path.is_file():
        raise UsageError(f"{path} does not exist. Name a Python file, a module such as package.train, or a bundle.")
    if path.suffix != ".py":
        raise UsageError(f"{path} is neither a Python file (.py) nor a bundle (.pyz).")
    root, name = _importable(path.resolve())
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = spec_from_file_location(name, path.resolve())
    assert spec is not None
    return _execute(spec, str(path))


def _execute(spec: ModuleSpec, place: str) -> tuple[ModuleType, bool]:
    module = sys.modules[spec.name] = module_from_spec(spec)
    assert spec.loader is not None
    try:
        with _loading(place):
            spec.loader.exec_module(module)
    except StopLoading:
        return module, True
    return module, False


def _importable(path: Path) -> tuple[str, str]:
    """Return the folder to import from, and the module's name there: dotted if the file belongs to a package."""
    names, folder = [path.stem], path.parent
    if not is_module_name(path.stem):
        raise UsageError(f"{path.name}: workers cannot import a module of this name. Rename it, say to train.py.")
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        names.insert(0, folder.name)
        folder = folder.parent
    name = ".".join(names)
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if name in sys.modules and (loaded is None or Path(loaded).resolve() != path) and name in sys.stdlib_module_names:
        raise UsageError(f"{path.name} has the name of a module of Python's own. Rename it.")
    return str(folder), name


@contextmanager
def _loading(place: str) -> Iterator[None]:
    """Load code of the user's in the block: the code starts no run, and its errors are reported as the file's."""
    arguments, sys.argv = sys.argv, [place]
    try:
        with loading(by="command"):
            yield
    except SystemExit as error:
        raise UsageError(
            f"{place} called sys.exit({error.code!r}) when it was loaded, without arguments. Put that, and the reading "
            f"of arguments, under `if __name__ == '__main__'`.",
            _traceback(error),
        ) from error
    except Exception as error:
        if isinstance(error, DefinitionError) and error.place:  # which says all of it
            raise UsageError(str(error)) from error
        from flowyml.runtime.tracebacks import described

        raise UsageError(f"{place} cannot be loaded: {described(error)}", _traceback(error)) from error
    finally:
        sys.argv = arguments


def _traceback(error: BaseException) -> str:
    """Return the traceback from the user's own frames. A syntax error has no frames, and has its own line."""
    if isinstance(error, SyntaxError):
        from traceback import format_exception_only

        return "".join(format_exception_only(error))
    from flowyml.runtime.tracebacks import traceback_text

    return traceback_text(error)


def _chosen(module: ModuleType, place: str, name: str | None, stopped: bool) -> Pipeline:
    pipelines = {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}
    if name is not None:
        named = [pipeline for pipeline in pipelines.values() if pipeline.name == name]
        if chosen := [*filter(None, [pipelines.get(name)]), *named]:
            return chosen[0]
        raise UsageError(f"{place} has no pipeline {name!r}. {_known(pipelines, place)}")
    different = {id(value): value for value in pipelines.values()}
    if len(different) > 1 and len(whole := _whole(different.values())) == 1:
        return whole[0]
    if len(different) == 1:
        return next(iter(different.values()))
    if not different:
        hint = (
            " Loading stopped at the line that runs a pipeline: assign that pipeline to a variable first."
            if stopped
            else ""
        )
        raise UsageError(f"{place} has no pipeline at module level.{hint}")
    raise UsageError(f"{place} has several pipelines. {_known(pipelines, place)}")


def _whole(pipelines: Collection[Pipeline]) -> Sequence[Pipeline]:
    """Return the pipelines that none of the others calls."""
    called: set[str] = set()
    for pipeline in pipelines:
        with suppress(FlowymlError):
            called |= {group.pipeline for group in pipeline.compile().groups if isinstance(group, Section)}
    return [pipeline for pipeline in pipelines if pipeline.name not in called]


def _known(pipelines: Mapping[str, Pipeline], place: str) -> str:
    if not pipelines:
        return "It has none at module level."
    return f"Choose one of: {', '.join(f'{place}:{key}' for key in pipelines)}."
