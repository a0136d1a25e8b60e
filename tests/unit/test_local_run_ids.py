"""A run id is one run: again, with other parameters or code, and from many threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError, EngineError, RunNotFoundError
from flowyml.core.origin import Origin
from flowyml.core.runs import PipelineResult, Run
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.submission import check_same_run, claim_new, new_run_id, submit_once
from tests.unit.local_runs import COMPLETED

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


def test_the_same_run_id_with_other_code_is_refused(local: LocalOrchestrator) -> None:
    rate = 2

    def helper() -> int:
        return 1

    def pipeline(function: Callable[[], int]) -> Pipeline:
        return Pipeline("once").add_step(step(name="count", outputs=["count"])(function))

    assert pipeline(lambda: rate + helper()).run(on=local, run_id="one")["count"] == 3
    assert pipeline(lambda: rate + helper()).submit(on=local, run_id="one").outputs == {"count": 3}
    for other in (lambda: rate + helper() + 1, lambda: rate):
        with pytest.raises(DefinitionError, match="run_id='one' belongs to a run of 'once' with other code"):
            pipeline(other).run(on=local, run_id="one")
        with pytest.raises(DefinitionError, match="with other code: its steps"):
            pipeline(other).submit(on=local, run_id="one")
    rate = 3
    with pytest.raises(DefinitionError, match="with other code"):
        pipeline(lambda: rate + helper()).run(on=local, run_id="one")


def test_the_same_run_id_from_another_project_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    found = Run(
        job_id="1", run_id="one", pipeline="train", status=COMPLETED, raw_status="completed",
        origin=Origin("acme", "train.py"), code_digest="a" * 64,
    )  # fmt: skip
    other = Origin("other", "train.py")
    check_same_run(found, "train", {}, origin=found.origin, code_digest="a" * 64)
    check_same_run(found, "train", {})
    assert caplog.messages == []
    check_same_run(found, "train", {}, origin=other, code_digest="a" * 64)  # a copy of the folder, with the same code
    check_same_run(replace(found, code_digest=None), "train", {}, origin=found.origin, code_digest="a" * 64)
    same, unknown = caplog.messages
    assert "a run of the same code from acme: train.py, which is returned; this 'train' comes from other" in same
    assert "run_id='one' belongs to an existing run, which is returned; its code was not recorded" in unknown
    for digest in (None, "b" * 64):
        with pytest.raises(DefinitionError, match=r"from acme: train\.py; this 'train' comes from other: train\.py"):
            check_same_run(found, "train", {}, origin=other, code_digest=digest)
    with pytest.raises(DefinitionError, match=r"with other code: .* \(version aaaaaaaa, now bbbbbbbb\)"):
        check_same_run(found, "train", {}, origin=found.origin, code_digest="b" * 64)


def test_two_threads_with_one_run_id(local: LocalOrchestrator) -> None:
    calls: list[int] = []
    results: list[PipelineResult] = []

    @step(outputs=["count"])
    def count() -> int:
        calls.append(1)
        time.sleep(0.2)
        return len(calls)

    pipeline = Pipeline("race").add_step(count)
    pipeline.compile()
    threads = [
        threading.Thread(target=lambda: results.append(pipeline.run(on=local, run_id="shared"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result["count"] for result in results] == [1] * 4


def test_a_new_id_is_claimed_once() -> None:
    made = new_run_id("Train/Model ü")
    assert made.startswith("train-model-u-")
    assert (claim_new(made), claim_new(made), claim_new("given")) == (True, False, False)


@pytest.mark.processes
def test_the_id_of_a_run_is_not_new_however_it_ran(local: LocalOrchestrator) -> None:
    pipeline = Pipeline("ids").add_step(step(name="one")(lambda: 1))
    submitted = pipeline.submit(on=local)
    apart = LocalOrchestrator(store=local.store.path, workers="processes")
    for run_id in (submitted.run_id, pipeline.run(on=local).run_id, pipeline.run(on=apart).run_id):
        assert not claim_new(run_id)
    assert submitted.wait_for_completion(timeout=2400).outputs == {"one": 1}


class Engine:
    """Creates a run for an id once. The first try of ``create`` finds that another process was faster."""

    def __init__(self, other: Run | None) -> None:
        self.other, self.asked = other, list[str]()

    def find(self) -> Run:
        self.asked.append("find")
        if self.other is None or self.asked.count("create") == 0:
            raise RunNotFoundError("none yet")
        return self.other

    def create(self) -> str | None:
        self.asked.append("create")
        return None


def test_a_run_that_came_first_is_found_again_and_checked() -> None:
    pipeline = Pipeline("train").add_step(step(name="one")(lambda: 1))
    bundle, run_id = pipeline.bundle(), new_run_id("train")
    other = Run(
        job_id="other", run_id=run_id, pipeline="train", status=COMPLETED, raw_status="completed",
        origin=bundle.origin, code_digest=bundle.code_digest,
    )  # fmt: skip
    engine = Engine(other)
    assert submit_once(bundle, run_id, {}, find=engine.find, create=engine.create) == other.job_id
    assert engine.asked == ["create", "find"]  # an id that was made here needs no look first
    engine = Engine(other)
    assert submit_once(bundle, run_id, {}, find=engine.find, create=engine.create) == other.job_id
    assert engine.asked == ["find", "create", "find"]
    engine = Engine(replace(other, pipeline="else"))
    with pytest.raises(DefinitionError, match="belongs to a run of 'else'"):
        submit_once(bundle, run_id, {}, find=engine.find, create=engine.create)
    engine = Engine(None)
    with pytest.raises(EngineError, match="Too many submissions of run"):
        submit_once(bundle, run_id, {}, find=engine.find, create=engine.create)
