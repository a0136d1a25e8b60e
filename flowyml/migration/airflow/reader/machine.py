"""The state of an evaluation: steps, source locations, names, truth, and the handling of unknown values."""

from __future__ import annotations

import ast
import builtins
import configparser
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import MissingExtraError
from flowyml.migration.airflow.model import DagWarning, Place
from flowyml.migration.airflow.reader import parts, values
from flowyml.migration.airflow.reader.context import Context
from flowyml.migration.airflow.reader.files import Files, Refused
from flowyml.migration.airflow.reader.operations import LARGEST
from flowyml.migration.trial import Trial

if TYPE_CHECKING:
    from flowyml.migration.airflow.reader.api.world import Airflow

_DEEP = 40
_SIZED: tuple[Any, ...] = (str, bytes, *parts.CONTAINERS)
_OF_ARGUMENTS = 2
"""The number of parts of a task's argument that are charged as a step: they are read again for the model."""
_MEGABYTES = 256
"""The memory of a process that tries regular expressions, in megabytes."""


@dataclass(frozen=True, slots=True)
class Options:
    """The limits and inputs of a reading.

    ``steps`` is the limit for a file, ``seconds`` the processor time for its regular expressions; ``variables`` and
    ``env`` are those that Airflow would have.
    """

    steps: int = 1_500_000
    seconds: int = 2
    env: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)


MISSING: Any = object()
"""The answer of `Airflow` for a name that it does not know."""


class Base(values.Machine):
    """The common base of expressions, statements and calls."""

    world: Airflow
    """The effects of Airflow's own names: the one part of an evaluation that is not Python."""

    def __init__(self, files: Files, options: Options) -> None:
        self.files = files
        files.charge = self.step
        self.options = options
        self.trial = Trial()
        self.steps = 0
        self.depth = 0
        self.callers: list[Place] = []
        """The calls of functions of the root that are being evaluated, the outermost first."""
        self.context = Context(self.step, lambda value: self.light(value, _OF_ARGUMENTS))
        self.warnings: list[DagWarning] = []
        self.environment: dict[str, Any] = dict(options.env)
        self.modules: dict[str, values.Module] = {}
        self.builtins: Mapping[str, Any] = {}
        self.catching: list[set[str]] = []
        self.asked = 0
        """The number of calls that may or may not raise."""
        self.module = values.Module("", "", "", "", values.Scope({}, kind="module"))
        self.scope = self.module.scope
        self.defaults_taken: dict[str, Place] = {}
        self.iterators: list[values.Once] = []
        self.making: list[values.Class] = []
        self.lost: dict[int, Any] = {}
        """By ``id``, objects of Python that a method has changed in an unknown way: their results are unknown."""

    # Bounds and source locations

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > self.options.steps:
            raise values.OutOfSteps(f"{self.options.steps:,} steps")

    def charge(self, *given: Any) -> None:
        """Charge the steps of an operation of Python that iterates over these values, but not deeper.

        A step is about two microseconds: 50 items or letters. Raises ``NotKnown`` for a range of too many numbers.
        """
        touched = 0
        for one in given:
            if isinstance(one, _SIZED):
                touched += len(one)
            elif isinstance(one, range):
                if one[LARGEST:]:
                    raise values.NotKnown
                touched += len(one)
        if touched >= 50:
            self.step(touched // 50)

    def light(self, value: Any, for_a_step: int = 20) -> bool:
        """Return whether a value has few enough parts to be traversed; ``for_a_step`` parts are charged as a step."""
        if not isinstance(values.hard(value), (int, float, *parts.CONTAINERS)):
            return True
        count = parts.size(value)
        self.step(count // for_a_step)
        return count <= parts.LIGHT

    def mentions(self, value: Any) -> bool:
        """Return whether a DAG, task or group is anywhere in a value; the traversal is charged."""
        found, count = parts.mentions(value)
        self.step(count // 20)
        return found

    def settle(self, args: Any, kwargs: Any = None) -> tuple[Any, Any, list[values.Soft], bool]:
        """Call `parts.settle`, and charge the traversal."""
        *found, count = parts.settle(args, kwargs)
        self.step(count // 8)
        return found[0], found[1], found[2], found[3]

    def is_lost(self, value: Any) -> bool:
        """Return whether an object of Python was changed in an unknown way; a section is a part of its parser."""
        return id(value.parser if isinstance(value, configparser.SectionProxy) else value) in self.lost

    def as_dict(self, value: Any, node: ast.AST) -> Any:
        """Return an INI file, or a section of one, as a dictionary; any other value without the mark of a default."""
        value = values.hard(value)
        if not isinstance(value, (configparser.RawConfigParser, configparser.SectionProxy)):
            return value
        return self.unknown(node) if self.is_lost(value) else self.attempt(node, dict, value)

    def ends_in_time(self, module: str, function: str, *args: Any, **kwargs: Any) -> bool:
        """Return whether a call ends within the rest of a file's seconds for such calls."""
        left = self.options.seconds - self.trial.spent
        return left > 0 and self.trial.ends(
            module, function, *args, seconds=max(1, math.ceil(left)), megabytes=_MEGABYTES, **kwargs
        )

    def place(self, node: ast.AST) -> Place:
        line = getattr(node, "lineno", 1)
        return Place(self.module.place, line)

    def source(self, node: ast.AST) -> str:
        return self.module.source(node)

    def unknown(self, node: ast.AST, origin: str = "", text: str = "", parts: tuple[Any, ...] = ()) -> values.Unknown:
        self.step(len(parts) // 500)
        return values.Unknown(self.source(node)[:2000], self.place(node), origin, text[:300], parts)

    def warn(self, code: str, text: str, node: ast.AST) -> None:
        """Warn of an uncertainty, once: in the open DAG, else in the file."""
        dag = self.context.dag()
        kept = dag.warnings if dag is not None else self.warnings
        warning = DagWarning(code, text, self.place(node))
        if warning not in kept and len(kept) < 500:
            kept.append(warning)

    # Errors

    def catches(self, kind: str) -> bool:
        """Return whether a ``try`` around the current code has a handler for this class of exceptions."""
        return any(is_a(kind, name) for names in self.catching for name in names)

    def attempt(self, node: ast.AST, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call Python on plain data, and charge steps for arguments, result and memory.

        If the file catches its exception, that is raised in the file; otherwise it is reported.
        """
        try:
            self.charge(*args, *kwargs.values())
            found = function(*args, **kwargs)
            if not isinstance(found, range):
                self.charge(found)
            self.step(sys.getsizeof(found) // 500)
            return found
        except (values.Raised, values.OutOfSteps, RecursionError, MissingExtraError):
            raise
        except values.NotKnown:
            return self.unknown(node)
        except Refused as error:
            self.warn("unread", str(error), node)
            return self.fail("FileNotFoundError", str(error), node)
        except Exception as error:  # any error of Python on data of the file's
            return self.fail(type(error).__name__, str(error), node)

    def fail(self, kind: str, text: str, node: ast.AST) -> values.Unknown:
        caught = self.catches(kind)
        if not caught or kind in ("NameError", "AttributeError", "TypeError"):
            self.warn("raises", f"`{short(self.source(node))}` raises {kind}: {short(text)}", node)
        if caught:
            raise values.Raised(kind, text)
        return self.unknown(node)

    # Names

    def mangled(self, name: str) -> str:
        """Return the real name of an attribute with two leading underscores in the body of a class: ``_Table__key``."""
        if not name.startswith("__") or name.endswith("__"):
            return name
        scope: values.Scope | None = self.scope
        while scope is not None and "__class__" not in scope.names:
            scope = scope.parent
        owner = None if scope is None else scope.names["__class__"]
        return private(owner.name, name) if isinstance(owner, values.Class) else name

    def lookup(self, name: str, node: ast.AST) -> Any:
        scope: values.Scope | None = self.scope
        if scope is not None and name in scope.globals_:
            scope = self.module.scope
        first = True
        while scope is not None:
            if name in scope.names and (first or scope.kind != "class"):
                return scope.names[name]
            first = False
            scope = scope.parent
        if name in self.builtins:
            return self.builtins[name]
        if self.module.stars:
            return values.Foreign(f"{self.module.stars[-1]}.{name}")
        return self.fail("NameError", f"name {name!r} is not defined", node)

    def bind(self, name: str, value: Any) -> None:
        scope = self.scope
        if name in scope.globals_:
            scope = self.module.scope
        elif name in scope.nonlocals:
            outer = scope.parent
            while outer is not None and name not in outer.names:
                outer = outer.parent
            scope = outer or scope
        self.context.changed += scope is not self.scope
        scope.names[name] = value

    @contextmanager
    def inside(self, scope: values.Scope, module: values.Module) -> Iterator[None]:
        """Evaluate in another scope, perhaps of another module. Bounds the depth of calls."""
        kept = self.scope, self.module
        self.scope, self.module = scope, module
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            self.scope, self.module = kept

    def elsewhere(self, text: str, action: Callable[[], Any]) -> Any:
        """Evaluate text that is not in the file: its source locations are those of its own lines."""
        module = self.module
        inner = values.Module(module.name, module.path, module.place, text, module.scope, module.package)
        with self.inside(self.scope, inner):
            return self.unknown(ast.Pass()) if self.too_deep else action()

    @property
    def too_deep(self) -> bool:
        return self.depth >= _DEEP

    # Truth and iteration

    def truth(self, value: Any) -> bool | None:
        """Return whether a value is true; None if unknown."""
        value = values.hard(value)
        if isinstance(value, values.Unknown):
            return None
        if isinstance(value, values.Foreign):
            return True if is_code(value) else None
        if isinstance(value, values.Instance) and value.cls is not None:
            for name in ("__bool__", "__len__"):
                if method := value.special(name):
                    return self.truth(self.call(values.Bound(method, value), values.Arguments(), value.cls.node))
        if isinstance(value, values.Items):
            return len(value) > 0
        if isinstance(
            value,
            (values.Instance, values.Function, values.Class, values.Native, values.Module, values.Bound, values.Once),
        ):
            return True
        if isinstance(value, configparser.SectionProxy):
            self.step(len(value) // 20)  # it lists its options
        return bool(value)

    def soft(self, value: Any, *froms: Any, parts: tuple[Any, ...] = ()) -> Any:
        """Mark a value as derived from a default if one of its sources was. A text consists of ``parts``."""
        for one in froms:
            if type(one) is values.Soft:
                if isinstance(value, values.Unknown):
                    return value
                self.step(len(parts) // 500)
                return values.Soft(values.hard(value), one.origin, one.source, one.place, True, parts)
        return value

    def of_defaults(self, value: Any, froms: Iterable[Any], node: ast.AST) -> Any:
        """Mark a container if a default chose its items. A container of more than plain data gets a warning instead.

        Tasks, functions and the like in it are those of the default.
        """
        first = next((one for one in froms if type(one) is values.Soft), None)
        if first is None or isinstance(value, values.Unknown):
            return value
        if self.light(value) and not self.mentions(value) and self.settle([value])[3]:
            return self.soft(value, first)
        self.warn(
            "default-taken", f"what is in `{short(self.source(node))}` depends on the default of {first.origin}", node
        )
        return value


def is_code(value: values.Foreign) -> bool:
    """Return whether a value is a module, class or function, by its name and library; otherwise it may be any value."""
    top, _, rest = value.path.partition(".")
    known = top == "airflow" or top in sys.stdlib_module_names
    return not rest or not (value.name.isupper() or (not known and value.name[:1].islower()))


_PARENTS = {
    "AirflowNotFoundException": "AirflowException",
    "JSONDecodeError": "ValueError",
    "NoOptionError": "Error",
    "NoSectionError": "Error",
    "ParserError": "ValueError",
    "ZoneInfoNotFoundError": "KeyError",
}
"""Exceptions of libraries that derive from others."""


def is_a(kind: str, handler: str) -> bool:
    """Return whether a handler of one class of exceptions catches another, both by name."""
    if handler in ("", "Exception", "BaseException", kind):
        return True
    kind = _PARENTS.get(kind, kind)
    if kind == handler:
        return True
    one, other = getattr(builtins, kind, None), getattr(builtins, handler, None)
    return isinstance(one, type) and isinstance(other, type) and issubclass(one, other)


def private(owner: str, name: str) -> str:
    """Return the name of a class's attribute ``__name`` outside of that class."""
    is_private = name.startswith("__") and not name.endswith("__")
    return f"_{owner.lstrip('_')}{name}" if is_private else name


def short(text: str) -> str:
    """Return a text in one line, for messages."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
