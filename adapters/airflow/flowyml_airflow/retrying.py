"""Run tasks of an ended run again, by clearing them, as in Airflow's UI."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from flowyml.artifacts import run_place
from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.orchestrators.new_code import EndedRun
from flowyml.plan.bundle import Bundle
from flowyml_airflow.client import ConflictError
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.names import xcom_key
from flowyml_airflow.reader import AirflowReader
from flowyml_airflow.step_runs import Marker, index_of, map_index, name_of, steps_of_task

__all__ = ["ended_run", "run_again", "to_clear"]

_FAILED = ("failed", "upstream_failed", "removed")
_UNDONE = (*_FAILED, "skipped", None)


def run_again(reader: AirflowReader, deployer: AirflowDeployer, job_id: str, steps: Sequence[str] | None) -> None:
    """Clear the tasks that failed or were stopped, and those after them; or ``steps`` and all after them."""
    found, client = reader.fetch(job_id), reader.client
    dag, run_id = found["dag_id"], found["dag_run_id"]
    _check_same_code(found, reader, deployer)
    tasks = client.task_instances(dag, run_id)
    graph = {task["task_id"]: task["downstream_task_ids"] for task in client.tasks(dag)}
    was_stopped = reader.record(found, whole=False).status in (ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT)
    marked = to_clear(tasks, graph, reader.dags.facts(found), steps=steps, was_stopped=was_stopped)
    if not marked:
        raise RetryRefusedError(f"Run {job_id!r} has no task that failed or was stopped: there is nothing to clear.")
    of_task: dict[str, set[int]] = {}
    for task, index in marked:
        of_task.setdefault(task, set()).add(index)
    every = {task: {map_index(each) for each in tasks if each["task_id"] == task} for task in of_task}
    wanted = {task: None if indexes == every[task] else indexes for task, indexes in of_task.items()}
    try:
        client.clear_tasks(dag, run_id, wanted)
    except ConflictError as error:  # its database refuses the second of two that change the same rows
        raise RetryRefusedError(
            f"Run {job_id!r} was changed at the same moment, as by another retry. Look at it by "
            f"`{client.command('status', job_id)}`, and retry it again if it still has failed."
        ) from error


def ended_run(reader: AirflowReader, bundle: Bundle, job_id: str) -> EndedRun:
    """Return what Airflow has of an ended run of a ``bundle``."""
    found = reader.fetch(job_id)
    keys = {step.name: {xcom_key(output): output for output in step.outputs} for step in bundle.plan}
    outputs = {
        turn: {keys.get(turn[0], {}).get(key, key): value for key, value in returned.items()}
        for turn, returned in reader.returned(job_id)
        if not any(step.operator for step in bundle.plan)  # beside these, a task returns plain values
    }
    place = run_place("airflow", found["dag_id"], found["dag_run_id"])
    return EndedRun.of(reader.identified(found), bundle, reader.step_runs(job_id), outputs, place)


def _check_same_code(found: Mapping[str, Any], reader: AirflowReader, deployer: AirflowDeployer) -> None:
    """Refuse a run that would continue with other code: a task runs the code that is there when it starts.

    In a DAG bundle with versions, such as one from git, Airflow uses the version of the run.
    """
    code = None if found.get("bundle_version") else reader.identified(found).code_digest
    deployed = deployer.found(found["dag_id"]) if code else None
    now = deployed.facts.get("code") if deployed else None
    if now not in (None, code):
        job_id = f"{found['dag_id']}/{found['dag_run_id']}"
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
    """Choose the tasks that failed or were stopped, and those after them; or ``steps`` and all tasks after them.

    ``tasks`` are those of the run; ``graph`` has the tasks directly after each. A skipped task is decided again if it
    comes after one that runs again: Airflow skips it again by the XCom of its branch task. The watcher of the run and
    clean-ups always run again. ``was_stopped`` is True for a run that was cancelled or timed out: then Airflow has
    skipped the tasks that had not ended.
    """
    by_task: dict[str, dict[int, str | None]] = {}
    for each in tasks:
        by_task.setdefault(each["task_id"], {})[map_index(each)] = each["state"]
    failed = _UNDONE if was_stopped else _FAILED
    forced: set[Marker] = set()  # all that comes after these runs again, whether it completed or not
    if steps is None:
        begun = {(task, index) for task, found in by_task.items() for index in found if found[index] in failed}
    else:
        begun, forced = _named(tasks, steps, facts, {*failed, None})
    loops = [set(loop["tasks"]) for loop in facts.get("loops", {}).values()]
    found = set(begun)
    waiting = list(begun)
    while waiting:
        task, index = marker = waiting.pop()
        for after in graph.get(task, ()):
            same_loop = any({task, after} <= loop for loop in loops)
            for other, state in by_task.get(after, {}).items():
                is_reached = not same_loop or -1 in (index, other) or index == other
                later = after, other
                is_forced = marker in forced and later not in forced
                if is_reached and (is_forced or (later not in found and state in _UNDONE)):
                    found.add(later)
                    waiting.append(later)
                    if is_forced:
                        forced.add(later)
    always = {facts.get("watcher"), *facts.get("cleanup", ())}
    return found | {(task, index) for task in always & by_task.keys() for index in by_task[task]}


def _named(
    tasks: Sequence[Mapping[str, Any]], steps: Sequence[str], facts: Mapping[str, Any], failed: Container[str | None]
) -> tuple[set[Marker], set[Marker]]:
    """Return the tasks of these steps and items: the failed ones or, if none failed, all.

    The latter are returned twice.
    """
    found: set[Marker] = set()
    completed: set[Marker] = set()
    for wanted in steps:
        named = [task for task in tasks if wanted in _labels(task, facts)]
        undone = [task for task in named if task["state"] in failed]
        markers = {(task["task_id"], map_index(task)) for task in undone or named}
        found |= markers
        if not undone:
            completed |= markers
    return found, completed


def _labels(task: Mapping[str, Any], facts: Mapping[str, Any]) -> set[str]:
    """Return the names of a task's steps, with and without their item. An execution group runs again as a whole."""
    names = steps_of_task(task["task_id"], facts) or [name_of(task)]
    return {*names, *(labelled(name, index_of(task)) for name in names)}
