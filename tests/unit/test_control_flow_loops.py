"""Loops: a step for each item, blocks, limits, and what fails."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flowyml import current_run, either, for_each, is_in, otherwise, pipeline, step, when
from flowyml.core.capabilities import Feature
from flowyml.core.errors import DefinitionError
from flowyml.core.runs import find_item, folded
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.needs import first_of_each
from flowyml.runtime.nodes import End, Opening, Task
from flowyml.runtime.walk import Walk
from tests.unit.control_flow import CANCELLED, COMPLETED, FAILED, add, double, fail_on, numbers, same, steps_of, total


def test_a_limit_is_asked_for_beside_the_loop() -> None:
    @pipeline(name="limited")
    def made() -> None:
        double.options(name="free").map(n=[1, 2])
        with for_each([1, 2], name="some", max_parallel=2) as n:
            double(n)

    needs = first_of_each(made.compile())
    assert needs[Feature.FAN_OUT] == "pipeline 'limited' has 'free'"
    assert needs[Feature.MAX_PARALLEL] == "loop 'some' has max_parallel=2"


def test_map_over_an_output_a_parameter_and_a_constant(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="maps")
    def made(given: list[int] = [5, 6]) -> Any:
        return {
            "output": double.map(n=numbers(3)),
            "parameter": double.options(name="of_parameter").map(n=given),
            "constant": add.partial(b=100).map(a=[1, 2]),
            "zipped": add.options(name="zipped").map(a=[1, 2], b=[10, 20]),
        }

    result = made.run(on=both_ways)
    wanted = {"output": [0, 2, 4], "parameter": [10, 12], "constant": [101, 102], "zipped": [11, 22]}
    assert result.outputs == wanted, result.error
    assert made.run({"given": []}, on=both_ways)["parameter"] == []


def test_constant_lists_beside_a_parameter_that_json_does_not_have(local: LocalOrchestrator) -> None:
    """Compiling it once failed: TypeError: unhashable type: 'list'."""

    @step
    def weekday(day: date) -> str:
        return f"{day:%A}"

    @pipeline(name="weekdays")
    def made(days: list[date] = [date(2026, 1, 31)]) -> Any:
        return {"days": weekday.map(day=days), "constant": double.map(n=[1])}

    assert made.run(on=local).outputs == {"days": ["Saturday"], "constant": [2]}


def test_items_have_an_index_in_records_and_in_the_step(both_ways: LocalOrchestrator) -> None:
    @step
    def where(n: int) -> list[int]:
        print(f"at {n}")
        return [n, *current_run().index]

    @pipeline(name="indexes")
    def made() -> Any:
        return where.map(n=numbers(3))

    result = made.run(on=both_ways)
    assert result["where"] == [[0, 0], [1, 1], [2, 2]]
    runs = [run for run in both_ways.step_runs(result.run_id) if run.name == "where"]
    assert [(run.index, run.status) for run in runs] == [((n,), COMPLETED) for n in range(3)]
    assert folded(runs)[0].label == "where 3 of 3"
    assert {(line.label, line.message) for line in both_ways.logs(result.run_id)} == {
        (f"where[{n}]", f"at {n}") for n in (0, 1, 2)
    }


def test_the_log_of_a_step_and_of_an_item(local: LocalOrchestrator) -> None:
    @step
    def where(n: int, m: int) -> None:
        print(f"{n} and {m}")

    @pipeline(name="logs of items")
    def made() -> None:
        with for_each(list(range(12))) as n, for_each([0, 1]) as m:
            where(n, m)
            double(m)

    run = local.attach(made.run(on=local).run_id)

    def lines(**which: Any) -> set[str]:
        found = {line.message for line in run.logs(**which)}
        step_name, item = find_item(run.step_runs(), which["step"], which.get("index"))
        assert found == {line.message for line in Orchestrator.logs_of_step(local, run.job_id, step_name, item)}
        return found

    assert len(lines(step="where")) == 24
    assert lines(step="where", index=(1, 0)) == {"1 and 0"}
    assert lines(step="where[11][1]") == {"11 and 1"}
    assert lines(step="where", index=1) == {"1 and 0", "1 and 1"}
    assert lines(step="double") == set()
    assert list(run.logs(step="where", index=3, follow=True)) == list(run.logs(step="where", index=3))
    for wrong, reason in [
        ({"step": "there"}, "no step 'there'. It has: where, double."),
        ({"step": "where", "index": 12}, r"no step 'where\[12\]'. Its indexes go up to \[11\]\[1\]."),
        ({"step": "where", "index": (1, 2)}, r"no step 'where\[1\]\[2\]'"),
        ({"index": 1}, "selects an item of a step"),
    ]:
        with pytest.raises(DefinitionError, match=reason):
            run.logs(**wrong)


def test_an_empty_list_completes_with_an_empty_list(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="empty")
    def made() -> Any:
        return total(double.map(n=numbers(0)))

    result = made.run(on=both_ways)
    assert result["total"] == 0
    assert steps_of(result, both_ways)["double"] == ("COMPLETED", "no_items")


def test_a_failed_item_fails_the_run_and_its_siblings_run_on(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="one fails")
    def made() -> Any:
        return total(double.map(n=fail_on.map(n=numbers(3))))

    result = made.run(on=both_ways)
    assert result.status is FAILED
    assert "step 'fail_on[1]': ValueError: no 1" in str(result.error)
    assert steps_of(result, both_ways) == {
        "numbers": ("COMPLETED", "completed"),
        "fail_on[0]": ("COMPLETED", "completed"),
        "fail_on[1]": ("FAILED", "failed"),
        "fail_on[2]": ("COMPLETED", "completed"),
        "double": ("CANCELLED", "upstream_failed"),
        "total": ("CANCELLED", "upstream_failed"),
    }
    assert result.step_results["fail_on"].items == (3, 3)
    assert result.step_results["fail_on"].status is FAILED


def test_with_continue_the_consumer_gets_what_succeeded_with_its_index(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="some fail")
    def made() -> Any:
        return same(fail_on.options(on_item_error="continue").map(n=[7, 1, 9]))

    result = made.run(on=both_ways)
    assert result.success, result.error
    assert [tuple(pair) for pair in result["same"]] == [(0, 7), (2, 9)]
    assert steps_of(result, both_ways)["fail_on[1]"] == ("FAILED", "failed")


def test_each_item_is_tried_again_by_itself(local: LocalOrchestrator) -> None:
    seen: list[int] = []

    @step(retry=2)
    def flaky(n: int) -> int:
        seen.append(n)
        if n == 1 and seen.count(1) < 3:
            raise OSError("not yet")
        return n

    @pipeline(name="flaky items")
    def made() -> Any:
        return flaky.map(n=[0, 1, 2])

    result = made.run(on=local)
    assert result["flaky"] == [0, 1, 2]
    assert (seen.count(0), seen.count(1), seen.count(2)) == (1, 3, 1)
    attempts = {run.index: run.attempt for run in local.step_runs(result.run_id)}
    assert attempts == {(0,): 1, (1,): 3, (2,): 1}


def test_an_item_does_not_wait_for_the_others(local: LocalOrchestrator) -> None:
    """The second step of one item runs while the first step of another one waits for it."""
    second_step_ran = threading.Event()

    @step
    def first(n: int) -> int:
        if n == 1:
            assert second_step_ran.wait(60)
        return n

    @step
    def second(n: int) -> int:
        if n == 0:
            second_step_ran.set()
        return n

    @pipeline(name="no barrier")
    def made() -> Any:
        with for_each([0, 1]) as n:
            return second(first(n))

    assert made.run(on=local)["second"] == [0, 1]


def test_no_more_items_at_a_time_than_asked_for(tmp_path: Path) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    @step
    def count(n: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return n

    @pipeline(name="limited")
    def made() -> Any:
        return count.options(max_parallel=2).map(n=numbers(12))

    result = made.run(on=LocalOrchestrator(store=tmp_path / "runs.db", max_workers=8))
    assert result["count"] == list(range(12))
    assert most[0] <= 2


def test_loops_nest_and_collect_lists_of_lists(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="nested")
    def made() -> Any:
        with for_each(numbers(3)) as n:
            with for_each(numbers.options(name="inner")(n)) as m:
                both = add(n, m)
            row = total(both)
        return {"rows": row, "all": both}

    assert made.run(on=both_ways).outputs == {"rows": [0, 1, 5], "all": [[], [1], [2, 3]]}


@pytest.mark.parametrize(
    ("value", "message"),
    [("text", "goes over 'n' that is not a list: str"), ({"a": 1}, "not a list: dict"), (None, "not a list: NoneType")],
)
def test_a_value_that_is_not_a_list_fails_the_loop(local: LocalOrchestrator, value: object, message: str) -> None:
    @pipeline(name="no list")
    def made() -> Any:
        return total(double.map(n=step(name="items")(lambda: value)()))

    result = made.run(on=local)
    assert result.status is FAILED
    assert message in str(result.error)
    assert steps_of(result, local)["double"] == ("CANCELLED", "upstream_failed")


def test_the_record_of_nested_loops_has_each_item_once(local: LocalOrchestrator) -> None:
    """What stood in for the items within while they were not known is gone."""

    @pipeline(name="nested record")
    def made() -> Any:
        with for_each([[1, 2], []], max_parallel=1) as row, for_each(row) as n:
            return {"all": double(n)}

    result = made.run(on=local)
    assert result["all"] == [[2, 4], []]
    assert [(run.label, run.status, run.raw_status) for run in local.step_runs(result.run_id)] == [
        ("double[0][0]", COMPLETED, "completed"),
        ("double[0][1]", COMPLETED, "completed"),
        ("double[1]", COMPLETED, "no_items"),
    ]


def test_items_that_have_not_begun_are_known() -> None:
    """So that the terminal shows 1 of 4, not 1 of 1, however few may run at a time."""

    @pipeline(name="to come")
    def made() -> Any:
        return double.options(max_parallel=1).map(n=[1, 2, 3, 4])

    walk = Walk(made.compile(), {}, Task)
    opening = walk.ready.popleft()
    assert isinstance(opening, Opening)
    walk.open(opening, {"n": [1, 2, 3, 4]})
    assert [task.label for task in (*walk.tasks, *walk.to_come())] == [f"double[{n}]" for n in range(4)]
    task = walk.ready.popleft()
    task.values = {"double": 2}
    walk.end(task, End.OK)
    assert [task.label for task in (*walk.tasks, *walk.to_come())] == [f"double[{n}]" for n in range(4)]
    walk.stop()
    assert not list(walk.to_come())


def test_lists_of_different_lengths(local: LocalOrchestrator) -> None:
    @pipeline(name="lengths")
    def made() -> Any:
        return add.map(a=numbers(3), b=[1, 2])

    assert "must be equally long: 'a' has 3, 'b' has 2" in str(made.run(on=local).error)


def test_an_item_sees_its_own_copy(local: LocalOrchestrator) -> None:
    """As on every engine: what an item does to a value, no other item and no other step sees."""

    @step
    def rows() -> list[list[int]]:
        return [[1], [2]]

    @step
    def spoil(row: list[int], shared: list[list[int]]) -> int:
        row.append(9)
        shared.append(row)
        return len(shared)

    @pipeline(name="copies")
    def made() -> Any:
        found = rows()
        return {"lengths": spoil.partial(shared=found).map(row=found), "rows": same(found)}

    assert made.run(on=local).outputs == {"lengths": [3, 3], "rows": [[1], [2]]}


def test_items_that_had_not_begun_when_the_process_died_did_not_fail(local: LocalOrchestrator) -> None:
    @step(max_parallel=1)
    def die(n: int) -> int:
        while not [run for run in local.step_runs("dead") if run.index]:  # they are recorded a little later
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return n

    @pipeline(name="dies in a loop")
    def made() -> Any:
        return die.map(n=[1, 2, 3])

    handle = made.submit(on=local, run_id="dead")
    handle.wait_for_completion(timeout=240, poll_interval=0.05, progress=False)
    assert (handle.status, handle.raw_status) == (FAILED, "crashed")
    assert [run.status for run in handle.step_runs()] == [FAILED, CANCELLED, CANCELLED]


def test_the_error_of_a_run_names_some_of_many_items(local: LocalOrchestrator) -> None:
    @step
    def fail(n: int) -> int:
        raise ValueError("no")

    @pipeline(name="many fail")
    def made() -> Any:
        return fail.map(n=numbers(100))

    error = str(made.run(on=local).error)
    assert error.startswith("step 'fail[0]': ValueError: no; ")
    assert error.endswith("step 'fail[2]': ValueError: no; and 97 more")


@pytest.mark.slow
def test_the_values_of_a_loop_are_let_go(local: LocalOrchestrator) -> None:
    import gc
    import weakref

    class Big:
        pass

    alive: list[weakref.ref[Big]] = []
    most = [0]

    @step
    def make(n: int) -> Big:
        big = Big()
        alive.append(weakref.ref(big))
        gc.collect()
        most[0] = max(most[0], sum(ref() is not None for ref in alive))
        return big

    @step
    def use(big: Big) -> int:
        return 1

    @pipeline(name="big items")
    def made() -> Any:
        with for_each(numbers(40)) as n:
            done = use(make(n))
        return total(done)

    result = made.run(on=LocalOrchestrator(store=local.store.path, max_workers=2))
    assert result["total"] == 40
    gc.collect()
    assert not any(ref() is not None for ref in alive)
    assert most[0] < 10


def test_a_list_that_is_fixed_in_a_loop(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="fixed list")
    def made() -> Any:
        with for_each(numbers(2)) as n:
            with when(is_in(n, [1, 2])):
                inside = total([10, 20])
            with otherwise():
                other = same({"no": []})
            return same.options(name="joined")(either(inside, other))

    assert made.run(on=both_ways)["joined"] == [{"no": []}, 30]
