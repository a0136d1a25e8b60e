"""Random pipelines: an engine does with them what a few lines of plain Python do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from flowyml.core.capabilities import Feature
from flowyml.core.execution_status import ExecutionStatus
from flowyml.testing.base import Ahead, Conformance, Done, MakeOrchestrator, sample
from flowyml.testing.pipelines_random import expected, random_flow, seeds

__all__ = ["RandomFlowConformance"]

SEEDS = seeds(10)


class RandomFlowConformance(Conformance):
    """Ten random pipelines of nested loops and branches, which the engine is given together."""

    at_once = len(SEEDS)

    @pytest.fixture(scope="class")
    @classmethod
    def flows(
        cls, make_orchestrator: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> Iterator[Callable[[int, str], Done]]:
        samples = {
            seed: sample(partial(random_flow, seed=seed), needs=[Feature.FAN_OUT, Feature.BRANCHES]) for seed in SEEDS
        }
        ahead = Ahead(list(samples.values()), cls, make_orchestrator, new_folder)
        yield lambda seed, test: ahead.take(samples[seed], test)
        ahead.stop()

    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_random_pipeline(
        self, request: pytest.FixtureRequest, flows: Callable[[int, str], Done], seed: int
    ) -> None:
        done = flows(seed, request.node.nodeid)
        outputs, lines = expected(seed)
        assert done.run.status is ExecutionStatus.COMPLETED, done.run.error
        assert sorted(done.trace) == lines
        assert done.outputs == outputs
        ran = [run for run in done.steps.values() if run.raw_status not in ("skipped", "no_items")]
        assert len(ran) == len(lines), "what did not run was skipped"
        assert {run.status for run in done.steps.values()} == {ExecutionStatus.COMPLETED}
