"""Save the packed outputs of a run's steps beside their artifacts, so that another process can continue the run."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

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
        key = self._key(label)
        data = json.dumps({"outputs": outputs, "sha256": _digest(key, outputs)}).encode()
        with suppress(ArtifactError):
            self._store.write(key, lambda file: file.write(data))

    def read(self, label: str) -> dict[str, Any] | None:
        """Read saved outputs; None if there are none, or others than this step has saved."""
        key = self._key(label)
        try:
            with self._store.local_copy(f"{self._store.url}/{key}") as path:
                saved = json.loads(path.read_bytes())
            outputs: dict[str, Any] = saved["outputs"]
            return outputs if saved["sha256"] == _digest(key, outputs) else None
        except (ArtifactError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def _key(self, label: str) -> str:
        return f"{self._place}/{slug(label)}/outputs.json"


def _digest(key: str, outputs: Any) -> str:
    """Return a digest of what is saved and where, which finds files that are damaged or were exchanged."""
    return hashlib.sha256(json.dumps([key, outputs]).encode()).hexdigest()
