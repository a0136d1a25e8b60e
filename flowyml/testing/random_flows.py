"""Random pipelines: an engine must produce the same results as a few lines of plain Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from flowyml.core.capabilities import Feature
from flowyml.testing.base import CANCELLED, COMPLETED, FAILED, Conformance
from flowyml.testing.done import Done
from flowyml.testing.pipelines_random import expected, kinds, random_flow, seeds
from flowyml.testing.samples import Ahead, MakeOrchestrator, sample

__all__ = ["RandomFlowConformance"]


SEEDS = [(seed, False) for seed in seeds(10)] + [(seed, True) for seed in seeds(5, fails=True)]
"""Seeds, and whether some steps of the pipeline fail."""


class RandomFlowConformance(Conformance):
    """Ten random pipelines of nested loops, branches, called pipelines, execution groups and clean-up, and five with
    failures too."""

    @pytest.fixture(scope="class")
    @classmethod
    def flows(
        cls, make_orchestrator: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> Iterator[Callable[[int, bool], Done]]:
        samples = {
            (seed, fails): sample(
                partial(random_flow, seed=seed, fails=fails),
                needs=_needs(seed, fails),
                shares_run=not fails and "cleanup" not in kinds(seed, fails=fails),
            )
            for seed, fails in SEEDS
        }
        ahead = Ahead(list(samples.values()), cls, make_orchestrator, new_folder)
        yield lambda seed, fails: ahead.take(samples[seed, fails])
        ahead.stop()

    @pytest.mark.parametrize(("seed", "fails"), SEEDS)
    def test_a_random_pipeline(self, flows: Callable[[int, bool], Done], seed: int, fails: bool) -> None:
        done = flows(seed, fails)
        wanted = expected(seed, fails=fails)
        assert sorted(done.trace) == wanted.trace
        assert done.record.status is (FAILED if wanted.failed else COMPLETED), done.record.error
        assert (done.run.outputs if wanted.failed else done.outputs) == wanted.outputs
        ran = [
            run for run in done.steps.values()
            if run.status is not CANCELLED and run.raw_status not in ("skipped", "no_items")
        ]  # fmt: skip
        assert len(ran) == len(wanted.trace), "what did not run was skipped, or stopped by a failure"
        if not wanted.failed and not fails:
            assert {run.status for run in done.steps.values()} == {COMPLETED}


_NEEDS = {
    "together": Feature.EXECUTION_GROUPS,
    "called": Feature.SUB_PIPELINES,
    "cleanup": Feature.CLEANUP,
}


def _needs(seed: int, fails: bool) -> list[Feature]:
    found = kinds(seed, fails=fails)
    needs = [feature for kind, feature in _NEEDS.items() if kind in found]
    return [Feature.FAN_OUT, Feature.BRANCHES, *([Feature.RUN_IF] if fails else []), *needs]
