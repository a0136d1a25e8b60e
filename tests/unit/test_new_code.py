"""Retry with new code: what is taken from the ended run. What every engine does: ``RetryConformance``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from flowyml import LOGICAL_DATE, Pipeline, either, for_each, otherwise, pipeline, step, when
from flowyml.core.errors import ParameterError, RetryRefusedError
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.new_code import EndedRun, NewRun
from flowyml.runtime.decider import End
from tests.unit.commands import command, flowyml
from tests.unit.local_runs import COMPLETED, FAILED, WORKERS


@step
def load(rows: int) -> list[int]:
    return list(range(rows))


@step
def same(value: Any = None) -> Any:
    return value


@step
def other(value: Any, more: int = 0) -> Any:
    return value


@step
def pair(left: Any, right: Any) -> Any:
    return left, right


@step
def breaks(value: Any) -> Any:
    raise ValueError("a bug")


def taken(
    old: Pipeline, new: Pipeline, *, items: Mapping[str, int] = {}, skipped: tuple[str, ...] = (), lost: str = "",
    before: Mapping[str, Any] = {}, now: Mapping[str, Any] = {}, steps: tuple[str, ...] = (),
) -> list[str]:  # fmt: skip
    """What a run of ``new`` takes if all steps of ``old`` ended OK but ``broken``; ``items`` are counts by step."""
    bundle = old.bundle()
    turns = [
        (name, index)
        for name in bundle.plan.by_name
        for index in ([(number,) for number in range(items[name])] if name in items else [()])
    ]
    ends = {
        turn: End.FAILED if turn[0] == "broken" else End.SKIPPED if turn[0] in skipped else End.OK for turn in turns
    }
    outputs = {
        turn: dict.fromkeys(bundle.plan.by_name[turn[0]].outputs, {"not_kept": "why"} if turn[0] == lost else 1)
        for turn, end in ends.items()
        if end is End.OK
    }
    run = EndedRun(
        run_id="old", bundle=bundle, parameters=old.check_parameters(before), ends=ends, outputs=outputs
    )  # fmt: skip
    plan = new.compile()
    found = NewRun.of(run, plan, new.check_parameters({**before, **now}), steps or None)
    assert {run_id for run_id, _ in found.taken.results.values()} <= {"old"}
    return sorted(found.taken.results)


def chain(build: Callable[[int, int], Any], name: str = "p") -> Pipeline:
    @pipeline(name=name)
    def made(rows: int = 3, scale: int = 1) -> Any:
        return build(rows, scale)

    return made


def broken(value: Any) -> Any:
    return breaks.options(name="broken")(value)


def first(rows: int, scale: int) -> Any:
    data = load(rows)
    return broken(other(same(data), scale))


@pytest.mark.parametrize(
    ("new", "more", "wanted"),
    [
        (first, {}, ["load", "other", "same"]),
        (lambda rows, scale: broken(other(same.options(name="renamed")(load(rows)), scale)), {}, ["load"]),
        (lambda rows, scale: broken(other(load(rows), scale)), {}, ["load"]),
        (lambda rows, scale: broken(other(same(same.options(name="added")(load(rows))), scale)), {}, ["load"]),
        (lambda rows, scale: broken(other(same(load(rows)), 7)), {}, ["load", "same"]),
        (lambda rows, scale: broken(other(same(load(True)), scale)), {}, []),
        (first, {"now": {"rows": 4}}, []),
        (first, {"now": {"scale": 2}}, ["load", "same"]),
        (first, {"steps": ("same",)}, ["load"]),
        (lambda rows, scale: broken(other.options(secrets={"more": "a/b"})(same(load(rows)))), {}, ["load", "same"]),
    ],
    ids=["same", "renamed", "removed", "added", "constant", "wired", "parameter", "other", "asked", "secret"],
)  # fmt: skip
def test_a_step_is_taken_if_it_and_all_before_it_fit(
    new: Callable[[int, int], Any], more: dict[str, Any], wanted: list[str]
) -> None:
    assert taken(chain(first), chain(new), **more) == wanted


def test_other_outputs_do_not_fit() -> None:
    assert taken(chain(first), chain(lambda rows, scale: broken(same.options(outputs=["x"])(load(rows))))) == ["load"]


def test_one_and_true_are_not_the_same_constant() -> None:
    old, new = (chain(lambda rows, scale, value=value: broken(same(value))) for value in (1, True))
    assert taken(old, new) == []
    assert taken(old, old) == ["same"]


def looped(items: Any, *, mode: Any = "fail") -> Callable[[int, int], Any]:
    def build(rows: int, scale: int) -> Any:
        with for_each(items, on_item_error=mode) as n:
            each = same.options(name="each")(n)
        return broken(other(each))

    return build


@pytest.mark.parametrize(
    ("new", "wanted"),
    [
        (looped([5, 6, 7]), ["each[0]", "each[1]", "each[2]", "other"]),
        (looped([5, 9, 7]), ["each[0]", "each[2]"]),
        (looped([5, 6]), ["each[0]", "each[1]"]),
        (looped([5, 6, 7, 8]), ["each[0]", "each[1]", "each[2]"]),
        (looped([5, 6, 7], mode="continue"), []),
    ],
    ids=["same", "changed", "shorter", "longer", "mode"],
)
def test_items_of_a_list_that_changed(new: Callable[[int, int], Any], wanted: list[str]) -> None:
    assert taken(chain(looped([5, 6, 7])), chain(new), items={"each": 3}) == wanted


def test_a_list_of_a_step_that_runs_again() -> None:
    def build(constant: int) -> Callable[[int, int], Any]:
        def built(rows: int, scale: int) -> Any:
            with for_each(load(constant)) as n:
                each = same.options(name="each")(n)
            return broken(pair(each, same(scale)))

        return built

    assert taken(chain(build(3)), chain(build(3)), items={"each": 3})[0] == "each[0]"
    assert taken(chain(build(3)), chain(build(4)), items={"each": 3}) == ["same"]


def test_a_branch_that_may_be_decided_otherwise() -> None:
    def build(limit: int) -> Callable[[int, int], Any]:
        def built(rows: int, scale: int) -> Any:
            with when(same(rows) > limit):
                left = same.options(name="left")(1)
            with otherwise():
                right = same.options(name="right")(2)
            return broken(other(either(left, right)))

        return built

    assert taken(chain(build(1)), chain(build(1)), skipped=("right",)) == ["left", "other", "same"]
    assert taken(chain(build(1)), chain(build(9)), skipped=("right",)) == ["same"]
    assert taken(chain(build(1)), chain(build(1)), skipped=("right",), now={"rows": 9}) == []


def test_a_decision_or_list_whose_value_was_not_kept_is_made_again() -> None:
    """The new run decides it in any case, also where all results behind it are taken."""

    def branched(rows: int, scale: int) -> Any:
        with when(same(rows) > 1):
            left = other(load(rows))
        with otherwise():
            right = same.options(name="right")(2)
        return broken(either(left, right))

    def looped(rows: int, scale: int) -> Any:
        with for_each(load(rows)) as n:
            each = same(n)
        return broken(other(each))

    for lost, wanted in (("", ["load", "other", "same"]), ("same", []), ("load", ["load", "other", "same"])):
        assert taken(chain(branched), chain(branched), skipped=("right",), lost=lost) == wanted
    assert taken(chain(looped), chain(looped), items={"same": 2}) == ["load", "other", "same[0]", "same[1]"]
    assert taken(chain(looped), chain(looped), items={"same": 2}, lost="load") == []


def test_a_handler_of_a_failure_that_may_not_happen_again_runs_again() -> None:
    def build(rows: int, scale: int) -> Any:
        failed = broken(load(rows))
        same.options(name="handler", run_if="all_done")(failed)
        return failed

    assert taken(chain(build), chain(build)) == ["load"]


def test_a_date_of_the_run_is_another_one() -> None:
    @pipeline(name="p")
    def dated(day: str = LOGICAL_DATE) -> Any:
        return broken(pair(same(day), load(3)))

    assert taken(dated, dated) == ["load"]


# Real runs.


@pytest.fixture(autouse=True)
def _traces(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known by a variable: if a cached step names a folder, what it writes there counts for it."""
    monkeypatch.setenv("TRACES", str(tmp_path))


def project(*, is_fixed: bool, word: str = "old", name: str = "p", extra: bool = False) -> Pipeline:
    def note(name: str) -> None:
        with Path(os.environ["TRACES"], "trace").open("a") as file:
            file.write(f"{word} {name}\n")

    @step
    def rows() -> set[int]:
        note("rows")
        return {1, 2}

    @step(cache=True)
    def cached(rows: set[int]) -> int:
        note("cached")
        return len(rows)

    @step(timeout=60)
    def square(n: int) -> int:
        note(f"square {n}")
        if n == 2 and not is_fixed:
            raise ValueError("a bug")
        return n * n

    @step
    def sums(values: list[int], count: int) -> str:
        note("sums")
        if extra and is_fixed is not None and word == "newer":
            return f"{sum(values)} {count} newer"
        if word == "new":
            raise ValueError("another bug")
        return f"{sum(values)} {count}"

    @pipeline(name=name)
    def made() -> Any:
        with for_each([1, 2, 3]) as n:
            squares: Any = square(n)
        return {"sums": sums(squares, cached(rows()))}

    return made


def ended(handle: SubmissionResult) -> SubmissionResult:
    return handle.wait_for_completion(timeout=600, poll_interval=0.1, progress=False)


@pytest.mark.processes
@pytest.mark.parametrize("workers", WORKERS)
def test_each_result_says_which_run_computed_it(
    tmp_path: Path, workers: Literal["threads", "processes"], caplog: pytest.LogCaptureFixture
) -> None:
    """A retry of the retry takes what the first run computed, and says so; a retry without new code keeps it."""
    local = LocalOrchestrator(workers=workers)
    old = ended(project(is_fixed=False).submit(on=local, run_id=f"old {workers}"))
    assert old.status is FAILED
    with caplog.at_level(logging.WARNING, "flowyml"):
        new = ended(old.retry(with_new_code=project(is_fixed=True, word="new")))
    assert (new.status, "another bug" in (new.error or "")) == (FAILED, True)
    (said,) = [record.getMessage() for record in caplog.records if "takes" in record.getMessage()]
    assert "takes cached, rows, square[0], square[2] from run" in said
    assert "The functions of" in said
    assert "--step square" in said
    assert "new square 1" not in (tmp_path / "trace").read_text()
    assert ended(new.retry()).status is FAILED
    newer = ended(new.retry(with_new_code=project(is_fixed=True, word="newer", extra=True)))
    assert newer.status is COMPLETED, newer.error
    assert newer.outputs == {"sums": "14 2 newer"}
    by = {run.label: run.cached_from for run in newer.step_runs()}
    assert by == {
        "rows": old.run_id, "cached": old.run_id, "square[0]": old.run_id, "square[1]": new.run_id,
        "square[2]": old.run_id, "sums": "",
    }  # fmt: skip
    trace = (tmp_path / "trace").read_text().splitlines()
    assert trace.count("old rows") == 1
    assert [line for line in trace if not line.startswith("old")] == ["new square 2", *["new sums"] * 2, "newer sums"]
    log = [line.message for line in newer.logs(step="square[1]")]
    assert log == [f"step 'square[1]' was not run: its results are those of run {new.run_id!r}"]


@pytest.mark.processes
def test_a_cached_result_of_another_run_keeps_its_origin() -> None:
    local = LocalOrchestrator()
    one = ended(project(is_fixed=False).submit(on=local, run_id="cached one"))
    two = ended(project(is_fixed=False).submit(on=local, run_id="cached two"))
    assert {run.label: run.cached_from for run in two.step_runs()}["cached"] == one.run_id
    three = ended(two.retry(with_new_code=project(is_fixed=True)))
    assert three.status is COMPLETED, three.error
    by = {run.label: run.cached_from for run in three.step_runs()}
    assert (by["cached"], by["rows"]) == (one.run_id, two.run_id)


@pytest.mark.processes
def test_what_is_refused() -> None:
    old = ended(project(is_fixed=False).submit(run_id="refused"))
    with pytest.raises(RetryRefusedError, match="of pipeline 'p', not of 'q'"):
        old.retry(with_new_code=project(is_fixed=True, name="q"))
    with pytest.raises(RetryRefusedError, match="no step 'nothing'"):
        old.retry(["nothing"], with_new_code=project(is_fixed=True))

    @pipeline(name="p")
    def needs_more(more: int) -> Any:
        return load(more)

    with pytest.raises(ParameterError, match="'more' is missing"):
        old.retry(with_new_code=needs_more)


VERSION = """
from flowyml import pipeline, step
from helper import {kind}

@step
def load() -> list:
    return [{kind}(3)]

@step(timeout=600)
def train(rows: list, rate: float) -> int:
    if {fails}:
        raise ValueError("a bug")
    return len(rows)

@pipeline
def training(rate: float = {rate}):
    return train(load(), rate)
"""
HELPER = "class {kind}:\n    def __init__(self, n: int) -> None:\n        self.n = n\n"


@pytest.mark.processes
def test_the_command(tmp_path: Path) -> None:
    """It names the files that changed, and a result of a class that is gone is not replaced by another."""

    file = str(tmp_path / "train.py")

    def write(kind: str, fails: bool, rate: float = 0.5) -> None:
        Path(file).write_text(VERSION.format(kind=kind, fails=fails, rate=rate))
        (tmp_path / "helper.py").write_text(HELPER.format(kind=kind))

    write("Row", True)
    assert command("run", file, "--run-id", "old").code == 1
    failed = command("outputs", "old")
    assert (failed.code, "--partial" in failed.err) == (1, True)
    partial = json.loads(command("outputs", "old", "--partial", "--json").out)
    assert list(partial) == ["load.load"]
    write("Row", False)
    new = command("retry", "old", "--with-new-code", file)
    assert "takes load from run 'old', with the code of that run. Changed since then: train.py." in new.err
    assert flowyml("watch", new.out.strip()).code == 0
    status = flowyml("status", new.out.strip())
    assert "cached from old" in status.out
    write("Line", False)
    gone = command("retry", "old", "--with-new-code", file)
    assert "Changed since then: helper.py, train.py. The functions of load have changed" in gone.err
    ended = flowyml("watch", gone.out.strip())
    assert (ended.code, "--step load" in ended.out + ended.err) == (1, True)
    again = command("retry", "old", "--with-new-code", file, "--step", "load")
    assert "takes nothing from run 'old'" in again.err
    assert "Runs again although it completed: load, since it was asked for." in again.err
    assert flowyml("watch", again.out.strip()).code == 0
    write("Row", False, rate=0.75)
    kept = command("retry", "old", "--with-new-code", file)
    assert "Parameter 'rate' stays 0.5, the old default, and the new one is 0.75" in kept.err
    assert "add -p rate=0.75, in Python parameters={'rate': 0.75}." in kept.err
    given = command("retry", "old", "--with-new-code", file, "-p", "rate=0.75")
    assert "Parameter 'rate'" not in given.err
    for made, rate in ((kept, 0.5), (given, 0.75)):
        assert flowyml("watch", made.out.strip()).code == 0
        assert json.loads(flowyml("status", made.out.strip(), "--json").out)["parameters"] == {"rate": rate}
    refused = flowyml("retry", "old", "-p", "rate=0.75")
    assert (refused.code, "-p needs --with-new-code" in refused.err) == (2, True)


def test_each_completed_step_that_runs_again_is_named_with_the_reason() -> None:
    def reasons(new: Callable[[int, int], Any], lost: str = "", **values: int) -> dict[str, str]:
        old = chain(first)
        bundle, now = old.bundle(), chain(new)
        outputs = {(name, ()): {name: {"not_kept": "why"} if name == lost else 1} for name in ("load", "same", "other")}
        ends = dict.fromkeys(outputs, End.OK) | {("broken", ()): End.FAILED}
        run = EndedRun(run_id="old", bundle=bundle, parameters=old.check_parameters({}), ends=ends, outputs=outputs)
        found = NewRun.of(run, now.compile(), now.check_parameters(values), None)
        text = found.summary(run, now.bundle(), "new")
        assert all(f"{label}, since {why}." in text for label, why in found.reasons.items()), text
        return dict(found.reasons)

    assert reasons(first) == {}
    assert reasons(first, scale=2) == {"other": "parameter 'scale' has changed"}
    assert reasons(first, lost="other") == {"other": "its output was not saved"}
    assert reasons(lambda rows, scale: broken(other(same(load(7)), scale))) == {
        "load": "its inputs, its secrets or what it waits for have changed",
        "same": "it comes after load", "other": "it comes after same",
    }  # fmt: skip
