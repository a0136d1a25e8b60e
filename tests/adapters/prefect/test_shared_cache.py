"""Results that engines with one store have of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from tests.adapters.prefect.conftest import MakeOrchestrator

pytestmark = pytest.mark.prefect


def counted(folder: Path) -> Pipeline:
    """A cached step that writes down that it runs, and returns what is stored as an artifact."""

    @step(outputs=["rows"], cache=True)
    def load(folder: str) -> set[int]:
        with (Path(folder) / "trace").open("a") as file:
            file.write("load\n")
        return {1, 2}

    @step(outputs=["count"])
    def count(rows: set[int]) -> int:
        return len(rows)

    return Pipeline("share results", context={"folder": str(folder)}).add_step(load).add_step(count)


def test_what_a_local_run_computed_is_a_hit_on_prefect(
    make_prefect: MakeOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(store))
    first = counted(tmp_path).run()
    assert first["count"] == 2
    handle = make_prefect(artifacts=store).run_pipeline(counted(tmp_path), "elsewhere")
    assert handle.wait_for_completion(timeout=1200, poll_interval=0.5).status is ExecutionStatus.COMPLETED, handle.error
    assert handle.outputs == {"count": 2}
    assert [run.cached_from for run in handle.step_runs()] == [first.run_id, ""]
    assert (tmp_path / "trace").read_text() == "load\n"
