"""Run ids that FlowyML makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import claim_new, new_run_id


@step
def one() -> int:
    return 1


def test_a_new_id_is_claimed_once() -> None:
    made = new_run_id("Train/Model ü")
    assert made.startswith("train-model-u-")
    assert (claim_new(made), claim_new(made), claim_new("given")) == (True, False, False)


@pytest.mark.processes
def test_the_id_of_a_run_is_not_new_however_it_ran(tmp_path: Path) -> None:
    local, pipeline = LocalOrchestrator(store=tmp_path / "runs.db"), Pipeline("ids").add_step(one)
    submitted = pipeline.submit(on=local)
    assert not claim_new(submitted.run_id)
    assert not claim_new(pipeline.run(on=local).run_id)
    assert not claim_new(pipeline.run(on=LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")).run_id)
    assert submitted.wait_for_completion(timeout=240).outputs == {"one": 1}
