"""Convert the objects of an evaluation to the model: values, functions, tasks, groups, DAGs."""

from __future__ import annotations

import ast
import configparser
import datetime
import symtable
from collections.abc import Container, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, TypeVar

from flowyml.migration.airflow import model
from flowyml.migration.airflow.model import Argument, DagModel, DagWarning, FunctionModel, GroupModel, Place, TaskModel
from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.library.functions import PartialCall
from flowyml.migration.airflow.reader.nodes import Asset, Dag, Group, MappedArgument, Task, TaskFactory, XCom
from flowyml.migration.airflow.reader.parts import light
from flowyml.migration.airflow.reader.schedules import asset_ref, timezone, words, zone_name
from flowyml.migration.reach import reached

_DECORATORS = {
    "@task": "_PythonDecoratedOperator",
    "@task.virtualenv": "_PythonVirtualenvDecoratedOperator",
    "@task.external_python": "_PythonExternalDecoratedOperator",
    "@task.branch": "_BranchPythonDecoratedOperator",
    "@task.branch_virtualenv": "_BranchPythonVirtualenvDecoratedOperator",
    "@task.branch_external_python": "_BranchExternalPythonDecoratedOperator",
    "@task.short_circuit": "_ShortCircuitDecoratedOperator",
    "@task.sensor": "DecoratedSensorOperator",
    "@task.bash": "_BashDecoratedOperator",
    "@task.docker": "_DockerDecoratedOperator",
    "@task.kubernetes": "_KubernetesDecoratedOperator",
    "@task.kubernetes_cmd": "_KubernetesCmdDecoratedOperator",
    "@task.pyspark": "_PySparkDecoratedOperator",
    "@asset": "_AssetMainOperator",
}
_CALLBACKS: tuple[str, ...] = ("on_success_callback", "on_failure_callback", "on_retry_callback", "on_execute_callback")
_CALLBACKS += ("on_skipped_callback", "sla_miss_callback", "deadline")
_DEEP = 12

# Source: airflow.models.baseoperator.BaseOperator.__init__ of Airflow 2.
_RENAMED_RULES = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}


class Modelling:
    """Creates the models of one file. ``here`` is the source location for values without one."""

    def __init__(self, here: Place) -> None:
        self.here = here
        self.count = 0

    # Values

    def value(self, value: Any, depth: int = 0) -> Any:
        """Convert a value."""
        self.count += 1
        if depth > _DEEP or self.count > 200_000:
            return model.Symbolic("…", self.here)
        if isinstance(value, (str, bytes, int, float, type(None), datetime.date, datetime.timedelta, datetime.time)):
            return value
        if isinstance(value, (list, tuple, set, frozenset)):
            parts = [self.value(one, depth + 1) for one in value]
            try:
                return parts if isinstance(value, list) else tuple(parts) if isinstance(value, tuple) else set(parts)
            except TypeError:  # a set of calls with lists among their arguments
                return model.Symbolic("{…}", self.here)
        if isinstance(value, dict):
            return {_key(key): self.value(one, depth + 1) for key, one in value.items()}
        return self._special(value, depth)

    def _special(self, value: Any, depth: int) -> Any:
        match value:
            case values.Soft():
                default = self.value(value.value, depth + 1)
                parts = tuple(self.value(each, depth + 1) for each in value.parts)
                return model.Symbolic(value.source, value.place, value.origin, default, True, value.derived, parts)
            case values.ForeignValue():
                given = self.arguments(value.arguments or values.Arguments(), depth + 1)
                return model.Reference(value.path, value.source, value.place, True, given)
            case values.Unknown():
                origin = "" if value.origin.startswith("call:") else value.origin
                parts = tuple(self.value(each, depth + 1) for each in value.parts)
                return model.Symbolic(value.source, value.place, origin, derived=bool(parts), parts=parts)
            case values.Foreign():
                return model.Reference(value.path, value.name, self.here)
            case XCom():
                return self.xcom(value, depth)
            case Task():
                return model.ValueEdge(value.task_id)
            case Asset():
                return asset_ref(value)
            case values.Function() | values.Bound() | TaskFactory() | PartialCall():
                bound = _bound(value)  # something else is called instead of a function
                return model.Symbolic(f"{bound.rpartition(' ')[2]}(…)", self.here) if bound else self.function(value)
            case values.Class():
                return model.Reference(
                    f"{value.module.name}.{value.name}", value.name, _place(value.module, value.node)
                )
        return self._other(value)

    def _other(self, value: Any) -> Any:
        if isinstance(value, PurePosixPath):
            return str(value)
        if isinstance(value, datetime.tzinfo):
            return zone_name(value)
        if isinstance(value, configparser.SectionProxy):
            with suppress(configparser.Error, values.NotKnown):
                return dict(value)
        if isinstance(value, MappedArgument):
            return model.Symbolic(value.name, self.here, "mapped")
        if isinstance(value, values.Native):
            return model.Reference(value.name, value.name, self.here)
        if isinstance(value, values.Instance) and value.cls is not None:
            return model.Symbolic(value.cls.name + "(…)", self.here)
        return model.Symbolic(type(value).__name__, self.here)

    def xcom(self, value: XCom, depth: int = 0) -> model.ValueEdge:
        path = tuple((name, self.value(what, depth + 1)) for name, what in value.path)
        return model.ValueEdge(value.task.task_id, values.shape(value.key), path)

    def function(self, value: Any) -> FunctionModel | None:
        """Convert a function of the root, also below a decorator of Airflow's; None for any other."""
        while isinstance(value, TaskFactory):
            value = value.function
        if isinstance(value, values.Class):
            return FunctionModel(value.name, _place(value.module, value.node), value.module.name)
        if not isinstance(value, values.Function):
            return None
        value = value.defined or value
        node = value.node
        spec = node.args
        names = tuple(one.arg for one in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs))
        module = "" if value.module.main else value.module.name
        nested = value.scope.kind != "module"
        closure = _around(value, _free_names(node) | _annotated(node)) if nested else ()
        around = _around(value, _outer_names(node)) if nested else ()
        defaults = tuple((name, self.value(value.defaults[name])) for name in _named_defaults(node))
        returns = ast.unparse(spoken) if (spoken := getattr(node, "returns", None)) else ""
        is_task = not nested and isinstance(values.hard(value.scope.names.get(value.name)), TaskFactory)
        return FunctionModel(
            value.name, _place(value.module, node), module, names, nested, closure, around, defaults,
            returns=returns, is_task=is_task,
        )  # fmt: skip

    # Arguments

    def argument(self, name: str, given: values.Given, depth: int = 0, inherited: str = "") -> Argument:
        place, source = self.here, ""
        if given.node is not None and given.module is not None:
            place, source = _place(given.module, given.node), given.module.source(given.node)
        return Argument(
            name, source or render(given.value), place, self.value(given.value, depth), given.inherited or inherited
        )

    def arguments(self, given: values.Arguments, depth: int = 0) -> tuple[Argument, ...]:
        pairs = [(str(index), one) for index, one in enumerate(given.positional)]
        pairs += list(given.named.items())
        return tuple(self.argument(name, one, depth) for name, one in pairs if name not in ("dag", "task_group"))

    # Tasks

    def task(self, task: Task) -> TaskModel:
        arguments = self.arguments(task.arguments)
        path = task.path
        operator = _DECORATORS.get(task.decorator or "", path.rpartition(".")[2])
        return TaskModel(
            task_id=task.task_id,
            label=values.shape(task.own_id),
            operator=operator,
            import_path=path,
            place=_place(task.module, task.node),
            callers=task.callers,
            id_known=isinstance(task.own_id, str) and "{" not in task.task_id,
            decorator=task.decorator,
            arguments=arguments,
            call_arguments=self.arguments(task.calls) if task.calls else (),
            defaults=tuple(self.argument(name, one) for name, one in _own_defaults(task).items()),
            function=self._callable(task),
            upstream=tuple(sorted({one.task_id for one in task.upstream})),
            edge_labels=self._labels(task),
            trigger_rule=self._trigger_rule(task),
            retries=self._number(task, "retries", 0),
            retry_delay=self._seconds(task, "retry_delay", 300.0),
            execution_timeout=self._seconds(task, "execution_timeout", None),
            mapping=self._mapping(task.mapping),
            in_mapped_group=any(one.mapping is not None for one in _groups_around(task.group)),
            group=task.group.group_id if task.group else None,
            setup=task.setup,
            teardown=task.teardown,
            own_class=self.function(task.cls) if task.cls is not None else None,
        )

    def _callable(self, task: Task) -> FunctionModel | None:
        if task.function is not None:
            return self.function(task.function)
        given = task.arguments.get("python_callable")
        value = None if given is None else values.hard(given.value)
        if bound := _bound(value):
            while isinstance(value, (values.Bound, PartialCall, TaskFactory)):
                value = value.function
            found = self.function(value)
            return None if found is None else replace(found, bound=bound)
        return self.function(value)

    def _labels(self, task: Task) -> tuple[tuple[str, str], ...]:
        labels = task.dag.labels if task.dag is not None else {}
        ids = sorted({one.task_id for one in task.upstream})
        return tuple((one, labels[one, task.task_id]) for one in ids if (one, task.task_id) in labels)

    def _effective(self, task: Task, name: str, default: Any) -> Any:
        given = task.arguments.get(name) or task.defaults.get(name)
        return values.hard(given.value) if given is not None else default

    def _trigger_rule(self, task: Task) -> Any:
        if task.teardown:
            return "all_done_setup_success"
        value = self._effective(task, "trigger_rule", "all_success")
        if isinstance(value, values.Instance) and "value" in value.attributes:
            value = value.attributes["value"]
        return _RENAMED_RULES.get(value, value) if isinstance(value, str) else self.value(value)

    def _number(self, task: Task, name: str, default: Any) -> Any:
        value = self._effective(task, name, default)
        if value is None:
            return default
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)  # as Airflow does
        return value if isinstance(value, int) else self.value(value)

    def _seconds(self, task: Task, name: str, default: Any) -> Any:
        value = self._effective(task, name, default)
        if isinstance(value, datetime.timedelta):
            return value.total_seconds()
        if isinstance(value, (int, float)):
            return float(value)
        return default if value is None else self.value(value)

    def _mapping(self, mapping: Any) -> model.Mapping | None:
        return None if mapping is None else model.Mapping(mapping[0], self.arguments(mapping[1]))

    # Groups and DAGs

    def group(self, group: Group) -> GroupModel:
        tooltip = values.hard(group.arguments.value("tooltip", None, ""))
        return GroupModel(
            group_id=str(group.group_id),
            place=_place(group.module, group.node),
            parent=group.parent.group_id if group.parent is not None else None,
            tooltip=tooltip if isinstance(tooltip, str) else "",
            arguments=self.arguments(group.arguments),
            function=self.function(group.function) if group.function else None,
            call_arguments=self.arguments(group.calls) if group.calls else (),
            mapping=self._mapping(group.mapping),
            prefix_group_id=group.prefix,
        )

    def dag(self, dag: Dag, path: str, warnings: tuple[DagWarning, ...]) -> DagModel:
        arguments = self.arguments(dag.arguments)
        given = _schedule(dag)
        schedule = words(given.value) if given is not None else "None"
        start = dag.arguments.get("start_date") or dag.default_args.get("start_date")
        doc = dag.attributes.get("doc_md", dag.arguments.value("doc_md", None, dag.doc))
        tags = values.hard(dag.arguments.value("tags"))
        return DagModel(
            dag_id=values.shape(dag.dag_id),
            id_known=isinstance(dag.dag_id, str),
            path=path,
            place=_place(dag.module, dag.node),
            schedule=schedule,
            schedule_known=schedule is not None,
            schedule_omitted=given is None,
            schedule_argument=self.argument("schedule", given) if given is not None else None,
            schedule_value=self.value(given.value) if given is not None else None,
            timezone=timezone(start.value if start else None),
            start_date=self.value(start.value) if start is not None else None,
            catchup=_of_kind(bool, dag.arguments.value("catchup")),
            tags=tuple(sorted({values.shape(one) for one in (tags if isinstance(tags, (list, tuple, set)) else ())})),
            description=_of_kind(str, dag.arguments.value("description", 1)),
            doc=_of_kind(str, doc),
            params=self._params(dag),
            default_args=tuple(self.argument(name, one) for name, one in dag.default_args.items()),
            callbacks=tuple(one for one in arguments if one.name in _CALLBACKS),
            arguments=arguments,
            function=self.function(dag.function) if dag.function else None,
            call_arguments=self.arguments(dag.calls) if dag.calls else (),
            tasks=tuple(self.task(task) for task in dag.tasks.values()),
            groups=tuple(self.group(group) for group in dag.groups),
            warnings=warnings,
        )

    def _params(self, dag: Dag) -> tuple[tuple[str, Any], ...]:
        """Return the params of the DAG, and those of its ``default_args``, which override them in Airflow."""
        over = dag.default_args.get("params")
        found: dict[Any, Any] = {}
        for params in map(values.hard, (dag.arguments.value("params"), over.value if over else None)):
            is_dict = (
                isinstance(params, values.ForeignValue) and params.path.endswith(".ParamsDict") and params.arguments
            )
            given = values.hard(params.arguments.value("dict_obj", 0)) if is_dict else params
            found |= given if isinstance(given, dict) else {}
        return tuple((str(name), self.value(one)) for name, one in found.items() if isinstance(name, str))


def dag_model(dag: Dag, path: str, warnings: tuple[DagWarning, ...]) -> DagModel:
    """Return the model of a DAG."""
    made = Modelling(_place(dag.module, dag.node))
    found = made.dag(dag, path, warnings)
    if not found.schedule_known:
        given = _schedule(dag)
        refused = given is not None and isinstance(values.hard(given.value), str)
        what = "Airflow refuses the schedule" if refused else "the schedule is unknown"
        text = f"{what}: {found.schedule_argument.source[:80] if found.schedule_argument else ''}"
        place = found.schedule_argument.place if found.schedule_argument else found.place
        warning = DagWarning("unknown-schedule", text, place)
        found = made.dag(dag, path, (*warnings, warning))
    return found


def render(value: Any) -> str:
    """Return a value as source text, for an argument from a dictionary or a default."""
    value = values.hard(value)
    if not light(value):
        return "…"
    if isinstance(value, values.Unknown):
        return value.source
    if isinstance(value, (values.Foreign, values.Function, values.Class)):
        return value.name
    if isinstance(value, (list, tuple)):
        inner = ", ".join(render(one) for one in value[:50])
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render(key)}: {render(one)}" for key, one in list(value.items())[:50]) + "}"
    if isinstance(value, (str, bytes, int, float, bool, type(None), datetime.date, datetime.timedelta, datetime.time)):
        return repr(value)
    return f"<{type(value).__name__}>"


def _key(key: Any) -> Any:
    key = values.hard(key)
    return key if isinstance(key, (str, bytes, int, float, bool, type(None), tuple)) else values.shape(key)


def _bound(value: Any) -> str:
    """Return the kind of a callable that has arguments of its own, and is called instead of a function.

    "" for a function.
    """
    if isinstance(value, values.Bound) or (isinstance(value, values.Function) and value.owner is not None):
        return "a method"
    return "a functools.partial" if isinstance(value, PartialCall) else ""


def _place(module: values.Module | None, node: ast.AST | None) -> Place:
    if module is None or node is None or not hasattr(node, "lineno"):
        return Place(module.place if module else "", 1)
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return Place(module.place, first)


def _schedule(dag: Dag) -> values.Given | None:
    for name in ("schedule", "schedule_interval", "timetable"):
        given = dag.arguments.get(name)
        if given is not None and (given.value is not None or name != "timetable"):
            return given
    return dag.arguments.get("schedule", 2)


T = TypeVar("T")


def _of_kind(kind: type[T], value: Any) -> T | None:
    value = values.hard(value)
    return value if isinstance(value, kind) else None


def _own_defaults(task: Task) -> dict[str, values.Given]:
    """Return the default arguments of a task that are not the DAG's."""
    of_dag = task.dag.default_args if task.dag is not None else {}
    return {name: given for name, given in task.defaults.items() if given is not of_dag.get(name)}


def _groups_around(group: Group | None) -> list[Group]:
    return [] if group is None else [group, *_groups_around(group.parent)]


def _around(function: values.Function, names: Container[str]) -> tuple[str, ...]:
    """Return the values of some names in the functions around a function."""
    found: set[str] = set()
    scope: values.Scope | None = function.scope
    while scope is not None and scope.kind != "module":
        found |= {str(name) for name in scope.names if name in names}
        scope = scope.parent
    return tuple(sorted(found - {"__class__"}))


@lru_cache(maxsize=256)
def _free_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> frozenset[str]:
    """Return the names that the body of a function looks up outside of it."""
    if isinstance(node, ast.Lambda):
        bare: ast.stmt = ast.Expr(ast.Lambda(_bare_arguments(node.args), node.body))
    else:
        bare = copy(node)
        bare.decorator_list, bare.args, bare.returns = [], _bare_arguments(node.args), None
    try:
        inner = symtable.symtable(ast.unparse(bare), "", "exec").get_children()
    except (SyntaxError, ValueError, RecursionError):  # it sets names of the function around it, or cannot be written
        nonlocals = [one.names for one in ast.walk(node) if isinstance(one, ast.Nonlocal)]
        return frozenset({*_names(node), *(name for some in nonlocals for name in some)})
    tables = reached(inner, symtable.SymbolTable.get_children)
    return frozenset(one.get_name() for table in tables for one in table.get_symbols() if one.is_global())


def _bare_arguments(args: ast.arguments) -> ast.arguments:
    """Return the arguments without the parts that are evaluated around the function."""
    names = [[ast.arg(one.arg) for one in some] for some in (args.posonlyargs, args.args, args.kwonlyargs)]
    rest = [one and ast.arg(one.arg) for one in (args.vararg, args.kwarg)]
    return ast.arguments(names[0], names[1], rest[0], names[2], [None] * len(names[2]), rest[1], [])


def _annotated(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    parts = [one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg)]
    return {name for part in [*parts, getattr(node, "returns", None)] if part is not None for name in _names(part)}


def _outer_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """Return the names that are looked up when a function is created."""
    parts = [*node.args.defaults, *node.args.kw_defaults, *getattr(node, "decorator_list", ())]
    return {name for part in parts if part is not None for name in _names(part)}


def _named_defaults(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.col_offset:
        return
    spec = node.args
    names = [*spec.posonlyargs, *spec.args]
    pairs: list[tuple[ast.arg, ast.expr | None]] = list(zip(reversed(names), reversed(spec.defaults), strict=False))
    pairs += zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    yield from (arg.arg for arg, default in pairs if default is not None and _names(default))


def _names(tree: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)}
