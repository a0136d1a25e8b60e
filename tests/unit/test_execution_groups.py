"""Neighbouring steps in one process: ``execution_group``."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, cleanup, for_each, pipeline, step
from flowyml.core.errors import DefinitionError
from flowyml.core.resources import ResourceRequirements
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.codec import decode
from flowyml.runtime import fork_client, shared, spawn
from flowyml.runtime.process_tree import descendants
from tests.unit.local_runs import COMPLETED, FAILED, Jumping

pytestmark = pytest.mark.processes


def note(folder: str, name: str) -> str:
    """Where a step runs."""
    place = f"{os.getpid()} {threading.get_ident()}"
    with (Path(folder) / "places").open("a") as file:
        file.write(f"{name} {place}\n")
    print(f"{name} was here")
    return place


def places(folder: Path) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in (folder / "places").read_text().splitlines())


@step
def before(folder: str) -> int:
    note(folder, "before")
    return 1


@step(execution_group="together", retry=1)
def left(folder: str, before: int) -> list[int]:
    note(folder, "left")
    if not (Path(folder) / "left failed").exists():
        (Path(folder) / "left failed").touch()
        raise ValueError("once")
    return [before] * 3


@step(execution_group="together")
def right(folder: str, left: list[int]) -> int:
    note(folder, "right")
    return sum(left)


@step(execution_group="together")
def extra(folder: str, before: int) -> int:
    note(folder, "extra")
    return before


@step
def after(folder: str, right: int, extra: int) -> int:
    note(folder, "after")
    return right + extra


@pipeline
def grouped(folder: str) -> Any:
    first = before(folder)
    return after(folder, right(folder, left(folder, first)), extra(folder, first))


def test_steps_of_a_group_share_a_fresh_process_and_stay_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_FORK", "0")  # the conformance suite shows it with forks
    local = LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")
    result = grouped.run({"folder": str(tmp_path)}, on=local)
    assert result.outputs == {"after": 4}
    seen = places(tmp_path)
    assert seen["left"] == seen["right"] == seen["extra"]
    assert len({place.split()[0] for place in seen.values()}) == 3
    runs = {each.name: each for each in local.step_runs(result.run_id)}
    assert {name: run.attempt for name, run in runs.items()} == {
        "before": 1, "left": 2, "right": 1, "extra": 1, "after": 1,
    }  # fmt: skip
    said = {(line.step, line.message) for line in local.logs(result.run_id) if line.message.endswith("was here")}
    assert said == {(name, f"{name} was here") for name in runs}


@step(execution_group="item")
def first(folder: str, item: int) -> int:
    note(folder, f"first{item}")
    return item


@step(execution_group="item")
def second(folder: str, item: int) -> int:
    if item == 1:
        raise ValueError("no")
    note(folder, f"second{item}")
    return item


@step(execution_group="item")
def third(folder: str, item: int) -> int:
    note(folder, f"third{item}")
    return item


@pipeline
def items(folder: str) -> Any:
    with for_each([0, 1, 2]) as item:
        done = third(folder, second(folder, first(folder, item)))
    return {"done": done}


def test_each_item_has_a_process_which_ends_with_its_group(tmp_path: Path) -> None:
    local = LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")
    result = items.run({"folder": str(tmp_path)}, on=local)
    assert result.status is FAILED
    seen = places(tmp_path)
    assert seen["first0"] == seen["second0"] == seen["third0"]
    assert len({seen[f"first{number}"] for number in range(3)}) == 3
    assert not {str(one.pid) for one in descendants(os.getpid())} & {place.split()[0] for place in seen.values()}


@pytest.mark.parametrize("fork", ["1", "0"])
def test_a_step_that_is_killed_takes_the_process_along_and_the_rest_goes_on(
    tmp_path: Path, fork: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)
    folder, at_work, looks = str(tmp_path), str(tmp_path / "at work"), str(tmp_path / "looks")
    for module in (fork_client, shared, spawn):
        monkeypatch.setattr(module, "time", Jumping(Path(at_work), Path(looks)))

    @step(execution_group="one", retry=1, timeout=900)
    def slow() -> int:
        note(folder, "slow")
        if not Path(at_work).exists():
            before = Path(looks).stat().st_size
            while Path(looks).stat().st_size == before:
                time.sleep(0.01)
            Path(at_work).touch()
            time.sleep(3000)
        return 1

    @step(execution_group="one")
    def quick(slow: int) -> int:
        note(folder, "quick")
        return slow + 1

    made = Pipeline("killed").add_step(slow).add_step(quick)
    result = made.run(on=LocalOrchestrator(store=tmp_path / "runs.db"))
    assert result.outputs == {"quick": 2}
    first, again, following = [line.split()[1] for line in (tmp_path / "places").read_text().splitlines()]
    assert first != again == following


@pytest.mark.parametrize("fork", ["1", "0"])
def test_a_step_may_print_after_one_that_has_closed_the_output(
    tmp_path: Path, fork: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)

    @step(execution_group="one", timeout=240)
    def close() -> int:
        import sys

        sys.stdout.close()
        sys.stderr.close()
        return 1

    @step(execution_group="one", timeout=240)
    def speak(close: int) -> None:
        print("still heard")

    local = LocalOrchestrator(store=tmp_path / "runs.db")
    result = Pipeline("closed").add_step(close).add_step(speak).run(on=local)
    assert [line.message for line in local.logs(result.run_id) if line.step == "speak"] == ["still heard"], result.error


def test_the_plan_has_the_group_as_data() -> None:
    small, large = ResourceRequirements(cpu="500m", memory="2Gi"), ResourceRequirements(cpu=1, memory="900M", gpu=1)
    one = step(name="one", execution_group="both", timeout=3, resources=small)(lambda: 1)
    two = step(name="two", execution_group="both", timeout=4, resources=large)(lambda one: one)
    plan = Pipeline("as data").add_step(one).add_step(two).compile()
    assert decode(plan.canonical) == plan
    group = plan.structure.execution_groups["both"]
    assert (group.steps, group.timeout_seconds) == (("one", "two"), 7)
    assert group.resources == ResourceRequirements(cpu="1", memory="2Gi", gpu=1)
    plain = Pipeline("plain").add_step(step(name="one")(lambda: 1)).compile()
    assert plain.schema_version == 1, "a plan without one keeps its bytes"
    assert b"execution_group" not in plain.canonical


def test_a_pipeline_that_is_called_twice_has_a_group_in_each_call() -> None:
    @step(execution_group="both")
    def one() -> int:
        return 1

    @step(execution_group="both")
    def two(one: int) -> int:
        return one

    @pipeline
    def inner() -> int:
        return two(one())

    @pipeline
    def outer() -> Any:
        return {"a": inner(), "b": inner()}

    assert [group.steps for group in outer.compile().structure.execution_groups.values()] == [
        ("inner.one", "inner.two"), ("inner_2.one", "inner_2.two"),
    ]  # fmt: skip


def one_and_two(between: bool = False, **options: Any) -> Pipeline:
    made = Pipeline("mistake").add_step(step(name="one", execution_group="g")(lambda: 1))
    if between:
        made.add_step(step(name="middle")(lambda one: one))
        return made.add_step(step(name="two", execution_group="g")(lambda middle: middle))
    return made.add_step(step(name="two", execution_group="g", **options)(lambda one=0: one))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"between": True}, "step 'middle' lies between steps of execution_group='g'"),
        ({"run_if": "all_done"}, "has run_if='all_done'"),
        ({"secrets": {"TOKEN": "a/token"}}, "has secrets, which no other step may see"),
    ],
)
def test_what_cannot_be_a_group(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        one_and_two(**options).compile()


def test_two_groups_that_wait_for_each_other() -> None:
    """One task for each of them could not begin."""
    made = Pipeline("crossed").add_step(step(name="a", execution_group="g")(lambda: 1))
    made.add_step(step(name="b", execution_group="h")(lambda a: a))
    made.add_step(step(name="c", execution_group="h")(lambda: 1))
    made.add_step(step(name="d", execution_group="g")(lambda c: c))
    with pytest.raises(DefinitionError, match="step 'b' lies between steps of execution_group='g'"):
        made.compile()


def test_one_task_has_one_set_of_options() -> None:
    one = step(name="one", execution_group="g", kubeflow={"image": "a"})(lambda: 1)
    two = step(name="two", execution_group="g", kubeflow={"image": "b"})(lambda one: one)
    with pytest.raises(DefinitionError, match="different options for kubeflow: image='a' and 'b'"):
        Pipeline("images").add_step(one).add_step(two).compile()


def test_a_group_stands_in_one_place() -> None:
    @pipeline
    def looped() -> Any:
        with for_each([1]) as item:
            first("", item)
        second("", 1)

    with pytest.raises(DefinitionError, match="are in different loops, branches or pipelines: 'first' in"):
        looped.compile()

    @pipeline
    def tidied() -> Any:
        with cleanup():
            first("", 1)

    with pytest.raises(DefinitionError, match=r"and in cleanup\(\)"):
        tidied.compile()


def test_a_retry_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "left failed").touch()
    local = LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")
    handle = items.submit({"folder": str(tmp_path)}, on=local).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is FAILED
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is not COMPLETED
    names = [line.split()[0] for line in (tmp_path / "places").read_text().splitlines()]
    assert sorted(names) == ["first0", "first1", "first2", "second0", "second2", "third0", "third2"]
