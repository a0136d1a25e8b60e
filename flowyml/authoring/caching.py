"""Decide which steps of a pipeline are cached, and by what key: from ``@step(cache=…)`` to the plan."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, is_typeddict

from flowyml.authoring.cache import Cache
from flowyml.authoring.calls import Call
from flowyml.authoring.code_digest import Reached, live_state, reached
from flowyml.authoring.source_lines import errors_at
from flowyml.authoring.source_units import hash_of
from flowyml.core.errors import DefinitionError
from flowyml.core.modules import first_version, is_installed
from flowyml.plan.model import SCHEMA_VERSION, Caching, Plan, Step
from flowyml.plan.types import is_model, leaves, wanted
from flowyml.runtime.code import LiveState

__all__ = ["included_data", "live_states", "with_caching"]

_MOST_NAMED = 20  # data files of a step: the plan, which has them, travels with each run


def with_caching(
    plan: Plan,
    calls: Sequence[Call],
    *,
    enabled: bool | None,
    data: Sequence[tuple[str, str]],
    before: Plan | None = None,
) -> Plan:
    """Return the plan with the parts of each cached step's key.

    ``enabled`` is that of ``Pipeline(enable_cache=…)``, ``data`` the data files in the bundle, as label and
    content. ``before`` is the earlier result for the same plan, which is returned again if it is still valid.

    Raises ``DefinitionError``.
    """
    by_name = {call.name: call for call in calls}
    chosen = {step.name: cache for step in plan if (cache := _wanted(plan, step, by_name[step.name], enabled))}
    if not chosen:
        return plan
    codes = {step.name: _reached(step, by_name[step.name]) for step in plan}
    makers = _makers(plan, codes)
    caching = {
        name: _caching(plan.by_name[name], by_name[name], cache, codes[name], makers[name], data)
        for name, cache in chosen.items()
    }
    if before is not None and all(step.caching == caching.get(step.name) for step in before):
        return before
    steps = tuple(replace(step, caching=caching.get(step.name)) for step in plan)
    return replace(plan, steps=steps, schema_version=SCHEMA_VERSION)


def included_data(files: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Return the data files in a bundle, by their paths on the worker, with their contents."""
    return [(name, hash_of(path)) for name, path in sorted(files.items())]


def live_states(plan: Plan, calls: Sequence[Call]) -> dict[str, Callable[[], LiveState]]:
    """Return for each cached step what reads the state of its code in this process, which changes as steps run."""
    by_name = {call.name: call for call in calls}
    functions = {step.name: by_name[step.name].step.function for step in plan if step.caching}
    return {
        name: partial(_live_state, plan.by_name[name], function, reached(function, by_value=False))
        for name, function in functions.items()
    }


def _live_state(step: Step, function: Callable[..., Any], begun: Reached) -> LiveState:
    """Return the state in this process of a step's code, which was ``begun`` when the run began."""
    state = live_state(function)
    if reached(function, by_value=False) != begun:
        state = state._replace(changed="its code, or a file that it names, has changed since the run began")
    return state._replace(digest="") if step.function.startswith("pickle:") else state  # which includes it


def _wanted(plan: Plan, step: Step, call: Call, enabled: bool | None) -> Cache | None:
    option = call.step.step_options.cache
    if enabled is False or option is False:
        return None
    if option is None:  # by default, a pipeline caches only steps that have a result
        is_plain = step.outputs and not step.secrets and step.run_if == "all_success"
        return Cache() if enabled and is_plain else None
    if plan.structure.is_cleanup(step.group):
        with errors_at(call.line):
            raise DefinitionError(f"step {step.name!r} cleans up, and is not cached. Drop cache=….")
    return option if isinstance(option, Cache) else Cache()


def _reached(step: Step, call: Call) -> Reached:
    try:
        return reached(call.step.function, by_value=step.function.startswith("pickle:"))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        with errors_at(call.line):
            raise DefinitionError(f"step {step.name!r} cannot be cached: its code cannot be read: {error}") from error


def _caching(
    step: Step, call: Call, cache: Cache, code: Reached, makers: str, data: Sequence[tuple[str, str]]
) -> Caching:
    hint = wanted(call.step.function)
    packages = tuple(dict.fromkeys((*cache.packages, *_distributions_of(code.imports))))
    for package in packages:
        first_version(package)  # while it is the one that this process has imported
    return Caching(
        code=code.code,
        data=_by_name([*code.data, *data]),
        makers=makers,
        version=str(cache.version),
        ttl_seconds=cache.ttl_seconds,
        arguments=None if cache.key is None else tuple(cache.key),
        environment=tuple(cache.environment),
        packages=packages,
        dates=code.uses_current_run,
        paths=tuple(item.name for item in step.inputs if any(map(_may_be_path, leaves(hint(item))))),
    )


def _by_name(data: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return a digest of each data file, by its name; if there are many, one of all."""
    contents: dict[str, list[str]] = {}
    for label, content in data:  # files of several folders may have one label
        name = label.removeprefix("./").encode("utf-8", "backslashreplace").decode()
        contents.setdefault(name, []).append(content)
    if len(contents) > _MOST_NAMED:
        return {"one of its data files": _digest(sorted(contents.items()))}
    return {name: _digest(each)[:32] for name, each in contents.items()}


def _distributions_of(modules: Iterable[str]) -> list[str]:
    """Return the names of the distributions that have these modules."""
    names: set[str] = set()
    for module in modules:
        try:
            names.add(metadata.distribution(module).name)
        except metadata.PackageNotFoundError:
            if not _is_installed(module):  # most texts in the code
                continue
            folders = tuple((path, Path(path).stat().st_mtime_ns) for path in sys.path if Path(path).is_dir())
            names.update(_installed_in(folders).get(module, ()))
    return sorted(names)


def _is_installed(module: str) -> bool:
    """Return whether a package has the module, not a folder of the project: to ask all packages takes 0.2 s.

    A module in a zip file comes with a package.
    """
    spec = PathFinder.find_spec(module)
    places = map(Path, [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else [])
    return any(is_installed(place) or not place.exists() for place in places)


@lru_cache(1)
def _installed_in(folders: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    """Return the distributions of each module, as long as nothing is installed into these folders of ``sys.path``."""
    return metadata.packages_distributions()


def _may_be_path(kind: object) -> bool:
    return isinstance(kind, type) and (is_typeddict(kind) or issubclass(kind, os.PathLike) or is_model(kind))


def _makers(plan: Plan, codes: Mapping[str, Reached]) -> dict[str, str]:
    """Return for each step a digest of the code of everything before it; empty for the first ones."""
    found: dict[str, str] = {}
    for step in plan:  # in a topological order
        before = sorted((name, codes[name].code, found[name]) for name in plan.structure.upstream(step))
        found[step.name] = _digest(before) if before else ""
    return found


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
