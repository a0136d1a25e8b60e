"""The handle of a run: the same on every engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from flowyml.core.durations import span_text
from flowyml.core.errors import (
    DefinitionError,
    EngineError,
    EngineUnreachableError,
    ServerTroubleError,
    UnsupportedFeatureError,
    WaitTimeoutError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.following import command_for
from flowyml.core.item_names import labelled
from flowyml.core.observability import get_metrics_collector, measure
from flowyml.core.progress import show_progress, wants_progress
from flowyml.core.runs import (
    Artifact,
    Artifacts,
    Failure,
    LogLine,
    Outputs,
    PipelineResult,
    Run,
    StepOutputs,
    StepResult,
    StepRun,
    StepRuns,
    find_item,
    folded,
    opened,
)

if TYPE_CHECKING:
    from flowyml.orchestrators.base import RunnablePipeline

__all__ = ["RunOperations", "SubmissionResult"]

logger = logging.getLogger("flowyml.runs")


class RunOperations(Protocol):
    """The methods of an orchestrator that a handle calls. Each call reads the engine."""

    target: str | None

    @property
    def name(self) -> str: ...
    def get_run(self, job_id: str) -> Run: ...
    def step_runs(self, job_id: str) -> tuple[StepRun, ...]: ...
    def outputs(self, job_id: str) -> Outputs: ...
    def run_artifacts(self, job_id: str) -> list[Artifact]: ...
    def artifact_stores(self, job_id: str) -> Sequence[Any]: ...
    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]: ...
    def logs_of_step(
        self, job_id: str, step: str, index: tuple[int, ...], *, follow: bool = False
    ) -> Iterator[LogLine]: ...
    def why_waiting(self, job_id: str) -> str: ...
    def why_no_lines(self, job_id: str) -> str: ...
    def cancel(self, job_id: str) -> bool: ...
    def retry(
        self, job_id: str, *, steps: Sequence[str] | None = None, with_new_code: RunnablePipeline | None = None,
        parameters: Mapping[str, Any] = {},
    ) -> SubmissionResult: ...  # fmt: skip
    def step_outputs(self, job_id: str) -> Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]: ...
    def read_recorded(self, job_id: str, packed: Any) -> Any: ...


class SubmissionResult:
    """The handle of a submitted run. It has no state: everything is read from the engine.

    Reading ``status`` or ``error`` asks the engine, also for a run that has ended, since people clear, retry and mark
    runs there: read ``run`` once for a consistent record. An engine that does not answer raises
    ``EngineUnreachableError``. The handle can be rebuilt in any process from ``orchestrator.attach(job_id)``.
    """

    def __init__(self, orchestrator: RunOperations, job_id: str, *, run: Run | None = None) -> None:
        self.orchestrator = orchestrator
        self.job_id = job_id
        self._run = run or orchestrator.get_run(job_id)

    def refresh(self) -> SubmissionResult:
        """Query the engine now, for the display by ``repr``.

        Raises ``EngineUnreachableError`` if it does not answer.
        """
        self._run = self.orchestrator.get_run(self.job_id)
        return self

    @property
    def run(self) -> Run:
        """The whole present record."""
        return self.refresh()._run

    @property
    def run_id(self) -> str:
        """The id that the run was submitted under."""
        return self._run.run_id

    @property
    def status(self) -> ExecutionStatus:
        """The status of the run now."""
        return self.run.status

    @property
    def raw_status(self) -> str:
        """The engine's own word for the status."""
        return self.run.raw_status

    @property
    def url(self) -> str | None:
        """The page of the run in the engine's UI, if it has one."""
        return self._run.url

    @property
    def duration_seconds(self) -> float:
        """Seconds from the start to the end, or to now."""
        return self.run.duration_seconds

    @property
    def error(self) -> str | None:
        """The error, if the run failed."""
        return self.run.error

    @property
    def outputs(self) -> Outputs:
        """The outputs of the pipeline, read back from the engine; empty until the run has completed.

        Reading one by ``[…]`` raises ``StepError`` if the run failed.
        """
        run = self.run
        if run.status.is_successful:
            return self.orchestrator.outputs(self.job_id)
        ended = run.status.is_terminal
        return Outputs(failure=Failure(run.run_id, run.pipeline, run.status, run.error) if ended else None)

    def artifacts(self) -> Artifacts:
        """Return what artifacts and metrics the steps have produced so far, with type, size, digest, URL and metadata.

        Listing them reads no artifact. Small plain outputs are not among them: see ``outputs``.
        """
        return Artifacts(self.orchestrator.run_artifacts(self.job_id))

    def step_runs(self) -> StepRuns:
        """Return the steps with attempts, times and errors; a step in a loop has one entry for each item."""
        return StepRuns(self.orchestrator.step_runs(self.job_id))

    def step_statuses(self) -> dict[str, ExecutionStatus]:
        """Return the status of each step by name."""
        return {step.name: step.status for step in folded(self.step_runs())}

    def logs(
        self, *, follow: bool = False, step: str | None = None, index: int | Sequence[int] | None = None,
        verbose: bool = False,
    ) -> Iterator[LogLine]:  # fmt: skip
        """Return the lines that the run printed and logged so far; with ``follow`` until it ends.

        ``step`` limits them to one step; with ``index`` too, or as ``step="train[3]"``, to one item of its loop. A step
        in two loops has two numbers; the first number alone means all items within that item. With ``verbose``, lines
        of the engine's own are there too, such as those of KFP's launcher.

        Raises ``DefinitionError`` for a step or an item that the run does not have.
        """
        if step is None:
            if index is not None:
                raise DefinitionError(f"logs: index={index!r} selects an item of a step. Name the step: step=….")
            lines = self.orchestrator.logs(self.job_id, follow=follow)
        else:
            name, item = find_item(self.step_runs(), step, index)
            lines = self.orchestrator.logs_of_step(self.job_id, name, item, follow=follow)
        return lines if verbose else (line for line in lines if not line.of_engine)

    def cancel(self) -> bool:
        """Stop the run and its work. Return False if it had ended already."""
        return self.orchestrator.cancel(self.job_id)

    def retry(
        self, steps: Sequence[str] | None = None, *, with_new_code: RunnablePipeline | None = None,
        parameters: Mapping[str, Any] = {},
    ) -> SubmissionResult:  # fmt: skip
        """Rerun the steps that failed or were stopped, and those that wait for them. Returns at once.

        Steps that completed do not run again. The run keeps its ids, so this handle is that of the new attempt too;
        the same code runs with the same parameters. With ``steps``, only these steps and the steps after them run
        again; other failed steps stay failed. For a failed step in a loop, the items that did not complete run again;
        ``"train[3]"`` names one item. A step that completed runs again as a whole.

        ``with_new_code`` is the pipeline as it is now. Then a new run begins, whose handle is returned: it takes the
        results of completed steps that fit, runs the rest, and a warning names the code that has changed. A step fits
        if its inputs, its parameters, the groups around it and all that comes before it are the same; ``steps`` run
        again in any case. ``cached_from`` of a step names the run that computed its results. The parameters are those
        of the old run, apart from ``parameters``; the warning names a default that has changed.

        Raises ``RetryRefusedError`` if the run is in progress or has completed, and ``UnsupportedFeatureError`` if
        the engine cannot retry runs.
        """
        if with_new_code is not None:
            return self.orchestrator.retry(self.job_id, steps=steps, with_new_code=with_new_code, parameters=parameters)
        self._run = self.orchestrator.retry(self.job_id, steps=steps, parameters=parameters)._run
        return self

    def wait_for_completion(
        self, timeout: float = 3600, poll_interval: float = 5, *, progress: bool | None = None
    ) -> SubmissionResult:
        """Block until the run has ended, however it did; then read ``status``.

        ``timeout``, which may be ``inf``, and ``poll_interval`` are seconds. The first polls come faster than
        ``poll_interval``, so a short run is noticed soon. ``progress`` shows the steps live; by default in a
        notebook, and if standard error is a terminal, unless ``FLOWYML_PROGRESS=0``.

        Raises ``WaitTimeoutError`` after the timeout: the run continues. If the engine does not answer, or answers 500,
        the poll is repeated until then; if it still does so at the end, ``EngineUnreachableError`` or
        ``ServerTroubleError`` is raised, which says nothing about the run.
        """
        options: dict[str, object] = {"timeout": timeout, "poll_interval": poll_interval}
        for name, value in options.items():
            if isinstance(value, bool) or not (isinstance(value, int | float) and value >= 0):  # NaN is not, either
                hint = " Use float('inf') to wait forever." if name == "timeout" else ""
                raise DefinitionError(f"wait_for_completion: {name}={value!r} must be seconds, 0 or more.{hint}")
        if progress is None:
            progress = wants_progress()
        already_over = self._run.status.is_terminal
        if progress and not already_over:
            with show_progress(self._run.pipeline, self.run_id) as update:
                self._poll(timeout, poll_interval, lambda: update(self._run, self.step_runs()))
        else:
            self._poll(timeout, poll_interval, lambda: None)
        if not already_over:
            self._measure()
        return self

    def step_outputs(self) -> dict[str, StepOutputs]:
        """Return what each completed step and item has returned so far, by its label: ``train``, ``train[3]``.

        Also for a run that failed, or is still running. The values are read when they are asked for. A local run that
        completed has only the outputs of the pipeline. Raises ``UnsupportedFeatureError`` for an engine without them.
        """
        recorded = self.orchestrator.step_outputs(self.job_id)
        order = {step.name: position for position, step in enumerate(folded(self.step_runs()))}
        instances = sorted(recorded, key=lambda item: (order.get(item[0], len(order)), item[1]))
        return {
            labelled(*instance): StepOutputs(partial(recorded.__getitem__, instance), self._read_recorded)
            for instance in instances
        }

    def _read_recorded(self, packed: Any) -> Any:
        return self.orchestrator.read_recorded(self.job_id, packed)

    def _outputs_of(self, recorded: Callable[[], Any], step: StepRun) -> StepOutputs:
        """Return the outputs of a step for its result; ``recorded`` asks the engine when it is first called."""

        def found() -> dict[str, Any]:
            try:
                items = {index: outputs for (name, index), outputs in recorded().items() if name == step.name}
            except UnsupportedFeatureError:
                return {}
            if step.items is None:
                return dict(items.get((), {}))
            names = dict.fromkeys(name for outputs in items.values() for name in outputs)
            return {
                name: [(index, items[index][name]) for index in sorted(items) if name in items[index]] for name in names
            }

        def read(packed: Any) -> Any:
            if step.items is None:
                return self._read_recorded(packed)
            return [(index[0] if len(index) == 1 else index, self._read_recorded(value)) for index, value in packed]

        return StepOutputs(found, read)

    def result(self) -> PipelineResult:
        """Return outputs and steps of the ended run in one record."""
        outputs = self.outputs
        recorded = cache(lambda: self.orchestrator.step_outputs(self.job_id))
        return PipelineResult(
            run_id=self.run_id,
            pipeline=self._run.pipeline,
            status=self._run.status,
            outputs=outputs,
            step_results={
                step.name: StepResult.of(step, self._outputs_of(recorded, step)) for step in folded(self.step_runs())
            },
            duration_seconds=self._run.duration_seconds,
            parameters=self._run.parameters,
            error=self._run.error,
        )

    def _poll(self, timeout: float, poll_interval: float, seen: Any) -> None:
        deadline = time.monotonic() + timeout
        pause = min(0.05, poll_interval)
        while True:
            silence: EngineError | None = None
            try:
                self.refresh()
                seen()
            except (EngineUnreachableError, ServerTroubleError) as error:
                silence = error
            if self._run.status.is_terminal:
                return
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise silence or self._still_waiting(timeout)
            time.sleep(min(pause, remaining))
            pause = min(pause * 2, poll_interval)

    def _still_waiting(self, seconds: float) -> WaitTimeoutError:
        why = ""
        with suppress(EngineError):
            why = self.orchestrator.why_waiting(self.job_id)
        return WaitTimeoutError(
            f"Run {self.run_id!r} is still {self._run.status} after {span_text(seconds)}. {why or 'It goes on.'} "
            f"Wait again, or cancel it with: {command_for('cancel', self)}"
        )

    def _measure(self) -> None:
        if get_metrics_collector() is None:
            return
        run = self._run
        try:
            for step in self.step_runs():
                measure("step_finished", run.pipeline, run.run_id, step.name, step.status, step.duration_seconds)
        except EngineError as error:  # the engine no longer answers, and the run itself is not lost
            logger.warning("The steps of run %r were not measured: %s", self.run_id, error)
        measure("run_finished", run.pipeline, run.run_id, run.status, run.duration_seconds)

    def __repr__(self) -> str:
        seen = "" if self._run.status.is_terminal else f" at {datetime.now(UTC):%H:%M:%S}Z"
        return f"<SubmissionResult {self.job_id!r} on {self.orchestrator.name}: {self._run.status}{seen}>"

    def _repr_html_(self) -> str | None:
        """Return the display in a notebook: the present state of the run; None if the engine does not answer."""
        from flowyml.core.notebook import run_html

        try:
            return run_html(self.run, opened(self.step_runs()), command_for("watch", self))
        except EngineError:
            return None
