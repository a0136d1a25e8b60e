"""Tasks of Python functions: a step of the function, a step that calls it, or an operator with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowyml.migration.airflow.model import DagModel, FunctionModel, TaskModel, ValueEdge
from flowyml.migration.airflow.writer.deciding import functions
from flowyml.migration.airflow.writer.deciding.choices import Choice, Unclear, choice_of
from flowyml.migration.airflow.writer.deciding.commands import options_of_command
from flowyml.migration.airflow.writer.deciding.context import Asked, Asking, Template, is_template, notes_of_intervals
from flowyml.migration.airflow.writer.deciding.decision import (
    Decision,
    Function,
    Hole,
    edges_in,
    is_item,
    items_in,
    named,
    rule_of,
)
from flowyml.migration.airflow.writer.deciding.mapping import by_names, lists_of, over_parameters
from flowyml.migration.airflow.writer.deciding.operators import STANDARD, as_operator
from flowyml.migration.airflow.writer.deciding.options import OF_PYTHON, defaults_of
from flowyml.migration.airflow.writer.deciding.step_options import ALL_SKIPPED, OF_OPERATORS, OURS, held_by
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import is_plain, path_of
from flowyml.plan.model import RUN_IF

PYTHONS = ("PythonOperator", "BranchPythonOperator", "ShortCircuitOperator", "PythonSensor")
CLASSES = {
    "@task": f"{STANDARD}.operators.python.PythonOperator",
    "@task.branch": f"{STANDARD}.operators.python.BranchPythonOperator",
    "@task.short_circuit": f"{STANDARD}.operators.python.ShortCircuitOperator",
    "@task.sensor": f"{STANDARD}.sensors.python.PythonSensor",
}
_BRANCHES = ("@task.branch", "BranchPythonOperator")
_SHORT_CIRCUITS = ("@task.short_circuit", "ShortCircuitOperator")


def step_of_python(dag: DagModel, task: TaskModel, moving: Moving, held: Mapping[str, str]) -> Decision:
    function = task.function
    if function is None:
        raise Hole("its function was not found")
    if function.bound:
        raise Hole(f"its function is {function.bound}: write it with def, and give it what it needs by op_kwargs")
    if function.module in ("", "__main__"):
        moved = functions.moved_over(function, moving)
    elif (other := functions.imported_from(function, moving)) and task.decorator in (None, "@task"):
        moved = other
    else:
        return _of_other_module(dag, task, function, moving)
    if task.mapped and task.decorator is None:
        task = over_parameters(task, function)
    arguments = functions.with_bound(task, moved, functions.taken_by(task, moved, functions.call_arguments(dag, task)))
    arguments = by_names(arguments, function) if task.mapped else arguments
    try:
        if task.task_id in held:
            raise Unclear(held[task.task_id])
        made = _step_of(Asking(dag, task, moving.names), moved, arguments)
        made.choice = _choice(task, moved, arguments)
    except Unclear as error:
        if task.decorator == "@task.bash":
            raise Hole(str(error)) from error
        made = _as_its_operator(
            task,
            moved.model,
            moving,
            arguments,
            str(error),
            "Take what it asks Airflow for as arguments to run it anywhere.",
        )
        made.notes[0] = replace(made.notes[0], reason=f"{error}, so it stays an operator with its function")
        made.function = None if moved.is_imported else moved
        return made
    if task.multiple_outputs:
        made.notes.append(
            Note(Kind.CHANGED, f"keys of {task.task_id}", task.place, "its dict is one value; on Airflow each key is "
                 "an XCom too", "Let other DAGs that pull a key take it out of the dict.")
        )  # fmt: skip
    only = moved.needed.airflow
    to_do = "Take its values as arguments or secrets to run it anywhere." if only else ""
    made.notes.insert(0, Note(Kind.KEPT, named(task), task.place, only, to_do, airflow_only=bool(only)))
    return made


def _step_of(asking: Asking, moved: Function, values: dict[str, Any]) -> Decision:
    """Return the function as a step, or a step that calls it. Raises ``Unclear``."""
    task = asking.task
    kind = task.decorator or task.operator
    if kind not in ("@task", "@task.bash", "PythonOperator", *_BRANCHES, *_SHORT_CIRCUITS):
        raise Unclear(f"it is {kind}")
    if task.decorator is None and (taken := _of_defaults(asking.dag, task)):
        raise Unclear(f"it takes {taken[0]} of the default arguments")
    through_bash = options_of_command(asking, moved) if kind == "@task.bash" else None
    moved, from_context = functions.of_context(asking, moved, values)
    arguments = {**asking.rendered(values), **from_context}
    for edge in edges_in(arguments.values()):
        source = asking.dag.task(edge.task_id)
        if edge.key != "return_value" and source is not None and source.function is None:
            raise Unclear(f"it takes {edge.key!r:.60} of {edge.task_id}, an XCom of an operator")
    may_be_missing = _check_rules(task, arguments)
    over = lists_of(task)
    if is_template(list(over.values())):
        raise Unclear("it is mapped over templates")
    if names := {*over, *items_in(arguments.values())} & {*asking.dates, *asking.parameters, moved.node.name.value}:
        raise Unclear(f"it is mapped over {min(names)}, which has another meaning too")
    calls = may_be_missing or through_bash is not None or not all(map(_may_be_passed, arguments.values()))
    made = Decision(task, "call" if calls else "function", function=moved, arguments=arguments, over=over)
    made.asking, made.may_be_missing = asking if calls else None, may_be_missing
    made.through_bash = through_bash
    made.notes += notes_of_intervals(asking)
    return made


def _of_defaults(dag: DagModel, task: TaskModel) -> list[str]:
    """Return the arguments of a PythonOperator from its default arguments, beside the options of each task."""
    own = {each.name for each in task.arguments}
    defaults = defaults_of(dag, task).items()
    return [name for name, each in defaults if name in OF_PYTHON and each.value and name not in own]


def _choice(task: TaskModel, moved: Function, arguments: dict[str, Any]) -> Choice | None:
    """Return the choice of a task for the tasks after it; None for any other task. Raises ``Unclear``."""
    kind = task.decorator or task.operator
    if kind not in (*_BRANCHES, *_SHORT_CIRCUITS):
        return None
    if task.mapped:
        raise Unclear("it chooses for each item")
    if kind in _SHORT_CIRCUITS:
        said = task.argument(ALL_SKIPPED)
        if said is not None and not isinstance(said.value, bool):
            raise Unclear(f"only Airflow knows its {ALL_SKIPPED}")
        return Choice(whole=said is None or said.value is True)
    if moved.node.decorators:
        raise Unclear("its decorator may change what it returns")
    return choice_of(functions.tree_of(moved), arguments, moved.home.constant)


def _check_rules(task: TaskModel, arguments: dict[str, Any]) -> bool:
    """Return whether inputs of a task may be missing. Raises ``Unclear`` for a request that no step has."""
    rule = task.trigger_rule
    if rule not in RUN_IF and not task.teardown:
        raise Unclear(rule_of(task))
    if wrong := [name for name, value in arguments.items() if not _may_be_argument(value)]:
        raise Unclear(f"it is given {wrong[0]}, which is not plain JSON")
    if held := held_by(task):
        raise Unclear(f"it has {held[0]}")
    taken = list(edges_in(list(arguments.values())))
    if rule == "all_success" and not task.teardown:
        return False
    if task.mapped or any(edge.key != "return_value" for edge in taken):
        raise Unclear("it takes values, and runs where they may be missing")
    return bool(taken)


def _may_be_argument(value: Any) -> bool:
    """Return whether a step can be called with a value, or call its function with it."""
    if is_item(value):
        return True
    match value:
        case ValueEdge():
            return not value.path
        case Template() | Asked():
            return True
        case list():
            return all(map(_may_be_argument, value))
        case dict():
            return all(isinstance(key, str) for key in value) and all(map(_may_be_argument, value.values()))
    return is_plain(value)


def _may_be_passed(value: Any) -> bool:
    """Return whether the pipeline itself can call a step with a value."""
    if isinstance(value, list) and any(isinstance(each, ValueEdge) for each in value):
        return all(_may_be_passed(each) for each in value)
    return isinstance(value, ValueEdge) or is_item(value) or is_plain(value)


def _as_its_operator(
    task: TaskModel, function: FunctionModel, moving: Moving, passed: dict[str, Any], why: str, to_do: str
) -> Decision:
    """Return the operator of a function that only Airflow can call."""
    if task.mapped or task.decorator == "@task.bash":
        raise Hole(f"it is {'mapped' if task.mapped else '@task.bash'}, and {why}")
    arguments: dict[str, Any] = {"python_callable": function}
    arguments |= {each.name: each.value for each in task.arguments if each.name not in {*OURS, "0"} - OF_OPERATORS}
    arguments |= functions.to_operator(passed)
    if task.multiple_outputs:
        arguments["multiple_outputs"] = True
    made = as_operator(task, arguments, moving, CLASSES.get(task.decorator or "", ""))
    made.notes[0] = Note(Kind.OPAQUE, named(task), task.place, why, to_do)
    return made


def _of_other_module(dag: DagModel, task: TaskModel, function: FunctionModel, moving: Moving) -> Decision:
    """Return a function of another module of the repository: Airflow imports it from there, like the DAG file."""
    if function.nested:
        raise Hole(f"its function is made by another one of {function.module}: Airflow cannot import it by its name")
    if not path_of(function.import_path):
        raise Hole(f"its function {function.import_path!r:.80} is not an import path")
    return _as_its_operator(
        task, function, moving, functions.call_arguments(dag, task), f"its function is in the module {function.module}",
        "Import it into the pipeline, and put @step on it, to run it anywhere.",
    )  # fmt: skip
