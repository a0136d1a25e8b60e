"""Hooks, run ids, and the resources that a run requests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import DefinitionError, UnsupportedFeatureError
from flowyml.core.resources import ResourceRequirements
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines
from flowyml.testing.base import COMPLETED, FAILED, Conformance, Done, sample
from flowyml.testing.runs import greeted

__all__ = ["LifeConformance"]


class LifeConformance(Conformance):
    """Hooks, and the same run id again.

    ``run_ids_span_pipelines`` says whether a run id is unique in the whole engine: override it for an engine on which
    each pipeline has its own ids.
    """

    run_ids_span_pipelines = True

    @sample(pipelines.hooked, needs=[Feature.HOOKS])
    def test_hooks_see_a_run_that_goes_well(self, done: Done) -> None:
        assert done.record.status is COMPLETED, done.record.error
        assert self.journal(done.folder, 4) == [
            f"pipeline_start {done.run.run_id} False",
            "step_start work ['fails']",
            "step_end work {'work': 7} True",
            f"pipeline_end {done.run.run_id} COMPLETED True",
        ]

    @sample(lambda folder: pipelines.hooked(folder, fails=True), needs=[Feature.HOOKS])
    def test_hooks_see_a_run_that_fails(self, done: Done) -> None:
        assert done.record.status is FAILED
        assert self.journal(done.folder, 4) == [
            f"pipeline_start {done.run.run_id} True",
            "step_start work ['fails']",
            "error work 'lost'",
            f"pipeline_end {done.run.run_id} FAILED True",
        ]

    def test_the_same_run_id_is_the_same_run(self, orchestrator: Orchestrator, folder: str) -> None:
        run_id = f"same-{time.time_ns()}"
        first = orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        self.needs_run_ids(orchestrator, pipelines.counting(folder), run_id)
        second = orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        assert first.job_id == second.job_id
        assert (first.run_id, second.run_id) == (run_id, run_id)
        self.finish(first)
        third = orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        assert self.finish(third).status is COMPLETED
        assert (Path(folder) / "executions").read_text() == "x"

    @greeted
    def test_a_run_id_that_is_taken_by_another_run(
        self, done: Done, orchestrator: Orchestrator, folder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        run_id = done.run.run_id
        self.needs_run_ids(orchestrator, pipelines.greeting(), run_id)
        assert orchestrator.run_pipeline(pipelines.greeting(), run_id, parameters={"name": "Ada"}).run_id == run_id
        assert "belongs to a run" not in caplog.text
        second = orchestrator.run_pipeline(pipelines.greeting(), run_id, parameters={"name": "Bob"})
        assert "belongs to a run with the parameters {'name': 'Ada'}" in caplog.text
        assert second.outputs == {"greeting": "hello Ada"}
        assert second.job_id == done.run.job_id
        with pytest.raises(DefinitionError, match=f"{run_id}.* with other code: .* Give this run another id"):
            orchestrator.run_pipeline(pipelines.greeting("goodbye"), run_id, parameters={"name": "Ada"})
        if self.run_ids_span_pipelines:
            with pytest.raises(DefinitionError, match="belongs to a run of 'conformance greeting'"):
                orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        else:
            other = self.finish(orchestrator.run_pipeline(pipelines.counting(folder), run_id))
            assert (other.run_id, other.job_id == done.run.job_id) == (run_id, False)

    @pytest.mark.parametrize("run_id", ["", "a\nb", "x" * 201])
    def test_run_ids_that_nothing_could_show(self, orchestrator: Orchestrator, run_id: str) -> None:
        with pytest.raises(DefinitionError):
            orchestrator.run_pipeline(pipelines.greeting(), run_id)

    def test_gpus_are_asked_for_or_refused(self, orchestrator: Orchestrator) -> None:
        from flowyml import step

        gpu = step(name="train", resources=ResourceRequirements(gpu=1))(lambda: 1)
        pipeline = Pipeline("conformance gpu").add_step(gpu)
        if orchestrator.capabilities[Feature.RESOURCES_GPU].level is Level.NO:
            with pytest.raises(UnsupportedFeatureError, match="step 'train' asks for gpu=1"):
                orchestrator.run_pipeline(pipeline)
        else:
            assert orchestrator.plan(pipeline).by_name["train"].resources == ResourceRequirements(gpu=1)

    def needs_run_ids(self, orchestrator: Orchestrator, pipeline: Pipeline, run_id: str) -> None:
        """Check that an engine that cannot find a run by its id refuses an id that was used before."""
        self.needs(orchestrator, Feature.IDEMPOTENT_SUBMIT, lambda: orchestrator.run_pipeline(pipeline, run_id))
