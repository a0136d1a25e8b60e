"""The decision for each task of a DAG: a step of its function, a ready-made step, an operator, or a hole."""

from __future__ import annotations

from collections.abc import Mapping

from flowyml.migration.airflow.model import OF_CLASS, DagModel, TaskModel
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.commands import step_of_command
from flowyml.migration.airflow.writer.deciding.context import needed_of_dag
from flowyml.migration.airflow.writer.deciding.decision import Decision, Hole, named, refused, rule_of
from flowyml.migration.airflow.writer.deciding.mapping import loop_of
from flowyml.migration.airflow.writer.deciding.operators import as_operator
from flowyml.migration.airflow.writer.deciding.options import constant_defaults, default_arguments
from flowyml.migration.airflow.writer.deciding.python import CLASSES, PYTHONS, step_of_python
from flowyml.migration.airflow.writer.deciding.step_options import is_called_back, left_out, others, step_options
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.plan.model import RUN_IF

_EMPTY = ("EmptyOperator", "DummyOperator")


def decide(dag: DagModel, task: TaskModel, moving: Moving, held: Mapping[str, str]) -> Decision:
    """Decide a task, with notes.

    ``held`` has the tasks that stay operators for others: their choices cannot be written as branches, or operators
    take their values under keys; with the reasons.
    """
    loop = None
    try:
        loop = loop_of(dag, task)
        made = _decided(dag, task, moving, held)
        if made.kind == "operator" and (found := needed_of_dag(dag, list(made.arguments.values()))):
            raise Hole(f"it has a template, and its DAG has {found}, which a pipeline has not")
        if loop and (made.kind == "operator" or made.choice):
            raise Hole(f"it is in a mapped task group, and {made.notes[0].reason or 'it chooses'}")
    except Hole as error:
        made = Decision(task, "hole", notes=[refused(task, str(error))])
    made.loop = loop
    made.options |= step_options(dag, task)
    if made.kind == "operator" and (rule := task.argument("trigger_rule")) and rule.inherited == OF_CLASS:
        made.options.pop("run_if", None)
        made.options.pop("trigger_rule", None)
    own = task.argument("default_args")
    is_known = own is None or own.value is None or isinstance(own.value, dict)
    if made.kind == "operator" and is_known:
        _take_defaults(dag, task, made, moving)
    made.notes += left_out(dag, task, made)
    return made


def _take_defaults(dag: DagModel, task: TaskModel, made: Decision, moving: Moving) -> None:
    """Give an operator its default arguments: those of the DAG by their constant's name, if the file has one."""
    defaults, whole = default_arguments(dag, task), constant_defaults(dag, task, moving)
    filled = {name for name in made.arguments if task.argument(name) is None} & {*(whole.value if whole else ())}
    if whole and (defaults or filled):
        made.arguments = {name: each for name, each in made.arguments.items() if name not in filled}
        made.arguments["default_args"], made.defaults = whole.value, whole
    elif defaults:
        made.arguments["default_args"] = dict(defaults)


def _decided(dag: DagModel, task: TaskModel, moving: Moving, held: Mapping[str, str]) -> Decision:
    if not task.id_known:
        raise Hole("its id is only known when Airflow reads the file")
    conditions = [each.name for each in task.arguments if each.name in ("run_if", "skip_if")]
    if task.decorator and conditions:
        raise Hole(f"@task.{conditions[0]} decides at run time whether to skip it: write when(…) around it")
    has_known_rule = task.trigger_rule in RUN_IF or task.teardown
    is_plain = task.own_class is None
    is_empty = is_plain and task.operator in _EMPTY and has_known_rule and not task.mapped
    if is_empty and not others(task) and not is_called_back(task):
        return Decision(task, "empty", notes=[Note(Kind.KEPT, named(task), task.place)])
    if task.decorator in (*CLASSES, "@task.bash") or (is_plain and task.operator in PYTHONS):
        return step_of_python(dag, task, moving, held)
    if task.decorator is not None:
        raise Hole(f"{task.decorator} has no step yet")
    arguments = {
        each.name: each.value for each in task.arguments if each.name != "task_id" and each.inherited != OF_CLASS
    }
    if not is_plain or task.operator != "BashOperator":
        return as_operator(task, arguments, moving)
    try:
        if not has_known_rule:
            raise Unclear(rule_of(task))
        return step_of_command(dag, task, moving)
    except Unclear as error:
        made = as_operator(task, arguments, moving)
        made.notes[0] = Note(
            Kind.OPAQUE, named(task), task.place, f"{error}, so it stays BashOperator",
            "To run it anywhere: flowyml.steps.bash, with what it needs as arguments.",
        )  # fmt: skip
        return made
