"""Save the packed outputs of a run's steps beside their artifacts, so that another process can continue the run."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, BinaryIO

from flowyml.artifacts import open_store
from flowyml.core.errors import ArtifactError
from flowyml.plan.names import slug

__all__ = ["KEEP", "KeptOutputs"]

KEEP = "FLOWYML_KEEP_OUTPUTS"
"""The environment variable by which ``StepProcesses`` saves outputs, for an engine that does not store them."""


class KeptOutputs:
    """The saved outputs of one run in the store ``artifacts``, where ``place`` is its prefix."""

    def __init__(self, artifacts: str, place: str) -> None:
        self._store = open_store(artifacts)
        self._place = place

    def keep(self, label: str, outputs: dict[str, Any]) -> None:
        """Save the outputs of a step, or of an item. If that fails, they are missing later."""

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(outputs).encode())

        with suppress(ArtifactError):
            self._store.write(self._key(label), write)

    def read(self, label: str) -> dict[str, Any] | None:
        """Read saved outputs; None if there are none."""
        try:
            with self._store.local_copy(f"{self._store.url}/{self._key(label)}") as path:
                outputs: dict[str, Any] = json.loads(path.read_bytes())
                return outputs
        except (ArtifactError, ValueError):
            return None

    def _key(self, label: str) -> str:
        return f"{self._place}/{slug(label)}/outputs.json"
