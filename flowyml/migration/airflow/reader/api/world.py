"""The evaluator's interface to Airflow: names, calls, attributes, items, operators, ``with``."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from flowyml.migration.airflow.model import Place
from flowyml.migration.airflow.reader import nodes, values
from flowyml.migration.airflow.reader.api import assets, attributes, decorators, edges, outside
from flowyml.migration.airflow.reader.api.making import (
    Handler,
    Making,
    harmless,
    is_operator,
    looks_like_dag,
    only_shows,
)
from flowyml.migration.airflow.reader.library.built_in import BUILTINS
from flowyml.migration.airflow.reader.library.dates import CALLED
from flowyml.migration.airflow.reader.library.functions import PartialCall, Stack
from flowyml.migration.airflow.reader.library.standard import LIBRARY
from flowyml.migration.airflow.reader.machine import MISSING

_ENUMS = frozenset({"TriggerRule", "WeightRule", "State", "TaskInstanceState", "DagRunState", "ExecuteAfter"})


_VERSION = "3.0.0"
"""Airflow's version, for a file that reads it; with a warning."""


class Airflow(Making):
    """The effects of Airflow's own names in a DAG file."""

    def lookup(self, path: str) -> Any:
        """Return the value for the full name of an imported object."""
        if path in LIBRARY:
            return LIBRARY[path]
        if path.startswith(("builtins.", "six.moves.", "future.builtins.")):
            return BUILTINS.get(path.rpartition(".")[2], MISSING)
        parent, _, name = path.rpartition(".")
        if parent.rpartition(".")[2] in _ENUMS and name.isupper() and path.startswith("airflow"):
            return name.lower()
        if path in ("airflow.__version__", "airflow.version.version", "airflow.version.__version__"):
            return values.Soft(_VERSION, f"{path}, {_VERSION}", path, Place(self.machine.module.place, 1))
        if path.endswith("settings.TIMEZONE"):
            return LIBRARY["datetime.UTC"]
        return outside.known_folder(self, path)

    def call_foreign(self, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
        """Return a call of an object that is not in the root."""
        path, name = function.path, function.name
        if path in CALLED:
            return CALLED[path].call(self.machine, arguments, node)
        handler = self._handler(path, name)
        if handler is not None:
            return handler(self, function, arguments, node)
        if name == "__init__" and arguments.positional and isinstance(arguments.positional[0].value, values.Instance):
            return self.initialise(arguments.positional[0].value, arguments.rest(), node)
        parent = path.rpartition(".")[0]
        if name == "partial" and is_operator(parent):
            return self.partial_of(values.Foreign(parent), arguments, node)
        return self._call_class(function, arguments, node)

    def _handler(self, path: str, name: str) -> Handler | None:
        for ending, handler in _ENDINGS.items():
            if path == ending or path.endswith("." + ending):
                return handler
        if path.startswith("airflow"):
            if re.search(r"(^|\.)task\.\w+$", path):
                return decorators.task_decorator
            return _NAMES.get(name)
        return None

    def _call_class(self, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
        path, name = function.path, function.name
        if looks_like_dag(path, arguments):
            self.machine.warn("unknown-call", f"{path} makes a DAG in a way that is unknown", node)
            return self.make_dag(arguments, node)
        if name[:1].isupper() and name.endswith("TaskGroup") and arguments.get("group_id"):
            self.machine.warn("unknown-call", f"the tasks that {path} makes are unknown", node)
            return self.make_group(arguments, node)
        if is_operator(path) or ("task_id" in arguments.named and not path.startswith("airflow.models.taskinstance")):
            if not is_operator(path) and not name[:1].isupper():
                self.machine.warn("unknown-call", f"{path} is assumed to make one task", node)
            return self.make_task(path, arguments, node)
        if len(arguments.positional) == 1 and not arguments.named:
            only = arguments.positional[0].value
            decorates = not name[:1].isupper() and not path.startswith("inspect.")
            if isinstance(only, (values.Function, values.Class, nodes.TaskFactory)) and decorates:
                return only
        handed = self._hands_over(arguments) and not only_shows(path)
        if handed or (not harmless(path) and self.context.dag() is not None):
            self.machine.warn("unknown-call", f"what {path} adds to the DAG is unknown", node)
        if not name[:1].isupper() and not only_shows(path):
            self.machine.asked += 1
        return values.ForeignValue(self.machine.source(node), self.machine.place(node), path=path, arguments=arguments)

    def _hands_over(self, arguments: values.Arguments) -> bool:
        """Return whether a call gets DAGs, tasks or groups, or all names of the module."""
        names = self.machine.module.scope.names
        return any(self.machine.mentions(one) or values.hard(one) is names for one in arguments.values())

    def call_unknown(self, function: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        """Return a call of an unknown object."""
        if isinstance(function, values.Unknown) and "task_id" in arguments.named:
            self.machine.warn("unknown-call", f"`{function.source[:60]}` is assumed to make one task", node)
            return self.make_task(function.source, arguments, node)
        if len(arguments.positional) == 1 and isinstance(
            arguments.positional[0].value, (values.Function, values.Class)
        ):
            return self.machine.unknown(node)
        path = function.origin.removeprefix("call:") if isinstance(function, values.Unknown) else ""
        inside = self.context.dag() is not None and path != getattr(function, "origin", "") and not harmless(path)
        if inside or (self._hands_over(arguments) and not only_shows(path)):
            text = f"what `{self.machine.source(node)[:60]}` adds to the DAG is unknown"
            self.machine.warn("unknown-call", text, node)
        if not only_shows(path):
            self.machine.asked += 1
        return self.machine.unknown(node)

    def call_value(self, function: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        """Return a call of one of Airflow's own objects."""
        match function:
            case nodes.TaskFactory():
                return decorators.taskflow(self, function, arguments, node)
            case nodes.GroupFactory():
                return decorators.grouped(self, function, arguments, node)
            case nodes.DagFactory():
                return decorators.decorated_dag(self, function, arguments, node)
            case PartialCall():
                return self.machine.call(function.function, function.arguments.joined(arguments), node)
        return MISSING

    def item(self, value: Any, key: Any, node: ast.AST) -> Any:
        """Return ``value[key]`` of one of Airflow's own objects, or of the environment."""
        if isinstance(value, nodes.XCom):
            return nodes.XCom(value.task, values.hard(key), value.path, value.parts)
        if isinstance(value, nodes.Group):
            return value.child(str(values.hard(key))) or self.machine.unknown(node)
        if isinstance(value, values.Foreign):
            if value.path == "os.environ":
                return outside.environment(self, values.hard(key), None, node)
            module = self.machine.module
            if value.path == "sys.modules" and values.hard(key) == module.scope.names.get("__name__"):
                return module
            if value.name in _ENUMS and isinstance(values.hard(key), str) and value.path.startswith("airflow"):
                return self.lookup(f"{value.path}.{values.hard(key)}")
            return value if value.name[:1].isupper() else self.machine.unknown(node)
        if isinstance(value, values.Native):
            return value
        return MISSING

    def operate(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any:
        """Apply ``>>`` or ``<<`` to tasks, ``|`` or ``&`` to assets, ``+`` or ``-`` to moments."""
        if kind is ast.RShift or kind is ast.LShift:
            one = values.hard(left)
            shifts = (
                isinstance(one, values.Instance) and one.special("__rshift__") is not None
            )  # the file defines ``>>``
            if not edges.joins(left) and (not edges.joins(right) or shifts):
                edges.suspect(self, left, right, node)
                return MISSING
            edges.join(self, *((left, right) if kind is ast.RShift else (right, left)), node)
            return right
        if (
            kind in (ast.BitOr, ast.BitAnd)
            and isinstance(values.hard(left), nodes.Asset)
            and isinstance(values.hard(right), nodes.Asset)
        ):
            return assets.condition("any" if kind is ast.BitOr else "all", values.hard(left), values.hard(right))
        return (
            outside.shifted(self, values.hard(left), values.hard(right), node)
            if kind in (ast.Add, ast.Sub)
            else MISSING
        )

    def attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        """Return an attribute of one of Airflow's own objects."""
        return attributes.attribute(self, value, name, node)

    def assign(self, value: Any, name: str, new: Any, node: ast.AST) -> bool:
        """Set an attribute of one of Airflow's own objects. Returns whether it was set."""
        return attributes.assign(self, value, name, new, node)

    def assign_item(self, value: Any, key: Any, new: Any, node: ast.AST) -> None:
        """Set ``value[key] = new`` in the environment."""
        if isinstance(value, values.Foreign) and value.path == "os.environ":
            outside.set_environment(self, values.hard(key), new, node)

    def enter(self, value: Any, node: ast.AST) -> Any:
        """Enter ``with value as …:``. Returns the value that ``as`` names."""
        return edges.enter(self, value, node)

    def leave(self, value: Any, node: ast.AST) -> None:
        if isinstance(value, Stack):
            value.close(self.machine, node)
        else:
            edges.leave(self, value, node)


def _xcom_arg(world: Making, function: values.Foreign, arguments: values.Arguments, node: ast.AST) -> Any:
    task = values.hard(arguments.value("operator", 0))
    if isinstance(task, nodes.XCom):
        return task
    known = isinstance(task, nodes.Task)
    return (
        nodes.XCom(task, values.hard(arguments.value("key", 1, "return_value")))
        if known
        else world.machine.unknown(node)
    )


_NAMES: Mapping[str, Handler] = {
    "DAG": lambda world, _, arguments, node: world.make_dag(arguments, node),
    "TaskGroup": lambda world, _, arguments, node: world.make_group(arguments, node),
    "XComArg": _xcom_arg,
    "PlainXComArg": _xcom_arg,
    "TriggerRule": lambda world, _, arguments, node: arguments.value("value", 0, world.machine.unknown(node)),
    **assets.NAMES,
    **decorators.NAMES,
    **edges.NAMES,
    **outside.NAMES,
}
_ENDINGS: Mapping[str, Handler] = {**assets.ENDINGS, **attributes.ENDINGS, **outside.ENDINGS}
