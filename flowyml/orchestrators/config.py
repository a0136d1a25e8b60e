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

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PREFIX", "Target"]

PREFIX = "FLOWYML_ORCHESTRATORS__"


@dataclass(frozen=True, slots=True)
class Target:
    """A named orchestrator: its engine and the keywords for its constructor, of which ``repr`` shows no value.

    ``origins`` says for each keyword where its value is set: a file's table, or an environment variable. ``fault`` is
    why it cannot be used; other targets still can. ``folder`` is that of the file, from which its
    relative paths count. ``withheld`` says which credentials belong to another address than its URL.
    """

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    folder: Path | None = None
    withheld: str = ""
