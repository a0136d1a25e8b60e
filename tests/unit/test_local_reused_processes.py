"""Items of a loop that share processes, where their step says so: what they share, and what happens to the process."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import current_run, pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators import LocalOrchestrator
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

ITEMS = list(range(12))
seen: list[int] = []


@step(outputs=["about"], local={"reuse_process": True})
def remember(n: int) -> dict[str, Any]:
    """What an item finds of those before it in its process."""
    found = {"pid": os.getpid(), "before": list(seen), "folder": Path.cwd().name, "last": os.environ.get("LAST")}
    seen.append(n)
    os.environ["LAST"] = str(n)
    os.chdir("/")
    print(f"item {n}")
    return found


def two_at_a_time() -> LocalOrchestrator:
    return LocalOrchestrator(workers="threads", max_workers=2)


def test_items_of_a_cached_step_find_nothing_of_one_another(own_home: Path) -> None:
    @step(cache=True, local={"reuse_process": True})
    def counted(n: int) -> int:
        seen.append(n)
        return len(seen)

    @pipeline(name="cached_items")
    def made() -> Any:
        return counted.map(n=ITEMS)

    processes = LocalOrchestrator(workers="processes", max_workers=2)
    assert made.run(on=processes)["counted"] == [1] * len(ITEMS)
    assert made.run(on=processes).step_results["counted"].is_cached


@pytest.mark.parametrize("fork", ["1", "0"])
def test_items_share_as_many_processes_as_run_at_a_time(fork: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)

    @pipeline(name="reused")
    def made() -> Any:
        return remember.map(n=ITEMS if fork == "1" else ITEMS[:4])

    orchestrator = two_at_a_time()
    run = made.run(on=orchestrator).raise_for_status()
    found = run["about"]
    by_process: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for n, about in enumerate(found):
        by_process.setdefault(about["pid"], []).append((n, about))
    assert 1 <= len(by_process) <= 2
    assert os.getpid() not in by_process
    for items in by_process.values():
        items.sort(key=lambda item: len(item[1]["before"]))
        numbers = [n for n, _ in items]
        assert [about["before"] for _, about in items] == [numbers[:count] for count in range(len(numbers))]
        assert [about["last"] for _, about in items] == [None, *map(str, numbers[:-1])]
        assert {about["folder"] for _, about in items[1:]} <= {""}
    logged = [(line.index, line.message) for line in orchestrator.logs(run.run_id) if line.step == "remember"]
    assert sorted(logged) == [((n,), f"item {n}") for n in range(len(found))]


def test_a_process_that_is_killed_or_crashes_is_replaced_and_only_its_item_fails() -> None:
    @step(outputs=["pid"], timeout=3, on_item_error="continue", local={"reuse_process": True})
    def work(n: int) -> int:
        if n == 1:
            os._exit(3)
        if n == 3:
            time.sleep(2400)
        return os.getpid()

    @pipeline(name="replaced")
    def made() -> Any:
        return work.map(n=[0, 1, 2, 3, 4])

    orchestrator = LocalOrchestrator(workers="threads", max_workers=1)
    run = made.run(on=orchestrator).raise_for_status()
    pids = dict(run["pid"])
    assert list(pids) == [0, 2, 4]
    assert len(set(pids.values())) == 3, "each item after such a one has a new process"
    statuses = {step.index[0]: (step.status, step.error or "") for step in orchestrator.step_runs(run.run_id)}
    assert [statuses[n][0] for n in (0, 2, 4)] == [ExecutionStatus.COMPLETED] * 3
    assert "exit" in statuses[1][1]
    assert statuses[3][0] is ExecutionStatus.TIMEOUT or "timeout of 3 s" in statuses[3][1]


def test_an_item_is_tried_again_in_a_process_that_works(tmp_path: Path) -> None:
    @step(outputs=["pid"], retry=1, local={"reuse_process": True})
    def work(n: int, folder: str) -> int:
        mark = Path(folder) / str(n)
        if n == 1 and not mark.exists():
            mark.touch()
            os._exit(3)
        return n

    @pipeline(name="again")
    def made(folder: str) -> Any:
        return work.partial(folder=folder).map(n=[0, 1, 2])

    assert made.run({"folder": str(tmp_path)}, on=two_at_a_time()).raise_for_status()["pid"] == [0, 1, 2]


def test_the_processes_end_with_the_run_as_those_of_steps_do(tmp_path: Path) -> None:
    @step(outputs=["pid"], local={"reuse_process": True})
    def work(n: int, folder: str) -> int:
        if current_run().index == (0,):
            atexit.register((Path(folder) / "cleaned").touch)
        return os.getpid()

    @pipeline(name="ends")
    def made(folder: str) -> Any:
        return work.partial(folder=folder).map(n=[0, 1, 2])

    pids = made.run({"folder": str(tmp_path)}, on=two_at_a_time()).raise_for_status()["pid"]
    assert (tmp_path / "cleaned").exists()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_secrets_are_masked_in_every_item(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FLOWYML_SECRET_SHOP_KEY=the-key-of-the-shop\n")

    @step(outputs=["length"], secrets={"key": "shop/key"}, local={"reuse_process": True})
    def work(n: int, key: str) -> int:
        print(f"{n}: {key}")
        return len(key)

    @step
    def look(length: list[int]) -> list[str]:
        return [name for name, value in os.environ.items() if value == "the-key-of-the-shop"]

    @pipeline(name="secretive")
    def made() -> Any:
        return look(work.map(n=[0, 1, 2, 3]))

    orchestrator = LocalOrchestrator(workers="threads", max_workers=1, dotenv=tmp_path / ".env")
    run = made.run(on=orchestrator).raise_for_status()
    assert run["look"] == []
    messages = [line.message for line in orchestrator.logs(run.run_id) if line.step == "work"]
    assert sorted(messages) == [f"{n}: ***" for n in range(4)]
