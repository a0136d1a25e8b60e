"""Functions and classes of the root: calls and instances."""

from __future__ import annotations

import ast
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.files import Files
from flowyml.migration.airflow.reader.library import records
from flowyml.migration.airflow.reader.loops import Abandoned, Return
from flowyml.migration.airflow.reader.machine import MISSING, Options, private
from flowyml.migration.airflow.reader.statements import ContextCall, Statements

_MOST_BASES = 100
"""The largest number of bases of a class: each lookup of a name goes over them."""


class Calls(Statements):
    """Calls and instances."""

    def __init__(self, files: Files, options: Options) -> None:
        super().__init__(files, options)
        self.yields = []
        self.maybe = []
        self.doubts = []
        self.generators: dict[int, bool] = {}

    def call(self, function: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        """Return the result of ``function(arguments)``."""
        self.step()
        match function:
            case values.Native():
                return function.call(self, arguments, node)
            case values.Function():
                return self._call_function(function, arguments, node)
            case values.Bound():
                owned = arguments.after(function.owner)
                return self._call_function(function.function, owned, node)
            case values.Class():
                return self.instantiate(function, arguments, node)
            case values.Foreign():
                return self.world.call_foreign(function, arguments, node)
        return self._call_other(function, arguments, node)

    def _call_other(self, function: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        if isinstance(function, values.Soft):
            return self.soft(self.call(function.value, arguments, node), function)
        if isinstance(function, values.Either):
            return self._call_either(function, arguments, node)
        found = self.world.call_value(function, arguments, node)
        if found is not MISSING:
            return found
        if isinstance(function, values.Instance) and (method := function.special("__call__")):
            return self.call(values.Bound(method, function), arguments, node)
        return self.world.call_unknown(function, arguments, node)

    def _call_either(self, function: values.Either, arguments: values.Arguments, node: ast.AST) -> Any:
        self.context.uncertain += 1
        before = self.context.effects
        found = [self.call(option, arguments, node) for option in function.options]
        self.context.uncertain -= 1
        if self.context.effects != before:
            self.warn(
                "unknown-condition", f"what `{self.source(node)[:80]}` calls is unknown: all candidates are read", node
            )
        return self.either(node, found)

    # Functions

    def _call_function(self, function: values.Function, arguments: values.Arguments, node: ast.AST) -> Any:
        if self.too_deep:
            self.warn("steps", f"calls nest too deeply in `{self.source(node)[:60]}`", node)
            return self.unknown(node)
        if function.context_manager:
            return ContextCall(function, arguments)
        if self._generates(function):
            return self.once(lambda: self._yielded_by(function, arguments, node), node)
        if isinstance(function.node, ast.AsyncFunctionDef):
            return self.unknown(node)
        if function.cached is not None and (key := _key(arguments)) is not None:
            if key not in function.cached:
                function.cached[key] = self.run(function, arguments, node, self.nothing)
            return function.cached[key]
        return self.run(function, arguments, node, self.nothing)

    def generator(self, function: Any, arguments: values.Arguments) -> tuple[Any, values.Arguments] | None:
        """Return the function and arguments of a call of a generator; None for any other."""
        function = values.hard(function)
        if isinstance(function, values.Bound):
            arguments = arguments.after(function.owner)
            function = function.function
        is_one = isinstance(function, values.Function) and not function.context_manager and self._generates(function)
        return (function, arguments) if is_one and not self.too_deep else None

    def _yielded_by(self, function: values.Function, arguments: values.Arguments, node: ast.AST) -> list[Any]:
        """Return all items that a generator yields.

        Warns if it yields within a DAG or group that it has opened: code of the caller that uses an item runs outside
        of that.
        """
        found: list[Any] = []
        within = self.context.open()

        def add(value: Any, where: ast.AST) -> None:
            found.append(value)
            if self.context.open() != within:
                text = f"`{self.source(where)[:80]}` is within a DAG or group, but what is made for each is outside it"
                self.warn("unknown-context", text, where)

        self.run(function, arguments, node, add)
        return found

    def _generates(self, function: values.Function) -> bool:
        key = id(function.node)
        if key not in self.generators:
            self.generators[key] = _has_yield(function.node)
        return self.generators[key]

    def run(self, function: values.Function, arguments: values.Arguments, node: ast.AST, reader: values.Yields) -> Any:
        """Run a function's body. ``reader`` gets the values that it yields."""
        names = self.parameters(function, arguments, node)
        scope = values.Scope(names, function.scope)
        if function.owner is not None:
            names["__class__"] = function.owner
        self.yields.append(reader)
        self.maybe.append([])
        catching, self.catching = self.catching, list(self.catching)
        self.callers.append(self.place(node))
        try:
            with self.inside(scope, function.module), self.doubting(Return):
                return self._body(function)
        finally:
            self.callers.pop()
            self.catching = catching
            self.maybe.pop()
            self.yields.pop()

    def _body(self, function: values.Function) -> Any:
        if isinstance(function.node, ast.Lambda):
            return self.eval(function.node.body)
        value: Any = None
        try:
            self.block(function.node.body)
        except Return as left:
            value = left.value
        except Abandoned:
            return self.either(function.node, self.maybe[-1]) if self.maybe[-1] else None
        others = self.maybe[-1]
        return self.either(function.node, [*others, value]) if others else value

    def parameters(self, function: values.Function, arguments: values.Arguments, node: ast.AST) -> dict[str, Any]:
        """Return the values of a function's parameters, by name; an unknown value for a missing one."""
        spec = function.node.args
        names: dict[str, Any] = {}
        positional = [one.arg for one in (*spec.posonlyargs, *spec.args)]
        placed = [given.value for given in arguments.positional]
        names.update(zip(positional, placed, strict=False))
        keywords = {name: given.value for name, given in arguments.named.items()}
        for name in (*positional, *(one.arg for one in spec.kwonlyargs)):
            if name in keywords:
                names[name] = keywords.pop(name)
            elif name not in names:
                given = arguments.open and name in function.defaults  # then the unknown arguments may include it
                unknown = values.Unknown(name, self.place(node))
                names[name] = unknown if given else function.defaults.get(name, unknown)
        if arguments.open and (spec.vararg is not None or spec.kwarg is not None):
            text = f"not all arguments of `{self.source(node)[:80]}` are known: the others are left out"
            self.warn("unknown-call", text, node)
        if spec.vararg is not None:
            names[spec.vararg.arg] = tuple(placed[len(positional) :])
        if spec.kwarg is not None:
            names[spec.kwarg.arg] = keywords
        return names

    # Classes

    def _class(self, node: ast.ClassDef) -> None:
        bases = tuple(values.hard(self.eval(base)) for base in node.bases if not isinstance(base, ast.Starred))
        names: dict[str, Any] = {}
        cls = values.Class(node.name, node, self.module, tuple(one for one in bases if one is not None), names)
        if len(cls.mro()) > _MOST_BASES:
            raise values.OutOfSteps(f"a class with more than {_MOST_BASES} bases")
        with self.inside(values.Scope(names, self.scope, kind="class"), self.module):
            self.block(node.body)
        for name in [one for one in names if private(node.name, one) != one]:
            names[private(node.name, name)] = names.pop(name)
        for value in names.values():
            if isinstance(value, values.Function) and value.owner is None:
                value.owner = cls
        for base in cls.bases:
            if isinstance(base, values.Class):
                base.below.append(cls)
        for name, value in list(names.items()):
            if type(value) is values.Instance and (method := value.special("__set_name__")):
                self.call(values.Bound(method, value), values.Arguments.of(cls, name), node)
        foreign = {one.name for one in cls.foreign()}
        if foreign & {"Enum", "IntEnum", "StrEnum", "Flag"}:
            give_members(self, cls)
        elif foreign & {"BaseModel", "NamedTuple", "TypedDict", "BaseSettings"}:
            self.fields(cls)
            for each in records.changing_validators(cls):
                self.warn("unknown-call", f"what the validator {cls.name}.{each.name} changes is unknown", each)
        self._announce(cls, node)
        found: Any = self._made_by_its_class(cls, node)
        for decorator in reversed(node.decorator_list):
            found = self.decorate(decorator, found, node)
        self.bind(node.name, found)

    def _announce(self, cls: values.Class, node: ast.ClassDef) -> None:
        """Call ``__init_subclass__`` of a base."""
        hooks = (one.find("__init_subclass__") for one in cls.bases if isinstance(one, values.Class))
        hook = next(filter(None, hooks), None)
        if isinstance(hook, values.Function):
            named = {
                one.arg: values.Given(self.eval(one.value))
                for one in node.keywords
                if one.arg not in (None, "metaclass")
            }
            self.call(
                hook, values.Arguments([values.Given(cls)], {str(name): given for name, given in named.items()}), node
            )

    def _made_by_its_class(self, cls: values.Class, node: ast.ClassDef) -> Any:
        """Return the result of a metaclass of the root for a class. Warns if that is not a class."""
        kinds = [values.hard(self.eval(one.value)) for one in node.keywords if one.arg == "metaclass"]
        kinds += [one.meta for one in cls.bases if isinstance(one, values.Class)]
        cls.meta = meta = next((one for one in kinds if isinstance(one, values.Class)), None)
        if meta is None:
            return cls
        given = values.Arguments.of(cls, cls.name, cls.bases, cls.names)
        made: Any = cls
        if isinstance(new := meta.find("__new__"), values.Function):
            with self.about_to_make(cls):
                made = self.call(new, values.Arguments([values.Given(meta), *given.positional[1:]]), node)
        if isinstance(init := meta.find("__init__"), values.Function):
            self.call(init, given, node)
        if not isinstance(made, values.Class):
            self.warn("unknown-call", f"what the metaclass of {cls.name} does is unknown", node)
        return made if isinstance(made, values.Class) else cls

    def fields(self, cls: values.Class) -> values.Class:
        """Give a class the constructor of a dataclass or pydantic model."""
        found: dict[str, Any] = {}
        for base in reversed(cls.mro()):
            if isinstance(base, values.Class):
                for name, annotation in records.annotated(base):
                    if annotation not in ("ClassVar", "KW_ONLY"):
                        found[name] = base.names.get(name, MISSING)
        cls.fields = found
        return cls

    def instantiate(self, cls: values.Class, arguments: values.Arguments, node: ast.AST) -> Any:
        """Return a new instance of a class of the root."""
        if any(one.name == "TypedDict" for one in cls.foreign()):
            return self.call(self.builtins["dict"], arguments, node)
        members = cls.names.get("__members__")
        if isinstance(members, dict) and len(arguments.positional) == 1:
            return self._member(cls, members, values.hard(arguments.positional[0].value), node)
        hook = cls.meta.find("__call__") if cls.meta is not None and cls not in self.making else None
        if isinstance(hook, values.Function):
            with self.about_to_make(cls):
                return self.call(values.Bound(hook, cls), arguments, node)
        if isinstance(new := cls.find("__new__"), values.Function):  # which may return an earlier instance
            given = arguments.after(cls)
            instance = self.call(new, given, node)
        else:
            instance = self.world.allocate(cls, node)
        if not isinstance(instance, values.Instance):
            return instance
        init = cls.find("__init__")
        if isinstance(init, values.Function):
            names = [one.arg for one in (*init.node.args.args, *init.node.args.kwonlyargs)]
            self.world.defaults(instance, arguments, names)
            self.call(values.Bound(init, instance), arguments, node)
        elif isinstance(instance, values.Items):
            self.world.initialise(instance, arguments, node)
        elif cls.fields is not None:
            self._fill(cls, instance, arguments, node)
        self.world.finish(instance, arguments, node)
        return instance

    def _member(self, cls: values.Class, members: dict[str, Any], value: Any, node: ast.AST) -> Any:
        for member in members.values():
            if member is value or member.attributes["value"] == value:
                return member
        hook = cls.find("_missing_")
        if isinstance(hook, values.Function) and not isinstance(value, values.Unknown):
            found = self.call(hook, values.Arguments.of(cls, value), node)
            if found is not None:
                return found
        return (
            self.unknown(node) if isinstance(value, values.Unknown) else self.fail("ValueError", f"no {cls.name}", node)
        )

    def _fill(self, cls: values.Class, instance: values.Instance, arguments: values.Arguments, node: ast.AST) -> None:
        assert cls.fields is not None
        places = records.places_of_fields(cls)
        for name, default in cls.fields.items():
            given = arguments.get(name, places[name]) if name in places else None
            if given is None:
                instance.attributes[name] = self.unknown(node) if arguments.open else self._made(default, node)
            else:
                instance.attributes[name] = records.validated(self, cls, name, given.value)
        after = cls.find("__post_init__")
        if isinstance(after, values.Function):
            self.call(values.Bound(after, instance), records.only_for_init(cls, instance), node)
        instance.attributes.setdefault("__items__", [instance.attributes[name] for name in cls.fields])

    def _made(self, default: Any, node: ast.AST) -> Any:
        """Return a field's default: ``field(default_factory=list)`` creates a new one each time."""
        if default is MISSING:
            return self.unknown(node)
        called = getattr(default, "arguments", None)
        if isinstance(default, values.Unknown) and isinstance(called, values.Arguments):
            factory = called.value("default_factory")
            if factory is not None:
                return self.call(factory, values.Arguments(), node)
            return called.value("default", 0, self.unknown(node))
        return default

    def make_super(self, node: ast.AST) -> Any:
        """Return ``super()`` of the method that is running."""
        scope: values.Scope | None = self.scope
        while scope is not None and "__class__" not in scope.names:
            scope = scope.parent
        if scope is None or not scope.names:
            return self.unknown(node)
        return values.Super(scope.names["__class__"], next(iter(scope.names.values())))


def _key(arguments: values.Arguments) -> Any:
    """Return the key of a call in a cached function; None for arguments that cannot be hashed."""
    named = tuple((name, values.hard(given.value)) for name, given in arguments.named.items())
    key = tuple(values.hard(given.value) for given in arguments.positional), named
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _has_yield(node: ast.AST) -> bool:
    if isinstance(node, ast.Lambda):
        return False
    todo: list[ast.AST] = list(getattr(node, "body", []))
    while todo:
        one = todo.pop()
        if isinstance(one, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(one))
    return False


def give_members(machine: values.Machine, cls: values.Class) -> None:
    """Create members from the assignments in the body of an enumeration."""
    members: dict[str, Any] = {}
    bases = [one.name for one in cls.foreign()] + [getattr(one, "name", "") for one in cls.bases]
    kind = values.Member if {"str", "int", "StrEnum", "IntEnum"}.intersection(bases) else values.Instance
    makes, init = cls.find("__new__"), cls.find("__init__")
    for name, given in list(cls.names.items()):
        if name.startswith("_") or isinstance(given, values.Function):
            continue
        value = _automatic(machine, cls, name, bases, [*members.values()]) if isinstance(given, values.Auto) else given
        value = machine.unknown(cls.node) if makes else value
        member = next((one for one in members.values() if _is_alias(one.attributes["value"], value)), None)
        if member is None:
            member = kind(cls, {"name": name, "value": value, "_value_": value})
            is_its_value = "StrEnum" in bases or "IntEnum" in bases
            text = str(value) if isinstance(value, (str, int)) else None
            member.attributes["__text__"] = text if is_its_value else f"{cls.name}.{name}"
        members[name] = cls.names[name] = member
    cls.names["__members__"] = members
    if isinstance(init, values.Function):
        for member in dict.fromkeys(members.values()):
            found = values.hard(member.attributes["value"])
            given = found if isinstance(found, tuple) else (found,)
            machine.call(values.Bound(init, member), values.Arguments.of(*given), cls.node)


def _is_alias(one: Any, other: Any) -> bool:
    """Return whether two names of an enumeration are one member: their values are equal plain data."""
    kinds = (str, int, float, tuple)
    return isinstance(one, kinds) and isinstance(other, kinds) and one == other


def _automatic(
    machine: values.Machine, cls: values.Class, name: str, bases: list[str], before: list[values.Instance]
) -> Any:
    """Return the value of ``enum.auto()``. Source: ``enum.Enum._generate_next_value_``."""
    if cls.find("_generate_next_value_") is not None:
        return machine.unknown(cls.node)
    if "StrEnum" in bases:
        return name.lower()
    numbers = [one.attributes["value"] for one in before]
    if not all(isinstance(one, int) for one in numbers):
        return machine.unknown(cls.node)
    highest = max(numbers, default=0)
    return 1 << int(highest).bit_length() if {"Flag", "IntFlag"} & {*bases} else highest + 1
