"""Builtins that inspect objects, classes and scopes, and evaluate text; ``inspect``."""

from __future__ import annotations

import ast
import collections
import collections.abc
import datetime
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.library.natives import natives
from flowyml.migration.airflow.reader.machine import is_code
from flowyml.migration.airflow.reader.parts import flat

_KINDS: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
    "tuple": tuple,
    "set": set,
    "bytes": bytes,
    "datetime": datetime.datetime,
    "date": datetime.date,
    "timedelta": datetime.timedelta,
    "Mapping": collections.abc.Mapping,
    "Sequence": (list, tuple, str, range),
    "Iterable": collections.abc.Iterable,
    "List": list,
    "Dict": dict,
    "MutableMapping": collections.abc.MutableMapping,
    "OrderedDict": collections.OrderedDict,
    "MutableSequence": list,
    "Set": (set, frozenset),
    "frozenset": frozenset,
    "Collection": (list, tuple, str, dict, set, frozenset, range),
    "Number": (int, float),
    "Path": PurePosixPath,
    "PosixPath": PurePosixPath,
    "PurePosixPath": PurePosixPath,
    "PurePath": PurePosixPath,
    "NoneType": type(None),
    "basestring": str,  # of Python 2, as `past` has it; then those of `six`
    "string_types": str,
    "text_type": str,
    "integer_types": int,
}


_MADE = frozenset({"BaseOperator", "DAG", "TaskGroup", "bool", "dict", "float", "int", "list", "set", "str", "tuple"})
"""Classes whose instances are neither functions, classes nor modules."""
_ASKED_OF_METHODS = frozenset({"Callable", "Collection", "Iterable", "Iterator", "Mapping", "Sequence", "Sized"})
_PLAIN = frozenset({str, bytes, int, float, bool, type(None), list, tuple, dict, set})
"""Classes whose values have the attributes that they have in Python.

A text may be a member of an enumeration of Airflow's, with a name and a value.
"""
_NONE_TYPE = values.Foreign("types.NoneType")
_EMPTY = frozenset({"abc.ABC", "builtins.object", "object", "typing.Generic", "typing.Protocol"})
"""Classes of the standard library whose subclasses inherit no names."""


def _isinstance(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    value, kinds = values.hard(arguments.value("obj", 0)), values.hard(arguments.value("cls", 1))
    return _one_of([_is_kind(value, values.hard(kind)) for kind in flat(kinds)])


def _issubclass(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    cls = arguments.expect(values.Class, "cls", 0)
    return _one_of([_is_below(cls, values.hard(kind)) for kind in flat(arguments.value("class_or_tuple", 1))])


def _one_of(answers: list[bool | None]) -> bool:
    """Return whether one of some answers is true. Raises ``NotKnown`` if that depends on an unknown one."""
    if True not in answers and None in answers:
        raise values.NotKnown
    return True in answers


def _is_below(cls: values.Class, kind: Any) -> bool | None:
    if isinstance(kind, values.Class):
        return kind in cls.mro()
    if not isinstance(kind, values.Foreign):
        return None
    names = {one.name for one in cls.foreign() if one.path not in _EMPTY}
    return kind.name in names or (None if names else False)


def _is_kind(value: Any, kind: Any) -> bool | None:
    if isinstance(value, values.Unknown) or isinstance(kind, values.Unknown):
        return None
    if isinstance(value, (values.Foreign, values.Function, values.Class, values.Module, values.Native, values.Bound)):
        certain = not isinstance(value, values.Foreign) or is_code(value) or value.name in _MADE
        return False if certain and getattr(kind, "name", "") in _MADE else None
    if isinstance(value, values.Once) and isinstance(kind, (values.Native, values.Foreign)):
        return kind.name in ("Iterator", "Iterable", "Generator")
    if isinstance(kind, values.Class):
        return isinstance(value, values.Instance) and value.cls is not None and kind in value.cls.mro()
    name = kind.name if isinstance(kind, (values.Native, values.Foreign)) else ""
    if type(value) is values.Instance and name in _ASKED_OF_METHODS:
        return None
    if name in _KINDS:
        return isinstance(value, _KINDS[name])
    if isinstance(value, values.Instance):
        return type(value).__name__ == {"DAG": "Dag", "TaskGroup": "Group", "BaseOperator": "Task"}.get(name, name)
    return False if isinstance(value, (str, int, float, list, dict, tuple, set, type(None))) else None


def _getattr(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    owner, name = arguments.value("o", 0), arguments.expect(str, "name", 1)
    if len(arguments.positional) < 3:
        return machine.attribute(owner, name, node)
    there = _has(owner, name)
    if there is False:
        return arguments.positional[2].value
    if there is None and isinstance(values.hard(owner), values.Class):
        raise values.NotKnown
    try:
        return machine.attribute(owner, name, node)
    except values.Raised as error:  # by a `__getattr__`
        if error.kind != "AttributeError":
            raise
        return arguments.positional[2].value


def _has(owner: Any, name: str) -> bool | None:
    owner = values.hard(owner)
    if isinstance(owner, values.Module):
        return name in owner.scope.names
    if type(owner) in _PLAIN:
        return hasattr(owner, name) or (None if name in ("name", "value") else False)
    if isinstance(owner, values.Function):
        return name in owner.attributes or name in ("__name__", "__doc__") or (False if name[:2] != "__" else None)
    if isinstance(owner, values.Class):
        others = {one.path for one in owner.foreign()} - _EMPTY
        return any(name in one.names for one in owner.mro() if isinstance(one, values.Class)) or (
            None if others else False
        )
    if type(owner) is values.Instance and owner.cls is not None:
        there = name in owner.attributes or _has(owner.cls, name)
        return None if there is False and owner.cls.find("__getattr__") is not None else there
    return None


def _hasattr(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    owner, name = arguments.value("o", 0), str(values.hard(arguments.value("name", 1)))
    found = _has(owner, name)
    if found is None and isinstance(values.hard(owner), values.Instance) and values.hard(owner).special("__getattr__"):
        try:
            found = None if isinstance(values.hard(machine.attribute(owner, name, node)), values.Unknown) else True
        except values.Raised as error:
            if error.kind != "AttributeError":
                raise
            found = False
    return machine.unknown(node) if found is None else found


def _setattr(machine: Any, arguments: values.Arguments, node: ast.AST) -> None:
    name = values.hard(arguments.value("name", 1))
    if isinstance(name, str):
        machine.assign_attribute(arguments.value("o", 0), name, arguments.value("value", 2), node)


def _delattr(machine: Any, arguments: values.Arguments, node: ast.AST) -> None:
    name = values.hard(arguments.value("name", 1))
    if isinstance(name, str):
        machine.delete_attribute(values.hard(arguments.value("o", 0)), name)


def _vars(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    if arguments.positional:
        return machine.attribute(arguments.positional[0].value, "__dict__", node)
    return machine.scope.names


def _super(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    cls, owner = values.hard(arguments.value("type", 0)), values.hard(arguments.value("object_or_type", 1))
    return values.Super(cls, owner) if isinstance(cls, values.Class) and owner is not None else machine.make_super(node)


def _type(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    value = values.hard(arguments.value("object", 0))
    if isinstance(value, values.Instance) and value.cls is not None:
        return value.cls
    if value is None:
        return _NONE_TYPE
    if len(arguments.positional) == 3:
        return _made_class(machine, arguments, node)
    if len(arguments.positional) == 1 and type(value).__name__ in machine.builtins:
        return machine.builtins[type(value).__name__]
    raise values.NotKnown


def _made_class(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    """Make a class by ``type(name, bases, names)``."""
    name, bases, names = (values.hard(given.value) for given in arguments.positional)
    if not isinstance(name, str) or not isinstance(bases, tuple) or not isinstance(names, dict):
        raise values.NotKnown
    empty = ast.ClassDef(name=name, bases=[], keywords=[], body=[], decorator_list=[])
    return values.Class(
        name,
        empty,
        machine.module,
        tuple(one for one in bases if isinstance(one, (values.Class, values.Foreign))),
        dict(names),
    )


def _evaluated(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    """Evaluate the text of ``eval(text)`` like the rest of the file."""
    text = arguments.expect(str, "expression", 0)
    if len(text) > 10_000:
        raise values.NotKnown
    machine.step(len(text) // 4)
    tree = machine.attempt(node, ast.parse, text.strip(), "<eval>", "eval")
    return machine.elsewhere(text, lambda: machine.eval(tree.body)) if isinstance(tree, ast.Expression) else tree


def _executed(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    """Execute the text of ``exec(text)`` like the rest of the file."""
    text = arguments.expect(str, "source", 0)
    elsewhere = [one for one in arguments.positional[1:2] if values.hard(one.value) is not machine.module.scope.names]
    if len(text) > 50_000 or elsewhere:
        raise values.NotKnown
    machine.step(len(text) // 4)
    tree = machine.attempt(node, ast.parse, text, "<exec>")
    if isinstance(tree, ast.Module):
        machine.elsewhere(text, lambda: machine.block(tree.body))
    return None


def _callable(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    value = values.hard(arguments.value("object", 0))
    if isinstance(value, (values.Function, values.Class, values.Native, values.Bound)):
        return True
    if type(value) is values.Instance and value.cls is not None and not value.cls.foreign():
        return value.special("__call__") is not None
    return False if isinstance(value, (str, int, float, list, dict, tuple, type(None))) else machine.unknown(node)


def _marking(kind: str) -> Callable[..., Any]:
    def mark(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        function = arguments.value("function", 0)
        if isinstance(function, values.Function):
            function.kind = kind
        return function

    return mark


NAMES = natives({
    "dir": lambda machine, arguments, node: _dir(machine, arguments),
    "isinstance": _isinstance,
    "issubclass": _issubclass,
    "getattr": _getattr,
    "hasattr": _hasattr,
    "setattr": _setattr,
    "delattr": _delattr,
    "globals": lambda machine, arguments, node: machine.module.scope.names,
    "locals": lambda machine, arguments, node: machine.scope.names,
    "vars": _vars,
    "super": _super,
    "type": _type,
    "callable": _callable,
    "eval": _evaluated,
    "exec": _executed,
    "staticmethod": _marking("static"),
    "classmethod": _marking("class"),
    "property": _marking("property"),
})  # fmt: skip

_WITHOUT_NAMES = frozenset({"ABC", "object", "Generic", "Protocol"})
"""Bases from other libraries whose subclasses inherit only names with underscores."""


def _names_of(value: Any) -> list[str]:
    """Return the names that a file gives to a module, class or instance. Raises ``NotKnown`` if a library adds some."""
    if isinstance(value, values.Module) and not value.stars:
        return sorted(map(str, value.scope.names))
    cls = value.cls if type(value) is values.Instance else value
    if not isinstance(cls, values.Class) or any(one.name not in _WITHOUT_NAMES for one in cls.foreign()):
        raise values.NotKnown
    found = {name for one in cls.mro() if isinstance(one, values.Class) for name in one.names}
    return sorted({*found, *(value.attributes if isinstance(value, values.Instance) else ())})


def _dir(machine: Any, arguments: values.Arguments) -> list[str]:
    if not arguments.positional:
        return sorted(map(str, machine.scope.names))
    return _names_of(values.hard(arguments.positional[0].value))


def _members(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    """Return the pairs of ``inspect.getmembers(value, predicate)``, each of a name and its value."""
    value, wanted = values.hard(arguments.value("object", 0)), arguments.value("predicate", 1)
    found: list[Any] = []
    for name in _names_of(value):
        member = machine.attribute(value, name, node)
        answer = True if wanted is None else machine.truth(machine.call(wanted, values.Arguments.of(member), node))
        if answer is None:
            raise values.NotKnown
        if answer:
            found.append((name, member))
    return found


def _is_a(kind: type) -> Callable[..., Any]:
    def call(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        value = values.hard(arguments.value("object", 0))
        return machine.unknown(node) if isinstance(value, values.Unknown) else isinstance(value, kind)

    return call


def _signature(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
    """Return the ``inspect.signature`` of a function or method of the root, with its ``parameters``."""
    value = values.hard(arguments.value("obj", 0))
    function = value.function if isinstance(value, values.Bound) else value
    if not isinstance(function, values.Function) or function.wraps:
        raise values.NotKnown
    spec = function.node.args
    args = [*spec.posonlyargs, *spec.args][isinstance(value, values.Bound) :]
    args += [*([spec.vararg] if spec.vararg else []), *spec.kwonlyargs, *([spec.kwarg] if spec.kwarg else [])]
    parameters = {
        one.arg: values.Instance(
            None, {"name": one.arg, "default": function.defaults.get(one.arg, machine.unknown(node))}
        )
        for one in args
    }
    return values.Instance(None, {"parameters": parameters})


INSPECT = natives({
    "inspect.getmembers": _members,
    "inspect.isclass": _is_a(values.Class),
    "inspect.isfunction": _is_a(values.Function),
    "inspect.ismethod": _is_a(values.Bound),
    "inspect.signature": _signature,
})  # fmt: skip
