"""Functions decorated with ``@dag``, ``@task`` and ``@task_group``: decorating, calling, mapping them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flowyml.migration.airflow.reader import nodes, values
from flowyml.migration.airflow.reader.api.making import Handler, Making, path_of
from flowyml.migration.airflow.reader.context import link
from flowyml.migration.airflow.reader.parts import operators_in


def decorated_dag(world: Making, factory: nodes.DagFactory, arguments: values.Arguments, node: ast.AST) -> Any:
    """Return a call of a function decorated with ``@dag``."""
    given = values.Arguments(list(factory.arguments.positional), dict(factory.arguments.named))
    function = factory.function
    if given.get("dag_id", 0) is None and isinstance(function, values.Function):
        given.named["dag_id"] = values.Given(function.name)
    if isinstance(function, values.Function) and (own := _own_params(function, arguments)):
        params = values.hard(given.value("params"))
        given.named["params"] = values.Given(own | params if isinstance(params, dict) else own)
    dag = world.make_dag(given, factory.node)
    dag.registered, dag.calls = True, arguments
    if not isinstance(function, values.Function):
        world.machine.warn("unknown-call", "what the decorated function does is unknown", node)
        return dag
    dag.function, dag.module = function, function.module
    dag.doc = world.machine.attribute(function, "__doc__", node)
    world.context.dags.append(dag)
    groups, world.context.groups = world.context.groups, []
    try:
        world.machine.call(function, _parameters(world, function, node), node)
    finally:
        world.context.dags.pop()
        world.context.groups = groups
    return dag


def _own_params(function: values.Function, arguments: values.Arguments) -> dict[str, Any]:
    """Return the params of a decorated DAG for the arguments of its function. Source: ``airflow.sdk.DAG.dag``."""
    names = [one.arg for one in (*function.node.args.posonlyargs, *function.node.args.args)]
    given = dict(zip(names, (one.value for one in arguments.positional), strict=False))
    return function.defaults | given | {name: one.value for name, one in arguments.named.items()}


def _parameters(world: Making, function: values.Function, node: ast.AST) -> values.Arguments:
    """Return a decorated DAG's arguments, by name; they are the run's parameters, so their values are unknown."""
    place = world.machine.place(node)
    spec = function.node.args
    names = [one.arg for one in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return values.Arguments([], {name: values.Given(values.Unknown(name, place, f"param:{name}")) for name in names})


def taskflow(
    world: Making, factory: nodes.TaskFactory, arguments: values.Arguments, node: ast.AST, mapping: Any = None
) -> Any:
    """Return a call of a ``@task`` function."""
    given = values.Arguments([], dict(factory.arguments.named))
    calls = factory.partial if mapping is not None else factory.partial.joined(arguments)
    task = nodes.Task(None, decorator=factory.decorator, calls=calls, setup=factory.setup, teardown=factory.teardown)
    function = factory.function
    task.function = function if isinstance(function, values.Function) else None
    task.mapping = mapping
    dag = world.dag_of(given, node)
    group = values.hard(given.value("task_group"))
    group = group if isinstance(group, nodes.Group) else world.context.group(dag)
    label = values.hard(given.value("task_id", None, world.name_of(function, node)))
    if isinstance(label, str):
        label = world.context.unique(label, dag, group)
    own = factory.arguments.get("task_id") or values.Given(None)
    given.named["task_id"] = values.Given(label, own.node, own.module)
    path = given.named.pop("__path__", values.Given("airflow.decorators.task")).value
    world.make_task(path, given, node, task)
    for one in (*calls.values(), *(mapping[1].values() if mapping else ())):
        world.context.depend(task, one)
    return nodes.XCom(task)


def task_decorator(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    """Apply ``@task``, ``@task.branch`` and so on, with arguments or without."""
    kind = function.path.rpartition("task.")[2] if re.search(r"\btask\.\w+$", function.path) else ""
    decorator = f"@task.{kind}" if kind and kind != "python" else "@task"
    if kind in ("run_if", "skip_if"):
        return _conditional(kind, arguments)
    return decorates(world, decorator, function.path, arguments, node)


def _conditional(kind: str, arguments: values.Arguments) -> Any:
    """Return ``@task.run_if(…)`` for a ``@task``: it adds an argument to the task."""
    condition = arguments.get("condition", 0) or values.Given(None)

    def wrap(target: Any) -> Any:
        if isinstance(target, values.Function):
            raise values.Raised("TypeError", f"{kind} can only be used with task")
        if not isinstance(target, nodes.TaskFactory):
            return target
        return replace(target, arguments=values.Arguments([], {**target.arguments.named, kind: condition}))

    return _applied(f"@task.{kind}", wrap, None)


def _applied(name: str, make: Callable[[Any], Any], only: values.Given | None) -> Any:
    """Apply a decorator to its ``only`` argument, or return the decorator that its arguments make."""
    return (
        values.Native(name, lambda _, given, __: make(given.value("function", 0))) if only is None else make(only.value)
    )


def decorates(world: Making, decorator: str, path: str, arguments: values.Arguments, node: ast.AST) -> Any:
    """Apply a decorator of Airflow to a function, with or without arguments of the decorator."""
    only = arguments.get("python_callable", 0)
    named = {name: one for name, one in arguments.named.items() if name != "python_callable"}
    named["__path__"] = values.Given(path)
    module = world.machine.module

    def make(target: Any) -> nodes.TaskFactory:
        return nodes.TaskFactory(target, decorator, values.Arguments([], dict(named)), node, module)

    return _applied(decorator, make, only)


def _marks(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    """Evaluate ``@setup`` and ``@teardown``."""
    side = function.name

    def mark(target: Any) -> Any:
        if isinstance(target, values.Function):
            target = nodes.TaskFactory(target, "@task", values.Arguments(), node, world.machine.module)
        if isinstance(target, (nodes.TaskFactory, nodes.Task)):
            setattr(target, side, True)
        return target

    return _applied(side, mark, arguments.positional[0] if arguments.positional else None)


def expanded(world: Making, owner: Any, kind: str, arguments: values.Arguments, node: ast.AST) -> Any:
    """Map a task, an operator or a group by its ``expand`` or ``expand_kwargs``."""
    mapping = (kind, arguments)
    if isinstance(owner, nodes.TaskFactory):
        return taskflow(world, owner, values.Arguments(), node, mapping)
    if isinstance(owner, nodes.GroupFactory):
        return _expanded_group(world, owner, kind, arguments, node)
    task = _operator_of(world, owner)
    task.mapping = mapping
    for one in arguments.values():
        world.context.depend(task, one)
    return task


def _operator_of(world: Making, owner: nodes.Partial) -> nodes.Task:
    of_root = owner.operator if isinstance(owner.operator, values.Class) else None
    path = path_of(of_root) if of_root else owner.operator.path
    made: nodes.Task = world.make_task(path, owner.arguments, owner.node, nodes.Task(of_root))
    return made


def grouped(
    world: Making, factory: nodes.GroupFactory, arguments: values.Arguments, node: ast.AST, mapping: Any = None
) -> Any:
    """Return a call of a ``@task_group`` function: its return value, or the group."""
    given = values.Arguments(list(factory.arguments.positional), dict(factory.arguments.named))
    if given.get("group_id", 0) is None:
        given.named["group_id"] = values.Given(world.name_of(factory.function, node))
    group = world.make_group(given, node, suffix=True)
    group.mapping = mapping
    group.function = factory.function if isinstance(factory.function, values.Function) else None
    group.calls = arguments
    world.context.groups.append(group)
    try:
        found = world.machine.call(factory.function, arguments, node)
    finally:
        world.context.groups.pop()
    if mapping is not None:
        for before in dict.fromkeys(task for one in mapping[1].values() for task in operators_in(one)):
            link(world.context, before, group)
    return group if found is None else found


def _expanded_group(
    world: Making, owner: nodes.GroupFactory, kind: str, arguments: values.Arguments, node: ast.AST
) -> Any:
    names = list(arguments.named)
    if kind == "expand_kwargs" and isinstance(owner.function, values.Function):
        spec = owner.function.node.args
        names = [one.arg for one in (*spec.args, *spec.kwonlyargs) if one.arg not in owner.partial.named]
    given = {name: values.Given(nodes.MappedArgument(name, arguments)) for name in names}
    merged = values.Arguments(list(owner.partial.positional), {**owner.partial.named, **given})
    return grouped(world, owner, merged, node, (kind, arguments))


def _group_decorator(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    if not isinstance(arguments.value("python_callable", 0), (values.Function, values.Bound)):
        arguments = values.Arguments([], arguments.named, arguments.open)  # Airflow drops a name without its keyword
    only = arguments.get("python_callable", 0)
    if only is not None and isinstance(only.value, (values.Function, values.Bound)):
        return nodes.GroupFactory(only.value, values.Arguments(), node)
    return values.Native(
        "decorator", lambda _, given, __: nodes.GroupFactory(given.value("function", 0), arguments, node)
    )


def _dag_decorator(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    if arguments.positional and isinstance(arguments.positional[0].value, values.Function):
        return nodes.DagFactory(arguments.positional[0].value, values.Arguments(), node)
    return values.Native("dag", lambda _, given, __: nodes.DagFactory(given.value("function", 0), arguments, node))


def overridden(factory: Any, arguments: values.Arguments) -> Any:
    """Return a factory with other options, as ``override(…)`` does."""
    named = {name: values.Given(one.value, one.node, one.module, "override") for name, one in arguments.named.items()}
    merged = values.Arguments(list(factory.arguments.positional), {**factory.arguments.named, **named})
    return replace(factory, arguments=merged)


def partly(factory: Any, arguments: values.Arguments) -> Any:
    """Return a factory with some of the arguments of its function, as ``partial(…)`` does."""
    made = overridden(factory, values.Arguments())
    made.partial = factory.partial.joined(arguments)
    return made


NAMES: Mapping[str, Handler] = {
    "dag": _dag_decorator,
    "task": task_decorator,
    "task_group": _group_decorator,
    "setup": _marks,
    "teardown": _marks,
}
