"""Enumerations: their members."""

from __future__ import annotations

from typing import Any

from flowyml.migration.airflow.reader.values import (
    Arguments,
    Auto,
    Bound,
    Class,
    Function,
    Given,
    Instance,
    Machine,
    Member,
    hard,
)

__all__ = ["give_members"]


def give_members(machine: Machine, cls: Class) -> None:
    """Create members from the assignments in the body of an enumeration."""
    members: dict[str, Any] = {}
    bases = [one.name for one in cls.foreign()] + [getattr(one, "name", "") for one in cls.bases]
    kind = Member if {"str", "int", "StrEnum", "IntEnum"}.intersection(bases) else Instance
    makes, init = cls.find("__new__"), cls.find("__init__")
    for name, given in list(cls.names.items()):
        if name.startswith("_") or isinstance(given, Function):
            continue
        value = _automatic(machine, cls, name, bases, [*members.values()]) if isinstance(given, Auto) else given
        value = machine.unknown(cls.node) if makes else value
        member = next((one for one in members.values() if _is_alias(one.attributes["value"], value)), None)
        if member is None:
            member = kind(cls, {"name": name, "value": value, "_value_": value})
            is_its_value = "StrEnum" in bases or "IntEnum" in bases
            member.attributes["__text__"] = _text(value) if is_its_value else f"{cls.name}.{name}"
        members[name] = cls.names[name] = member
    cls.names["__members__"] = members
    if isinstance(init, Function):
        for member in dict.fromkeys(members.values()):
            values = hard(member.attributes["value"])
            given = values if isinstance(values, tuple) else (values,)
            machine.call(Bound(init, member), Arguments([Given(one) for one in given]), cls.node)


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int)) else None


def _is_alias(one: Any, other: Any) -> bool:
    """Return whether two names of an enumeration are one member: their values are equal plain data."""
    kinds = (str, int, float, tuple)
    return isinstance(one, kinds) and isinstance(other, kinds) and one == other


def _automatic(machine: Machine, cls: Class, name: str, bases: list[str], before: list[Instance]) -> Any:
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
