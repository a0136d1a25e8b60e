"""Run again what failed of a run: what is asked of an engine, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flowyml import Pipeline, for_each, pipeline, step
from flowyml.core.capabilities import Capabilities, Feature, Support, no, yes
from flowyml.core.errors import RetryRefusedError, UnsupportedFeatureError
from flowyml.orchestrators import LocalOrchestrator


class Engine(LocalOrchestrator):
    """One that notes what it is asked to run again."""

    capabilities = Capabilities("engine", {Feature.RETRY_RUN: yes})

    def __init__(self, support: Support = yes) -> None:
        super().__init__()
        self.capabilities = Capabilities("engine", {Feature.RETRY_RUN: support})  # type: ignore[misc]  # for one object
        self.asked: list[Sequence[str] | None] = []

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        self.asked.append(steps)


def fails(message: str = "no rows") -> Pipeline:
    @step
    def load() -> int:
        raise ValueError(message)

    return Pipeline("fails").add_step(load)


def test_an_engine_that_cannot_refuses_with_its_reason() -> None:
    engine = Engine(no("it keeps nothing"))
    run = fails().run(on=engine)
    with pytest.raises(UnsupportedFeatureError, match=f"retry of run '{run.run_id}': .*: it keeps nothing"):
        engine.attach(run.run_id).retry()
    assert not engine.asked


def test_what_is_refused() -> None:
    engine = Engine()
    works = Pipeline("works").add_step(step(name="one")(lambda: 1)).run(on=engine).run_id
    failed = fails().run(on=engine).run_id
    for run_id, steps, why in (
        (works, ["one"], "completed, so a retry would run nothing"),
        (failed, ["lode"], "no step 'lode'. It has: load"),
        (failed, [], "names no step"),
    ):
        with pytest.raises(RetryRefusedError, match=why):
            engine.attach(run_id).retry(steps=steps)


def test_what_the_engine_is_asked_for() -> None:
    engine = Engine()
    handle = engine.attach(fails().run(on=engine).run_id)
    assert handle.retry() is handle
    handle.retry(steps=["load"])
    handle.retry("load")
    assert engine.asked == [None, ("load",), ("load",)]


def test_an_item_of_a_loop_with_a_loop_in_it() -> None:
    """Stands for all that is within it, as for ``logs``."""

    @step
    def fails_all(n: int, m: int) -> None:
        raise ValueError(n, m)

    @pipeline(name="nested")
    def made() -> None:
        with for_each([1, 2], name="outer") as n, for_each([3, 4], name="inner") as m:
            fails_all(n, m)

    engine = Engine()
    handle = engine.attach(made.run().run_id)
    for steps in (["fails_all"], ["fails_all[1]"], ["fails_all[1][0]"]):
        handle.retry(steps=steps)
    assert engine.asked == [("fails_all",), ("fails_all[1]",), ("fails_all[1][0]",)]
    for missing in ("fails_all[2]", "fails_all[1][2]"):
        with pytest.raises(RetryRefusedError, match="has no step"):
            handle.retry(steps=[missing])
