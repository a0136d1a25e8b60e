"""What a deployment says of runs that have not ended. No Airflow here; ``test_stalled`` shows it on real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from flowyml import Pipeline, step
from flowyml.core.following import command_line
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.deployed_dag import Deployed
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.folder import LocalFolder


@step
def load() -> int:
    return 1


@step
def train(load: int) -> int:
    return load


class Airflow:
    """A client of an Airflow whose DAG has a run that goes on."""

    command = staticmethod(command_line)

    def __init__(self, deployed: Pipeline) -> None:
        self.deployed = deployed

    def source(self, dag: Any) -> str:
        return compile_dag(self.deployed.bundle()).text

    def unfinished(self, dags: list[str]) -> list[dict[str, Any]]:
        return [{"dag_run_id": "r"}]


@pytest.mark.parametrize("name", ["train", "train again"])
def test_steps_that_a_run_loses_are_named(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = Pipeline("retrained").add_step(load).add_step(train)
    after = Pipeline("retrained").add_step(load).add_step(train.options(name=name, retry=1))
    client = cast("Any", Airflow(before))
    found = Deployed({"dag_id": "retrained", "tags": [{"name": "flowyml"}]}, client)
    AirflowDeployer(lambda: client, LocalFolder(tmp_path))._warn_runs(compile_dag(after.bundle()), found)
    assert "Run 'r' of 'retrained' has not ended" in caplog.text
    assert ("The new version lacks 'train': Airflow stops such a task even while it runs" in caplog.text) is (
        name != "train"
    )
