"""Operators, unchanged, with the functions of the DAG file among their arguments."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flowyml.migration.airflow.model import OF_CLASS, Symbolic, TaskModel
from flowyml.migration.airflow.writer.deciding import functions
from flowyml.migration.airflow.writer.deciding.decision import Decision, Hole, named, rule_of
from flowyml.migration.airflow.writer.deciding.mapping import lists_of
from flowyml.migration.airflow.writer.deciding.step_options import is_time
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import path_of
from flowyml.orchestrators.replacements import replacement
from flowyml.plan.model import RUN_IF

STANDARD = "airflow.providers.standard"
# Paths of Airflow 1, and their names in Airflow 2 and 3.
_OLD = {
    "airflow.operators.bash_operator": f"{STANDARD}.operators.bash",
    "airflow.operators.dummy": f"{STANDARD}.operators.empty",
    "airflow.operators.dummy_operator": f"{STANDARD}.operators.empty",
    "airflow.operators.python_operator": f"{STANDARD}.operators.python",
    "airflow.operators.dagrun_operator": f"{STANDARD}.operators.trigger_dagrun",
    "airflow.operators.latest_only_operator": f"{STANDARD}.operators.latest_only",
    "airflow.sensors.external_task_sensor": f"{STANDARD}.sensors.external_task",
}
_RENAMED = {"DummyOperator": "EmptyOperator"}
# Operators that run the source of a function in another Python, and take no other callable.
_FROM_SOURCE = tuple(f"{kind}Operator" for kind in (
    "PythonVirtualenv", "ExternalPython", "BranchPythonVirtualenv", "BranchExternalPython",
))  # fmt: skip


def as_operator(task: TaskModel, arguments: dict[str, Any], moving: Moving, path: str = "") -> Decision:
    """Return the operator itself, unchanged."""
    path = path or task.import_path
    module, _, name = path.rpartition(".")
    path = f"{_OLD.get(module, module)}.{_RENAMED.get(name, name)}"
    is_of_file = task.own_class is not None and task.own_class.module in ("", "__main__")
    if is_of_file or not path_of(path) or path[0] == ".":
        raise Hole(f"its class {task.operator} is in the DAG file: move it into a module that Airflow can import")
    rule = task.argument("trigger_rule")
    is_of_class = rule is not None and rule.inherited == OF_CLASS
    if not (is_of_class or task.teardown or task.trigger_rule in (*RUN_IF, "all_skipped")):
        raise Hole(rule_of(task))
    if positional := [name for name in arguments if name.isdigit()]:
        raise Hole(f"argument {positional[0]} of its operator has no name")
    for name in ("trigger_rule", "task_display_name", "map_index_template", "on_failure_fail_dagrun"):
        arguments.pop(name, None)
    made = Decision(task, "operator", operator=path, arguments=arguments)
    made.over = lists_of(task)
    if path.rpartition(".")[2] in _FROM_SOURCE and any(functions.functions_in(list(arguments.values()))):
        raise Hole("it reads the source of its function, which is in the DAG file: move it into a module")
    made.others = [functions.moved_over(each, moving) for each in functions.functions_in(list(arguments.values()))]
    for each in made.others:
        unbound = each.bound - functions.CONTEXT
        if each.model is arguments.get("python_callable"):
            unbound -= functions.filled_by(task, each, functions.from_operator(arguments))
        if unbound:
            raise Hole(f"its function has a default of {min(unbound)} that is only known where the DAG is made")
    shown = path.rpartition(".")[2]
    made.notes.append(
        Note(Kind.OPAQUE, named(task), task.place, f"it is {shown}, which runs on Airflow alone",
             f"To run it anywhere: {replacement(path)}.")
    )  # fmt: skip
    _fill_in_times(task, made.arguments)
    return made


def _fill_in_times(task: TaskModel, arguments: dict[str, Any]) -> None:
    """Fill in a task's values: from the DAG's defaults, or the file's defaults for values that only Airflow knows."""
    for name in ("retries", "retry_delay", "execution_timeout"):
        argument = arguments.get(name)
        if isinstance(argument, Symbolic) and argument.derived and argument.has_default:
            del arguments[name]  # the report says that this is the file's default
        value = getattr(task, name)
        if name not in arguments and (name == "retries" or is_time(value)) and _is_said(task, name):
            arguments[name] = value if name == "retries" else timedelta(seconds=value)


def _is_said(task: TaskModel, name: str) -> bool:
    argument = task.argument(name)
    return (argument is None or argument.inherited != OF_CLASS) and bool(
        getattr(task, name) != {"retries": 0, "retry_delay": 300.0, "execution_timeout": None}[name]
    )
