"""Run the tasks of a compiled DAG. This file travels in the bundle, and is loaded when a task runs.

It runs in Airflow's own process of a task, on a worker, and in the DAG processor for the callback at the end of a run.
Airflow is installed there; FlowyML comes from the bundle.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from flowyml.artifacts import artifact_key, default_url, is_reference, open_store, pack, run_place
from flowyml.core.errors import StepError, StepTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.logs import level_of
from flowyml.core.urls import without_credentials
from flowyml.plan.codec import decode
from flowyml.plan.groups import Loop
from flowyml.plan.model import Constant, FromItem, FromParameter, FromStep, Plan, Step
from flowyml.plan.parameters import days_of
from flowyml.runtime.decider import OK, End, Index, Outcome, listed
from flowyml.runtime.execution import HOST_MASKS, AttemptOutputs
from flowyml.runtime.loading import load_function
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.secrets import ReadSecret, from_environment
from flowyml.runtime.unpacking import unpack_bundle
from flowyml_airflow.beside import is_airflows
from flowyml_airflow.execution_groups import GroupRun, printed
from flowyml_airflow.facts import TAKEN, TaskDecider, item_key
from flowyml_airflow.graph import Task, TaskGraph, label_of
from flowyml_airflow.links import add_links
from flowyml_airflow.names import CACHED_KEY, RETURNED, given_run_id
from flowyml_airflow.parameters import filled, parameters_of
from flowyml_airflow.pod_disks import check_outlives_pod
from flowyml_airflow.run_dates import dates_of
from flowyml_airflow.secrets import masked, read_ahead
from flowyml_airflow.supervisor_line import drop_answers_after, drop_unread_answers
from flowyml_airflow.task_exceptions import (
    airflow_exceptions,
    as_airflow,
    interrupted,
    interruptions,
    is_final,
    never_retried,
    no_output,
    recorded,
    upstream_failed,
)
from flowyml_airflow.xcoms import carried, restored

__all__ = [
    "choose", "finish_run", "function", "list_items", "run_step", "run_together", "start_run", "stop_step",
    "trigger", "triggered",
]  # fmt: skip

# The task's own logger: it writes the log of the attempt in Airflow's UI.
logger = logging.getLogger("airflow.task")
# A process runs one task at a time.
_stop = threading.Event()
_GLANCE = 1  # seconds between checks of the parent
HOST_MASKS[:] = [masked]  # for the errors of steps, which run in forks of this process
_LONGEST_LABEL = 250  # characters of an item's name in Airflow's database


@recorded
def run_step(operator: Any, context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None) -> Any:
    """Make one attempt of a step. Each output becomes one XCom: the value if it is small JSON, otherwise a reference.

    Raises Airflow's ``AirflowFailException`` for an error that the step's retry policy does not name, so that Airflow
    does not retry. Any other failure is raised as it is, for Airflow to retry. Airflow's own exceptions, which a step
    raises to skip or fail its task, do so.
    """
    _stop.clear()
    graph = _graph(bundle)
    step = graph.plan.by_name[operator.step]
    inputs, index = _inputs(graph, step, operator, context, bundle, python, artifacts)
    read_secret = read_ahead(step.secrets.values())
    with _processes(context, bundle, python, artifacts, read_secret) as processes, _end_with_parent():
        try:
            outputs = _run(
                processes, artifacts, step.name, inputs, attempt=_attempt(context), index=index, secrets=step.secrets
            )
            if outputs.cached_from:
                context["ti"].xcom_push(key=CACHED_KEY, value=outputs.cached_from)
            add_links(operator, artifacts, outputs)
            return _handed_over(graph, step, context, outputs)
        except StepError as error:
            raised = as_airflow(step, error)
            if (trace := getattr(error, "traceback", "")) and type(raised).__name__ != "AirflowSkipException":
                logger.error("%s", trace.rstrip())
            raise raised from None
        except interruptions() as error:
            ended = interrupted(step, error)
            drop_unread_answers()
            processes.fire("on_error", step.name, ended, on_line=_log)
            if is_final(step, ended) and isinstance(ended, StepTimeoutError):
                raise as_airflow(step, ended) from error
            raise error.with_traceback(None) from None


def _run(
    processes: StepProcesses, artifacts: str | None, step: str, *arguments: Any, **options: Any
) -> AttemptOutputs:  # fmt: skip
    """Make one attempt of a step. Raises ``StepError``, also for an output that would end with this pod."""
    try:
        outputs = processes.run(step, *arguments, **options, on_line=_log, stop=_stop)
    except StepError as error:
        drop_answers_after(error)
        raise
    check_outlives_pod(step, outputs, artifacts)
    return outputs


def _handed_over(graph: TaskGraph, step: Step, context: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """Return the only output of a step, for Airflow to push it; push each of several.

    Raises Airflow's ``AirflowFailException`` if an operator of Airflow's own takes one that is not plain JSON there.
    """
    returned = None
    for name, packed in outputs.items():
        output, value = FromStep(step.name, name), carried(packed)
        if output in graph.handed_over and (value is not packed or is_reference(packed)):
            raise airflow_exceptions().AirflowFailException(
                f"step {step.name!r} gives {name!r} to an Airflow operator, which takes JSON of up to 64 KiB that "
                f"Airflow carries unchanged; it cannot be None. Return less, or the path of a file."
            )
        if (key := graph.key(output)) == RETURNED:
            returned = value
        else:
            context["ti"].xcom_push(key=key, value=value)
    return returned


@recorded
def run_together(operator: Any, context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None) -> None:
    """Run the steps of an execution group, one after the other in one process: see ``GroupRun``."""
    _stop.clear()
    graph = _graph(bundle)
    task = graph.steps[operator.steps[0]]
    decider = _decider(graph, task, context, bundle, python, artifacts)
    _check(decider, task)
    with _processes(context, bundle, python, artifacts) as processes, _end_with_parent():
        call = partial(_run, processes, artifacts, index=decider.index)
        group = GroupRun(graph, task, decider, context["ti"], call, _stop)
        try:
            group.run()
            add_links(operator, artifacts, group.outputs)
        except StepError as error:
            raise as_airflow(group.failed, error) from None
        except interruptions() as error:
            drop_unread_answers()
            processes.fire("on_error", group.at_work.name, interrupted(group.at_work, error), on_line=_log)
            raise error.with_traceback(None) from None


def function(bundle: Path, place: str) -> Callable[..., Any]:
    """Return a function of the user's code, as an argument of an operator of Airflow's own."""
    return load_function(unpack_bundle(bundle), place)


@recorded
@never_retried()
def trigger(
    operator: Any, context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None,
    execute: Callable[[Mapping[str, Any]], Any],
) -> None:  # fmt: skip
    """Have an operator ``execute`` with the conf and the id of the run of another DAG that it triggers for a step."""
    from flowyml_airflow.external_run import conf_of  # with all of a client: a twelfth of the time to load this module

    graph = _graph(bundle)
    step = graph.plan.by_name[operator.step]
    inputs, _ = _inputs(graph, step, operator, context, bundle, python, artifacts)
    parameters = dates_of(context).filled(_parameters(context, bundle), days_of(graph.plan.parameters))
    operator.conf = {**operator.conf, **conf_of(step, inputs, parameters)}
    operator.trigger_run_id = _external_run(operator, context, bundle)
    execute(context)


@recorded
def triggered(
    operator: Any, context: Mapping[str, Any], bundle: Path, complete: Callable[..., Any], event: Any
) -> dict[str, str]:
    """Return the output of a step whose operator has run another DAG, if its run is ``complete``."""
    from flowyml_airflow.external_run import run_page

    complete(context=context, event=event)
    dag, run_id = operator.trigger_dag_id, _external_run(operator, context, bundle)
    page = run_page(_address(), dag, run_id, 3 if hasattr(context["ti"], "get_task_states") else 2)
    return {"dag_id": dag, "run_id": run_id, "state": "success", "url": page}


def _external_run(operator: Any, context: Mapping[str, Any], bundle: Path) -> str:
    from flowyml_airflow.external_run import run_name

    return run_name(operator.trigger_dag_id, _place(context, bundle), operator.step)


@recorded
@never_retried()
def list_items(
    operator: Any, context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None
) -> list[str]:
    """Return the labels of the items of a loop. Raises if they are more than Airflow maps over.

    The items of a list that is stored elsewhere are pushed one by one, so that each task reads its own item alone.
    """
    graph, task = _graph(bundle), Task("items", operator.loop)
    decider = _decider(graph, task, context, bundle, python, artifacts)
    opened = decider.opened(operator.loop, ())
    assert opened is not None  # all that the loop waits for has ended
    _raise_unless_ok(opened.outcome, decider, task)
    loop, lists = graph.structure.by_name[operator.loop], opened.lists or {}
    assert isinstance(loop, Loop)
    if not all(decider.has_items(item.source, loop.parent) for item in loop.over):
        for name, items in lists.items():
            for index, item in enumerate(items):
                context["ti"].xcom_push(key=item_key(name, index), value=carried(item))
    count = len(next(iter(lists.values())))
    limit = import_module("airflow.configuration").conf.getint("core", "max_map_length", fallback=1024)
    if count > limit:
        raise airflow_exceptions().AirflowFailException(
            f"Loop {loop.name!r} has {count} items, but this Airflow maps over at most {limit}. Raise [core] "
            f"max_map_length, or process several items in each step."
        )
    labels = [[label_of(item) or str(index) for index, item in enumerate(items)] for items in lists.values()]
    return [", ".join(parts)[:_LONGEST_LABEL] for parts in zip(*labels, strict=True)]


@recorded
@never_retried()
def choose(operator: Any, context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None) -> str:
    """Return the first branch whose condition holds; empty if none does, or if a value for the condition is missing.

    Fails if such a value, or one that is needed afterwards, is missing since its step failed.
    """
    graph, task = _graph(bundle), Task("choice", operator.choice)
    decider = _decider(graph, task, context, bundle, python, artifacts)
    _raise_unless_ok(decider.gate(graph.group(task), decider.index), decider, task)
    taken = ""
    for branch in graph.structure.choices[operator.choice]:
        outcome = decider.taken(branch, decider.index)
        if outcome == OK:
            taken = branch.name
            break
        if outcome is None or outcome.end is End.FAILED:
            _raise_unless_ok(outcome, decider, task)
    context["ti"].xcom_push(key=TAKEN, value=carried(taken))
    return taken


def _evaluate(
    context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None, group: str,
    packed: Mapping[str, Any], index: Sequence[int],
) -> Any:  # fmt: skip
    """Evaluate the condition of a branch or the list of a loop, in a process that has the user's code."""
    _stop.clear()
    with _processes(context, bundle, python, artifacts) as processes, _end_with_parent():
        return processes.evaluate(group, packed, index=index, on_line=_log, stop=_stop)


def _decider(
    graph: TaskGraph, task: Task, context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None
) -> TaskDecider:  # fmt: skip
    return TaskDecider(
        graph, task, context, _parameters(context, bundle), partial(_packed, context, bundle, artifacts),
        partial(_evaluate, context, bundle, python, artifacts),
    )  # fmt: skip


@never_retried()
def _check(decider: TaskDecider, task: Task) -> None:
    """Skip or fail the task of a step, or of an execution group, if FlowyML's rules differ from its trigger rule.

    Fails, too, if a person marked the choice of its branch as success.
    """
    graph = decider.graph
    if graph.is_checked(task):
        outcome = decider.decide(graph.runs(task)[0], decider.index)
        if outcome is not None:  # else a step that is not needed is still running
            _raise_unless_ok(outcome, decider, task)
    elif (branch := graph.branch(task)) and graph.is_behind_gate(task):
        decider.taken(branch, decider.index)


def _raise_unless_ok(outcome: Outcome | None, decider: TaskDecider, task: Task) -> None:
    """Skip or fail a task that does not run; for a condition or list that cannot be evaluated, say why."""
    if outcome is None or outcome.end is End.FAILED:
        if outcome and outcome.cause:
            raise StepError(next(iter(decider.faults), outcome.cause))
        raise upstream_failed(task)
    if outcome.end is End.SKIPPED:
        raise airflow_exceptions().AirflowSkipException(
            f"{task.name} is skipped: a step that it waits for was skipped."
        )


def _packed(
    context: Mapping[str, Any], bundle: Path, artifacts: str | None, output: FromStep, value: Any, index: int
) -> Any:
    """Pack the return value of an operator of Airflow's own, like the outputs of steps. It is never a reference."""
    place = _place(context, bundle)
    key = artifact_key(place, output.step if index < 0 else f"{output.step}[{index}]", 1, output.output)
    return pack(value, open_store(artifacts or default_url()), key=key)


@never_retried()
def _inputs(
    graph: TaskGraph, step: Step, operator: Any, context: Mapping[str, Any], bundle: Path, python: str,
    artifacts: str | None,
) -> tuple[dict[str, Any], Index]:  # fmt: skip
    """Return the packed inputs of a step, and its index in a loop."""
    task = graph.steps[step.name]
    decider = _decider(graph, task, context, bundle, python, artifacts)
    _check(decider, task)
    from_operators = any(output.step in graph.operators for output in graph.outputs(task))
    if not (graph.is_checked(task) or from_operators) and not any(
        isinstance(item.source, FromItem) for item in step.inputs
    ):
        _check_inputs(graph, step, operator.inputs, decider.facts.map_index)
        return {name: restored(value) for name, value in operator.inputs.items()}, decider.index
    fixed = {item.name for item in step.inputs if isinstance(item.source, Constant | FromParameter)}
    inputs = decider.inputs(step, decider.index).items()
    return {name: listed(value) for name, value in inputs if name not in fixed}, decider.index


def stop_step() -> None:
    """Stop the step, since Airflow ends the task: its process, and all that it started, end within a moment."""
    _stop.set()


@contextmanager
def _end_with_parent() -> Iterator[None]:
    """Stop the step when the process that supervises this task is gone.

    Its result would be lost, it could not be cancelled, and Airflow starts the next attempt. Airflow's own process of
    the task does not check that. The kernel's signal for it, PR_SET_PDEATHSIG, is not used: it also comes when only the
    forking thread ends, and would kill a shell or a test that runs the task in its own process.
    """
    parent, done = os.getppid(), threading.Event()

    def watch() -> None:
        while not done.wait(_GLANCE):
            if os.getppid() != parent:
                _stop.set()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@recorded
def start_run(operator: Any, context: Mapping[str, Any], bundle: Path, python: str) -> None:
    """Fire ``on_pipeline_start``. Errors in hooks are only logged. Raises if the hooks cannot be run."""
    _fire(context, bundle, python, "on_pipeline_start", _parameters(context, bundle))


def finish_run(context: Mapping[str, Any], bundle: Path, python: str) -> None:
    """Fire ``on_pipeline_end``; the callback of a run that has ended."""
    run = context.get("dag_run")  # Airflow 3 leaves it out for a run without tasks
    ended = getattr(run, "end_date", None) or datetime.now(UTC)
    began = getattr(run, "start_date", None) or ended
    _fire(context, bundle, python, "on_pipeline_end", _status(context), (ended - began).total_seconds())


def _fire(context: Mapping[str, Any], bundle: Path, python: str, event: str, *arguments: object) -> None:
    with _processes(context, bundle, python, None) as processes:
        processes.fire(event, _plan(bundle).name, _run_id(context), *arguments, on_line=_log)


def _status(context: Mapping[str, Any]) -> ExecutionStatus:
    """Return the status of an ended run, from the reason that Airflow passes to callbacks."""
    reason = str(context.get("reason"))
    if reason == "timed_out":
        return ExecutionStatus.TIMEOUT
    return ExecutionStatus.COMPLETED if reason == "success" else ExecutionStatus.FAILED


def _processes(
    context: Mapping[str, Any], bundle: Path, python: str, artifacts: str | None,
    read_secret: ReadSecret = from_environment,
) -> StepProcesses:  # fmt: skip
    """Return the processes of steps: forked from this one if the steps' interpreter is Airflow's own.

    All of Airflow works in a fork: its context, and its line to the task's supervisor or to its database.
    """
    return StepProcesses(
        bundle, run_id=_run_id(context), artifacts=artifacts or default_url(), place=_place(context, bundle),
        parameters=_parameters(context, bundle), dates=dates_of(context), python=python,
        fork_here=is_airflows(python), host_packages=("airflow",), read_secret=read_secret,
    )  # fmt: skip


def _place(context: Mapping[str, Any], bundle: Path) -> str:
    """Return the prefix of the run's artifacts, with DAG id and run id: two DAGs may have runs of the same id."""
    dag = getattr(context.get("dag_run"), "dag_id", None) or _plan(bundle).name
    return run_place(f"airflow {_address()}", dag, context["run_id"])


@cache
def _address() -> str:
    """Return the configured address of this Airflow, which distinguishes two Airflows that share a store."""
    try:
        conf = import_module("airflow.configuration").conf
    except ImportError:  # in a test of this file
        return ""
    url = conf.get("api", "base_url", fallback="") or conf.get("webserver", "base_url", fallback="")
    return without_credentials(url or "")


def _parameters(context: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """Return the parameters of a run. Its conf wins, even if ``[core] dag_run_conf_overrides_params`` is off."""
    values = {**parameters_of(context.get("params")), **parameters_of(_conf(context))}
    return filled(values, _plan(bundle).parameters)


def _run_id(context: Mapping[str, Any]) -> str:
    return given_run_id(_conf(context), context["run_id"])


def _conf(context: Mapping[str, Any]) -> Mapping[str, Any] | None:
    conf: Mapping[str, Any] | None = getattr(context.get("dag_run"), "conf", None)
    return conf


def _check_inputs(graph: TaskGraph, step: Step, inputs: Mapping[str, Any], index: int) -> None:
    """Raise ``StepError`` for an XCom that does not exist: Airflow returns None for it, and None is never an output."""
    for item in step.inputs:
        if isinstance(item.source, FromStep) and inputs[item.name] is None:
            raise no_output(item.source.step, [index if graph.loop(graph.steps[item.source.step]) else -1])


def _attempt(context: Mapping[str, Any]) -> int:
    return int(context["ti"].try_number)


@cache
def _plan(bundle: Path) -> Plan:
    return decode((unpack_bundle(bundle) / "plan.json").read_bytes())


@cache
def _graph(bundle: Path) -> TaskGraph:
    return TaskGraph(_plan(bundle))


def _log(source: str, line: str) -> None:
    logger.log(level_of(source), "%s", printed(line))
