"""A task that an import leaves on Airflow runs there, and all others where the pipeline does."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("libcst")

from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators import LocalOrchestrator
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG = """
from datetime import datetime

from airflow.sdk import DAG, task
from airflow.providers.standard.operators.bash import BashOperator

with DAG("shop", start_date=datetime(2026, 1, 1), schedule="0 3 * * *", catchup=False, params={"region": "eu"}):
    @task
    def extract(ds=None):
        return len(ds)

    @task
    def report(rows):
        return f"{rows} rows"

    rows = extract()
    load = BashOperator(
        task_id="load",
        bash_command="echo \\"{{ ds }} $REGION {{ ti.xcom_pull(task_ids='extract') }}\\" > FOLDER/$REGION.txt",
        env={"REGION": "{{ params.region }}"},  # without append_env: it stays an operator
    )
    rows >> load >> report(rows)
"""


@pytest.fixture(scope="module")
def shop(airflow3: Airflow, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The module that is written of the DAG, whose task ``load`` stays; that is deployed."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "dags").mkdir()
    (folder / "dags" / "shop.py").write_text(DAG.replace("FOLDER", str(folder)))
    (folder / "stay.yaml").write_text("shop: [load]\n")
    command = [sys.executable, "-m", "flowyml", "import", "airflow", "dags", "-o", "moved", "--stay", "stay.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=2400)
    assert "shop_load  Airflow only" in done.stdout
    sys.path.insert(0, str(folder / "moved"))
    try:
        module = importlib.import_module("shop")
        assert orchestrator_of(airflow3).deploy_pipeline(module.shop_load).changed
        yield module
    finally:
        sys.path.remove(str(folder / "moved"))
        sys.modules.pop("shop", None)


def wrote(shop: ModuleType, region: str) -> str:
    """What the task that stays wrote."""
    return Path(str(shop.__file__)).parents[1].joinpath(f"{region}.txt").read_text()


def test_the_other_tasks_run_here(named: Airflow, shop: ModuleType, tmp_path: Path) -> None:
    """``test_external`` shows such a step on each engine."""
    parameters = {"ds": "2026-03-01", "region": "local"}
    handle = LocalOrchestrator(store=tmp_path / "runs.db").run_pipeline(shop.shop, parameters=parameters)
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED, handle.error
    assert handle.outputs["report"] == "10 rows"
    assert wrote(shop, "local") == "2026-03-01 local 10\n"


def test_the_step_needs_nothing_but_python(airflow3: Airflow, shop: ModuleType, tmp_path: Path) -> None:
    """No installed package can be seen, and nothing of this checkout: what it calls is in the bundle."""
    bundle = tmp_path / "shop.pyz"
    bundle.write_bytes(shop.shop.bundle().data)
    bare = {"PATH": os.defpath, "HOME": str(tmp_path), "FLOWYML_HOME": str(tmp_path), **airflow3.login}
    command = [sys.executable, "-I", "-S", bundle, "step", "load", "--inputs", '{"extract_value": 10}']
    command += ["--parameters", '{"ds": "2026-03-01", "region": "bare"}']
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=2400, check=False)
    assert done.returncode == 0, done.stderr
    assert "Airflow runs shop_load: " in done.stdout
    assert wrote(shop, "bare") == "2026-03-01 bare 10\n"
