"""A blocking run: in the caller's process, with values by reference."""

from __future__ import annotations

import gc
import re
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import ConfigurationError, StepError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.observability import ConsoleMetricsCollector, set_metrics_collector
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import engine
from tests.unit.local_runs import CANCELLED, COMPLETED, cancelling, chain

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
    @step(retry=1)
    def load() -> int:
        raise ConnectionError("no answer")

    @step(secrets={"password": "no/such"})
    def sign_in(password: str = "") -> int:
        return 1

    @step(timeout=240)
    def die() -> None:
        import os

        os._exit(3)

    result = Pipeline("failing").add_step(load).add_step(sign_in).add_step(die).run(on=local)
    assert result.step_results["die"].raw_status == "crashed"
    said = sorted(record.getMessage() for record in caplog.records)
    assert [text.partition("\n")[0].partition("set FLOWYML")[0] for text in said] == [
        "Step 'load' failed (attempt 1 of 2); trying again in 0 s: ConnectionError: no answer",
        "Step 'load' failed (attempt 2 of 2): Traceback (most recent call last):",
        "Step 'sign_in' failed: Secret 'no/such' is missing: ",
        "The process of step 'die' exited with code 3 without returning the step's result.",
    ]


class Last(PipelineHook):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        print("bye from a hook")
        self.seen.append(str(status))


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


def test_cancel_from_elsewhere_ends_steps_in_threads(local: LocalOrchestrator) -> None:
    """Even one that catches every exception, and one that runs in a helper's thread."""
    last = Last()

    ignored = [0]

    def stubborn() -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                ignored[0] += 1
                if ignored[0] > 2:
                    raise

    pipeline = Pipeline("endless", hooks=[last])
    for name in ("a", "b"):
        pipeline.add_step(step(name=name, outputs=[name])(stubborn))
    pipeline.add_step(step(name="c")(lambda a: a))
    canceller = cancelling(local, "stop-me", 2)
    result = pipeline.run(on=local, run_id="stop-me")
    canceller.join()
    assert result.status is CANCELLED
    assert [found.status for found in result.step_results.values()] == [CANCELLED] * 3
    assert [found.raw_status for found in result.step_results.values()] == ["cancelled"] * 3
    assert last.seen == ["CANCELLED"]
    assert local.get_run("stop-me").status is CANCELLED
    assert local.cancel("stop-me") is False
    assert ("", "bye from a hook") in [(line.step, line.message) for line in local.logs("stop-me")]


def test_ctrl_c_records_the_run_and_goes_through(local: LocalOrchestrator) -> None:
    last = Last()

    @step(outputs=["a"])
    def interrupted() -> None:
        raise KeyboardInterrupt

    pipeline = Pipeline("interrupted", hooks=[last]).add_step(interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(on=local, run_id="ctrl-c")
    run = local.get_run("ctrl-c")
    assert (run.status, run.error) == (CANCELLED, "The run was interrupted.")
    assert local.step_runs("ctrl-c")[0].status is CANCELLED
    assert last.seen == ["CANCELLED"]


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


@pytest.mark.parametrize(("version", "message"), [(99, "newer FlowyML"), (7, "before its first release.* Move it")])
def test_a_store_of_a_flowyml_that_is_too_new_or_too_old(local: LocalOrchestrator, version: int, message: str) -> None:
    with local.store.session() as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(ConfigurationError, match=message):
        local.runs()
