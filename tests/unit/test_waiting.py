"""Waiting for a run, and what shows meanwhile: what steps print stands above the drawing, and progress bars once."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from flowyml.cli.output import Output
from flowyml.core.errors import (
    EngineError,
    EngineUnreachableError,
    ServerTroubleError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.observability import MetricsCollector, set_metrics_collector
from flowyml.core.progress import show_progress, show_waiting
from flowyml.core.progress_output import OutputAbove
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


def above(begun: str = "") -> tuple[OutputAbove, StringIO, StringIO]:
    shown, terminal = StringIO(), StringIO()
    return OutputAbove(Console(file=shown, width=40, color_system=None), terminal, begun), shown, terminal


def test_whole_lines_are_printed_and_the_rest_waits() -> None:
    stream, shown, _ = above()
    for text in ("one\ntw", "o", "\n[bold]three\n", "four"):
        stream.write(text)
    assert shown.getvalue() == "one\ntwo\n[bold]three\n"
    assert stream.tail == "four"
    stream.close()
    assert shown.getvalue().endswith("four\n")


def test_a_bar_is_printed_as_it_ended() -> None:
    stream, shown, _ = above()
    for percent in (0, 50, 100):
        stream.write(f"\r{percent}%|###")
        stream.flush()
        assert stream.tail == f"{percent}%|###"
    assert shown.getvalue() == ""
    stream.write("\n")
    stream.write("next\n")
    print("as on Windows", end="\r\n", file=stream)  # which writes twice
    print("more\r", file=stream)
    assert (shown.getvalue(), stream.tail) == ("100%|###\nnext\nas on Windows\nmore\n", "")


def test_richs_bars_are_printed_as_they_ended() -> None:
    stream, shown, _ = above()
    console = Console(file=stream, force_terminal=True, width=60)  # type: ignore[arg-type]  # what rich writes to
    with Progress(console=console, auto_refresh=False) as progress:
        tasks = [progress.add_task(name, total=4) for name in ("first", "second")]
        for _ in range(4):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
    stream.close()
    lines = shown.getvalue().splitlines()
    assert [line.split()[0] for line in lines if "100%" in line] == ["first", "second"]
    assert len(lines) <= 4
    assert not any(sign in shown.getvalue() for sign in ("\x1b", "\\x1b", "[2K"))


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[6n", "\x9b2J"])
def test_what_does_anything_else_is_shown(text: str) -> None:
    stream, shown, _ = above()
    stream.write(f"{text}\n")
    assert "\x1b" not in shown.getvalue()
    assert "\x9b" not in shown.getvalue()


def test_a_line_that_had_begun_becomes_part_of_the_drawing() -> None:
    stream, shown, terminal = above("\r10%\r20%")
    assert terminal.getvalue() == "\r\x1b[2K"
    stream.write("\r30%\nnext\n")
    assert (shown.getvalue(), stream.tail) == ("30%\nnext\n", "")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_of_a_log_is_written_above_the_picture_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who draws has standard output redirected meanwhile; a line past it would be erased with the next picture."""
    terminal, redirected = _Terminal(), _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with Output(shared=True) as out:
        monkeypatch.setattr(sys, "stdout", redirected)
        out.log_line("tick")
        monkeypatch.setattr(sys, "stdout", terminal)
        out.log_line("tock")
    assert ("tick" in redirected.getvalue(), "tick" in terminal.getvalue()) == (True, False)
    assert "tock" in terminal.getvalue()
