"""Fan-out: a step, or several, for each item of a list."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml.core.capabilities import Feature
from flowyml.testing import pipelines_loops as pipelines
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, TIMEOUT, Conformance, Done, sample

__all__ = ["FanOutConformance"]


maps = sample(pipelines.maps, needs=[Feature.FAN_OUT], parameters={"given": [7, 8, 9, 10]}, shares_run=True)
blocks = sample(pipelines.blocks, needs=[Feature.FAN_OUT], shares_run=True)
rows = sample(pipelines.rows, needs=[Feature.FAN_OUT], shares_run=True)
limited = sample(pipelines.limited, needs=[Feature.FAN_OUT, Feature.MAX_PARALLEL], shares_run=True)
failing = sample(pipelines.failing_items, needs=[Feature.FAN_OUT])
continuing = sample(pipelines.continuing, needs=[Feature.FAN_OUT], shares_run=True)


class FanOutConformance(Conformance):
    """Lists that only a run knows, items that fail, and limits."""

    @maps
    @pytest.mark.parametrize(
        ("output", "wanted"),
        [
            ("output", [0, 2, 4]),
            ("parameter", [14, 16, 18, 20]),
            ("constant", [101, 102]),
            ("fixed", [101, 102]),
            ("zipped", [10, 22, 34]),
            ("one", [8]),
            ("nothing", []),
            ("total of nothing", 0),
            ("late", [3, 2, 1, 0]),
            ("empty values", [None, 0, "", False, []]),
            ("twice", [0, 4, 8]),
            ("where", [[7, 0], [8, 1], [9, 2]]),
            ("low", 28),
            ("high", [11, 21]),
            ("weekdays", ["Saturday", "Sunday"]),
            ("spoiled", [3, 3]),
            ("unspoiled", [[1], [2]]),
        ],
    )
    def test_a_step_for_each_item(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @maps
    def test_each_item_has_a_record_with_its_index(self, done: Done) -> None:
        runs = [run for run in done.steps.values() if run.name == "where"]
        assert [(run.index, run.status, run.attempt) for run in runs] == [((n,), COMPLETED, 1) for n in range(3)]
        assert all(run.started_at and run.ended_at for run in runs)

    @maps
    def test_a_loop_over_nothing_completes(self, done: Done) -> None:
        run = done.steps["over nothing"]
        assert (run.status, run.raw_status, run.index) == (COMPLETED, "no_items", ())

    @maps
    def test_lines_of_a_log_name_their_item(self, done: Done) -> None:
        lines = [(line.step, line.index, line.message) for line in done.log if line.message.startswith("at ")]
        assert sorted(lines) == [("where", (n,), f"at {n + 7}") for n in range(3)]

    @maps
    def test_the_log_of_one_item(self, done: Done) -> None:
        messages = done.log_of("where", 1)
        assert [message for message in messages if message.startswith("at ")] == ["at 8"]

    @maps
    def test_a_step_after_a_loop_waits_for_all_items(self, done: Done) -> None:
        last = done.index("after noted")
        assert all(done.index(f"noted {n}") < last for n in range(3))

    @blocks
    @pytest.mark.parametrize(
        ("output", "wanted"), [("names", ["Austria", "Chile"]), ("shifted", [100, 102, 104]), ("never", [])]
    )
    def test_several_steps_for_each_item(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @rows
    @pytest.mark.parametrize(("output", "wanted"), [("both", [[], [2], [4, 5]]), ("row", 11)])
    def test_a_loop_in_a_loop(self, done: Done, output: str, wanted: Any) -> None:
        assert done.outputs[output] == wanted

    @rows
    def test_each_item_of_a_loop_in_a_loop_has_a_record(self, done: Done) -> None:
        runs = {label: run for label, run in done.steps.items() if run.name == "both"}
        assert {label: run.raw_status == "no_items" for label, run in runs.items()} == {
            "both[0]": True, "both[1][0]": False, "both[2][0]": False, "both[2][1]": False,
        }  # fmt: skip
        assert {run.status for run in runs.values()} == {COMPLETED}
        assert [run.index for run in runs.values()] == [(0,), (1, 0), (2, 0), (2, 1)]

    @blocks
    def test_every_step_of_a_loop_over_nothing_completes(self, done: Done) -> None:
        runs = [done.steps[name] for name in ("never", "never again")]
        assert [(run.status, run.raw_status) for run in runs] == [(COMPLETED, "no_items")] * 2

    @blocks
    def test_steps_of_an_item_keep_their_order(self, done: Done) -> None:
        for n in range(2):
            assert done.index(f"first {n}") < done.index(f"second {n}")

    @sample(pipelines.item_by_item, needs=[Feature.FAN_OUT], settings=["patience"])
    def test_an_item_does_not_wait_for_the_others(self, done: Done) -> None:
        assert done.outputs == {"second": [0, 1]}

    @limited
    @pytest.mark.parametrize(("name", "limit"), [("mapped", 2), ("block", 1)])
    def test_no_more_items_at_a_time_than_asked_for(self, done: Done, name: str, limit: int) -> None:
        assert done.record.status is COMPLETED, done.record.error
        seen = [line.split()[1:3] for line in done.trace if line.startswith(name)]
        for step in {step for step, _ in seen} if self.limits_each_step else {""}:
            events = [event for of_step, event in seen if step in ("", of_step)]
            counts = [events[:n].count("begins") - events[:n].count("ends") for n in range(len(events) + 1)]
            assert 1 <= max(counts) <= limit, seen

    @limited
    def test_items_that_waited_for_their_turn_are_in_order(self, done: Done) -> None:
        assert done.outputs == {"mapped": [0, 1, 2, 3, 4], "block": [0, 1, 2]}

    @failing
    def test_a_failed_item_fails_the_run(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "risky" in str(done.record.error)
        assert "no -2" in str(done.record.error)

    @failing
    def test_what_follows_a_failed_item_does_not_run(self, done: Done) -> None:
        assert done.statuses("risky", "checked") == {
            "risky[0]": COMPLETED, "risky[1]": FAILED, "risky[2]": COMPLETED,
            "checked[0]": COMPLETED, "checked[1]": CANCELLED, "checked[2]": COMPLETED,
        }  # fmt: skip
        assert "no -2" in str(done.steps["risky[1]"].error)

    @failing
    def test_the_siblings_of_a_failed_item_run_on(self, done: Done) -> None:
        assert sorted(line for line in done.trace if "checked" in line) == ["checked 0", "checked 2"]

    @failing
    def test_what_takes_the_list_of_a_loop_that_failed_does_not_run(self, done: Done) -> None:
        assert done.statuses("consumer", "beside") == {"consumer": CANCELLED, "beside": COMPLETED}
        assert "consumer" not in done.trace
        assert "beside" in done.trace

    @continuing
    @pytest.mark.parametrize(
        ("output", "wanted"),
        [
            ("some", [[0, 7], [2, 9]]),
            ("all", []),
            ("none", [[0, 5], [1, 6]]),
            ("empty", []),
            ("block", [[0, 2], [2, 6]]),
        ],
    )
    def test_items_that_failed_are_left_out(self, done: Done, output: str, wanted: Any) -> None:
        assert [list(pair) for pair in done.outputs[output]] == wanted

    @continuing
    def test_an_item_that_was_left_out_has_failed(self, done: Done) -> None:
        assert done.statuses("some fail", "first", "double") == {
            "some fail[0]": COMPLETED, "some fail[1]": FAILED, "some fail[2]": COMPLETED,
            "first[0]": COMPLETED, "first[1]": FAILED, "first[2]": COMPLETED,
            "double[0]": COMPLETED, "double[1]": CANCELLED, "double[2]": COMPLETED,
        }  # fmt: skip

    @sample(pipelines.unequal, needs=[Feature.FAN_OUT])
    def test_lists_of_different_lengths_fail_the_loop(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "must be equally long: 'a' has 3, 'b' has 2" in str(done.record.error)
        assert done.statuses("add", "same") == {"add": CANCELLED, "same": CANCELLED}

    @sample(pipelines.no_list, needs=[Feature.FAN_OUT])
    def test_what_is_no_list_fails_the_loop(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "'n' that is not a list: str" in str(done.record.error)
        assert done.statuses("double", "same") == {"double": CANCELLED, "same": CANCELLED}

    @sample(pipelines.no_list_of_what_may_fail, needs=[Feature.FAN_OUT])
    def test_what_is_no_list_fails_the_run_though_its_items_may_fail(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "'n' that is not a list: NoneType" in str(done.record.error)
        assert done.statuses("risky") == {"risky": CANCELLED}

    @sample(pipelines.rows_without_list, needs=[Feature.FAN_OUT], shares_run=True)
    def test_an_item_without_a_list_for_the_loop_within_has_failed(self, done: Done) -> None:
        assert [list(pair) for pair in done.outputs["sums"]] == [[0, 2], [2, 14]]
        assert done.statuses("total") == {"total[0]": COMPLETED, "total[1]": CANCELLED, "total[2]": COMPLETED}

    @sample(pipelines.flaky_items, needs=[Feature.FAN_OUT, Feature.STEP_RETRY], shares_run=True)
    def test_each_item_is_tried_again_by_itself(self, done: Done) -> None:
        assert done.outputs == {"flaky": [0, 1, 2]}
        assert [done.trace.count(f"tries {n}") for n in range(3)] == [1, 3, 1]
        assert {label: run.attempt for label, run in done.steps.items()} == {
            "flaky[0]": 1,
            "flaky[1]": 3,
            "flaky[2]": 1,
        }

    @sample(
        pipelines.slow_items,
        needs=[Feature.FAN_OUT, Feature.STEP_TIMEOUT],
        settings=["step_timeout"],
        shares_run=True,
    )
    def test_each_item_has_a_timeout_of_its_own(self, done: Done) -> None:
        assert [list(pair) for pair in done.outputs["slow"]] == [[0, 0], [2, 2]]
        assert done.statuses("slow") == {"slow[0]": COMPLETED, "slow[1]": TIMEOUT, "slow[2]": COMPLETED}

    @sample(pipelines.large_items, needs=[Feature.FAN_OUT], shares_run=True)
    def test_large_values_pass_through_a_loop(self, done: Done) -> None:
        assert done.outputs == {"sizes": [[2**20 + 1, 0, 9], [2**20 + 1, 1, 9]], "halves": [2**19, 2**19]}

    @sample(pipelines.hooked_items, needs=[Feature.FAN_OUT, Feature.BRANCHES, Feature.HOOKS])
    def test_hooks_see_each_item_and_nothing_that_is_skipped(self, done: Done) -> None:
        assert done.record.status is COMPLETED, done.record.error
        lines = self.journal(done.folder, 8)
        assert (lines[0], lines[-1]) == (
            f"pipeline_start {done.run.run_id} True", f"pipeline_end {done.run.run_id} COMPLETED True",
        )  # fmt: skip
        assert sorted(lines[1:-1]) == [
            "error risky no -2",
            "step_end risky {'risky': 1} True",
            "step_end risky {'risky': 3} True",
            *["step_start risky ['n']"] * 3,
        ]
