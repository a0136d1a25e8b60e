"""Reuse of step results by later runs: which steps are computed again, and how reuse is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature, Level
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing.base import COMPLETED, Conformance, Done, MakeOrchestrator
from flowyml.testing.pipelines_caching import caches

__all__ = ["CachingConformance"]

_STEPS = ("numbers", "scaled", "nothing")
_ITEMS = ("square[0]", "square[1]", "square[2]")


class CachingConformance(Conformance):
    """Caching, with three runs of one pipeline.

    The second has the same parameters, the third another ``scale`` and a new result of ``numbers``. A loop, an
    execution group and a hook are part of it if the engine has them. Override ``engine_options`` if workers share a
    store only when a pipeline names it.
    """

    @classmethod
    def engine_options(cls, folder: str) -> Mapping[str, Any]:
        """Return the pipeline's options for the engine, under its name."""
        return {}

    @pytest.fixture(scope="class")
    @classmethod
    def cached_runs(cls, make_orchestrator: MakeOrchestrator, new_folder: Callable[[], str]) -> Sequence[Done]:
        """Run three times, each when the run before has ended; not at all if the engine cannot cache."""
        orchestrator = make_orchestrator()
        has = {feature: orchestrator.capabilities[feature].level is not Level.NO for feature in Feature}
        if not has[Feature.CACHING]:
            return ()
        folder = new_folder()
        sample = caches(
            folder, together=has[Feature.EXECUTION_GROUPS], loop=has[Feature.FAN_OUT], hears=has[Feature.HOOKS],
            **cls.engine_options(folder),
        )  # fmt: skip
        wanted: list[tuple[Any, Mapping[str, Any]]] = [
            (sample, {}), (sample, {}), (sample.refreshed(["numbers"]), {"scale": 2})
        ]  # fmt: skip
        runs = []
        for pipeline, parameters in wanted:
            done = Done(cls.finish(orchestrator.run_pipeline(pipeline, parameters=parameters)), Path(folder))
            assert done.record.status is COMPLETED, done.record.error
            runs.append(done)
        return runs

    @pytest.fixture
    def three(self, cached_runs: Sequence[Done], orchestrator: Orchestrator, folder: str) -> Sequence[Done]:
        """Return the three runs; if the engine refuses a pipeline with cached steps, the refusal is the whole test."""
        self.needs(orchestrator, Feature.CACHING, lambda: orchestrator.run_pipeline(caches(folder)))
        return cached_runs

    @pytest.fixture
    def with_items(self, three: Sequence[Done], orchestrator: Orchestrator, folder: str) -> Sequence[Done]:
        """Return the three runs; if the engine refuses a loop, the refusal is the whole test."""
        self.needs(orchestrator, Feature.FAN_OUT, lambda: orchestrator.run_pipeline(caches(folder)))
        return three

    def test_a_step_that_gets_the_same_runs_once(self, three: Sequence[Done]) -> None:
        assert Counter(three[0].trace)["nothing"] <= 2

    def test_all_items_run_once(self, with_items: Sequence[Done]) -> None:
        ran = Counter(with_items[0].trace)
        assert [ran[f"square {n}"] for n in range(3)] == [1, 1, 1]

    def test_results_of_the_first_run_are_those_of_the_second(self, three: Sequence[Done]) -> None:
        assert three[0].outputs["found"] == three[1].outputs["found"] == [[0, 1, 4], [0, 1, 2], None]

    def test_the_first_run_has_none_of_before(self, three: Sequence[Done]) -> None:
        assert {label for label, step in three[0].steps.items() if step.is_cached} == set()

    @pytest.mark.parametrize("step", _STEPS)
    def test_a_step_names_the_run_that_its_result_is_from(self, three: Sequence[Done], step: str) -> None:
        assert three[1].steps[step].cached_from == three[0].run.run_id
        assert three[1].steps[step].status is COMPLETED

    @pytest.mark.parametrize("item", _ITEMS)
    def test_an_item_names_the_run_that_its_result_is_from(self, with_items: Sequence[Done], item: str) -> None:
        assert with_items[1].steps[item].cached_from == with_items[0].run.run_id
        assert with_items[1].steps[item].status is COMPLETED

    def test_a_step_that_is_not_cached_runs_each_time(self, three: Sequence[Done]) -> None:
        assert Counter(three[0].trace)["last"] == len(three)
        assert not any(done.steps["last"].is_cached for done in three)

    def test_the_log_says_so(self, three: Sequence[Done]) -> None:
        wanted = f"step 'scaled' was not run: its results are those of run {three[0].run.run_id!r}"
        assert wanted in [line.message for line in three[1].run.logs()]

    def test_hooks_hear_of_it(self, three: Sequence[Done], orchestrator: Orchestrator, folder: str) -> None:
        self.needs(orchestrator, Feature.HOOKS, lambda: orchestrator.run_pipeline(caches(folder)))
        cached = [step.name for step in three[1].steps.values() if step.is_cached]
        lines = self.journal(three[1].folder, len(cached))
        first = three[0].run.run_id
        assert Counter(lines[: len(cached)]) == Counter(f"{name} {first}" for name in cached)

    def test_a_step_that_is_refreshed_runs(self, three: Sequence[Done]) -> None:
        assert Counter(three[0].trace)["numbers"] == 2
        assert not three[2].steps["numbers"].is_cached

    def test_what_gets_the_same_as_before_is_cached_all_the_same(self, with_items: Sequence[Done]) -> None:
        assert with_items[2].steps["square[1]"].cached_from == with_items[0].run.run_id

    def test_another_parameter_gives_another_result(self, three: Sequence[Done]) -> None:
        assert three[2].outputs["found"] == [[0, 1, 4], [0, 2, 4], None]
        assert not three[2].steps["scaled"].is_cached

    def test_the_same_pipeline_again_has_the_same_keys(self, folder: str) -> None:
        pipelines: list[Pipeline] = [caches(folder), caches(folder)]
        first, second = ({step.name: step.caching for step in each.compile()} for each in pipelines)
        assert first == second
