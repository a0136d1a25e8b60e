"""A blocking run: in the caller's process, with values by reference."""

from __future__ import annotations

import gc
import re
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import ConfigurationError, StepError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.observability import ConsoleMetricsCollector, MetricsCollector, set_metrics_collector
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import engine
from tests.unit.local_runs import CANCELLED, COMPLETED, chain

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


@pytest.mark.slow
def test_ten_thousand_steps_in_a_row(local: LocalOrchestrator) -> None:
    result = chain(10_000).run(on=local)
    assert result["v9999"] == 9999
    assert len(result.step_results) == 10_000
    steps = local.step_runs(result.run_id)
    assert [step.name for step in steps[:3]] == ["s0", "s1", "s2"]
    assert all(step.status is COMPLETED and step.attempt == 1 for step in steps)


def test_a_chain_needs_no_thread_but_the_callers(local: LocalOrchestrator) -> None:
    seen: list[str] = []

    @step(outputs=["a"])
    def first() -> int:
        seen.append(threading.current_thread().name)
        return 1

    @step(outputs=["b"])
    def second(a: int) -> int:
        seen.append(threading.current_thread().name)
        return a

    Pipeline("thrifty").add_step(first).add_step(second).run(on=local)
    assert seen == [threading.current_thread().name] * 2


def test_max_workers(tmp_path: Path) -> None:
    """Three steps each wait for two others."""
    running, most = [0], [0]
    lock, barrier = threading.Lock(), threading.Barrier(3, timeout=240)

    def work() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait()
        with lock:
            running[0] -= 1

    pipeline = Pipeline("narrow")
    for number in range(12):
        pipeline.add_step(step(name=f"work {number}")(work))
    assert pipeline.run(on=LocalOrchestrator(store=tmp_path / "runs.db", max_workers=3)).success
    assert most[0] == 3


def test_values_pass_by_reference_and_go_after_their_last_use(local: LocalOrchestrator) -> None:
    class Big:
        pass

    alive: list[weakref.ref[Big]] = []
    seen: list[int] = []

    @step(outputs=["big"])
    def make() -> Big:
        big = Big()
        alive.append(weakref.ref(big))
        return big

    @step(outputs=["number"])
    def use(big: Big) -> int:
        seen.append(id(big))
        assert big is alive[0]()
        return 1

    @step(outputs=["gone"])
    def after(number: int) -> bool:
        gc.collect()
        return alive[0]() is None

    pipeline = Pipeline("frugal").add_step(make).add_step(use).add_step(after)
    assert pipeline.run(on=local)["gone"] is True


def test_outputs_go_with_the_result(local: LocalOrchestrator) -> None:
    """At once, and not when the garbage collector comes by."""

    class Big:
        pass

    gc.disable()
    try:
        result = Pipeline("released").add_step(step(name="big", outputs=["big"])(Big)).run(on=local)
        alive = weakref.ref(result["big"])
        assert alive() is not None
        del result
        assert alive() is None
    finally:
        gc.enable()


def test_a_failure_has_its_exception_and_a_traceback_of_the_users_own_lines(
    local: LocalOrchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    @step(outputs=["broken"])
    def broken() -> int:
        raise ValueError("wrong shape")

    result = Pipeline("branches").add_step(broken).add_step(step(name="healthy")(lambda: 2)).run(on=local)
    assert result.error == "step 'broken': ValueError: wrong shape"
    assert isinstance(result.exception, ValueError)
    assert (result.outputs, result.step_results["healthy"].outputs) == ({}, {"healthy": 2})
    with pytest.raises(StepError, match="wrong shape"):
        result.raise_for_status()
    assert local.get_run(result.run_id).error == result.error
    assert caplog.records[0].getMessage().startswith("Step 'broken' failed: Traceback")
    assert "engine.py" not in caplog.text


def test_all_failing_steps_are_named(local: LocalOrchestrator, caplog: pytest.LogCaptureFixture) -> None:
    @step
    def one() -> None:
        raise KeyError("a")

    @step
    def two() -> None:
        sys.exit(3)

    result = Pipeline("two faults").add_step(one).add_step(two).run(on=local)
    assert result.error is not None
    assert "step 'one': KeyError: 'a'; step 'two' called sys.exit(3)" in result.error


def test_retries_wait_without_holding_up_other_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still until the others have run, however long they take."""
    order: list[str] = []
    started = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() if "y" in order else started, time=time.time)
    monkeypatch.setattr(engine, "time", clock)

    @step(outputs=["a"], retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0.2, backoff_multiplier=1))
    def flaky() -> int:
        order.append("flaky")
        if len(order) < 5:
            raise ConnectionError("try again")
        return len(order)

    pipeline = Pipeline("patient").add_step(flaky)
    for name in ("x", "y"):
        pipeline.add_step(step(name=name, outputs=[name])(lambda name=name: order.append(name)))
    result = pipeline.run(on=LocalOrchestrator(store=tmp_path / "runs.db", max_workers=1))
    assert result.success, result.error
    assert order == ["flaky", "x", "y", "flaky", "flaky"]
    assert result.step_results["flaky"].attempt == 3
    assert time.monotonic() - started >= 0.4
    assert "trying again in 0.2 s: ConnectionError: try again" in caplog.text


def test_the_log_names_a_failed_step_once(local: LocalOrchestrator, caplog: pytest.LogCaptureFixture) -> None:
    @step(retry=1, secrets={"password": "no/such"})
    def load(password: str = "") -> int:
        return 1

    @step(timeout=240)
    def die() -> None:
        import os

        os._exit(3)

    Pipeline("failing").add_step(load).add_step(die).run(on=local)
    said = sorted(record.getMessage() for record in caplog.records)
    assert [text.partition("set FLOWYML")[0] for text in said] == [
        "Step 'load' failed (attempt 1 of 2); trying again in 0 s: There is no secret 'no/such': ",
        "Step 'load' failed (attempt 2 of 2): There is no secret 'no/such': ",
        "The process of step 'die' exited with code 3 without returning the step's result.",
    ]


class Journal(PipelineHook):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Mapping[str, Any]) -> None:
        self.events.append(f"start {pipeline_name} {dict(context)}")

    def on_step_start(self, step_name: str, inputs: Mapping[str, Any]) -> None:
        self.events.append(f"step {step_name} {dict(inputs)}")

    def on_step_end(self, step_name: str, outputs: Mapping[str, Any], duration: float) -> None:
        self.events.append(f"done {step_name} {dict(outputs)}")

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        self.events.append(f"end {status}")

    def on_error(self, step_name: str, error: BaseException) -> None:
        self.events.append(f"error {step_name} {error!r}")


class Broken(PipelineHook):
    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Mapping[str, Any]) -> None:
        raise RuntimeError("hook")

    def on_step_start(self, step_name: str, inputs: Mapping[str, Any]) -> None:
        raise RuntimeError("hook")

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        print("bye from a hook")
        raise RuntimeError("hook")


def test_hooks(local: LocalOrchestrator, caplog: pytest.LogCaptureFixture) -> None:
    @step(outputs=["twice"])
    def double(number: int) -> int:
        return 2 * number

    @step
    def fail(twice: int) -> None:
        raise ValueError(twice)

    journal = Journal()
    pipeline = Pipeline("hooked", hooks=[Broken(), journal], context=context(number=3)).add_step(double).add_step(fail)
    result = pipeline.run({"number": 4}, on=local)
    assert journal.events == [
        "start hooked {'number': 4}", "step double {'number': 4}", "done double {'twice': 8}",
        "step fail {'twice': 8}", "error fail ValueError(8)", "end FAILED",
    ]  # fmt: skip
    assert ("", "bye from a hook") in [(line.step, line.message) for line in local.logs(result.run_id)]


class Metrics(MetricsCollector):
    def __init__(self) -> None:
        self.events: list[str] = []

    def run_started(self, pipeline: str, run_id: str, orchestrator: str) -> None:
        self.events.append(f"started {pipeline} {orchestrator}")

    def step_finished(self, pipeline: str, run_id: str, step: str, status: ExecutionStatus, duration: float) -> None:
        assert duration >= 0
        self.events.append(f"{step} {status}")

    def run_finished(self, pipeline: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        assert duration > 0
        self.events.append(f"finished {status}")


def test_without_standard_error_metrics_stay_out_of_standard_output(
    local: LocalOrchestrator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    set_metrics_collector(ConsoleMetricsCollector())
    monkeypatch.setattr("sys.stderr", None)
    try:
        assert chain(1).run(on=local).success
    finally:
        set_metrics_collector(None)
    assert "metrics" not in capfd.readouterr().out


def test_metrics(local: LocalOrchestrator) -> None:
    collector = Metrics()
    set_metrics_collector(collector)
    try:
        chain(2).run(on=local)
    finally:
        set_metrics_collector(None)
    assert collector.events == ["started chain of 2 local", "s0 COMPLETED", "s1 COMPLETED", "finished COMPLETED"]


def cancelling(local: LocalOrchestrator, run_id: str, steps: int) -> threading.Thread:
    """Cancels a run from another thread as soon as so many of its steps run."""

    def cancel() -> None:
        while (row := local.store.find(run_id)) is None or _running(local, row.number) < steps:
            time.sleep(0.05)
        local.cancel(run_id)

    thread = threading.Thread(target=cancel)
    thread.start()
    return thread


def _running(local: LocalOrchestrator, number: int) -> int:
    return sum(step.status == "RUNNING" for step in local.store.steps(number))


def test_cancel_from_elsewhere_ends_steps_in_threads(local: LocalOrchestrator) -> None:
    """Even one that catches every exception, and one that runs in a helper's thread."""
    journal = Journal()

    ignored = [0]

    def stubborn() -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                ignored[0] += 1
                if ignored[0] > 2:
                    raise

    pipeline = Pipeline("endless", hooks=[journal])
    for name in ("a", "b"):
        pipeline.add_step(step(name=name, outputs=[name])(stubborn))
    pipeline.add_step(step(name="c")(lambda a: a))
    canceller = cancelling(local, "stop-me", 2)
    result = pipeline.run(on=local, run_id="stop-me")
    canceller.join()
    assert result.status is CANCELLED
    assert [found.status for found in result.step_results.values()] == [CANCELLED] * 3
    assert [found.raw_status for found in result.step_results.values()] == ["cancelled"] * 3
    assert journal.events[-1] == "end CANCELLED"
    assert local.get_run("stop-me").status is CANCELLED
    assert local.cancel("stop-me") is False


def test_ctrl_c_records_the_run_and_goes_through(local: LocalOrchestrator) -> None:
    journal = Journal()

    @step(outputs=["a"])
    def interrupted() -> None:
        raise KeyboardInterrupt

    pipeline = Pipeline("interrupted", hooks=[journal]).add_step(interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(on=local, run_id="ctrl-c")
    run = local.get_run("ctrl-c")
    assert (run.status, run.error) == (CANCELLED, "The run was interrupted.")
    assert local.step_runs("ctrl-c")[0].status is CANCELLED
    assert journal.events[-1] == "end CANCELLED"


def test_a_run_inside_a_step(local: LocalOrchestrator) -> None:
    inner = chain(3)

    @step(outputs=["result"])
    def outer() -> int:
        print("before")
        value = inner.run(on=local, run_id="inner")["v2"]
        print("after")
        return int(value)

    result = Pipeline("outer").add_step(outer).run(on=local)
    assert result["result"] == 2
    assert [line.message for line in local.logs(result.run_id)] == ["before", "after"]


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'threads' or 'processes'"):
        LocalOrchestrator(workers="fibers")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="whole number from 1"):
        LocalOrchestrator(max_workers=0)


def test_a_store_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    local = LocalOrchestrator(store=tmp_path / "file" / "runs.db")
    with pytest.raises(ConfigurationError, match="FLOWYML_HOME"):
        chain(1).run(on=local)
    health = local.health()
    assert not health.reachable
    assert "cannot be opened" in health.detail


@pytest.mark.parametrize("offset", [0, 4096])
def test_a_damaged_store_is_named(local: LocalOrchestrator, offset: int) -> None:
    chain(1).run(on=local)
    path = local.store.path
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * (path.stat().st_size - offset))
    for ask in (local.runs, lambda: chain(1).run(on=local)):
        with pytest.raises(ConfigurationError, match=f"{re.escape(str(path))}, is damaged.*Move it away"):
            ask()
    assert "is damaged" in local.health().detail


def test_a_store_of_a_newer_flowyml(local: LocalOrchestrator) -> None:
    with local.store.session() as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer FlowyML"):
        local.runs()
