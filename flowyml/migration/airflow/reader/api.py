"""Airflow's own names: what its classes, decorators and helpers do when a DAG file is parsed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, KeysView, Mapping, ValuesView
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flowyml.migration.airflow.reader import nodes
from flowyml.migration.airflow.reader.library.built_in import BUILTINS
from flowyml.migration.airflow.reader.library.dates import CALLED
from flowyml.migration.airflow.reader.library.functions import PartialCall
from flowyml.migration.airflow.reader.library.paths import Opened, opened_attribute, path_attribute
from flowyml.migration.airflow.reader.library.records import instance_method
from flowyml.migration.airflow.reader.library.standard import LIBRARY, native_attribute
from flowyml.migration.airflow.reader.machine import MISSING
from flowyml.migration.airflow.reader.nodes import (
    Asset,
    Dag,
    DagFactory,
    Group,
    GroupFactory,
    Label,
    MappedArgument,
    Partial,
    Task,
    TaskFactory,
    XCom,
)
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Bound,
    Class,
    Either,
    Foreign,
    ForeignValue,
    Function,
    Given,
    Instance,
    Native,
    Raised,
    Soft,
    Unknown,
    hard,
    shape,
)

__all__ = ["Airflow", "is_operator"]

_BARE = frozenset({"BaseOperator", "BaseSensorOperator", "SkipMixin", "object", "ABC", "Generic", "LoggingMixin"})
"""Bases of operators that have no template fields: another task's result in an argument makes no edge."""
_KEY = re.compile(r"[\w.-]+")
_HARMLESS = frozenset(
    {"airflow", "attr", "attrs", "boto3", "botocore", "builtins", "cosmos", "dateutil", "dbt", "google", "jinja2"}
    | {"kubernetes", "loguru", "numpy", "pandas", "pendulum", "pydantic", "pytz", "requests", "slack_sdk", "sqlalchemy"}
    | {"structlog", "yaml"}
)
"""Libraries whose functions make no tasks unless they are operators."""
_ENUMS = frozenset({"TriggerRule", "WeightRule", "State", "TaskInstanceState", "DagRunState", "ExecuteAfter"})


def is_operator(path: str) -> bool:
    """Whether an import path is that of an operator: by its name, or by its module and a class's name."""
    module, _, name = path.rpartition(".")
    if not name[:1].isupper() or name.isupper():
        return False
    if re.search(r"(Operator|Sensor)(Async)?\d*$", name) or name == "ExternalTaskMarker":
        return True
    if not re.search(r"\.(operators|sensors|transfers)\b", module) or name.endswith(
        ("Link", "Mode", "Trigger", "Hook")
    ):
        return False
    return bool(re.search(r"(Operator|Sensor|Transfer|To[A-Z]\w+)", name))


def _is_dag(path: str) -> bool:
    return path.rpartition(".")[2] == "DAG"


def _is_group(path: str) -> bool:
    return path.rpartition(".")[2] == "TaskGroup"


class Airflow:
    """The `World` of a DAG file."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.dags: list[Dag] = []

    @property
    def context(self) -> nodes.Context:
        found: nodes.Context = self.machine.context
        return found

    # Names

    def lookup(self, path: str) -> Any:
        """What stands under the full name of something that is imported."""
        if path in LIBRARY:
            return LIBRARY[path]
        if path.startswith(("builtins.", "six.moves.", "future.builtins.")):
            return BUILTINS.get(path.rpartition(".")[2], MISSING)
        parent, _, name = path.rpartition(".")
        if parent.rpartition(".")[2] in _ENUMS and name.isupper() and path.startswith("airflow"):
            return name.lower()
        if path.endswith("settings.TIMEZONE"):
            return LIBRARY["datetime.UTC"]
        return self._folder(path)

    def _folder(self, path: str) -> Any:
        if path.endswith((".DAGS_FOLDER", ".AIRFLOW_HOME")) and path.startswith("airflow"):
            return self._place(path.rpartition(".")[2])
        return MISSING

    def _place(self, name: str) -> Any:
        """The dags folder, or the folder that holds it, of the repository that is read."""
        for folder in self.machine.files.upwards():
            if folder.name == "dags":
                return str(folder if name == "DAGS_FOLDER" else folder.parent)
        root = self.machine.files.upwards()[-1]
        return str(root)

    # Calls

    def call_foreign(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        """A call of something that is not in the root."""
        path, name = function.path, function.name
        if path in CALLED:
            return CALLED[path].call(self.machine, arguments, node)
        handler = self._handler(path, name)
        if handler is not None:
            return handler(self, function, arguments, node)
        if name == "__init__" and arguments.positional and isinstance(arguments.positional[0].value, Instance):
            owner, *rest = arguments.positional
            return self.initialise(owner.value, Arguments(rest, arguments.named, arguments.open), node)
        parent = path.rpartition(".")[0]
        if name == "partial" and is_operator(parent):
            return Partial(Foreign(parent), arguments, node)
        return self._call_class(function, arguments, node)

    def _handler(self, path: str, name: str) -> Callable[..., Any] | None:
        for ending, handler in _BY_ENDING.items():
            if path == ending or path.endswith("." + ending):
                return handler
        if path.startswith("airflow"):
            if re.search(r"(^|\.)task\.\w+$", path):
                return Airflow._task_decorator
            return _BY_NAME.get(name)
        return None

    def _call_class(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        path, name = function.path, function.name
        if _looks_like_dag(path, arguments):
            self.machine.warn("unknown-call", f"{path} makes a DAG in a way that is not known", node)
            return self.make_dag(arguments, node)
        if name[:1].isupper() and name.endswith("TaskGroup") and arguments.get("group_id"):
            self.machine.warn("unknown-call", f"the tasks that {path} makes are not known", node)
            return self.make_group(arguments, node)
        if is_operator(path) or ("task_id" in arguments.named and not path.startswith("airflow.models.taskinstance")):
            return self._call_operator(function, arguments, node)
        if len(arguments.positional) == 1 and not arguments.named:
            only = arguments.positional[0].value
            if isinstance(only, (Function, Class, TaskFactory)) and not name[:1].isupper():
                return only
        self._suspect(path, arguments, node)
        return ForeignValue(self.machine.source(node), self.machine.place(node), path=path, arguments=arguments)

    def _call_operator(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        if not is_operator(function.path) and not function.name[:1].isupper():
            self.machine.warn("unknown-call", f"{function.path} is taken to make one task", node)
        return self.make_task(function.path, arguments, node)

    def _suspect(self, path: str, arguments: Arguments, node: ast.AST) -> None:
        """Warns of a call that may add tasks or DAGs unseen."""
        path.split(".", maxsplit=1)[0]
        names = self.machine.module.scope.names
        hands_over = any(nodes.mentions(one) or hard(one) is names for one in arguments.values())
        known = _harmless(path)
        inside = self.context.dag() is not None and not known
        if (hands_over and not known) or inside:
            self.machine.warn("unknown-call", f"what {path} adds to the DAG is not known", node)

    def call_unknown(self, function: Any, arguments: Arguments, node: ast.AST) -> Any:
        """A call of something that is not known."""
        if isinstance(function, Unknown) and "task_id" in arguments.named:
            self.machine.warn("unknown-call", f"`{function.source[:60]}` is taken to make one task", node)
            return self.make_task(function.source, arguments, node)
        if len(arguments.positional) == 1 and isinstance(arguments.positional[0].value, (Function, Class)):
            return self.machine.unknown(node)
        names = self.machine.module.scope.names
        path = function.origin.removeprefix("call:") if isinstance(function, Unknown) else ""
        inside = self.context.dag() is not None and path != getattr(function, "origin", "") and not _harmless(path)
        if inside or any(nodes.mentions(one) or hard(one) is names for one in arguments.values()):
            text = f"what `{self.machine.source(node)[:60]}` adds to the DAG is not known"
            self.machine.warn("unknown-call", text, node)
        return self.machine.unknown(node)

    def call_value(self, function: Any, arguments: Arguments, node: ast.AST) -> Any:
        """A call of one of Airflow's own objects."""
        match function:
            case TaskFactory():
                return self.taskflow(function, arguments, node)
            case GroupFactory():
                return self.grouped(function, arguments, node)
            case DagFactory():
                return self.decorated_dag(function, arguments, node)
            case PartialCall():
                merged = Arguments(
                    [*function.arguments.positional, *arguments.positional],
                    {**function.arguments.named, **arguments.named},
                )
                return self.machine.call(function.function, merged, node)
        return MISSING

    # DAGs

    def make_dag(self, arguments: Arguments, node: ast.AST, dag: Dag | None = None) -> Dag:
        """``DAG(…)``. Raises AirflowException for an id that Airflow refuses."""
        dag = dag or Dag(None)
        dag.arguments, dag.node, dag.module, dag.ready = arguments, node, self.machine.module, True
        dag.dag_id = self._identifier(arguments.value("dag_id", 0), "a DAG's id", node)
        dag.default_args = _given_items(arguments.get("default_args"), "default_args")
        self.dags.append(dag)
        self.context.made += 1
        return dag

    def _identifier(self, value: Any, what: str, node: ast.AST) -> Any:
        if type(value) is Soft:
            text = f"{what} depends on {value.origin}: {shape(value)!r} is by its default"
            self.machine.warn("default-taken", text, node)
            value = value.value
        if isinstance(value, Instance) and "value" in value.attributes:
            value = value.attributes.get("value")
        if not isinstance(value, str):
            self.machine.warn("unknown-id", f"{what} is not known: {shape(value)}", node)
            return value if isinstance(value, Unknown) else self.machine.unknown(node)
        if not _KEY.fullmatch(value) or len(value) > 250:
            if self.context.uncertain:
                return value
            raise Raised("AirflowException", f"{what} {value[:80]!r} has characters that Airflow refuses")
        return value

    def decorated_dag(self, factory: DagFactory, arguments: Arguments, node: ast.AST) -> Any:
        """A call of a function decorated with ``@dag``."""
        given = Arguments(list(factory.arguments.positional), dict(factory.arguments.named))
        function = factory.function
        if given.get("dag_id", 0) is None and isinstance(function, Function):
            given.named["dag_id"] = Given(function.name)
        dag = self.make_dag(given, factory.node)
        dag.style, dag.registered, dag.calls = "decorator", True, arguments
        if not isinstance(function, Function):
            self.machine.warn("unknown-call", "what the decorated function does is not known", node)
            return dag
        dag.function, dag.module = function, function.module
        dag.doc = self.machine.attribute(function, "__doc__", node)
        self.context.dags.append(dag)
        groups, self.context.groups = self.context.groups, []
        try:
            self.machine.call(function, self._parameters(function, arguments, node), node)
        finally:
            self.context.dags.pop()
            self.context.groups = groups
        return dag

    def _parameters(self, function: Function, arguments: Arguments, node: ast.AST) -> Arguments:
        """A decorated DAG's arguments, which are the run's parameters: not known, by name."""
        place = self.machine.place(node)
        spec = function.node.args
        names = [one.arg for one in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
        return Arguments([], {name: Given(Unknown(name, place, f"param:{name}")) for name in names})

    # Tasks

    def make_task(self, path: str, arguments: Arguments, node: ast.AST, task: Task | None = None) -> Any:
        """An operator's instance, in its DAG and group, with the edges of its arguments."""
        task = task or Task(None)
        task.path, task.node, task.module, task.ready = path, node, self.machine.module, True
        dag = self._dag_of(arguments, node)
        group = hard(arguments.value("task_group"))
        group = group if isinstance(group, Group) else self.context.group(dag)
        task.arguments = arguments
        task.defaults = self._defaults_of(dag, group, arguments)
        given = arguments.get("task_id") or (arguments.positional[0] if arguments.positional else None)
        task.own_id = self._identifier(given.value if given else self.machine.unknown(node), "a task's id", node)
        if isinstance(task.own_id, str) and not task.decorator and "task_id" not in arguments.named:
            arguments.named["task_id"] = arguments.positional.pop(0)
        self.context.add(task, dag, group)
        if "subdag" in arguments.named and not isinstance(hard(arguments.value("subdag")), Dag):
            self.machine.warn("unknown-call", "the DAG in a SubDagOperator is not known", node)
        for name, one in arguments.named.items():
            if name not in ("dag", "task_group", "subdag"):
                self.context.depend(task, one.value)
        return task

    def _dag_of(self, arguments: Arguments, node: ast.AST) -> Dag | None:
        given = hard(arguments.value("dag"))
        if given is None:
            return self.context.dag()
        if isinstance(given, Dag):
            return given
        if isinstance(given, Either):
            found = next((one for one in given.options if isinstance(one, Dag)), None)
            if found is not None:
                return found
        self.machine.warn("unknown-context", "the DAG of a task is not known", node)
        return self.context.dag()

    def _defaults_of(self, dag: Dag | None, group: Group | None, arguments: Arguments) -> dict[str, Given]:
        found = dict(dag.default_args) if dag is not None else {}
        if group is not None:
            found.update(group.default_args)
        found.update(_given_items(arguments.get("default_args"), "default_args"))
        return found

    def taskflow(self, factory: TaskFactory, arguments: Arguments, node: ast.AST, mapping: Any = None) -> Any:
        """A call of a ``@task`` function."""
        given = Arguments([], dict(factory.arguments.named))
        calls = Arguments(
            [*factory.partial.positional, *arguments.positional], {**factory.partial.named, **arguments.named}
        )
        if mapping is not None:
            calls = factory.partial
        task = Task(None, decorator=factory.decorator, calls=calls, setup=factory.setup, teardown=factory.teardown)
        function = factory.function
        task.function = function if isinstance(function, Function) else None
        task.mapping = mapping
        dag = self._dag_of(given, node)
        group = hard(given.value("task_group"))
        group = group if isinstance(group, Group) else self.context.group(dag)
        label = hard(given.value("task_id", None, self._name_of(function, node)))
        if isinstance(label, str):
            label = self.context.unique(label, dag, group)
        given.named["task_id"] = Given(label, *_where(factory.arguments.get("task_id")))
        path = given.named.pop("__path__", Given("airflow.decorators.task")).value
        self.make_task(path, given, node, task)
        for one in (*calls.values(), *(mapping[1].values() if mapping else ())):
            self.context.depend(task, one)
        return XCom(task)

    def _name_of(self, function: Any, node: ast.AST) -> Any:
        if isinstance(function, (Function, Class)):
            return function.name
        if isinstance(function, PartialCall):
            return self._name_of(function.function, node)
        if isinstance(function, Bound):
            return function.function.name
        if isinstance(function, Foreign):
            return function.name
        return self.machine.unknown(node)

    def _task_decorator(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        """``@task``, ``@task.branch`` and so on, with arguments or without."""
        kind = function.path.rpartition("task.")[2] if re.search(r"\btask\.\w+$", function.path) else ""
        decorator = f"@task.{kind}" if kind and kind != "python" else "@task"
        if kind in ("run_if", "skip_if"):
            return self._conditional(kind, arguments)
        return self._decorates(decorator, function.path, arguments, node)

    def _conditional(self, kind: str, arguments: Arguments) -> Native:
        """``@task.run_if(…)`` around a ``@task``: one more argument of it."""
        condition = arguments.get("condition", 0) or Given(None)

        def wrap(target: Any) -> Any:
            if isinstance(target, Function):
                raise Raised("TypeError", f"{kind} can only be used with task")
            if not isinstance(target, TaskFactory):
                return target
            return replace(target, arguments=Arguments([], {**target.arguments.named, kind: condition}))

        return Native(f"@task.{kind}", lambda _, given, __: wrap(given.value("function", 0)))

    def _decorates(self, decorator: str, path: str, arguments: Arguments, node: ast.AST) -> Any:
        only = arguments.get("python_callable", 0)
        named = {name: one for name, one in arguments.named.items() if name != "python_callable"}
        named["__path__"] = Given(path)
        module = self.machine.module

        def make(target: Any) -> TaskFactory:
            return TaskFactory(target, decorator, Arguments([], dict(named)), node, module)

        if only is not None:
            return make(only.value)
        return Native(decorator, lambda _, given, __: make(given.value("function", 0)))

    def _setup(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return self._marks("setup", arguments, node)

    def _teardown(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return self._marks("teardown", arguments, node)

    def _marks(self, side: str, arguments: Arguments, node: ast.AST) -> Any:
        def mark(target: Any, lenient: Any = True) -> Any:
            if isinstance(target, Function):
                target = TaskFactory(target, "@task", Arguments(), node, self.machine.module)
            if isinstance(target, (TaskFactory, Task)):
                setattr(target, side, True)
            return target

        if arguments.positional:
            return mark(arguments.positional[0].value)
        return Native(side, lambda _, given, __: mark(given.value("function", 0)))

    def expanded(self, owner: Any, kind: str, arguments: Arguments, node: ast.AST) -> Any:
        """``expand`` and ``expand_kwargs`` of a task, an operator or a group."""
        mapping = (kind, arguments)
        if isinstance(owner, TaskFactory):
            return self.taskflow(owner, Arguments(), node, mapping)
        if isinstance(owner, GroupFactory):
            return self._expanded_group(owner, kind, arguments, node)
        task = self._operator_of(owner, node)
        task.mapping = mapping
        for one in arguments.values():
            self.context.depend(task, one)
        return task

    def _operator_of(self, owner: Partial, node: ast.AST) -> Task:
        if isinstance(owner.operator, Class):
            path = f"{owner.operator.module.name}.{owner.operator.name}"
            task = Task(owner.operator)
        else:
            path, task = owner.operator.path, Task(None)
        made: Task = self.make_task(path, owner.arguments, owner.node, task)
        return made

    # Groups

    def make_group(
        self, arguments: Arguments, node: ast.AST, group: Group | None = None, suffix: bool = False
    ) -> Group:
        """``TaskGroup(…)``."""
        group = group or Group(None)
        parent = hard(arguments.value("parent_group"))
        dag = self._dag_of(arguments, node) if not isinstance(parent, Group) else parent.dag
        if not isinstance(parent, Group):
            parent = self.context.group(dag)
        if isinstance(parent, Group) and dag is None:
            dag = parent.dag
        if isinstance(parent, Group) and parent.dag is not dag:
            parent = dag.root if dag else None
        group.dag, group.parent = dag, parent if isinstance(parent, Group) else None
        group.arguments, group.node, group.module, group.ready = arguments, node, self.machine.module, True
        group.prefix = hard(arguments.value("prefix_group_id", 1, True)) is not False
        inherited = dict(group.parent.default_args) if group.parent else {}
        group.default_args = inherited | _given_items(arguments.get("default_args"), "default_args")
        label = shape(self._identifier(arguments.value("group_id", 0), "a group's id", node))
        suffix = suffix or hard(arguments.value("add_suffix_on_collision")) is True
        self.context.open_group(group, label, suffix)
        return group

    def grouped(self, factory: GroupFactory, arguments: Arguments, node: ast.AST, mapping: Any = None) -> Any:
        """A call of a ``@task_group`` function: what it returns, or the group."""
        given = Arguments(list(factory.arguments.positional), dict(factory.arguments.named))
        if given.get("group_id", 0) is None:
            given.named["group_id"] = Given(self._name_of(factory.function, node))
        group = self.make_group(given, node, suffix=True)
        group.mapping = mapping
        group.function = factory.function if isinstance(factory.function, Function) else None
        group.calls = arguments
        self.context.groups.append(group)
        try:
            found = self.machine.call(factory.function, arguments, node)
        finally:
            self.context.groups.pop()
        if mapping is not None:
            for before in dict.fromkeys(task for one in mapping[1].values() for task in nodes.operators_in(one)):
                nodes.link(self.context, before, group, "after")
        return group if found is None else found

    def _expanded_group(self, owner: GroupFactory, kind: str, arguments: Arguments, node: ast.AST) -> Any:
        names = list(arguments.named)
        if kind == "expand_kwargs" and isinstance(owner.function, Function):
            spec = owner.function.node.args
            names = [one.arg for one in (*spec.args, *spec.kwonlyargs) if one.arg not in owner.partial.named]
        given = {name: Given(MappedArgument(name, arguments)) for name in names}
        merged = Arguments(list(owner.partial.positional), {**owner.partial.named, **given})
        return self.grouped(owner, merged, node, (kind, arguments))

    def _group_decorator(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return self._delayed(GroupFactory, "python_callable", arguments, node)

    def _dag_decorator(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        if arguments.positional and isinstance(arguments.positional[0].value, Function):
            return DagFactory(arguments.positional[0].value, Arguments(), node)
        return Native("dag", lambda _, given, __: DagFactory(given.value("function", 0), arguments, node))

    def _delayed(self, kind: Any, name: str, arguments: Arguments, node: ast.AST) -> Any:
        only = arguments.get(name, 0)
        if only is not None and isinstance(only.value, (Function, Bound)):
            return kind(only.value, Arguments(), node)
        return Native("decorator", lambda _, given, __: kind(given.value("function", 0), arguments, node))

    # Instances of classes of the root

    def allocate(self, cls: Class, node: ast.AST) -> Instance:
        """A new instance: a task, DAG or group where the class comes of one of those."""
        for base in cls.foreign():
            if is_operator(base.path):
                return Task(cls)
            if _is_dag(base.path):
                return Dag(cls)
            if _is_group(base.path):
                return Group(cls)
        return Instance(cls)

    def defaults(self, instance: Instance, arguments: Arguments, names: list[str]) -> None:
        """Fills what an operator's ``__init__`` names from default_args, as ``BaseOperatorMeta`` does."""
        if isinstance(instance, Task):
            dag = hard(arguments.value("dag"))
            dag = dag if isinstance(dag, Dag) else self.context.dag()
            for name, given in self._defaults_of(dag, self.context.group(dag), arguments).items():
                if name in names and name not in arguments.named and name != "self":
                    arguments.named[name] = given

    def initialise(self, instance: Any, arguments: Arguments, node: ast.AST) -> None:
        """``super().__init__(…)`` where the base is Airflow's."""
        if getattr(instance, "ready", True):
            return
        if isinstance(instance, Task):
            self.make_task(_own_path(instance), _without_context(arguments), node, instance)
        elif isinstance(instance, Dag):
            self.make_dag(arguments, node, instance)
        elif isinstance(instance, Group):
            self.make_group(arguments, node, instance)

    def finish(self, instance: Instance, arguments: Arguments, node: ast.AST) -> None:
        """After ``__init__``: what it left out is done, and a task's place is that of the call."""
        if not isinstance(instance, (Task, Dag, Group)):
            return
        if not instance.ready:
            self.initialise(instance, arguments, node)
        instance.node, instance.module = node, self.machine.module
        if isinstance(instance, Task):
            inner = instance.arguments
            instance.arguments = Arguments([], dict(arguments.named))
            for name, given in inner.named.items():
                if name not in arguments.named:
                    instance.arguments.named[name] = Given(given.value, given.node, given.module, "class")
            for value in self._templated(instance, arguments):
                self.context.depend(instance, value)

    def _templated(self, task: Task, arguments: Arguments) -> list[Any]:
        fields = hard(task.cls.find("template_fields")) if task.cls is not None else None
        if isinstance(fields, (list, tuple)) and all(isinstance(one, str) for one in fields):
            return [task.attributes.get(name, arguments.value(name)) for name in fields]
        if task.cls is not None and fields is None and all(base.name in _BARE for base in task.cls.foreign()):
            return []
        return list(arguments.values())

    # Attributes

    def attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        """An attribute of one of Airflow's own objects."""
        finder = _ATTRIBUTES.get(type(value))
        return MISSING if finder is None else finder(self, value, name, node)

    def _native(self, name: str, function: Callable[[Arguments, ast.AST], Any]) -> Native:
        return Native(name, lambda _, arguments, where: function(arguments, where))

    def _relations(self, value: Any, name: str) -> Any:
        if name in ("set_downstream", "set_upstream"):
            down = name == "set_downstream"

            def relate(arguments: Arguments, where: ast.AST) -> None:
                other = arguments.value("task_or_task_list", 0)
                self.join(*((value, other) if down else (other, value)), where)

            return self._native(name, relate)
        return MISSING

    def _of_task(self, task: Task, name: str, node: ast.AST) -> Any:
        found = self._relations(task, name)
        if found is not MISSING:
            return found
        answer = _TASK.get(name)
        if answer is not None:
            return answer(self, task)
        if name in task.attributes:
            return task.attributes[name]
        if task.cls is not None and task.cls.find(name) is not None:
            return MISSING
        given = task.arguments.get(name) or task.defaults.get(name)
        return MISSING if given is None else given.value

    def _as_setup(self, task: Task) -> Native:
        def mark(arguments: Arguments, where: ast.AST) -> Any:
            task.setup = True
            return task

        return self._native("as_setup", mark)

    def _as_teardown(self, task: Task) -> Native:
        def mark(arguments: Arguments, where: ast.AST) -> Any:
            task.teardown = True
            setups = arguments.value("setups", 0)
            task.lenient = hard(arguments.value("on_failure_fail_dagrun")) is not True
            for one in nodes._flat(setups) if setups is not None else ():
                for each in one.tasks() if isinstance(one, XCom) else [one]:
                    if isinstance(each, Task):
                        each.setup = True
                        self.context.edge(each, task)
            return task

        return self._native("as_teardown", mark)

    def _of_xcom(self, value: XCom, name: str, node: ast.AST) -> Any:
        found = self._relations(value, name)
        if found is not MISSING:
            return found
        if name in ("map", "zip", "concat"):
            return self._native(name, lambda arguments, where: _followed(value, name, arguments))
        if name in ("operator", "key"):
            return value.task if name == "operator" else value.key
        if name in ("as_setup", "as_teardown"):
            method = self._as_setup(value.task) if name == "as_setup" else self._as_teardown(value.task)
            return self._native(name, lambda arguments, where: (method.call(self.machine, arguments, where), value)[1])
        return self._of_task(value.task, name, node)

    def _of_group(self, group: Group, name: str, node: ast.AST) -> Any:
        found = self._relations(group, name)
        if found is not MISSING:
            return found
        answers: dict[str, Callable[[], Any]] = {
            "group_id": lambda: group.group_id,
            "label": lambda: group.own_id,
            "dag": lambda: group.dag,
            "__iter__": lambda: list(group.members()),
            "roots": group.roots,
            "leaves": group.leaves,
            "get_roots": lambda: self._native(name, lambda *_: group.roots()),
            "get_leaves": lambda: self._native(name, lambda *_: group.leaves()),
            "parent_group": lambda: group.parent,
            "children": lambda: {key.removeprefix("group:"): one for key, one in group.children.items()},
            "add": lambda: self._native(name, lambda arguments, _: self._moved(group, arguments)),
        }
        return answers[name]() if name in answers else MISSING

    def _moved(self, group: Group, arguments: Arguments) -> Any:
        task = hard(arguments.value("task", 0))
        if isinstance(task, Task) and task.group is not None and task.dag is not None:
            task.group.children.pop(task.task_id, None)
            task.dag.tasks.pop(task.task_id, None)
            task.group = group
            self.context.adopt(task, task.dag)
        return task

    def _of_dag(self, dag: Dag, name: str, node: ast.AST) -> Any:
        answers: dict[str, Callable[[], Any]] = {
            "dag_id": lambda: dag.dag_id,
            "tasks": lambda: list(dag.tasks.values()),
            "task_ids": lambda: list(dag.tasks),
            "task_dict": lambda: dict(dag.tasks),
            "task_group": lambda: dag.root,
            "roots": lambda: [one for one in dag.tasks.values() if not one.upstream],
            "leaves": lambda: [one for one in dag.tasks.values() if not one.downstream],
            "default_args": lambda: {key: given.value for key, given in dag.default_args.items()},
            "get_task": lambda: self._native(name, lambda arguments, where: self._task_named(dag, arguments, where)),
            "has_task": lambda: self._native(
                name, lambda arguments, _: hard(arguments.value("task_id", 0)) in dag.tasks
            ),
            "add_task": lambda: self._native(name, lambda arguments, _: self._added(dag, arguments)),
            "add_tasks": lambda: self._native(name, lambda arguments, where: self._added_all(dag, arguments, where)),
            "set_dependency": lambda: self._native(name, lambda arguments, where: self._depends(dag, arguments, where)),
            "task": lambda: self._native(name, lambda arguments, where: self._dag_task(dag, arguments, where)),
            "task_group_decorator": lambda: MISSING,
        }
        if name in answers:
            return answers[name]()
        if name in dag.attributes:
            return dag.attributes[name]
        given = dag.arguments.get(name)
        if given is not None and (dag.cls is None or dag.cls.find(name) is None):
            return given.value
        return MISSING

    def _dag_task(self, dag: Dag, arguments: Arguments, node: ast.AST) -> Any:
        return self._decorates(
            "@task",
            "airflow.decorators.task",
            Arguments(arguments.positional, {**arguments.named, "dag": Given(dag)}),
            node,
        )

    def _task_named(self, dag: Dag, arguments: Arguments, node: ast.AST) -> Any:
        name = hard(arguments.value("task_id", 0))
        return dag.tasks[name] if name in dag.tasks else self.machine.fail("TaskNotFound", shape(name), node)

    def _added(self, dag: Dag, arguments: Arguments) -> None:
        task = hard(arguments.value("task", 0))
        task = task.task if isinstance(task, XCom) else task
        if isinstance(task, Task) and task.dag is None:
            self.context.adopt(task, dag)

    def _added_all(self, dag: Dag, arguments: Arguments, node: ast.AST) -> None:
        for one in self.machine.iterate(arguments.value("tasks", 0), node) or ():
            self._added(dag, Arguments([Given(one)]))

    def _depends(self, dag: Dag, arguments: Arguments, node: ast.AST) -> None:
        names = [hard(arguments.value("upstream_task_id", 0)), hard(arguments.value("downstream_task_id", 1))]
        tasks = [dag.tasks.get(name) for name in names]
        if tasks[0] is not None and tasks[1] is not None:
            self.context.edge(tasks[0], tasks[1])
        else:
            self.machine.warn("unknown-edge", f"set_dependency names tasks that are not known: {names}", node)

    def _of_factory(self, factory: Any, name: str, node: ast.AST) -> Any:
        if name == "override":
            return self._native(name, lambda arguments, _: _overridden(factory, arguments))
        if name == "partial":
            return self._native(name, lambda arguments, _: _partly(factory, arguments))
        if name in ("expand", "expand_kwargs"):
            return self._native(name, lambda arguments, where: self.expanded(factory, name, arguments, where))
        if name in ("function", "__wrapped__", "python_callable"):
            return factory.function
        if name in ("__name__", "__doc__"):
            return self.machine.attribute(factory.function, name, node)
        return MISSING

    def _of_partial(self, partial: Partial, name: str, node: ast.AST) -> Any:
        if name in ("expand", "expand_kwargs"):
            return self._native(name, lambda arguments, where: self.expanded(partial, name, arguments, where))
        return MISSING

    def _of_class(self, cls: Class, name: str, node: ast.AST) -> Any:
        if name == "partial" and any(is_operator(base.path) for base in cls.foreign()):
            return self._native(name, lambda arguments, where: Partial(cls, arguments, where))
        if name == "__init__":
            return self._native(name, self._base_init)
        return MISSING

    def _base_init(self, arguments: Arguments, node: ast.AST) -> None:
        owner, *rest = arguments.positional
        self.initialise(owner.value, Arguments(rest, arguments.named, arguments.open), node)

    def _of_path(self, path: PurePosixPath, name: str, node: ast.AST) -> Any:
        found = path_attribute(self.machine, path, name, node)
        return MISSING if found is None else found

    def _of_opened(self, value: Opened, name: str, node: ast.AST) -> Any:
        found = opened_attribute(self.machine, value, name)
        return MISSING if found is None else found

    def _of_partial_call(self, value: PartialCall, name: str, node: ast.AST) -> Any:
        return value.function if name == "func" else MISSING

    def _of_native(self, value: Native, name: str, node: ast.AST) -> Any:
        found = native_attribute(self.machine, value, name)
        return MISSING if found is None else found

    def _of_instance(self, value: Instance, name: str, node: ast.AST) -> Any:
        if name in value.attributes or (value.cls is not None and value.cls.find(name) is not None):
            return MISSING
        found = instance_method(self.machine, value, name)
        return MISSING if found is None else found

    def _set_attribute(self, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
        owner, name = arguments.value("self", 0), hard(arguments.value("name", 1))
        if isinstance(name, str):
            self.machine.assign_attribute(owner, name, arguments.value("value", 2), node)

    def assign(self, value: Any, name: str, new: Any, node: ast.AST) -> bool:
        """Sets an attribute of one of Airflow's own objects. Returns whether it is done."""
        value = value.task if isinstance(value, XCom) else value
        if isinstance(value, Task) and name == "dag" and isinstance(hard(new), Dag):
            if value.dag is None:
                self.context.adopt(value, hard(new))
            return True
        if isinstance(value, Task) and value.ready:
            value.attributes[name] = new
            if name in _SETTABLE:
                value.arguments.named[name] = Given(new, None, self.machine.module)
            if value.cls is None:  # else its class says which of its attributes are templates, when it is made
                self.context.depend(value, new)
            return True
        if isinstance(value, Dag) and value.ready:
            value.attributes[name] = new
            value.arguments.named.setdefault(name, Given(new, None, self.machine.module))
            return True
        return isinstance(value, (Label, Asset))

    def item(self, value: Any, key: Any, node: ast.AST) -> Any:
        """``value[key]`` of one of Airflow's own objects, and of the environment."""
        if isinstance(value, XCom):
            return XCom(value.task, hard(key), value.path, value.parts)
        if isinstance(value, Group):
            found = value.children.get(value.child_id(str(hard(key))))
            return found or value.children.get(f"group:{value.child_id(str(hard(key)))}", self.machine.unknown(node))
        if isinstance(value, Foreign):
            if value.path == "os.environ":
                return self._environment(hard(key), None, node)
            return value if value.name[:1].isupper() else self.machine.unknown(node)
        if isinstance(value, Native):
            return value
        return MISSING

    # Edges

    def operate(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any:
        """``>>``, ``<<`` between tasks, ``|``, ``&`` between assets."""
        if kind is ast.RShift or kind is ast.LShift:
            if not _joins(left) and not _joins(right):
                return MISSING
            self.join(*((left, right) if kind is ast.RShift else (right, left)), node)
            return right
        if kind in (ast.BitOr, ast.BitAnd) and isinstance(hard(left), Asset) and isinstance(hard(right), Asset):
            return _condition("any" if kind is ast.BitOr else "all", hard(left), hard(right))
        return MISSING

    def join(self, before: Any, after: Any, node: ast.AST) -> None:
        """``before >> after``, with a warning for what cannot be joined."""
        self._lost(nodes.link(self.context, self._sides(before, node), self._sides(after, node), "before"), node)
        if self.context.hollow:
            self.context.hollow = False
            self.machine.warn("unknown-edge", "an edge leads to a group without tasks: Airflow 2 draws none", node)

    def _lost(self, lost: list[Any], node: ast.AST) -> None:
        for one in lost:
            if isinstance(one, TaskFactory):
                self.machine.fail("TypeError", "a @task function is joined without being called", node)
            else:
                text = f"an edge leads to what is not known: {shape(one) if one is not None else None}"
                self.machine.warn("unknown-edge", text, node)

    def _sides(self, value: Any, node: ast.AST) -> Any:
        """What a side stands for; of tasks of which one is made, all count."""
        value = hard(value)
        if not nodes.light(value):
            self.machine.warn("unknown-edge", "what is joined has too many parts", node)
            return []
        if isinstance(value, Either):
            self.machine.warn("unknown-edge", f"`{value.source[:60]}` is one of several: all are joined", node)
            return [self._sides(one, node) for one in value.options if _joins(one)]
        if isinstance(value, (list, tuple, set)):
            return [self._sides(one, node) for one in value]
        if isinstance(value, (ValuesView, KeysView)):
            return [self._sides(one, node) for one in value]
        return value

    def _chain(self, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
        parts = [self._sides(given.value, node) for given in arguments.positional]
        if arguments.open:
            self.machine.warn("unknown-edge", "what is chained is not known", node)
        self._lost(nodes.chain(self.context, parts), node)

    def _linear(self, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
        parts = [self._sides(given.value, node) for given in arguments.positional]
        self._lost(nodes.linear(self.context, parts), node)

    def _cross(self, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
        before, after = arguments.value("from_tasks", 0), arguments.value("to_tasks", 1)
        self.join(before, after, node)

    # With

    def enter(self, value: Any, node: ast.AST) -> Any:
        """``with value as …:``."""
        value = _chosen(value)
        if isinstance(value, Dag):
            self.context.dags.append(value)
            if value.style == "constructor":
                value.style = "with"
        elif isinstance(value, Group):
            self.context.groups.append(value)
        elif tasks := self._bracketed(value):
            nodes.open_bracket(self.context, tasks)
        elif isinstance(value, Unknown):
            return self.machine.unknown(node)
        return value

    def _bracketed(self, value: Any) -> list[Task]:
        found = [one.task if isinstance(one, XCom) else one for one in nodes._flat(value)]
        marked = [one for one in found if isinstance(one, Task) and (one.setup or one.teardown)]
        return marked if len(marked) == len(found) else []

    def leave(self, value: Any, node: ast.AST) -> None:
        value = _chosen(value)
        if isinstance(value, Dag):
            self.context.dags.remove(value)
            value.registered = True
        elif isinstance(value, Group):
            self.context.groups.remove(value)
        elif self.context.brackets and self._bracketed(value):
            nodes.close_bracket(self.context)

    # Variables and the environment

    def _variable(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        name = hard(arguments.value("key", 0))
        if not isinstance(name, str):
            return self.machine.unknown(node, origin="variable:?")
        given = arguments.get("default_var", 1) or arguments.get("default", 1)
        if name in self.machine.options.variables:
            return self._deserialised(self.machine.options.variables[name], arguments, node)
        return self._outside(f"variable:{name}", given, node)

    def _deserialised(self, value: Any, arguments: Arguments, node: ast.AST) -> Any:
        if hard(arguments.value("deserialize_json", 2)) is True and isinstance(value, str):
            return LIBRARY["json.loads"].call(self.machine, Arguments([Given(value)]), node)
        return value

    def _outside(self, origin: str, given: Given | None, node: ast.AST) -> Any:
        """A value from outside of the file: its default if it has one, else not known."""
        if given is not None:
            value = hard(given.value)
            if isinstance(value, Unknown):
                return value
            return Soft(value, origin, self.machine.source(node), self.machine.place(node))
        if self.machine.catches("KeyError"):
            raise Raised("KeyError", origin)
        return self.machine.unknown(node, origin=origin)

    def _environment(self, name: Any, given: Given | None, node: ast.AST) -> Any:
        if not isinstance(name, str):
            return self.machine.unknown(node, origin="env:?")
        if name in self.machine.options.env:
            return self.machine.options.env[name]
        if name in ("AIRFLOW_HOME", "AIRFLOW__CORE__DAGS_FOLDER"):
            place = self._place("AIRFLOW_HOME" if name == "AIRFLOW_HOME" else "DAGS_FOLDER")
            return Soft(place, f"env:{name}", self.machine.source(node), self.machine.place(node))
        return self._outside(f"env:{name}", given, node)

    def _getenv(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        given = arguments.get("default", 1) or Given(None)
        return self._environment(hard(arguments.value("key", 0)), given, node)

    def _configuration(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        section, name = (str(hard(arguments.value(key, index))).lower() for index, key in enumerate(("section", "key")))
        if (section, name) == ("core", "dags_folder"):
            return self._place("DAGS_FOLDER")
        return self._outside(f"config:{section}.{name}", arguments.get("fallback"), node)

    # The rest of Airflow

    def _dag(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return self.make_dag(arguments, node)

    def _group(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return self.make_group(arguments, node)

    def _label(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return Label(arguments.value("label", 0))

    def _xcom_arg(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        task = hard(arguments.value("operator", 0))
        if isinstance(task, XCom):
            return task
        return (
            XCom(task, hard(arguments.value("key", 1, "return_value")))
            if isinstance(task, Task)
            else self.machine.unknown(node)
        )

    def _asset(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        first = arguments.value("name", 0) if "name" in arguments.named else arguments.value("uri", 0)
        name, uri = arguments.value("name"), arguments.value("uri", 1 if "name" in arguments.named else None)
        if "uri" not in arguments.named and "name" not in arguments.named:
            name = first
            uri = arguments.value("uri", 1)
        if function.name == "Dataset":
            return Asset("asset", "", _normal_uri(arguments.value("uri", 0)))
        return Asset("asset", "" if name is None else name, "" if uri is None else uri)

    def _alias(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return Asset("alias", arguments.value("name", 0))

    def _asset_ref(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        if "uri" in arguments.named:
            return Asset("uri", uri=arguments.value("uri"))
        return Asset("name", arguments.value("name", 0))

    def _asset_condition(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        kind = "all" if function.name.endswith("All") else "any"
        return _condition(kind, *(hard(given.value) for given in arguments.positional))

    def _asset_decorator(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        many = function.path.endswith("asset.multi")

        def make(_: Any, given: Arguments, where: ast.AST) -> Any:
            target = given.value("function", 0)
            name = self._name_of(target, node)
            named = {
                key: one for key, one in arguments.named.items() if key not in ("uri", "outlets", "extra", "group")
            }
            named["dag_id"] = arguments.get("dag_id") or Given(name)
            dag = self.make_dag(Arguments([], named), node)
            dag.registered, dag.style = True, "decorator"
            own = Task(None, function=target if isinstance(target, Function) else None, decorator="@asset")
            self.make_task(
                "airflow.sdk.definitions.asset.decorators._AssetMainOperator",
                Arguments([], {"task_id": Given(name), "dag": Given(dag)}),
                node,
                own,
            )
            return Asset(
                "name" if many else "asset", arguments.value("name", None, name), arguments.value("uri", None, "")
            )

        return Native("asset", make)

    def _trigger_rule(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return arguments.value("value", 0, self.machine.unknown(node))

    def _clock(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return self.machine.unknown(node, origin="clock")

    def _datetime(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        return LIBRARY["pendulum.datetime"].call(self.machine, arguments, node)

    def _search_path(self, function: Foreign, arguments: Arguments, node: ast.AST) -> None:
        """``sys.path.append(folder)``: modules are looked for there too, if it is in the root."""
        folder = hard(arguments.positional[-1].value) if arguments.positional else None
        if isinstance(folder, (str, PurePosixPath)):
            self.machine.files.search(str(folder))

    def _connection(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any:
        name = shape(arguments.value("conn_id", 0, ""))
        return self.machine.unknown(node, origin=f"connection:{name}")


# Helpers


def _normal_uri(value: Any) -> Any:
    """A dataset's URI as Airflow 2 keeps it. Source: ``airflow.datasets._sanitize_uri``."""
    text = hard(value)
    if not isinstance(text, str):
        return value
    try:
        parts = urlsplit(text)
    except ValueError:
        return value
    if not parts.scheme and not parts.netloc:
        return value
    query = urlencode(sorted(parse_qsl(parts.query)))
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, path=parts.path.rstrip("/") or "/", query=query, fragment=""))


def _chosen(value: Any) -> Any:
    """Of several values of which one is meant, the first DAG or group."""
    if isinstance(value, Either):
        return next((one for one in value.options if isinstance(hard(one), (Dag, Group))), value)
    return value


def _harmless(path: str) -> bool:
    top = path.partition(".")[0]
    return top in _HARMLESS or top in _stdlib()


def _stdlib() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


def _looks_like_dag(path: str, arguments: Arguments) -> bool:
    name = path.rpartition(".")[2]
    if not name[:1].isupper() or not name.upper().endswith("DAG"):
        return False
    return "dag_id" in arguments.named or (
        bool(arguments.positional) and isinstance(hard(arguments.positional[0].value), str)
    )


def _given_items(given: Given | None, inherited: str) -> dict[str, Given]:
    """The items of a dictionary that was given, each with the place where it stands."""
    value = hard(given.value) if given is not None else None
    if given is None or not isinstance(value, dict):
        return {}
    places: dict[str, ast.expr] = {}
    if isinstance(given.node, ast.Dict):
        for key, item in zip(given.node.keys, given.node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                places[key.value] = item
    found: dict[str, Given] = {}
    for name, item in value.items():
        if isinstance(hard(name), str):
            found[hard(name)] = Given(item, places.get(hard(name)), given.module, inherited)
    return found


def _where(given: Given | None) -> tuple[Any, Any]:
    return (None, None) if given is None else (given.node, given.module)


def _own_path(task: Task) -> str:
    assert task.cls is not None
    return f"{task.cls.module.name}.{task.cls.name}"


def _without_context(arguments: Arguments) -> Arguments:
    return Arguments(list(arguments.positional), dict(arguments.named), arguments.open)


def _followed(value: XCom, name: str, arguments: Arguments) -> XCom:
    others = tuple(one for each in arguments.values() if isinstance(one := hard(each), XCom))
    what = arguments.value("f", 0) if name == "map" else list(others)
    return XCom(value.task, value.key, (*value.path, (name, what)), (*value.parts, *others))


def _overridden(factory: Any, arguments: Arguments) -> Any:
    named = {name: Given(one.value, one.node, one.module, "override") for name, one in arguments.named.items()}
    merged = Arguments(list(factory.arguments.positional), {**factory.arguments.named, **named})
    if isinstance(factory, TaskFactory):
        return TaskFactory(
            factory.function,
            factory.decorator,
            merged,
            factory.node,
            factory.module,
            factory.partial,
            factory.setup,
            factory.teardown,
        )
    return GroupFactory(factory.function, merged, factory.node, factory.partial)


def _partly(factory: Any, arguments: Arguments) -> Any:
    made = _overridden(factory, Arguments())
    made.partial = Arguments(
        [*factory.partial.positional, *arguments.positional], {**factory.partial.named, **arguments.named}
    )
    return made


def _condition(kind: str, *parts: Any) -> Asset:
    """A condition of assets; one of the same kind within it is unfolded, as Airflow does."""
    flat: list[Any] = []
    for part in parts:
        flat += part.parts if isinstance(part, Asset) and part.kind == kind else [part]
    return Asset(kind, parts=tuple(flat))


def _joins(value: Any) -> bool:
    value = hard(value)
    if isinstance(value, Either):
        return any(_joins(one) for one in value.options)
    if isinstance(value, (list, tuple)):
        return any(_joins(one) for one in value)
    return nodes.is_node(value)


_SETTABLE = frozenset({"trigger_rule", "retries", "retry_delay", "execution_timeout", "pool", "queue"})
_TASK: Mapping[str, Callable[[Airflow, Task], Any]] = {
    "task_id": lambda _, task: task.task_id if isinstance(task.own_id, str) else task.own_id,
    "node_id": lambda _, task: task.task_id,
    "label": lambda _, task: task.own_id,
    "output": lambda _, task: XCom(task),
    "operator": lambda _, task: task,
    "dag": lambda _, task: task.dag,
    "dag_id": lambda _, task: task.dag.dag_id if task.dag else None,
    "task_group": lambda _, task: task.group,
    "upstream_list": lambda _, task: list(task.upstream),
    "downstream_list": lambda _, task: list(task.downstream),
    "upstream_task_ids": lambda _, task: {one.task_id for one in task.upstream},
    "downstream_task_ids": lambda _, task: {one.task_id for one in task.downstream},
    "as_setup": lambda world, task: world._as_setup(task),
    "as_teardown": lambda world, task: world._as_teardown(task),
    "roots": lambda _, task: [task],
    "leaves": lambda _, task: [task],
}
_ATTRIBUTES: Mapping[type, Callable[[Airflow, Any, str, ast.AST], Any]] = {
    Task: Airflow._of_task,
    XCom: Airflow._of_xcom,
    Group: Airflow._of_group,
    Dag: Airflow._of_dag,
    Label: lambda world, value, name, _: world._relations(value, name),
    TaskFactory: Airflow._of_factory,
    GroupFactory: Airflow._of_factory,
    DagFactory: Airflow._of_factory,
    Partial: Airflow._of_partial,
    Class: Airflow._of_class,
    PurePosixPath: Airflow._of_path,
    Opened: Airflow._of_opened,
    PartialCall: Airflow._of_partial_call,
    Native: Airflow._of_native,
    Instance: Airflow._of_instance,
}
_BY_ENDING: Mapping[str, Callable[..., Any]] = {
    "Variable.get": Airflow._variable,
    "Variable.setdefault": Airflow._variable,
    "BaseHook.get_connection": Airflow._connection,
    "Connection.get_connection_from_secrets": Airflow._connection,
    "Connection.get": Airflow._connection,
    "os.environ.get": Airflow._getenv,
    "os.getenv": Airflow._getenv,
    "airflow.configuration.conf.get": Airflow._configuration,
    "airflow.configuration.get": Airflow._configuration,
    "datetime.datetime.now": Airflow._clock,
    "datetime.datetime.utcnow": Airflow._clock,
    "datetime.datetime.today": Airflow._clock,
    "datetime.date.today": Airflow._clock,
    "pendulum.now": Airflow._clock,
    "pendulum.today": Airflow._clock,
    "pendulum.yesterday": Airflow._clock,
    "time.time": Airflow._clock,
    "object.__setattr__": Airflow._set_attribute,
    "sys.path.append": Airflow._search_path,
    "sys.path.insert": Airflow._search_path,
    "site.addsitedir": Airflow._search_path,
    "Asset.ref": Airflow._asset_ref,
    "asset.multi": Airflow._asset_decorator,
}
_BY_NAME: Mapping[str, Callable[..., Any]] = {
    "DAG": Airflow._dag,
    "TaskGroup": Airflow._group,
    "dag": Airflow._dag_decorator,
    "task": Airflow._task_decorator,
    "task_group": Airflow._group_decorator,
    "setup": Airflow._setup,
    "teardown": Airflow._teardown,
    "chain": Airflow._chain,
    "chain_linear": Airflow._linear,
    "cross_downstream": Airflow._cross,
    "Label": Airflow._label,
    "EdgeModifier": Airflow._label,
    "XComArg": Airflow._xcom_arg,
    "PlainXComArg": Airflow._xcom_arg,
    "Dataset": Airflow._asset,
    "Asset": Airflow._asset,
    "AssetAlias": Airflow._alias,
    "DatasetAlias": Airflow._alias,
    "AssetAll": Airflow._asset_condition,
    "AssetAny": Airflow._asset_condition,
    "DatasetAll": Airflow._asset_condition,
    "DatasetAny": Airflow._asset_condition,
    "asset": Airflow._asset_decorator,
    "TriggerRule": Airflow._trigger_rule,
    "days_ago": Airflow._clock,
    "utcnow": Airflow._clock,
    "datetime": Airflow._datetime,
}
