"""Read runs, steps, logs and outputs from Prefect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from flowyml.core.errors import EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.modules import installed_versions
from flowyml.core.origin import Origin
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.core.web import parsed
from flowyml.orchestrators.http import NotFoundError
from flowyml.orchestrators.log_following import Poll, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.plan.names import slug
from flowyml_prefect.automations import HEARTBEAT, SILENCE_SECONDS
from flowyml_prefect.client import TAG, PrefectClient, not_an_id, unknown
from flowyml_prefect.messages import error_text, is_last_line, is_machinery, task_runs
from flowyml_prefect.names import PIPELINE, RUN_ID, flow_name, outputs_key, plan_key
from flowyml_prefect.records import FlowRun, Log, as_id
from flowyml_prefect.schedule import MADE_UP
from flowyml_prefect.status import status_of
from flowyml_prefect.step_runs import (
    RETRIED,
    Planned,
    after_the_end,
    index_of,
    recorded_runs,
    step_runs,
    went_wrong,
)

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = ["PrefectReader", "code_labels", "is_of_its_version", "package_labels"]

Row = TypeVar("Row")

_LAG = timedelta(seconds=10)
"""The time after the end of a run in which its last log lines may still arrive."""

_LAG_OF_TASKS = timedelta(seconds=60)
"""The same for its task runs, which a busy server records late. A run has their number, so few waits are long."""

_LAG_WHEN_CUT_SHORT = timedelta(seconds=3)
"""The same for a run that did not end by itself: some of its lines never arrive."""

_ABANDONED = (
    "The run was cancelled, but nothing has been heard of its process since: its worker or its pod may be gone, and "
    "then nothing ends the run. Cancel it again to end it."
)

# The tag of runs that a schedule made; source: Prefect, server/models/deployments.py.
_AUTO_SCHEDULED = "auto-scheduled"
_PLAN_SECONDS = 5  # seconds between two reads of a missing list of steps

_PROJECT, _MODULE, _CODE, _REVISION = "flowyml.project", "flowyml.module", "flowyml.code", "flowyml.revision"
_VERSION, _PACKAGE = "flowyml.version", "flowyml.package."


def code_labels(bundle: Bundle) -> dict[str, str]:
    """Return the labels that identify the code of a run, so that a run id used again for other code is noticed."""
    origin = {} if bundle.origin is None else {_PROJECT: bundle.origin.project, _MODULE: bundle.origin.module}
    revision = {_REVISION: bundle.revision} if bundle.revision else {}
    return {**origin, **revision, _CODE: bundle.code_digest, _VERSION: bundle.digest[:16]}


def package_labels(bundle: Bundle) -> dict[str, str]:
    """Return the labels of a run in this environment: the versions of the packages that its code imports."""
    try:
        return {f"{_PACKAGE}{name}": version for name, version in installed_versions(bundle.imports()).items()}
    except (SyntaxError, ValueError):  # of a file that its own code does not import
        return {}


def is_of_its_version(run: FlowRun) -> bool:
    """Return whether a run belongs to the version for which its deployment was created."""
    return bool(run.labels.get(_VERSION, run.version) == run.version)


def _started(run: FlowRun) -> datetime | None:
    """Return the start of the run, or of its last retry."""
    retried = _moment(run.labels.get(RETRIED))
    return max(run.start_time, retried) if run.start_time and retried else run.start_time


def _moment(label: Any) -> datetime | None:
    """Return the time that a label has; None for another label, since others may label runs as they like."""
    try:
        time = datetime.fromisoformat(label)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else None


def _origin(labels: Mapping[str, Any]) -> Origin | None:
    return Origin.from_dict({"project": labels.get(_PROJECT), "module": labels.get(_MODULE)})


@dataclass
class PrefectReader(RunReader):
    """Reads the runs of one server. ``artifacts`` is the store of large outputs; None for the default."""

    client: PrefectClient
    artifacts: str | None = None
    _pipelines: dict[str, str] = field(default_factory=dict, init=False)
    _plans: dict[tuple[str, str], tuple[Planned, ...]] = field(default_factory=dict, init=False)
    _next_plan_read: dict[tuple[str, str], float] = field(default_factory=dict, init=False)

    def fetch(self, job_id: str) -> FlowRun:
        """Return the flow run of a job id. Raises ``RunNotFoundError``."""
        if run_id := as_id(job_id):
            try:
                return self.client.run(run_id)
            except NotFoundError as error:
                raise RunNotFoundError(unknown(self.client, "run", job_id)) from error
        raise RunNotFoundError(not_an_id(self.client, "run", job_id, self.client.command("runs")))

    def get_run(self, job_id: str) -> Run:
        return self.record(self.fetch(job_id))

    def record(self, run: FlowRun) -> Run:
        """Convert a flow run to FlowyML's record."""
        status = status_of(run.state_type, run.state_name)
        error = error_text(run.message, run.state_name) if went_wrong(status) else None
        if self.is_abandoned(run):
            error = _ABANDONED
        return Run(
            job_id=run.id, run_id=_run_id(run), pipeline=self._pipeline(run),
            status=status, raw_status=run.state_name, created_at=run.created, started_at=_started(run),
            ended_at=run.end_time, error=WAS_CANCELLED if status is ExecutionStatus.CANCELLED else error,
            url=f"{self.client.connection.ui_url}/runs/flow-run/{run.id}", parameters=run.parameters,
            origin=_origin(run.labels), code_digest=run.labels.get(_CODE), revision=run.labels.get(_REVISION),
            packages={
                label.removeprefix(_PACKAGE): str(version)
                for label, version in run.labels.items()
                if label.startswith(_PACKAGE)
            },
        )  # fmt: skip

    def is_abandoned(self, run: FlowRun) -> bool:
        """Return whether a run is being cancelled while its flow, which would end it, is silent or never began."""
        silent_since = datetime.now(UTC) - timedelta(seconds=SILENCE_SECONDS)
        if run.state_type != "CANCELLING" or run.since is None or run.since > silent_since:
            return False
        return not self.client.has_event(HEARTBEAT, run.id, silent_since)

    def why_waiting(self, job_id: str) -> str:
        """Say that the work pool of a run that has not begun has no worker, or is paused.

        Source: ``WorkPoolStatus`` in Prefect 3: a pool is ready while a worker polls it.
        """
        run = self.fetch(job_id)
        if run.state_type not in ("SCHEDULED", "PENDING") or run.pool is None:
            return ""
        status = (self.client.work_pool(run.pool) or {}).get("status")
        if status == "PAUSED":
            return f"Work pool {run.pool!r} is paused, so no worker starts it: `prefect work-pool resume {run.pool}`."
        if status == "NOT_READY":
            return f"Work pool {run.pool!r} has no worker: `prefect worker start --pool {run.pool}` starts one."
        return ""

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        """Return the newest runs, without those that a schedule has planned for later."""
        return Runs.listed(self._newest(pipeline, limit), self.record, attrgetter("id"))

    def _newest(self, pipeline: str | None, limit: int, *, one_of: Sequence[str] | None = None) -> list[FlowRun]:
        """Return the newest runs, or those that also have ``one_of`` these tags."""
        now = datetime.now(UTC) + timedelta(seconds=1)
        filters: dict[str, Any] = {
            "flow_runs": {
                "tags": {"all_": [TAG], "any_": one_of},
                "expected_start_time": {"before_": now.isoformat()},
            }
        }
        if pipeline is not None:
            filters["flows"] = {"name": {"any_": [flow_name(pipeline)]}}
        return self.client.runs(filters, limit)

    def scheduled_runs(self, pipeline: str, limit: int) -> dict[datetime, Run]:
        """Return the newest runs of a schedule, by their scheduled times."""
        runs = self._newest(pipeline, limit, one_of=(_AUTO_SCHEDULED, MADE_UP))
        return {time: self.record(run) for run in runs if (time := _time_of(run))}

    def named(self, run_id: str) -> list[Run]:
        """Return the runs that were submitted under this id."""
        filters = {"flow_runs": {"name": {"any_": [run_id]}, "tags": {"all_": [TAG]}}}
        return [self.record(run) for run in self.client.runs(filters, limit=10)]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return all steps in the plan's order.

        After the end of a run, waits until Prefect has recorded its last task runs.
        """
        run = self.fetch(job_id)
        status = status_of(run.state_type, run.state_name)
        plan, count = self._plan(run), task_runs(run.message) if status.is_successful else None
        while True:
            found = self.client.task_runs(run.id)
            known = plan or [Planned(task.name, task.function) for task in found]
            all_begun = count is not None and len(found) >= count  # whatever its labels say
            steps = step_runs(known, found, {} if all_begun else run.labels)
            is_whole = len(found) >= recorded_runs(run) and all(task.is_whole for task in found)
            settled = is_whole and all(step.status.is_terminal for step in steps)
            if not status.is_terminal or settled or _is_settled(run, _LAG_OF_TASKS):
                break
            time.sleep(0.2)
        if not status.is_terminal:
            return tuple(steps)
        return tuple(after_the_end(step, status, run.end_time, counted=count is not None) for step in steps)

    def outputs(self, job_id: str) -> Outputs:
        """Return the pipeline's outputs; an output that is gone from the artifact store says why when it is read.

        Raises ``EngineError`` for a run that was set to Completed from outside, before its flow recorded any outputs.
        """
        from flowyml.artifacts import open_store
        from flowyml.orchestrators.run_outputs import read_outputs

        run = self.fetch(job_id)
        key = outputs_key(self._pipeline(run))
        table = self.client.artifact_of_run(key, run.id)
        if not table and run.state_type == "COMPLETED" and task_runs(run.message) is None:
            raise EngineError(
                f"Run {_run_id(run)!r} has no outputs: it was set to {run.state_name} in Prefect, or through its API, "
                f"and did not end by itself. Submit it again under another run id."
            )
        packed = dict(_rows(key, table, lambda row: (row["output"], parsed(row["value"].encode()))))
        around = _rows(key, table, lambda row: (row["output"], (row.get("loops") or "").split(", ")))
        loops = {name: names for name, names in around if names != [""]}
        return read_outputs(_run_id(run), packed, open_store(self.artifacts), loops=loops)

    def recorded_outputs(self, job_id: str) -> Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]:
        """Return what the process of the flow has saved beside the artifacts: the outputs of each completed step."""
        from flowyml.artifacts import default_url
        from flowyml.runtime.kept_outputs import KeptOutputs

        kept = KeptOutputs(self.artifacts or default_url(), self.place_of(self.fetch(job_id)))
        ended = [step for step in self.step_runs(job_id) if step.status.is_successful]
        return {(step.name, step.index): found for step in ended if (found := kept.read(step.label)) is not None}

    def place_of(self, run: FlowRun) -> str:
        """Return the prefix of a run's artifacts in the store."""
        from flowyml.artifacts import run_place

        return run_place(f"prefect {run.id}", self._pipeline(run), run.name)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts of the steps: the newest of each output, in the order of the plan."""
        from flowyml.artifacts.markdown import artifacts_in

        run = self.fetch(job_id)
        by_place: dict[tuple[str, tuple[int, ...], str], Artifact] = {}
        for data in self.client.markdown_of_run(run.id, f"{slug(self._pipeline(run))}-step-"):
            by_place.update({(item.step, item.index, item.name): item for item in artifacts_in(data)})
        order = {planned.step: place for place, planned in enumerate(self._plan(run))}
        return sorted(by_place.values(), key=lambda item: (order.get(item.step, len(order)), item.index))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines of a run. Prefect sends them in batches, so the last ones arrive after the end."""
        run_id = self.fetch(job_id).id
        names: dict[str, tuple[str, tuple[int, ...]]] = {}
        seen: set[str] = set()
        latest: datetime | None = None
        complete = False

        def poll() -> Poll:
            nonlocal latest, complete
            run = self.client.run(run_id)
            new = [log for log in self.client.logs(run_id, latest and latest - _LAG) if log.id not in seen]
            yield from self._lines(run_id, new, names)
            seen.update(log.id for log in new)
            latest = new[-1].time if new else latest
            complete = complete or any(not log.task_run_id and is_last_line(log.message) for log in new)
            over = status_of(run.state_type, run.state_name).is_terminal
            return complete or _is_settled(run, _LAG) if over else not follow

        return log_lines(poll, follow=follow, pause=0.5)

    def _lines(self, run_id: str, logs: Sequence[Log], names: dict[str, tuple[str, tuple[int, ...]]]) -> list[LogLine]:
        self._learn_steps(run_id, {log.task_run_id for log in logs if log.task_run_id}, names)
        lines = []
        for log in logs:
            if not is_machinery(log.message):
                step, index = names.get(log.task_run_id or "", ("", ()))
                lines.append(LogLine(log.message, step, logging.getLevelName(log.level), log.time, index=index))
        return lines

    def _learn_steps(self, run_id: str, wanted: set[str], names: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        """Find the steps of task runs, which Prefect may record after their first log lines."""
        deadline = time.monotonic() + _LAG_WHEN_CUT_SHORT.total_seconds()
        while wanted - names.keys():
            steps = {planned.function: planned.step for planned in self._plan(self.client.run(run_id))}
            for task in self.client.task_runs(run_id):
                step = steps.get(task.function, task.name)
                names[task.id] = step, index_of(task, step)
            if not wanted - names.keys() or time.monotonic() > deadline:
                return
            time.sleep(0.2)

    def _pipeline(self, run: FlowRun) -> str:
        """Return the pipeline's own name, which may differ from its flow's."""
        if name := run.labels.get(PIPELINE):
            return str(name)
        if run.flow_id not in self._pipelines:
            self._pipelines[run.flow_id] = self.client.flow_name(run.flow_id)
        return self._pipelines[run.flow_id]

    def _plan(self, run: FlowRun) -> tuple[Planned, ...]:
        """Return the steps of the run's version, each with the function of its task; empty if none was deployed."""
        if run.version is None:
            return ()
        pipeline = self._pipeline(run)
        key = (pipeline, run.version)
        if key not in self._plans and time.monotonic() >= self._next_plan_read.get(key, 0):
            self._next_plan_read[key] = time.monotonic() + _PLAN_SECONDS
            for artifact in self.client.artifacts(plan_key(pipeline)):
                version = str(artifact["description"])
                steps = tuple(_rows(plan_key(pipeline), artifact["data"], Planned.of))
                self._plans.setdefault((pipeline, version), steps)
                if version == run.version:
                    break
        return self._plans.get(key, ())


def _is_settled(run: FlowRun, lag: timedelta) -> bool:
    """Return whether Prefect has had the time to record an ended run: less time if the run did not end by itself."""
    own_end = run.state_type in ("COMPLETED", "FAILED") and run.state_name != "TimedOut"
    waited = lag if own_end else _LAG_WHEN_CUT_SHORT
    return run.end_time is not None and datetime.now(UTC) - run.end_time > waited


def _rows(key: str, data: Any, read: Callable[[dict[str, Any]], Row]) -> list[Row]:
    """Read the rows of a table artifact of FlowyML, which Prefect's own client stores as JSON text.

    Raises ``EngineError`` for one that another program wrote.
    """
    try:
        return [read(row) for row in (parsed(data.encode()) if isinstance(data, str) else data) or ()]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise EngineError(
            f"Artifact {key!r}, a record of FlowyML's in Prefect, is not as FlowyML writes it ({error!r:.80}). Another "
            f"program, or a step, has written it."
        ) from error


def _time_of(run: FlowRun) -> datetime | None:
    made_up = run.labels.get(MADE_UP)
    return _moment(made_up) if made_up else run.due


def _run_id(run: FlowRun) -> str:
    return str(run.labels.get(RUN_ID, run.name))
