"""A FlowyML pipeline as a Prefect flow.

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. It can be deployed like any
flow; ``python flow.py`` runs it, ``python flow.py '{"rows": 5}'`` with these parameters. The code of the steps is in
the bundle beside it. So a worker needs this folder, Prefect, and what the steps import, but no FlowyML.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager, suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from runpy import run_path
from tempfile import TemporaryDirectory
from typing import Any

from httpx import HTTPError, HTTPStatusError
from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Completed, Failed

PIPELINE = "quality-gate"
BUNDLE = Path(__file__).resolve().with_name("quality-gate-e3b0c442.pyz")
run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)  # by this FlowyML

from flowyml.artifacts import default_url, run_place  # noqa: E402
from flowyml.artifacts.listing import artifacts_of  # noqa: E402
from flowyml.artifacts.markdown import markdown_of  # noqa: E402
from flowyml.core.dates import RunDates  # noqa: E402
from flowyml.core.errors import MissingSecretError, StepError  # noqa: E402
from flowyml.core.execution_status import ExecutionStatus  # noqa: E402
from flowyml.core.item_names import labelled  # noqa: E402
from flowyml.core.logs import level_of  # noqa: E402
from flowyml.core.retry_policy import OrchestratorRetryPolicy  # noqa: E402
from flowyml.core.schedule import Schedule  # noqa: E402
from flowyml.orchestrators.resuming import Before, Ended, before  # noqa: E402
from flowyml.plan.bundle import Bundle  # noqa: E402
from flowyml.plan.model import FromStep, Plan, Step  # noqa: E402
from flowyml.plan.names import slug  # noqa: E402
from flowyml.plan.parameters import days_of  # noqa: E402
from flowyml.plan.secrets import slug_of  # noqa: E402
from flowyml.runtime.execution import StepOutputs  # noqa: E402
from flowyml.runtime.kept_outputs import KeptOutputs  # noqa: E402
from flowyml.runtime.lines import OnLine  # noqa: E402
from flowyml.runtime.nodes import End, Frame, Node, Opening, Task  # noqa: E402
from flowyml.runtime.packed_decisions import PackedDecisions, carried, given_to  # noqa: E402
from flowyml.runtime.processes import StepProcesses  # noqa: E402
from flowyml.runtime.step_errors import of_several, of_step  # noqa: E402
from flowyml.runtime.walk import Walk  # noqa: E402

# Prefect's own timeout cannot interrupt a thread that waits. So each step works in a process, which is killed at the
# timeout; Prefect's comes this many seconds later, in case that fails. Its warning about threads warns of nothing here.
GRACE = 10
# Of what a process prints. Prefect's server records some hundred lines a second, of all runs together, and hardly
# answers anything else meanwhile.
FIRST_LINES, LAST_LINES = 10_000, 1_000
logging.getLogger("prefect.task_runs").addFilter(lambda record: "running in a worker thread" not in str(record.msg))

# The run that a worker executes with this file; None where another program loads it.
LOADED_FOR = runtime.flow_run.id

Values = dict[str, Any]
ENDED = {
    "COMPLETED": ExecutionStatus.COMPLETED,
    "CANCELLING": ExecutionStatus.CANCELLED,
    "CANCELLED": ExecutionStatus.CANCELLED,
}
_work: ContextVar[Work] = ContextVar("_work")


class Work:
    """The processes that the steps of a run work in, and what ends them."""

    def __init__(self, processes: StepProcesses) -> None:
        self.processes = processes
        self.stop = threading.Event()
        self.ended: list[threading.Event] = []

    def end(self) -> None:
        """Stop the steps at work, and wait until they have ended."""
        self.stop.set()
        for event in self.ended:
            event.wait(GRACE)


@contextmanager
def run_steps(**parameters: Any) -> Iterator[None]:
    """The processes that the steps run in; they end with the flow, however it ends."""
    run, store, dates = runtime.flow_run, default_url(), _dates()
    place = run_place(f"prefect {run.id}", PIPELINE, run.name)
    with (
        working_folder(),
        StepProcesses(
            BUNDLE,
            run_id=run.name,
            artifacts=store,
            place=place,
            parameters=parameters,
            dates=dates,
            read_secret=secret_block,
        ) as processes,
    ):
        work = Work(processes)
        _work.set(work)
        try:
            yield
        finally:
            work.end()


@contextmanager
def working_folder() -> Iterator[None]:
    """An empty folder for a run that a worker executes; that worker has put it into the folder of the code."""
    if LOADED_FOR is None or not Path.cwd().samefile(BUNDLE.parent):
        yield
        return
    with TemporaryDirectory(prefix="flowyml-", ignore_cleanup_errors=True) as folder, chdir(folder):
        yield


def _dates() -> RunDates:
    """When the run is for: the time on its schedule, else the one that it was asked for."""
    context: Any = FlowRunContext.get()
    flow_run = context.flow_run
    moment = flow_run.expected_start_time or datetime.now(UTC)
    is_scheduled = flow_run.auto_scheduled or "flowyml.made_up" in (flow_run.labels or {})
    schedule = _schedule(flow_run) if is_scheduled else None
    return schedule.dates_at(moment) if schedule else RunDates(logical_date=moment)


def _schedule(flow_run: Any) -> Schedule | None:
    """The schedule of the run's deployment, as FlowyML wrote it down there; None for one that FlowyML did not make."""
    if find_spec("croniter") is None:  # then Prefect's own under that name, or else the run has no interval
        with suppress(ImportError):
            sys.modules["croniter"] = import_module("prefect._vendor.croniter")
    kept = [item for item in _deployment(flow_run).schedules if (item.slug or "").startswith("flowyml")]
    if not kept:
        return None
    rule, notes = kept[0].schedule, json.loads(kept[0].slug.removeprefix("flowyml") or "{}")
    timing = {name: notes[name] for name in ("cron", "interval_seconds") if name in notes}
    if not timing:
        seconds = getattr(rule, "interval", None)
        timing = {"interval_seconds": seconds.total_seconds()} if seconds else {"cron": rule.cron}
    return Schedule(**timing, timezone=rule.timezone or "UTC")


def _deployment(flow_run: Any) -> Any:
    """A server that is busy or away for a moment must not change what the run is for."""
    for pause in (1, 2, 4, 8, 16):
        try:
            with get_client(sync_client=True) as client:
                return client.read_deployment(flow_run.deployment_id)
        except (HTTPError, OSError) as error:
            status = error.response.status_code if isinstance(error, HTTPStatusError) else 503
            if status < 500 and status != 429:
                raise
            get_run_logger().info("Prefect's server does not answer (%s): asking again in %s s.", error, pause)
            time.sleep(pause)
    with get_client(sync_client=True) as client:
        return client.read_deployment(flow_run.deployment_id)


def secret_block(reference: str) -> str:
    """The value of a Secret block, for the process of one step."""
    name = slug_of(reference)
    try:
        with get_client(sync_client=True) as client:
            value = client.read_block_document_by_name(name, block_type_slug="secret").data["value"]
    except ObjectNotFound:
        raise MissingSecretError(
            f"There is no secret {reference!r}: Prefect has no Secret block {name!r}. Create it there."
        ) from None
    return value if isinstance(value, str) else json.dumps(value)


def shown(outputs: StepOutputs) -> Values | State[Any]:
    """Outputs of an earlier run give the task run a state of the name that Prefect has for its own cached ones."""
    if outputs.cached_from:
        return Completed(name="Cached", message=f"cached from {outputs.cached_from}", data=dict(outputs))
    return dict(outputs)


def show(step: str, outputs: Values, index: tuple[int, ...] = ()) -> None:
    """An artifact for what a step gave that people look at. A server that does not take it changes nothing else."""
    if artifacts := list(artifacts_of(step, outputs, index)):
        key = f"{slug(PIPELINE)}-step-{slug(step)}"
        try:
            create_markdown_artifact(markdown_of(artifacts, default_url()), key=key, description=f"What {step} gave")
        except Exception as error:  # whatever Prefect's client raises
            get_run_logger().warning("The outputs of step %r are not shown: %s", step, error)


@contextmanager
def to_log(logger: Any) -> Iterator[OnLine]:
    """Lines of a process go to a logger, with their levels: so many at once, and of more the last ones at its end."""
    numbers, last = count(1), deque[tuple[str, str]](maxlen=LAST_LINES)

    def log(source: str, line: str) -> None:
        logger.log(level_of(source), "%s", line.replace("\0", "\\x00"))  # else it is dropped

    def on_line(source: str, line: str) -> None:
        if (number := next(numbers)) <= FIRST_LINES:
            log(source, line)
        else:
            last.append((source, line))
        if number == FIRST_LINES:
            logger.warning(
                "The first %s lines are logged as they come; of the others, only the last %s follow at the end.",
                number, LAST_LINES,
            )  # fmt: skip

    try:
        yield on_line
    finally:
        if (left_out := next(numbers) - 1 - FIRST_LINES - len(last)) > 0:
            logger.warning("%s lines are left out here.", left_out)
        for source, line in last:
            log(source, line)


def retry_on(errors: list[str] | None) -> Callable[[Any, Any, State[Any]], bool]:
    """A condition for retries: after these errors only, or after all."""
    policy = OrchestratorRetryPolicy(retryable_errors=errors)

    def condition(task: Any, task_run: Any, state: State[Any]) -> bool:
        error: Any = state.result(raise_on_failure=False)
        names = getattr(error, "names", ())
        return policy.retries_on_names(names) if names else policy.retries_on(error)

    return condition


def finish_run(
    steps: Mapping[str, PrefectFuture[Any]], outputs: Mapping[str, tuple[PrefectFuture[Any], str]], key: str
) -> State[Any]:
    """Wait for all steps. Those that failed fail the run; else the outputs become an artifact."""
    for future in steps.values():
        future.wait()
    states = {step: future.state for step, future in steps.items()}
    failed = {step: state for step, state in states.items() if not state.is_completed() and not state.is_pending()}
    if failed:
        return Failed(message=of_several([of_step(step, _reason(state)) for step, state in failed.items()]))
    values = {name: future.result()[output] for name, (future, output) in outputs.items()}
    if values:
        table = [{"output": name, "value": json.dumps(value)} for name, value in values.items()]
        create_table_artifact(table, key=key, description="The outputs of the pipeline, as JSON.")
    return Completed()


def _reason(state: State[Any]) -> str:
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, StepError) else str(state.message or state.name)


def on_start(flow: Any, flow_run: Any, state: State[Any]) -> None:
    """Fire ``on_pipeline_start``, once in the life of a run."""
    if flow_run.run_count <= 1:
        _fire(flow, flow_run, "on_pipeline_start", flow_run.parameters)


def on_end(flow: Any, flow_run: Any, state: State[Any]) -> None:
    """Fire ``on_pipeline_end``."""
    status = ENDED.get(state.type.value, ExecutionStatus.FAILED)
    if state.name == "TimedOut":
        status = ExecutionStatus.TIMEOUT
    since = flow_run.start_time or flow_run.expected_start_time
    _fire(flow, flow_run, "on_pipeline_end", status, (datetime.now(UTC) - since).total_seconds())


def _fire(flow: Any, flow_run: Any, event: str, *arguments: Any) -> None:
    logger = flow_run_logger(flow_run, flow)
    with (
        working_folder(),
        StepProcesses(BUNDLE, run_id=flow_run.name, artifacts=default_url()) as processes,
        to_log(logger) as on_line,
    ):
        processes.fire(event, PIPELINE, flow_run.name, *arguments, on_line=on_line)


AT_A_TIME = 100  # items, each of them a process; their files would else be more than a process may open
LINES = 1000  # from a task run to those that it waited for, as Prefect draws them
NOT_RUN = ("Skipped", "NoItems", "NotReady")  # task runs that only show why a step did not run
LABEL_SECONDS = 2
RECORD_SECONDS = 60  # without a new task run, until those that are missing are given up


class Turn(Task):
    """A step's turn to run, or that of an item: its task run bears the name of it, such as ``train[3]``."""

    __slots__ = ("before", "beside", "future", "inputs", "is_at_work", "line", "outputs", "state", "stop", "together")

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
        self.together = labelled(step.execution_group, self.index) if beside else ""

    def __str__(self) -> str:
        return self.label

    def __reduce__(self) -> Any:
        return str, (f"{self.label} {self.before}",)  # what Prefect takes it for in the key of a cache

    @property
    def is_followed(self) -> bool:
        """Whether another step of its execution group may need its process; none of a loop that has no items."""
        others = (self.frame.tasks[name] for name in self.beside if name in self.frame.tasks)
        return any(other is not self and other.end is None for other in others)


def run_step(turn: Turn) -> Values | State[Any]:
    """One attempt of a step, by its task. What it prints goes to the log of the task run."""
    if turn.end is not None:
        return without_running(turn)
    logger, work, ended = get_run_logger(), _work.get(), threading.Event()
    work.ended.append(ended)
    turn.is_at_work = True
    try:
        with to_log(logger) as on_line:
            outputs = work.processes.run(
                turn.step.name,
                turn.inputs,
                attempt=turn.before + runtime.task_run.run_count,
                index=turn.index,
                secrets=turn.step.secrets,
                timeout=turn.step.timeout_seconds,
                stop=turn.stop,
                on_line=on_line,
                together=turn.together,
                hold=turn.is_followed,
            )
        show(turn.step.name, outputs, turn.index)
        turn.outputs = outputs
        return shown(outputs)
    except StepError as error:
        if turn.stop.is_set():
            return Cancelled(message="The run was cancelled.")
        if trace := getattr(error, "traceback", ""):
            logger.error("%s", trace.replace("\0", "\\x00"))
        raise
    finally:
        turn.is_at_work = False
        ended.set()


def run_all(tasks: Mapping[str, Any], parameters: Values, key: str) -> State[Any]:
    """Run all steps by their tasks, as the plan in the bundle says, and give the state of the run.

    The walk goes on in a thread, so that a signal to the flow breaks into none of it: what cleans up runs before the
    flow ends.
    """
    plan = Bundle.read(BUNDLE).plan
    walker = Walker(plan, tasks, parameters, _work.get(), *what_has_been(plan, tasks))
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
        if state is None or not state.is_completed():  # else the state itself says how many task runs there were
            label_soon(runtime.flow_run.id, "flowyml.task_runs", walker.count)
    return state


def what_has_been(plan: Plan, tasks: Mapping[str, Any]) -> tuple[Before, int]:
    """What has ended in earlier attempts of the flow run and stays, and how many task runs those had."""
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
    kept = KeptOutputs(default_url(), run_place(f"prefect {run.id}", PIPELINE, run.name))
    return before(plan, ended, kept, chosen), len(task_runs)


def recorded(client: Any, run_id: Any, count: int) -> list[Any]:
    """The task runs of earlier attempts, as they began. Prefect records them late: where ``count`` is given, that many
    are waited for, and the ends of those that were not tried again, for as long as new ones are recorded."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    before, deadline = -1, 0.0
    while True:
        found: list[Any] = []
        while page := client.read_task_runs(flow_run_filter=wanted, offset=len(found), limit=200):
            found += page
        found.sort(key=lambda task_run: task_run.expected_start_time or task_run.created)
        newest = {(task_run.task_key, task_run.name): task_run.state for task_run in found}.values()
        if len(found) != before:
            before, deadline = len(found), time.monotonic() + (RECORD_SECONDS if count else 0)
        is_whole = len(found) >= count and all(state and state.is_final() for state in newest)
        if is_whole or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _words(state: State[Any] | None) -> tuple[str, str]:
    """A state in the words of FlowyML's own records; one that has not ended has to run again."""
    if state is None:
        return "CANCELLED", "cancelled"
    if state.is_completed():
        return "COMPLETED", {"Skipped": "skipped", "NoItems": "no_items"}.get(str(state.name), "completed")
    return ("FAILED", "failed") if state.is_failed() or state.is_crashed() else ("CANCELLED", "cancelled")


class Walker:
    """Submits the task of each step as soon as the step may run, and of each item."""

    def __init__(
        self, plan: Plan, tasks: Mapping[str, Any], parameters: Values, work: Work, past: Before, count: int
    ) -> None:
        parameters = _dates().filled(parameters, days_of(plan.parameters))
        self.plan = plan
        self._past = past
        self.walk: Walk[Turn] = Walk(plan, parameters, self._turn, past.loops)
        self.over = threading.Event()
        self.count = count  # of task runs
        self._run_id = runtime.flow_run.id
        self._runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]  # a flow has one
        self._tasks = tasks
        self._work = work
        self._decisions = PackedDecisions(work.processes, parameters)
        self._lookers = ThreadPoolExecutor(4, "flowyml-look")
        self._news: SimpleQueue[tuple[Node, Any] | None] = SimpleQueue()
        self._busy: set[Node] = set()
        self._busy_items = 0
        self._held: deque[Turn] = deque()  # items that wait until others have ended
        self._together: dict[str, list[Turn]] = {}  # execution groups at work, each with those that wait for their turn
        self._turns: dict[tuple[str, tuple[int, ...]], list[Turn]] = {}
        self._fault: BaseException | None = None
        self._is_cleaning_up = False

    def _turn(self, frame: Frame, step: Step, position: int) -> Turn:
        together = self.plan.structure.together
        beside = together[step.execution_group].steps if step.execution_group else ()
        turn = Turn(frame, step, position, beside)
        if found := self._past.turns.get((step.name, frame.index)):
            ended, turn.values = found
            turn.before, turn.end = ended.attempt, ended.end
            if ended.end is End.FAILED:
                turn.state = Failed(message="It failed in an earlier attempt, and this retry does not include it.")
                turn.cause = f"step {turn.label!r} ended {ended.status}"
        return turn

    def run(self) -> None:
        """Run all, then what cleans up."""
        try:
            self._go_on()
            if self.walk.begin_finale():
                self._is_cleaning_up, self._work.stop = True, threading.Event()
                self._go_on()
        except BaseException as error:
            self._fault = error
        finally:
            self._lookers.shutdown(wait=False, cancel_futures=True)
            self.over.set()

    def stop(self) -> None:
        """End the steps at work and begin no others, but for what cleans up."""
        if not self._is_cleaning_up:
            self._work.stop.set()
            self._news.put(None)

    def state(self, key: str) -> State[Any]:
        """How the run has ended. The outputs of one that completed become an artifact."""
        if self._fault:
            raise self._fault
        if failures := [*self._failures(), *dict.fromkeys(self.walk.faults)]:
            return Failed(message=of_several(failures))
        if table := [self._row(*item) for item in self.walk.outputs.items() if item[1][0].end is End.OK]:
            create_table_artifact(table, key=key, description="The outputs of the pipeline, as JSON.")
        return Completed(message=f"Task runs: {self.count}")

    def _row(self, name: str, place: tuple[Node, str]) -> dict[str, str]:
        """An output of the pipeline, with what became of failed items in the loops that its list is from."""
        node, output = place
        source = next(each.source for each in self.plan.outputs if each.name == name)
        loops = self.plan.structure.loops_between(source.step, "") if isinstance(source, FromStep) else ()
        row = {"output": name, "value": json.dumps(carried(node.values[output]))}
        return {**row, "loops": ", ".join(loop.on_item_error for loop in loops)} if loops else row

    def _failures(self) -> Iterator[str]:
        """Of what counts: not of items that may fail, and not of what cleans up."""
        structure = self.plan.structure
        for turn in self.walk.tasks:
            state = turn.state if turn.end is End.FAILED else None
            if state and not structure.may_fail(turn.step.group):
                yield of_step(turn.step.name, _reason(state), turn.label)

    def _go_on(self) -> None:
        """Until nothing is at work any more."""
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
        """Wait for the steps that are being stopped, and not for those that wait to be tried again."""
        self.walk.halt()
        self._held.clear()
        for waiting in self._together.values():
            waiting.clear()
        while any(isinstance(node, Turn) and node.is_at_work for node in self._busy):
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
        """Begin what is ready. Of the items as many as can be at work, the next step of one that has begun first."""
        items = []
        while self.walk.ready:
            node = self.walk.ready.popleft()
            if not isinstance(node, Turn):
                self._busy.add(node)
                self._lookers.submit(self._look, node)
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

    def _submit(self, turn: Turn) -> None:
        if turn.together and turn.end is None:
            if turn.together in self._together:
                self._together[turn.together].append(turn)
                return
            self._together[turn.together] = []
        turn.inputs, turn.stop = (given_to(turn) if turn.end is None else {}), self._work.stop
        self.count += 1
        self._busy.add(turn)
        self._busy_items += bool(turn.index)
        # Not `wait_for=`, but the same lines: all has ended already, and to wait for that takes 2 ms of each pair.
        lines = {"turn": self._lines(turn)}
        future = self._runner.submit(self._tasks[turn.step.name], {"turn": turn}, dependencies=lines)
        turn.future, turn.line = future, TaskRunResult(id=future.task_run_id)
        future.add_done_callback(lambda _: self._news.put((turn, None)))
        for depth in range(len(turn.index) + 1):
            self._turns.setdefault((turn.step.name, turn.index[:depth]), []).append(turn)

    def _lines(self, turn: Turn) -> set[TaskRunResult]:
        """What Prefect draws from what it has waited for."""
        structure = self.plan.structure
        lines: list[TaskRunResult] = []
        for name in structure.upstream(turn.step):
            around = structure.loops(self.plan.by_name[name].group)
            shared = len(around) - len(structure.loops_between(name, turn.step.group))
            before = self._turns.get((name, turn.index[:shared]), ())
            lines += [other.line for other in before[:LINES] if other.end is not None and other.line is not None]
        return set(lines[:LINES])

    def _look(self, node: Node) -> None:
        try:
            found = self._decisions.look(node)
        except Exception as error:
            found = error
        self._news.put((node, found))

    def _take(self, node: Node, found: Any) -> None:
        """Book what has ended, or what was found out."""
        if node not in self._busy:
            return
        self._busy.discard(node)
        if isinstance(node, Turn):
            self._book(node)
        elif isinstance(found, Exception):
            self.walk.fail(node, str(found))
        elif isinstance(node, Opening):
            self.walk.open(node, found)
            count = len(next(iter(found.values())))
            if count > min(node.loop.max_parallel or AT_A_TIME, AT_A_TIME):
                label_soon(self._run_id, f"flowyml.items.{node.label}", count, within=0)
        else:
            self.walk.end(node, End.OK if found else End.SKIPPED)

    def _book(self, turn: Turn) -> None:
        assert turn.future is not None
        self._busy_items -= bool(turn.index)
        if turn.end is not None:  # it did not run
            self._release(turn)
            return
        turn.state, outputs = _ended(turn, turn.future)
        turn.future, turn.inputs, turn.outputs = None, {}, None
        if turn.state.is_completed():
            turn.values = outputs
            self.walk.end(turn, End.OK)
        else:
            status = ExecutionStatus.TIMEOUT if turn.state.name == "TimedOut" else ENDED.get(turn.state.type.value)
            self.walk.end(turn, End.FAILED, f"step {turn.label!r} ended {status or ExecutionStatus.FAILED}")
        for waiting in self._together.pop(turn.together, ()):
            self._submit(waiting)
        self._release(turn)

    def _release(self, turn: Turn) -> None:
        """Let the process of an execution group end after its last step."""
        if turn.together and not turn.is_followed:
            self._work.processes.release(turn.together)


def _ended(turn: Turn, future: PrefectFuture[Any]) -> tuple[State[Any], Values]:
    """The state of a task run, and what it returned; Prefect knows that where it took it from its own cache."""
    try:
        future.wait()
        state = future.state
        if not state.is_completed():
            return state, {}
        return state, dict(future.result() if turn.outputs is None else turn.outputs)
    except Exception as error:
        return Failed(message=str(error)), {}


def without_running(turn: Turn) -> State[Any]:
    """The state of a step that is not to run. Prefect takes a state for the newest one by its time."""
    if turn.end is End.OK:
        return Completed(name="NoItems", message="There were no items.")
    if turn.end is End.SKIPPED:
        return Completed(name="Skipped", message="Its branch was not taken, or a step that it depends on was skipped.")
    return Cancelled(name="NotReady", message=f"not run, since {turn.cause}")


def label_soon(run_id: Any, label: str, value: int | str, within: float = LABEL_SECONDS) -> None:
    """Label it within seconds, or go on without: a server may still work off the events of many task runs.

    The end of the process does not wait for it.
    """
    thread = threading.Thread(target=label_run, args=(run_id, label, value), daemon=True)
    thread.start()
    thread.join(within)


def label_run(run_id: Any, label: str, value: int | str) -> None:
    """Note on the flow run what those who read it go by; it may be missing."""
    with suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run_labels(run_id, {label: value})


# The steps, and the flow.


@task(
    name="load",
    task_run_name="{turn}",
    description="Readings around 20 degrees; the first ``broken`` of 100 are missing.",
)
def load(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(
    name="check",
    task_run_name="{turn}",
    description="The readings that can be used, and which share of all they are.",
)
def check(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="publish", task_run_name="{turn}", description="The mean, which is what the others wait for.")
def publish(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="hold", task_run_name="{turn}", description="Keep the data back until a person has corrected it.")
def hold(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(
    name="alert",
    task_run_name="{turn}",
    description="Somebody has to look at it now. A real one would post to a channel, see ``alert_webhook.py``.",
)
def alert(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@task(name="describe", task_run_name="{turn}", description="What was published.")
def describe(turn: Turn) -> Values | State[Any]:
    return run_step(turn)


@flow(
    name="quality-gate",
    description="Publish, hold back or refuse, by the share of readings that can be used.",
    validate_parameters=False,
)
def quality_gate(count: int = 1000, broken: int = 3, limit: float = 0.9, lowest: float = 0.7) -> State[Any]:
    with run_steps(count=count, broken=broken, limit=limit, lowest=lowest):
        # load(count=count, broken=broken)
        # check(readings=load)
        # if share >= limit:
        #     publish(good=check.good)
        #     describe(mean=publish)
        # elif share >= lowest:
        #     hold(share=check.share)
        # else:
        #     alert(share=check.share, limit=lowest)
        return run_all(
            {"load": load, "check": check, "publish": publish, "hold": hold, "alert": alert, "describe": describe},
            {"count": count, "broken": broken, "limit": limit, "lowest": lowest},
            "quality-gate-outputs",
        )


if __name__ == "__main__":
    quality_gate(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
