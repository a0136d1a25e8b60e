"""Run tasks of an ended run again, by clearing them, as in Airflow's UI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowyml.artifacts import run_place
from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.orchestrators.new_code import EndedRun
from flowyml.orchestrators.retrying import Ends, StepInstance, to_run_again
from flowyml.plan.bundle import Bundle
from flowyml.plan.groups import Cleanup, Group, Loop
from flowyml.plan.model import Plan, Step
from flowyml.runtime.decider import End
from flowyml_airflow.client import ConflictError
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.reader import AirflowReader
from flowyml_airflow.step_runs import Marker, index_of, map_index, name_of, steps_of_task

__all__ = ["ended_run", "run_again", "to_clear"]

_ENDS = {"success": End.OK, "failed": End.FAILED}
"""States of tasks that ended by themselves; one that is ``upstream_failed`` or ``removed`` did not."""


def run_again(reader: AirflowReader, deployer: AirflowDeployer, job_id: str, steps: Sequence[str] | None) -> None:
    """Clear the tasks that failed or were stopped, and those after them; or ``steps`` and all after them."""
    dag_run, client = reader.fetch(job_id), reader.client
    dag, run_id = dag_run["dag_id"], dag_run["dag_run_id"]
    _check_same_code(dag_run, reader, deployer)
    tasks = client.task_instances(dag, run_id)
    graph = {task["task_id"]: task["downstream_task_ids"] for task in client.tasks(dag)}
    was_stopped = reader.record(dag_run, whole=False).status in (ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT)
    marked = to_clear(tasks, graph, reader.dags.facts(dag_run), steps=steps, was_stopped=was_stopped)
    if not marked:
        raise RetryRefusedError(f"Run {job_id!r} has no task that failed or was stopped. Start a new run.")
    of_task: dict[str, set[int]] = {}
    for task, index in marked:
        of_task.setdefault(task, set()).add(index)
    every = {task: {map_index(instance) for instance in tasks if instance["task_id"] == task} for task in of_task}
    items_of_task = {task: None if indexes == every[task] else indexes for task, indexes in of_task.items()}
    try:
        client.clear_tasks(dag, run_id, items_of_task)
    except ConflictError as error:  # its database refuses the second of two that change the same rows
        raise RetryRefusedError(
            f"Run {job_id!r} was changed at the same moment, as by another retry. Look at it by "
            f"`{client.command('status', job_id)}`, and retry it again if it still has failed."
        ) from error


def ended_run(reader: AirflowReader, bundle: Bundle, job_id: str) -> EndedRun:
    """Return what Airflow has of an ended run of a ``bundle``."""
    dag_run = reader.fetch(job_id)
    outputs = reader.recorded_outputs(job_id)
    place = run_place("airflow", dag_run["dag_id"], dag_run["dag_run_id"])
    return EndedRun.of(reader.identified(dag_run), bundle, reader.step_runs(job_id), outputs, place)


def _check_same_code(dag_run: Mapping[str, Any], reader: AirflowReader, deployer: AirflowDeployer) -> None:
    """Refuse a run that would continue with other code: a task runs the code that is there when it starts.

    In a DAG bundle with versions, such as one from git, Airflow uses the version of the run.
    """
    code = None if dag_run.get("bundle_version") else reader.identified(dag_run).code_digest
    deployed = deployer.found(dag_run["dag_id"]) if code else None
    now = deployed.facts.get("code") if deployed else None
    if now not in (None, code):
        job_id = f"{dag_run['dag_id']}/{dag_run['dag_run_id']}"
        raise RetryRefusedError(
            f"The DAG of run {job_id!r} has new code (version {str(code)[:8]}, now {str(now)[:8]}), and a retry "
            f"would run that. Deploy the run's own code again, or start a new run. To run the failed tasks with "
            f"the new code: `{reader.client.command('clear', job_id)}`."
        )


def to_clear(
    tasks: Sequence[Mapping[str, Any]],
    graph: Mapping[str, Iterable[str]],
    facts: Mapping[str, Any],
    *,
    steps: Sequence[str] | None,
    was_stopped: bool,
) -> set[Marker]:
    """Choose the tasks to clear by the rule of all retries, to which each task is a step of a plan.

    ``tasks`` are those of the run; ``graph`` has the tasks directly after each. A skipped task is decided again if it
    comes after one that runs again: Airflow skips it again by the XCom of its branch task. The watcher of the run and
    clean-ups always run again. ``was_stopped`` is True for a run that was cancelled or timed out: then Airflow has
    skipped the tasks that had not ended.
    """
    known = {**_ENDS, "skipped": None if was_stopped else End.SKIPPED}
    ends = {(task["task_id"], index_of(task)): known.get(task["state"]) for task in tasks}
    names = None if steps is None else [name for step in steps for name in _names(step, tasks, facts)]
    again, _ = to_run_again(Ends(_plan(ends, graph, facts), ends), (), (), names)
    return {(name, index[0] if index else -1) for name, index in ends.keys() & set(again)}


def _plan(ends: Iterable[StepInstance], graph: Mapping[str, Iterable[str]], facts: Mapping[str, Any]) -> Plan:
    """Return a plan with a step for each task. A mapped task that is in no loop of FlowyML's is a loop of its own."""
    last = {facts.get("watcher"), *facts.get("cleanup", ())}
    last |= {task for task in facts.get("helpers", ()) if last.issuperset(graph.get(task, ()))}  # others lead to steps
    loops: dict[str, Mapping[str, Any]] = {
        **{f"task {task}": {"tasks": [task]} for task, index in ends if index},
        **{f"loop {name}": loop for name, loop in facts.get("loops", {}).items()},
    }
    groups: list[Group] = [Cleanup(name="last")]
    around = dict.fromkeys(last, "last")
    for name, loop in loops.items():
        inside = "last" if last.intersection(loop["tasks"]) else ""
        on_error = "continue" if loop.get("goes_on") else "fail"
        groups.append(Loop(name=name, parent=inside, over=(), on_item_error=on_error))
        around.update(dict.fromkeys(loop["tasks"], name))
    before: dict[str, list[str]] = {task: [] for task, _ in ends}
    for task, later in graph.items():
        for name in before.keys() & set(later) - last:
            before[name] += [task] if task in before else []
    steps = [
        Step(name=task, function="", after=tuple(upstream), group=around.get(task, ""))
        for task, upstream in before.items()
    ]
    return Plan(name="", steps=tuple(steps), groups=tuple(groups))


def _names(label: str, tasks: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tasks of a step, or of one item. An execution group runs again as a whole."""
    for task in tasks:
        for name in steps_of_task(task["task_id"], facts) or [name_of(task)]:
            if label == name:
                yield task["task_id"]
            elif label == labelled(name, index_of(task)):
                yield labelled(task["task_id"], index_of(task))
