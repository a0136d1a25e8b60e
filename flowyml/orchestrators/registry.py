"""Orchestrators by name: the entry points of every installed package, and those that a program registers itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from flowyml.core.errors import FlowymlError, MissingExtraError, OrchestratorNotFoundError, PluginError
from flowyml.core.near_names import did_you_mean
from flowyml.orchestrators.base import Orchestrator

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "GROUP",
    "Factory",
    "declared",
    "default",
    "load",
    "missing",
    "not_found",
    "register",
    "require_engine",
    "worker_packages",
]

GROUP = "flowyml.orchestrators"

Factory = Callable[..., Orchestrator]
"""A subclass of ``Orchestrator``, or a function that returns an orchestrator."""

_UNDER_EXTRA = re.compile(r"""(?P<package>[A-Za-z0-9._-]+).*\bextra\s*==\s*['"](?P<extra>[^'"]+)['"]""")
_BUILT_IN = {"local": "flowyml.orchestrators.local:LocalOrchestrator"}
_registered: dict[str, Factory] = {}


def default() -> str:
    return os.environ.get("FLOWYML_ORCHESTRATOR") or "local"


def register(name: str, factory: Factory) -> None:
    """Register an orchestrator in this process, by a name that takes precedence over an installed one."""
    _registered[name] = factory


def declared() -> tuple[str, ...]:
    """Return the names of all orchestrators, sorted. Some may be unusable: nothing is imported to find out."""
    return tuple(sorted({*_BUILT_IN, *_entry_points(), *_registered}))


def load(name: str) -> Factory:
    """Return the class behind a name, whether its engine is installed or not."""
    if factory := _registered.get(name):
        return factory
    found = _entry_points().get(name, ())
    if len({point.value for point in found}) > 1:
        owners = " and ".join(sorted(_owner(point) for point in found))
        raise PluginError(f"{owners} both declare an orchestrator {name!r}. Uninstall one of them.")
    if found:
        return _import(found[0])
    if name in _BUILT_IN:
        from importlib.metadata import EntryPoint

        return _import(EntryPoint(name, _BUILT_IN[name], GROUP))
    raise OrchestratorNotFoundError(not_found(name, declared()))


def missing(factory: Factory) -> str | None:
    """Return the command that installs what the engine still needs; None if nothing is missing."""
    package = getattr(factory, "engine_package", None)
    if package is None or _is_importable(package):
        return None
    return f"pip install 'flowyml[{getattr(factory, 'extra', None) or factory.__name__}]'"


def require_engine(factory: Factory) -> None:
    """Raise ``MissingExtraError`` unless the engine's client library is installed."""
    if command := missing(factory):
        package = getattr(factory, "engine_package", None)
        name = getattr(factory, "name", factory.__name__)
        raise MissingExtraError(f"{name!r} needs the package {package!r}, which is not installed: {command}")


def packages() -> set[str]:
    """Return the installed packages that declare orchestrators."""
    return {point.module.partition(".")[0] for points in _entry_points().values() for point in points}


def worker_packages(code: Collection[bytes]) -> set[str]:
    """Return the packages of orchestrators that code names, with those that they declare: workers load that code."""
    points = [point for same_name in _entry_points().values() for point in same_name]
    installed = [(point.value, partial(_declared_packages, point)) for point in points]
    loaded = [(kind.__module__, partial(getattr, kind, "worker_packages")) for kind in _subclasses(Orchestrator)]
    found: set[str] = set()
    for place, declared_by in [*installed, *loaded]:
        package = re.split(r"[.:\s]", place.strip())[0]
        word = re.compile(rb"\b%s\b" % re.escape(package.encode()))
        if package not in ("flowyml", "__main__") and any(map(word.search, code)):
            found.add(package)
            with suppress(FlowymlError):  # which is raised where the orchestrator is used
                found.update(declared_by())
    return found


def _declared_packages(point: EntryPoint) -> tuple[str, ...]:
    return getattr(_import(point), "worker_packages", ())


def _subclasses(kind: type) -> Iterator[type]:
    """Yield the subclasses that this process has loaded, including those without an entry point."""
    found: type
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)


def not_found(name: str, known: tuple[str, ...]) -> str:
    """Return the message for an unknown name, with similar names."""
    from flowyml.core.urls import redact_url

    return f"No orchestrator is called {redact_url(name)!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."


@cache
def _entry_points() -> Mapping[str, tuple[EntryPoint, ...]]:
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}


def _import(point: EntryPoint) -> Factory:
    try:
        factory = point.load()
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (command := _missing_extra(point, error)):
            raise MissingExtraError(
                f"{point.name!r} needs the package {error.name!r}, which is not installed: {command}"
            ) from error
        raise PluginError(
            f"The orchestrator {point.name!r} of {_owner(point)} cannot be loaded from {point.value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise PluginError(f"The orchestrator {point.name!r} of {_owner(point)}: {point.value} is not callable.")
    return factory  # type: ignore[no-any-return]  # an entry point is typed Any; that it is callable was just checked


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "FlowyML"


def _is_importable(package: str) -> bool:
    """Return False for a stray folder of that name, which Python takes for a namespace package; True for a real one."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    return spec.origin is not None or "." in package or _has_metadata(package)


def _has_metadata(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _missing_extra(point: EntryPoint, error: ModuleNotFoundError) -> str | None:
    """Return the command that installs a module which the adapter's own distribution declares under an extra."""
    if point.dist is None or not error.name:
        return None
    root = _plain(error.name.partition(".")[0])
    for requirement in point.dist.requires or ():
        match = _UNDER_EXTRA.match(requirement)
        if match is None or _has_metadata(match["package"]):
            continue
        if root == _plain(match["package"]) or match["extra"] == point.name:
            return f"pip install '{point.dist.name}[{match['extra']}]'"
    return None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
