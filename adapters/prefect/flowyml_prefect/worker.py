"""The code that a compiled flow imports from its bundle: the processes of its steps, their logs, the end of the run.

A flow with loops, branches and rules runs its steps by ``flowyml_prefect.walker`` instead.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar, cast

from httpx import HTTPError, HTTPStatusError
from prefect import get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Completed, Failed

from flowyml.artifacts import default_url, run_place
from flowyml.artifacts.listing import artifacts_of
from flowyml.artifacts.markdown import markdown_of
from flowyml.core.dates import RunDates
from flowyml.core.errors import MissingSecretError, StepError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.logs import level_of
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.schedule import Schedule
from flowyml.plan.names import slug
from flowyml.plan.secrets import slug_of
from flowyml.runtime.lines import OnLine
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.step_errors import of_several, of_step
from flowyml_prefect.parameters import read_parameters
from flowyml_prefect.schedule import MADE_UP, from_prefect, is_ours
from flowyml_prefect.status import status_of

__all__ = [
    "GRACE", "FlowPipeline", "Values", "Work", "current_work", "final_status", "finish_run", "make_attempt",
    "reason_of", "retry_on", "run_dates", "run_step", "to_log",
]  # fmt: skip

# Prefect's own timeout cannot interrupt a thread that waits. So each step runs in a process, which is killed at the
# timeout; Prefect's timeout comes this many seconds later, in case that fails. Its warning about threads is irrelevant
# here.
GRACE = 10
# Limits for the output of a process. Prefect's server records some hundred lines a second, of all runs together, and
# answers almost nothing else meanwhile.
FIRST_LINES, LAST_LINES = 10_000, 1_000
logging.getLogger("prefect.task_runs").addFilter(lambda record: "running in a worker thread" not in str(record.msg))

# The run that a worker executes with this module; None if another program loads it.
LOADED_FOR = runtime.flow_run.id

P = ParamSpec("P")
R = TypeVar("R")
Values = dict[str, Any]
current_work: ContextVar[Work] = ContextVar("current_work")


class Work:
    """The processes that run the steps of a run, its parameters, and the signals that end it."""

    def __init__(self, pipeline: FlowPipeline, parameters: Values, processes: StepProcesses) -> None:
        self.pipeline = pipeline
        self.parameters = parameters
        self.processes = processes
        self.stop = threading.Event()
        self.ended: list[threading.Event] = []

    def end(self) -> None:
        """Stop the running steps, and wait until they have ended."""
        self.stop.set()
        for event in self.ended:
            event.wait(GRACE)


class FlowPipeline:
    """The pipeline of a flow, and the bundle with its code."""

    def __init__(self, name: str, bundle: Path) -> None:
        self.name = name
        self.bundle = bundle

    @contextmanager
    def run_steps(self, /, **parameters: Any) -> Iterator[None]:
        """Start the processes that run the steps; they end with the flow, however it ends."""
        run = runtime.flow_run
        with (
            self._working_folder(),
            StepProcesses(
                self.bundle,
                run_id=run.name,
                artifacts=default_url(),
                place=run_place(f"prefect {run.id}", self.name, run.name),
                parameters=parameters,
                dates=run_dates(),
                read_secret=secret_block,
            ) as processes,
        ):
            work = Work(self, parameters, processes)
            current_work.set(work)
            try:
                yield
            finally:
                work.end()

    def on_start(self, flow: Any, flow_run: Any, state: State[Any]) -> None:
        """Fire ``on_pipeline_start``, once for a run, in its first attempt."""
        if flow_run.run_count <= 1:
            self._fire(flow, flow_run, "on_pipeline_start", read_parameters(flow_run.parameters))

    def on_end(self, flow: Any, flow_run: Any, state: State[Any]) -> None:
        since = flow_run.start_time or flow_run.expected_start_time
        self._fire(flow, flow_run, "on_pipeline_end", final_status(state), (datetime.now(UTC) - since).total_seconds())

    def _fire(self, flow: Any, flow_run: Any, event: str, *arguments: Any) -> None:
        with (
            self._working_folder(),
            StepProcesses(self.bundle, run_id=flow_run.name, artifacts=default_url()) as processes,
            to_log(flow_run_logger(flow_run, flow)) as on_line,
        ):
            processes.fire(event, self.name, flow_run.name, *arguments, on_line=on_line)

    @contextmanager
    def _working_folder(self) -> Iterator[None]:
        """Create an empty folder for a run of a worker, which would otherwise run in the folder of the code."""
        if LOADED_FOR is None or not Path.cwd().samefile(self.bundle.parent):
            yield
            return
        with TemporaryDirectory(prefix="flowyml-", ignore_cleanup_errors=True) as folder, chdir(folder):
            yield


def run_dates() -> RunDates:
    """Return the dates of the run: the time of its schedule, else the time of the request.

    If the schedule has changed since the run was planned, and lacks this time now, the interval is unknown.
    """
    context: Any = FlowRunContext.get()
    flow_run = context.flow_run
    moment = datetime.fromisoformat(str(flow_run.expected_start_time or datetime.now(UTC)))  # not Prefect's own class
    is_scheduled = flow_run.auto_scheduled or MADE_UP in (flow_run.labels or {})
    schedule, changed = _schedule(flow_run) if is_scheduled else (None, None)
    if schedule is None:
        return RunDates(logical_date=moment)
    # Where clocks change, Prefect's cron schedules take the first of two moments, its rules (with bounds) the earlier.
    picks: Any = "earlier" if schedule.start or schedule.end else "first"
    dates = schedule.dates_at(moment, picks=picks if flow_run.auto_scheduled else None)
    is_known = not changed or changed < flow_run.created or dates.data_interval_start is None
    return dates if is_known or schedule.is_due(moment) else RunDates(logical_date=dates.logical_date)


def _schedule(flow_run: Any) -> tuple[Schedule | None, datetime | None]:
    """Return the schedule of the run's deployment, if FlowyML created it, and the time of its last change."""
    if find_spec("croniter") is None:  # then Prefect's own under that name, or else the run has no interval
        with suppress(ImportError):
            sys.modules["croniter"] = import_module("prefect._vendor.croniter")
    for item in _deployment(flow_run).schedules:
        plain = item.model_dump(mode="json")
        if is_ours(plain):
            return from_prefect(plain), item.updated
    return None, None


def _deployment(flow_run: Any) -> Any:
    """Read the run's deployment; wait for a server that is busy or away, since the result sets the dates of the run."""
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
    """Read a Secret block, for the process of one step."""
    name = slug_of(reference)
    try:
        with get_client(sync_client=True) as client:
            value = client.read_block_document_by_name(name, block_type_slug="secret").data["value"]
    except ObjectNotFound:
        raise MissingSecretError(
            f"Secret {reference!r} is missing: Prefect has no Secret block {name!r}. Create it there."
        ) from None
    return value if isinstance(value, str) else json.dumps(value)


def exact_parameters(flow_function: Callable[P, R]) -> Callable[P, R]:
    """Decode the parameters of a flow that stand in Prefect's database as texts: see ``parameters.py``."""

    @wraps(flow_function)
    def decoded(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature(flow_function).bind_partial(*args, **kwargs).arguments  # Prefect gives them by position
        return cast("Callable[..., R]", flow_function)(**read_parameters(given))

    return decoded


def run_step(
    step: str, inputs: Values, *, secrets: Mapping[str, str] = {}, timeout: float | None = None
) -> Values | State[Any]:
    stop, attempt = current_work.get().stop, runtime.task_run.run_count
    return make_attempt(step, inputs, stop, attempt=attempt, secrets=secrets, timeout=timeout)


def make_attempt(
    step: str, inputs: Values, stop: threading.Event, *, index: tuple[int, ...] = (), **options: Any
) -> Values | State[Any]:
    """Run a step in a process, with options of ``StepProcesses.run``. Its output goes to the log of the task run."""
    logger, work, ended = get_run_logger(), current_work.get(), threading.Event()
    work.ended.append(ended)
    try:
        with to_log(logger) as on_line:
            outputs = work.processes.run(step, inputs, index=index, stop=stop, on_line=on_line, **options)
        show(work.pipeline.name, step, outputs, index)
        if outputs.cached_from:  # of an earlier run: the state has the name of Prefect's own for cached results
            return Completed(name="Cached", message=f"cached from {outputs.cached_from}", data=dict(outputs))
        return dict(outputs)
    except StepError as error:
        if stop.is_set():
            return Cancelled(message="The step was stopped with its run.")
        if trace := getattr(error, "traceback", ""):
            logger.error("%s", trace.replace("\0", "\\x00"))
        raise
    finally:
        ended.set()


def show(pipeline: str, step: str, outputs: Values, index: tuple[int, ...]) -> None:
    """Create an artifact for outputs that people look at. If the server refuses it, the step continues."""
    if artifacts := list(artifacts_of(step, outputs, index)):
        key = f"{slug(pipeline)}-step-{slug(step)}"
        try:
            create_markdown_artifact(markdown_of(artifacts, default_url()), key=key, description=f"What {step} gave")
        except Exception as error:  # whatever Prefect's client raises
            get_run_logger().warning("The outputs of step %r are not shown: %s", step, error)


@contextmanager
def to_log(logger: Any) -> Iterator[OnLine]:
    """Log the lines of a process, with their levels. Above a limit, the last lines are logged at its end."""
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
    """Return a condition for retries: after these errors only, or after all."""
    policy = OrchestratorRetryPolicy(retryable_errors=errors)

    def condition(task: Any, task_run: Any, state: State[Any]) -> bool:
        return policy.retries_on(state.result(raise_on_failure=False))

    return condition


def finish_run(
    steps: Mapping[str, PrefectFuture[Any]], outputs: Mapping[str, tuple[PrefectFuture[Any], str]], key: str
) -> State[Any]:
    """Wait for all steps. If one failed, the run fails; otherwise the outputs become an artifact."""
    for future in steps.values():
        future.wait()
    states = {step: future.state for step, future in steps.items()}
    failed = {step: state for step, state in states.items() if not state.is_completed() and not state.is_pending()}
    if failed:
        return Failed(message=of_several([of_step(step, reason_of(state)) for step, state in failed.items()]))
    values = {name: future.result()[output] for name, (future, output) in outputs.items()}
    if values:
        table = [{"output": name, "value": json.dumps(value)} for name, value in values.items()]
        create_table_artifact(table, key=key, description="The outputs of the pipeline, as JSON.")
    return Completed(message=f"Task runs: {len(steps)}")


def final_status(state: State[Any]) -> ExecutionStatus:
    """Return how a run or a task ended; Prefect calls hooks while a run is still being cancelled."""
    return ExecutionStatus.CANCELLED if state.is_cancelling() else status_of(state.type.value, state.name)


def reason_of(state: State[Any]) -> str:
    """Return the error of a step, in the words of FlowyML if it is one of its own."""
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, StepError) else str(state.message or state.name)
