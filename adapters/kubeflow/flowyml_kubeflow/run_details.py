"""The steps of a run, their errors and outputs: from the run's workflow, and from the logs of its pods."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flowyml.artifacts import is_reference
from flowyml.artifacts.listing import artifacts_of
from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, StepRun
from flowyml.runtime.step_errors import NAMED, of_several, of_step
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import RESULT, TIMED_OUT, leveled
from flowyml_kubeflow.client import MAYBE_DONE, Client
from flowyml_kubeflow.status import step_status_of
from flowyml_kubeflow.step_runs import UNKNOWN, lines_by_item, result_of, step_runs
from flowyml_kubeflow.tasks import Pod, Tasks, pod_of
from flowyml_kubeflow.ui_store import page_of
from flowyml_kubeflow.workflow import DRIVER, Workflow

__all__ = ["PodLogs", "RunDetails", "error_of_workflow", "message_of", "utc"]

Json = dict[str, Any]

_LAST_LINES = 3  # of a pod whose failure is otherwise unexplained
_LOST = "its pod was lost"
_SAME_NAME = "two tasks have the same task name"


class PodLogs:
    """The logs of the pods of one KFP."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: dict[str, str] = {}

    def read(self, job_id: str, pod: Pod, *, grows: bool = False) -> Iterator[str] | None:
        """Return the lines of a pod, by the first of its possible names that KFP knows; None without a log."""
        known = self._names.get(pod.node)
        for name in pod.names if known is None else (known,):
            if (lines := self._client.log(job_id, name, grows=grows)) is not None:
                self._names[pod.node] = name
                return lines
        return next((lines for url in pod.stored if (lines := self.stored(url)) is not None), None)

    def stored(self, url: str) -> Iterator[str] | None:
        """Return a pod's output from KFP's store, by its UI; None if that lacks it, or only the API is reachable."""
        try:
            return self._client.stored_log(page_of(url))
        except MAYBE_DONE:
            raise
        except EngineError:
            return None


class RunDetails:
    """The details of a run, the official client's model, as of now. ``status`` is FlowyML's of it."""

    def __init__(self, run: Any, status: ExecutionStatus, tasks: Tasks, logs: PodLogs) -> None:
        self.run = run
        self.status = status
        self.tasks = tasks
        self._job_id = str(run.run_id)
        self._logs = logs
        self._read: dict[str, _Log | None] = {}

    # Errors.

    def error(self) -> str | None:
        """Return the error in the words of the failed steps, if their logs exist, else in those of KFP and Argo."""
        if self.tasks.has_flow and (notes := self._notes(names.RESULT_TASK)):
            return str(notes[0]["failed"])
        ends = self.tasks.pods(names.RESULT_TASK) if self.failed_at_its_end else []
        if ends and ends[-1].reason:
            return ends[-1].reason
        if ends and all(self._log(pod) is None for pod in ends):
            return "A step failed. Which one, and why, was in the logs of the pods, which KFP has deleted."
        return "\n".join(filter(None, [self._error_of_steps(), self._left_out()])) or None

    @property
    def failed_at_its_end(self) -> bool:
        """True if the last task of a run with control flow failed, since a step failed in a successful pod."""
        return self.tasks.state(names.RESULT_TASK) == "FAILED"

    def _error_of_steps(self) -> str | None:
        """Return the error in the words of the failed steps, and of those whose pods were lost."""
        runs = self.step_runs() if self.tasks.has_flow else ()
        if lost := [item for item in runs if item.error and item.error.startswith(_LOST)]:
            said = [of_step(item.name, str(item.error), item.label) for item in lost[:NAMED]]
            return of_several(said, len(lost))
        failed = [task for task in self.tasks.steps if self.tasks.state(task) == "FAILED" and self.tasks.pods(task)]
        if not failed:
            return error_of_workflow(self._job_id, self.tasks.workflow, self._logs) or message_of(self.run)
        failures = {task: self._failure(task) for task in failed[:NAMED]}
        said = [
            of_step(self.tasks.steps[task], failure.get("message") or self._error_of_pod(task))
            for task, failure in failures.items()
        ]
        return of_several(said, len(failed))

    def _error_of_pod(self, task: str) -> str:
        """Return the error of a step that left no message, as when it lacked its code: Argo's, and its log."""
        pod = next(reversed(self.tasks.pods(task)), None)
        said = "failed: " + pod.message if pod and pod.message else "failed"
        log = self._log(pod) if pod else None
        return "\n".join([said, *log.last]) if log else f"{said}; its log is gone"

    def _left_out(self) -> str:
        """Say which steps, clean-up too, KFP did not start after a pod failed in a pipeline with control flow."""
        tasks = self.tasks
        if not (tasks.has_flow and tasks.workflow) or tasks.pods(names.RESULT_TASK):
            return ""
        missing = [repr(step) for task, step in tasks.steps.items() if not (tasks.pods(task) or tasks.is_cached(task))]
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        return f"KFP started no step after that. Not run: {', '.join(missing[:NAMED])}{more}." if missing else ""

    # Steps.

    def step_runs(self) -> list[StepRun]:
        """Return the records of all steps: in a pipeline with control flow, one for each item."""
        if self.tasks.has_flow:
            return [item for task in self.tasks.steps for item in self._item_runs(task)]
        return [self._step_run(task) for task in self.tasks.steps]

    def _item_runs(self, task: str) -> list[StepRun]:
        """Return the records of a step in a pipeline with control flow.

        Without its pods' logs, what KFP says of the pods: one that succeeded may have skipped the step, or let it fail.
        """
        pods, status = self.tasks.pods(task), self.status
        notes = [note for pod in pods for note in _closed(self._notes_of(task, pod), pod, status)]
        if not notes and pods and self.tasks.state(task) is not None:
            step_run = self._step_run(task)
            if step_run.status is not ExecutionStatus.COMPLETED or not status.is_terminal:
                return [step_run]
            known = status if status is ExecutionStatus.COMPLETED else ExecutionStatus.CANCELLED
            return [replace(step_run, status=known, error=UNKNOWN)]
        items, run_ended = self._items(task), utc(self.run.finished_at)
        return step_runs(self.tasks.steps[task], notes, status, items=items, run_ended=run_ended)

    def _items(self, task: str) -> int | None:
        """Return the number of items of the loop of a step, if it is known."""
        loop = self.tasks.loops.get(task)
        if not isinstance(loop, str):
            return loop
        opened = [note["opened"] for note in self._notes(loop) if "opened" in note]
        return opened[-1] if opened else None

    def _step_run(self, task: str) -> StepRun:
        tasks = self.tasks
        state, pods = tasks.state(task), tasks.pods(task)
        begun = bool(pods) or state in ("RUNNING", "SUCCEEDED")
        status, error = step_status_of(state if begun else None, self.status), None
        if status.is_failed:
            failure = self._failure(task)
            error = failure.get("message") or self._error_of_pod(task)
            if failure.get("kind") == TIMED_OUT:
                status = ExecutionStatus.TIMEOUT
            elif not failure and self.status is ExecutionStatus.CANCELLED:  # before it could publish a failure
                status, error = ExecutionStatus.CANCELLED, WAS_CANCELLED
        elif begun and status is self.status is ExecutionStatus.CANCELLED:
            error = WAS_CANCELLED
        ended_at = tasks.ended(task) or (self.run.finished_at if status.is_terminal else None)
        notes = self._notes(task) if begun and tasks.has_notes(task) else []
        before = pods[-1].attempt - 1 if pods else 0  # of pods that were lost
        return StepRun(
            name=tasks.steps[task], status=status, raw_status=state or "PENDING",
            attempt=before + max((int(note.get("attempt", 1)) for note in notes), default=1) if begun else 0,
            started_at=utc(tasks.started(task)) if begun else None,
            ended_at=utc(ended_at) if begun else None, error=error,
            cached_from=next((str(note["cached"]) for note in notes if "cached" in note), ""),
        )  # fmt: skip

    # Outputs.

    def outputs(self) -> tuple[Json, dict[str, str]]:
        """Return the packed outputs of the pipeline, and why others are missing, both by their names."""
        packed: Json = {}
        lost: dict[str, str] = {}
        for task, outputs in self.tasks.outputs().items():
            result = self._result(task)
            packed.update(result.get("outputs") or {})
            lost.update(lists_of_files(result))
            if result.get("outputs") is None:
                lost.update({name: f"Output {name!r}: {self._why_no_value(task)}" for name in outputs})
        return packed, lost

    def _why_no_value(self, task: str) -> str:
        step = self.tasks.steps.get(task, "the end of the run")
        if self.tasks.is_cached(task):
            return f"KFP took step {step!r} from its cache, so no pod logged the value. Run the step with cache=False."
        return f"The value was in the log of step {step!r}, which KFP has deleted."

    def artifacts(self) -> list[Artifact]:
        """Return the artifacts of steps in the pods' logs, as long as KFP has the logs."""
        listed: list[Artifact] = []
        for task, step in self.tasks.steps.items():
            if self.tasks.has_flow:
                listed += artifacts_of_notes(step, self._notes(task))
            else:
                listed += artifacts_of(step, self._result(task).get("artifacts", {}))
        if self.tasks.has_flow:
            return located(listed, self._result(names.RESULT_TASK).get("outputs", {}))
        return listed

    # Logs.

    def has_lost_logs(self) -> bool:
        """Return whether pods ran, and KFP has the log of none of them."""
        pods = [pod for task in self.tasks.logged for pod in self.tasks.pods(task)]
        return bool(pods) and all(self._log(pod) is None for pod in pods)

    def new_lines(self, seen: dict[str, int], *, grows: bool) -> Iterator[LogLine]:
        """Yield the lines of all pods after those that were ``seen``, which is the number of each pod's."""
        for task, step in self.tasks.logged.items():
            for pod in self.tasks.pods(task):
                lines = lines_by_item(self._logs.read(self._job_id, pod, grows=grows) or ())
                for number, (of_task, index, line, is_engine) in enumerate(lines, 1):
                    if number > seen.get(pod.node, 0):
                        level, message = ("INFO", line) if is_engine else leveled(line)
                        yield LogLine(
                            message, self.tasks.steps.get(of_task, step), level, index=index, of_engine=is_engine
                        )
                        seen[pod.node] = number

    def _log(self, pod: Pod) -> _Log | None:
        if pod.node not in self._read:
            lines = self._logs.read(self._job_id, pod)
            self._read[pod.node] = None if lines is None else _Log(lines)
        return self._read[pod.node]

    def _results(self, pod: Pod) -> list[Json]:
        log = self._log(pod)
        return log.results if log else []

    def _result(self, task: str) -> Json:
        """Return the result in the log of the last attempt of a step that has one."""
        for pod in reversed(self.tasks.pods(task)):
            for result in reversed(self._results(pod)):
                if "note" not in result:
                    return result
        return {}

    def _failure(self, task: str) -> Json:
        """Return the failure of a step from its log or, without one, as its last pod left it; else empty."""
        if failure := self._result(task).get("failure"):
            return dict(failure)
        reason = next((pod.reason for pod in reversed(self.tasks.pods(task))), "")
        return {"kind": reason.partition(":")[0], "message": reason} if reason else {}

    def _notes(self, task: str) -> list[Json]:
        """Return the notes of a task's pods, in order; in a pod of several steps each names its step."""
        return [note for pod in self.tasks.pods(task) for note in self._notes_of(task, pod)]

    def _notes_of(self, task: str, pod: Pod) -> list[Json]:
        notes = [result["note"] for result in self._results(pod) if "note" in result]
        return [note for note in notes if note.get("task", task) == task]


class _Log:
    """The part of a pod's log that counts: FlowyML's results, and the last lines of the step; without any, of all."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.results: list[Json] = []
        own, every = deque[str](maxlen=_LAST_LINES), deque[str](maxlen=_LAST_LINES)
        for *_, line, is_engine in lines_by_item(self._without_results(lines)):
            if line.strip():
                every.append(line)
                own.extend(() if is_engine else (line,))
        self.last = own or every

    def _without_results(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            if not line.startswith(RESULT):
                yield line
            elif result := result_of(line):
                self.results.append(result)


def error_of_workflow(job_id: str, workflow: Workflow | None, logs: PodLogs) -> str:
    """Return Argo's messages on the workflow, and on failed pods of KFP and FlowyML, with the end of their logs."""
    if workflow is None:
        return ""
    said = [workflow.message] if workflow.message else []
    for node in workflow.failed()[:NAMED]:
        task = workflow.task_of(node)
        subject = f"KFP's driver of {task!r}" if node.template.endswith(DRIVER) else f"{task!r}"
        last = _last_of(logs.read(job_id, pod_of(node, workflow)) or () if node.kind == "Pod" else ())
        said.append("\n".join([f"{subject}: {node.message}", *last]))
        if any(_SAME_NAME in line for line in last):
            said.append("That is a fault of KFP 2.17, after it had lost a driver's pod. Start a new run.")
    return "\n".join(said)


def message_of(run: Any) -> str | None:
    """Return KFP's own message about the failure of a run, which it rarely has."""
    return run.error.message if run.error else None


def _closed(notes: list[Json], pod: Pod, run: ExecutionStatus) -> list[Json]:
    """Return the notes of a pod; if it was lost, with an end for the step and item that it had begun."""
    begun = notes[-1] if notes and "ended" not in notes[-1] and "index" in notes[-1] else None
    if begun is None or pod.failed_at is None or run is ExecutionStatus.CANCELLED:
        return notes
    ended = max(pod.failed_at.timestamp(), begun["time"])  # Argo counts whole seconds
    return [*notes, {**begun, "ended": "failed", "error": f"{_LOST}: {pod.message}", "time": ended}]


def _last_of(lines: Iterable[str]) -> deque[str]:
    return deque((line for line in lines if line.strip()), _LAST_LINES)


def utc(moment: datetime | None) -> datetime | None:
    """Return a time of KFP's; None for one that has not come, which is 1970."""
    if moment is None or moment.timestamp() <= 0:
        return None
    return moment.astimezone(UTC)


def artifacts_of_notes(step: str, notes: Sequence[Json]) -> Iterator[Artifact]:
    """Yield the artifacts of the items of a step, each from its last attempt."""
    by_index = {tuple(note["index"]): note["artifacts"] for note in notes if "artifacts" in note}
    for index, outputs in sorted(by_index.items()):
        yield from artifacts_of(step, outputs, index)


def located(artifacts: Iterable[Artifact], outputs: Mapping[str, Any]) -> list[Artifact]:
    """Return the artifacts, with the URLs of those that are also outputs of the run.

    With control flow, the last task stores these, and no other value has a file of its own.
    """
    references = [packed["$artifact"] for packed in outputs.values() if is_reference(packed)]
    urls = {about["sha256"]: about["url"] for about in references}
    return [
        replace(artifact, url=url, packed={"$artifact": {**artifact.packed["$artifact"], "url": url}})
        if not artifact.url and (url := urls.get(artifact.digest))
        else artifact
        for artifact in artifacts
    ]


def lists_of_files(result: Json) -> dict[str, str]:
    """Say why outputs of a pipeline with control flow are not stored, from the result of its last task."""
    return {
        name: f"Output {name!r} is a loop's list of files or folders, which Kubeflow does not keep. Let a step that "
        f"takes the list return one folder of them."
        for name in result.get("files", ())
    }
