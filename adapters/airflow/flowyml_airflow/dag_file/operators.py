"""Airflow operators as text: their imports and their constructor calls.

The names in the code are import paths, checked here again since a plan may come from a file, and free variables. All
values are literals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from flowyml.core.errors import DefinitionError
from flowyml.plan.layout import Group, Pair, Part, source, text_literal, value
from flowyml.plan.model import Step
from flowyml_airflow.operators import ARGUMENTS, is_path, split
from flowyml_airflow.parameters import SIXTY_FOUR_BITS
from flowyml_airflow.schedule import delta

__all__ = ["Imports", "arguments_of", "has_code", "has_delta", "keywords"]

# Operators that Airflow 3 has in a provider and Airflow 2.11 in its core. The same plan compiles for both.
_STANDARD = "airflow.providers.standard"
_MOVED: Mapping[str, str] = {
    f"{_STANDARD}.operators.bash": "airflow.operators.bash",
    f"{_STANDARD}.operators.branch": "airflow.operators.branch",
    f"{_STANDARD}.operators.datetime": "airflow.operators.datetime",
    f"{_STANDARD}.operators.empty": "airflow.operators.empty",
    f"{_STANDARD}.operators.latest_only": "airflow.operators.latest_only",
    f"{_STANDARD}.operators.python": "airflow.operators.python",
    f"{_STANDARD}.operators.smooth": "airflow.operators.smooth",
    f"{_STANDARD}.operators.trigger_dagrun": "airflow.operators.trigger_dagrun",
    f"{_STANDARD}.operators.weekday": "airflow.operators.weekday",
    f"{_STANDARD}.sensors.bash": "airflow.sensors.bash",
    f"{_STANDARD}.sensors.date_time": "airflow.sensors.date_time",
    f"{_STANDARD}.sensors.external_task": "airflow.sensors.external_task",
    f"{_STANDARD}.sensors.filesystem": "airflow.sensors.filesystem",
    f"{_STANDARD}.sensors.python": "airflow.sensors.python",
    f"{_STANDARD}.sensors.time": "airflow.sensors.time_sensor",
    f"{_STANDARD}.sensors.time_delta": "airflow.sensors.time_delta",
    f"{_STANDARD}.sensors.weekday": "airflow.sensors.weekday",
}
_NEW = {old: new for new, old in _MOVED.items()}
# Operators with another name in Airflow 2, and the same arguments as far as it has them.
_RENAMED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("airflow.sdk", "Asset"): ("airflow.datasets", "Dataset"),
    ("airflow.sdk", "AssetAlias"): ("airflow.datasets", "DatasetAlias"),
}


def arguments_of(step: Step) -> Mapping[str, Any]:
    """Return the encoded arguments of a step's operator."""
    operator = step.operator
    arguments = step.options.get("airflow", {}).get(ARGUMENTS, {}) if operator and operator[0] == "airflow" else {}
    if not isinstance(arguments, Mapping):
        raise _wrong(step)
    return arguments


def has_delta(step: Step) -> bool:
    """Return whether an argument is a ``timedelta``."""
    return any("$timedelta" in part for part in _tagged(arguments_of(step)))


def has_code(step: Step) -> bool:
    """Return whether an argument is a function that the bundle contains."""
    return any("$code" in part for part in _tagged(arguments_of(step)))


class Imports:
    """The imports for the operators of some steps, with a variable for each. ``fresh`` returns free names."""

    def __init__(self, steps: Iterable[Step], fresh: Callable[[str], str]) -> None:
        self.output: Callable[[str, str], str | None] = lambda step, key: None
        """The expression for the XCom of a step's task under a key; None for a step that does not exist."""
        self._names: dict[tuple[str, str], str] = {}
        for step in steps:
            for path in _paths(step):
                if not is_path(path):
                    raise _wrong(step, f"{path!r:.80} is not an import path")
                module, name, _ = split(path)
                module = _NEW.get(module, module)
                if (module, name) not in self._names:
                    self._names[module, name] = fresh(name)

    def __bool__(self) -> bool:
        return bool(self._names)

    def __getitem__(self, path: str) -> str:
        """Return the expression for a path."""
        module, name, rest = split(path)
        return self._names[_NEW.get(module, module), name] + rest

    def text(self) -> str:
        """Return the lines that import them."""
        parts = [
            _from(module, [key[1] for key in keys], self._names)
            for module, keys in groupby(sorted(self._names), key=lambda key: key[0])
        ]
        return "".join(parts)

    def part(self, encoded: Any, step: Step) -> Part:
        """Write an argument, as ``operators.encoded`` has encoded it, as source code."""
        if isinstance(encoded, list):
            return Group("[", [self.part(item, step) for item in encoded], "]")
        if isinstance(encoded, int) and encoded not in SIXTY_FOUR_BITS:
            raise _wrong(step, f"they hold {encoded}, and Airflow 3 carries 64-bit integers. Give it as text")
        if not isinstance(encoded, Mapping):
            return value(encoded)
        if next(iter(encoded), "").startswith("$"):
            return self._tagged(encoded, step)
        return Group("{", [self._pair(key, item, step) for key, item in encoded.items()], "}")

    def _tagged(self, encoded: Mapping[str, Any], step: Step) -> Part:
        """Write a value that JSON lacks."""
        match encoded:
            case {"$import": str(path)}:
                return self[path]
            case {"$call": [str(path), list(args), dict(kwargs)]}:
                arguments = [*(self.part(item, step) for item in args), *self.keywords(kwargs, step)]
                return Group(f"{self[path]}(", arguments, ")")
            case {"$code": str(place)} if is_path(place) and ":" in place:
                return f"Code({text_literal(place)})"
            case {"$xcom": [str(name), str(key)]} if (output := self.output(name, key)) and name in step.upstream:
                return output
            case {"$timedelta": int() | float() as seconds}:
                return delta(seconds)
            case {"$datetime": str(text)}:
                return f"datetime.fromisoformat({text_literal(text)})"
            case {"$tuple": list(items)}:
                opening, closing = ("tuple([", "])") if len(items) == 1 else ("(", ")")
                return Group(opening, [self.part(item, step) for item in items], closing)
            case {"$set": list(items)}:
                return Group("{", [self.part(item, step) for item in items], "}") if items else "set()"
            case {"$dict": list(pairs)} if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
                return Group("{", [self._pair(key, item, step) for key, item in pairs], "}")
        raise _wrong(step)

    def keywords(self, arguments: Mapping[str, Any], step: Step) -> Iterator[Part]:
        """Return encoded values as keyword arguments."""
        return keywords({name: self.part(argument, step) for name, argument in arguments.items()})

    def _pair(self, key: Any, item: Any, step: Step) -> Part:
        return Pair(f"{source(self.part(key, step))}: ", self.part(item, step))


def keywords(arguments: Mapping[str, Part]) -> Iterator[Part]:
    """Write keyword arguments; names that are not identifiers go into a dict."""
    plain = {name: part for name, part in arguments.items() if is_path(f"_.{name}") and "." not in name}
    yield from (Pair(f"{name}=", part) for name, part in plain.items())
    if others := [Pair(f"{text_literal(name)}: ", part) for name, part in arguments.items() if name not in plain]:
        yield Group("**{", others, "}")


def _from(module: str, names: Sequence[str], variables: Mapping[tuple[str, str], str]) -> str:
    if renamed := [name for name in names if (module, name) in _RENAMED]:
        others = [name for name in names if name not in renamed]
        texts = [_renamed(module, name, variables[module, name]) for name in renamed]
        return "".join([*texts, _from(module, others, variables) if others else ""])
    what = ", ".join(
        name if variables[module, name] == name else f"{name} as {variables[module, name]}" for name in names
    )
    if old := _MOVED.get(module):
        return (
            f"\ntry:\n    from {module} import {what}\n"
            f"except ImportError:  # an Airflow that has it in itself\n    from {old} import {what}\n"
        )
    return f"\nfrom {module} import {what}\n"


def _renamed(module: str, name: str, variable: str) -> str:
    old, then = _RENAMED[module, name]
    now = name if variable == name else f"{name} as {variable}"
    return (
        f"\ntry:\n    from {module} import {now}\n"
        f"except ImportError:  # Airflow 2\n    from {old} import {then} as {variable}\n"
    )


def _paths(step: Step) -> Iterator[str]:
    operator = step.operator
    if operator is None:
        return
    yield operator[1]
    for part in _tagged(arguments_of(step)):
        match part:
            case {"$import": str(path)} | {"$call": [str(path), *_]}:
                yield path


def _tagged(encoded: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all dicts within an encoded value."""
    if isinstance(encoded, Mapping):
        yield encoded
        for item in encoded.values():
            yield from _tagged(item)
    elif isinstance(encoded, list):
        for item in encoded:
            yield from _tagged(item)


def _wrong(step: Step, why: str = "they are not as airflow_operator writes them") -> DefinitionError:
    error = DefinitionError(f"step {step.name!r}: the arguments of its operator cannot be compiled: {why}.")
    error.step = step.name
    return error
