"""Attributes of the objects that Airflow creates, and of natives."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader import nodes, values
from flowyml.migration.airflow.reader.api import decorators, edges, outside
from flowyml.migration.airflow.reader.api.making import SCHEDULES, Handler, Making, Method, given_items, is_operator
from flowyml.migration.airflow.reader.library.data import parser_attribute
from flowyml.migration.airflow.reader.library.functions import PartialCall, Stack
from flowyml.migration.airflow.reader.library.natives import native
from flowyml.migration.airflow.reader.library.paths import path_attribute
from flowyml.migration.airflow.reader.library.records import class_method, instance_method
from flowyml.migration.airflow.reader.library.standard import native_attribute
from flowyml.migration.airflow.reader.library.text import pattern_attribute
from flowyml.migration.airflow.reader.machine import MISSING
from flowyml.migration.airflow.reader.operations import CHANGES
from flowyml.migration.airflow.reader.parts import flat
from flowyml.migration.reach import reached

# Arguments of any operator that are attributes of the same name. Source: airflow.sdk.bases.operator.
_SETTABLE = frozenset({
    "trigger_rule", "retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "execution_timeout",
    "pool", "pool_slots", "queue", "owner", "email", "email_on_retry", "email_on_failure", "depends_on_past",
    "wait_for_downstream", "priority_weight", "weight_rule", "start_date", "end_date", "params", "sla", "executor",
    "executor_config", "run_as_user", "do_xcom_push", "inlets", "outlets", "max_active_tis_per_dag",
    "max_active_tis_per_dagrun", "on_execute_callback", "on_failure_callback", "on_success_callback",
    "on_retry_callback", "on_skipped_callback", "doc", "doc_md", "doc_json", "doc_yaml", "doc_rst",
    "task_display_name", "map_index_template",
})  # fmt: skip


def _of_task(world: Making, task: nodes.Task, name: str, node: ast.AST) -> Any:
    if name in task.attributes:
        return task.attributes[name]
    if task.cls is not None and task.cls.find(name) is not None:
        return MISSING
    given = task.arguments.get(name) or task.defaults.get(name)
    return MISSING if given is None else given.value


def _task(value: Any) -> Any:
    """Return the task of an XCom; any other value unchanged."""
    return value.task if isinstance(value, nodes.XCom) else value


def _as_setup(world: Making, value: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    _task(value).setup = True
    return value


def _as_teardown(world: Making, value: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    _task(value).teardown = True
    setups = arguments.value("setups", 0)
    for one in flat(setups) if setups is not None else ():
        for each in one.tasks() if isinstance(one, nodes.XCom) else [one]:
            if isinstance(each, nodes.Task):
                each.setup = True
                world.context.edge(each, _task(value))
    return value


def _relatives(task: nodes.Task, arguments: values.Arguments, *, indirect: bool) -> list[nodes.Task]:
    """Answer ``get_direct_relatives``, or ``get_flat_relatives`` if ``indirect``."""
    side = "upstream" if values.hard(arguments.value("upstream", 0, False)) is True else "downstream"
    return list(reached(getattr(task, side), lambda one: getattr(one, side) if indirect else ()))


def _child(world: Making, group: nodes.Group, arguments: values.Arguments, node: ast.AST) -> Any:
    return group.child(str(values.hard(arguments.value("label", 0)))) or world.machine.unknown(node)


def _moved(world: Making, group: nodes.Group, arguments: values.Arguments, node: ast.AST) -> Any:
    task = values.hard(arguments.value("task", 0))
    if isinstance(task, nodes.Task) and task.group is not None and task.dag is not None:
        task.group.children.pop(task.task_id, None)
        task.dag.tasks.pop(task.task_id, None)
        task.group = group
        world.context.adopt(task, task.dag)
    return task


def _of_dag(world: Making, dag: nodes.Dag, name: str, node: ast.AST) -> Any:
    if name in dag.attributes:
        return dag.attributes[name]
    if dag.cls is not None and dag.cls.find(name) is not None:
        return MISSING
    if name in edges.ENTERING:
        return _method(world, dag, name, edges.ENTERING[name])
    given = dag.arguments.get(name)
    return MISSING if given is None else given.value


def _dag_task(world: Making, dag: nodes.Dag, arguments: values.Arguments, node: ast.AST) -> Any:
    return decorators.decorates(
        world,
        "@task",
        "airflow.decorators.task",
        values.Arguments(arguments.positional, {**arguments.named, "dag": values.Given(dag)}),
        node,
    )


def _task_named(world: Making, dag: nodes.Dag, arguments: values.Arguments, node: ast.AST) -> Any:
    name = values.hard(arguments.value("task_id", 0))
    return dag.tasks[name] if name in dag.tasks else world.machine.fail("TaskNotFound", values.shape(name), node)


def _added(world: Making, dag: nodes.Dag, arguments: values.Arguments, node: ast.AST) -> None:
    task = _task(values.hard(arguments.value("task", 0)))
    if isinstance(task, nodes.Task) and task.dag is None:
        world.context.adopt(task, dag)


def _added_all(world: Making, dag: nodes.Dag, arguments: values.Arguments, node: ast.AST) -> None:
    for one in world.machine.iterate(arguments.value("tasks", 0), node) or ():
        _added(world, dag, values.Arguments.of(one), node)


def _depends(world: Making, dag: nodes.Dag, arguments: values.Arguments, node: ast.AST) -> None:
    names = [values.hard(arguments.value("upstream_task_id", 0)), values.hard(arguments.value("downstream_task_id", 1))]
    tasks = [dag.tasks.get(name) for name in names]
    if tasks[0] is not None and tasks[1] is not None:
        world.context.edge(tasks[0], tasks[1])
    else:
        world.machine.warn("unknown-edge", f"set_dependency names tasks that are unknown: {names}", node)


def _of_factory(world: Making, factory: Any, name: str, node: ast.AST) -> Any:
    if name == "override":
        return native(name, lambda arguments, _: decorators.overridden(factory, arguments))
    if name == "partial":
        return native(name, lambda arguments, _: decorators.partly(factory, arguments))
    if name in ("expand", "expand_kwargs"):
        return native(name, lambda arguments, where: decorators.expanded(world, factory, name, arguments, where))
    if name in ("function", "__wrapped__", "python_callable"):
        return factory.function
    if name in ("__name__", "__doc__"):
        return world.machine.attribute(factory.function, name, node)
    return MISSING


def _of_partial(world: Making, partial: nodes.Partial, name: str, node: ast.AST) -> Any:
    if name in ("expand", "expand_kwargs"):
        return native(name, lambda arguments, where: decorators.expanded(world, partial, name, arguments, where))
    return MISSING


def _of_class(world: Making, cls: values.Class, name: str, node: ast.AST) -> Any:
    if name == "partial" and any(is_operator(base.path) for base in cls.foreign()):
        return native(name, lambda arguments, where: world.partial_of(cls, arguments, where))
    if name == "__init__":
        return native(name, lambda given, where: world.initialise(given.positional[0].value, given.rest(), where))
    return _known(class_method(cls, name))


def _known(found: Any) -> Any:
    """Return an answer of the library, which says None for a name that it does not know."""
    return MISSING if found is None else found


def _of_asset(value: nodes.Asset, name: str) -> Any:
    """Return the name and URI of an asset: if only one is given, the other equals it."""
    if value.parts or name not in ("name", "uri"):
        return MISSING
    return (value.uri or value.name) if name == "uri" else (value.name or value.uri)


def _of_instance(world: Making, value: values.Instance, name: str, node: ast.AST) -> Any:
    if name in value.attributes or (value.cls is not None and value.cls.find(name) is not None):
        return MISSING
    return _known(instance_method(world.machine, value, name))


def _set_attribute(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> None:
    owner, name = arguments.value("world", 0), values.hard(arguments.value("name", 1))
    if isinstance(name, str):
        world.machine.assign_attribute(owner, name, arguments.value("value", 2), node)


def _method(world: Making, value: Any, name: str, method: Method) -> values.Native:
    return native(name, lambda arguments, where: method(world, value, arguments, where))


def attribute(world: Making, value: Any, name: str, node: ast.AST) -> Any:
    """Return an attribute of one of Airflow's own objects."""
    if isinstance(value, values.Unknown) and name in edges.RELATIONS:
        return _method(world, value, name, edges.RELATIONS[name])
    if (shown := _SHOWN.get(type(value), {}).get(name)) is not None:
        return shown(value)
    if (method := _METHODS.get(type(value), {}).get(name)) is not None:
        return _method(world, value, name, method)
    other = _OTHERS.get(type(value))
    return MISSING if other is None else other(world, value, name, node)


def assign(world: Making, value: Any, name: str, new: Any, node: ast.AST) -> bool:
    """Set an attribute of one of Airflow's own objects. Returns whether it is done."""
    value = _task(value)
    if isinstance(value, nodes.Task) and name in ("upstream_task_ids", "downstream_task_ids"):
        world.machine.warn("unknown-edge", one_sided(world.machine.source(node)), node)
        return True
    if isinstance(value, nodes.Task) and name == "dag" and isinstance(values.hard(new), nodes.Dag):
        if value.dag is None:
            world.context.adopt(value, values.hard(new))
        return True
    if isinstance(value, nodes.Task) and value.ready:
        value.attributes[name] = new
        if name in _SETTABLE or name in value.arguments.named:
            value.arguments.named[name] = values.Given(new, None, world.machine.module)
        elif value.cls is None and not name.startswith(("_", "ui_")):
            text = f"`{world.machine.source(node)[:80]}` sets no argument of the task: the import ignores it"
            world.machine.warn("unknown-call", text, node)
        if value.cls is None:  # else its class names its templates when it is created
            world.context.depend(value, new)
        return True
    if isinstance(value, nodes.Dag) and value.ready:
        _assign_of_dag(world, value, name, new, node)
        return True
    return isinstance(value, (nodes.Label, nodes.Asset))


def _assign_of_dag(world: Making, dag: nodes.Dag, name: str, new: Any, node: ast.AST) -> None:
    given = values.Given(new, None, world.machine.module)
    dag.attributes[name] = new
    if name in SCHEDULES:
        text = f"`{world.machine.source(node)[:80]}` sets a schedule after the DAG is made, which the import ignores"
        world.machine.warn("unknown-schedule", text, node)
    elif name == "default_args":
        dag.default_args = given_items(given, "default_args")
    else:
        dag.arguments.named[name] = given


def one_sided(source: str) -> str:
    """Return the warning for a file that changes the ids of a task's neighbours."""
    return f"`{source[:80]}` changes one side of edges, which the import ignores: `>>` draws both"


def _of_held(world: Making, value: nodes.Ids | nodes.Held, name: str, node: ast.AST) -> Any:
    """Return a method that changes a collection of Airflow's: it changes a copy, with a warning."""
    if name not in CHANGES:
        return MISSING

    def change(machine: Any, arguments: values.Arguments, where: ast.AST) -> Any:
        source = machine.source(where)
        if isinstance(value, nodes.Ids):
            machine.warn("unknown-edge", one_sided(source), where)
        else:
            machine.warn("unknown-call", f"`{source[:80]}` changes what Airflow holds, which the import ignores", where)
        return machine.call_method(value, name, arguments, where)

    return values.Native(name, change)


def _followed(name: str) -> Method:
    """Return ``map``, ``zip`` or ``concat`` of an XCom."""

    def follow(world: Making, value: nodes.XCom, arguments: values.Arguments, node: ast.AST) -> nodes.XCom:
        others = tuple(one for each in arguments.values() if isinstance(one := values.hard(each), nodes.XCom))
        what = arguments.value("f", 0) if name == "map" else list(others)
        return nodes.XCom(value.task, value.key, (*value.path, (name, what)), (*value.parts, *others))

    return follow


_SHOWN: Mapping[type, Mapping[str, Callable[[Any], Any]]] = {
    nodes.Task: {
        "task_id": lambda task: task.task_id if isinstance(task.own_id, str) else task.own_id,
        "node_id": lambda task: task.task_id,
        "label": lambda task: task.own_id,
        "output": nodes.XCom,
        "operator": lambda task: task,
        "dag": lambda task: task.dag,
        "dag_id": lambda task: task.dag.dag_id if task.dag else None,
        "task_group": lambda task: task.group,
        "upstream_list": lambda task: list(task.upstream),
        "downstream_list": lambda task: list(task.downstream),
        "upstream_task_ids": lambda task: nodes.Ids(one.task_id for one in task.upstream),
        "downstream_task_ids": lambda task: nodes.Ids(one.task_id for one in task.downstream),
        "roots": lambda task: [task],
        "leaves": lambda task: [task],
    },
    nodes.XCom: {"operator": lambda value: value.task, "key": lambda value: value.key},
    nodes.Group: {
        "group_id": lambda group: group.group_id,
        "label": lambda group: group.own_id,
        "dag": lambda group: group.dag,
        "__iter__": lambda group: list(group.members()),
        "roots": nodes.Group.roots,
        "leaves": nodes.Group.leaves,
        "parent_group": lambda group: group.parent,
        "children": lambda group: nodes.Held((key.removeprefix("group:"), one) for key, one in group.children.items()),
    },
    nodes.Dag: {
        "dag_id": lambda dag: dag.dag_id,
        "tasks": lambda dag: list(dag.tasks.values()),
        "task_ids": lambda dag: list(dag.tasks),
        "task_dict": lambda dag: nodes.Held(dag.tasks),
        "task_group": lambda dag: dag.root,
        "task_group_dict": lambda dag: nodes.Held((str(one.group_id), one) for one in dag.groups),
        "roots": lambda dag: [one for one in dag.tasks.values() if not one.upstream],
        "leaves": lambda dag: [one for one in dag.tasks.values() if not one.downstream],
        "default_args": lambda dag: nodes.Held((key, given.value) for key, given in dag.default_args.items()),
        "task_group_decorator": lambda _: MISSING,
    },
    PartialCall: {
        "func": lambda value: value.function,
        "args": lambda value: tuple(given.value for given in value.arguments.positional),
        "keywords": lambda value: {key: given.value for key, given in value.arguments.named.items()},
    },
}
"""Attributes by class."""
_METHODS: Mapping[type, Mapping[str, Method]] = {
    nodes.Task: {
        "as_setup": _as_setup,
        "as_teardown": _as_teardown,
        "get_direct_relatives": lambda _, task, arguments, __: _relatives(task, arguments, indirect=False),
        "get_flat_relatives": lambda _, task, arguments, __: _relatives(task, arguments, indirect=True),
        **edges.RELATIONS,
    },
    nodes.XCom: {
        "as_setup": _as_setup,
        "as_teardown": _as_teardown,
        **{name: _followed(name) for name in ("map", "zip", "concat")},
        **edges.RELATIONS,
    },
    nodes.Label: edges.RELATIONS,
    nodes.Group: {
        "get_roots": lambda _, group, *__: group.roots(),
        "get_leaves": lambda _, group, *__: group.leaves(),
        "get_child_by_label": _child,
        "add": _moved,
        **edges.RELATIONS,
        **edges.ENTERING,
    },
    nodes.Dag: {
        "get_task": _task_named,
        "has_task": lambda _, dag, arguments, __: values.hard(arguments.value("task_id", 0)) in dag.tasks,
        "add_task": _added,
        "add_tasks": _added_all,
        "set_dependency": _depends,
        "task": _dag_task,
    },
    Stack: {
        "enter_context": lambda world, stack, arguments, node: stack.enter(world.machine, arguments, node),
        "callback": lambda world, stack, arguments, node: stack.callback(world.machine, arguments, node),
        "close": lambda world, stack, _, node: stack.close(world.machine, node),
    },
}
"""Methods by class."""
_OTHERS: Mapping[type, Callable[[Making, Any, str, ast.AST], Any]] = {
    nodes.Task: _of_task,
    nodes.XCom: lambda world, value, name, node: attribute(world, value.task, name, node),
    nodes.Dag: _of_dag,
    nodes.Asset: lambda _, value, name, __: _of_asset(value, name),
    nodes.TaskFactory: _of_factory,
    nodes.GroupFactory: _of_factory,
    nodes.DagFactory: _of_factory,
    nodes.Partial: _of_partial,
    values.Class: _of_class,
    PurePosixPath: lambda world, value, name, node: _known(path_attribute(world.machine, value, name, node)),
    configparser.ConfigParser: lambda world, value, name, _: _known(parser_attribute(world.machine, value, name)),
    configparser.RawConfigParser: lambda world, value, name, _: _known(parser_attribute(world.machine, value, name)),
    re.Pattern: lambda _, value, name, __: _known(pattern_attribute(value, name)),
    values.Native: lambda world, value, name, _: _known(native_attribute(world.machine, value, name)),
    values.Instance: _of_instance,
    nodes.Ids: _of_held,
    values.Moment: outside.of_moment,
    nodes.Held: _of_held,
}
"""By class, the function that finds any other attribute by its name."""
ENDINGS: Mapping[str, Handler] = {
    "object.__setattr__": _set_attribute,
}
