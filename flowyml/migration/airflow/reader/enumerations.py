"""Enumerations: what their members are."""

from __future__ import annotations

from typing import Any

from flowyml.migration.airflow.reader.values import Auto, Class, Function, Instance, Machine, Member

__all__ = ["give_members"]


def give_members(machine: Machine, cls: Class) -> None:
    """Makes members of what the body of an enumeration assigns."""
    members: dict[str, Any] = {}
    bases = [one.name for one in cls.foreign()] + [getattr(one, "name", "") for one in cls.bases]
    kind = Member if {"str", "int", "StrEnum", "IntEnum"}.intersection(bases) else Instance
    for name, given in list(cls.names.items()):
        if name.startswith("_") or isinstance(given, Function):
            continue
        value = _automatic(machine, cls, name, bases, [*members.values()]) if isinstance(given, Auto) else given
        member = kind(cls, {"name": name, "value": value, "_value_": value})
        if isinstance(value, str) and ("StrEnum" in bases or "str" in bases):
            member.attributes["__text__"] = value if "StrEnum" in bases else f"{cls.name}.{name}"
        members[name] = member
        cls.names[name] = member
    cls.names["__members__"] = members


def _automatic(machine: Machine, cls: Class, name: str, bases: list[str], before: list[Instance]) -> Any:
    """What ``enum.auto()`` stands for. Source: ``enum.Enum._generate_next_value_``."""
    if cls.find("_generate_next_value_") is not None:
        return machine.unknown(cls.node)
    if "StrEnum" in bases:
        return name.lower()
    numbers = [one.attributes["value"] for one in before]
    if not all(isinstance(one, int) for one in numbers):
        return machine.unknown(cls.node)
    highest = max(numbers, default=0)
    return 1 << int(highest).bit_length() if {"Flag", "IntFlag"} & {*bases} else highest + 1
