"""Functions of functions and of modules: functools, operator, contextlib, importlib, decorators."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from flowyml.migration.airflow.reader.library.natives import natives, nothing
from flowyml.migration.airflow.reader.values import Arguments, Class, Function, Instance, Native, NotKnown, hard


class PartialCall(Instance):
    """``functools.partial``."""

    def __init__(self, function: Any, arguments: Arguments) -> None:
        super().__init__(None)
        self.function = function
        self.arguments = arguments


class Stack(Instance):
    """``contextlib.ExitStack``: at its end, it exits what was entered through it, last first."""

    def __init__(self) -> None:
        super().__init__(None)
        self.entered: list[Any] = []

    def enter(self, machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        value = hard(arguments.value("cm", 0))
        found = machine.entered(value, node)
        self.entered.append(value)
        return found

    def callback(self, machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        function = arguments.positional[0].value
        self.entered.append(PartialCall(function, arguments.rest()))
        return function

    def close(self, machine: Any, node: ast.AST) -> None:
        while self.entered:
            one = self.entered.pop()
            if isinstance(one, PartialCall):
                machine.call(one, Arguments(), node)
            else:
                machine.exited(one, node)


def _wraps(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    wrapped = arguments.value("wrapped", 0)

    def rename(_: Any, given: Arguments, __: ast.AST) -> Any:
        function = given.value("function", 0)
        if isinstance(function, Function) and isinstance(wrapped, Function):
            function.name, function.wraps = wrapped.name, True
        return function

    return Native("wraps", rename)


def _identity(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return a decorator, with or without arguments, that does not change a function."""
    if len(arguments.positional) == 1 and isinstance(arguments.positional[0].value, (Function, Class)):
        return arguments.positional[0].value
    return Native("decorator", lambda _, given, __: given.value("function", 0))


def _cached(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Apply ``functools.lru_cache``, with or without arguments."""
    function = arguments.positional[0].value if len(arguments.positional) == 1 else None
    if isinstance(function, Function):
        function.cached = {}
        return function
    return Native("cached", _cached)


def _cached_property(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function = arguments.value("func", 0)
    if isinstance(function, Function):
        function.kind, function.cached = "property", {}
    return function


def _context_manager(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    function = arguments.value("func", 0)
    if isinstance(function, Function):
        function.context_manager = True
    return function


def _import_module(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name = arguments.expect(str, "name", 0)
    if name.startswith("."):
        up = len(name) - len(name.lstrip(".")) - 1
        parts = arguments.expect(str, "package", 1).split(".")
        name = ".".join([*parts[: len(parts) - up], name.lstrip(".")])
    return machine.imported(name, node)


def _spec(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    """Return the spec that ``spec_from_file_location`` or ``SourceFileLoader`` makes for a file of the root."""
    name, path = hard(arguments.value("name", 0)), hard(arguments.value("location", 1, arguments.value("path")))
    found = machine.files.resolve(str(path)) if isinstance(path, (str, PurePosixPath)) else None
    if not isinstance(name, str) or found is None or not found.is_file():
        raise NotKnown
    loader = Instance(None, {"load_module": Native("load_module", lambda *_: machine.load(name, found, node))})
    loader.attributes["exec_module"] = Native("exec_module", nothing)  # the module is evaluated when it is created
    return Instance(None, {**loader.attributes, "name": name, "loader": loader, "origin": str(found)})


def _loaded(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    spec = hard(arguments.value("spec", 0))
    load = spec.attributes.get("load_module") if isinstance(spec, Instance) else None
    return load.call(machine, Arguments(), node) if isinstance(load, Native) else machine.unknown(node)


def _operation(method: str, kind: type[ast.AST], *, swapped: bool = False) -> Callable[..., Any]:
    """Return a function of ``operator`` for two values; ``method`` is the evaluator's, ``operate`` or ``compare``."""

    def call(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        pair = [arguments.value("a", 0), arguments.value("b", 1)]
        return getattr(machine, method)(kind, *(reversed(pair) if swapped else pair), node)

    return call


def _getter(get: Callable[[Any, Any, Any, ast.AST], Any]) -> Callable[..., Any]:
    """Return ``itemgetter`` or ``attrgetter``: with several names, the getter returns a tuple."""

    def make(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        names = [given.value for given in arguments.positional]

        def call(_: Any, given: Arguments, __: ast.AST) -> Any:
            found = [get(machine, given.value("obj", 0), name, node) for name in names]
            return found[0] if len(found) == 1 else tuple(found)

        return Native("getter", call)

    return make


def _dotted(machine: Any, value: Any, path: Any, node: ast.AST) -> Any:
    for name in str(hard(path)).split("."):
        value = machine.attribute(value, name, node)
    return value


def _method_caller(machine: Any, arguments: Arguments, node: ast.AST) -> Any:
    name = str(hard(arguments.positional[0].value))

    def call(_: Any, given: Arguments, where: ast.AST) -> Any:
        return machine.call(machine.attribute(given.value("obj", 0), name, where), arguments.rest(), where)

    return Native("caller", call)


_COMPARISONS: Mapping[str, type[ast.cmpop]] = {
    "eq": ast.Eq, "ge": ast.GtE, "gt": ast.Gt, "is_": ast.Is, "is_not": ast.IsNot, "le": ast.LtE, "lt": ast.Lt,
    "ne": ast.NotEq,
}  # fmt: skip
_OPERATIONS: Mapping[str, type[ast.operator]] = {
    "add": ast.Add, "and_": ast.BitAnd, "concat": ast.Add, "floordiv": ast.FloorDiv, "iadd": ast.Add,
    "ilshift": ast.LShift, "irshift": ast.RShift, "lshift": ast.LShift, "mod": ast.Mod, "mul": ast.Mult,
    "or_": ast.BitOr, "rshift": ast.RShift, "sub": ast.Sub, "truediv": ast.Div,
}  # fmt: skip


NAMES = natives({
    **{f"operator.{name}": _operation("operate", kind) for name, kind in _OPERATIONS.items()},
    "contextlib.contextmanager": _context_manager,
    "contextlib.ExitStack": lambda machine, arguments, node: Stack(),
    "functools.partial": lambda _, arguments, __: PartialCall(arguments.positional[0].value, arguments.rest()),
    "functools.wraps": _wraps,
    "functools.lru_cache": _cached,
    "functools.cache": _cached,
    "functools.cached_property": _cached_property,
    "functools.singledispatch": lambda machine, arguments, node: machine.unknown(node),
    "abc.abstractmethod": _identity,
    "typing.overload": _identity,
    "typing.cast": lambda machine, arguments, node: arguments.value("val", 1),
    "importlib.import_module": _import_module,
    "importlib.machinery.SourceFileLoader": _spec,
    "importlib.util.module_from_spec": _loaded,
    "importlib.util.spec_from_file_location": _spec,
    "imp.load_source": lambda machine, given, node: _loaded(
        machine, Arguments.of(_spec(machine, given, node)), node
    ),
    "operator.itemgetter": _getter(lambda machine, value, key, node: machine.item(value, key, node)),
    "operator.attrgetter": _getter(_dotted),
    "operator.methodcaller": _method_caller,
    "operator.contains": _operation("compare", ast.In, swapped=True),
    **{f"operator.{name}": _operation("compare", kind) for name, kind in _COMPARISONS.items()},
    "operator.getitem": lambda machine, given, node: machine.item(given.value("a", 0), given.value("b", 1), node),
})  # fmt: skip
