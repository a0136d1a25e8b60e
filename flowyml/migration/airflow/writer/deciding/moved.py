"""The code of a file to copy: functions, the statements that they need, and the names that both keep."""

from __future__ import annotations

import builtins
import keyword
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from flowyml.migration.airflow.writer.deciding.decision import Decision, Function, Key
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.values import Unwritable

__all__ = ["Moved", "key_of", "what_moves"]

# Modules that a written module may use beside FlowyML's words.
_BUILTINS = frozenset({"NotImplementedError", "bool", "dict", "float", "int", "list", "set", "str", "tuple"})


@dataclass(frozen=True, slots=True)
class Moved:
    """Functions of a file, and the numbers of the statements that they need, in order.

    ``kept`` are the functions that other code looks up by name, ``needed`` all names that are needed of the file,
    ``looked`` those that are looked up in the module, ``taken`` those that have a meaning in it.
    """

    functions: Mapping[Key, Function]
    statements: Sequence[int]
    kept: Mapping[Key, str]
    needed: AbstractSet[str]
    looked: AbstractSet[str]
    taken: AbstractSet[str]


def key_of(decision: Decision) -> Key:
    """Return the key of a decision's function."""
    assert decision.function
    return decision.function.key


def what_moves(decisions: Iterable[Decision], moving: Moving) -> Moved:
    """Return the code of the file that some tasks need.

    Raises ``Unwritable`` if a name would have another meaning in the module.
    """
    every = [one for each in decisions for one in (each.function, *each.others) if one]
    functions: dict[Key, Function] = {}
    for each in every:
        functions.setdefault(each.key, each)
    statements = sorted({number for each in every for number in each.needed.statements})
    defined = {name for number in statements for name in moving.statements[number].defines}
    looked = {name for each in every for name in each.needed.looked}
    kept = {
        key: key[0] for key, each in functions.items()
        if not each.model.nested and not each.is_imported and each.model.name in looked
    }  # fmt: skip
    _check_meanings(functions, kept, statements, moving)
    if hidden := sorted(defined & _BUILTINS):
        raise Unwritable(f"the file has a {hidden[0]} of its own, which the module needs as Python has it")
    needed = {name for each in every for name in each.needed.names}
    taken = {*defined, *kept.values(), *keyword.kwlist, *dir(builtins)}
    return Moved(functions, statements, kept, needed, looked, taken)


def _check_meanings(
    functions: Mapping[Key, Function], kept: Mapping[Key, str], statements: Iterable[int], moving: Moving
) -> None:
    """Raise ``Unwritable`` if a function's name would have one meaning in the file, and another in the module."""
    names = Counter(kept.values())
    for number in statements:
        statement = moving.statements[number]
        if early := sorted(statement.runs & names.keys()):
            raise Unwritable(f"the file uses {early[0]}, the function of a task, while it is imported")
        for name in statement.defines & names.keys():
            own = (each.original for key, each in functions.items() if kept.get(key) == name)
            names[name] += all(each is not statement.node for each in own)
    if doubtful := [name for name, count in names.items() if count > 1]:
        raise Unwritable(f"the file has several meanings of {doubtful[0]}, which is the function of a task")
