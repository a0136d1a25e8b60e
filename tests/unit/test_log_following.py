"""The log of a run, look by look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from flowyml.core.errors import EngineUnreachableError, ServerTroubleError
from flowyml.core.runs import LogLine
from flowyml.orchestrators import log_following
from flowyml.orchestrators.log_following import Look, log_lines


def engine(looks: Iterable[tuple[str, bool | Exception]]) -> Iterator[Look]:
    """What each look gives: a line, and whether it is the last, or the error after it."""

    def look(text: str, end: bool | Exception) -> Look:
        yield LogLine(text, "", "INFO", None)
        if isinstance(end, Exception):
            raise end
        return end

    return (look(*each) for each in looks)


SILENT = EngineUnreachableError("nothing answers")


def test_the_time_of_a_slow_reader_does_not_count_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(log_following.time, "monotonic", lambda: now[0])
    looks = engine([("a", SILENT), ("b", True)])
    seen = []
    for line in log_lines(looks.__next__, follow=True, pause=0):
        seen.append(line.message)
        now[0] += 301
    assert seen == ["a", "b"]


def test_it_ends_with_the_look_that_says_so() -> None:
    looks = engine([("a", False), ("b", True), ("c", True)])
    assert [line.message for line in log_lines(looks.__next__, follow=True, pause=0)] == ["a", "b"]


def test_following_outlasts_silence_and_loses_no_line() -> None:
    looks = engine([("a", SILENT), ("b", ServerTroubleError("500")), ("c", True)])
    assert [line.message for line in log_lines(looks.__next__, follow=True, pause=0)] == [*"abc"]


def test_silence_is_an_error_without_following_and_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnreachableError):
        list(log_lines(engine([("a", SILENT), ("b", True)]).__next__, follow=False, pause=0))
    monkeypatch.setattr(log_following, "_PATIENCE_SECONDS", -1)
    with pytest.raises(EngineUnreachableError):
        list(log_lines(engine([("a", SILENT), ("b", True)]).__next__, follow=True, pause=0))
