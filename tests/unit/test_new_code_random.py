"""Random pipelines that fail, are edited at random, and retried with the new code: never a stale value, and exactly
what the rule says runs again."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import Pipeline, either, for_each, otherwise, pipeline, step, when
from flowyml.core.item_names import labelled
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.host import Host
from flowyml.orchestrators.new_code import EndedRun, NewRun, changes
from flowyml.orchestrators.retrying import StepInstance
from flowyml.plan.model import Plan
from flowyml.plan.parameters import check_values
from flowyml.runtime.decider import End

NAMES = "abcdefgh"
PARAMETERS = ("p", "q")
trace: list[Any] = []
is_broken: list[bool] = []
"""Not empty while bugs count. It is not part of the functions, so those of a fixed step are the same."""


@dataclass(frozen=True)
class Block:
    """A step, a loop of two steps and their total, a step that makes a list, or a choice between two steps.

    ``takes`` are the names of earlier blocks or parameters, or constants; those that the pipeline lacks are 0.
    ``version`` is the text of its functions. With a ``bug``, a step fails for a third of all inputs.
    """

    name: str
    kind: str
    takes: tuple[str | int, ...] = ()
    items: str | tuple[int, ...] = ()
    version: int = 0
    mode: str = "fail"
    bug: bool = False


@dataclass(frozen=True)
class Project:
    """The blocks of a pipeline by name, in order, and the values of its parameters."""

    blocks: tuple[Block, ...]
    values: Mapping[str, int] = field(default_factory=dict)

    @property
    def branches(self) -> list[str]:
        """The blocks that are branches, in order."""
        return [block.name for block in self.blocks if block.kind == "choice"]

    def built(self) -> Pipeline:
        """As a pipeline."""

        @pipeline(name="edited")
        def made(p: int = 0, q: int = 0) -> Any:
            found: dict[str, Any] = {"p": p, "q": q}
            for block in self.blocks:
                found[block.name] = _added(block, found)
            return {"end": _function("end", 0, True)(*list(found.values())[-2:])}

        return made


def digest(*what: Any) -> int:
    return zlib.crc32(repr(what).encode())


def _function(name: str, version: int, bug: bool, *, lists: bool = False) -> Any:
    def same(one: Any = 0, other: Any = 0, third: Any = 0) -> Any:
        value = digest(name, version, one, other, third)
        trace.append((name, repr((one, other, third))))
        if is_broken and bug and (name == "end" or value % 3 == 0):
            raise ValueError("a bug")
        return [digest(value, number) for number in range(value % 4)] if lists else value

    return step(name=name, outputs=[name])(same)


def _added(block: Block, found: Mapping[str, Any]) -> Any:
    takes = [found.get(each, 0) if isinstance(each, str) else each for each in block.takes]
    if block.kind in ("step", "list"):
        return _function(block.name, block.version, block.bug, lists=block.kind == "list")(*takes)
    if block.kind == "choice":
        with when(_function(f"{block.name}_if", 0, False)(*takes) > 2**31):
            left = _function(f"{block.name}_yes", block.version, block.bug)(*takes)
        with otherwise():
            right = _function(f"{block.name}_no", block.version, block.bug)(*takes)
        return either(left, right)
    items = found[block.items] if isinstance(block.items, str) else list(block.items)
    with for_each(items, name=block.name, on_item_error=block.mode) as item:
        first = _function(f"{block.name}_each", block.version, block.bug)(item, *takes)
        second = _function(f"{block.name}_then", block.version, False)(first, item)
    return _function(f"{block.name}_total", 0, False)(second)


def blocks_at(number: int) -> st.SearchStrategy[Block]:
    earlier = st.sampled_from([*PARAMETERS, *NAMES[:number]])
    kinds = ["step", "step", "list", "loop", "choice"]
    return st.builds(
        Block,
        name=st.just(NAMES[number]),
        kind=st.sampled_from(kinds),
        takes=st.lists(st.one_of(earlier, st.integers(0, 3)), max_size=2).map(tuple),
        items=st.one_of(st.lists(st.integers(0, 5), max_size=4).map(tuple), st.sampled_from(NAMES[: number or 1])),
        mode=st.sampled_from(["fail", "fail", "continue"]),
        bug=st.booleans(),
    )


@st.composite
def projects(draw: st.DrawFn) -> Project:
    made: list[Block] = []
    for number in range(draw(st.integers(1, 5))):
        made.append(_valid(draw(blocks_at(number)), made))
    return Project(tuple(made), draw(st.fixed_dictionaries({name: st.integers(0, 3) for name in PARAMETERS})))


def _valid(block: Block, before: list[Block]) -> Block:
    """Only a list is looped over."""
    lists = {each.name for each in before if each.kind == "list"}
    return replace(block, items=(1, 2, 3)) if isinstance(block.items, str) and block.items not in lists else block


@st.composite
def edits(draw: st.DrawFn, old: Project) -> Project:
    blocks, values = list(old.blocks), dict(old.values)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["body", "new", "removed", "wiring", "items", "mode", "value"]))
        at = draw(st.integers(0, len(blocks) - 1)) if blocks else 0
        number = NAMES.index(blocks[at].name) if blocks else 0
        if kind == "value":
            values[draw(st.sampled_from(PARAMETERS))] = draw(st.integers(0, 3))
        elif kind == "new":
            name = draw(st.sampled_from(NAMES))
            by_name = {each.name: each for each in (*blocks, draw(blocks_at(NAMES.index(name))))}
            blocks = [by_name[name] for name in sorted(by_name)]
        elif not blocks:
            continue
        elif kind == "removed":
            del blocks[at]
        elif kind == "body":
            blocks[at] = replace(blocks[at], version=blocks[at].version + 1)
        else:
            other = draw(blocks_at(number))
            part = {"wiring": "takes", "items": "items", "mode": "mode"}[kind]
            blocks[at] = replace(blocks[at], **{part: getattr(other, part)})
    return Project(tuple(_valid(each, blocks[:at]) for at, each in enumerate(blocks)), values)


class Definitions:
    """What the rule compares of each step and item, and what each of them takes, for the items that a run had."""

    def __init__(self, project: Project, ends: Collection[StepInstance]) -> None:
        self.same: dict[StepInstance, Any] = {}
        self.takes: dict[StepInstance, list[StepInstance]] = {}
        self.versions: dict[str, Any] = {}
        self._sources: dict[str, tuple[str, ...]] = {}
        for block in project.blocks:
            self._add(block, project.values, ends)

    def _add(self, block: Block, values: Mapping[str, int], ends: Collection[StepInstance]) -> None:
        name, kind, lists = block.name, block.kind, block.items
        wiring = [
            self._sources.get(str(each)) or ((each, values[str(each)]) if each in PARAMETERS else 0)
            if isinstance(each, str)
            else each
            for each in block.takes
        ]
        before: list[StepInstance] = [(step, ()) for each in block.takes for step in self._sources.get(str(each), ())]
        text = block.version, block.bug, kind == "list"
        if kind in ("step", "list"):
            self._put((name, ()), wiring, before, text)
            self._sources[name] = (name,)
        elif kind == "choice":
            self._put((f"{name}_if", ()), wiring, before)
            for side in ("yes", "no"):
                self._put((f"{name}_{side}", ()), wiring, [*before, (f"{name}_if", ())], text)
            self._sources[name] = f"{name}_yes", f"{name}_no"
        else:
            around: Any = ("values" if isinstance(lists, tuple) else lists), block.mode
            indexes = [index for step, index in ends if step == f"{name}_each" and index]
            if isinstance(lists, str):
                before.append((lists, ()))
            else:
                indexes = [index for index in indexes if index[0] < len(lists)]
            for index in indexes:
                item = lists[index[0]] if isinstance(lists, tuple) else ""
                self._put((f"{name}_each", index), [around, item, wiring], before, text)
                self._put((f"{name}_then", index), [around, item], [(f"{name}_each", index)], block.version)
            whole = [*before, *((f"{name}_then", index) for index in indexes)]
            # Without items, the wiring of the step itself is compared: its empty list runs again, though nothing ran.
            self._put((f"{name}_total", ()), [around, lists, wiring if not indexes else ()], whole)
            self._sources[name] = (f"{name}_total",)

    def _put(self, instance: StepInstance, same: Any, takes: list[StepInstance], version: Any = None) -> None:
        self.same[instance], self.takes[instance], self.versions[instance[0]] = same, takes, version


def by_the_rule(
    old: Definitions, new: Definitions, ends: Mapping[StepInstance, End | None], again: Collection[str]
) -> set[StepInstance]:
    """What completed, is defined as before, and takes only such results; not the steps that are to run ``again``."""
    stays: set[StepInstance] = set()
    for instance, takes in new.takes.items():  # in the order of the blocks
        is_same = instance in old.same and repr(old.same[instance]) == repr(new.same[instance])
        if (
            instance[0] not in again
            and is_same
            and ends.get(instance) in (End.OK, End.SKIPPED)
            and stays.issuperset(takes)
        ):
            stays.add(instance)
    return {instance for instance in stays if ends[instance] is End.OK}


numbers = count()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path_factory.mktemp("random") / "runs.db")


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data(), projects())
def test_a_retry_of_edited_code_gives_what_a_fresh_run_gives(
    local: LocalOrchestrator, data: st.DataObject, project: Project
) -> None:
    made, edited = project.built(), data.draw(edits(project))
    new, values = edited.built(), dict(edited.values)
    keeps = data.draw(st.booleans())
    is_broken.append(True)
    try:
        run_id = here(local, keeps=keeps).execute(made, f"old {next(numbers)}", dict(project.values)).run_id
    finally:
        is_broken.clear()
    ended, plan = local.ended_run(run_id), new.compile()
    before, after = Definitions(project, ended.ends), Definitions(edited, ended.ends)
    first = taken(ended, plan, values, ())
    wanted = by_the_rule(before, after, ended.ends, ())
    # A value that was not kept is computed again; and so are branches whose number changes, since they are numbered.
    is_exact = keeps and project.branches == edited.branches
    assert first == wanted if is_exact else first <= wanted
    again = {name for name, _ in first if before.versions[name] != after.versions[name]}
    named = changes(ended.bundle, new.bundle(), [name for name, _ in first])[1]
    assert {*named} == again
    second = taken(ended, plan, values, named)
    wanted = by_the_rule(before, after, ended.ends, again)
    assert second == wanted if is_exact else second <= wanted

    trace.clear()
    fresh = new.run(values, on=local, run_id=f"fresh {next(numbers)}")
    all_of_it = Counter(trace)
    trace.clear()
    results = NewRun.of(ended, plan, new.check_parameters(values), named).taken
    result = here(local, taken=results).execute(new, f"new {next(numbers)}", values)
    assert result.success, result.error
    assert result.outputs == fresh.outputs
    assert Counter(trace) <= all_of_it
    assert Counter(what[0] for what in (all_of_it - Counter(trace)).elements()) == Counter(name for name, _ in second)


def here(local: LocalOrchestrator, **facts: Any) -> LocalOrchestrator:
    """An orchestrator whose runs are in this process, with a host of these facts."""
    made = LocalOrchestrator(store=local.store.path)
    made.host = Host()
    vars(made.host).update(facts)
    return made


def taken(ended: EndedRun, plan: Plan, values: Mapping[str, int], steps: Collection[str]) -> set[StepInstance]:
    found = NewRun.of(ended, plan, check_values("edited", plan.parameters, dict(values)), steps or None).taken.results
    return {instance for instance in ended.ends if labelled(*instance) in found}
