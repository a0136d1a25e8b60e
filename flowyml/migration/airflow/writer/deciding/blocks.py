"""Assign tasks to branches, so that they run and are skipped as in Airflow.

After a branching task, Airflow skips the direct successors that were not chosen, and after a short circuit all that
follows. Tasks after a skipped task are skipped by their trigger rules. Source:
airflow.providers.standard.utils.skipmixin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, TypeVar

from flowyml.migration.airflow.model import DagModel, TaskModel
from flowyml.migration.airflow.writer.deciding.choices import Choice


@dataclass(frozen=True, slots=True)
class Block:
    """A branch: it is taken if the task ``by`` chose one of ``values``; without values, if it let the run continue."""

    by: str
    values: tuple[str, ...] = ()


Path = tuple[Block, ...]
"""The branches around a task, outermost first."""


class Conflict(Exception):
    """A choice cannot be written as branches: its task, and the reason."""

    def __init__(self, by: str, reason: str) -> None:
        super().__init__(reason)
        self.by = by


@dataclass(slots=True, eq=False)
class Chain:
    """Branches of one choice, of which at most one is taken, with the tasks and branches in each.

    Groups of tasks join them when these become pipelines (`flowyml.migration.airflow.writer.deciding.sections`).
    """

    blocks: dict[Block, list[Any]] = field(default_factory=dict)


def paths_of(
    dag: DagModel, tasks: Sequence[TaskModel], choices: Mapping[str, Choice], taken: Mapping[str, Iterable[str]]
) -> Mapping[str, Path]:
    """Return the branches of each task; ``tasks`` are in order, ``taken`` has the tasks whose values each takes.

    Raises ``Conflict``.
    """
    found: dict[str, Path] = {}
    after, roots = _following(tasks), _roots(dag)
    for by, choice in choices.items():
        _check(dag, by, choice, after, roots)
    whole = [by for by, choice in choices.items() if choice.whole]
    for task in tasks:
        forced = [
            path for by in task.upstream if by in choices for path in _direct(task, by, choices, found, after, roots)
        ]
        inherited = [found.get(name, ()) for name in task.upstream] if task.trigger_rule == "all_success" else []
        if task.trigger_rule != "all_success":
            forced += [(*found[by], Block(by)) for by in whole if after(by, task.task_id)]
        path = _longest([*forced, *inherited])
        if path is None and not forced:  # whichever of them is skipped, the task is too
            path = _common(inherited)
        if path is None:
            raise Conflict(forced[0][-1].by, f"{task.task_id} waits for several choices")
        for name in taken.get(task.task_id, ()):
            inner = found.get(name, ())
            if path[: len(inner)] != inner:
                raise Conflict(inner[-1].by, f"{task.task_id} takes the value of {name}, which may be skipped")
        found[task.task_id] = path
    return found


After = Callable[[str, str], bool]
Roots = Mapping[str, set[str]]


def _check(dag: DagModel, by: str, choice: Choice, after: After, roots: Roots) -> None:
    ids = {task.task_id for task in dag.tasks} if choice.values else set()
    if unknown := [name for name in choice.values or () if name not in ids and not roots.get(name)]:
        raise Conflict(by, f"it may choose {unknown[0]!r:.60}, and the DAG has no task of that name")
    for task in dag.tasks:
        if (task.setup or task.teardown) and after(by, task.task_id):
            raise Conflict(by, f"{task.task_id}, which comes after it, is a {'setup' if task.setup else 'teardown'}")


def _direct(
    task: TaskModel, by: str, choices: Mapping[str, Choice], found: Mapping[str, Path], after: After, roots: Roots
) -> Iterator[Path]:
    """Yield the branch of a task directly after a choice; empty for a task that joins branches."""
    values = choices[by].values
    if values is None:
        yield (*found[by], Block(by))
        return
    own = task.task_id
    chosen = {each: roots.get(each) or {each} for each in (own, *values)}
    followed = tuple(each for each, first in chosen.items() if own in first or any(after(root, own) for root in first))
    joins = len(followed) > 1 and set(values) <= set(followed)
    if not joins or choices[by].may_be_none or choices[by].listed:
        yield (*found[by], Block(by, followed))


def _roots(dag: DagModel) -> Roots:
    """Return the first tasks of each task group; a choice names the group."""
    parents = {each.group_id: each.parent for each in dag.groups}
    inside: dict[str, dict[str, TaskModel]] = {}
    for task in dag.tasks:
        for group in groups_around(task.group, parents):
            inside.setdefault(group, {})[task.task_id] = task
    return {
        group: {name for name, task in tasks.items() if not any(before in tasks for before in task.upstream)}
        for group, tasks in inside.items()
    }


def groups_around(group: str | None, parents: Mapping[str, str | None]) -> Iterator[str]:
    """Yield a task group and the groups around it, whether tasks have its name or not."""
    while group is not None:
        yield group
        group = parents.get(group)


def _longest(paths: Sequence[Path]) -> Path | None:
    """Return the innermost of nested branches; None if they are not nested."""
    longest = max(paths, key=len, default=())
    return longest if all(longest[: len(path)] == path for path in paths) else None


def _common(paths: Sequence[Path]) -> Path:
    first, *others = paths
    length = 0
    while length < len(first) and all(path[: length + 1] == first[: length + 1] for path in others):
        length += 1
    return first[:length]


def _following(tasks: Sequence[TaskModel]) -> After:
    """Return a function that tells whether a task precedes another, at any distance.

    It stores a bit for each pair, so 12 MB for 10,000 tasks.
    """
    bit = {task.task_id: 1 << number for number, task in enumerate(tasks)}
    found = dict.fromkeys(bit, 0)
    for task in reversed(tasks):
        for name in task.upstream:
            if name in found:
                found[name] |= bit[task.task_id] | found[task.task_id]
    return lambda before, task: bool(found[before] & bit[task])


def arranged(
    tasks: Sequence[TaskModel], paths: Mapping[str, Path], exclusive: Callable[[str, Sequence[Block]], bool]
) -> list[TaskModel | Chain]:
    """Sort tasks and branches, each after those that it waits for. Raises ``Conflict``.

    ``exclusive`` returns whether at most one of some branches of a choice is taken.
    """
    return _level(tasks, paths, 0, exclusive)


def _level(
    tasks: Sequence[TaskModel], paths: Mapping[str, Path], depth: int,
    exclusive: Callable[[str, Sequence[Block]], bool],
) -> list[TaskModel | Chain]:  # fmt: skip
    inner: dict[Block, list[TaskModel]] = {}
    for task in tasks:
        if len(paths[task.task_id]) > depth:
            inner.setdefault(paths[task.task_id][depth], []).append(task)
    by: dict[str, list[Block]] = {}
    for block in inner:
        by.setdefault(block.by, []).append(block)
    together = [blocks for chooser, blocks in by.items() if exclusive(chooser, blocks)]
    apart = [[block] for chooser, blocks in by.items() if not exclusive(chooser, blocks) for block in blocks]
    for chains in ([*together, *apart], [[block] for block in inner]):
        if (order := _ordered(tasks, paths, depth, chains)) is not None:
            break
    else:
        raise Conflict(next(iter(inner)).by, "its branches wait for one another")
    found: list[TaskModel | Chain] = []
    for unit in order:
        if isinstance(unit, TaskModel):
            found.append(unit)
        else:
            found.append(Chain({block: _level(inner[block], paths, depth + 1, exclusive) for block in unit}))
    return found


def _ordered(
    tasks: Sequence[TaskModel], paths: Mapping[str, Path], depth: int, chains: Sequence[list[Block]]
) -> list[TaskModel | list[Block]] | None:
    """Sort tasks and chains, each after those that it waits for; None if there is a cycle."""
    chain_of = {block: number for number, blocks in enumerate(chains) for block in blocks}
    key: dict[str, int | str] = {}
    for task in tasks:
        path = paths[task.task_id]
        key[task.task_id] = chain_of[path[depth]] if len(path) > depth else task.task_id
    units: dict[int | str, TaskModel | list[Block]] = {
        key[task.task_id]: task if key[task.task_id] == task.task_id else chains[int(key[task.task_id])]
        for task in tasks
    }
    waits: dict[int | str, set[int | str]] = {unit: set() for unit in units}
    for task in tasks:
        own = key[task.task_id]
        needed = [*task.upstream, *([paths[task.task_id][depth].by] if isinstance(own, int) else [])]
        waits[own] |= {key[name] for name in needed if name in key and key[name] != own}
    order = sorted_units(list(units), waits)
    return None if order is None else [units[unit] for unit in order]


T = TypeVar("T")


def sorted_units(units: Sequence[T], waits: Mapping[T, set[T]]) -> list[T] | None:
    """Sort units, each after those that it waits for, otherwise stable; None if there is a cycle."""
    positions = {unit: number for number, unit in enumerate(units)}
    waiting_for = {unit: len(waits[unit]) for unit in units}
    followers: dict[T, list[T]] = {}
    for unit in units:
        for each in waits[unit]:
            followers.setdefault(each, []).append(unit)
    ready = [positions[unit] for unit in units if not waiting_for[unit]]
    done: list[T] = []
    while ready:
        unit = units[heappop(ready)]
        done.append(unit)
        for each in followers.get(unit, ()):
            waiting_for[each] -= 1
            if not waiting_for[each]:
                heappush(ready, positions[each])
    return done if len(done) == len(units) else None
