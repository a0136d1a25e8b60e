"""Find an orchestrator by name: a configured target, an engine, or the URL of a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flowyml.core.credentials import refusing_sources
from flowyml.core.errors import ConfigurationError, OrchestratorNotFoundError
from flowyml.core.settings import settings_file
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.registry import Factory, declared, default, load, not_found, require_engine
from flowyml.orchestrators.target import PREFIX, Target

__all__ = ["construct", "resolve", "target", "targets"]


def resolve(on: str | Orchestrator | None = None, **options: Any) -> Orchestrator:
    """Return the orchestrator that ``on`` names: a target of the configuration, an engine, or the URL of a server.

    ``None`` stands for ``FLOWYML_ORCHESTRATOR``, or ``"local"`` without it. ``options`` are keywords of the
    orchestrator's constructor and override the configuration. Raises ``OrchestratorNotFoundError``,
    ``MissingExtraError``, ``PluginError`` and ``ConfigurationError``.
    """
    if isinstance(on, Orchestrator):
        return on
    name = default() if on is None else on
    if not isinstance(name, str):
        raise ConfigurationError(_no_orchestrator(name))
    if "://" in name:
        from flowyml.orchestrators.remote import RemoteOrchestrator

        return RemoteOrchestrator(name, **options)
    found = target(name)
    factory = load(found.engine)
    require_engine(factory)
    made = construct(factory, found, options)
    if found.name != found.engine:
        made.target = found.name
    return made


def _no_orchestrator(on: object) -> str:
    if isinstance(on, type):
        return f"on={on.__name__} is a class. Give an object of it: on={on.__name__}(…)."
    return f"on={on!r:.80} is not an orchestrator. Give one, the name of an engine or target, or a server's URL."


def targets() -> dict[str, Target]:
    """Return every configured target by name. Raises ``ConfigurationError``."""
    if not any(name.upper().startswith(PREFIX) for name in os.environ) and settings_file() is None:
        return {}
    from flowyml.orchestrators.target_settings import read

    return read(settings_file())


def target(name: str) -> Target:
    """Return the target of that name; the name of an engine is a target too. Raises ``OrchestratorNotFoundError``."""
    configured = targets()
    if found := configured.get(name):
        if found.fault:
            raise ConfigurationError(found.fault)
        return found
    engines = declared()
    if name not in engines:
        raise OrchestratorNotFoundError(not_found(name, tuple(sorted({*engines, *configured}))))
    return Target(name, name)


def construct(factory: Factory, found: Target, options: Mapping[str, Any]) -> Orchestrator:
    """Return the orchestrator of a target; ``options`` override its own. Raises ``ConfigurationError``."""
    if not found.options:
        return factory(**options)
    from flowyml.orchestrators.credential_scope import without_credentials_of
    from flowyml.orchestrators.target_settings import checked, grouped

    found = without_credentials_of(found, options.get("url"))
    values = checked(factory, found)
    refused = {key: why for key, why in found.refused.items() if key not in options}
    try:
        with refusing_sources(refused):
            made = factory(**{**grouped(factory, values), **options})
        if made.auth is not None and found.withheld:
            made.auth.note = f"{made.auth.note} {found.withheld}".lstrip()
        return made
    except ConfigurationError as error:  # it knows the value, but not where it is set
        raise ConfigurationError(f"{error} Configured in {', '.join(sorted({*found.origins.values()}))}.") from error
