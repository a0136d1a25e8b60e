"""Commands of Bash: as a step of ``flowyml.steps.bash``, and the options of a function that returns a command."""

from __future__ import annotations

import re
from typing import Any

from flowyml.migration.airflow.model import DagModel, TaskModel
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.context import Asking, Template, is_template, notes_of_intervals
from flowyml.migration.airflow.writer.deciding.decision import Decision, Function, edges_in, named
from flowyml.migration.airflow.writer.deciding.functions import call_arguments
from flowyml.migration.airflow.writer.deciding.options import CALLBACKS, OF_BASH, defaults_of, fits
from flowyml.migration.airflow.writer.deciding.step_options import OPTIONS, OURS, held_by
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import is_plain

# Airflow counts a task as skipped for this exit code; a shell keeps eight bits of a code.
_SKIPS = 99
_NUMBER = re.compile(r"(?<![\w.])(?:0[xX][0-9a-fA-F]+|\d+)(?![\w.])")
_GIVEN_CODE = re.compile(r"\bexit\b[\s\"'(]*\{")


def step_of_command(dag: DagModel, task: TaskModel, moving: Moving) -> Decision:
    """Return `flowyml.steps.bash` for a command whose templates are known. Raises ``Unclear`` for any other."""
    command, kept = _of_bash(dag, task)
    asking = Asking(dag, task, moving.names)
    arguments = asking.rendered({"command": command, **kept})
    note = Note(Kind.KEPT, named(task), task.place, "it is flowyml.steps.bash")
    if all(map(is_plain, arguments.values())):
        return Decision(task, "bash", arguments=arguments, notes=[note])
    made = Decision(task, "call", arguments=arguments, notes=[note, *notes_of_intervals(asking)], asking=asking)
    said = arguments["command"]
    made.may_be_missing = any(made.whole) and (task.trigger_rule != "all_success" or task.teardown)
    if any(edges_in([said])) or (
        isinstance(said, Template)
        and any(each in asking.parameters for part in said.parts if isinstance(part, tuple) for each in part)
    ):
        made.notes.append(
            Note(Kind.CHANGED, f"bash_command of {task.task_id}", task.place, "the command contains a value of the "
                 "run, as in the DAG, and a shell interprets it", "Give it in env, and write \"$NAME\" in the command.")
        )  # fmt: skip
    return made


def _of_bash(dag: DagModel, task: TaskModel) -> tuple[str, dict[str, Any]]:
    """Return a command that Bash runs as it does for Airflow, and its options. Raises ``Unclear``."""
    arguments = _defaults(dag, task) | {each.name: each.value for each in task.arguments}
    command = arguments.get("bash_command")
    known = {"bash_command", "default_args", *OF_BASH, *OURS, *CALLBACKS}
    known |= {name for name in OPTIONS if fits(name, arguments.get(name))}
    if task.mapped:
        raise Unclear("it is mapped")
    if not isinstance(command, str):
        raise Unclear("only Airflow knows its command")
    if held := held_by(task) or sorted(set(arguments) - known):
        raise Unclear(f"it has {held[0]}")
    if command.rstrip().endswith((".sh", ".bash")):
        raise Unclear("its command is a file, which Airflow renders")
    if may_skip([command, arguments.get("env")]):
        raise Unclear(f"its command may end with {_SKIPS}, by which Airflow skips")
    kept = {name: arguments[name] for name in ("env", "cwd") if arguments.get(name) is not None}
    if "env" in kept and arguments.get("append_env") is not True:
        raise Unclear("its env takes the place of the whole environment, without append_env=True")
    if unknown := [name for name, value in kept.items() if not is_plain(value)]:
        raise Unclear(f"only Airflow knows its {unknown[0]}")
    return command, kept


def _defaults(dag: DagModel, task: TaskModel) -> dict[str, Any]:
    """Return the default arguments of a task for Bash."""
    return {name: each.value for name, each in defaults_of(dag, task).items() if name in OF_BASH}


def options_of_command(asking: Asking, moved: Function) -> dict[str, Any]:
    """Return the options of Bash for a function that returns a command without templates. Raises ``Unclear``."""
    dag, task = asking.dag, asking.task
    arguments = _defaults(dag, task) | {each.name: each.value for each in task.arguments if each.name not in OURS}
    arguments.pop("default_args", None)
    text = moved.home.code(moved.node)
    if is_template(text) or may_skip([text, arguments, call_arguments(dag, task)]) or set(arguments) - {*OF_BASH}:
        raise Unclear("it is @task.bash, whose command has templates, skips or has more options")
    if (arguments.get("env") is not None and arguments.get("append_env") is not True) or task.mapped:
        raise Unclear("it is @task.bash with its own environment, or for each item")
    kept = {name: arguments[name] for name in ("env", "cwd") if arguments.get(name) is not None}
    if not is_plain(kept):
        raise Unclear("it is @task.bash, whose options are not plain JSON")
    rendered: dict[str, Any] = asking.rendered(kept)
    return rendered


def may_skip(value: Any) -> bool:
    """Return whether a command contains the exit code by which Airflow skips, in any notation, or a variable one."""
    if isinstance(value, str):
        if _GIVEN_CODE.search(value):
            return True
        found = _NUMBER.findall(value)
        octal = [int(each, 8) for each in found if each[0] == "0" and each.isdigit() and not set(each) & {"8", "9"}]
        whole = [int(each, 16 if each[:2].lower() == "0x" else 10) for each in found if len(each) < 20]
        return any(each % 256 == _SKIPS for each in (*octal, *whole))
    if isinstance(value, int):
        return value % 256 == _SKIPS
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(map(may_skip, value))
