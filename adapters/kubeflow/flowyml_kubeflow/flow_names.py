"""The names of the tasks around a pipeline's steps if it has control flow, by the rules of ``names``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flowyml.plan.names import slug
from flowyml_kubeflow.names import port, task

__all__ = [
    "CHUNK", "CHUNKS", "RESULT_TASK", "group_task", "is_record", "items_task", "loop_task", "of_all", "of_group",
    "of_items", "output", "record", "together_task", "turn", "turn_of",
]  # fmt: skip

# Ports.
_LONGEST = 50  # characters of a loop's name in a task's
CHUNKS = "items-of-pods"  # which items each pod of a loop works on: JSON, as ["0:4", "4:8"]
CHUNK = "items-of-pod"

RESULT_TASK = "flowyml--result"  # the last one, which knows how it all ended

# The ends of artifacts that say how steps ended, with their outputs, or what the items of a loop are.
_RECORDS = ("-result", "-items", "-results")
_TURN = re.compile(r"(.+)--([0-9]+(?:-[0-9]+)*)")


def record(name: str) -> str:
    """Return the artifact with the end of a step, and its outputs.

    >>> record("train"), is_record(record("train")), is_record("train")
    ('train-result', True, False)
    """
    return f"{port(name)}-result"


def is_record(given: str) -> bool:
    """Return whether a port is a name from ``record``, ``of_items``, ``of_all`` or ``of_group``."""
    return given.endswith(_RECORDS)


def _short(loop: str) -> str:
    """Return the task name of a loop, short enough for KFP's template.

    ``comp-X--loop-X--loop-iterator`` of a longer name is refused (tried on KFP 2.17: 50 characters are accepted, 51 are
    not).

    >>> len(_short("x" * 50)), _short("train-" * 9)
    (50, 'train-train-train-train-train-train-train-6e6bbc9b')
    """
    made = task(loop)
    return made if len(made) <= _LONGEST else slug(made, max_length=_LONGEST)


def loop_task(loop: str) -> str:
    """Return the task of the loop itself, which KFP shows with a run of it for each chunk of items.

    >>> loop_task("train"), items_task("train"), together_task("train")
    ('train--loop', 'train--items', 'train--all')
    >>> of_items("train"), of_all("train")
    ('train-items', 'train-results')
    """
    return f"{_short(loop)}--loop"


def items_task(loop: str) -> str:
    """Return the task that prepares a loop: its items, and their chunks for the pods."""
    return f"{_short(loop)}--items"


def together_task(loop: str) -> str:
    """Return the task that joins the results of a loop's pods."""
    return f"{_short(loop)}--all"


def of_items(loop: str) -> str:
    """Return the artifact of a loop's items, and of the other values that its steps take from outside."""
    return f"{port(loop)}-items"


def group_task(group: str) -> str:
    """Return the task that runs the steps of an execution group.

    >>> group_task("prepare"), of_group("prepare"), output("load", "rows")
    ('prepare--group', 'prepare-group-result', 'load_rows_52736b6e')
    """
    return f"{task(group)}--group"


def of_group(group: str) -> str:
    """Return the artifact with the ends of the steps of an execution group."""
    return f"{port(group)}-group-result"


def output(step: str, name: str) -> str:
    """Return the parameter that shows an output of one of several steps."""
    return port(f"{task(step)} {name}")


def turn(of_task: str, index: Sequence[int]) -> str:
    """Return a name for a step's run for an item, different for each item.

    >>> turn("train", (3, 0)), turn("train", ()), turn_of("train--3-0"), turn_of("train--items")
    ('train--3-0', 'train', ('train', (3, 0)), ('train--items', ()))
    """
    return f"{of_task}--{'-'.join(map(str, index))}" if index else of_task


def turn_of(name: str) -> tuple[str, tuple[int, ...]]:
    """Return the task and the index in a name from ``turn``."""
    found = _TURN.fullmatch(name)
    return (found[1], tuple(map(int, found[2].split("-")))) if found else (name, ())


def of_all(loop: str) -> str:
    """Return the artifact with the ends of a loop's steps, for all items."""
    return f"{port(loop)}-results"
