"""Clean-up, however a run ends."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import cleanup, pipeline, step
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import engine
from flowyml.runtime.nodes import End, Task
from flowyml.runtime.walk import Walk
from tests.unit.control_flow import CANCELLED, add, numbers, same


def test_clean_up_runs_after_an_interrupt(tmp_path: Path) -> None:
    """Of the caller, as by Ctrl-C."""
    mark = tmp_path / "mark"

    @step
    def interrupted(n: int) -> int:
        raise KeyboardInterrupt

    @step
    def tidy(value: list[int] | None = None, *, path: str) -> None:
        Path(path).write_text(f"tidied {value}")

    @pipeline(name="interrupted")
    def made(path: str = str(mark)) -> Any:
        value = interrupted.map(n=numbers(3))
        with cleanup():
            tidy(value, path=path)

    threads = LocalOrchestrator(store=tmp_path / "runs.db", max_workers=1)  # so that it is the calling thread
    with pytest.raises(KeyboardInterrupt):
        made.run(on=threads, run_id="stopped")
    assert threads.get_run("stopped").status is CANCELLED
    assert mark.read_text() == "tidied None"
    assert {run.label: run.raw_status for run in threads.step_runs("stopped")} == {
        "numbers": "completed",
        **{f"interrupted[{n}]": "cancelled" for n in range(3)},
        "tidy": "completed",
    }


def test_what_waits_for_its_next_attempt_does_not_run_during_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that stands still until the run is interrupted: the attempt is due from then on."""
    tries: list[int] = []
    now = [time.monotonic()]
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))

    @step(retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.1))
    def flaky() -> None:
        tries.append(1)
        raise ValueError("no")

    @step
    def interrupted() -> None:
        now[0] += 1
        raise KeyboardInterrupt

    @step
    def tidy(value: int = 0) -> int:
        return value

    @pipeline(name="waits")
    def made() -> Any:
        flaky()
        interrupted()
        with cleanup():
            tidy.options(name="last")(tidy.options(name="next")(tidy(1)))

    local = LocalOrchestrator(store=tmp_path / "runs.db", max_workers=1)  # it takes what waits between two of them
    with pytest.raises(KeyboardInterrupt):
        made.run(on=local, run_id="stopped")
    assert tries == [1]
    assert {run.label: run.raw_status for run in local.step_runs("stopped")} == {
        "flaky": "cancelled", "interrupted": "cancelled", "tidy": "completed", "next": "completed",
        "last": "completed",
    }  # fmt: skip


def test_what_completes_while_a_run_stops_is_there_for_the_clean_up() -> None:
    @pipeline(name="stopping")
    def made() -> Any:
        a, b = add(1), add(2)
        with cleanup():
            same(a)
            same.options(name="other")(b)

    walk = Walk(made.compile(), {}, Task)
    first, second = walk.ready.popleft(), walk.ready.popleft()
    walk.halt()
    first.values = {"add": 1}
    walk.end(first, End.OK)
    walk.stop()
    assert second.end is End.FAILED
    assert walk.begin_finale()
    given = {node.label: [key for _, _, key in node.given()] for node in walk.ready}
    assert given == {"same": ["add"], "other": []}
