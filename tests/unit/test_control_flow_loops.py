"""What only the local engine does with loops, branches and clean-up; the conformance suite shows the rest."""

from __future__ import annotations

import os
import signal
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import cleanup, either, for_each, gather, is_in, otherwise, pipeline, step, when
from flowyml.core.errors import DefinitionError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import find_item
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.local import engine
from flowyml.runtime.decider import End
from flowyml.runtime.nodes import Opening, Task
from flowyml.runtime.walk import Walk
from tests.unit.control_flow import CANCELLED, FAILED, add, double, numbers, same, total


def test_constant_lists_beside_a_parameter_that_json_does_not_have(local: LocalOrchestrator) -> None:
    """Compiling it once failed: TypeError: unhashable type: 'list'."""

    @step
    def weekday(day: date) -> str:
        return f"{day:%A}"

    @pipeline(name="weekdays")
    def made(days: list[date] = [date(2026, 1, 31)]) -> Any:
        return {"days": weekday.map(day=days), "constant": double.map(n=[1])}

    assert made.run(on=local).outputs == {"days": ["Saturday"], "constant": [2]}


def test_an_output_is_gathered_outside_of_its_loops(local: LocalOrchestrator) -> None:
    @pipeline(name="gathered")
    def made() -> Any:
        with for_each([1, 2]) as n:
            with for_each([10, 20]) as m:
                added = add(n, m)
            sums = total(gather(added))
        return {"sums": gather(sums), "all": same.options(name="all")(gather(gather(added)))}

    assert made.run(on=local).outputs == {"sums": [32, 34], "all": [[11, 21], [12, 22]]}


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
    with pytest.raises(DefinitionError, match=r"no step 'where\[12\]'. Its indexes go up to \[11\]\[1\]."):
        run.logs(step="where", index=12)


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
    walk.stop()
    assert not list(walk.to_come())


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
    handle.wait_for_completion(timeout=2400, poll_interval=0.05, progress=False)
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


def test_a_list_that_is_fixed_in_a_loop(local: LocalOrchestrator) -> None:
    @pipeline(name="fixed list")
    def made() -> Any:
        with for_each(numbers(2)) as n:
            with when(is_in(n, [1, 2])):
                inside = total([10, 20])
            with otherwise():
                other = same({"no": []})
            return same.options(name="joined")(either(inside, other))

    assert made.run(on=local)["joined"] == [{"no": []}, 30]


def test_what_cannot_be_decided_fails_a_run_of_which_all_steps_may_fail(local: LocalOrchestrator) -> None:
    @pipeline(name="undecided above")
    def made() -> None:
        with when(same("text") > 3, name="large"):
            same.options(name="each", on_item_error="continue").map(value=[1])

    result = made.run(on=local)
    assert result.status is FAILED
    assert "The condition of branch 'large' cannot be decided: TypeError" in str(result.error)


def test_steps_of_an_item_say_what_could_not_be_decided(local: LocalOrchestrator) -> None:
    @pipeline(name="undecided within")
    def made() -> Any:
        with for_each([1, "a"], on_item_error="continue") as n:
            with when(same(n) > 0, name="large"):
                add(1)
            total(same.options(name="each").map(value=n))

    result = made.run(on=local)
    assert result.success, result.error
    errors = {run.label: run.error or "" for run in local.step_runs(result.run_id)}
    assert errors["add[0]"] == ""
    assert errors["add[1]"].startswith(
        "not run, since 'large[1]' failed: The condition of branch 'large' cannot be decided: TypeError"
    )
    assert "that is not a list: str" in errors["each[1]"]
    assert "that is not a list: str" in errors["total[1]"]


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


def test_what_waits_for_its_next_attempt_does_not_run_during_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still until the run is interrupted: the attempt is due from then on."""
    tries: list[int] = []
    now = [time.monotonic()]
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))

    @step(retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.1))
    def flaky() -> None:
        tries.append(1)
        raise ValueError("no")

    @step
    def interrupted() -> None:
        now[0] += 1
        raise KeyboardInterrupt

    @step
    def tidy(value: int = 0) -> int:
        return value

    @pipeline(name="waits")
    def made() -> Any:
        flaky()
        interrupted()
        with cleanup():
            tidy.options(name="last")(tidy.options(name="next")(tidy(1)))

    local = LocalOrchestrator(store=tmp_path / "runs.db", max_workers=1)  # it takes what waits between two of them
    with pytest.raises(KeyboardInterrupt):
        made.run(on=local, run_id="stopped")
    assert tries == [1]
    assert {run.label: run.raw_status for run in local.step_runs("stopped")} == {
        "flaky": "cancelled", "interrupted": "cancelled", "tidy": "completed", "next": "completed",
        "last": "completed",
    }  # fmt: skip


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
    walk.end(first, End.OK)
    walk.stop()
    assert second.end is End.FAILED
    assert walk.begin_finale()
    given = {node.label: [key for _, _, key in node.completed_arguments()] for node in walk.ready}
    assert given == {"same": ["add"], "other": []}
