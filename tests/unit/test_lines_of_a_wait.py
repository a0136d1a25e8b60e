"""What `flowyml run` shows of a run on an engine whose lines come late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml.core import following
from flowyml.core.runs import LogLine
from tests.waiting import wait_until


@pytest.mark.parametrize("late", [True, False])
def test_lines_that_come_long_after_the_end_are_not_waited_for(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LAST_LINES_SECONDS", 0.2 if late else 240)  # however busy the machine is
    more = threading.Event()

    def lines(*, follow: bool) -> Iterator[LogLine]:
        yield LogLine("first")
        if late:
            more.wait(240)
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
