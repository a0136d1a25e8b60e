"""The log of a run, poll by poll, and what `flowyml run` shows of it where its lines come late."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml.core import following
from flowyml.core.errors import EngineUnreachableError, ServerTroubleError
from flowyml.core.runs import LogLine
from flowyml.orchestrators import log_following
from flowyml.orchestrators.log_following import Poll, log_lines
from tests.waiting import wait_until


def engine(polls: Iterable[tuple[str, bool | Exception]]) -> Iterator[Poll]:
    """What each poll gives: a line, and whether it is the last, or the error after it."""

    def poll(text: str, end: bool | Exception) -> Poll:
        yield LogLine(text, "", "INFO", None)
        if isinstance(end, Exception):
            raise end
        return end

    return (poll(*each) for each in polls)


SILENT = EngineUnreachableError("nothing answers")


def test_the_time_of_a_slow_reader_does_not_count_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(log_following.time, "monotonic", lambda: now[0])
    polls = engine([("a", SILENT), ("b", True)])
    seen = []
    for line in log_lines(polls.__next__, follow=True, pause=0):
        seen.append(line.message)
        now[0] += 301
    assert seen == ["a", "b"]


def test_it_ends_with_the_look_that_says_so() -> None:
    polls = engine([("a", False), ("b", True), ("c", True)])
    assert [line.message for line in log_lines(polls.__next__, follow=True, pause=0)] == ["a", "b"]


def test_following_outlasts_silence_and_loses_no_line() -> None:
    polls = engine([("a", SILENT), ("b", ServerTroubleError("500")), ("c", True)])
    assert [line.message for line in log_lines(polls.__next__, follow=True, pause=0)] == [*"abc"]


def test_silence_is_an_error_without_following_and_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnreachableError):
        list(log_lines(engine([("a", SILENT), ("b", True)]).__next__, follow=False, pause=0))
    monkeypatch.setattr(log_following, "_PATIENCE_SECONDS", -1)
    with pytest.raises(EngineUnreachableError):
        list(log_lines(engine([("a", SILENT), ("b", True)]).__next__, follow=True, pause=0))


@pytest.mark.parametrize("late", [True, False])
def test_lines_that_come_long_after_the_end_are_not_waited_for(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LAST_LINES_SECONDS", 0.2 if late else 240)  # however busy the machine is
    more = threading.Event()

    def lines(*, follow: bool) -> Iterator[LogLine]:
        yield LogLine("first")
        if late:
            more.wait(2400)
        yield LogLine("last")

    run: Any = SimpleNamespace(
        logs=lines, run_id="r", job_id="j", orchestrator=SimpleNamespace(target=None, name="prefect")
    )
    shown: list[str] = []
    said: list[str] = []
    with following.printing_logs(run, lambda line: shown.append(line.message), said.append):
        wait_until(lambda: shown)
    more.set()
    assert shown == (["first"] if late else ["first", "last"])
    assert said == (["The log is not complete yet. To see all of it: flowyml logs j --on prefect"] if late else [])
