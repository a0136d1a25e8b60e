"""DAGs, tasks and groups, as Airflow creates them from the arguments of their constructors; and import paths."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from typing import Any

from flowyml.migration.airflow.model import OF_CLASS
from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.context import Context
from flowyml.migration.airflow.reader.library.built_in import BUILTINS
from flowyml.migration.airflow.reader.library.functions import PartialCall
from flowyml.migration.airflow.reader.nodes import Dag, Group, Partial, Task

_BARE = frozenset({"BaseOperator", "BaseSensorOperator", "SkipMixin", "object", "ABC", "Generic", "LoggingMixin"})
"""Bases of operators without template fields: another task's result in an argument creates no edge."""
SCHEDULES = frozenset({"schedule", "schedule_interval", "timetable"})
_KEY = re.compile(r"[\w.-]+")


class Making:
    """Creates DAGs, tasks and groups as Airflow's constructors do. ``dags`` are all that were created."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.dags: list[Dag] = []

    @property
    def context(self) -> Context:
        found: Context = self.machine.context
        return found

    def make_dag(self, arguments: values.Arguments, node: ast.AST, dag: Dag | None = None) -> Dag:
        """Make a DAG by ``DAG(…)``. Raises AirflowException for an id that Airflow refuses."""
        dag = dag or Dag(None)
        dag.arguments, dag.node, dag.module, dag.ready = arguments, node, self.machine.module, True
        dag.dag_id = self._identifier(arguments.value("dag_id", 0), "a DAG's id", node)
        dag.default_args = given_items(arguments.get("default_args"), "default_args")
        if arguments.open and not SCHEDULES.intersection(arguments.named):
            self.machine.warn("unknown-schedule", "the schedule may be in arguments that are unknown", node)
        self.dags.append(dag)
        self.context.count_made()
        return dag

    def _identifier(self, value: Any, what: str, node: ast.AST) -> Any:
        if type(value) is values.Soft:
            text = f"{what} depends on {value.origin}: {values.shape(value)!r} comes from its default"
            self.machine.warn("default-taken", text, node)
            value = values.hard(value)
        if isinstance(value, values.Instance) and "value" in value.attributes:
            value = value.attributes.get("value")
        if not isinstance(value, str):
            self.machine.warn("unknown-id", f"{what} is unknown: {values.shape(value)}", node)
            return value if isinstance(value, values.Unknown) else self.machine.unknown(node)
        if not _KEY.fullmatch(value) or len(value) > 250:
            if self.context.uncertain:
                return value
            raise values.Raised("AirflowException", f"{what} {value[:80]!r} has characters that Airflow refuses")
        return value

    def make_task(self, path: str, arguments: values.Arguments, node: ast.AST, task: Task | None = None) -> Any:
        """Return an operator's instance, in its DAG and group, with the edges of its arguments."""
        task = task or Task(None)
        task.path, task.node, task.module, task.ready = path, node, self.machine.module, True
        task.callers = tuple(self.machine.callers)
        dag = self.dag_of(arguments, node)
        group = values.hard(arguments.value("task_group"))
        group = group if isinstance(group, Group) else self.context.group(dag)
        task.arguments = arguments
        task.defaults = self._defaults_of(dag, group, arguments)
        given = arguments.get("task_id") or (arguments.positional[0] if arguments.positional else None)
        task.own_id = self._identifier(given.value if given else self.machine.unknown(node), "a task's id", node)
        if isinstance(task.own_id, str) and not task.decorator and "task_id" not in arguments.named:
            arguments.named["task_id"] = arguments.positional.pop(0)
        self.context.add(task, dag, group)
        if "subdag" in arguments.named and not isinstance(values.hard(arguments.value("subdag")), Dag):
            self.machine.warn("unknown-call", "the DAG in a SubDagOperator is unknown", node)
        for name, one in arguments.named.items():
            if name not in ("dag", "task_group", "subdag"):
                self.context.depend(task, one.value)
        return task

    def partial_of(self, operator: Any, arguments: values.Arguments, node: ast.AST) -> Partial:
        """Return ``Operator.partial(…)``, whose task belongs to the DAG and group open now, not at ``expand``."""
        dag = self.dag_of(arguments, node)
        here = {"dag": values.Given(dag), "task_group": values.Given(self.context.group(dag))}
        found = {name: given for name, given in here.items() if given.value is not None}
        return Partial(operator, values.Arguments(arguments.positional, found | arguments.named, arguments.open), node)

    def dag_of(self, arguments: values.Arguments, node: ast.AST) -> Dag | None:
        """Return the DAG in the arguments of a task or group, or the open one."""
        given = values.hard(arguments.value("dag"))
        if given is None:
            return self.context.dag()
        if isinstance(given, Dag):
            return given
        if isinstance(given, values.Either):
            found = next((one for one in given.options if isinstance(one, Dag)), None)
            if found is not None:
                return found
        self.machine.warn("unknown-context", "the DAG of a task is unknown", node)
        return self.context.dag()

    def _defaults_of(
        self, dag: Dag | None, group: Group | None, arguments: values.Arguments
    ) -> dict[str, values.Given]:
        found = dict(dag.default_args) if dag is not None else {}
        if group is not None:
            found.update(group.default_args)
        found.update(given_items(arguments.get("default_args"), "default_args"))
        return found

    def make_group(
        self, arguments: values.Arguments, node: ast.AST, group: Group | None = None, suffix: bool = False
    ) -> Group:
        """Make a group by ``TaskGroup(…)``."""
        group = group or Group(None)
        parent = values.hard(arguments.value("parent_group"))
        dag = self.dag_of(arguments, node) if not isinstance(parent, Group) else parent.dag
        if not isinstance(parent, Group):
            parent = self.context.group(dag)
            if parent is not None and parent.own_id and "parent_group" in arguments.named:
                text = "a group without a parent in a group: Airflow 2 puts it into that one, Airflow 3 into the DAG"
                self.machine.warn("unknown-context", text, node)
        if isinstance(parent, Group) and dag is None:
            dag = parent.dag
        if isinstance(parent, Group) and parent.dag is not dag:
            parent = dag.root if dag else None
        group.dag, group.parent = dag, parent if isinstance(parent, Group) else None
        group.arguments, group.node, group.module, group.ready = arguments, node, self.machine.module, True
        prefix = values.hard(arguments.value("prefix_group_id", 1, True))
        if isinstance(prefix, values.Unknown):
            self.machine.warn(
                "unknown-id", f"whether ids have the prefix of a group is unknown: {values.shape(prefix)}", node
            )
        group.prefix = prefix is not False
        inherited = dict(group.parent.default_args) if group.parent else {}
        group.default_args = inherited | given_items(arguments.get("default_args"), "default_args")
        label = values.shape(self._identifier(arguments.value("group_id", 0), "a group's id", node))
        suffix = suffix or values.hard(arguments.value("add_suffix_on_collision")) is True
        within = group.parent
        if dag and within and label in dag.used and within.child_id(label) not in dag.used:
            text = f"group {label!r} has a name that the DAG uses elsewhere: Airflow 2 renames or refuses it"
            self.machine.warn("unknown-id", text, node)
        self.context.open_group(group, label, suffix)
        return group

    def name_of(self, function: Any, node: ast.AST) -> Any:
        """Return the name of a decorated function, from which ids are derived."""
        while isinstance(function, (PartialCall, values.Bound)):
            function = function.function
        return (
            function.name
            if isinstance(function, (values.Function, values.Class, values.Foreign))
            else self.machine.unknown(node)
        )

    # Instances of classes of the root

    def allocate(self, cls: values.Class, node: ast.AST) -> values.Instance:
        """Create an instance: a task, DAG or group if the class derives from one of those."""
        for base in cls.foreign():
            if is_operator(base.path):
                return Task(cls)
            if base.name == "DAG":
                return Dag(cls)
            if base.name == "TaskGroup":
                return Group(cls)
        return values.Items(cls) if cls.is_dict() else values.Instance(cls)

    def defaults(self, instance: values.Instance, arguments: values.Arguments, names: list[str]) -> None:
        """Fill what an operator's ``__init__`` names from default_args, as ``BaseOperatorMeta`` does."""
        if isinstance(instance, Task):
            dag = values.hard(arguments.value("dag"))
            dag = dag if isinstance(dag, Dag) else self.context.dag()
            for name, given in self._defaults_of(dag, self.context.group(dag), arguments).items():
                if name in names and name not in arguments.named and name != "self":
                    arguments.named[name] = given

    def initialise(self, instance: Any, arguments: values.Arguments, node: ast.AST) -> None:
        """Call ``super().__init__(…)`` of a base of Airflow's, or of ``dict``."""
        if isinstance(instance, values.Items):
            items = self.machine.call(BUILTINS["dict"], arguments, node)
            if isinstance(values.hard(items), dict):
                instance.update(values.hard(items))
            else:
                self.machine.warn("unknown-call", "what a dictionary is made of is unknown", node)
        if getattr(instance, "ready", True):
            return
        if isinstance(instance, Task):
            own = values.Arguments(list(arguments.positional), dict(arguments.named), arguments.open)
            self.make_task(path_of(instance.cls), own, node, instance)
        elif isinstance(instance, Dag):
            self.make_dag(arguments, node, instance)
        elif isinstance(instance, Group):
            self.make_group(arguments, node, instance)

    def finish(self, instance: values.Instance, arguments: values.Arguments, node: ast.AST) -> None:
        """Complete an instance after ``__init__``; the line of a task is that of the call."""
        if not isinstance(instance, (Task, Dag, Group)):
            return
        if not instance.ready:
            self.initialise(instance, arguments, node)
        instance.node, instance.module = node, self.machine.module
        if isinstance(instance, Task):
            inner = instance.arguments
            instance.arguments = values.Arguments([], dict(arguments.named))
            for name, given in inner.named.items():
                if name not in arguments.named:
                    instance.arguments.named[name] = values.Given(given.value, given.node, given.module, OF_CLASS)
            for value in self._templated(instance, arguments):
                self.context.depend(instance, value)

    def _templated(self, task: Task, arguments: values.Arguments) -> list[Any]:
        fields = values.hard(task.cls.find("template_fields")) if task.cls is not None else None
        if isinstance(fields, (list, tuple)) and all(isinstance(one, str) for one in fields):
            return [task.attributes.get(name, arguments.value(name)) for name in fields]
        if task.cls is not None and fields is None and all(base.name in _BARE for base in task.cls.foreign()):
            return []
        return list(arguments.values())


Handler = Callable[[Making, values.Foreign, values.Arguments, ast.AST], Any]
"""The effect of a call of one of Airflow's names."""
Method = Callable[[Making, Any, values.Arguments, ast.AST], Any]
"""A method of one of Airflow's objects."""


def given_items(given: values.Given | None, inherited: str) -> dict[str, values.Given]:
    """Return the items of a dictionary argument, each with its line."""
    value = values.hard(given.value) if given is not None else None
    if given is None or not isinstance(value, dict):
        return {}
    places: dict[str, ast.expr] = {}
    if isinstance(given.node, ast.Dict):
        for key, item in zip(given.node.keys, given.node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                places[key.value] = item
    found: dict[str, values.Given] = {}
    for name, item in value.items():
        if isinstance(values.hard(name), str):
            found[values.hard(name)] = values.Given(item, places.get(values.hard(name)), given.module, inherited)
    return found


def path_of(cls: values.Class | None) -> str:
    """Return the import path of a class of the root."""
    assert cls is not None
    return f"{cls.module.name}.{cls.name}"


_HARMLESS = frozenset(
    {"airflow", "attr", "attrs", "boto3", "botocore", "builtins", "cosmos", "dateutil", "dbt", "google", "jinja2"}
    | {"kubernetes", "loguru", "numpy", "pandas", "pendulum", "pydantic", "pytz", "requests", "slack_sdk", "sqlalchemy"}
    | {"structlog", "yaml"}
)
"""Libraries whose functions create no tasks unless they are operators."""
_SHOWS = frozenset({"logging", "loguru", "pprint", "structlog", "warnings"})


def is_operator(path: str) -> bool:
    """Return whether an import path is an operator's: by its name, or by its module and a class's name."""
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


def looks_like_dag(path: str, arguments: values.Arguments) -> bool:
    name = path.rpartition(".")[2]
    if not name[:1].isupper() or not name.upper().endswith("DAG"):
        return False
    return "dag_id" in arguments.named or (
        bool(arguments.positional) and isinstance(values.hard(arguments.positional[0].value), str)
    )


def only_shows(path: str) -> bool:
    """Return whether a function only writes its arguments."""
    top, _, rest = path.partition(".")
    return top in _SHOWS or rest.endswith(("info", "debug", "warning"))


def harmless(path: str) -> bool:
    top = path.partition(".")[0]
    return top in _HARMLESS or top in sys.stdlib_module_names
