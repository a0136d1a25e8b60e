"""Pipelines in pipelines, and control flow by names."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml.core.capabilities import Feature
from flowyml.testing import pipelines_nested as pipelines
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, Conformance, Done, sample

__all__ = ["SubPipelineConformance"]

FLOWS = [Feature.FAN_OUT, Feature.BRANCHES]

nested = sample(pipelines.nested, needs=[Feature.SUB_PIPELINES], parameters={"start": 4}, shares_run=True)
nested_failing = sample(pipelines.nested_failing, needs=[Feature.SUB_PIPELINES])
in_groups = sample(pipelines.nested_in_groups, needs=[Feature.SUB_PIPELINES, *FLOWS], shares_run=True)
by_names = sample(pipelines.flows_by_names, needs=FLOWS)
by_names_low = sample(pipelines.flows_by_names, needs=FLOWS, parameters={"rate": 1})
of_old = sample(pipelines.choice_of_old, needs=FLOWS)
of_old_low = sample(pipelines.choice_of_old, needs=FLOWS, parameters={"rate": 1})


class SubPipelineConformance(Conformance):
    """Pipelines in pipelines; loops and branches that are wired by names, and the choice of FlowyML 0.x."""

    @nested
    @pytest.mark.parametrize(
        ("output", "wanted"),
        [
            ("rows", [0, 1, 2, 3]),
            ("sum", 1006),
            ("of the second", 1006 * 1005 // 2 + 1000),
            ("by default", 1001),
            ("less", 1005),
            ("more", 1007),
            ("innermost", 4),
            ("by names", 6),
        ],
    )
    def test_a_pipeline_in_a_pipeline(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @nested
    def test_steps_bear_the_names_of_the_pipelines_around_them(self, done: Done) -> None:
        prepare = [
            f"{name}.{step}" for name in ("prepare", "prepare_2", "prepare_3") for step in ("numbers", "total", "add")
        ]
        assert sorted(done.steps) == sorted([
            *prepare, "pair.less", "pair.more", "middle.double", "middle.innermost.double", "by_names.values",
            "by_names.total",
        ])  # fmt: skip
        assert {run.status for run in done.steps.values()} == {COMPLETED}

    @nested
    def test_lines_of_a_log_name_such_a_step(self, done: Done) -> None:
        assert [line.step for line in done.log if line.message == "values up to 4"] == ["by_names.values"]

    @nested_failing
    def test_a_failure_in_such_a_pipeline_names_its_step(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "check_2.risky" in str(done.record.error)

    @nested_failing
    def test_a_failure_in_such_a_pipeline_stops_what_depends_on_it(self, done: Done) -> None:
        assert {name: run.status for name, run in done.steps.items()} == {
            "check.risky": COMPLETED, "check.same": COMPLETED, "good": COMPLETED,
            "check_2.risky": FAILED, "check_2.same": CANCELLED, "bad": CANCELLED,
        }  # fmt: skip

    @in_groups
    @pytest.mark.parametrize(("output", "wanted"), [("sum", 6), ("grades", ["small", "large"]), ("taken", "large")])
    def test_loops_and_branches_around_and_in_such_pipelines(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @in_groups
    def test_such_a_pipeline_in_a_branch_that_is_not_taken_is_skipped(self, done: Done) -> None:
        runs = [run for name, run in done.steps.items() if name.startswith("graded_3.")]
        assert {(run.status, run.raw_status) for run in runs} == {(COMPLETED, "skipped")}
        assert len(runs) == 4

    @in_groups
    def test_steps_of_such_a_pipeline_in_a_loop_have_an_index(self, done: Done) -> None:
        labels = [label for label in done.steps if label.startswith("graded.grade")]
        assert labels == ["graded.grade[0]", "graded.grade[1]"]

    @sample(pipelines.nested_rows, needs=[Feature.SUB_PIPELINES, Feature.FAN_OUT], shares_run=True)
    def test_such_a_pipeline_with_a_loop_in_a_loop(self, done: Done) -> None:
        assert done.outputs == {"sums": [2, 6]}
        labels = [label for label in done.steps if label.startswith("doubled.double")]
        assert labels == [f"doubled.double{at}" for at in ("[0][0]", "[0][1]", "[1][0]", "[1][1]", "[1][2]")]

    @by_names
    def test_the_branch_that_is_taken_by_names(self, done: Done) -> None:
        assert done.outputs == {"words": "PUBLISHED 20"}
        assert [label for label in done.steps if label.startswith("train")] == ["train[0]", "train[1]", "train[2]"]

    @by_names_low
    def test_the_other_branch_by_names(self, done: Done) -> None:
        assert done.outputs == {"words": "HELD 2"}
        assert done.steps["publish"].raw_status == "skipped"

    @of_old
    def test_the_choice_of_0_x(self, done: Done) -> None:
        assert (done.outputs, done.steps["hold"].raw_status) == ({"words": "PUBLISHED 20"}, "skipped")

    @of_old_low
    def test_the_other_step_of_the_choice_of_0_x(self, done: Done) -> None:
        assert (done.outputs, done.steps["publish"].raw_status) == ({"words": "HELD 2"}, "skipped")
