"""A walk over packed values, as engines do it whose flow is a program of FlowyML's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowyml import Pipeline, either, otherwise, pipeline, step, when
from flowyml.artifacts import open_store, unpack
from flowyml.core.errors import StepError
from flowyml.runtime.decider import End, listed
from flowyml.runtime.nodes import Decision, Opening, Task
from flowyml.runtime.packed_decisions import PackedDecisions, given_to
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.walk import Walk
from tests.unit.control_flow import fail_on, numbers, same, total

pytestmark = pytest.mark.processes


@step
def arrays(count: int) -> Any:
    return [np.full(20_000, n) for n in range(count)]


@step
def large(n: int) -> Any:
    return np.full(20_000, n)


@step
def references(count: int) -> list[dict[str, Any]]:
    return [{"$artifact": n} for n in range(count)]


@step
def pairs(count: int) -> list[tuple[int, int]]:
    return [(n, n) for n in range(count)]


@step
def kinds(value: Any) -> list[str]:
    return [type(each).__name__ for each in value]


@step
def first(value: Any) -> int:
    return int(value[0])


def walked(made: Pipeline, tmp_path: Path, **parameters: Any) -> dict[str, Any]:
    """The outputs of a pipeline, by a walk in one thread."""
    bundle = made.bundle()
    path, store = bundle.write(tmp_path), str(tmp_path / "artifacts")
    walk: Walk[Task] = Walk(bundle.plan, parameters, Task)
    with StepProcesses(path, run_id="one", artifacts=store, parameters=parameters) as processes:
        decisions = PackedDecisions(processes, parameters)
        while walk.ready:
            node = walk.ready.popleft()
            try:
                if isinstance(node, Opening):
                    walk.open(node, decisions.lists(node))
                elif isinstance(node, Decision):
                    walk.end(node, End.OK if decisions.is_taken(node) else End.SKIPPED)
                else:
                    assert isinstance(node, Task)
                    node.values = processes.run(node.step.name, given_to(node), index=node.index)
                    walk.end(node, End.OK)
            except StepError as error:
                if not isinstance(node, Task):
                    raise
                walk.end(node, End.FAILED, str(error))
    found = {name: listed(node.values[key]) for name, (node, key) in walk.outputs.items() if node.end is End.OK}
    return {name: unpack(value, open_store(store)) for name, value in found.items()}


@pytest.mark.parametrize("fork", ["0", "1"])
def test_items_are_what_the_step_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: str) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)

    @pipeline(name="kinds")
    def made() -> Any:
        found = {}
        for items in (arrays,) if fork == "0" else (numbers, arrays, references, pairs):
            listed, name = items(2), items.name
            found[name] = kinds.options(name=f"kinds of {name}")(listed)
            found[f"each of {name}"] = kinds.options(name=f"kinds of each of {name}")(
                same.options(name=f"each of {name}").map(value=listed)
            )
        return found

    wanted = {"arrays": "ndarray", "numbers": "int", "references": "dict", "pairs": "tuple"}
    found = walked(made, tmp_path)
    assert found == {name: [wanted[name.removeprefix("each of ")]] * 2 for name in found}
    assert len(found) == (2 if fork == "0" else 8)


def test_a_loop_over_what_another_one_collected(tmp_path: Path) -> None:
    @pipeline(name="over collected")
    def made() -> Any:
        some = fail_on.options(name="some", on_item_error="continue").map(n=numbers(3))
        return {
            "arrays": first.map(value=large.map(n=[3, 4])),
            "pairs": kinds(same.map(value=some)),
            "nested": total.map(values=same.options(name="lists").map(value=[[1, 2], [3]])),
        }

    assert walked(made, tmp_path) == {"arrays": [3, 4], "pairs": ["tuple", "tuple"], "nested": [3, 3]}


def test_conditions_on_what_is_not_plain(tmp_path: Path) -> None:
    @step
    def numpy_number() -> Any:
        return np.int64(2)

    def deciding(condition: Callable[[Any], Any]) -> Pipeline:
        @pipeline(name="conditions")
        def made(limit: int = 1) -> Any:
            found = numpy_number()
            with when((found > limit) & condition(found)):
                yes = same("yes")
            with otherwise():
                no = same.options(name="other")("no")
            return {"word": either(yes, no)}

        return made

    assert walked(deciding(lambda it: it == 2), tmp_path, limit=1) == {"word": "yes"}
    assert walked(deciding(lambda it: it != 2), tmp_path, limit=1) == {"word": "no"}
    with pytest.raises(StepError, match=r"The condition of branch .* cannot be decided"):
        walked(deciding(lambda it: it > "a"), tmp_path, limit=1)


def test_what_is_not_a_list(tmp_path: Path) -> None:
    @pipeline(name="no list")
    def made() -> Any:
        return same.map(value=same.options(name="made")("text"))

    with pytest.raises(StepError, match="that is not a list"):
        walked(made, tmp_path)
