"""What each task of a DAG becomes: a step of its function, a ready-made step, an operator as it stands, or a hole."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import product
from typing import Any

import libcst as cst

from flowyml.migration.airflow.model import Argument, DagModel, FunctionModel, TaskModel, ValueEdge
from flowyml.migration.airflow.writer.deciding.choices import Choice, Unclear, choice_of
from flowyml.migration.airflow.writer.deciding.context import Asked, Asking, Template, is_template, uses_as_datetime
from flowyml.migration.airflow.writer.deciding.dates import Dated, dated
from flowyml.migration.airflow.writer.deciding.options import (
    CALLBACKS,
    callback_of,
    default_arguments,
    fits,
    inherited,
    unfit,
)
from flowyml.migration.airflow.writer.moving import Moving, Needed, without_defaults
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import is_plain, path_of
from flowyml.orchestrators.replacements import replacement
from flowyml.plan.model import RUN_IF

__all__ = ["Decision", "Function", "decide"]

# Airflow's own arguments of a function, in all versions; source: airflow.sdk.definitions.context.Context, and
# airflow.utils.context.KNOWN_CONTEXT_KEYS of Airflow 2.
_CONTEXT = frozenset({
    "asset_state_store", "conf", "conn", "context", "dag", "dag_run", "data_interval_end", "data_interval_start", "ds",
    "ds_nodash", "exception", "execution_date", "expanded_ti_count", "inlet_events", "inlets", "logical_date",
    "macros", "map_index_template", "next_ds", "next_ds_nodash", "next_execution_date", "outlet_events", "outlets",
    "params", "partition_date", "partition_key", "prev_data_interval_end_success", "prev_data_interval_start_success",
    "prev_ds", "prev_ds_nodash", "prev_end_date_success", "prev_execution_date", "prev_execution_date_success",
    "prev_start_date_success", "reason", "run_id", "start_date", "task", "task_instance", "task_instance_key_str",
    "task_reschedule_count", "task_state_store", "templates_dict", "test_mode", "ti", "tomorrow_ds",
    "tomorrow_ds_nodash", "triggering_asset_events", "triggering_dataset_events", "try_number", "ts", "ts_nodash",
    "ts_nodash_with_tz", "var", "yesterday_ds", "yesterday_ds_nodash",
})  # fmt: skip
_STANDARD = "airflow.providers.standard"
_PYTHONS = ("PythonOperator", "BranchPythonOperator", "ShortCircuitOperator", "PythonSensor")
_CLASSES = {
    "@task": f"{_STANDARD}.operators.python.PythonOperator",
    "@task.branch": f"{_STANDARD}.operators.python.BranchPythonOperator",
    "@task.short_circuit": f"{_STANDARD}.operators.python.ShortCircuitOperator",
    "@task.sensor": f"{_STANDARD}.sensors.python.PythonSensor",
}
# Where Airflow 1 had what Airflow 2 and 3 have elsewhere.
_OLD = {
    "airflow.operators.bash_operator": f"{_STANDARD}.operators.bash",
    "airflow.operators.dummy_operator": f"{_STANDARD}.operators.empty",
    "airflow.operators.python_operator": f"{_STANDARD}.operators.python",
    "airflow.operators.dagrun_operator": f"{_STANDARD}.operators.trigger_dagrun",
    "airflow.operators.latest_only_operator": f"{_STANDARD}.operators.latest_only",
    "airflow.sensors.external_task_sensor": f"{_STANDARD}.sensors.external_task",
}
_BRANCHES = ("@task.branch", "BranchPythonOperator")
_SHORT_CIRCUITS = ("@task.short_circuit", "ShortCircuitOperator")
_ALL_SKIPPED = "ignore_downstream_trigger_rules"
# With this code Airflow takes a task as skipped; a shell keeps eight bits of one.
_SKIPS = 99
_NUMBER = re.compile(r"(?<![\w.])(?:0[xX][0-9a-fA-F]+|\d+)(?![\w.])")
_GIVEN_CODE = re.compile(r"\bexit\b[\s\"'(]*\{")
# These run the source of a function in another Python, and take no other callable.
_FROM_SOURCE = tuple(f"{kind}Operator" for kind in (
    "PythonVirtualenv", "ExternalPython", "BranchPythonVirtualenv", "BranchExternalPython",
))  # fmt: skip
# In seconds; Airflow waits no longer. Source: airflow.models.taskinstance.
_LONGEST = 24 * 60 * 60
_EMPTY = ("EmptyOperator", "DummyOperator")
# What FlowyML says in its own words, or not at all.
_OURS = frozenset({"task_id", "trigger_rule", "python_callable", "op_args", "op_kwargs", "multiple_outputs",
                   "retries", "retry_delay", "execution_timeout", "retry_exponential_backoff",
                   "max_retry_delay", "provide_context", "show_return_value_in_logs",
                   "doc_md", "doc", "on_failure_fail_dagrun", "task_display_name"})  # fmt: skip
# Options of a step under `airflow={…}`; source: flowyml_airflow.options.
_OPTIONS = ("owner", "pool", "pool_slots", "queue", "priority_weight", "weight_rule", "executor", "depends_on_past",
            "max_active_tis_per_dag", "run_as_user")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the file that moves over. ``bound`` are arguments that each call has to give for a default."""

    model: FunctionModel
    node: cst.FunctionDef
    original: cst.FunctionDef
    needed: Needed
    bound: frozenset[str] = frozenset()


@dataclass(slots=True)
class Decision:
    """A task of one DAG. ``kind`` is ``function``, ``call``, ``empty``, ``bash``, ``operator`` or ``hole``.

    ``arguments`` are those of the operator, or of the call: by place, or by name. ``over`` are the lists of a mapped
    one. ``choice`` is what it decides about those after it, where branches say so.

    A ``call`` is a step that calls the function, or ``bash`` without one, with what ``asking`` says beside values of
    other tasks; they ``may_be_missing``. With ``through_bash``, which has Bash's own arguments, the function gives a
    command. ``others`` are functions among an operator's arguments.
    """

    task: TaskModel
    kind: str
    function: Function | None = None
    operator: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    over: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    choice: Choice | None = None
    asking: Asking | None = None
    may_be_missing: bool = False
    through_bash: dict[str, Any] | None = None
    others: list[Function] = field(default_factory=list)

    @property
    def edges(self) -> Iterator[ValueEdge]:
        """The values of other tasks that its call takes."""
        if self.kind in ("function", "call"):
            yield from _edges([*self.arguments.values(), *self.over.values()])
        elif self.kind == "operator":
            yield from _edges(list(self.over.values()))

    @property
    def whole(self) -> Iterator[ValueEdge]:
        """Those that each of its calls takes as they are."""
        yield from _edges(self.arguments.values())


class _Hole(Exception):
    """Why a task cannot be written."""


def decide(dag: DagModel, task: TaskModel, moving: Moving, held: Mapping[str, str]) -> Decision:
    """What a task becomes, with the notes that say so.

    ``held`` says of which tasks the choice cannot be written as branches, and why.
    """
    try:
        made = _decided(dag, task, moving, held)
    except _Hole as error:
        made = Decision(task, "hole")
        made.notes.append(
            Note(Kind.REFUSED, _named(task), task.place, str(error), "Write what it does into the step of its name.")
        )
    made.options |= _options(dag, task)
    if made.kind == "operator" and (defaults := default_arguments(dag, task)):
        made.arguments["default_args"] = dict(defaults)
    made.notes += _dropped(dag, task, made)
    return made


def _decided(dag: DagModel, task: TaskModel, moving: Moving, held: Mapping[str, str]) -> Decision:
    if not task.id_known:
        raise _Hole("its id is only known when Airflow reads the file")
    if task.in_mapped_group:
        raise _Hole("it stands in a mapped task group")
    conditions = [each.name for each in task.arguments if each.name in ("run_if", "skip_if")]
    if task.decorator and conditions:
        raise _Hole(f"@task.{conditions[0]} says when it runs whether it is skipped: write when(…) around it")
    has_known_rule = task.trigger_rule in RUN_IF or task.teardown
    if task.operator in _EMPTY and has_known_rule and not task.mapped and not _others(task) and not _called_back(task):
        note = Note(Kind.KEPT, _named(task), task.place)
        return Decision(task, "empty", notes=[note])
    if task.decorator in (*_CLASSES, "@task.bash") or (task.decorator is None and task.operator in _PYTHONS):
        return _of_python(dag, task, moving, held)
    if task.decorator is not None:
        raise _Hole(f"{task.decorator} has no step yet")
    if task.operator == "BashOperator" and has_known_rule and (made := _of_bash(dag, task, moving)):
        return made
    return _of_operator(task, {each.name: each.value for each in task.arguments if each.name != "task_id"}, moving)


def _of_bash(dag: DagModel, task: TaskModel, moving: Moving) -> Decision | None:
    """`flowyml.steps.bash` for a command whose templates are known; None for any other."""
    given = {each.name: each.value for each in task.arguments}
    command = given.get("bash_command")
    known = {"bash_command", "env", "cwd", "append_env", *_OURS, *CALLBACKS}
    known |= {name for name in _OPTIONS if fits(name, given.get(name))}
    if task.mapped or not isinstance(command, str) or set(given) - known or _held(task):
        return None
    if command.rstrip().endswith((".sh", ".bash")) or _may_skip([command, given.get("env")]):
        return None
    kept = {name: given[name] for name in ("env", "cwd") if given.get(name) is not None}
    if ("env" in kept and given.get("append_env") is not True) or not all(map(is_plain, kept.values())):
        return None
    asking = Asking(dag, task, moving.names)
    try:
        arguments = asking.rendered({"command": command, **kept})
    except Unclear:
        return None
    note = Note(Kind.KEPT, _named(task), task.place, "it is flowyml.steps.bash")
    if all(map(is_plain, arguments.values())):
        return Decision(task, "bash", arguments=arguments, notes=[note])
    made = Decision(task, "call", arguments=arguments, notes=[note, *_of_dates(asking)], asking=asking)
    said = arguments["command"]
    if isinstance(said, Template) and any(
        part[0] in asking.parameters for part in said.parts if isinstance(part, tuple)
    ):
        made.notes.append(
            Note(Kind.CHANGED, f"bash_command of {task.task_id}", task.place, "a parameter stands in a command, as in "
                 "the DAG: a shell reads it", "Give it in env, and write \"$NAME\" in the command.")
        )  # fmt: skip
    return made


def _of_operator(task: TaskModel, arguments: dict[str, Any], moving: Moving, path: str = "") -> Decision:
    """The operator itself, as it stands."""
    path = path or task.import_path
    module, _, name = path.rpartition(".")
    path = f"{_OLD.get(module, module)}.{name}"
    is_of_file = task.own_class is not None and task.own_class.module in ("", "__main__")
    if is_of_file or not path_of(path) or path[0] == ".":
        raise _Hole(f"its class {task.operator} stands in the DAG file: move it into a module that Airflow can import")
    if positional := [name for name in arguments if name.isdigit()]:
        raise _Hole(f"argument {positional[0]} of its operator has no name")
    for name in ("trigger_rule", "task_display_name", "map_index_template", "on_failure_fail_dagrun"):
        arguments.pop(name, None)
    made = Decision(task, "operator", operator=path, arguments=arguments)
    made.over = _over(task)
    if path.rpartition(".")[2] in _FROM_SOURCE and any(_functions_in(list(arguments.values()))):
        raise _Hole("it reads the source of its function, which stands in the DAG file: move it into a module")
    made.others = [_moved(each, moving) for each in _functions_in(list(arguments.values()))]
    for each in made.others:
        left = each.bound - _CONTEXT
        if each.model is arguments.get("python_callable"):
            left -= _filled(task, each, _from_arguments(arguments))
        if left:
            raise _Hole(f"its function has a default of {min(left)} that is only known where the DAG is made")
    shown = path.rpartition(".")[2]
    made.notes.append(
        Note(Kind.OPAQUE, _named(task), task.place, f"it is {shown}, which runs on Airflow alone",
             f"To run it anywhere: {replacement(path)}.")
    )  # fmt: skip
    for name in ("retries", "retry_delay", "execution_timeout"):
        value = getattr(task, name)
        if name not in arguments and (name == "retries" or _is_time(value)) and _is_said(task, name):
            made.arguments[name] = value if name == "retries" else timedelta(seconds=value)
    return made


def _functions_in(values: Iterable[Any]) -> Iterator[FunctionModel]:
    """Functions of the DAG file among an operator's arguments."""
    for value in values:
        if isinstance(value, FunctionModel) and value.module in ("", "__main__"):
            yield value
        elif isinstance(value, list | tuple | set):
            yield from _functions_in(value)
        elif isinstance(value, dict):
            yield from _functions_in(value.values())


def _is_said(task: TaskModel, name: str) -> bool:
    return bool(getattr(task, name) != {"retries": 0, "retry_delay": 300.0, "execution_timeout": None}[name])


def _of_python(dag: DagModel, task: TaskModel, moving: Moving, held: Mapping[str, str]) -> Decision:
    function = task.function
    if function is None:
        raise _Hole("its function was not found")
    if function.module not in ("", "__main__"):
        return _of_other_module(task, function, moving)
    moved = _moved(function, moving)
    given = _with_bound(task, moved, _call(task))
    try:
        made = _step_of(Asking(dag, task, moving.names), moved, moving, given)
        made.choice = _choice(task, moved, moving, given, held)
    except Unclear as error:
        if task.decorator == "@task.bash":
            raise _Hole(str(error)) from error
        return _with_its_function(task, moved, moving, given, str(error))
    only = moved.needed.airflow
    to_do = "Take its values as arguments or secrets to run it anywhere." if only else ""
    made.notes.insert(0, Note(Kind.KEPT, _named(task), task.place, only, to_do, airflow_only=bool(only)))
    return made


def _step_of(asking: Asking, moved: Function, moving: Moving, given: dict[str, Any]) -> Decision:
    """The function as a step, or a step that calls it. Raises ``Unclear``."""
    task = asking.task
    kind = task.decorator or task.operator
    if kind not in ("@task", "@task.bash", "PythonOperator", *_BRANCHES, *_SHORT_CIRCUITS):
        raise Unclear(f"it is {kind}")
    through_bash = _bash_of(asking, moved, moving) if kind == "@task.bash" else None
    arguments = {**asking.rendered(given), **_of_context(asking, moved, moving, given)}
    may_be_missing = _check_rules(task, arguments)
    over = _over(task)
    if is_template(list(over.values())):
        raise Unclear("it is mapped over templates")
    if names := over.keys() & {*asking.dates, *asking.parameters, moved.node.name.value}:
        raise Unclear(f"it is mapped over {min(names)}, which has another meaning too")
    calls = may_be_missing or through_bash is not None or not all(map(_may_be_passed, arguments.values()))
    made = Decision(task, "call" if calls else "function", function=moved, arguments=arguments, over=over)
    made.asking, made.may_be_missing = asking if calls else None, may_be_missing
    made.through_bash = through_bash
    made.notes += _of_dates(asking)
    return made


def _bash_of(asking: Asking, moved: Function, moving: Moving) -> dict[str, Any]:
    """What Bash itself is given for a function that makes a command, without templates. Raises ``Unclear``."""
    given = {each.name: each.value for each in asking.task.arguments if each.name not in _OURS}
    text = moving.code(moved.node)
    if is_template(text) or _may_skip([text, given, _call(asking.task)]) or set(given) - {"env", "cwd", "append_env"}:
        raise Unclear("it is @task.bash, whose command has templates, skips or has more options")
    if (given.get("env") is not None and given.get("append_env") is not True) or asking.task.mapped:
        raise Unclear("it is @task.bash with an environment of its own, or for each item")
    kept = {name: given[name] for name in ("env", "cwd") if given.get(name) is not None}
    if not is_plain(kept):
        raise Unclear("it is @task.bash, whose options are not plain JSON")
    rendered: dict[str, Any] = asking.rendered(kept)
    return rendered


def _may_skip(given: Any) -> bool:
    """Whether a command has the code by which Airflow skips, in whatever spelling, or is given its code."""
    if isinstance(given, str):
        if _GIVEN_CODE.search(given):
            return True
        found = _NUMBER.findall(given)
        octal = [int(each, 8) for each in found if each[0] == "0" and each.isdigit() and not set(each) & {"8", "9"}]
        whole = [int(each, 16 if each[:2].lower() == "0x" else 10) for each in found if len(each) < 20]
        return any(each % 256 == _SKIPS for each in (*octal, *whole))
    if isinstance(given, int):
        return given % 256 == _SKIPS
    if isinstance(given, dict):
        given = list(given.values())
    return isinstance(given, list | tuple) and any(map(_may_skip, given))


def _of_dates(asking: Asking) -> Iterator[Note]:
    """What a run has otherwise."""
    task = asking.task
    as_airflow = dated(asking.dag) is Dated.START
    for name in asking.dates:
        if name.startswith("data_interval") and asking.default(name) != "LOGICAL_DATE":
            yield Note(
                Kind.CHANGED, f"{name} of {task.task_id}", task.place,
                "a run by hand has no interval" if as_airflow else
                "its interval goes from the time before on the schedule to this one, where Airflow 3 has one moment "
                "as both for cron; a run by hand has none",
                "Give it to a run by hand as a parameter.",
            )  # fmt: skip


def _moved(function: FunctionModel, moving: Moving) -> Function:
    node = moving.find(function)
    if node is None:
        raise _Hole("its function is one of several lambdas on a line: write it with def")
    if function.closure:
        raise _Hole(f"its function uses {', '.join(function.closure)} of the function around it")
    bare = moving.without_airflows_decorators(node)
    if bare.decorators and function.around:
        raise _Hole(f"its decorators or defaults use {', '.join(function.around)} of the function around it")
    bound = moving.bound_here(function, bare)
    bare = without_defaults(bare, bound)
    needed = moving.needed(bare, function.name)
    if needed.problem:
        raise _Hole(needed.problem)
    if function.nested and function.name in needed.looked:
        raise _Hole(f"it uses {function.name} of the function around it")
    return Function(function, bare, node, needed, bound)


def _with_bound(task: TaskModel, moved: Function, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a function is called with, and its defaults that only hold where the DAG is made."""
    found = dict(given)
    for name, value in moved.model.defaults:
        if name in moved.bound and name not in _CONTEXT and name not in _filled(task, moved, given):
            if is_template([value]):
                raise _Hole(f"its default of {name} has a template, which Airflow does not render")
            found[name] = value
    return found


def _filled(task: TaskModel, moved: Function, given: Mapping[str, Any]) -> set[str]:
    spec = moved.node.params
    names = [each.name.value for each in (*spec.posonly_params, *spec.params)]
    return {*names[: sum(name.isdigit() for name in given)], *given, *_mapped_names(task)}


def _with_its_function(task: TaskModel, moved: Function, moving: Moving, given: dict[str, Any], why: str) -> Decision:
    """The operator of a function that Airflow has to call."""
    if task.mapped:
        raise _Hole(f"it is mapped, and {why}")
    arguments: dict[str, Any] = {"python_callable": moved.model}
    arguments |= {each.name: each.value for each in task.arguments if each.name not in {*_OURS, "0"}}
    arguments |= _function_arguments(given)
    if _returns_parts(task, moved.original):
        arguments["multiple_outputs"] = True
    made = _of_operator(task, arguments, moving, _CLASSES.get(task.decorator or "", ""))
    made.function = moved
    made.notes[0] = Note(
        Kind.OPAQUE, _named(task), task.place, f"{why}, so it stays an operator with its function",
        "Take what it asks Airflow for as arguments to run it anywhere.",
    )  # fmt: skip
    return made


def _function_arguments(given: dict[str, Any]) -> dict[str, Any]:
    positional = [value for name, value in given.items() if name.isdigit()]
    named = {name: value for name, value in given.items() if not name.isdigit()}
    return {**({"op_args": positional} if positional else {}), **({"op_kwargs": named} if named else {})}


def _of_other_module(task: TaskModel, function: FunctionModel, moving: Moving) -> Decision:
    """A function that another module of the repository has: Airflow imports it from there, as the DAG file did."""
    path = f"{function.module}.{function.name}"
    if task.mapped:
        raise _Hole(f"its function stands in {function.module}, and it is mapped")
    if not path_of(path):
        raise _Hole(f"its function {path!r:.80} is not an import path")
    given = _call(task)
    arguments: dict[str, Any] = {"python_callable": function}
    arguments |= _function_arguments(given)
    arguments |= {each.name: each.value for each in task.arguments if each.name not in {*_OURS, "0"}}
    made = _of_operator(task, arguments, moving, _CLASSES.get(task.decorator or "", ""))
    made.notes[0] = Note(
        Kind.OPAQUE, _named(task), task.place, f"its function stands in the module {function.module}",
        "Import it into the pipeline, and put @step on it, to run it anywhere.",
    )  # fmt: skip
    return made


def _call(task: TaskModel) -> dict[str, Any]:
    """What the function is called with: by place, or by name."""
    if task.decorator is not None:
        return {each.name: each.value for each in task.call_arguments}
    return _from_arguments({each.name: each.value for each in task.arguments})


def _from_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same of an operator's arguments."""
    positional, named = arguments.get("op_args") or [], arguments.get("op_kwargs") or {}
    if not isinstance(positional, list | tuple) or not isinstance(named, dict):
        raise _Hole("the arguments of its function are only known when Airflow reads the file")
    return {**{str(number): value for number, value in enumerate(positional)}, **named}


def _choice(
    task: TaskModel, moved: Function, moving: Moving, given: dict[str, Any], held: Mapping[str, str]
) -> Choice | None:
    """What a task decides about those after it; None for any other. Raises ``Unclear``."""
    kind = task.decorator or task.operator
    if kind not in (*_BRANCHES, *_SHORT_CIRCUITS):
        return None
    if task.task_id in held:
        raise Unclear(held[task.task_id])
    if task.mapped:
        raise Unclear("it chooses for each item")
    if kind in _SHORT_CIRCUITS:
        said = task.argument(_ALL_SKIPPED)
        if said is not None and not isinstance(said.value, bool):
            raise Unclear(f"only Airflow knows its {_ALL_SKIPPED}")
        return Choice(whole=said is None or said.value is True)
    if moved.node.decorators:
        raise Unclear("its decorator may change what it returns")
    return choice_of(_tree(moved, moving), given, moving.constant)


def _tree(moved: Function, moving: Moving) -> ast.FunctionDef | ast.AsyncFunctionDef:
    bare = moved.node.with_changes(decorators=[], leading_lines=[])
    tree = ast.parse(moving.code(bare)).body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    return tree


def _of_context(asking: Asking, moved: Function, moving: Moving, given: dict[str, Any]) -> dict[str, Any]:
    """What a function gets of Airflow's context, by its arguments' names. Raises ``Unclear``."""
    tree = _tree(moved, moving)
    spec = tree.args
    names = [each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    filled = {*names[: sum(name.isdigit() for name in given)], *given, *_mapped_names(asking.task)}
    used = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    if "get_current_context" in used:
        raise Unclear("it asks for Airflow's context")
    if spec.vararg and "0" in given:
        raise Unclear(f"it takes *{spec.vararg.arg}")
    found: dict[str, Any] = {}
    for name in names:
        if name in _CONTEXT and name not in filled:
            found[name] = _by_name(asking, name, tree, partial(_is_name, name=name))
    rest = spec.kwarg.arg if spec.kwarg else ""
    if rest not in used:
        return found
    for key in sorted(_keys_of(tree, rest) - filled):
        found[key] = _by_name(asking, key, tree, partial(_is_key, rest=rest, key=key))
    return found


def _by_name(asking: Asking, name: str, tree: ast.AST, is_it: Callable[[ast.AST], bool]) -> Asked:
    is_moment = name in ("logical_date", "execution_date", "data_interval_start", "data_interval_end")
    if is_moment and not uses_as_datetime(tree, is_it):
        raise Unclear(f"it takes {name} of Airflow, which is more than a datetime")
    return asking.by_name(name)


def _keys_of(tree: ast.AST, rest: str) -> set[str]:
    """The keys of ``**rest`` that a function looks up. Raises ``Unclear`` where it does anything else with it."""
    found = {key for node in ast.walk(tree) if (key := _key_of(node, rest))}
    lookups = sum(bool(_key_of(node, rest)) for node in ast.walk(tree))
    if lookups != sum(_is_name(node, rest) for node in ast.walk(tree)):
        raise Unclear(f"it takes Airflow's context as **{rest}")
    return found


def _key_of(node: ast.AST, rest: str) -> str:
    match node:
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key), ctx=ast.Load()):
            return key if name == rest else ""
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"), args=[ast.Constant(value=str() as key)]):
            return key if name == rest else ""
    return ""


def _is_key(node: ast.AST, rest: str, key: str) -> bool:
    return _key_of(node, rest) == key


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _check_rules(task: TaskModel, given: dict[str, Any]) -> bool:
    """Whether what a task takes may be missing. Raises ``Unclear`` for what it asks for and no step has."""
    rule = task.trigger_rule
    if rule not in RUN_IF and not task.teardown:
        raise Unclear(f"it has the trigger rule {rule!r:.40}")
    if wrong := [name for name, value in given.items() if not _may_be_given(value)]:
        raise Unclear(f"it is given {wrong[0]}, which is not plain JSON")
    if held := _held(task):
        raise Unclear(f"it has {held[0]}")
    taken = list(_edges(list(given.values())))
    if rule == "all_success" and not task.teardown:
        return False
    if task.mapped or any(edge.key != "return_value" for edge in taken):
        raise Unclear("it takes values, and runs where they may be missing")
    return bool(taken)


def _held(task: TaskModel) -> list[str]:
    return [each.name for each in task.arguments if each.value and _holds(each)]


def _holds(given: Argument) -> bool:
    """Whether Airflow has to run a task for an argument of it."""
    if given.name.endswith("_callback"):
        return given.name not in CALLBACKS or callback_of(given.value) is None
    return given.name in ("inlets", "outlets")


def _mapped_names(task: TaskModel) -> list[str]:
    return [each.name for each in task.mapping.arguments] if task.mapping else []


def _over(task: TaskModel) -> dict[str, Any]:
    """The lists that a mapped task goes over, by argument, equally long."""
    if task.mapping is None:
        return {}
    given = {each.name: each.value for each in task.mapping.arguments}
    if task.mapping.kind != "expand":
        return _rows(given)
    if any(isinstance(value, dict) for value in given.values()):
        raise _Hole("it is mapped over a dict")
    if len(given) == 1:
        return _one_list(*next(iter(given.items())))
    lists = [list(value) if isinstance(value, list | tuple) else None for value in given.values()]
    if any(value is None or not is_plain(value) for value in lists):
        raise _Hole("it is mapped over several lists, not all of them constant")
    rows = list(product(*(value or [] for value in lists)))
    return {name: [row[number] for row in rows] for number, name in enumerate(given)}


def _rows(given: dict[str, Any]) -> dict[str, Any]:
    """The lists of what ``expand_kwargs`` is given: each argument's values, row by row."""
    rows = next(iter(given.values())) if len(given) == 1 else None
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, dict) for row in rows):
        raise _Hole("it is mapped by expand_kwargs over what is only known when it runs")
    if len({tuple(sorted(row)) for row in rows}) > 1 or not is_plain(list(rows)):
        raise _Hole("it is mapped by expand_kwargs over items of different kinds")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _one_list(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, ValueEdge) and not value.path and value.key == "return_value":
        return {name: value}
    if isinstance(value, list | tuple) and is_plain(list(value)):
        return {name: list(value)}
    raise _Hole(f"it is mapped over {name}, which is neither a list nor what one task returned")


def _may_be_given(value: Any) -> bool:
    """Whether a step can be called with a value, or call its function with it."""
    match value:
        case ValueEdge():
            return not value.path
        case Template() | Asked():
            return True
        case list():
            return all(map(_may_be_given, value))
        case dict():
            return all(isinstance(key, str) for key in value) and all(map(_may_be_given, value.values()))
    return is_plain(value)


def _may_be_passed(value: Any) -> bool:
    """Whether the pipeline itself can call a step with a value."""
    if isinstance(value, list) and any(isinstance(each, ValueEdge) for each in value):
        return all(_may_be_passed(each) for each in value)
    return isinstance(value, ValueEdge) or is_plain(value)


def _returns_parts(task: TaskModel, node: cst.FunctionDef) -> bool:
    """Whether each key of the dict that it returns is an XCom of its own, as TaskFlow does by annotation."""
    if (given := task.argument("multiple_outputs")) is not None:
        return given.value is True
    if task.decorator is None or node.returns is None:
        return False
    text = cst.Module([]).code_for_node(node.returns.annotation)
    return text.partition("[")[0].rpartition(".")[2] in ("dict", "Dict", "Mapping")


def _options(dag: DagModel, task: TaskModel) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(task.retries, int) and task.retries > 0:
        found["retries"] = task.retries
        found["retry_delay"] = task.retry_delay if _is_time(task.retry_delay) else 300.0
        if (growth := inherited(dag, task, "retry_exponential_backoff")) and _may_grow_by(growth):
            most = inherited(dag, task, "max_retry_delay")
            most = most.total_seconds() if isinstance(most, timedelta) else most
            found["backoff"] = 2.0 if growth is True else float(growth)
            is_known = isinstance(most, int | float) and 0 <= most <= timedelta.max.total_seconds()
            found["max_delay"] = float(most) if is_known else float(_LONGEST)
    if _is_time(task.execution_timeout) and task.execution_timeout > 0:
        found["timeout"] = task.execution_timeout
    if task.trigger_rule in RUN_IF and task.trigger_rule != "all_success":
        found["run_if"] = task.trigger_rule
    elif task.teardown:
        found["run_if"] = "all_done"
    elif isinstance(task.trigger_rule, str) and task.trigger_rule != "all_success":
        found["trigger_rule"] = task.trigger_rule
    engine = {each.name: each.value for each in task.arguments if each.name in _OPTIONS and fits(each.name, each.value)}
    for name in CALLBACKS:
        if (callback := callback_of(inherited(dag, task, name))) is not None:
            engine[name] = callback
    if engine:
        found["airflow"] = engine
    return found


def _is_time(seconds: Any) -> bool:
    """Whether a number of seconds is a time that a step can wait."""
    return isinstance(seconds, float) and 0 <= seconds <= timedelta.max.total_seconds()


def _may_grow_by(growth: Any) -> bool:
    return isinstance(growth, int | float) and 1 <= growth <= _LONGEST


def _dropped(dag: DagModel, task: TaskModel, made: Decision) -> Iterator[Note]:
    """What of a task is not in its step."""
    if task.setup or task.teardown:
        word = "teardown" if task.teardown else "setup"
        yield Note(
            Kind.CHANGED, f"{word} of {task.task_id}", task.place, "it runs by the ends of the tasks before it",
            "with cleanup(): runs a step when all others have ended.",
        )  # fmt: skip
    unknown = "only Airflow knows it when it reads the file"
    for name in ("retries", "retry_delay", "execution_timeout"):
        value = getattr(task, name)
        if value is not None and not isinstance(value, int | float):
            yield Note(Kind.CHANGED, f"{name} of {task.task_id}", task.place, unknown, "Say it in the pipeline.")
        elif name != "retries" and value is not None and not _is_time(value):
            yield Note(
                Kind.CHANGED,
                f"{name} of {task.task_id}",
                task.place,
                "it is not 0 seconds or more",
                "Say it in the pipeline.",
            )
    if made.kind in ("operator", "hole"):
        return
    growth = inherited(dag, task, "retry_exponential_backoff")
    if growth and not _may_grow_by(growth):
        is_known = isinstance(growth, int | float)
        yield Note(
            Kind.CHANGED, f"retry_exponential_backoff of {task.task_id}", task.place,
            "no retry can wait as much longer as it says" if is_known else unknown, "Say retry= of the step.",
        )  # fmt: skip
    most = inherited(dag, task, "max_retry_delay")
    if growth and most is not None and not isinstance(most, int | float | timedelta):
        yield Note(Kind.CHANGED, f"max_retry_delay of {task.task_id}", task.place, unknown, "Say retry= of the step.")
    if made.kind == "empty" and "airflow" in made.options:
        yield Note(
            Kind.CHANGED, f"{', '.join(made.options['airflow'])} of {task.task_id}", task.place,
            "a step that does nothing has no options", "Leave it out.",
        )  # fmt: skip
    for each in _others(task):
        why = unfit(each.value) if each.name in _OPTIONS else "a step has no such option"
        yield Note(
            Kind.CHANGED, f"{each.name} of {task.task_id}", each.place, why,
            "Leave it out, or keep the operator with airflow_operator(…).",
        )  # fmt: skip


def _called_back(task: TaskModel) -> bool:
    """Whether Airflow calls something when the task ends, by the task's own arguments."""
    return any(each.name in CALLBACKS and each.value for each in task.arguments)


def _others(task: TaskModel) -> Sequence[Argument]:
    """Arguments of an operator that a step has no words for."""
    known = {*_OURS, "bash_command", "env", "cwd", "append_env", _ALL_SKIPPED}
    found = [each for each in task.arguments if each.name not in known and not each.name.isdigit()]
    found = [
        each for each in found if each.name not in _OPTIONS or not (each.value is None or fits(each.name, each.value))
    ]
    return [each for each in found if callback_of(each.value) is None or each.name not in CALLBACKS]


def _edges(values: Any) -> Iterator[ValueEdge]:
    for value in values:
        if isinstance(value, ValueEdge):
            yield value
        elif isinstance(value, list | tuple | set):
            yield from _edges(value)
        elif isinstance(value, dict):
            yield from _edges(value.values())


def _named(task: TaskModel) -> str:
    return f"task {task.task_id}"
