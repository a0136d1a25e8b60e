"""Runs the steps of a flow with loops, branches and rules by their tasks, as the plan in its bundle says."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from prefect import runtime
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed

from flowyml.artifacts import default_url, run_place
from flowyml.orchestrators.resuming import Before, Ended, before
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan, Step
from flowyml.plan.parameters import days_of
from flowyml.runtime.decider import End, listed
from flowyml.runtime.kept_outputs import KeptOutputs
from flowyml.runtime.nodes import Frame, Node, Opening, Task
from flowyml.runtime.packed_decisions import PackedDecisions, packed_inputs
from flowyml.runtime.step_errors import of_several, of_step
from flowyml.runtime.walk import Walk
from flowyml_prefect.worker import Values, Work, current_work, final_status, make_attempt, reason_of, run_dates

__all__ = ["StepTask", "label_soon", "run_all", "run_step"]

AT_A_TIME = 100  # items, each of them a process; their files would else be more than a process may open
LINES = 1000  # from a task run to those that it waited for, as Prefect draws them
NOT_RUN = ("Skipped", "NoItems", "NotReady")  # task runs that only show why a step did not run
LABEL_SECONDS = 2
RECORD_SECONDS = 60  # without a new task run, until those that are missing are given up


class StepTask(Task):
    """A run of a step, or of a step for an item: its task run has that name, such as ``train[3]``."""

    __slots__ = ("before", "beside", "future", "inputs", "is_at_work", "line", "outputs", "state", "stop")

    def __init__(self, frame: Frame, step: Step, position: int, beside: Sequence[str] = ()) -> None:
        super().__init__(frame, step, position)
        self.before = 0  # attempts in earlier ones of the run
        self.beside = beside  # the steps of its execution group
        self.future: PrefectFuture[Any] | None = None
        self.inputs: Values = {}
        self.is_at_work = False
        self.line: TaskRunResult | None = None  # for those that have waited for it
        self.outputs: Values | None = None  # of the attempt that went well
        self.state: State[Any] | None = None  # how it has ended, if it has run
        self.stop = threading.Event()

    def __str__(self) -> str:
        return self.label

    def __reduce__(self) -> Any:
        return str, (f"{self.label} {self.before}",)  # its identity in the key of Prefect's cache


def run_step(task: StepTask) -> Values | State[Any]:
    if task.end is not None:
        return without_running(task)
    task.is_at_work = True
    try:
        attempt_outputs = make_attempt(
            task.step.name,
            task.inputs,
            task.stop,
            index=task.index,
            attempt=task.before + runtime.task_run.run_count,
            secrets=task.step.secrets,
            timeout=task.step.timeout_seconds,
            together=task.together,
            hold=task.is_followed(task.beside),
        )
        outputs: Any = attempt_outputs if isinstance(attempt_outputs, dict) else attempt_outputs.data
        task.outputs = outputs
        return attempt_outputs
    finally:
        task.is_at_work = False


def run_all(tasks: Mapping[str, Any], key: str) -> State[Any]:
    """Run all steps by their tasks, as the plan in the bundle says, and return the state of the run.

    The walk runs in a thread, so that a signal to the flow does not interrupt it: clean-ups run before the flow ends.
    """
    work = current_work.get()
    plan = Bundle.read(work.pipeline.bundle).plan
    walker = Walker(plan, tasks, work, *earlier_attempts(plan, tasks))
    threading.Thread(target=copy_context().run, args=(walker.run,), name="flowyml-walk", daemon=True).start()
    state: State[Any] | None = None
    try:
        walker.over.wait()
        state = walker.state(key)
    except BaseException:
        walker.stop()
        walker.over.wait()
        raise
    finally:
        if state is None or not state.is_completed():  # else the state itself has the number of task runs
            label_soon(runtime.flow_run.id, "flowyml.task_runs", walker.count)
    return state


def earlier_attempts(plan: Plan, tasks: Mapping[str, Any]) -> tuple[Before, int]:
    """Read what ended in earlier attempts of the flow run and stays, and the number of their task runs."""
    run = runtime.flow_run
    if run.run_count < 2:
        return Before(), 0
    steps = {task.fn.__name__: step for step, task in tasks.items()}
    ended: list[Ended] = []
    with get_client(sync_client=True) as client:
        labels = client.read_flow_run(run.id).labels
        chosen = json.loads(str(labels.get("flowyml.retry", "null")))
        awaited = [int(labels.get(name, 0)) for name in ("flowyml.task_runs", "flowyml.task_runs_awaited")]
        task_runs = recorded(client, run.id, max(awaited))
    label_run(run.id, "flowyml.retry", "null")  # a retry by Prefect's own button is of all that failed
    for task_run in task_runs:
        if step := steps.get(task_run.task_key.rpartition("-")[0]):
            index = tuple(map(int, re.findall(r"\[(\d+)\]", task_run.name.removeprefix(step))))
            attempts = 0 if task_run.state and task_run.state.name in NOT_RUN else task_run.run_count
            began = (task_run.expected_start_time or task_run.created).timestamp()
            ended.append(Ended(step, index, *_words(task_run.state), attempt=attempts, began=began))
    kept = KeptOutputs(default_url(), run_place(f"prefect {run.id}", plan.name, run.name))
    return before(plan, ended, kept, chosen), len(task_runs)


def recorded(client: Any, run_id: Any, count: int) -> list[Any]:
    """Return the task runs of earlier attempts, in the order of their starts.

    Prefect records them late: waits for ``count`` of them, if given, and for the ends of those that were not tried
    again, as long as new ones are recorded.
    """
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    before, deadline = -1, 0.0
    while True:
        task_runs: list[Any] = []
        while page := client.read_task_runs(flow_run_filter=of_run, offset=len(task_runs), limit=200):
            task_runs += page
        task_runs.sort(key=lambda task_run: task_run.expected_start_time or task_run.created)
        newest = {(task_run.task_key, task_run.name): task_run.state for task_run in task_runs}.values()
        if len(task_runs) != before:
            before, deadline = len(task_runs), time.monotonic() + (RECORD_SECONDS if count else 0)
        is_whole = len(task_runs) >= count and all(state and state.is_final() for state in newest)
        if is_whole or time.monotonic() > deadline:
            return task_runs
        time.sleep(0.5)


def _words(state: State[Any] | None) -> tuple[str, str]:
    """Return a state in the words of FlowyML's own records. A state that is not final has to run again."""
    if state is None:
        return "CANCELLED", "cancelled"
    if state.is_completed():
        return "COMPLETED", {"Skipped": "skipped", "NoItems": "no_items"}.get(str(state.name), "completed")
    return ("FAILED", "failed") if state.is_failed() or state.is_crashed() else ("CANCELLED", "cancelled")


class Walker:
    """Submits the task of each step, and of each item, as soon as it may run."""

    def __init__(self, plan: Plan, tasks: Mapping[str, Any], work: Work, past: Before, count: int) -> None:
        parameters = run_dates().filled(work.parameters, days_of(plan.parameters))
        self.plan = plan
        self._past = past
        self.walk: Walk[StepTask] = Walk(plan, parameters, self._task, past.loops)
        self.over = threading.Event()
        self.count = count  # of task runs
        self._run_id = runtime.flow_run.id
        self._runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]  # a flow has one
        self._tasks = tasks
        self._work = work
        self._decisions = PackedDecisions(work.processes, parameters)
        self._evaluators = ThreadPoolExecutor(4, "flowyml-evaluate")
        self._news: SimpleQueue[tuple[Node, Any] | None] = SimpleQueue()
        self._busy: set[Node] = set()
        self._busy_items = 0
        self._held: deque[StepTask] = deque()  # items that wait until others have ended
        self._together: dict[str, list[StepTask]] = {}  # execution groups at work, with those that wait
        self._instances: dict[tuple[str, tuple[int, ...]], list[StepTask]] = {}
        self._fault: BaseException | None = None
        self._is_cleaning_up = False

    def _task(self, frame: Frame, step: Step, position: int) -> StepTask:
        together = self.plan.structure.execution_groups
        beside = together[step.execution_group].steps if step.execution_group else ()
        task = StepTask(frame, step, position, beside)
        if found := self._past.instances.get((step.name, frame.index)):
            ended, task.values = found
            task.before, task.end = ended.attempt, ended.end
            if ended.end is End.FAILED:
                task.state = Failed(message="It failed in an earlier attempt, and this retry does not include it.")
                task.cause = f"step {task.label!r} ended {ended.status}"
        return task

    def run(self) -> None:
        """Run all steps, then the clean-ups."""
        try:
            self._go_on()
            if self.walk.begin_finale():
                self._is_cleaning_up, self._work.stop = True, threading.Event()
                self._go_on()
        except BaseException as error:
            self._fault = error
        finally:
            self._evaluators.shutdown(wait=False, cancel_futures=True)
            self.over.set()

    def stop(self) -> None:
        """End the running steps and begin no others, except clean-ups."""
        if not self._is_cleaning_up:
            self._work.stop.set()
            self._news.put(None)

    def state(self, key: str) -> State[Any]:
        """Return the final state of the run. The outputs of a completed run become an artifact."""
        if self._fault:
            raise self._fault
        if failures := [*self._failures(), *dict.fromkeys(self.walk.faults)]:
            return Failed(message=of_several(failures))
        if table := [self._row(*item) for item in self.walk.outputs.items() if item[1][0].end is End.OK]:
            create_table_artifact(table, key=key, description="The outputs of the pipeline, as JSON.")
        return Completed(message=f"Task runs: {self.count}")

    def _row(self, name: str, place: tuple[Node, str]) -> dict[str, str]:
        """Return an output of the pipeline, with the handling of failed items in the loops that its list is from."""
        node, output = place
        source = next(each.source for each in self.plan.outputs if each.name == name)
        loops = self.plan.structure.item_errors(source)
        row = {"output": name, "value": json.dumps(listed(node.values[output]))}
        return {**row, "loops": ", ".join(loops)} if loops else row

    def _failures(self) -> Iterator[str]:
        """Yield the failures that fail the run: not those of items that may fail, and not those of clean-ups."""
        structure = self.plan.structure
        for task in self.walk.tasks:
            state = task.state if task.end is End.FAILED else None
            if state and not structure.may_fail(task.step.group):
                yield of_step(task.step.name, reason_of(state), task.label)

    def _go_on(self) -> None:
        """Continue until nothing is running."""
        self._begin()
        while self._busy:
            news = self._news.get()
            if news is None:
                self._halt()
                break
            self._take(*news)
            self._begin()
        self.walk.stop()

    def _halt(self) -> None:
        """Wait for the steps that are being stopped, and not for those that wait for a retry."""
        self.walk.halt()
        self._held.clear()
        for waiting in self._together.values():
            waiting.clear()
        while any(isinstance(node, StepTask) and node.is_at_work for node in self._busy):
            self._take_next(0.5)
        while self._busy and self._take_next(0.5):
            pass
        self._busy.clear()

    def _take_next(self, within: float) -> bool:
        try:
            news = self._news.get(timeout=within)
        except Empty:
            return False
        if news is not None:
            self._take(*news)
        return True

    def _begin(self) -> None:
        """Begin what is ready: as many items as can run at once, items that have begun before new ones."""
        items = []
        while self.walk.ready:
            node = self.walk.ready.popleft()
            if not isinstance(node, StepTask):
                self._busy.add(node)
                self._evaluators.submit(self._evaluate, node)
            elif node.index:
                items.append(node)
            else:
                self._submit(node)
        self._held.extendleft(items)
        while self._held and self._busy_items < AT_A_TIME:
            self._submit(self._held.popleft())
        while self.walk.decided:
            self._submit(self.walk.decided.popleft())
        self.walk.opened.clear()

    def _submit(self, task: StepTask) -> None:
        if task.together and task.end is None:
            if task.together in self._together:
                self._together[task.together].append(task)
                return
            self._together[task.together] = []
        task.inputs, task.stop = (packed_inputs(task) if task.end is None else {}), self._work.stop
        self.count += 1
        self._busy.add(task)
        self._busy_items += bool(task.index)
        # Draws the same lines as `wait_for=`, which takes 2 ms for each pair although all has ended already.
        lines = {"task": self._lines(task)}
        future = self._runner.submit(self._tasks[task.step.name], {"task": task}, dependencies=lines)
        task.future, task.line = future, TaskRunResult(id=future.task_run_id)
        future.add_done_callback(lambda _: self._news.put((task, None)))
        for depth in range(len(task.index) + 1):
            self._instances.setdefault((task.step.name, task.index[:depth]), []).append(task)

    def _lines(self, task: StepTask) -> set[TaskRunResult]:
        """Return the lines to a step in Prefect's graph, from the steps that it waited for."""
        structure = self.plan.structure
        lines: list[TaskRunResult] = []
        for name in structure.upstream(task.step):
            around = structure.loops(self.plan.by_name[name].group)
            shared = len(around) - len(structure.loops_between(name, task.step.group))
            before = self._instances.get((name, task.index[:shared]), ())
            lines += [other.line for other in before[:LINES] if other.end is not None and other.line is not None]
        return set(lines[:LINES])

    def _evaluate(self, node: Node) -> None:
        try:
            outcome = self._decisions.evaluate(node)
        except Exception as error:
            outcome = error
        self._news.put((node, outcome))

    def _take(self, node: Node, outcome: Any) -> None:
        """Record the end of a step, or the result of an evaluation."""
        if node not in self._busy:
            return
        self._busy.discard(node)
        if isinstance(node, StepTask):
            self._book(node)
        elif isinstance(outcome, Exception):
            self.walk.fail(node, str(outcome))
        elif isinstance(node, Opening):
            self.walk.open(node, outcome)
            count = len(next(iter(outcome.values())))
            if count > min(node.loop.max_parallel or AT_A_TIME, AT_A_TIME):
                label_soon(self._run_id, f"flowyml.items.{node.label}", count, within=0)
        else:
            self.walk.end(node, End.OK if outcome else End.SKIPPED)

    def _book(self, task: StepTask) -> None:
        assert task.future is not None
        self._busy_items -= bool(task.index)
        if task.end is not None:  # it did not run
            self._release(task)
            return
        task.state, outputs = _ended(task, task.future)
        task.future, task.inputs, task.outputs = None, {}, None
        if task.state.is_completed():
            task.values = outputs
            self.walk.end(task, End.OK)
        else:
            self.walk.end(task, End.FAILED, f"step {task.label!r} ended {final_status(task.state)}")
        for waiting in self._together.pop(task.together, ()):
            self._submit(waiting)
        self._release(task)

    def _release(self, task: StepTask) -> None:
        """Let the process of an execution group end after its last step."""
        if task.together and not task.is_followed(task.beside):
            self._work.processes.release(task.together)


def _ended(task: StepTask, future: PrefectFuture[Any]) -> tuple[State[Any], Values]:
    """Return the state of a task run, and its return value; Prefect's state says which run's cache it is from."""
    try:
        future.wait()
        state = future.state
        if not state.is_completed():
            return state, {}
        return state, dict(future.result() if task.outputs is None else task.outputs)
    except Exception as error:
        return Failed(message=str(error)), {}


def without_running(task: StepTask) -> State[Any]:
    """Return the state of a step that must not run. Prefect takes the state with the latest time for the newest one."""
    if task.end is End.OK:
        return Completed(name="NoItems", message="There were no items.")
    if task.end is End.SKIPPED:
        return Completed(name="Skipped", message="Its branch was not taken, or a step that it depends on was skipped.")
    return Cancelled(name="NotReady", message=f"not run, since {task.cause}")


def label_soon(run_id: Any, label: str, value: int | str, within: float = LABEL_SECONDS) -> None:
    """Set a label within seconds, or continue without: a server may be busy with the events of many task runs.

    The end of the process does not wait for it.
    """
    thread = threading.Thread(target=label_run, args=(run_id, label, value), daemon=True)
    thread.start()
    thread.join(within)


def label_run(run_id: Any, label: str, value: int | str) -> None:
    """Set a label on the flow run for its readers; it may be missing."""
    with suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run_labels(run_id, {label: value})
