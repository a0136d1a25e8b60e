"""Steps that run although an earlier step failed or was skipped, and clean-up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from flowyml.core.capabilities import Feature
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.orchestrators.base import Orchestrator
from flowyml.plan.model import RUN_IF
from flowyml.testing import pipelines_cleanup as pipelines
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, TIMEOUT, Conformance, Done, sample, wait_until

__all__ = ["CleanupConformance", "RunIfConformance"]


ENDS = {"ok": COMPLETED, "skip": COMPLETED, "fail": CANCELLED}
"""The reported status of a step of ``RULES``."""

handled = sample(pipelines.handled, needs=[Feature.RUN_IF])
quiet = sample(pipelines.quiet, needs=[Feature.RUN_IF, Feature.BRANCHES], shares_run=True)
handled_items = sample(pipelines.handled_items, needs=[Feature.RUN_IF, Feature.FAN_OUT])
tidied = sample(pipelines.tidied, needs=[Feature.CLEANUP, Feature.BRANCHES])
tidied_failing = sample(pipelines.tidied, needs=[Feature.CLEANUP, Feature.BRANCHES], parameters={"n": -5})
tidied_items = sample(pipelines.tidied_items, needs=[Feature.CLEANUP, Feature.FAN_OUT, Feature.BRANCHES])


class RunIfConformance(Conformance):
    """Each rule of ``run_if``.

    ``rules`` are those that the engine supports: override it for an engine that supports only some. It must refuse the
    rest.
    """

    rules: ClassVar[Sequence[str]] = RUN_IF

    @sample(pipelines.rules, needs=[Feature.RUN_IF, Feature.BRANCHES], settings=["rules"])
    @pytest.mark.parametrize(("rule", "ends", "outcome"), pipelines.RULES)
    def test_a_rule(
        self, done: Done, orchestrator: Orchestrator, folder: str, rule: str, ends: str, outcome: str
    ) -> None:
        if rule not in self.rules:
            with pytest.raises(UnsupportedFeatureError) as refused:
                orchestrator.run_pipeline(pipelines.rules(folder, [rule]))
            pytest.xfail(f"refused: {refused.value}")
        run = done.steps[f"{rule} {ends}"]
        assert (run.status, run.raw_status == "skipped") == (ENDS[outcome], outcome == "skip")
        assert (run.name in done.trace) == (outcome == "ok")

    @handled
    def test_a_failure_that_was_handled_still_fails_the_run(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "no -5" in str(done.record.error)

    @handled
    def test_what_is_missing_is_the_default(self, done: Done) -> None:
        assert "report -1 4" in done.trace
        assert "alert 0" in done.trace

    @handled
    def test_what_handles_a_failure_and_what_follows_it_complete(self, done: Done) -> None:
        wanted = {"report": COMPLETED, "alert": COMPLETED, "after the report": COMPLETED, "after the alert": COMPLETED}
        assert {name: done.steps[name].status for name in wanted} == wanted
        assert done.index("alert 0") < done.index("after the alert")

    @handled
    def test_other_steps_after_a_failure_do_not_run(self, done: Done) -> None:
        assert (done.steps["risky"].status, done.steps["stopped"].status) == (FAILED, CANCELLED)
        assert "stopped" not in done.trace

    @quiet
    def test_what_handles_a_failure_is_skipped_where_nothing_failed(self, done: Done) -> None:
        assert done.record.status is COMPLETED, done.record.error
        for name in ("alert", "after the alert"):
            assert (done.steps[name].status, done.steps[name].raw_status) == (COMPLETED, "skipped")

    @quiet
    def test_what_came_to_be_and_what_did_not_where_nothing_failed(self, done: Done) -> None:
        assert done.outputs == {"default": -1, "given": 5, "anyway": 1}
        assert "default -1" in done.trace

    @handled_items
    def test_a_failure_is_handled_item_by_item(self, done: Done) -> None:
        assert sorted(line for line in done.trace if line.startswith("rescue ")) == ["rescue 0", "rescue 1", "rescue 3"]
        assert [line for line in done.trace if line.startswith("alert")] == ["alert 1"]

    @handled_items
    def test_each_item_has_an_end_of_its_own(self, done: Done) -> None:
        alerts = [done.steps[f"alert[{n}]"] for n in range(3)]
        assert [run.raw_status == "skipped" for run in alerts] == [True, False, True]
        assert {run.status for run in alerts} == {COMPLETED}
        assert done.steps["rescued"].status is COMPLETED

    @handled_items
    def test_a_loop_that_failed_is_handled_as_a_whole(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert done.steps["fallback"].status is COMPLETED
        assert "fallback []" in done.trace


class CleanupConformance(Conformance):
    """Clean-up, for each end of a run."""

    @tidied
    def test_clean_up_after_a_run_that_goes_well(self, done: Done) -> None:
        assert done.outputs == {"value": 5, "taken": 5}
        assert "tidy 5 0" in done.trace

    @tidied_failing
    def test_clean_up_after_a_failure(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert "no -5" in str(done.record.error)
        assert "tidy None 0" in done.trace
        assert done.steps["tidy"].status is COMPLETED

    @tidied
    def test_clean_up_comes_last(self, done: Done) -> None:
        assert done.index("slow") < done.index("tidy 5 0")
        assert done.index("taken") < done.index("broken")

    @tidied_failing
    def test_clean_up_comes_last_after_a_failure_too(self, done: Done) -> None:
        assert done.index("slow") < min(done.index("tidy None 0"), done.index("broken"))

    @tidied
    def test_steps_of_a_clean_up_pass_values_on(self, done: Done) -> None:
        assert done.index("tidy 5 0") < done.index("then tidied")

    @tidied
    def test_a_clean_up_that_fails_leaves_a_good_run_alone(self, done: Done) -> None:
        assert done.record.status is COMPLETED, done.record.error
        assert (done.steps["broken"].status, done.steps["then"].status) == (FAILED, COMPLETED)
        assert "cannot tidy" in str(done.steps["broken"].error)

    @tidied_failing
    def test_a_clean_up_that_fails_does_not_hide_why_the_run_failed(self, done: Done) -> None:
        assert done.steps["broken"].status is FAILED
        assert "cannot tidy" not in str(done.record.error)

    @tidied
    def test_a_failure_in_a_clean_up_keeps_nothing_of_it_from_running(self, done: Done) -> None:
        assert done.steps["after_broken"].status is COMPLETED
        assert done.index("broken") < done.index("after broken")

    @tidied_items
    def test_a_loop_and_a_branch_in_a_clean_up(self, done: Done) -> None:
        assert done.outputs == {"five": 5}
        assert sorted(line for line in done.trace if line != "risky 5") == [
            "in the branch", "risky -2", "risky 1", "risky 3", "text", "what",
        ]  # fmt: skip

    @tidied_items
    def test_items_and_branches_of_a_clean_up_have_records(self, done: Done) -> None:
        assert [done.steps[f"drop[{n}]"].status for n in range(3)] == [COMPLETED, FAILED, COMPLETED]
        assert done.steps["in the other branch"].raw_status == "skipped"
        assert done.steps["behind it"].status is CANCELLED

    @sample(lambda folder: pipelines.tidied_late(folder, timeout=4), needs=[Feature.CLEANUP, Feature.PIPELINE_TIMEOUT])
    def test_clean_up_after_a_timeout(self, done: Done) -> None:
        assert done.record.status is TIMEOUT
        self.has_tidied(done.folder)

    def test_clean_up_after_a_cancellation(self, orchestrator: Orchestrator, folder: str) -> None:
        pipeline = pipelines.tidied_late(folder)
        self.needs(orchestrator, Feature.CLEANUP, lambda: orchestrator.run_pipeline(pipeline))
        self.needs(orchestrator, Feature.CANCEL, lambda: orchestrator.cancel("no-such-run"))
        handle = orchestrator.run_pipeline(pipeline)
        wait_until((Path(folder) / "beats").exists, "the step begins")
        assert handle.cancel() is True
        assert self.finish(handle).status is CANCELLED
        self.has_tidied(Path(folder))

    def has_tidied(self, folder: Path) -> None:
        """Wait for the clean-up: an engine may report the end a moment before it has run."""
        wait_until((folder / "trace").exists, "the clean-up runs")
        assert (folder / "trace").read_text() == "tidied None\n"
