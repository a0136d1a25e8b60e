"""Read runs from the database of the local orchestrator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.background import reap
from flowyml.orchestrators.local import records
from flowyml.orchestrators.local.schema import RunRow, index_of
from flowyml.orchestrators.local.store import RunStore
from flowyml.orchestrators.log_following import Poll, log_lines
from flowyml.orchestrators.reader import RunReader

__all__ = ["LocalReader"]

_FOLLOW_SECONDS = 0.2


@dataclass(frozen=True)
class LocalReader(RunReader):
    """Reads the runs of one store. A run whose process died is ``FAILED``, with the raw status ``crashed``."""

    store: RunStore

    def get_run(self, job_id: str) -> Run:
        reap()
        return records.run_of(self.store.get(job_id))

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return Runs(records.run_of(row) for row in self.store.runs(pipeline, limit))

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return the steps in the plan's order.

        Those that never began are queued, or cancelled once the run has ended.
        """
        row = self.store.get(job_id)
        return records.steps_of(row, self.store.steps(row.number))

    def outputs(self, job_id: str) -> Outputs:
        """Return the stored outputs; reading another one raises an error that says how to store it."""
        from flowyml.orchestrators.local import outputs

        row = self.store.get(job_id)
        if not ExecutionStatus[row.status].is_successful:
            return Outputs()
        return outputs.read(row.run_id, row.outputs)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts of the ended run; with a URL if an output was stored as a file."""
        from flowyml.artifacts.listing import artifact_of

        row = self.store.get(job_id)
        names = json.loads(row.steps)
        rows = sorted(self.store.kept(row.number, "artifacts"), key=lambda kept: (kept.position, index_of(kept.item)))
        listed = (
            artifact_of(names[kept.position], kept.output, json.loads(kept.entry), index_of(kept.item)) for kept in rows
        )
        return [artifact for artifact in listed if artifact]

    def recorded_outputs(self, job_id: str) -> Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]:
        """Return the outputs that a run which did not complete has kept, in the form of the database."""
        row = self.store.get(job_id)
        names, by_instance = json.loads(row.steps), dict[tuple[str, tuple[int, ...]], dict[str, Any]]()
        for kept in self.store.kept(row.number):
            instance = names[kept.position], index_of(kept.item)
            by_instance.setdefault(instance, {})[kept.output] = json.loads(kept.entry)
        return by_instance

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines that steps printed and logged, and the tracebacks of failures."""
        return self._lines(self.store.get(job_id), None, follow)

    def logs_of_step(
        self, job_id: str, step: str, index: tuple[int, ...], *, follow: bool = False
    ) -> Iterator[LogLine]:
        """Return the lines of one step or item; no others are read."""
        row = self.store.get(job_id)
        return self._lines(row, (json.loads(row.steps).index(step), index), follow)

    def _lines(self, row: RunRow, of: tuple[int, tuple[int, ...]] | None, follow: bool) -> Iterator[LogLine]:
        names, last = json.loads(row.steps), 0

        def poll() -> Poll:
            nonlocal last
            ended = self.store.get(row.run_id).status not in ("QUEUED", "RUNNING")
            for number, line in self.store.lines(row.number, last, of):
                last = number
                yield records.log_line(line, names)
            return ended or not follow

        return log_lines(poll, follow=follow, pause=_FOLLOW_SECONDS)
