"""`flowyml prune` on a real Airflow, with a run under way, a schedule, and results that steps share."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.pruning import Bounds, Prunable, prune
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.beside import runtime
from flowyml_airflow.names import dag_file
from tests.adapters.airflow.holding import held
from tests.adapters.airflow.operating import orchestrator_of, other_code, short
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

UNDER_WAY, SCHEDULED, LEFT = "prune under way", "prune scheduled", "prune left behind"
COMPLETED = ExecutionStatus.COMPLETED


class Ours:
    """What prune says of the pipelines of this test: Airflow is that of all tests."""

    def __init__(self, orchestrator: AirflowOrchestrator, older_than: float = 0) -> None:
        names = tuple(name.replace(" ", "-") for name in (UNDER_WAY, SCHEDULED, LEFT))
        found = orchestrator.prunable(Bounds(older_than=older_than))
        self.items = [item for item in found if item.kind in ("cache", "runtime") or item.name.startswith(names)]

    def kept(self, kind: str, name: str = "") -> list[str]:
        return sorted(item.kept for item in self._of(kind, name))

    def _of(self, kind: str, name: str) -> list[Prunable]:
        return [item for item in self.items if item.kind == kind and item.name.startswith(name.replace(" ", "-"))]

    def prune(self, kind: str) -> list[str]:
        """The kinds of what went."""
        done = list(prune(self._of(kind, "")))
        assert [each.problem for each in done if each.problem] == []
        return sorted(each.item.kind for each in done if each.freed)


def cached(run: SubmissionResult) -> str:
    """The run that the first step's result is from."""
    return next(each.cached_from for each in run.step_runs() if each.name == "hold")


def test_prune_keeps_what_runs_schedules_and_hits_need(
    airflow3: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = orchestrator_of(airflow3, artifacts=str(tmp_path / "store"))
    left = orchestrator.run_pipeline(short(LEFT), "left")
    scheduled = orchestrator.schedule_pipeline(short(SCHEDULED), Schedule(cron="0 3 1 1 *"))
    running = orchestrator.run_pipeline(held(tmp_path, more=1), "goes-on")
    wait_until((tmp_path / "begun").exists)
    assert left.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    orchestrator.deploy_pipeline(held(tmp_path, more=2))
    orchestrator.deploy_pipeline(other_code(LEFT))
    (airflow3.dags_folder / dag_file(LEFT)).unlink()

    old = airflow3.dags_folder / "flowyml_bundles" / f"flowyml-0.9.0-{'0' * 32}.pyz"
    old.write_bytes(b"of a FlowyML before")

    ours = Ours(orchestrator)
    assert ours.kept("runtime", old.name) == ["a run of a pipeline is in progress"]
    assert ours.kept("bundle", UNDER_WAY) == ["a run of its pipeline is in progress"]
    assert ours.kept("bundle", LEFT) == [""]
    assert ours.kept("runtime", runtime().name) == ["a DAG file names it"]
    assert ours.prune("bundle") == ["bundle"]
    (tmp_path / "go").touch()
    assert running.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, running.error
    by_hand = orchestrator.trigger(scheduled.schedule_id)
    assert by_hand.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 1}

    old.unlink()
    assert Ours(orchestrator).prune("bundle") == ["bundle"], "the code that the run began with"
    assert Ours(orchestrator, older_than=3600).prune("cache") == []
    hit = orchestrator.run_pipeline(held(tmp_path, more=2), "hit")
    assert hit.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"count": 4}
    assert cached(hit) == running.run_id
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "store"))
    here = held(tmp_path, more=3).run()
    assert (here["count"], here.step_results["hold"].cached_from) == (5, running.run_id), (
        "as in any run with this store"
    )
    assert Ours(orchestrator).prune("cache") == ["cache"]
    assert hit.outputs == {"count": 4}
    orchestrator.delete_schedule(scheduled.schedule_id)
