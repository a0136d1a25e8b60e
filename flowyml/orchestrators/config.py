"""Named targets, from ``flowyml.toml``, ``pyproject.toml`` and the environment.

::

    [tool.flowyml.orchestrators.prod]       # pyproject.toml; [orchestrators.prod] in flowyml.toml
    engine = "prefect"
    url = "https://prefect.example.com/api" # and every other keyword of that orchestrator's constructor

    export FLOWYML_ORCHESTRATORS__PROD__URL=https://…      # the environment wins

The file is the nearest one at or above the working folder. Credentials go to the URL that stands beside them: see
``flowyml.orchestrators.credential_scope``. A table that is named like an engine holds defaults of that
engine, also for the targets that are built on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import ConfigurationError, OrchestratorNotFoundError
from flowyml.core.settings import settings_file

if TYPE_CHECKING:
    from flowyml.orchestrators.base import Orchestrator
    from flowyml.orchestrators.registry import Factory

__all__ = ["Target", "construct", "target", "targets"]

PREFIX = "FLOWYML_ORCHESTRATORS__"


@dataclass(frozen=True, slots=True)
class Target:
    """A named orchestrator: its engine and the keywords for its constructor, of which ``repr`` shows no value.

    ``origins`` tells for each keyword where its value stands: a file's table, or an environment variable. ``fault`` is
    why it cannot be used, which concerns nobody who uses another. ``folder`` is that of the file, from which its
    relative paths count. ``withheld`` says which credentials belong to another address than its URL.
    """

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    folder: Path | None = None
    withheld: str = ""


def targets() -> dict[str, Target]:
    """Every configured target by name. Raises ``ConfigurationError``."""
    if not any(name.upper().startswith(PREFIX) for name in os.environ) and settings_file() is None:
        return {}
    from flowyml.orchestrators.settings import read

    return read(settings_file())


def target(name: str) -> Target:
    """The target of that name; the name of an engine is a target too. Raises ``OrchestratorNotFoundError``."""
    from flowyml.orchestrators.registry import declared, not_found

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
    """The orchestrator of a target; ``options`` win over its own. Raises ``ConfigurationError``."""
    if not found.options:
        return factory(**options)
    from flowyml.orchestrators.credential_scope import without_credentials_of
    from flowyml.orchestrators.settings import checked

    found = without_credentials_of(found, options.get("url"))
    values = {**checked(factory, found), **options}
    try:
        made = factory(**values)
        if made.login is not None and found.withheld:
            made.login.note = f"{made.login.note} {found.withheld}".lstrip()
        return made
    except ConfigurationError as error:  # it knows the value, and not where that stands
        raise ConfigurationError(f"{error} Configured in {', '.join(sorted({*found.origins.values()}))}.") from error
