"""Loops, branches, run_if and clean-up, in threads and in processes of their own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml import (
    If,
    Pipeline,
    all_of,
    any_of,
    cleanup,
    current_run,
    either,
    elif_,
    for_each,
    is_in,
    not_,
    otherwise,
    pipeline,
    step,
    when,
)
from flowyml.core.errors import CycleError, DefinitionError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import PipelineResult, StepRun, folded
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.codec import decode
from flowyml.plan.model import RUN_IF, Plan
from flowyml.runtime.nodes import End, Opening, Task
from flowyml.runtime.walk import Walk

COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED


@pytest.fixture(params=["threads", "processes"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db", workers=request.param)


@pytest.fixture
def threads(tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db")


def steps_of(result: PipelineResult, orchestrator: LocalOrchestrator) -> dict[str, tuple[str, str]]:
    runs = orchestrator.step_runs(result.run_id)
    return {run.label: (run.status.name, run.raw_status) for run in runs}


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def double(n: int) -> int:
    return 2 * n


@step
def add(a: int, b: int = 0) -> int:
    return a + b


@step
def total(values: list[int]) -> int:
    return sum(values)


@step
def fail_on(n: int, bad: int = 1) -> int:
    if n == bad:
        raise ValueError(f"no {n}")
    return n


@step
def same(value: Any = None) -> Any:
    return value


# Fan-out.


def test_map_over_an_output_a_parameter_and_a_constant(local: LocalOrchestrator) -> None:
    @pipeline(name="maps")
    def made(given: list[int] = [5, 6]) -> Any:
        return {
            "output": double.map(n=numbers(3)),
            "parameter": double.options(name="of_parameter").map(n=given),
            "constant": add.partial(b=100).map(a=[1, 2]),
            "zipped": add.options(name="zipped").map(a=[1, 2], b=[10, 20]),
        }

    result = made.run(on=local)
    wanted = {"output": [0, 2, 4], "parameter": [10, 12], "constant": [101, 102], "zipped": [11, 22]}
    assert result.outputs == wanted, result.error
    assert made.run({"given": []}, on=local)["parameter"] == []


def test_items_have_an_index_in_records_and_in_the_step(local: LocalOrchestrator) -> None:
    @step
    def where(n: int) -> list[int]:
        print(f"at {n}")
        return [n, *current_run().index]

    @pipeline(name="indexes")
    def made() -> Any:
        return where.map(n=numbers(3))

    result = made.run(on=local)
    assert result["where"] == [[0, 0], [1, 1], [2, 2]]
    runs = [run for run in local.step_runs(result.run_id) if run.name == "where"]
    assert [(run.index, run.status) for run in runs] == [((n,), COMPLETED) for n in range(3)]
    assert folded(runs)[0].label == "where 3 of 3"
    assert {(line.label, line.message) for line in local.logs(result.run_id)} == {
        (f"where[{n}]", f"at {n}") for n in (0, 1, 2)
    }


def test_an_empty_list_completes_with_an_empty_list(local: LocalOrchestrator) -> None:
    @pipeline(name="empty")
    def made() -> Any:
        return total(double.map(n=numbers(0)))

    result = made.run(on=local)
    assert result["total"] == 0
    assert steps_of(result, local)["double"] == ("COMPLETED", "no_items")


def test_a_failed_item_fails_the_run_and_its_siblings_run_on(local: LocalOrchestrator) -> None:
    @pipeline(name="one fails")
    def made() -> Any:
        return total(double.map(n=fail_on.map(n=numbers(3))))

    result = made.run(on=local)
    assert result.status is FAILED
    assert "step 'fail_on[1]' failed: ValueError: no 1" in str(result.error)
    assert steps_of(result, local) == {
        "numbers": ("COMPLETED", "completed"),
        "fail_on[0]": ("COMPLETED", "completed"),
        "fail_on[1]": ("FAILED", "failed"),
        "fail_on[2]": ("COMPLETED", "completed"),
        "double": ("CANCELLED", "upstream_failed"),
        "total": ("CANCELLED", "upstream_failed"),
    }
    assert result.step_results["fail_on"].items == (3, 3)
    assert result.step_results["fail_on"].status is FAILED


def test_with_continue_the_consumer_gets_what_succeeded_with_its_index(local: LocalOrchestrator) -> None:
    @pipeline(name="some fail")
    def made() -> Any:
        return same(fail_on.options(on_item_error="continue").map(n=[7, 1, 9]))

    result = made.run(on=local)
    assert result.success, result.error
    assert [tuple(pair) for pair in result["same"]] == [(0, 7), (2, 9)]
    assert steps_of(result, local)["fail_on[1]"] == ("FAILED", "failed")


def test_each_item_is_tried_again_by_itself(threads: LocalOrchestrator) -> None:
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

    result = made.run(on=threads)
    assert result["flaky"] == [0, 1, 2]
    assert (seen.count(0), seen.count(1), seen.count(2)) == (1, 3, 1)
    attempts = {run.index: run.attempt for run in threads.step_runs(result.run_id)}
    assert attempts == {(0,): 1, (1,): 3, (2,): 1}


def test_an_item_does_not_wait_for_the_others(threads: LocalOrchestrator) -> None:
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

    assert made.run(on=threads)["second"] == [0, 1]


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


def test_loops_nest_and_collect_lists_of_lists(local: LocalOrchestrator) -> None:
    @pipeline(name="nested")
    def made() -> Any:
        with for_each(numbers(3)) as n:
            with for_each(numbers.options(name="inner")(n)) as m:
                both = add(n, m)
            row = total(both)
        return {"rows": row, "all": both}

    assert made.run(on=local).outputs == {"rows": [0, 1, 5], "all": [[], [1], [2, 3]]}


@pytest.mark.parametrize(
    ("value", "message"),
    [("text", "goes over 'n' that is not a list: str"), ({"a": 1}, "not a list: dict"), (None, "not a list: NoneType")],
)
def test_what_is_no_list_fails_the_loop(threads: LocalOrchestrator, value: object, message: str) -> None:
    @pipeline(name="no list")
    def made() -> Any:
        return total(double.map(n=step(name="items")(lambda: value)()))

    result = made.run(on=threads)
    assert result.status is FAILED
    assert message in str(result.error)
    assert steps_of(result, threads)["double"] == ("CANCELLED", "upstream_failed")


def test_the_record_of_nested_loops_has_each_item_once(threads: LocalOrchestrator) -> None:
    """What stood in for the items within while they were not known is gone."""

    @pipeline(name="nested record")
    def made() -> Any:
        with for_each([[1, 2], []], max_parallel=1) as row, for_each(row) as n:
            return {"all": double(n)}

    result = made.run(on=threads)
    assert result["all"] == [[2, 4], []]
    assert [(run.label, run.status, run.raw_status) for run in threads.step_runs(result.run_id)] == [
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
    walk.ended(task, End.OK)
    assert [task.label for task in (*walk.tasks, *walk.to_come())] == [f"double[{n}]" for n in range(4)]
    walk.stop()
    assert not list(walk.to_come())


def test_what_is_annotated_as_no_list_is_an_error_when_compiled() -> None:
    @pipeline(name="over a number")
    def over_a_parameter(count: int = 3) -> Any:
        return double.map(n=count)

    @pipeline(name="over one number")
    def over_an_output() -> Any:
        with for_each(total(numbers(3))) as n:  # type: ignore[arg-type]  # the mistake
            double(n)

    with pytest.raises(
        DefinitionError, match=r"'double' goes over 'n', parameter 'count', which is of type int\..* line"
    ):
        over_a_parameter.compile()
    with pytest.raises(
        DefinitionError, match=r"goes over the output of step 'total', which is of type int\. .*list\[…\]"
    ):
        over_an_output.compile()


def test_lists_of_different_lengths(threads: LocalOrchestrator) -> None:
    @pipeline(name="lengths")
    def made() -> Any:
        return add.map(a=numbers(3), b=[1, 2])

    assert "must be equally long: 'a' has 3, 'b' has 2" in str(made.run(on=threads).error)


def test_an_item_sees_its_own_copy(threads: LocalOrchestrator) -> None:
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

    assert made.run(on=threads).outputs == {"lengths": [3, 3], "rows": [[1], [2]]}


# Branches.


@pytest.mark.parametrize(("n", "taken"), [(1, "low"), (5, "middle"), (50, "high")])
def test_a_chain_of_branches(local: LocalOrchestrator, n: int, taken: str) -> None:
    @pipeline(name="chain")
    def made(n: int = 0) -> Any:
        found = add(n)
        with when(found < 3):
            low = same.options(name="low")("low")
        with elif_(found < 10):
            middle = same.options(name="middle")("middle")
        with otherwise():
            high = same.options(name="high")("high")
        return {"taken": same(either(low, middle, high))}

    result = made.run({"n": n}, on=local)
    assert result["taken"] == taken
    seen = steps_of(result, local)
    for name in ("low", "middle", "high"):
        assert seen[name] == ("COMPLETED", "completed" if name == taken else "skipped")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (lambda n: n == 3, True),
        (lambda n: n != 3, False),
        (lambda n: (n > 1) & (n < 3), False),
        (lambda n: (n > 1) & (n <= 3), True),
        (lambda n: (n < 1) | (n >= 3), True),
        (lambda n: ~(n > 1), False),
        (lambda n: is_in(n, [1, 2, 3]), True),
        (lambda n: is_in(n, (1, 2)), False),
        (lambda n: all_of(n, n > 2), True),
        (lambda n: any_of(n > 5, n == 3), True),
        (lambda n: not_(n), False),
        (lambda n: n, True),
        (lambda n: n > 2, True),
    ],
)
def test_conditions(threads: LocalOrchestrator, condition: Callable[[Any], Any], holds: bool) -> None:
    @pipeline(name="conditions")
    def made(n: int = 3) -> Any:
        with when(condition(add(n))):
            add.options(name="yes")(1)

    result = made.run(on=threads)
    assert result.success, result.error
    assert result.step_results["yes"].raw_status == ("completed" if holds else "skipped")
    assert decode(made.compile().canonical) == made.compile()


def test_a_condition_that_cannot_be_decided_fails_its_branches(local: LocalOrchestrator) -> None:
    @pipeline(name="undecided")
    def made() -> Any:
        with when(same("text") > 3, name="large"):
            a = add(1)
        with otherwise():
            b = add(2)
        return same.options(name="joined")(either(a, b))

    result = made.run(on=local)
    assert result.status is FAILED
    assert "The condition of branch 'large' cannot be decided: TypeError" in str(result.error)
    assert {steps_of(result, local)[name] for name in ("add", "add_2", "joined")} == {("CANCELLED", "upstream_failed")}


def test_what_follows_a_join_of_which_nothing_ran_is_skipped(local: LocalOrchestrator) -> None:
    @pipeline(name="nothing ran")
    def made(n: int = 5) -> Any:
        found = add(n)
        with when(found < 1):
            a = same.options(name="a")(1)
        with when(found > 9):
            b = same.options(name="b")(2)
        return same.options(name="joined")(either(a, b))

    result = made.run(on=local)
    assert result.success
    assert result.outputs == {}
    assert steps_of(result, local)["joined"] == ("COMPLETED", "skipped")


def test_a_failure_in_the_taken_branch_fails_the_join(local: LocalOrchestrator) -> None:
    @pipeline(name="taken fails")
    def made() -> Any:
        with when(add(1) == 1):
            a = fail_on(1)
        with otherwise():
            b = same(2)
        return same.options(name="joined")(either(a, b))

    result = made.run(on=local)
    assert result.status is FAILED
    assert steps_of(result, local)["joined"] == ("CANCELLED", "upstream_failed")


def test_branches_within_branches_and_loops(local: LocalOrchestrator) -> None:
    @pipeline(name="inner")
    def made() -> Any:
        with for_each(numbers(5)) as n:
            found = add(n)
            with when(found > 1):
                with when(found > 3):
                    big = same.options(name="big")("big")
                with otherwise():
                    mid = same.options(name="mid")("mid")
                upper = same.options(name="upper")(either(big, mid))
            with otherwise():
                low = same.options(name="lower")("low")
            return same.options(name="word")(either(upper, low))

    assert made.run(on=local)["word"] == ["low", "low", "mid", "mid", "big"]


def test_a_step_beside_a_branch_and_a_loop_does_not_wait(threads: LocalOrchestrator) -> None:
    started = threading.Event()

    @step
    def beside() -> int:
        started.set()
        return 1

    @step
    def slow(n: int) -> int:
        assert started.wait(60)
        return n

    @pipeline(name="beside")
    def made() -> Any:
        with when(slow(1) == 1):
            add(1)
        slow.options(name="slow_item").map(n=[1, 2])
        return beside()

    assert made.run(on=threads).success


# Run if.


OUTCOMES = {
    "ok": ("COMPLETED", "completed"),
    "skip": ("COMPLETED", "skipped"),
    "fail": ("CANCELLED", "upstream_failed"),
}


@pytest.mark.parametrize(
    ("rule", "ends", "outcome"),
    [
        ("all_success", "ok ok", "ok"),
        ("all_success", "ok skip", "skip"),
        ("all_success", "skip fail", "fail"),
        ("all_done", "ok fail", "ok"),
        ("all_done", "skip skip", "ok"),
        ("all_failed", "fail fail", "ok"),
        ("all_failed", "ok fail", "skip"),
        ("one_failed", "ok fail", "ok"),
        ("one_failed", "ok skip", "skip"),
        ("one_success", "ok fail", "ok"),
        ("one_success", "skip fail", "fail"),
        ("one_success", "skip skip", "skip"),
        ("one_done", "skip ok", "ok"),
        ("one_done", "skip skip", "skip"),
        ("none_failed", "ok skip", "ok"),
        ("none_failed", "ok fail", "fail"),
        ("none_failed_min_one_success", "ok skip", "ok"),
        ("none_failed_min_one_success", "skip skip", "skip"),
        ("none_failed_min_one_success", "ok fail", "fail"),
        ("none_skipped", "ok fail", "ok"),
        ("none_skipped", "ok skip", "skip"),
        ("always", "fail skip", "ok"),
    ],
)
def test_every_rule_of_run_if(threads: LocalOrchestrator, rule: str, ends: str, outcome: str) -> None:
    @step
    def first(ok: bool = True) -> str:
        if not ok:
            raise ValueError("failed")
        return "value"

    @step(run_if=rule)
    def last(one: str = "none", other: str = "none") -> tuple[str, str]:
        return one, other

    def end(kind: str, name: str) -> Any:
        if kind != "skip":
            return first.options(name=name)(kind == "ok")
        with when(add.options(name=f"{name} decides")(1) == 2):
            return first.options(name=name)()

    one, other = ends.split()

    @pipeline(name="rules")
    def made() -> Any:
        end(one, "one")
        end(other, "other")
        last.options(after=["one", "other"])()

    result = made.run(on=threads)
    seen = steps_of(result, threads)["last"]
    assert seen == OUTCOMES[outcome]
    assert result.status is (FAILED if "fail" in ends else COMPLETED)


def test_what_is_missing_is_the_default(local: LocalOrchestrator) -> None:
    @step(run_if="all_done")
    def report(one: int = -1, other: int = -2) -> list[int]:
        return [one, other]

    @pipeline(name="missing")
    def made() -> Any:
        return report(one=fail_on(1), other=add(4))

    result = made.run(on=local)
    assert result.status is FAILED
    assert steps_of(result, local)["report"] == ("COMPLETED", "completed")
    assert result.step_results["report"].outputs == {"report": [-1, 4]}


def test_all_rules_are_tried() -> None:
    marks = test_every_rule_of_run_if.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {rule for rule, _, _ in marks} == set(RUN_IF)


# Clean-up.


def test_clean_up_runs_last_and_leaves_the_verdict_alone(local: LocalOrchestrator) -> None:
    @step
    def tidy(value: int | None = None) -> str:
        return f"tidied {value}"

    @step
    def broken(value: int | None = None) -> None:
        raise OSError("cannot tidy")

    @pipeline(name="tidy")
    def made(bad: int = 1) -> Any:
        value = fail_on(1, bad)
        with cleanup():
            tidy(value)
            broken(value)
        return value

    good, bad = made.run({"bad": 0}, on=local), made.run(on=local)
    assert good.success
    assert bad.status is FAILED
    assert "cannot tidy" not in str(bad.error)
    for result in (good, bad):
        seen = steps_of(result, local)
        assert (seen["tidy"], seen["broken"]) == (("COMPLETED", "completed"), ("FAILED", "failed"))


@pytest.mark.parametrize("ending", ["timeout", "cancelled"])
def test_clean_up_runs_after_a_timeout_and_a_cancellation(tmp_path: Path, ending: str) -> None:
    local = LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")
    mark = tmp_path / "mark"

    @step
    def slow() -> int:
        time.sleep(120)
        return 1

    @step
    def tidy(value: int | None = None, *, path: str) -> None:
        Path(path).write_text(f"tidied {value}")

    @pipeline(name="tidy late", timeout=3 if ending == "timeout" else None)
    def made(path: str = str(mark)) -> Any:
        value = slow()
        with cleanup():
            tidy(value, path=path)
        return value

    def cancel() -> None:
        while local.store.find("late") is None or not local.store.steps(1):
            time.sleep(0.1)
        local.cancel("late")

    canceller = threading.Thread(target=cancel)
    if ending == "cancelled":
        canceller.start()
    result = made.run(on=local, run_id="late") if ending == "timeout" else run_while(canceller, made, local)
    assert (result.status.name, mark.read_text()) == (ending.upper(), "tidied None")
    assert steps_of(result, local) == {"slow": ("CANCELLED", ending), "tidy": ("COMPLETED", "completed")}


def run_while(thread: threading.Thread, made: Pipeline, local: LocalOrchestrator) -> PipelineResult:
    try:
        return made.run(on=local, run_id="late")
    finally:
        thread.join()


def test_clean_up_runs_after_an_interrupt(tmp_path: Path) -> None:
    """Of the caller, as by Ctrl-C."""
    mark = tmp_path / "mark"

    @step
    def interrupted(n: int) -> int:
        raise KeyboardInterrupt

    @step
    def tidy(value: list[int] | None = None, *, path: str) -> None:
        Path(path).write_text(f"tidied {value}")

    @pipeline(name="interrupted")
    def made(path: str = str(mark)) -> Any:
        value = interrupted.map(n=numbers(3))
        with cleanup():
            tidy(value, path=path)

    threads = LocalOrchestrator(store=tmp_path / "runs.db", max_workers=1)  # so that it is the calling thread
    with pytest.raises(KeyboardInterrupt):
        made.run(on=threads, run_id="stopped")
    assert threads.get_run("stopped").status is CANCELLED
    assert mark.read_text() == "tidied None"
    assert {run.label: run.raw_status for run in threads.step_runs("stopped")} == {
        "numbers": "completed",
        **{f"interrupted[{n}]": "cancelled" for n in range(3)},
        "tidy": "completed",
    }


def test_items_that_had_not_begun_when_the_process_died_did_not_fail(threads: LocalOrchestrator) -> None:
    @step(max_parallel=1)
    def die(n: int) -> int:
        while not [run for run in threads.step_runs("dead") if run.index]:  # they are recorded a little later
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return n

    @pipeline(name="dies in a loop")
    def made() -> Any:
        return die.map(n=[1, 2, 3])

    handle = made.submit(on=threads, run_id="dead")
    handle.wait_for_completion(timeout=120, poll_interval=0.05, progress=False)
    assert (handle.status, handle.raw_status) == (FAILED, "crashed")
    assert [run.status for run in handle.step_runs()] == [FAILED, CANCELLED, CANCELLED]


def test_the_error_of_a_run_names_some_of_many_items(threads: LocalOrchestrator) -> None:
    @step
    def fail(n: int) -> int:
        raise ValueError("no")

    @pipeline(name="many fail")
    def made() -> Any:
        return fail.map(n=numbers(100))

    error = str(made.run(on=threads).error)
    assert error.startswith("step 'fail[0]' failed: ValueError: no; ")
    assert error.endswith("step 'fail[19]' failed: ValueError: no; and 80 more")


# Pipelines in pipelines.


def test_a_pipeline_in_a_pipeline(local: LocalOrchestrator) -> None:
    @pipeline(context={"b": 1000})
    def prepare(count: int = 2) -> Any:
        rows = numbers(count)
        return {"rows": rows, "sum": add(total(rows))}

    @pipeline(name="outer")
    def made() -> Any:
        first = prepare(3)
        second = prepare(count=first["sum"])
        return {"a": first["sum"], "b": second["sum"]}

    plan = made.compile()
    assert [s.name for s in plan] == [
        "prepare.numbers", "prepare.total", "prepare.add",
        "prepare_2.numbers", "prepare_2.total", "prepare_2.add",
    ]  # fmt: skip
    assert made.run(on=local).outputs == {"a": 1003, "b": 1003 * 1002 // 2 + 1000}


def test_a_pipeline_by_names_in_a_pipeline(local: LocalOrchestrator) -> None:
    by_names = Pipeline("by_names", context={"count": 3})
    by_names.add_step(step(name="values", outputs=["values"])(lambda count: list(range(count)))).add_step(total)

    @pipeline(name="outer")
    def made() -> Any:
        with for_each([2, 4]) as count:
            found = by_names(count=count)
        return {"totals": found, "default": by_names()}

    assert made.run(on=local).outputs == {"totals": [1, 6], "default": 3}


def test_depth_of_three(threads: LocalOrchestrator) -> None:
    @pipeline
    def innermost(n: int) -> Any:
        return double(n)

    @pipeline
    def middle(n: int) -> Any:
        return innermost(double(n))

    @pipeline
    def outermost(n: int = 1) -> Any:
        return middle(n)

    assert outermost.run(on=threads)["double"] == 4
    assert [s.name for s in outermost.compile()] == ["middle.double", "middle.innermost.double"]


def test_after_names_a_step_of_the_same_pipeline_first(threads: LocalOrchestrator) -> None:
    @pipeline
    def part() -> Any:
        add(1)
        return same.options(after=["add"])(5)

    @pipeline
    def whole() -> Any:
        add(2)
        return part()

    assert whole.compile().by_name["part.same"].after == ("part.add",)


# Mistakes.


def loop_outside() -> Any:
    with for_each([1, 2]) as n:
        add(n)
    return add(n)


def branch_outside() -> Any:
    with when(add(1) > 1):
        a = add(2)
    return same(a)


def own_output() -> Any:
    with when(add(1) > 1):
        return add(2)


def otherwise_alone() -> Any:
    add(1)
    with otherwise():
        add(2)


def otherwise_after_a_step() -> Any:
    with when(add(1) > 0):
        add(2)
    add(3)
    with otherwise():
        add(4)


def three_loops() -> Any:
    with for_each([1]) as a, for_each([1]) as b, for_each([1]) as c:
        add(a, add(b, c))


def no_default() -> Any:
    double.options(run_if="all_done")(add(1))


def cleanup_without_default() -> Any:
    with cleanup():
        double(add(1))


def after_cleanup() -> Any:
    with cleanup():
        a = add(1)
    return same(a)


def python_if() -> Any:
    return add(1) if add(1) > 3 else add(2)


def known_condition() -> Any:
    with when(3 > 2):
        add(1)


def no_list() -> Any:
    return double.map(n=3)


def unequal() -> Any:
    return add.map(a=[1, 2], b=[1])


def either_in_loop() -> Any:
    with for_each([1, 2]) as n:
        with when(add(n) > 1):
            a = add(1)
        with otherwise():
            b = add(2)
    return same(either(a, b))


def one_either() -> Any:
    return either(add(1))


def nothing_mapped() -> Any:
    return double.partial(n=1).map()


def fixed_and_mapped() -> Any:
    return add.partial(a=1).map(a=[1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (loop_outside, "is the item of 'each item': it is known only within that loop"),
        (branch_outside, r"is of step 'add_2' in branch 'add > 1', which may not be taken\. Join the branches"),
        (own_output, "returns 'add_2', which is of step 'add_2' in branch"),
        (otherwise_alone, r"otherwise\(\) has no when\(…\) right before it in the same block"),
        (otherwise_after_a_step, r"otherwise\(\) has no when\(…\) right before it"),
        (three_loops, "A loop stands in a loop, and no deeper"),
        (no_default, "step 'double' may run without 'n', since run_if='all_done': give it a default, n=None"),
        (cleanup_without_default, "step 'double' may run without 'n', since it cleans up"),
        (after_cleanup, r"is in cleanup\(\), which comes after all that is outside of it"),
        (python_if, r"add > 3 has no value while the pipeline is put together\. Branch by `with when\(add > 3\):`"),
        (known_condition, "True is known before the pipeline runs: decide it by `if`"),
        (no_list, r"map\(n=…\) goes over an output of a step, a parameter or a list of plain JSON, and was given 3"),
        (unequal, "must be equally long: 'a' has 2, 'b' has 1"),
        (either_in_loop, r"is either of outputs in a loop: call either\(…\) within the loop"),
        (one_either, "either takes two or more outputs of steps"),
        (nothing_mapped, r"map\(…\) takes the parameters that differ from item to item"),
        (fixed_and_mapped, "'a' is both fixed and mapped"),
    ],
)
def test_mistakes_are_named(body: Callable[[], Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as seen:
        pipeline(name="wrong")(body).compile()
    assert "test_control_flow.py, line" in str(seen.value)


def not_entered() -> None:
    when(total(numbers(3)) > 1)
    total([1])


def iterated() -> None:
    for n in for_each([1]):  # type: ignore[attr-defined]  # the mistake
        double(n)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (not_entered, r"when\(…\) begins a block: write `with when\(…\):` .*line \d+"),
        (iterated, r"for_each\(…\) begins a block: write `with for_each\(…\) as item:` .*line \d+"),
    ],
)
def test_a_block_without_a_with(body: Callable[[], None], message: str) -> None:
    """It once did nothing: the steps of the branch ran in any case."""
    with pytest.raises(DefinitionError, match=message):
        pipeline(body).compile()


def test_a_long_condition_makes_no_long_name() -> None:
    @pipeline(name="long condition")
    def made() -> Any:
        count = total(numbers(3))
        with when(is_in(count, list(range(2000)))):
            double(count)
        with when(any_of(*(count == n for n in range(200)))):
            double(count)

    first, second = (group.name for group in made.compile().groups)
    assert first.startswith("total in [0, 1, 2, ")
    assert first.endswith("…")
    assert len(first) < 80
    assert len(second) == 200


def test_names_of_rules_and_limits() -> None:
    for bad, message in (
        ({"run_if": "sometimes"}, "run_if='sometimes' must be one of all_success"),
        ({"max_parallel": 0}, "max_parallel=0 must be a number of items"),
        ({"on_item_error": "ignore"}, "on_item_error='ignore' must be 'fail' or 'continue'"),
    ):
        with pytest.raises(DefinitionError, match=message):
            step(**bad)(lambda: 1)


def test_outside_of_a_pipeline() -> None:
    for call in (lambda: when(True), lambda: cleanup(), lambda: either(1, 2)):
        with pytest.raises(DefinitionError):
            call()


def test_a_pipeline_that_calls_itself() -> None:
    @pipeline
    def endless() -> Any:
        return endless()

    with pytest.raises(DefinitionError, match="calls itself"):
        endless.compile()


def test_a_loop_over_what_waits_for_it() -> None:
    @pipeline
    def circle() -> Any:
        return double.options(after=["last"]).map(n=[1]), same.options(name="last", after=["double"])(1)

    with pytest.raises(CycleError):
        circle.compile()


# The plan.


def test_a_plan_without_control_flow_keeps_its_schema() -> None:
    flat = pipeline(name="flat")(lambda: add(1)).compile()
    looped = pipeline(name="looped")(lambda: add.map(a=[1])).compile()
    assert (flat.schema_version, looped.schema_version) == (1, 2)
    assert b"group" not in flat.canonical
    assert type(decode(looped.canonical)) is Plan


def test_step_runs_fold() -> None:
    runs = [
        StepRun(name="a", status=COMPLETED, raw_status="completed"),
        StepRun(name="b", status=COMPLETED, raw_status="completed", index=(0,)),
        StepRun(name="b", status=ExecutionStatus.QUEUED, raw_status="queued", index=(1,)),
    ]
    a, b = folded(runs)
    assert (a.items, b.items, b.status, b.label) == (None, (1, 2), ExecutionStatus.RUNNING, "b 1 of 2")


def test_the_values_of_a_loop_are_let_go(threads: LocalOrchestrator) -> None:
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

    result = made.run(on=LocalOrchestrator(store=threads.store.path, max_workers=2))
    assert result["total"] == 40
    gc.collect()
    assert not any(ref() is not None for ref in alive)
    assert most[0] < 10


# By names.


@step(outputs=["configs"])
def make_configs(count: int) -> list[int]:
    return list(range(count))


@step(outputs=["score"])
def train(config: int, rate: int) -> int:
    return config * rate


@step(outputs=["best"])
def best(score: list[int]) -> int:
    return max(score)


@step(outputs=["text"])
def publish(best: int) -> str:
    return f"published {best}"


@step(outputs=["text"])
def hold(best: int) -> str:
    return f"held {best}"


@step(outputs=["words"])
def tell(text: str) -> str:
    return text.upper()


def by_names() -> Pipeline:
    made = Pipeline("by names", context={"count": 3, "rate": 10, "limit": 15})
    return made.add_step(make_configs).add_step(train.map(config="configs")).add_step(best)


def test_a_pipeline_by_names_maps_and_branches(local: LocalOrchestrator) -> None:
    made = by_names()
    with made.when(lambda it: it.best > it.limit):
        made.add_step(publish)
    with made.otherwise():
        made.add_step(hold)
    made.add_step(tell)
    assert made.run(on=local)["words"] == "PUBLISHED 20"
    assert made.run({"rate": 1}, on=local)["words"] == "HELD 2"
    assert decode(made.compile().canonical) == made.compile()


@pytest.mark.parametrize(
    "condition",
    [
        lambda it: it["best"] > 15,
        lambda context: context.steps["best"].outputs["best"] > 15,
    ],
)
def test_the_choice_of_0_x(threads: LocalOrchestrator, condition: Callable[[Any], Any]) -> None:
    made = by_names().add_control_flow(If(condition=condition, then_step=publish, else_step=hold))
    made.add_step(tell)
    assert made.run(on=threads)["words"] == "PUBLISHED 20"
    assert made.run({"rate": 1}, on=threads)["words"] == "HELD 2"


def test_mistakes_by_names() -> None:
    made = by_names()
    with pytest.raises(DefinitionError, match="The condition raised TypeError: 'ParameterValue' object"):
        made.when(lambda it: it.best() > 1)
    with pytest.raises(DefinitionError, match="A condition by names is a function"):
        made.when("best > 1")  # type: ignore[arg-type]
    with made.when(lambda it: it.bets > 1):
        made.add_step(publish)
    with pytest.raises(DefinitionError, match=r"needs 'bets', which no step produces .* Did you mean 'best'"):
        made.compile()
    twice = by_names().add_step(publish)
    with pytest.raises(DefinitionError, match="'text' has two producers, step 'publish' and step 'hold'"):
        twice.add_step(hold).compile()
    with pytest.raises(DefinitionError, match="needs 'config_list', which no step produces"):
        Pipeline("p", context={"rate": 1}).add_step(train.map(config="config_list")).compile()


def test_what_completes_while_a_run_stops_is_there_for_the_clean_up() -> None:
    @pipeline(name="stopping")
    def made() -> Any:
        a, b = add(1), add(2)
        with cleanup():
            same(a)
            same.options(name="other")(b)

    walk = Walk(made.compile(), {}, Task)
    first, second = walk.ready.popleft(), walk.ready.popleft()
    walk.halt()
    first.values = {"add": 1}
    walk.ended(first, End.OK)
    walk.stop()
    assert second.end is End.FAILED
    assert walk.begin_finale()
    given = {node.label: [key for _, _, key in node.given()] for node in walk.ready}
    assert given == {"same": ["add"], "other": []}
