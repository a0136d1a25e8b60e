"""Read a run from Airflow as FlowyML's records: steps, errors, logs, outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flowyml.artifacts import open_store
from flowyml.artifacts.listing import artifacts_of
from flowyml.core.durations import span_text
from flowyml.core.errors import RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.core.origin import Origin
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.log_following import Poll, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml.runtime.step_errors import of_several, of_step
from flowyml_airflow.audit_log import AuditLog
from flowyml_airflow.client import AirflowClient, KeptElsewhereError, NotThereError, usable_id
from flowyml_airflow.deployed_dag import About, DagVersions, version_of
from flowyml_airflow.logs import TaskLogs, is_start
from flowyml_airflow.names import (
    CACHED_KEY,
    CODE_KEY,
    RETURNED,
    REVISION_KEY,
    STEPS_KEY,
    TAKES_KEY,
    TIMED_OUT,
    UPSTREAM_FAILED,
    dag_id,
    development_id,
    given_run_id,
    pipeline_of,
    task_id,
)
from flowyml_airflow.outcomes import had_ended, run_status, task_status
from flowyml_airflow.parameters import parameters_of
from flowyml_airflow.stalled import RunWarnings, why_nothing_ran, why_stalled
from flowyml_airflow.status import failed_or_timed_out, moment
from flowyml_airflow.step_runs import (
    Marker,
    Seen,
    in_order,
    index_of,
    lacking_item,
    map_index,
    may_have_written,
    name_of,
    runs_several,
    step_runs,
    steps_of_task,
    with_causes,
)
from flowyml_airflow.task_exceptions import no_output
from flowyml_airflow.xcoms import restored

__all__ = ["AirflowReader"]

# The time that a worker may take to notice that its task was ended: a heartbeat, and the time to end.
SETTLES_WITHIN = timedelta(seconds=30)
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_START = "the hooks' on_pipeline_start"
_READ = 10  # tasks that failed first, whose logs are read for the error of their run
_LATE = ("AirflowTaskTimeout", TIMED_OUT)


@dataclass
class AirflowReader(RunReader):
    """Reads runs through one client. ``artifacts`` is the store of large outputs; no other store is read.

    ``known`` caches what is known ``About`` DAG versions, and outlives this reader: see ``DagVersions``. ``warnings``
    remembers the runs that were warned about.
    """

    client: AirflowClient
    artifacts: str | None = None
    known: dict[tuple[str, int | None], About] = field(default_factory=dict)
    warnings: RunWarnings = field(default_factory=RunWarnings)

    def __post_init__(self) -> None:
        self._audit_log = AuditLog(self.client)
        self._task_logs = TaskLogs(self.client)
        self.dags = DagVersions(self.client, self.known)

    def fetch(self, job_id: str) -> dict[str, Any]:
        """Return Airflow's record of a run. Raises ``RunNotFoundError``."""
        dag, _, run_id = job_id.partition("/")
        if usable_id(dag) and usable_id(run_id):
            with suppress(NotThereError):
                return self.client.run(dag, run_id)
        raise RunNotFoundError(
            f"Airflow at {self.client.transport.connection.url} has no run {job_id!r}. Job ids have the form "
            f"DAG_ID/RUN_ID."
        )

    def get_run(self, job_id: str) -> Run:
        return self.record(self.fetch(job_id))

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        """Return runs of a pipeline, or of a DAG by its id, or of all DAGs, foreign ones too; newest start first."""
        dags = None if pipeline is None else sorted({dag_id(pipeline), development_id(pipeline), pipeline})
        runs = Runs.listed(self.client.runs(dags, limit), partial(self.record, whole=False), _job_id)
        return Runs(sorted(runs, key=lambda run: run.started_at or run.created_at or _EARLIEST, reverse=True))

    def record(self, dag_run: Mapping[str, Any], *, whole: bool = True) -> Run:
        """Return the record of a DAG run.

        ``whole`` also reads the errors, and whether a stopped run has really ended.
        """
        dag_run = self._audit_log.noted(dag_run)
        dag, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
        status = run_status(dag_run)
        if status.is_failed:
            status = run_status(dag_run, self.dags.about(dag_run).timeout)
        elif status.is_successful and self.dags.about(dag_run).cleans_up and self._audit_log.was_failed(dag_run):
            status = ExecutionStatus.FAILED
        error = None
        if whole:
            if not status.is_terminal:
                self.warnings.warn_if_stalled(self.client, dag_run)
            elif not self._has_settled(dag_run, status):
                status = ExecutionStatus.RUNNING
            elif status.is_successful:
                self.warnings.warn_if_nothing_ran(self.client, dag_run)
            else:
                error = self._why(dag_run, status)
        return Run(
            job_id=_job_id(dag_run),
            run_id=given_run_id(dag_run.get("conf"), run_id),
            pipeline=pipeline_of(dag, dag_run.get("dag_display_name") or self.dags.about(dag_run).name),
            status=status,
            raw_status=dag_run["state"],
            created_at=moment(dag_run.get("queued_at") or dag_run.get("run_after") or dag_run.get("start_date")),
            started_at=moment(dag_run["start_date"]),
            ended_at=moment(dag_run["end_date"]),
            error=error,
            url=self.client.run_url(dag, run_id),
            parameters=parameters_of(dag_run.get("conf")),
            revision=(dag_run.get("conf") or {}).get(REVISION_KEY),
        )

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return the steps in the order of the DAG file."""
        dag_run = self._audit_log.noted(self.fetch(job_id))
        facts, tasks = self.dags.facts(dag_run), self._tasks(dag_run)
        visible = [task for task in tasks if not is_start(task) and task["task_id"] not in facts.get("helpers", ())]
        seen, over = Seen(facts, tasks), self._was_over(dag_run)
        may_be_cached = facts.get("cached") or TAKES_KEY in (dag_run.get("conf") or {})
        cached = self._cached(dag_run) if may_be_cached else {}
        by_task: dict[Marker, Sequence[StepRun]] = {}
        for task in visible:
            marker = task["task_id"], map_index(task)
            steps = self._steps_of(task, dag_run, facts, has_no_items=seen.has_no_items(task["task_id"]), over=over)
            before = cached.get(marker)
            by_task[marker] = [replace(run, cached_from=before) for run in steps] if before else steps
        return in_order(with_causes(by_task, tasks, facts), facts)

    def _was_over(self, dag_run: Mapping[str, Any]) -> datetime | None:
        """Return the time when the timeout of a run passed. Airflow notices that a little later."""
        if not run_status(dag_run).is_failed:
            return None
        timeout, began = self.dags.about(dag_run).timeout, moment(dag_run["start_date"])
        is_late = run_status(dag_run, timeout) is ExecutionStatus.TIMEOUT
        return began + timeout if is_late and began and timeout else None

    def _cached(self, dag_run: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        """Return, by task and map index, the earlier run that the results are from, if they come from the cache."""
        listed = self.client.returned(dag_run["dag_id"], dag_run["dag_run_id"], CACHED_KEY)
        kept = {}
        for marker in listed:
            with suppress(KeptElsewhereError):
                kept[marker] = self._kept(dag_run, marker, CACHED_KEY)
        return {marker: str(before) for marker, before in kept.items() if before is not None}

    def identified(self, dag_run: Mapping[str, Any]) -> Run:
        """Return the record with the digest of the code: the run's own, else that of its DAG version.

        The record has the origin of the DAG version if that version has the code of the run.
        """
        facts = self.dags.facts(dag_run) if version_of(dag_run) else {}
        kept, submitted = facts.get("code"), (dag_run.get("conf") or {}).get(CODE_KEY)
        origin = Origin.from_dict(facts.get("origin")) if submitted in (None, kept) else None
        return replace(self.record(dag_run, whole=False), origin=origin, code_digest=submitted or kept)

    def outputs(self, job_id: str) -> Outputs:
        """Return the outputs of the pipeline; for a foreign DAG the return values by task id: see ``_returned``."""
        dag_run = self.fetch(job_id)
        dag, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
        facts = self.dags.facts(dag_run)
        if not facts:
            return self._returned(dag_run)
        tasks = self._tasks(dag_run)
        if not tasks and (why := why_nothing_ran(self.client, dag_run)):
            return Outputs(not_kept=dict.fromkeys(facts.get("outputs", ()), why))
        seen = Seen(facts, tasks) if "helpers" in facts else None
        packed: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        lost: dict[str, str] = {}
        loops: dict[str, Sequence[str]] = {}
        for name, place in facts.get("outputs", {}).items():
            where = seen.place(place) if seen else place
            if where is None:
                continue
            task, output = where[:2]
            label, is_operator = task, output == RETURNED and task not in facts.get("xcoms", ())
            try:
                if seen and where[2:]:
                    loops[name] = seen.on_item_error(where)
                    states = self._items(dag_run, facts, seen, task, output)
                    if (lacking := lacking_item(states, goes_on="continue" in loops[name])) is not None:
                        lost[name] = (
                            f"Output {name!r} of run {run_id!r} lacks {labelled(task, lacking)!r}, whose state in "
                            f"Airflow is {states[lacking]!r} although the run has completed: it was changed by hand. "
                            f"Clear it together with the run."
                        )
                        continue
                    items = []  # all of them or, where one is not there, none
                    for index in sorted(item for item, state in states.items() if item and state == "success"):
                        label = labelled(task, index)
                        items.append((index[0], restored(self.client.xcom(dag, run_id, task, output, index[0]))))
                    packed[name] = items if "continue" in loops[name] else [value for _, value in items]
                elif is_operator:
                    plain[name] = self.client.xcom(dag, run_id, task, output)
                else:
                    packed[name] = restored(self.client.xcom(dag, run_id, task, output))
            except KeptElsewhereError as error:
                lost[name] = f"Output {name!r} of run {run_id!r} cannot be read. {error}"
            except NotThereError:
                if is_operator:  # it returned None
                    continue
                lost[name] = (
                    f"Output {name!r} of run {run_id!r} is not kept: Airflow has no XCom {output!r} of task {label!r} "
                    f"any more. It was cleared, or the task was marked as success by hand."
                )
        read = read_outputs(run_id, packed, open_store(self.artifacts), lost=lost, loops=loops)
        return Outputs({**read, **plain}, not_kept=read.not_kept) if plain else read

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts of the steps, as long as Airflow has the XComs."""
        return [
            artifact
            for (name, index), outputs in self._recorded(job_id)
            for artifact in artifacts_of(name, outputs, index)
        ]

    def recorded_outputs(self, job_id: str) -> Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]:
        return dict(self._recorded(job_id))

    def _recorded(self, job_id: str) -> Iterator[tuple[tuple[str, tuple[int, ...]], Mapping[str, Any]]]:
        """Yield the packed outputs of completed steps and items, in the order of the DAG file."""
        dag_run = self.fetch(job_id)
        facts = self.dags.facts(dag_run)
        order = {task: number for number, task in enumerate(facts.get("steps", ()))}
        keys: Mapping[str, Mapping[str, str]] = facts.get("xcoms", {})
        tasks = [task for task in self._tasks(dag_run) if task["task_id"] in order]
        for task in sorted(tasks, key=lambda task: (order[task["task_id"]], map_index(task))):
            marker = task["task_id"], map_index(task)
            if runs_several(task):
                for name, outputs in self._recorded_together(task, dag_run):
                    yield (name, index_of(task)), outputs
            elif marker[0] in keys and task["state"] == "success":
                yield (name_of(task), index_of(task)), self._packed(dag_run, marker, keys[marker[0]])

    def _recorded_together(
        self, task: Mapping[str, Any], dag_run: Mapping[str, Any]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the packed outputs of each completed step of an execution group."""
        marker = task["task_id"], map_index(task)
        for name, said in self._written(task, dag_run).get("steps", {}).items():
            yield name, self._packed(dag_run, marker, said.get("outputs", {}))

    def _packed(self, dag_run: Mapping[str, Any], marker: Marker, keys: Mapping[str, str]) -> dict[str, Any]:
        """Return the packed outputs that a task left, by name; ``keys`` are their XCom keys."""
        kept = {output: self._kept(dag_run, marker, key) for output, key in keys.items()}
        return {output: restored(value) for output, value in kept.items() if value is not None}

    def _kept(self, dag_run: Mapping[str, Any], marker: Marker, key: str) -> Any:
        """Return an XCom; None if it is gone, as for a task that runs again since it was listed."""
        with suppress(NotThereError):
            return self.client.xcom(dag_run["dag_id"], dag_run["dag_run_id"], marker[0], key, marker[1])
        return None

    def _returned(self, dag_run: Mapping[str, Any]) -> Outputs:
        """Return the return value of each task; for a mapped task a list by map index, None for those without."""
        dag, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
        values: dict[str, Any] = {}
        lost: dict[str, str] = {}
        mapped: dict[str, list[Any]] = {}
        for task, index in sorted(self.client.returned(dag, run_id)):
            try:
                value = self.client.xcom(dag, run_id, task, map_index=index)
            except NotThereError:  # the task was cleared in the meantime
                continue
            except KeptElsewhereError as error:
                lost[task] = f"What task {task!r} of run {run_id!r} returned cannot be read. {error}"
                continue
            if index < 0:
                values[task] = value
                continue
            values[task] = items = mapped.setdefault(task, [])
            items += [None] * (index - len(items)) + [value]
        counts = Counter(instance["task_id"] for instance in self._tasks(dag_run)) if mapped else Counter()
        for task, items in mapped.items():
            items.extend([None] * (counts[task] - len(items)))
        return Outputs({task: value for task, value in values.items() if task not in lost}, not_kept=lost)

    def why_waiting(self, job_id: str) -> str:
        """Say that the DAG is paused or has lost its file."""
        return why_stalled(self.client, self.fetch(job_id))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines of every attempt, oldest first; with ``follow`` as they arrive, until the run has ended."""
        dag_run: Mapping[str, Any] = self.fetch(job_id)
        over: bool | None = None  # unknown before the first poll, for which ``found`` is new enough

        def poll() -> Poll:
            nonlocal dag_run, over
            is_last = over is True  # a worker may write its last lines a moment after the end
            if over is False:
                dag_run = self.client.run(dag_run["dag_id"], dag_run["dag_run_id"])
            over = self.record(dag_run).status.is_terminal
            seen = self._audit_log.noted(dag_run)
            tasks = [task for task in self._tasks(seen) if task["start_date"] is not None]
            facts = self.dags.facts(seen) if any(map(runs_several, tasks)) else {}
            yield from self._task_logs.new_lines(seen, tasks, facts, follow=follow and not is_last)
            return is_last or not follow

        return log_lines(poll, follow=follow)

    def _tasks(self, dag_run: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.client.task_instances(dag_run["dag_id"], dag_run["dag_run_id"])

    def _step(
        self, task: Mapping[str, Any], dag_run: Mapping[str, Any], status: ExecutionStatus, has_no_items: bool
    ) -> StepRun:
        error = None
        raw = "no_items" if has_no_items and status.is_successful else task["state"] or "none"
        if status.is_failed:
            error, kind = self._error(dag_run, task)
            status = ExecutionStatus.TIMEOUT if kind in _LATE else status
            if kind == UPSTREAM_FAILED:
                status, raw = ExecutionStatus.CANCELLED, "upstream_failed"
        # A task that waits to run again still has the times of its last try.
        waits = status is ExecutionStatus.QUEUED or task["state"] == "upstream_failed"
        began = task["start_date"] is not None and not waits
        return StepRun(
            name=name_of(task),
            index=index_of(task),
            status=status,
            raw_status=raw,
            attempt=(task["try_number"] or 0) if began else 0,
            started_at=moment(task["start_date"]) if began else None,
            ended_at=moment(task["end_date"]) if status.is_terminal else None,
            error=error,
        )

    def _steps_of(
        self,
        task: Mapping[str, Any],
        dag_run: Mapping[str, Any],
        facts: Mapping[str, Any],
        *,
        has_no_items: bool = False,
        over: datetime | None = None,
    ) -> Sequence[StepRun]:
        """Return the step of a task, or the steps of an execution group.

        ``over`` is the time when the timeout passed.
        """
        names = steps_of_task(task["task_id"], facts)
        cleans_up = task["task_id"] in facts.get("cleanup", ())
        status = task_status(task, dag_run, over=None if has_no_items else over, cleans_up=cleans_up)
        whole = self._step(task, dag_run, status, has_no_items)
        if not names:
            return [whole]
        return list(step_runs(names, whole, task, self._written(task, dag_run)))

    def _items(
        self, dag_run: Mapping[str, Any], facts: Mapping[str, Any], seen: Seen, task: str, output: str
    ) -> Mapping[tuple[int, ...], str]:
        """Return Airflow's states, by item, of a task, or of the step of an execution group that has this output."""
        names = [candidate for candidate in steps_of_task(task, facts) if output.startswith(f"{task_id(candidate)}.")]
        name = max(names, key=len, default=None)  # a step `train.v2` may exist beside a step `train`
        if name is None:
            return seen.items(task)
        mapped = [candidate for candidate in self._tasks(dag_run) if candidate["task_id"] == task]
        runs = [run for candidate in mapped for run in self._steps_of(candidate, dag_run, facts)]
        return {run.index: run.raw_status for run in runs if run.name == name}

    def _written(self, task: Mapping[str, Any], dag_run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the record that an execution group's task wrote about its steps."""
        if not may_have_written(task):
            return {}
        return dict(restored(self._kept(dag_run, (task["task_id"], map_index(task)), STEPS_KEY)) or {})

    def _why(self, dag_run: Mapping[str, Any], status: ExecutionStatus) -> str:
        """Return the error of a run that failed, took too long or was cancelled."""
        if status is ExecutionStatus.CANCELLED:
            return WAS_CANCELLED
        if status is ExecutionStatus.TIMEOUT:
            timeout = self.dags.about(dag_run).timeout
            return f"The run took longer than its timeout of {span_text(timeout.total_seconds() if timeout else 0)}."
        facts, tasks = self.dags.facts(dag_run), self._tasks(dag_run)
        seen = Seen(facts, tasks)
        failed = [task for task in tasks if task["state"] == "failed" and seen.counts(task["task_id"])]
        if not failed:
            lost = ((task, items) for task in tasks if (items := seen.lost_list(task["task_id"])))
            no_lists = (of_step(name_of(task), str(no_output(items))) for task, items in lost)
            unknown = (
                "Airflow marked the run as failed although no task failed: the run was marked by hand, or the DAG has "
                "changed."
            )
            return self._audit_log.marked(dag_run) or next(no_lists, unknown)
        order = {task: number for number, task in enumerate(facts.get("steps", ()))}
        failed.sort(key=lambda task: task["end_date"] or "9")
        read = sorted(failed[:_READ], key=lambda task: (order.get(task["task_id"], -1), map_index(task)))
        said = [error for task in read if (error := self._failure(dag_run, task, facts))]
        said = said or [self._error(dag_run, read[0])[0]]
        return of_several(said, len(said) + len(failed) - len(read))

    def _failure(self, dag_run: Mapping[str, Any], task: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        """Say how a task failed, for the run's error; empty if it failed only because another task had."""
        if steps_of_task(task["task_id"], facts):
            with suppress(KeptElsewhereError):  # the log has it, too
                runs = [run for run in self._steps_of(task, dag_run, facts) if failed_or_timed_out(run.status)]
                first = min(runs, key=lambda run: run.ended_at or _LATEST, default=None)
                return of_step(first.name, first.error or "", first.label) if first else ""
        error, kind = self._error(dag_run, task)
        if kind == UPSTREAM_FAILED:
            return ""
        if task["task_id"] in facts.get("helpers", ()):
            return error
        if is_start(task):
            return error if error.startswith(_START) else f"{_START}: {error}"
        return of_step(name_of(task), error, labelled(name_of(task), index_of(task)))

    def _error(self, dag_run: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[str, str]:
        """Return the error of the last attempt of a failed task, and the class of its exception.

        If a user marked the task as failed, the error names the user: the process only reports that it was stopped.
        """
        if marked := self._audit_log.marked(dag_run, task):
            return marked, ""
        return self._task_logs.error(dag_run, task)

    def _has_settled(self, dag_run: Mapping[str, Any], status: ExecutionStatus) -> bool:
        """Return whether no task of an ended run can change anything any more.

        Tasks that were stopped with their run are ended by their workers a little later. On Airflow 2, a task that
        skips itself may write back that its run is running. Only the logs show that such tasks have ended. A task whose
        log does not counts as ended after ``SETTLES_WITHIN``.
        """
        was_stopped = status in (ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT)
        ended = moment(dag_run["end_date"])
        if not (was_stopped or self.client.may_run_after_end) or ended is None:
            return True
        if datetime.now(UTC) - ended > SETTLES_WITHIN:
            return True
        stopped = [
            task
            for task in self._tasks(dag_run)
            if task["try_number"]
            and (task["state"] == "skipped" or (was_stopped and task["state"] != "success"))
            and not had_ended(task["task_id"], "failed", dag_run)
        ]
        if not all(self._task_logs.has_stopped(dag_run, task) for task in stopped):
            return False
        if was_stopped or not stopped:
            return True
        # The log is newer than what was read of the run.
        now = self.client.run(dag_run["dag_id"], dag_run["dag_run_id"])
        return bool(now["state"] == dag_run["state"])


def _job_id(dag_run: Mapping[str, Any]) -> str:
    return f"{dag_run['dag_id']}/{dag_run['dag_run_id']}"
