"""What steps of a blocking run print and log: by step, in order, and still shown."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.capture import Sink

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


def test_prints_and_log_records_are_noted_by_step_and_still_shown(
    local: LocalOrchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("mine")

    @step(outputs=["a"])
    def talk() -> int:
        print("out", 1)
        print("err", file=sys.stderr)
        print("no line end", end="")
        print("12%\r13%\r100%", file=sys.stderr)
        log.warning("careful: %s", "hot")
        return 1

    @step
    def also_talk(a: int) -> None:
        sys.stdout.writelines(["two\n", "lines\n"])

    result = Pipeline("talkative").add_step(talk).add_step(also_talk).run(on=local)
    captured = capsys.readouterr()
    assert captured.out == "out 1\nno line endtwo\nlines\n"
    assert captured.err.startswith("err\n12%\r13%\r100%\n")
    lines = [(line.step, line.level, line.message) for line in local.logs(result.run_id)]
    assert lines == [
        ("talk", "INFO", "out 1"), ("talk", "INFO", "err"), ("talk", "INFO", "100%"),
        ("talk", "WARNING", "careful: hot"), ("talk", "INFO", "no line end"),
        ("also_talk", "INFO", "two"), ("also_talk", "INFO", "lines"),
    ]  # fmt: skip


def test_lines_of_steps_in_many_threads_stay_apart(local: LocalOrchestrator) -> None:
    pipeline = Pipeline("chorus")

    def sing(name: str) -> Any:
        def singing() -> None:
            for number in range(20):
                print(name, number)
                time.sleep(0.0005)

        return step(name=name)(singing)

    for number in range(6):
        pipeline.add_step(sing(f"voice {number}"))
    lines = list(local.logs(pipeline.run(on=local).run_id))
    for number in range(6):
        heard = [line.message for line in lines if line.step == f"voice {number}"]
        assert heard == [f"voice {number} {count}" for count in range(20)]


def test_a_line_of_a_thread_stays_whole_while_another_thread_prints() -> None:
    lines: list[str] = []
    sink = Sink(lambda level, line: lines.append(line))
    sink.feed("stdout", "one")
    other = threading.Thread(target=lambda: [sink.feed("stdout", text) for text in ("other", "\n", "begun")])
    other.start()
    other.join(240)
    sink.feed("stdout", "\n")
    sink.close()
    assert lines == ["other", "one", "begun"]


def test_hostile_text_is_recorded(local: LocalOrchestrator) -> None:
    @step(outputs=["text"])
    def say() -> str:
        print("nul \0 and ü and 🚀")
        return "\ud800 \0 '; DROP TABLE runs; --"

    result = Pipeline('it\'s "quoted"').add_step(say).run(on=local)
    assert [line.message for line in local.logs(result.run_id)] == ["nul \\x00 and ü and 🚀"]
    assert local.outputs(result.run_id) == result.outputs


def test_a_closed_standard_output(local: LocalOrchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    @step(outputs=["a"])
    def quiet() -> int:
        print("unread")
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        result = Pipeline("headless").add_step(quiet).run(on=local)
        assert sys.stdout is None
    assert result.success
    assert [line.message for line in local.logs(result.run_id)] == ["unread"]
    closed = io.StringIO()
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert Pipeline("headless").add_step(quiet).run(on=local).success
        assert sys.stdout is closed


def test_a_step_that_closes_its_streams_closes_none_of_the_process(
    local: LocalOrchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    @step(outputs=["a"])
    def close() -> int:
        sys.stdout.close()
        return 1

    @step
    def remove(a: int) -> None:
        print("still open")
        sys.stdout = None

    before = sys.stdout
    assert Pipeline("closing").add_step(close).add_step(remove).run(on=local).success
    assert sys.stdout is before
    assert not before.closed
    assert capfd.readouterr().out == "still open\n"


def test_a_stream_that_a_step_replaces_for_good_stays(local: LocalOrchestrator) -> None:
    before, mine = sys.stdout, io.StringIO()

    @step
    def replace() -> None:
        sys.stdout = mine

    try:
        Pipeline("replacing").add_step(replace).run(on=local)
        assert sys.stdout is mine
    finally:
        sys.stdout = before


def test_threads_may_print_while_runs_begin_and_end() -> None:
    """A stand-in for a stream must outlive its run. Source: python/cpython issue 130163."""
    program = """
import threading
from flowyml import Pipeline, step

@step
def quick() -> int:
    return 1

over = threading.Event()

def talk():
    while not over.is_set():
        print("x" * 200)

threads = [threading.Thread(target=talk) for _ in range(4)]
for thread in threads:
    thread.start()
for number in range(30):
    Pipeline("busy").add_step(quick).run(on="local")
over.set()
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


def test_a_stand_in_that_was_kept_shows_what_is_printed_in_a_later_run_once(
    local: LocalOrchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    @step
    def look() -> None:
        print("here")
        seen.append(sys.stdout)

    pipeline = Pipeline("looking").add_step(look)
    pipeline.run(on=local)
    with contextlib.redirect_stdout(seen[0]):
        pipeline.run(on=local)
        print("between")
    assert capsys.readouterr().out == "here\nhere\nbetween\n"
