"""Turns at the embedded Prefect: one process at a time, in line, and none waits for one that was stopped."""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from pathlib import Path

import pytest

from flowyml_prefect import server
from flowyml_prefect.server import one_writer, stop_embedded_server

pytestmark = pytest.mark.prefect


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect").mkdir()
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path))


def test_each_has_its_turn_alone() -> None:
    """Each of these opens the file anew, as a process of its own would."""
    inside: list[int] = []
    seen: list[int] = []

    def work() -> None:
        for _ in range(20):
            with one_writer():
                inside.append(1)
                seen.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 160


def test_the_next_in_line_is_not_passed_for_long() -> None:
    """By one that takes turn after turn: who asked now and then saw it free one time in hundreds."""
    asked, had, taken = threading.Event(), threading.Event(), 0

    def wait_once() -> None:
        asked.set()
        with one_writer():
            had.set()

    waiting = threading.Thread(target=wait_once)
    while not had.is_set():
        with one_writer():
            if not taken:
                waiting.start()
                asked.wait()
            time.sleep(0.02)
        taken += 1
    waiting.join()
    assert taken < 100


def test_a_turn_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LONGEST_TURN_SECONDS", 0.2)
    others: list[str] = []

    def work() -> None:
        with one_writer():
            others.append("worked")

    with one_writer():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert others == ["worked"]
    for thread in threading.enumerate():
        if thread.name == "flowyml-turn":
            thread.join()  # it had its turn in the end, and gave it back
    with one_writer():
        assert others == ["worked"]


def test_where_there_are_no_locks_each_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with one_writer(), one_writer():
        assert not stop_embedded_server()
