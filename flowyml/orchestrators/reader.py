"""Reading a run: the part of an adapter that translates an engine's records into FlowyML's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flowyml.core.runs import Artifact, LogLine, Outputs, Run, StepRun

__all__ = ["RunReader"]


class RunReader(Protocol):
    """Reads the runs of one engine. Each method raises ``RunNotFoundError`` for a job id that the engine lacks."""

    @abstractmethod
    def get_run(self, job_id: str) -> Run:
        """Return a run. Raises ``EngineUnreachableError`` and ``UnknownStateError`` too."""

    @abstractmethod
    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        """Return runs of this engine, newest first, in one call to the engine.

        Returned as ``flowyml.core.runs.Runs``, a list that notebooks show as a table.
        """

    @abstractmethod
    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return every step of the run in the plan's order, including those that have not begun."""

    @abstractmethod
    def outputs(self, job_id: str) -> Outputs:
        """Return the outputs of a completed run."""

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts and metrics that the steps of a run have produced so far, in the order of the steps.

        Not called for an engine that does not support ``ARTIFACTS``.
        """
        raise NotImplementedError

    def recorded_outputs(self, job_id: str) -> Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]:
        """Return the packed outputs of completed steps and items, by name and index, as far as the engine has them.

        Override it for an engine that supports ``STEP_OUTPUTS``.
        """
        return {}

    @abstractmethod
    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines so far, oldest first; with ``follow`` until the run ends.

        Lines of the engine itself, if there are any, have ``of_engine``: people see them only if they ask.
        """

    def logs_of_step(
        self, job_id: str, step: str, index: tuple[int, ...], *, follow: bool = False
    ) -> Iterator[LogLine]:
        """Return the lines of one step, or of one item with its ``index``.

        Override it if the engine can filter them.
        """
        return (line for line in self.logs(job_id, follow=follow) if line.is_of(step, index))

    def why_waiting(self, job_id: str) -> str:
        """Say why a run that has not ended does not progress, and what to do; empty if the engine does not say."""
        return ""

    def why_no_lines(self, job_id: str) -> str:
        """Say why the engine has no line of a run whose steps ran; empty if it does not say.

        Override it for an engine that removes logs before it removes the run.
        """
        return ""
