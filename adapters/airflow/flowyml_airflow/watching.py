"""Make a DAG end as FlowyML says: there each failed step fails the run, in Airflow only the last tasks decide.

Most failures reach a last task by themselves, since the tasks on the way do not run. The task ``watcher`` waits for
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from flowyml.plan.groups import Branch, Loop
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.options import step_options

__all__ = ["unsettled", "watched"]


def unsettled(graph: TaskGraph) -> Sequence[Task]:
    """Return the last tasks of loops whose failed items do not fail the run: another task must come after them."""
    waited_for = {before for task in graph.tasks for before in (*graph.upstream(task), graph.gate(task))}
    return [
        task
        for task in dict.fromkeys(graph.steps.values())
        if task not in waited_for and _may_fail(graph, task) and not graph.is_cleanup(task)
    ]


def watched(graph: TaskGraph) -> Sequence[Task]:
    """Return the tasks whose failure might not fail the run; empty if Airflow's own rule fails it for each.

    Choices are left out: they would skip the watcher. One that fails fails what it chooses from.
    """
    if not _may_hide(graph):
        return []
    after: dict[Task, list[Task]] = {task: [] for task in graph.tasks}
    for task in graph.tasks:
        for before in dict.fromkeys(graph.waited_for(task)):
            after[before].append(task)

    @cache
    def passes_on(task: Task) -> bool:
        """Return whether a task's failure is also that of a task after it."""
        return any(fails_with(later, task) and (later.kind != "choice" or passes_on(later)) for later in after[task])

    def fails_with(task: Task, before: Task) -> bool:
        """Return whether a task fails in each run in which the one before it has failed: no skip comes first."""
        if around(task) - around(before) - chosen(before) or not _counts(graph, task):
            return False
        loop = graph.loop(task)
        if loop not in (None, graph.loop(before)) and before != Task("items", loop.name):
            return False
        return not skipping(task) - {before} if rule(task) == "all_success" else rule(task) == "none_failed"

    @cache
    def around(task: Task) -> frozenset[str]:
        return frozenset(branch.name for branch in graph.structure.branches(graph.group(task)))

    def chosen(task: Task) -> set[str]:
        return {branch.name for branch in graph.structure.choices[task.name]} if task.kind == "choice" else set()

    @cache
    def rule(task: Task) -> str:
        own = [
            options["trigger_rule"] for step in graph.runs(task) if "trigger_rule" in (options := step_options(step))
        ]
        return own[0] if own else graph.rule(task)

    @cache
    def skipping(task: Task) -> frozenset[Task]:
        """Return the tasks directly before one that may be skipped, and then skip it."""
        group = graph.group(task)
        return frozenset(
            before
            for before in graph.upstream(task)
            if any(graph.may_skip(step.name, group) for step in graph.runs(before))
        )

    last = [task for task in graph.tasks if task.kind != "choice" and _counts(graph, task) and not passes_on(task)]
    are_last = all(graph.is_cleanup(later) for task in last for later in after[task])
    return [] if are_last else last


def _may_hide(graph: TaskGraph) -> bool:
    """Return whether the plan has anything that may hide a failure from the tasks after it."""
    is_cleanup = graph.structure.is_cleanup
    around = [group for group in graph.plan.groups if not is_cleanup(group.name)]
    return any(
        isinstance(group, Branch) or (isinstance(group, Loop) and group.on_item_error == "continue") for group in around
    ) or any(step.run_if != "all_success" for step in graph.plan if not is_cleanup(step.group))


def _counts(graph: TaskGraph, task: Task) -> bool:
    return not _may_fail(graph, task) and not graph.is_cleanup(task)


def _may_fail(graph: TaskGraph, task: Task) -> bool:
    loop = graph.loop(task)
    return loop is not None and loop.on_item_error == "continue"
