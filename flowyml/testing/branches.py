"""Branches: which steps run, and what steps that did not run return."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml.core.capabilities import Feature, Level
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines_branches as pipelines
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, Conformance, Done, sample

__all__ = ["BranchConformance"]

BOTH = [Feature.BRANCHES, Feature.FAN_OUT]

choices = sample(pipelines.choices, needs=[Feature.BRANCHES], shares_run=True)
conditions = sample(pipelines.conditions, needs=[Feature.BRANCHES], parameters={"low": 2}, shares_run=True)
joins = sample(pipelines.joins, needs=[Feature.BRANCHES], shares_run=True)
undecided = sample(pipelines.undecided, needs=[Feature.BRANCHES])
undecided_items = sample(pipelines.undecided_items, needs=BOTH, shares_run=True)
taken_fails = sample(pipelines.taken_fails, needs=[Feature.BRANCHES])
mixed = sample(pipelines.mixed, needs=BOTH, shares_run=True)


class BranchConformance(Conformance):
    """Conditions, joins, and the consequences of a skip."""

    @choices
    @pytest.mark.parametrize(("n", "taken"), [(1, "low"), (5, "middle"), (50, "high")])
    def test_the_first_branch_whose_condition_holds_is_taken(self, done: Done, n: int, taken: str) -> None:
        assert done.outputs[f"taken {n}"] == taken
        assert [name for name in ("low", "middle", "high") if f"{name} {n}" in done.trace] == [taken]

    @choices
    @pytest.mark.parametrize(("n", "taken"), [(1, "low"), (5, "middle"), (50, "high")])
    def test_steps_of_other_branches_are_skipped(self, done: Done, n: int, taken: str) -> None:
        for name in ("low", "middle", "high"):
            run = done.steps[f"{name} {n}"]
            assert (run.status, run.raw_status == "skipped") == (COMPLETED, name != taken)
            assert run.error is None

    @choices
    @pytest.mark.parametrize(("n", "word", "ran"), [
        (1, "small", ["small"]), (2, "mid", ["mid", "upper"]), (5, "big", ["big", "upper"]),
    ])  # fmt: skip
    def test_a_branch_in_a_branch(self, done: Done, n: int, word: str, ran: list[str]) -> None:
        assert done.outputs[f"word {n}"] == word
        names = ("big", "mid", "small", "upper")
        assert [name for name in names if done.steps[f"{name} {n}"].raw_status != "skipped"] == sorted(ran)
        assert [name for name in names if f"{name} {n}" in done.trace] == sorted(ran)

    @conditions
    @pytest.mark.parametrize("name", pipelines.CONDITIONS)
    def test_a_condition(self, done: Done, name: str) -> None:
        assert done.record.status is COMPLETED, done.record.error
        assert (done.steps[name].raw_status != "skipped", name in done.trace) == (pipelines.CONDITIONS[name],) * 2

    @joins
    @pytest.mark.parametrize(
        ("output", "wanted"),
        [
            ("none", None),
            ("zero", 0),
            ("of three", 0),
            ("both", [None, 0, 5]),
            ("five", 5),
            ("first of both", [0, None]),
        ],
    )
    def test_a_join_gives_what_came_to_be(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @joins
    def test_an_output_that_did_not_come_to_be_is_missing(self, done: Done) -> None:
        assert sorted(done.outputs) == ["both", "first of both", "five", "none", "of three", "zero"]

    @joins
    @pytest.mark.parametrize("name", ["after nothing", "takes nothing", "after that", "follows a skipped step"])
    def test_what_waits_for_a_skipped_step_is_skipped(self, done: Done, name: str) -> None:
        assert (done.steps[name].status, done.steps[name].raw_status) == (COMPLETED, "skipped")
        assert name not in done.trace

    @joins
    def test_what_follows_a_step_of_the_taken_branch_runs(self, done: Done) -> None:
        assert done.index("alone") < done.index("follows one that ran")

    @undecided_items
    def test_a_condition_that_raises_for_an_item_is_a_failure_of_the_item(self, done: Done) -> None:
        assert [list(pair) for pair in done.outputs["words"]] == [[0, "small"], [2, "large"]]
        assert done.statuses("then", "else") == {
            "then[0]": COMPLETED, "then[1]": CANCELLED, "then[2]": COMPLETED,
            "else[0]": COMPLETED, "else[1]": CANCELLED, "else[2]": COMPLETED,
        }  # fmt: skip

    @undecided
    def test_a_condition_that_raises_fails_the_run(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "The condition of branch 'large' cannot be decided: TypeError" in str(done.record.error)

    @undecided
    @pytest.mark.parametrize("name", ["then", "else", "joined"])
    def test_what_waits_for_a_condition_that_raises_does_not_run(self, done: Done, name: str) -> None:
        assert done.steps[name].status is CANCELLED
        assert name not in done.trace

    @undecided
    def test_what_is_beside_a_condition_that_raises_runs(self, done: Done) -> None:
        assert done.steps["beside"].status is COMPLETED
        assert "beside" in done.trace

    @taken_fails
    def test_a_failure_in_the_taken_branch_fails_the_run_and_the_join(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert (done.steps["risky"].status, done.steps["joined"].status) == (FAILED, CANCELLED)
        assert "joined" not in done.trace

    @taken_fails
    def test_a_skip_beside_a_failure_is_still_a_skip(self, done: Done) -> None:
        assert (done.steps["untaken"].status, done.steps["untaken"].raw_status) == (COMPLETED, "skipped")

    @taken_fails
    def test_a_branch_is_taken_though_what_a_later_condition_needs_failed(self, done: Done) -> None:
        ran = {name: name in done.trace for name in ("first", "joined first", "second")}
        assert ran == {"first": True, "joined first": self.joins_beside_failures, "second": False}, ran
        assert done.steps["first"].status is COMPLETED
        assert (done.steps["joined first"].status is COMPLETED) is self.joins_beside_failures

    @taken_fails
    def test_a_join_of_two_choices_has_what_one_of_them_gave_though_the_other_failed(self, done: Done) -> None:
        assert (done.steps["fails"].status, done.steps["runs"].status) == (FAILED, COMPLETED)
        assert (done.steps["joined neighbours"].status is COMPLETED) is self.joins_beside_failures

    @sample(pipelines.beside, needs=BOTH, settings=["patience"])
    def test_a_step_beside_a_branch_and_a_loop_does_not_wait(self, done: Done, orchestrator: Orchestrator) -> None:
        lack = orchestrator.capabilities[Feature.PARALLEL_STEPS]
        if lack.level is Level.NO:
            assert done.record.status is FAILED, "the first one waits for the others in vain"
            pytest.xfail(f"{orchestrator.name} runs one step after another, as it says: {lack.note}")
        assert done.outputs == {"branch": 2, "items": [1], "aside": 1}

    @mixed
    @pytest.mark.parametrize(
        ("output", "wanted"),
        [("words", ["below", "below", "near", "far"]), ("some", [1, 2]), ("taken", [0, 2]), ("inside", 2)],
    )
    def test_branches_in_loops_and_loops_in_branches(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @mixed
    def test_each_item_takes_a_branch_of_its_own(self, done: Done) -> None:
        ran = [[n for n in range(4) if done.steps[f"{name}[{n}]"].raw_status != "skipped"] for name in ("far", "below")]
        assert ran == [[3], [0, 1]]
        assert [line for line in done.trace if line.startswith("far")] == ["far 3"]

    @mixed
    def test_an_item_that_was_skipped_completed(self, done: Done) -> None:
        runs = [run for run in done.steps.values() if run.name in ("far", "near", "is one", "some")]
        assert {run.status for run in runs} == {COMPLETED}
        assert len(runs) == 16

    @mixed
    def test_where_all_items_were_skipped_what_takes_the_list_is_skipped(self, done: Done) -> None:
        assert {done.steps[f"no item[{n}]"].raw_status for n in range(4)} == {"skipped"}
        assert done.steps["list of none"].raw_status == "skipped"
        assert "none" not in done.outputs

    @mixed
    def test_a_loop_in_a_branch_that_is_not_taken_is_skipped(self, done: Done) -> None:
        runs = [run for run in done.steps.values() if run.name in ("in the untaken", "three numbers")]
        assert {(run.status, run.raw_status, run.index) for run in runs} == {(COMPLETED, "skipped", ())}
        assert len(runs) == 2

    @mixed
    def test_a_branch_in_a_loop_in_a_branch(self, done: Done) -> None:
        assert [done.steps[f"m is two[{n}]"].raw_status == "skipped" for n in range(2)] == [True, False]
