"""Results of an ended run that a run of new code takes instead of running their steps: a file in its bundle.

A bundle is code, so a person who writes one may name results. Their artifacts are copied to the run's own, from the
run that the file names and from no other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from flowyml.artifacts.packing import is_of_run, is_reference, moved_reference
from flowyml.artifacts.store import Store, Written
from flowyml.core.errors import ArtifactError
from flowyml.runtime.execution import TAKEN_FILE, AttemptOutputs

__all__ = ["Taken", "not_taken"]


class Taken(NamedTuple):
    """The results by the label of their step or item, each with the run that computed them.

    ``place`` is the prefix of the ended run's artifacts in the store: see ``run_place``.
    """

    place: str = ""
    results: Mapping[str, tuple[str, Mapping[str, Any]]] = {}

    @classmethod
    def read(cls, folder: Path, run_id: str) -> Taken:
        """Read the results for a run from its unpacked bundle; none for any other run of the same bundle."""
        if not (folder / TAKEN_FILE).is_file():
            return cls()
        plain = json.loads((folder / TAKEN_FILE).read_bytes())
        return cls(plain["place"], plain["results"]) if plain["run_id"] == run_id else cls()

    def written(self, run_id: str) -> bytes:
        """Return the content of the file, for the run ``run_id`` alone."""
        return json.dumps({"run_id": run_id, **self._asdict()}, ensure_ascii=False).encode()

    def outputs(self, label: str, store: Store, key: Callable[[str], str]) -> AttemptOutputs | None:
        """Return the packed outputs of a step or item, their artifacts copied under ``key``; None for one that runs.

        Raises ``ArtifactError`` for an artifact that is gone, or belongs to another run.
        """
        if label not in self.results:
            return None
        run_id, outputs = self.results[label]
        return AttemptOutputs({name: self._own(value, store, key(name)) for name, value in outputs.items()}, run_id)

    def _own(self, packed: Any, store: Store, key: str) -> Any:
        if not is_reference(packed):
            return packed

        def move(written: Written) -> Written:
            if not store.holds(written.url) or not is_of_run(written.url.removeprefix(f"{store.url}/"), self.place):
                raise ArtifactError(f"Artifact {written.url} does not belong to the run whose results are taken.")
            return store.take(store, written, f"{key}{PurePosixPath(written.url).suffix}")

        return moved_reference(packed, move)


def not_taken(label: str, why: object) -> str:
    """Return the error of a step whose result cannot be taken: running it now would not fit the steps behind it."""
    return (
        f"step {label!r}: its result of the earlier run cannot be taken: {why}. Retry that run once more, and run this "
        f"step again: --step {label}."
    )
