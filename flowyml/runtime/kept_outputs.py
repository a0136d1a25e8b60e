"""The packed outputs of a run's steps, kept beside their artifacts, so that another process can continue the run."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, BinaryIO

from flowyml.artifacts import open_store
from flowyml.core.errors import ArtifactError
from flowyml.plan.names import slug

__all__ = ["KEEP", "KeptOutputs"]

KEEP = "FLOWYML_KEEP_OUTPUTS"
"""The environment variable that has ``StepProcesses`` keep outputs, for an engine that does not keep them itself."""


class KeptOutputs:
    """Those of one run, in the store ``artifacts``; ``place`` is the run's there."""

    def __init__(self, artifacts: str, place: str) -> None:
        self._store = open_store(artifacts)
        self._place = place

    def keep(self, label: str, outputs: dict[str, Any]) -> None:
        """Keep the outputs of a step, or of an item. If that fails, they are missing later."""

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(outputs).encode())

        with suppress(ArtifactError):
            self._store.write(self._key(label), write)

    def read(self, label: str) -> dict[str, Any] | None:
        """What was kept, or None."""
        try:
            with self._store.local_copy(f"{self._store.url}/{self._key(label)}") as path:
                outputs: dict[str, Any] = json.loads(path.read_bytes())
                return outputs
        except (ArtifactError, ValueError):
            return None

    def _key(self, label: str) -> str:
        return f"{self._place}/{slug(label)}/outputs.json"
