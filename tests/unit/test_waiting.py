"""Waiting for a run, and what shows meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO

import pytest

from flowyml.core.errors import (
    EngineError,
    EngineUnreachableError,
    ServerTroubleError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.observability import MetricsCollector, set_metrics_collector
from flowyml.core.progress import show_progress, show_waiting
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.submission_result import SubmissionResult


class _Fading:
    """An engine that tells the end of a run and answers no more after it."""

    name = "fading"
    ended = False

    def get_run(self, job_id: str) -> Run:
        status = ExecutionStatus.COMPLETED if self.ended else ExecutionStatus.RUNNING
        self.ended = True
        return Run(job_id=job_id, run_id="r", pipeline="p", status=status, raw_status="")

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        raise EngineUnreachableError("gone")

    def outputs(self, job_id: str) -> Outputs:
        return Outputs()

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        return iter(())

    def cancel(self, job_id: str) -> bool:
        return False


class _Collector(MetricsCollector):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def step_finished(self, *arguments: object) -> None:
        self.seen.append("step")

    def run_finished(self, *arguments: object) -> None:
        self.seen.append("run")


class TestWaiting:
    def test_an_engine_that_goes_after_the_end_takes_nothing_away(self) -> None:
        handle = SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01)
        assert handle.status is ExecutionStatus.COMPLETED

    @pytest.mark.parametrize("trouble", [EngineUnreachableError, ServerTroubleError])
    def test_silence_and_a_server_in_trouble_end_no_wait(self, trouble: type[EngineError]) -> None:
        class Troubled(_Fading):
            looks = 0

            def get_run(self, job_id: str) -> Run:
                self.looks += 1
                if self.looks == 2:
                    raise trouble("the database is locked")
                return super().get_run(job_id)

        engine = Troubled()
        assert SubmissionResult(engine, "job").wait_for_completion(5, 0.01).status is ExecutionStatus.COMPLETED
        assert engine.looks > 2

    def test_with_a_collector_the_run_is_measured_all_the_same(self, caplog: pytest.LogCaptureFixture) -> None:
        collector = _Collector()
        set_metrics_collector(collector)
        try:
            SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01)
        finally:
            set_metrics_collector(None)
        assert collector.seen == ["run"]
        assert "The steps of run 'r' were not measured: gone" in caplog.text

    @pytest.mark.parametrize("progress", [None, True])
    def test_without_standard_error_nothing_is_shown(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], progress: bool | None
    ) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        assert SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01, progress=progress).status.is_terminal
        with show_progress("p", "r") as update:
            update(_Fading().get_run("job"), ())
        assert capsys.readouterr().out == ""


def test_a_handle_asks_again_after_the_end() -> None:
    """People clear, retry and mark runs in the engine itself."""
    handle = SubmissionResult(_Fading(), "job").wait_for_completion(5, 0.01)
    record = Run(
        job_id="j", run_id="r", pipeline="p", status=ExecutionStatus.FAILED, raw_status="failed", error="step 'a'"
    )
    records = iter([record, replace(record, status=ExecutionStatus.RUNNING, error=None)])
    handle.orchestrator.get_run = lambda job_id: next(records)  # type: ignore[method-assign]  # what it knows now
    assert handle.status is ExecutionStatus.FAILED
    assert handle.error is None
    gone = EngineUnreachableError("gone")
    handle.orchestrator.get_run = lambda job_id: (_ for _ in ()).throw(gone)  # type: ignore[method-assign]  # the same
    with pytest.raises(EngineUnreachableError):
        handle.status  # noqa: B018  # it asks


def test_what_is_waited_for_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FLOWYML_PROGRESS", "0")
    with show_waiting("waiting for [bold]Airflow") as show:
        show()
    assert caplog.messages == [], "only what takes a while is worth a line"
    monkeypatch.setattr("flowyml.core.progress._A_WHILE", -1)
    with show_waiting("waiting for [bold]Airflow") as show:
        show()
        show()
    assert caplog.messages == ["waiting for [bold]Airflow"]


def test_what_is_waited_for_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]  # as a test may
    monkeypatch.delenv("FLOWYML_PROGRESS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with show_waiting("waiting for [bold]Airflow") as show:
        show()
    assert "waiting for [bold]Airflow" in stream.getvalue()
