"""Decide which steps of a pipeline are cached, and by what key: from ``@step(cache=…)`` to the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flowyml.authoring.cache import Cache
from flowyml.authoring.calls import Call
from flowyml.authoring.code_digest import Reached, held, reached
from flowyml.authoring.places import errors_at
from flowyml.core.errors import DefinitionError
from flowyml.plan.model import SCHEMA_VERSION, Caching, Plan, Step
from flowyml.plan.types import is_model, leaves, wanted

__all__ = ["data_digest", "held_by", "with_caching"]

_hashes: dict[tuple[object, ...], str] = {}


def with_caching(
    plan: Plan, calls: Sequence[Call], *, enabled: bool | None, data: str, before: Plan | None = None
) -> Plan:
    """Return the plan with the parts of each cached step's key.

    ``enabled`` is that of ``Pipeline(enable_cache=…)``, ``data`` a digest of the data files in the bundle. ``before``
    is the earlier result for the same plan, which is returned again if it is still valid.

    Raises ``DefinitionError``.
    """
    by_name = {call.name: call for call in calls}
    chosen = {step.name: wanted for step in plan if (wanted := _wanted(plan, step, by_name[step.name], enabled))}
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


def data_digest(files: Mapping[str, Path]) -> str:
    """Return a digest of data files, by their paths on the worker."""
    return _digest([name, _hash_of(path)] for name, path in sorted(files.items()))


def held_by(plan: Plan, calls: Sequence[Call]) -> dict[str, str]:
    """For each cached step, a digest of the state of its code in this process, if that differs from its files."""
    by_name = {call.name: call for call in calls}
    known: dict[int, str] = {}
    found: dict[str, str] = {}
    for step in plan:
        if step.caching and not step.function.startswith("pickle:"):  # whose digest includes it
            function = by_name[step.name].step.function
            if id(function) not in known:
                known[id(function)] = held(function)
            found[step.name] = known[id(function)]
    return found


def _wanted(plan: Plan, step: Step, call: Call, enabled: bool | None) -> Cache | None:
    asked = call.step.step_options.cache
    if enabled is False or asked is False:
        return None
    if asked is None:  # by default, a pipeline caches only steps that have a result
        is_plain = step.outputs and not step.secrets and step.run_if == "all_success"
        return Cache() if enabled and is_plain else None
    if plan.structure.is_cleanup(step.group):
        with errors_at(call.place):
            raise DefinitionError(f"step {step.name!r} cleans up, and is not cached. Drop cache=….")
    return asked if isinstance(asked, Cache) else Cache()


def _reached(step: Step, call: Call) -> Reached:
    try:
        return reached(call.step.function, by_value=step.function.startswith("pickle:"))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        with errors_at(call.place):
            raise DefinitionError(f"step {step.name!r} cannot be cached: its code cannot be read: {error}") from error


def _caching(step: Step, call: Call, cache: Cache, code: Reached, makers: str, data: str) -> Caching:
    hint = wanted(call.step.function)
    return Caching(
        code=_digest([code.code, data]) if data else code.code,
        makers=makers,
        version=str(cache.version),
        ttl_seconds=cache.ttl_seconds,
        arguments=None if cache.key is None else tuple(cache.key),
        environment=tuple(cache.environment),
        packages=tuple(cache.packages),
        dates=code.asks_for_run,
        paths=tuple(item.name for item in step.inputs if any(map(_may_be_path, leaves(hint(item))))),
    )


def _may_be_path(kind: object) -> bool:
    return isinstance(kind, type) and (issubclass(kind, Path) or is_model(kind))


def _makers(plan: Plan, codes: Mapping[str, Reached]) -> dict[str, str]:
    """For each step, a digest of the code of everything before it; empty for the first ones."""
    found: dict[str, str] = {}
    for step in plan:  # in a topological order
        before = sorted((name, codes[name].code, found[name]) for name in plan.structure.upstream(step))
        found[step.name] = _digest(before) if before else ""
    return found


def _hash_of(path: Path) -> str:
    found = path.stat()
    identity = (path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if identity not in _hashes:
        with path.open("rb") as file:
            _hashes[identity] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[identity]


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
