"""A successful run, its handle, its logs, and the values that pass through it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import ParameterError, RunNotFoundError
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines
from flowyml.testing.base import COMPLETED, FAILED, Conformance, Done, MakeOrchestrator, sample
from flowyml.testing.samples import IN_VAIN

__all__ = ["RunConformance", "greeted"]


greeted = sample(lambda _: pipelines.greeting(), parameters={"name": "Ada"})


class RunConformance(Conformance):
    """A successful run, and its handle."""

    @greeted
    def test_a_run_completes_and_gives_its_outputs(self, done: Done) -> None:
        assert done.run.status is COMPLETED, done.run.error
        assert done.run.outputs == {"greeting": "hello Ada"}
        assert done.run.error is None
        assert done.run.raw_status
        assert 0 < done.run.duration_seconds < self.run_timeout

    @greeted
    def test_step_statuses(self, done: Done) -> None:
        assert done.run.step_statuses() == {"gather": COMPLETED, "join": COMPLETED}
        assert all(run.attempt == 1 and run.started_at and run.ended_at for run in done.run.step_runs())

    @greeted
    def test_logs_hold_what_a_step_printed(self, done: Done) -> None:
        lines = [line for line in done.run.logs() if "gathering words for Ada" in line.message]
        assert [line.step for line in lines] == ["gather"]

    @greeted
    def test_what_a_step_logs_keeps_its_level(self, done: Done) -> None:
        lines = [line for line in done.run.logs() if "Ada has few words" in line.message]
        assert [(line.step, line.level, line.message) for line in lines] == [("gather", "WARNING", "Ada has few words")]

    @greeted
    def test_following_the_logs_of_a_finished_run_ends(self, done: Done) -> None:
        assert any("gathering words" in line.message for line in done.run.logs(follow=True))

    def test_logs_are_followed_while_the_run_goes_on(self, orchestrator: Orchestrator, folder: str) -> None:
        """The step continues when its first line has been read, and gives up after a minute."""
        handle = orchestrator.run_pipeline(pipelines.talking(folder))
        self.needs(orchestrator, Feature.LOGS, lambda: list(handle.logs()))
        seen: list[str] = []
        for line in handle.logs(follow=True):
            seen.append(line.message)
            if line.message == "the first line":
                (Path(folder) / "go").touch()
        assert [message for message in seen if message.startswith("the ")] == ["the first line", "the last line"]
        assert self.finish(handle).status is COMPLETED, handle.error

    @greeted
    def test_a_handle_can_be_rebuilt(self, done: Done, make_orchestrator: MakeOrchestrator) -> None:
        again = make_orchestrator().attach(done.run.job_id)
        assert (again.run_id, again.status, again.outputs) == (done.run.run_id, COMPLETED, done.run.outputs)
        assert again.url == done.run.url

    @greeted
    def test_the_result_has_it_all(self, done: Done) -> None:
        result = done.run.result()
        assert result.success
        assert result["greeting"] == "hello Ada"
        assert result.step_results["join"].success

    @greeted
    def test_a_finished_run_cannot_be_cancelled(self, done: Done) -> None:
        assert done.run.cancel() is False
        assert done.run.status is COMPLETED

    @greeted
    def test_blocking_execution_and_the_list_of_runs(self, orchestrator: Orchestrator, done: Done) -> None:
        result = pipelines.greeting().run({"name": "you"}, on=orchestrator)
        assert result.success, result.error
        assert result["greeting"] == "hello you"
        listed = [run.run_id for run in orchestrator.runs("conformance greeting")]
        assert listed.index(result.run_id) < listed.index(done.run.run_id), "the newest comes first"
        assert orchestrator.runs("no such pipeline") == []
        assert len(orchestrator.runs(limit=1)) == 1

    @greeted
    def test_status_by_job_id(self, orchestrator: Orchestrator, done: Done) -> None:
        assert orchestrator.get_run_status(done.run.job_id) is COMPLETED

    @pytest.mark.parametrize("job_id", ["no-such-run", "5f1a4d02-0000-4000-8000-000000000000", "../x", ""])
    def test_an_unknown_job_is_an_error_and_never_a_status(self, orchestrator: Orchestrator, job_id: str) -> None:
        with pytest.raises(RunNotFoundError):
            orchestrator.get_run_status(job_id)
        with pytest.raises(RunNotFoundError):
            orchestrator.attach(job_id)

    def test_parameters_are_checked_before_anything_is_sent(self, orchestrator: Orchestrator) -> None:
        before = len(orchestrator.runs())
        with pytest.raises(ParameterError, match="'name' must be of type string"):
            orchestrator.run_pipeline(pipelines.greeting(), parameters={"name": 1})
        assert len(orchestrator.runs()) == before

    def test_independent_steps_run_at_the_same_time(self, orchestrator: Orchestrator, folder: str) -> None:
        """Steps run one after another on an engine that declares it: then the first waits for the second in vain."""
        lack = orchestrator.capabilities[Feature.PARALLEL_STEPS]
        patience = IN_VAIN if lack.level is Level.NO else self.patience
        handle = self.finish(orchestrator.run_pipeline(pipelines.meeting(folder, patience)))
        if lack.level is Level.NO:
            assert handle.status is FAILED
            assert f"waited {IN_VAIN} s" in str(handle.error)
            pytest.xfail(f"{orchestrator.name} runs one step after another, as it says: {lack.note}")
        assert handle.status is COMPLETED, handle.error

    @sample(lambda _: pipelines.timed())
    def test_steps_know_when_their_run_is_for(self, done: Done) -> None:
        day, at, *interval, name, typed = done.outputs["first"]
        assert day == at == done.outputs["second"], "the same in all steps, and in the parameter"
        assert 0 <= (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds() < 3600, "a moment ago, in UTC"
        assert (interval, name) == ([None, None], "tell")
        assert typed == [True, True], "a parameter that is a datetime, and one that is a date"

    @sample(lambda _: pipelines.values(), shares_run=True)
    def test_values_come_back_as_they_were(self, done: Done) -> None:
        assert done.outputs["same"] is True
        assert done.outputs["value_again"] == pipelines.VALUES

    @sample(lambda _: pipelines.mutating(), shares_run=True)
    def test_every_step_sees_values_as_they_were_returned(self, done: Done) -> None:
        seen, changed = done.outputs["seen"], done.outputs["changed"]
        assert seen == [
            "appended=[1]", "sorted=[3, 1, 2]", "nested={'a': [1]}", "updated={'a': 1}", "popped={'a': 1}", "added={1}",
            "bytes=bytearray(b'a')", "in_tuple=([1],)", "rotated=deque(['a', 'b'])", "counted=Counter({'a': 1})",
        ]  # fmt: skip
        assert [a == b for a, b in zip(seen, changed, strict=True)] == [False] * 10

    @sample(lambda _: pipelines.large(), shares_run=True)
    def test_large_and_odd_values_pass_between_steps(self, done: Done) -> None:
        assert done.outputs["size"] == 2**20

    @sample(lambda _: pipelines.gathering(), parameters={"limit": 5}, shares_run=True)
    def test_outputs_of_several_steps_become_one_list(self, done: Done) -> None:
        assert done.outputs == {"sizes": [5, 2**20, 1, 5, "and", "end"]}

    @sample(lambda _: pipelines.dated(), parameters={"day": date(2026, 2, 1), "at": "2026-01-31T10:30:00+00:00"})
    def test_dates_and_paths_can_be_parameters_and_constants(self, done: Done) -> None:
        week = ["Sunday", "10:30 UTC", "rows", "[datetime.date(2026, 2, 1), None]"]
        fixed = ["Monday", "08:00 UTC", "fixed", "[datetime.date(2026, 2, 3)]"]
        assert done.outputs == {"week": week, "fixed": fixed}

    @sample(lambda _: pipelines.hostile())
    def test_names_cannot_break_out(self, done: Done) -> None:
        assert done.outputs == {"größe 🚀": "üü"}
        assert set(done.run.step_statuses()) == set(pipelines.hostile().compile().by_name)
