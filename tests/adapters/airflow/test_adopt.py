"""`flowyml airflow adopt` on the real Airflow 3 and 2.11."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowyml.cli import main
from tests.adapters.airflow.operating import orchestrator_of, wait_for_dag
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytest.importorskip("libcst")

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAGS = """
from datetime import datetime
try:
    from airflow.sdk import DAG, BaseOperator
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:
    from airflow import DAG
    from airflow.models import BaseOperator
    from airflow.operators.bash import BashOperator

class AskerOperator(BaseOperator):
    def execute(self, context):
        return 1

with DAG("adopt_bash", schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False,
         default_args={"owner": "ada"}, tags=["adopt"]):
    BashOperator(task_id="good", bash_command="true")

with DAG("adopt_own", schedule=None, start_date=datetime(2026, 1, 1), is_paused_upon_creation=False):
    AskerOperator(task_id="ask") >> BashOperator(task_id="bad", bash_command="exit 3")
"""


def test_the_dags_of_an_airflow_make_a_plan(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (airflow.dags_folder / "adopt_these.py").write_text(DAGS)
    wait_for_dag(airflow, "adopt_own")
    orchestrator = orchestrator_of(airflow)
    run = orchestrator.trigger("adopt_own", "adopt-1")
    wait_until(lambda: run.refresh().status.is_terminal)

    for name, value in airflow.login.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "adopt_these.py").write_text(DAGS)
    assert main(["airflow", "adopt", "--dags", str(folder), "-o", str(tmp_path / "plan.html"), "--json"]) == 0
    found = {one["dag_id"]: one for one in json.loads(capsys.readouterr().out)}

    plain, own = found["adopt_bash"], found["adopt_own"]
    assert (plain["outlook"], plain["schedule"], plain["owners"]) == ("any_engine", "0 0 * * *", ["ada"])
    assert (plain["tags"], plain["tasks"], plain["runs"], plain["paused"]) == (["adopt"], 1, {}, True)
    assert (own["outlook"], own["schedule"], own["tasks"]) == ("needs_a_hand", None, 2)
    assert own["reasons"] == [
        "task ask: its class AskerOperator is in the DAG file: move it into a module that Airflow can import"
    ]
    assert own["runs"] == {"FAILED": 1}
    assert own["last_run"]
    assert own["file"].endswith("adopt_these.py")
    assert "adopt_own" in (tmp_path / "plan.html").read_text()

    assert main(["airflow", "adopt"]) == 0
    assert "adopt_bash" in capsys.readouterr().out
