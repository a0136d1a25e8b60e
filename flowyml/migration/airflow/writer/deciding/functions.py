"""Functions of a DAG file: whether they can be copied, their arguments, their use of Airflow's context."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from flowyml.migration.airflow.model import DagModel, FunctionModel, TaskModel, values_in
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.context import Asked, Asking, is_template, uses_as_datetime
from flowyml.migration.airflow.writer.deciding.decision import Function, Hole
from flowyml.migration.airflow.writer.deciding.mapping import mapped_names
from flowyml.migration.airflow.writer.deciding.options import defaults_of
from flowyml.migration.airflow.writer.deciding.pulls import TASK, with_parameters
from flowyml.migration.airflow.writer.moving import LAMBDA, Moving, Needed, without_defaults
from flowyml.migration.airflow.writer.syntax import called, outside_functions

# Airflow's own arguments of a function, in all versions; source: airflow.sdk.definitions.context.Context, and
# airflow.utils.context.KNOWN_CONTEXT_KEYS of Airflow 2.
CONTEXT = frozenset({
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


def moved_over(function: FunctionModel, moving: Moving) -> Function:
    node = moving.find(function)
    if node is None and function.name != LAMBDA:
        raise Hole("another function replaces it before the DAG is made")
    if node is None:
        raise Hole("its function is one of several lambdas on a line: write it with def")
    if function.closure:
        raise Hole(f"its function uses {', '.join(function.closure)} of the function around it")
    bare = moving.without_airflows_decorators(node)
    if bare.decorators and function.around:
        raise Hole(f"its decorators or defaults use {', '.join(function.around)} of the function around it")
    bound = moving.bound_here(function, bare)
    bare = without_defaults(bare, bound)
    if name := moving.guarded_by(bare):
        raise Hole(f"its decorators or defaults use {name}, which needs Airflow when the module is loaded")
    needed = moving.needed(bare, function.name)
    if needed.problem:
        raise Hole(needed.problem)
    if function.nested and function.name in needed.looked:
        raise Hole(f"it uses {function.name} of the function around it")
    return Function(function, bare, node, needed, moving, bound)


def imported_from(function: FunctionModel, moving: Moving) -> Function | None:
    """Return a function of another module of the repository; None if the name there may be another object's.

    A step can import it unless its module needs Airflow to be imported.
    """
    home = None if function.is_task else moving.other(function.module)
    node = home.find(function) if home else None
    if home is None or node is None or not home.has_only(node):
        return None
    return Function(function, node, node, Needed(airflow=home.needed(node, function.name).airflow), home)


def functions_in(values: Iterable[Any]) -> Iterator[FunctionModel]:
    """Yield the functions of the DAG file among an operator's arguments."""
    for part in (each for value in values for each in values_in(value)):
        if isinstance(part, FunctionModel) and part.module in ("", "__main__"):
            yield part


def call_arguments(dag: DagModel, task: TaskModel) -> dict[str, Any]:
    """Return the arguments of the function: by position, or by name."""
    if task.decorator is None:
        return from_operator({each.name: each.value for each in task.arguments})
    arguments = {each.name: each.value for each in task.call_arguments}
    if task.mapped or task.function is None:
        return arguments
    # Source: airflow.sdk.bases.decorator.DecoratedOperator._hook_apply_defaults.
    free = task.function.parameters[sum(name.isdigit() for name in arguments) :]
    taken = {name: each.value for name, each in defaults_of(dag, task).items() if name in free and name != "params"}
    return taken | arguments  # Airflow takes `params` out of the default arguments: they are the run's


def taken_by(task: TaskModel, moved: Function, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a PythonOperator passes to its function: it leaves out names that this does not take.

    Source: airflow.utils.operator_helpers.determine_kwargs.
    """
    if task.decorator or moved.node.params.star_kwarg:
        return arguments
    return {name: each for name, each in arguments.items() if name.isdigit() or name in moved.model.parameters}


def from_operator(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same from an operator's arguments."""
    positional, named = arguments.get("op_args") or [], arguments.get("op_kwargs") or {}
    if not isinstance(positional, list | tuple) or not isinstance(named, dict):
        raise Hole("the arguments of its function are only known when Airflow reads the file")
    return {**{str(number): value for number, value in enumerate(positional)}, **named}


def to_operator(arguments: dict[str, Any]) -> dict[str, Any]:
    positional = [value for name, value in arguments.items() if name.isdigit()]
    named = {name: value for name, value in arguments.items() if not name.isdigit()}
    return {**({"op_args": positional} if positional else {}), **({"op_kwargs": named} if named else {})}


def with_bound(task: TaskModel, moved: Function, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a function, and its defaults that only exist when the DAG is created."""
    found = dict(arguments)
    for name, value in moved.model.defaults:
        if name in moved.bound and name not in CONTEXT and name not in filled_by(task, moved, arguments):
            if is_template([value]):
                raise Hole(f"its default of {name} has a template, which Airflow does not render")
            found[name] = value
    return found


def filled_by(task: TaskModel, moved: Function, arguments: Mapping[str, Any]) -> set[str]:
    spec = moved.node.params
    names = [each.name.value for each in (*spec.posonly_params, *spec.params)]
    return {*names[: sum(name.isdigit() for name in arguments)], *arguments, *mapped_names(task)}


def returns_dict(task: TaskModel, moved: Function) -> bool:
    """Return whether a function returns a dict, by its annotation or by each of its own returns."""
    if task.multiple_outputs or moved.model.returns:
        return task.multiple_outputs or moved.model.returns_dict
    tree = tree_of(moved)
    inner = (node for statement in tree.body for node in outside_functions(statement))
    found = [node.value or node for node in inner if isinstance(node, ast.Return)]
    return bool(found) and all(isinstance(each, ast.Dict | ast.DictComp) or called(each) == "dict" for each in found)


def tree_of(moved: Function) -> ast.FunctionDef | ast.AsyncFunctionDef:
    bare = moved.node.with_changes(decorators=[], leading_lines=[])
    tree = ast.parse(moved.home.code(bare)).body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    return tree


def of_context(asking: Asking, moved: Function, arguments: dict[str, Any]) -> tuple[Function, dict[str, Any]]:
    """Return a function, and its arguments from Airflow's context, by name. Raises ``Unclear``.

    A function that pulls values of other tasks takes them as arguments instead.
    """
    tree = tree_of(moved)
    spec = tree.args
    names = [each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    filled = {*names[: sum(name.isdigit() for name in arguments)], *arguments, *mapped_names(asking.task)}
    used = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    if "get_current_context" in used:
        raise Unclear("it asks for Airflow's context")
    if spec.vararg and "0" in arguments:
        raise Unclear(f"it takes *{spec.vararg.arg}")
    if missing := [name for name in _without_default(spec) if name not in filled and name not in CONTEXT]:
        raise Unclear(f"nothing gives it {missing[0]}")
    checks: dict[str, Callable[[ast.AST], bool]] = {
        name: partial(_is_name, name=name) for name in names if name in CONTEXT and name not in filled
    }
    rest = spec.kwarg.arg if spec.kwarg else ""
    if rest in used:
        for key in sorted(_keys_of(tree, rest) - filled):
            checks[key] = partial(_is_item, of=rest, key=key)
    found: dict[str, Any] = {name: _by_name(asking, name, tree, is_it) for name, is_it in checks.items()
                             if name not in TASK}  # fmt: skip
    if tasks := [is_it for name, is_it in checks.items() if name in TASK]:
        moved, pulled = with_parameters(asking, moved, tree, lambda node: any(each(node) for each in tasks), arguments)
        found |= pulled
    return moved, found


def _without_default(spec: ast.arguments) -> list[str]:
    positional = [*spec.posonlyargs, *spec.args]
    named = [each for each, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if default is None]
    return [each.arg for each in (*positional[: len(positional) - len(spec.defaults)], *named)]


def _by_name(asking: Asking, name: str, tree: ast.AST, is_it: Callable[[ast.AST], bool]) -> Asked:
    is_moment = name in ("logical_date", "execution_date", "data_interval_start", "data_interval_end")
    if is_moment and not uses_as_datetime(tree, is_it):
        raise Unclear(f"it takes {name} of Airflow, which is more than a datetime")
    if name == "params":
        _check_params(asking, tree, is_it)
    return asking.by_name(name)


def _check_params(asking: Asking, tree: ast.AST, is_it: Callable[[ast.AST], bool]) -> None:
    """Raise ``Unclear`` for a function that reads params that only the conf of a run has: a pipeline declares all."""
    names = {name for name, _ in asking.dag.params}
    read = {key for node in ast.walk(tree) if (key := _key_of(node, is_it))}
    if beyond := sorted(read - names):
        raise Unclear(f"it reads {beyond[0]!r:.60} of params, which the DAG does not declare")
    if not names:
        raise Unclear("it takes params, and the DAG declares none")


def _keys_of(tree: ast.AST, rest: str) -> set[str]:
    """Return the keys of ``**rest`` that a function looks up.

    Raises ``Unclear`` if it uses ``rest`` in any other way.
    """
    is_it = partial(_is_name, name=rest)
    found = [key for node in ast.walk(tree) if (key := _key_of(node, is_it))]
    if len(found) != sum(map(is_it, ast.walk(tree))):
        raise Unclear(f"it takes Airflow's context as **{rest}")
    return {*found}


def _key_of(node: ast.AST, is_it: Callable[[ast.AST], bool]) -> str:
    """Return the key that a node looks up in a dict; "" for any other node."""
    match node:
        case ast.Subscript(value=of, slice=ast.Constant(value=str() as key), ctx=ast.Load()) if is_it(of):
            return key
        case ast.Call(func=ast.Attribute(value=of, attr="get"), args=[ast.Constant(value=str() as key), *_]) if is_it(
            of
        ):
            return key
    return ""


def _is_item(node: ast.AST, of: str, key: str) -> bool:
    return _key_of(node, partial(_is_name, name=of)) == key


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
