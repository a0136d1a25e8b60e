"""Classes of fields: dataclasses, named tuples, attrs, pydantic."""

from __future__ import annotations

import ast
import re
from typing import Any

from flowyml.migration.airflow.reader.library.natives import natives
from flowyml.migration.airflow.reader.values import Arguments, Class, Given, Instance, Native, NotKnown, hard


def annotated(cls: Class) -> list[tuple[str, str]]:
    """Return the annotated names in the body of a class, with the names of their annotations: ``ClassVar``, ``str``."""
    lines = [one for one in cls.node.body if isinstance(one, ast.AnnAssign)]
    return [(one.target.id, _called(one.annotation)) for one in lines if isinstance(one.target, ast.Name)]


def _called(annotation: ast.expr) -> str:
    match annotation:
        case ast.Subscript(value=of):
            return _called(of)
        case ast.Constant(value=str() as text):
            return re.split(r"[\[ ]", text.strip())[0].rpartition(".")[2]
    return annotation.attr if isinstance(annotation, ast.Attribute) else getattr(annotation, "id", "")


def places_of_fields(cls: Class) -> dict[str, int | None]:
    """Return the fields that ``__init__`` takes, each with its position; None for keyword-only ones."""
    found: dict[str, int | None] = {}
    by_name: set[str] = set()
    for base in (one for one in cls.mro() if isinstance(one, Class)):
        names = [name for name, _ in annotated(base)]
        mark = next((at for at, (_, kind) in enumerate(annotated(base)) if kind == "KW_ONLY"), len(names))
        by_name.update(names[mark:])
    for name, default in (cls.fields or {}).items():
        called = getattr(default, "arguments", None)
        options = {key: hard(called.value(key)) for key in ("init", "kw_only")} if called is not None else {}
        if options.get("init") is False:
            continue
        place = len([one for one in found.values() if one is not None])
        found[name] = None if name in by_name or options.get("kw_only") is True else place
    return found


def only_for_init(cls: Class, instance: Instance) -> Arguments:
    """Return the arguments of a dataclass's ``__post_init__``: the values of its ``InitVar`` fields."""
    bases = [one for one in reversed(cls.mro()) if isinstance(one, Class)]
    names = {name: None for base in bases for name, kind in annotated(base) if kind == "InitVar"}
    return Arguments([Given(instance.attributes.get(name)) for name in names])


def _dataclass(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    if not arguments.positional or not isinstance(arguments.positional[0].value, Class):
        return Native("dataclass", lambda _, given, __: _shaped(machine, given.positional[0].value))
    return _shaped(machine, arguments.positional[0].value)


def _shaped(machine: Any, value: Any) -> Any:
    return machine.fields(value) if isinstance(value, Class) else value


def _named_tuple(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name, spec = hard(arguments.value("typename", 0)), hard(arguments.value("field_names", 1))
    names = spec.replace(",", " ").split() if isinstance(spec, str) else spec
    if not isinstance(names, (list, tuple)) or not all(isinstance(hard(one), str) for one in names):
        raise NotKnown
    empty = ast.ClassDef(name=str(name), bases=[], keywords=[], body=[], decorator_list=[])
    fields: dict[Any, Any] = dict.fromkeys(map(hard, names), machine.unknown(node))
    defaults = hard(arguments.value("defaults"))
    if isinstance(defaults, (list, tuple)):  # of the last fields
        fields |= dict(zip(reversed(fields), reversed(defaults), strict=False))
    return Class(str(name), empty, machine.module, (), {}, fields)


def _replaced(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Copy an instance with other values of some fields, by ``dataclasses.replace`` or ``_replace``."""
    old = arguments.expect(Instance, "obj", 0)
    if old.cls is None or old.cls.fields is None:
        raise NotKnown
    named = {name: Given(old.attributes.get(name)) for name in old.cls.fields} | arguments.named
    return machine.instantiate(old.cls, Arguments([], named), node)


def _fields(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return the ``dataclasses.fields`` of a class or instance, each an object with a ``name``."""
    value = hard(arguments.value("class_or_instance", 0))
    cls = value.cls if isinstance(value, Instance) else value
    if not isinstance(cls, Class) or cls.fields is None:
        raise NotKnown
    return tuple(Instance(None, {"name": name}) for name in cls.fields)


def _unfolded(machine: Any, value: Any, depth: int = 0) -> Any:
    value = hard(value)
    machine.step()
    if depth > 20:
        return value
    if isinstance(value, Instance) and value.cls is not None and value.cls.fields is not None:
        return {name: _unfolded(machine, value.attributes.get(name), depth + 1) for name in value.cls.fields}
    if isinstance(value, (list, tuple)):
        return [_unfolded(machine, one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {key: _unfolded(machine, one, depth + 1) for key, one in value.items()}
    return value


def instance_method(machine: Any, value: Instance, name: str) -> Any:
    """Return a method that named tuples, dataclasses and pydantic models give their instances.

    None for any other name.
    """
    if value.cls is None or value.cls.fields is None:
        return None
    if name in ("_asdict", "dict", "model_dump"):
        return Native(name, lambda _, given, node: _dumped(machine, value, given, node))
    if name == "_replace":
        return Native(name, lambda _, given, node: _replaced(machine, Arguments([Given(value)], given.named), node))
    if name in ("copy", "model_copy"):
        return Native(name, lambda _, given, node: _updated(machine, value, given, node))
    return None


def _dumped(machine: Any, value: Instance, given: Arguments, node: ast.AST) -> Any:
    """Return a dictionary of all fields; unknown if options leave some of them out."""
    is_whole = all(hard(each.value) in (False, None) for name, each in given.named.items() if name not in _KEEPS_ALL)
    return _unfolded(machine, value) if is_whole and not given.open else machine.unknown(node)


def _updated(machine: Any, value: Instance, given: Arguments, node: ast.AST) -> Any:
    """Return a copy of a pydantic model with other values of the fields that ``update`` names."""
    named = _named(given.expect(dict, "update", None, {}))
    if given.open:
        raise NotKnown
    return _replaced(machine, Arguments([Given(value)], named), node)


def _named(items: dict[Any, Any]) -> dict[str, Given]:
    """Return the items of a dictionary as arguments."""
    return {str(hard(key)): Given(one) for key, one in items.items()}


_KEEPS_ALL = frozenset({"mode", "indent", "round_trip", "warnings", "serialize_as_any"})
"""Options of ``model_dump`` that leave no field out."""


def class_method(value: Class, name: str) -> Any:
    """Return ``_fields`` or ``_make`` of a record, or a pydantic model's reader of a dictionary; else None."""
    if name == "_fields" and value.fields is not None:
        return tuple(value.fields)
    if name == "_make" and value.fields is not None:
        return Native(name, lambda machine, given, node: _made_of(machine, value, given, node))
    if name not in ("parse_obj", "model_validate") or not _is_model(value):
        return None

    def make(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        return machine.instantiate(value, Arguments([], _named(arguments.expect(dict, "obj", 0))), node)

    return Native(name, make)


def _made_of(machine: Any, cls: Class, arguments: Arguments, node: ast.AST) -> Any:
    items = machine.items_of(arguments.value("iterable", 0), node)
    return machine.instantiate(cls, Arguments.of(*items), node)


def _is_model(cls: Class) -> bool:
    return any(one.name in ("BaseModel", "BaseSettings") for one in cls.foreign())


def validated(machine: Any, cls: Class, name: str, value: Any) -> Any:
    """Return a field's value. If the field is annotated with a pydantic model, a dictionary becomes one."""
    if not _is_model(cls) or not isinstance(hard(value), (dict, list)):
        return value
    bodies = [(base, base.node.body) for base in cls.mro() if isinstance(base, Class)]
    for of, one in ((base, each) for base, body in bodies for each in body):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.target.id == name:
            with machine.inside(of.module.scope, of.module):
                return _as_annotated(machine, one.annotation, value)
    return value


def changing_validators(cls: Class) -> list[ast.FunctionDef]:
    """Return the validators of a pydantic model that may change its fields; the caller warns, since none is run."""
    found = [one for one in cls.node.body if isinstance(one, ast.FunctionDef) and _validates(one)]
    return [one for one in found if any(map(_may_change, ast.walk(one)))]


def _validates(node: ast.FunctionDef) -> bool:
    called = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return any((getattr(one, "attr", "") or getattr(one, "id", "")).endswith("validator") for one in called)


def _may_change(node: ast.AST) -> bool:
    returns = isinstance(node, ast.Return) and not isinstance(node.value, (ast.Name, type(None)))
    return returns or isinstance(node, ast.Assign | ast.AugAssign)


def _is_mapping(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("dict", "Dict", "Mapping", "MutableMapping")


def _as_annotated(machine: Any, annotation: ast.expr, value: Any) -> Any:
    machine.step()
    match annotation, hard(value):
        case ast.Constant(value=str() as text), _:
            return _as_annotated(machine, ast.parse(text, mode="eval").body, value)
        case ast.BinOp(left=left, right=right), _:
            return _as_annotated(machine, right, _as_annotated(machine, left, value))
        case ast.Subscript(value=of, slice=ast.Tuple(elts=[_, kind])), dict() as items if _is_mapping(of):
            return {key: _as_annotated(machine, kind, one) for key, one in items.items()}
        case ast.Subscript(slice=kind), list() as items:
            return [_as_annotated(machine, kind, one) for one in items]
        case ast.Subscript(slice=kind), _:  # Optional
            return _as_annotated(machine, kind, value)
        case ((ast.Name() | ast.Attribute()), dict() as items):
            model = machine.eval(annotation)
            if isinstance(model, Class) and model.fields is not None:
                return machine.instantiate(model, Arguments([], _named(items)), annotation)
    return value


NAMES = natives({
    "dataclasses.replace": _replaced,
    "dataclasses.asdict": lambda machine, arguments, node: _unfolded(machine, arguments.value("obj", 0)),
    "dataclasses.astuple": lambda machine, arguments, node: (
        tuple(found.values()) if isinstance(found := _unfolded(machine, arguments.value("obj", 0)), dict) else found
    ),
    "dataclasses.fields": _fields,
    "dataclasses.dataclass": _dataclass,
    "pydantic.dataclasses.dataclass": _dataclass,
    "attr.s": _dataclass,
    "attrs.define": _dataclass,
    "collections.namedtuple": _named_tuple,
    "types.SimpleNamespace": lambda machine, arguments, node: Instance(
        None, {name: given.value for name, given in arguments.named.items()}
    ),
})  # fmt: skip
