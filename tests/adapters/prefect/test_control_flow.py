"""What people of Prefect see of loops, branches and clean-up: task runs, their names, states and lines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import either, otherwise, pipeline, step, when
from flowyml.core.execution_status import ExecutionStatus
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.step_runs import recorded_runs
from tests.adapters.prefect.conftest import Endings
from tests.adapters.prefect.samples import run_processes
from tests.waiting import wait_until

pytestmark = pytest.mark.prefect


@step
def rates(count: int) -> list[int]:
    return list(range(count))


@step(max_parallel=1)
def train(rate: int, folder: str) -> int:
    (Path(folder) / f"{rate}").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.05)
    return 10 * rate


@step
def best(scores: list[int]) -> int:
    return max(scores)


@step
def word(value: Any = None) -> str:
    return f"word {value}"


def task_runs(orchestrator: PrefectOrchestrator, run_id: str) -> dict[str, dict[str, Any]]:
    body = {"flow_runs": {"id": {"any_": [run_id]}}, "limit": 200}
    return {plain["name"]: plain for plain in orchestrator.client.query("/task_runs/filter", body)}


def test_task_runs_bear_the_names_of_items_and_lines_lead_to_them(
    orchestrator: PrefectOrchestrator, tmp_path: Path
) -> None:
    """Items that have not begun have no task run yet; the label of the flow run says how many there are."""

    @pipeline(name="prefect names")
    def made(folder: str) -> Any:
        top = best(train.partial(folder=folder).map(rate=rates(3)))
        with when(top > 100):
            large = word(top)
        with otherwise():
            small = word.options(name="small")(top)
        return either(large, small)

    handle = made.submit({"folder": str(tmp_path)}, on=orchestrator)
    items = ["train[0]", "train[1]", "train[2]"]
    wait_until((tmp_path / "0").exists)
    wait_until(lambda: [run.label for run in handle.step_runs()][1:4] == items)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "go").touch()
    assert handle.wait_for_completion(timeout=1200).outputs == {"either": "word 20"}, handle.error
    wait_until(lambda: {run.status for run in handle.step_runs()} == {ExecutionStatus.COMPLETED})
    runs = task_runs(orchestrator, handle.job_id)
    states = {name: (run["state_type"], run["state_name"]) for name, run in runs.items()}
    done = ("COMPLETED", "Completed")
    assert states == {
        "rates": done, **dict.fromkeys(items, done), "best": done, "word": ("COMPLETED", "Skipped"), "small": done,
    }  # fmt: skip
    assert recorded_runs(orchestrator.client.run(handle.job_id)) == len(runs) == 7
    ids = {run["id"]: name for name, run in runs.items()}
    lines = {
        name: {ids[each["id"]] for each in run["task_inputs"]["task"]}
        for name, run in runs.items()
        if run["task_inputs"].get("task")
    }
    assert lines == {
        **{item: {"rates"} for item in items}, "best": set(items), "word": {"best"}, "small": {"best"},
    }  # fmt: skip


def test_a_label_that_a_busy_server_does_not_take_keeps_no_flow_from_its_end(tmp_path: Path) -> None:
    labelling = "from flowyml_prefect.walker import label_soon; label_soon(str(UUID(int=1)), 'items', 3, within=0)"
    with socket.create_server(("127.0.0.1", 0)) as busy:  # takes connections, and never answers
        api = f"http://127.0.0.1:{busy.getsockname()[1]}/api"
        environment = {**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path)}
        command = [sys.executable, "-c", f"from uuid import UUID; {labelling}"]
        subprocess.run(command, env=environment, check=True, timeout=2400)


@pytest.mark.parametrize("ending", ["cancel", "timeout"])
def test_the_flow_ends_when_it_has_cleaned_up(cleaning_up: Endings, ending: str) -> None:
    """A step that sleeps before its next attempt is not waited for."""
    handle, folder = cleaning_up[ending]
    wanted = {"cancel": ExecutionStatus.CANCELLED, "timeout": ExecutionStatus.TIMEOUT}[ending]
    assert handle.wait_for_completion(timeout=1200).status is wanted
    wait_until((folder / "tidy").exists)
    tidied = {"sleep": ExecutionStatus.CANCELLED, "tidy": ExecutionStatus.COMPLETED}
    wait_until(lambda: tidied.items() <= handle.step_statuses().items())  # Prefect records them late
    wait_until(lambda: not run_processes(handle), every=1)
