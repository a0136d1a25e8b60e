"""Named targets, from ``flowyml.toml``, ``pyproject.toml`` and the environment.

::

    [tool.flowyml.orchestrators.prod]       # pyproject.toml; [orchestrators.prod] in flowyml.toml
    engine = "prefect"
    url = "https://prefect.example.com/api" # and every other keyword of that orchestrator's constructor

    export FLOWYML_ORCHESTRATORS__PROD__URL=https://…      # the environment wins

The file is the nearest one at or above the working folder. Credentials go to the URL beside them, and a file names
commands and files that give them only where it is trusted: see ``flowyml.orchestrators.credential_scope``. A table
named after an engine holds that engine's defaults, also for targets built on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PREFIX", "Target"]

PREFIX = "FLOWYML_ORCHESTRATORS__"


@dataclass(frozen=True, slots=True)
class Target:
    """A named orchestrator: its engine and the keywords for its constructor, whose values ``repr`` does not show.

    ``origins`` has for each keyword the source of its value: a file's table, or an environment variable. ``fault`` is
    the reason why the target cannot be used; other targets still can. ``folder`` is the folder of the file, the base of
    its relative paths. ``withheld`` names the credentials that belong to an address other than its URL. ``refused`` has
    for each file and command of credentials the reason why it is not read or run.
    """

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    folder: Path | None = None
    withheld: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
