"""Run again what failed of a run: the record of local runs. What every engine does: ``RetryConformance``."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from flowyml import Pipeline, cleanup, either, for_each, otherwise, pipeline, step, when
from flowyml.core.errors import RetryRefusedError
from flowyml.core.process_identity import ProcessIdentity, is_alive
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import detached
from tests.unit.local_runs import CANCELLED, COMPLETED, FAILED, WORKERS, beating, process_id
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


def traced(folder: Path, name: str) -> int:
    """How often a step of that name has begun, this time included; its file ``fail`` says how often it fails."""
    with (folder / name).open("ab", buffering=0) as file:
        file.write(b"x")
        times = file.tell()  # its own turn, also where items append at the same time
    if times <= int((folder / f"{name}.fail").read_text() if (folder / f"{name}.fail").exists() else "0"):
        raise ValueError(f"{name} fails")
    return times


def times(folder: Path, *names: str) -> list[int]:
    return [len((folder / name).read_text()) if (folder / name).exists() else 0 for name in names]


def fail(folder: Path, name: str, times: int = 1) -> None:
    (folder / f"{name}.fail").write_text(str(times))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@step
def load(folder: str) -> list[int]:
    traced(Path(folder), "load")
    return [3, 1, 2]


@step
def train(folder: str, rows: list[int]) -> list[int]:
    rows.sort()
    traced(Path(folder), "train")
    return rows


@step
def report(folder: str, rows: list[int], trained: list[int]) -> str:
    traced(Path(folder), "report")
    return f"{rows} {trained}"


@step
def beside(folder: str) -> int:
    return traced(Path(folder), "beside")


@pipeline
def chain(folder: str) -> Any:
    rows = load(folder)
    return {"report": report(folder, rows, train(folder, rows)), "beside": beside(folder)}


@step
def items(folder: str) -> list[dict[str, int]]:
    traced(Path(folder), "items")
    return [{"n": number} for number in range(4)]


@step
def first(folder: str, item: dict[str, int]) -> dict[str, int]:
    number = item.pop("n")  # an item is its step's own
    traced(Path(folder), f"first{number}")
    return {"n": number * 10}


@step
def second(folder: str, item: dict[str, int]) -> int:
    number = item.pop("n")
    traced(Path(folder), f"second{number}")
    return number + 1


@step
def total(folder: str, values: list[int]) -> int:
    traced(Path(folder), "total")
    return sum(values)


@pipeline
def looped(folder: str) -> Any:
    with for_each(items(folder), max_parallel=2) as item:
        done = second(folder, first(folder, item))
    return {"total": total(folder, done), "values": done}


@step
def note(folder: str, name: str, value: Any = None) -> Any:
    """Writes down that it began, and gives a value."""
    traced(Path(folder), name)
    return value


def noted(folder: str, name: str, value: Any = None, **options: Any) -> Any:
    return note.options(name=name, **options)(folder, name, value)


@pipeline
def branched(folder: str) -> Any:
    good = noted(folder, "is_good", True)
    with when(good):
        published = noted(folder, "publish", "published")
    with otherwise():
        held = noted(folder, "hold", "held")
    said = noted(folder, "announce", either(published, held))
    noted(folder, "alert", said, run_if="one_failed")
    noted(folder, "never", said, run_if="all_failed", after=["is_good"])
    with cleanup():
        noted(folder, "tidy")
    return said


def statuses(handle: SubmissionResult) -> dict[str, str]:
    return {each.name: each.raw_status for each in handle.step_runs()}


def test_branches_handlers_and_what_cleans_up(notes: Path) -> None:
    fail(notes, "announce")
    handle = LocalOrchestrator().attach(branched.run({"folder": str(notes)}).run_id)
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert times(notes, "is_good", "publish", "hold", "announce", "alert", "never") == [1, 1, 0, 2, 1, 0]
    assert times(notes, "tidy") == [2]
    assert handle.outputs == {"announce": "published"}
    assert statuses(handle)["hold"] == statuses(handle)["never"] == "skipped"


@pipeline
def gated(folder: str) -> None:
    """Nothing but conditions takes what these steps give."""

    def is_good(name: str) -> Any:
        return note.options(name=name)(folder, "is_good", True)

    with when(is_good("is_good")):
        noted(folder, "publish")
    with when(is_good("inner loop")), when(is_good("inner")):
        note.options(name="each").partial(folder=folder, name="announce").map(value=["a", "b"])
    with for_each([{"n": 1}, {"n": 2}]) as item, when(is_good("of each")):
        first(folder, item)


def test_a_condition_goes_by_what_it_went_by(notes: Path) -> None:
    for name in ("publish", "announce", "first1"):
        fail(notes, name)
    handle = LocalOrchestrator().attach(gated.run({"folder": str(notes)}).run_id)
    assert handle.status is FAILED
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert times(notes, "is_good", "publish", "announce", "first1", "first2") == [5, 2, 3, 2, 1]


def test_named_steps(notes: Path) -> None:
    """One that failed alone, an item, and one that completed with all that comes after it."""
    fail(notes, "train")
    fail(notes, "beside")
    handle = LocalOrchestrator().attach(chain.run({"folder": str(notes)}).run_id)
    handle.retry(["beside"]).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is FAILED
    assert times(notes, "load", "train", "report", "beside") == [1, 1, 0, 2]
    assert statuses(handle) == {
        "load": "completed", "train": "failed", "report": "upstream_failed", "beside": "completed",
    }  # fmt: skip
    assert "train fails" in str(handle.error)
    handle.retry(["load"]).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is COMPLETED, handle.error
    assert times(notes, "load", "train", "report", "beside") == [2, 2, 1, 2]


def test_a_named_item(notes: Path) -> None:
    fail(notes, "first1", 2)
    fail(notes, "first3")
    handle = LocalOrchestrator().attach(looped.run({"folder": str(notes)}).run_id)
    handle.retry("first[3]").wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is FAILED
    assert times(notes, "first1", "first3", "second30", "total") == [1, 2, 1, 0]
    handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1)
    assert times(notes, "first1", "first3", "second30", "total") == [2, 2, 1, 0]
    assert handle.retry("first").wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert times(notes, "first1", "first3", "second10", "total") == [3, 2, 1, 1]


@step
def model(folder: str) -> object:
    traced(Path(folder), "model")

    class Model:
        rows = 7

    return Model()


@step
def use(folder: str, model: object) -> int:
    traced(Path(folder), "use")
    return model.rows  # type: ignore[attr-defined, no-any-return]  # the test's own class


@pipeline
def modelled(folder: str) -> Any:
    return use(folder, model(folder))


def test_what_cannot_be_known_is_made_anew(notes: Path) -> None:
    """A step in a thread had the object itself, and may have changed it before it failed."""
    fail(notes, "use")
    handle = LocalOrchestrator().attach(modelled.run({"folder": str(notes)}).run_id)
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert times(notes, "model", "use") == [2, 2]
    assert handle.outputs == {"use": 7}


@step
def killed(folder: str, rows: list[int]) -> int:
    if traced(Path(folder), "killed") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(rows)


@pipeline
def crashing(folder: str) -> Any:
    return killed(folder, load(folder))


def test_a_run_whose_process_died(notes: Path) -> None:
    handle = crashing.submit({"folder": str(notes)}).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.raw_status == "crashed"
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert (times(notes, "load", "killed"), handle.outputs) == ([2, 2], {"killed": 3})


@step(outputs=["rows", "label"])
def prepare(folder: str) -> tuple[list[int], tuple[str, int]]:
    traced(Path(folder), "prepare")
    return [3, 1, 2], ("a tuple is pickled", 1)


@step
def fit(folder: str, rows: list[int]) -> dict[str, int]:
    traced(Path(folder), "fit")
    rows.clear()
    return {"rows": 3}


@step
def linger(folder: str, fitted: dict[str, int], label: tuple[str, int]) -> str:
    is_first = traced(Path(folder), "linger") == 1
    (Path(folder) / "pid").write_text(f"{os.getpid()}\n")  # it may be killed from here on
    if is_first:
        fitted.clear()
        time.sleep(600)
    return f"{fitted} {label}"


@pipeline
def lingering(folder: str) -> Any:
    rows, label = prepare(folder)
    return linger(folder, fit(folder, rows), label)


@pytest.mark.parametrize("workers", WORKERS)
def test_what_completed_stays_when_the_process_is_killed(notes: Path, workers: Literal["threads", "processes"]) -> None:
    local = LocalOrchestrator(workers=workers)
    handle = lingering.submit({"folder": str(notes)}, on=local)
    process_id(notes)
    wait_until(lambda: handle.step_runs()[1].status is COMPLETED)
    os.kill(local.store.get(handle.run_id).pid, signal.SIGKILL)
    assert handle.wait_for_completion(timeout=2400, poll_interval=0.1).raw_status == "crashed"
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert times(notes, "prepare", "fit", "linger") == [1, 1, 2]
    assert handle.outputs == {"linger": "{'rows': 3} ('a tuple is pickled', 1)"}
    row = local.store.get(handle.run_id)
    assert local.store.kept(row.number) == []
    wait_until(lambda: not local.store.folder_of(handle.run_id).exists())  # its process clears it after the end


class Lingering(LocalOrchestrator):
    """Its process stays for a while when its run has ended, and clears the run's folder then."""

    def execute(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute(*args, **options)
        finally:
            time.sleep(1)


def test_the_process_of_the_first_try_is_waited_for(notes: Path) -> None:
    local = Lingering()
    fail(notes, "load")
    handle = chain.submit({"folder": str(notes)}, on=local).wait_for_completion(timeout=2400, poll_interval=0.05)
    row = local.store.get(handle.run_id)
    handle.retry()
    assert not is_alive(ProcessIdentity(row.host, row.pid, row.born))
    assert handle.wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error


def test_a_cancelled_run_goes_on(notes: Path, tmp_path: Path) -> None:
    handle = beating(tmp_path).submit()
    process_id(tmp_path)
    handle.cancel()
    assert handle.wait_for_completion(timeout=2400, poll_interval=0.1).status is CANCELLED
    (tmp_path / "enough").touch()
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error


def test_code_that_cannot_travel_is_said_to_be_the_reason(notes: Path) -> None:
    lock = threading.Lock()

    @step
    def locked() -> None:
        with lock:
            raise ValueError("no")

    run = Pipeline("locked").add_step(locked).run()
    with pytest.raises(RetryRefusedError, match=r"code of run .* is not there.*lock"):
        LocalOrchestrator().attach(run.run_id).retry()


def test_two_at_once_start_one(notes: Path) -> None:
    fail(notes, "load")
    local = LocalOrchestrator()
    row = local.store.get(chain.run({"folder": str(notes)}, on=local).run_id)
    detached.start_again(local.store, row, None)
    with pytest.raises(RetryRefusedError, match="Another process has just retried"):
        detached.start_again(local.store, row, None)
    handle = local.attach(row.run_id).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is COMPLETED, handle.error
    assert (local.store.job(row.number), local.store.kept(row.number)) == (None, [])


def test_the_step_s_own_retries_begin_anew(notes: Path) -> None:
    folder = str(notes)

    @step(retry=2)
    def flaky() -> None:
        traced(Path(folder), "flaky")

    fail(notes, "flaky", 4)
    handle = LocalOrchestrator().attach(Pipeline("flaky").add_step(flaky).run().run_id)
    assert handle.retry().wait_for_completion(timeout=2400, poll_interval=0.1).status is COMPLETED, handle.error
    assert [each.attempt for each in handle.step_runs()] == [5]
    assert "(attempt 4 of 6); trying again" in "\n".join(line.message for line in handle.logs())


def test_what_an_attempt_changes_is_as_it_was_for_the_next(notes: Path) -> None:
    """Also where a run is tried again: of all attempts only the last one gets the object itself."""
    folder = str(notes)

    @step(name="load")
    def loads() -> list[int]:
        return [1, 2, 3]

    @step(retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0))
    def change(load: list[int]) -> None:
        with (Path(folder) / "seen").open("a") as file:
            file.write(f"{load} ")
        load.pop()
        traced(Path(folder), "change")

    fail(notes, "change", 3)
    made = Pipeline("changes").add_step(loads).add_step(change)
    handle = LocalOrchestrator().attach(made.run().run_id)
    handle.retry(["load"]).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is COMPLETED, handle.error
    assert (notes / "seen").read_text() == "[1, 2, 3] " * 4


@step
def large(folder: str) -> bytes:
    traced(Path(folder), "large")
    return b"x" * 200_000


@pipeline
def with_a_large_output(folder: str) -> Any:
    return {"large": large(folder), "beside": beside(folder)}


def test_a_large_output_of_the_first_try_is_an_output_of_the_run(notes: Path) -> None:
    fail(notes, "beside")
    handle = with_a_large_output.submit({"folder": str(notes)})
    assert handle.wait_for_completion(poll_interval=0.1).status is FAILED
    assert handle.retry().wait_for_completion(poll_interval=0.1).status is COMPLETED, handle.error
    assert times(notes, "large", "beside") == [1, 2]
    assert len(handle.outputs["large"]) == 200_000
