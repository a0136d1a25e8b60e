"""Execute one run, from its first hook to its last record, in this process."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts import default_url, run_place
from flowyml.artifacts.pickling import decide_on_pickles, pickles_decided
from flowyml.core.dates import RunDates
from flowyml.core.errors import ArtifactError, ConfigurationError, OutputNotKeptError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.home import private_folder
from flowyml.core.hooks import PipelineHook, fire
from flowyml.core.observability import get_metrics_collector, measure
from flowyml.core.progress import wants_progress
from flowyml.core.runs import PipelineResult
from flowyml.orchestrators.local.capture import attributed, capturing
from flowyml.orchestrators.local.engine import Engine, LocalTask, error_text
from flowyml.orchestrators.local.host import Host
from flowyml.orchestrators.local.live_view import LiveView
from flowyml.orchestrators.local.options import sharing_steps
from flowyml.orchestrators.local.outputs import SMALL, Returned, record
from flowyml.orchestrators.local.recorder import Recorder
from flowyml.orchestrators.local.records import Outcome, log_failure, outcome_of, result_of, run_of, step_of
from flowyml.orchestrators.local.retrying import Past, Recorded
from flowyml.orchestrators.local.saved_outputs import OutputSaver, saved_rows
from flowyml.orchestrators.local.schema import RunRow, SavedRow, StepRow
from flowyml.orchestrators.local.step_call import StepCalls
from flowyml.orchestrators.local.stopping import Watch
from flowyml.orchestrators.local.store import KEPT, Ending, RunStore, clear_folder
from flowyml.plan.model import Plan, Step
from flowyml.runtime.code import Code
from flowyml.runtime.decider import End, listed
from flowyml.runtime.fork_client import Server
from flowyml.runtime.nodes import Frame
from flowyml.runtime.parent_env import read_parent_env
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.secrets import ReadSecret, from_environment
from flowyml.runtime.tracebacks import traceback_text
from flowyml.runtime.walk import Walk

__all__ = ["LocalRun", "Settings"]

logger = logging.getLogger("flowyml.local")

_COPIED = 100_000_000
"""The largest array or table, in bytes, that is copied before a step in a thread, which may fail, gets it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run. ``folder`` is the run's own, created when needed.

    ``bundle`` is set if steps run in processes, and ``started`` if their warm process was started before the run.
    """

    max_workers: int
    max_output_bytes: float
    folder: Path
    code: Callable[[], Code]
    apart: frozenset[str] = frozenset()
    bundle: Path | None = None
    started: Server | None = None
    host: Host = field(default_factory=Host)
    dates: RunDates = field(default_factory=RunDates)
    share: bool = False
    past: Past = field(default_factory=Past)
    read_secret: ReadSecret = from_environment


class LocalRun:
    """Executes a run that is marked as running in the store."""

    def __init__(
        self, plan: Plan, row: RunRow, parameters: Mapping[str, Any], store: RunStore, settings: Settings
    ) -> None:  # fmt: skip
        self.plan = plan
        self.row = row
        self._parameters = parameters
        self._store = store
        self._settings = settings
        self._values = settings.folder / "values"
        self._walk = Walk(plan, parameters, self._node, settings.past.loops)
        self._recorder = Recorder(store, row.number)
        self._sink = self._recorder.sink(None)
        self._engine = Engine(
            self._walk,
            max_workers=settings.max_workers,
            note=self._row_taker(),
            failed=partial(log_failure, sink=self._recorder.sink, code_folder=settings.host.code_folder),
            code_folder=settings.host.code_folder,
            known=settings.past.instances,
        )
        self._hooks: Sequence[PipelineHook] = ()
        self._outcome: Outcome = ExecutionStatus.FAILED, "failed", None
        self._outputs: dict[str, Returned] = {}
        self._recorded: dict[str, Any] = {}
        self._artifacts: list[SavedRow] = []
        self.not_kept: list[str] = []
        """The pipeline's outputs that were not recorded."""

    @property
    def is_completed(self) -> bool:
        return self._outcome[0] is ExecutionStatus.COMPLETED

    def _node(self, frame: Frame, step: Step, position: int) -> LocalTask:
        node = LocalTask(frame, step, position, apart=step.name in self._settings.apart)
        if done := self._settings.past.instances.get((position, frame.index)):
            node.recall(done)
        return node

    def execute(self) -> PipelineResult:
        """Run to the end and record it, whatever happens on the way."""
        with pickles_decided(decide_on_pickles()):
            return self._execute()

    def _execute(self) -> PipelineResult:
        alone = self._settings.host.alone
        live_view = LiveView(run_of(self.row), self._walk) if wants_progress() and not alone else None
        try:
            with capturing(self._sink if alone else None), attributed(self._sink):
                try:
                    self._run(live_view)
                except BaseException as error:
                    self._note_fault(error)
                    raise
                finally:
                    self._fire_end()
                    if live_view is not None:
                        live_view.close(replace(run_of(self.row), status=self._outcome[0], error=self._outcome[2]))
        finally:
            self._record_end()
        try:
            outputs = {name: listed(returned.value) for name, returned in self._outputs.items()}
            return result_of(self.plan, self.row, self._walk.tasks, self._outcome, outputs, self._seconds())
        finally:
            self._release_values()

    def abandon(self) -> None:
        """Record a stopped run whose steps do not stop. Called by the recorder's thread before it ends the process."""
        self._engine.end_the_rest()
        self._outcome = self._outcome_now()
        self._fire_end()
        self._record_end()
        self._settings.host.end()

    def _run(self, live_view: LiveView | None) -> None:
        code = self._settings.code()
        self._hooks = code.hooks
        fire(self._hooks, "on_pipeline_start", self.plan.name, self.row.run_id, dict(self._parameters))
        work = StepCalls(
            self.plan.name, code, self.row.run_id, self._values, self._engine.stop_event, self._recorder.sink,
            self._parameters, self._settings.dates, share=self._settings.share,
            sharing=sharing_steps(self.plan),
            together=self.plan.structure.execution_groups,
            max_copied_bytes=min(max(self._settings.max_output_bytes, SMALL), _COPIED), save=self._output_saver(),
            taken=self._settings.host.taken,
        )  # fmt: skip
        with self._processes() as work.apart:
            self._recorder.start(self._ticker(live_view))
            self._settings.host.begin(self._engine)
            try:
                self._engine.run(work.call, work.evaluate, work.release)
            finally:
                self._outcome, self._artifacts = self._outcome_now(), work.artifacts
                if not self.is_completed:
                    self._keep_values(work)
            work.end_processes()
            self._collect_outputs(work)

    def _output_saver(self) -> OutputSaver | None:
        """Return what records outputs as they are produced, if the run can be retried after its process was killed."""
        if not self._settings.host.keeps:
            return None
        return OutputSaver(self._recorder.keep, self._values, self._settings.folder / KEPT)

    def _keep_values(self, work: StepCalls) -> None:
        """Record the outputs that failed steps need for a retry. A failure to record them must not fail the run."""
        folder, max_bytes = self._settings.folder / KEPT, self._settings.max_output_bytes
        try:
            self._store.keep(self.row.number, saved_rows(self._walk.tasks, work.as_returned, folder, max_bytes))
        except Exception as error:
            logger.warning("Outputs of run %r were not kept for a retry: %s", self.row.run_id, error_text(error))

    def _outcome_now(self) -> Outcome:
        return outcome_of(self.plan, self._walk.tasks, self._walk.faults, self._engine.stopping)

    def _processes(self) -> AbstractContextManager[StepProcesses | None]:
        """Return the warm process that steps are forked from, if a step runs in a process."""
        cache = self._cache()
        if cache or self._settings.bundle is not None:
            private_folder(self._values)
        if self._settings.bundle is None:
            return nullcontext()
        return StepProcesses(
            self._settings.bundle, run_id=self.row.run_id, artifacts=str(self._values),
            place=run_place("local", self.plan.name, self.row.run_id), parameters=self._parameters,
            caller={**read_parent_env(), **cache}, started=self._settings.started, dates=self._settings.dates,
            read_secret=self._settings.read_secret,
        )  # fmt: skip

    def _cache(self) -> dict[str, str]:
        """Return the store of cached results, for steps in processes: the run's own values are removed with the run."""
        return {"cache": default_url()} if any(step.caching for step in self.plan) else {}

    def _ticker(self, live_view: LiveView | None) -> Callable[[sqlite3.Connection], None]:
        host = self._settings.host
        give_up = self.abandon if host.alone else None
        watch = Watch(self._engine, self.row.number, timeout=self.plan.timeout_seconds, show=live_view, give_up=give_up)

        def tick(db: sqlite3.Connection) -> None:
            if text := host.stray_text():
                self._sink.feed("output", text)
            watch(db)

        return tick

    def _row_taker(self) -> Callable[[StepRow], object]:
        """Return the function that takes the new row of a step. Without a metrics collector, it is the recorder's."""
        if get_metrics_collector() is None:
            return self._recorder.note

        def note(row: StepRow) -> None:
            self._recorder.note(row)
            step = step_of(self.plan.steps[row.position].name, row)
            if step.status.is_terminal:
                measure("step_finished", self.plan.name, self.row.run_id, step.name, step.status, step.duration_seconds)

        return note

    def _collect_outputs(self, work: StepCalls) -> None:
        """Collect the outputs of the pipeline that were produced; in a failed run, those of the healthy branches."""
        for name, (node, output) in self._walk.outputs.items():
            if node.end is not End.OK:
                continue
            value = node.values[output]
            if type(value) is Recorded and "artifact" not in value.entry:  # whose file goes with the run's folder
                self._recorded[name] = value.entry
                continue
            try:
                self._outputs[name] = Returned(work.read(value), tuple(node.makers(output)))
            except (OutputNotKeptError, ArtifactError) as error:  # of an earlier try
                self._recorded[name] = {"not_kept": str(error)}

    def _note_fault(self, error: BaseException) -> None:
        """Note the caller's interrupt, or a fault outside of all steps, such as code that cannot be imported."""
        if isinstance(error, KeyboardInterrupt) or self._settings.host.is_stopped:
            self._outcome = ExecutionStatus.CANCELLED, "cancelled", "The run was interrupted."
            return
        self._outcome = ExecutionStatus.FAILED, "failed", error_text(error)
        if self._settings.host.alone:
            logger.error("The run failed: %s", traceback_text(error, self._settings.host.code_folder))

    def _fire_end(self) -> None:
        status = self._outcome[0]
        fire(self._hooks, "on_pipeline_end", self.plan.name, self.row.run_id, status, self._seconds())

    def _record_end(self) -> None:
        """Record everything, and the end in any case; remove data that was needed only during the run."""
        status, raw, error = self._outcome
        ending = Ending(status.name, raw, error)
        try:
            self._sink.feed("output", self._settings.host.stray_text())
            self._sink.close()
            self._recorder.close()
            if status is ExecutionStatus.COMPLETED:
                outputs, stored = record(
                    self._store, self.plan.name, self.row.run_id, self._outputs, self._artifacts,
                    max_bytes=self._settings.max_output_bytes,
                )  # fmt: skip
                self._artifacts += stored
                ending = ending._replace(outputs={**outputs, **self._recorded})
                self.not_kept = [name for name, entry in outputs.items() if "not_kept" in entry]
            self._list_artifacts()
        finally:
            self._finish(ending)
            self._tidy()

    def _list_artifacts(self) -> None:
        """List the previews of outputs, and the stored outputs. A failure must not fail the run."""
        try:
            if self._artifacts:
                self._store.keep(self.row.number, self._artifacts, "artifacts")
        except (sqlite3.Error, ConfigurationError) as error:
            logger.error("Artifacts of run %r could not be listed. %s", self.row.run_id, error)

    def _finish(self, ending: Ending) -> None:
        """Record the result. A failure to do so must not lose it."""
        try:
            self._store.finish(self.row.run_id, ending)
        except (sqlite3.Error, ConfigurationError) as error:
            logger.error("Run %r ended %s; that could not be recorded. %s", self.row.run_id, ending.status, error)
        measure("run_finished", self.plan.name, self.row.run_id, self._outcome[0], self._seconds())

    def _tidy(self) -> None:
        if not self._settings.host.alone:  # a process that exists for the run clears the folder as it ends
            clear_folder(self._settings.folder, all_of_it=self.is_completed)

    def _release_values(self) -> None:
        """Release values.

        The nodes refer to one another, so they are freed late; the user's values must not wait for that.
        """
        self._outputs = {}
        for node in self._walk.tasks:
            node.error = None
        self._walk.release()

    def _seconds(self) -> float:
        return time.time() - (self.row.started or self.row.created)
