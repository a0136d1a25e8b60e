"""Read a run from KFP as FlowyML's records: state, steps, errors, logs, outputs.

``tasks`` finds the steps of a run, and their pods, in the answers of KFP's API.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from operator import attrgetter
from typing import Any

from flowyml.artifacts import is_reference, open_store
from flowyml.artifacts.listing import artifacts_of
from flowyml.core.errors import ArtifactError, EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.core.web import LARGEST_ANSWER, parsed
from flowyml.orchestrators.http import NotFoundError
from flowyml.orchestrators.log_following import Look, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml.runtime.step_errors import NAMED, of_several, of_step
from flowyml_kubeflow import flow_names
from flowyml_kubeflow.attempts import ENGINE, RESULT, TIMED_OUT, leveled
from flowyml_kubeflow.client import MAYBE_DONE, Client, equals, lines_of
from flowyml_kubeflow.deployer import Pipelines, facts, origin_of
from flowyml_kubeflow.status import status_of, step_status_of
from flowyml_kubeflow.step_runs import UNKNOWN, is_result, step_runs
from flowyml_kubeflow.tasks import Pod, Tasks, pod_of
from flowyml_kubeflow.ui_store import UiStore, page_of
from flowyml_kubeflow.workflow import DRIVER, Workflow

__all__ = ["KubeflowReader", "artifacts_of_notes", "lines_by_item", "lists_of_files", "located"]

Json = dict[str, Any]

_PAGE = 200  # runs, KFP's limit for a page; source: KFP, list_request_util.go
_ENGINE = re.compile(ENGINE)
_LAST_LINES = 3  # of a pod whose failure is otherwise unexplained
_LOST = "its pod was lost"
_SAME_NAME = "two tasks have the same task name"


class KubeflowReader(RunReader):
    """Reads the runs of a KFP. ``artifacts`` is the store that the steps write to, if it is not KFP's own."""

    def __init__(self, pipelines: Pipelines, artifacts: str | None) -> None:
        self.pipelines = pipelines
        self.client: Client = pipelines.client
        self.artifacts = artifacts
        self._stopped: dict[str, datetime | None] = {}
        """Runs that were stopped here, or seen being stopped, with the time when KFP began them: see ``status``."""
        self._pod_names: dict[str, str] = {}

    def get_run(self, job_id: str) -> Run:
        return self._run(self.fetch(job_id), whole=True)

    def fetch(self, job_id: str) -> Any:
        """Return the official client's model of a run. Raises ``RunNotFoundError``."""
        missing = RunNotFoundError(f"KFP at {self.client.connection.where} has no run {job_id!r}.")
        try:
            uuid.UUID(job_id)
        except ValueError:
            raise missing from None
        try:
            run = self.client.call("run_service_get_run", job_id)
        except NotFoundError as error:
            raise missing from error
        if run.run_id != job_id:
            raise EngineError(f"KFP at {self.client.connection.where} sent run {run.run_id!r} for run {job_id!r}.")
        return run

    def named(self, run_id: str) -> list[Any]:
        """Return all runs of that name as the official client's models, oldest first."""
        found = self.client.pages(
            "run_service_list_runs", "runs", filter=equals(display_name=run_id), **self.client.connection.scope
        )
        runs = [run for run in found if run.display_name == run_id]
        return sorted(runs, key=lambda run: (run.created_at, run.run_id))

    def record(self, run: Any) -> Run:
        """Return the record of a run, with the origin of its code."""
        version = self.pipelines.version_of(run)
        code = facts(version.description).get("code") if version else None
        return replace(self._run(run), origin=origin_of(version), code_digest=code)

    def _run(self, run: Any, *, whole: bool = False) -> Run:
        status = self.status(run)
        error = WAS_CANCELLED if status is ExecutionStatus.CANCELLED else None
        if status.is_failed:
            error = self._error(run) if whole else _message(run)
        started = [item.update_time for item in run.state_history or () if item.state == "RUNNING"]
        return Run(
            job_id=str(run.run_id), run_id=run.display_name, pipeline=self.pipelines.pipeline_of(run),
            status=status, raw_status=run.state or "RUNTIME_STATE_UNSPECIFIED", created_at=_utc(run.created_at),
            started_at=_utc(started[0] if started else run.created_at) if started or status.is_terminal else None,
            ended_at=_utc(run.finished_at) if status.is_terminal else None, error=error,
            url=self.client.connection.page(f"runs/details/{run.run_id}"),
            parameters=self.pipelines.parameters_of(run), revision=facts(run.description).get("revision"),
        )  # fmt: skip

    def status(self, run: Any) -> ExecutionStatus:
        """Return the status of a run. For a run that it has terminated, KFP reports FAILED.

        The state before that one shows it, but may be missing: it is in the history only if KFP's agent saw the
        workflow in between (source: ``RunStore.TerminateRun``).
        """
        if run.state == "CANCELING":
            self.note_stopped(run)
        states = [item.state for item in run.state_history or () if item.state != run.state]
        is_stopped = run.run_id in self._stopped and self._stopped[run.run_id] == _begun(run)
        return status_of(run.state, [*states, "CANCELING"] if is_stopped else states)

    def note_stopped(self, run: Any) -> None:
        """Note that the run is being stopped; that counts for every retry until KFP begins the run again."""
        self._stopped[str(run.run_id)] = _begun(run)

    def _tasks(self, run: Any) -> Tasks:
        """Return the tasks of a run.

        Raises ``NotFoundError`` if the version of its pipeline was deleted, ``EngineError`` if it has another form.
        """
        version, found = self.pipelines.spec_of(run), self.client.run_of_v1(str(run.run_id))
        try:
            return Tasks(run, version, Workflow.of(found) if found else None)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"The pipeline of run {run.run_id!r} at KFP has a form that FlowyML does not write: {error!r:.200}. "
                f"Another program, or a newer FlowyML, compiled it."
            ) from error

    def _error(self, run: Any) -> str | None:
        """The error in the words of the failed steps, if their logs still exist, else in those of KFP and Argo."""
        try:
            tasks = self._tasks(run)
        except NotFoundError:
            found = self.client.run_of_v1(str(run.run_id))
            return self._cause(str(run.run_id), Workflow.of(found) if found else None) or _message(run)
        if tasks.has_flow and (notes := self._notes(run, tasks, flow_names.RESULT_TASK)):
            return str(notes[0]["failed"])
        ends = tasks.pods(flow_names.RESULT_TASK) if tasks.state(flow_names.RESULT_TASK) == "FAILED" else []
        if ends and ends[-1].reason:
            return ends[-1].reason
        if ends and all(self._log(str(run.run_id), pod) is None for pod in ends):
            return "A step failed. Which one, and why, was in the logs of the pods, which KFP no longer has."
        return "\n".join(filter(None, [self._said(run, tasks), _left_out(tasks)])) or None

    def _said(self, run: Any, tasks: Tasks) -> str | None:
        """The error in the words of the failed steps, and of those whose pods were lost."""
        items = self._items_lost(run, tasks) if tasks.has_flow else []
        if items:
            said = [of_step(item.name, str(item.error), item.label) for item in items[:NAMED]]
            return of_several(said, len(items))
        failed = [task for task in tasks.steps if tasks.state(task) == "FAILED" and tasks.pods(task)]
        if not failed:
            return self._cause(str(run.run_id), tasks.workflow) or _message(run)
        failures = {task: self._failure(run, tasks, task) for task in failed[:NAMED]}
        said = [
            of_step(tasks.steps[task], each.get("message") or self._unsaid(run, tasks, task))
            for task, each in failures.items()
        ]
        return of_several(said, len(failed))

    def _items_lost(self, run: Any, tasks: Tasks) -> list[StepRun]:
        """Return the steps and items, of a pipeline with control flow, whose pods were lost."""
        found = [item for task in tasks.steps for item in self._item_runs(run, self.status(run), tasks, task)]
        return [item for item in found if item.error and item.error.startswith(_LOST)]

    def _cause(self, job_id: str, workflow: Workflow | None) -> str:
        """Argo's messages on the workflow, and on failed pods of KFP and FlowyML, with the end of their logs."""
        if workflow is None:
            return ""
        said = [workflow.message] if workflow.message else []
        for node in workflow.failed()[:NAMED]:
            task = workflow.task_of(node)
            who = f"KFP's driver of {task!r}" if node.template.endswith(DRIVER) else f"{task!r}"
            lines = self._log(job_id, pod_of(node, workflow)) or () if node.kind == "Pod" else ()
            last = _last_of(lines)
            said.append("\n".join([f"{who}: {node.message}", *last]))
            if any(_SAME_NAME in line for line in last):
                said.append("That is a fault of KFP 2.17, after it had lost a driver's pod. Start a new run.")
        return "\n".join(said)

    def _unsaid(self, run: Any, tasks: Tasks, task: str) -> str:
        """Return the error of a step that left no message, as when it lacked its code: Argo's, and its log."""
        pod = next(reversed(tasks.pods(task)), None)
        said = "failed: " + pod.message if pod and pod.message else "failed"
        lines = self._log(str(run.run_id), pod) if pod else None
        if lines is None:
            return f"{said}; its log is gone"
        own = [line for *_, line, is_engine in lines_by_item(lines) if not is_engine]
        return "\n".join([said, *(_last_of(own) or _last_of(line for line in lines if not line.startswith(RESULT)))])

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return Runs.listed(self._newest(pipeline, limit), self._run, attrgetter("run_id"))

    def scheduled_runs(self, pipeline: str, limit: int) -> dict[datetime, Run]:
        """Return the newest runs of recurring runs, by their scheduled times; also if the schedule is gone."""
        found = self._newest(pipeline, limit, of_schedules=True)
        return {time: self._run(run) for run in found if (time := _utc(run.scheduled_at))}

    def _newest(self, pipeline: str | None, limit: int, *, of_schedules: bool = False) -> Iterator[Any]:
        size = min(limit, _PAGE) if pipeline is None else _PAGE
        every = self.client.pages(
            "run_service_list_runs", "runs", sort_by="created_at desc", page_size=size, **self.client.connection.scope
        )  # fmt: skip
        some = (run for run in every if run.recurring_run_id or not of_schedules)
        wanted = (run for run in some if pipeline is None or self.pipelines.pipeline_of(run) == pipeline)
        return islice(wanted, limit)

    def failed_at_its_end(self, job_id: str) -> bool:
        """Return whether the last task of a run with control flow failed, since a step failed in a successful pod."""
        run = self.fetch(job_id)
        return self._tasks(run).state(flow_names.RESULT_TASK) == "FAILED"

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return the steps; empty for a run whose version of the pipeline was deleted, which alone has its steps."""
        run = self.fetch(job_id)
        try:
            status, tasks = self.status(run), self._tasks(run)
        except NotFoundError:
            return ()
        if tasks.has_flow:
            return tuple(item for task in tasks.steps for item in self._item_runs(run, status, tasks, task))
        return tuple(self._step_run(run, status, tasks, task) for task in tasks.steps)

    def _item_runs(self, run: Any, status: ExecutionStatus, tasks: Tasks, task: str) -> list[StepRun]:
        """Return the records of a step in a pipeline with control flow.

        Without its pods' logs, what KFP says of the pods: one that succeeded may have skipped the step, or let it fail.
        """
        pods = tasks.pods(task)
        notes = [note for pod in pods for note in _closed(self._notes_of(run, task, pod), pod, status)]
        if not notes and pods and tasks.state(task) is not None:
            step_run = self._step_run(run, status, tasks, task)
            if step_run.status is not ExecutionStatus.COMPLETED or not status.is_terminal:
                return [step_run]
            known = status if status is ExecutionStatus.COMPLETED else ExecutionStatus.CANCELLED
            return [replace(step_run, status=known, error=UNKNOWN)]
        items, run_ended = self._items(run, tasks, task), _utc(run.finished_at)
        return step_runs(tasks.steps[task], notes, status, items=items, run_ended=run_ended)

    def _items(self, run: Any, tasks: Tasks, task: str) -> int | None:
        """Return the number of items of the loop of a step, if it is known."""
        loop = tasks.loops.get(task)
        if not isinstance(loop, str):
            return loop
        opened = [note["opened"] for note in self._notes(run, tasks, loop) if "opened" in note]
        return opened[-1] if opened else None

    def _notes(self, run: Any, tasks: Tasks, task: str) -> list[Json]:
        """Return the notes of a task's pods, in order; in a pod of several steps each names its step."""
        return [note for pod in tasks.pods(task) for note in self._notes_of(run, task, pod)]

    def _notes_of(self, run: Any, task: str, pod: Pod) -> list[Json]:
        found = [result["note"] for result in self._results(run, pod) if "note" in result]
        return [note for note in found if note.get("task", task) == task]

    def _step_run(self, run: Any, status: ExecutionStatus, tasks: Tasks, task: str) -> StepRun:
        state, pods = tasks.state(task), tasks.pods(task)
        begun = bool(pods) or state in ("RUNNING", "SUCCEEDED")
        step_status = step_status_of(state if begun else None, status)
        error = None
        if step_status.is_failed:
            failure = self._failure(run, tasks, task)
            error = failure.get("message") or self._unsaid(run, tasks, task)
            if failure.get("kind") == TIMED_OUT:
                step_status = ExecutionStatus.TIMEOUT
            elif not failure and status is ExecutionStatus.CANCELLED:  # stopped before it could publish a failure
                step_status, error = ExecutionStatus.CANCELLED, WAS_CANCELLED
        notes = self._notes(run, tasks, task) if begun and tasks.has_notes(task) else []
        before = pods[-1].attempt - 1 if pods else 0  # of pods that were lost
        return StepRun(
            name=tasks.steps[task], status=step_status, raw_status=state or "PENDING",
            attempt=before + max((int(note.get("attempt", 1)) for note in notes), default=1) if begun else 0,
            started_at=_utc(tasks.started(task)) if begun else None,
            ended_at=_utc(tasks.ended(task)) if begun else None, error=error,
            cached_from=next((str(note["cached"]) for note in notes if "cached" in note), ""),
        )  # fmt: skip

    def outputs(self, job_id: str) -> Outputs:
        run = self.fetch(job_id)
        tasks = self._tasks(run)
        packed: Json = {}
        lost: dict[str, str] = {}
        for task, wanted in tasks.outputs().items():
            result = self._result(run, tasks, task)
            found = result.get("outputs")
            packed.update(found or {})
            lost.update(lists_of_files(result))
            if found is None:
                lost.update({name: f"Output {name!r}: {_lost(tasks, task)}" for name in wanted})
        stores = open_store(self.artifacts), UiStore(self.client, job_id)
        return read_outputs(job_id, packed, *stores, lost=lost, explain=_unreadable)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts of steps in the pods' logs, as long as KFP has the logs."""
        run = self.fetch(job_id)
        tasks = self._tasks(run)
        listed: list[Artifact] = []
        for task, step in tasks.steps.items():
            if tasks.has_flow:
                listed += artifacts_of_notes(step, self._notes(run, tasks, task))
            else:
                listed += artifacts_of(step, self._result(run, tasks, task).get("artifacts", {}))
        if tasks.has_flow:
            return located(listed, self._result(run, tasks, flow_names.RESULT_TASK).get("outputs", {}))
        return listed

    def _result(self, run: Any, tasks: Tasks, task: str) -> Json:
        """Return the result in the log of the last attempt of a step that has one."""
        for pod in reversed(tasks.pods(task)):
            for result in reversed(self._results(run, pod)):
                if "note" not in result:
                    return result
        return {}

    def _failure(self, run: Any, tasks: Tasks, task: str) -> Json:
        """Return the failure of a step from its log or, without one, as its last pod left it; else empty."""
        if failure := self._result(run, tasks, task).get("failure"):
            return dict(failure)
        reason = next((pod.reason for pod in reversed(tasks.pods(task))), "")
        return {"kind": reason.partition(":")[0], "message": reason} if reason else {}

    def _results(self, run: Any, pod: Pod) -> list[Json]:
        lines = self._log(str(run.run_id), pod) or ()
        return [result for line in lines if line.startswith(RESULT) and (result := _result_of(line))]

    def _log(self, job_id: str, pod: Pod, *, grows: bool = False) -> list[str] | None:
        """Return the log of a pod, by the first of its possible names that KFP knows."""
        known = self._pod_names.get(pod.node)
        for name in pod.names if known is None else (known,):
            if (lines := self.client.log(job_id, name, grows=grows)) is not None:
                self._pod_names[pod.node] = name
                return lines
        return next((lines for url in pod.stored if (lines := self._stored_log(url)) is not None), None)

    def _stored_log(self, url: str) -> list[str] | None:
        """Return a pod's output from KFP's store, by its UI; None if that lacks it, or only the API is reachable."""
        lines: list[bytes] = []
        try:
            self.client.download(page_of(url), lines.append, LARGEST_ANSWER)
        except MAYBE_DONE:
            raise
        except EngineError:
            return None
        return lines_of(b"".join(lines).decode("utf-8", "replace"))

    def why_no_lines(self, job_id: str) -> str:
        """Say that the logs are gone, of a run that has ended and of whose pods KFP has none."""
        run = self.fetch(job_id)
        tasks = self._tasks(run)
        pods = [pod for task in tasks.logged for pod in tasks.pods(task)]
        if not pods or not self.status(run).is_terminal or any(self._log(job_id, pod) is not None for pod in pods):
            return ""
        return (
            f"The logs of this run are gone: KFP at {self.client.connection.where} has none of its pods' logs. KFP "
            "deletes pods an hour to a day after the end of a run. By the URL of KFP's UI, logs that KFP stored stay "
            "readable."
        )

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines of a run, pod by pod; with ``follow`` until it has ended."""
        seen: dict[str, int] = {}
        return log_lines(lambda: self._new_lines(job_id, seen, follow=follow), follow=follow)

    def _new_lines(self, job_id: str, seen: dict[str, int], *, follow: bool) -> Look:
        run = self.fetch(job_id)
        grows = follow and not self.status(run).is_terminal
        tasks = self._tasks(run)
        for task, step in tasks.logged.items():
            for pod in tasks.pods(task):
                lines = list(lines_by_item(self._log(job_id, pod, grows=grows) or ()))
                for one, index, line, is_engine in lines[seen.get(pod.node, 0) :]:
                    level, message = ("INFO", line) if is_engine else leveled(line)
                    yield LogLine(message, tasks.steps.get(one, step), level, index=index, of_engine=is_engine)
                seen[pod.node] = max(seen.get(pod.node, 0), len(lines))
        return not grows


def artifacts_of_notes(step: str, notes: Sequence[Json]) -> Iterator[Artifact]:
    """Yield the artifacts of the items of a step, each from its last attempt."""
    given = {tuple(note["index"]): note["artifacts"] for note in notes if "artifacts" in note}
    for index, outputs in sorted(given.items()):
        yield from artifacts_of(step, outputs, index)


def located(artifacts: Iterable[Artifact], outputs: Mapping[str, Any]) -> list[Artifact]:
    """Return the artifacts, with the URLs of those that are also outputs of the run.

    With control flow, the last task stores these, and no other value has a file of its own.
    """
    found = [packed["$artifact"] for packed in outputs.values() if is_reference(packed)]
    urls = {about["sha256"]: about["url"] for about in found}
    return [_at(each, urls[each.digest]) if not each.url and each.digest in urls else each for each in artifacts]


def _at(artifact: Artifact, url: str) -> Artifact:
    return replace(artifact, url=url, packed={"$artifact": {**artifact.packed["$artifact"], "url": url}})


def lines_by_item(printed: Iterable[str]) -> Iterator[tuple[str, tuple[int, ...], str, bool]]:
    """Yield the lines of a pod's log: the task of its step, where the pod has several, the item, the text, and whether
    the line is the engine's: of KFP's launcher, which is in Go, or of Argo's executor.

    Notes mark the beginning of the next step or item.
    """
    task, index = "", tuple[int, ...]()
    in_output = False  # the launcher prints the outputs of the step in JSON, over several lines
    for line in printed:
        is_engine = in_output or bool(_ENGINE.match(line))
        if in_output:
            in_output = line != "}"
        elif is_engine:
            in_output = line.endswith("ExecutorOutput: {")
        elif line.startswith(RESULT):
            if "index" in (note := _result_of(line).get("note", {})):
                task, index = note.get("task", ""), tuple(note["index"])
            continue
        yield task, index, line, is_engine


def _result_of(line: str) -> Json:
    """Return the launcher's result in a line of a pod's log.

    Empty for half a line, which is being written or was cut off, and for what another program printed.
    """
    try:
        found = parsed(line.removeprefix(RESULT).encode())
    except (ValueError, EngineError):
        return {}
    return found if isinstance(found, dict) and is_result(found) else {}


def lists_of_files(result: Json) -> dict[str, str]:
    """Why outputs of a pipeline with control flow are not stored, from the result of its last task."""
    return {
        name: f"Output {name!r} is a loop's list of files or folders, which Kubeflow does not keep. Let a step that "
        f"takes the list return one folder of them."
        for name in result.get("files", ())
    }


def _lost(tasks: Tasks, task: str) -> str:
    step = tasks.steps.get(task, "the end of the run")
    if tasks.is_cached(task):
        return f"KFP took step {step!r} from its cache, so no pod logged the value. Run the step with cache=False."
    return f"The value was in the log of step {step!r}, which KFP no longer has."


def _closed(notes: list[Json], pod: Pod, run: ExecutionStatus) -> list[Json]:
    """Return the notes of a pod; if it was lost, with an end for the step and item that it had begun."""
    begun = notes[-1] if notes and "ended" not in notes[-1] and "index" in notes[-1] else None
    if begun is None or pod.failed_at is None or run is ExecutionStatus.CANCELLED:
        return notes
    ended = max(pod.failed_at.timestamp(), begun["time"])  # Argo counts whole seconds
    return [*notes, {**begun, "ended": "failed", "error": f"{_LOST}: {pod.message}", "time": ended}]


def _left_out(tasks: Tasks) -> str:
    """Say which steps, clean-up too, KFP did not start after the failure of a pod in a pipeline with control flow."""
    if not (tasks.has_flow and tasks.workflow) or tasks.pods(flow_names.RESULT_TASK):
        return ""
    left = [repr(step) for task, step in tasks.steps.items() if not (tasks.pods(task) or tasks.is_cached(task))]
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return f"KFP started no step after that. Not run: {', '.join(left[:NAMED])}{more}." if left else ""


def _last_of(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.strip()][-_LAST_LINES:]


def _begun(run: Any) -> datetime | None:
    """Return the time when KFP began a run or, after a retry, began it again.

    In a retry some releases begin its history again, and others continue it after FAILED. Source: KFP,
    ``ResourceManager.RetryRun``.
    """
    history = list(run.state_history or ())
    begins = history[:1]
    begins += [item for before, item in pairwise(history) if before.state == "FAILED" and item.state != "FAILED"]
    times: list[datetime | None] = [item.update_time for item in begins]
    return times[-1] if times else None


def _message(run: Any) -> str | None:
    return run.error.message if run.error else None


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.timestamp() <= 0:  # KFP writes 1970 for a time that has not come
        return None
    return moment.astimezone(UTC)


def _unreadable(name: str, packed: Any, error: ArtifactError) -> str:
    where = packed["$artifact"]["url"] if is_reference(packed) else "?"
    return (
        f"Output {name!r} is in KFP's own store, at {where}. Set url=… to KFP's UI, which can read it; or let the "
        f"steps write to a store that you can read too, kubeflow={{'env': {{'FLOWYML_ARTIFACTS': 's3://…'}}}}, and "
        f"pass that store here: artifacts='s3://…'. (It was not read: {error})"
    )
