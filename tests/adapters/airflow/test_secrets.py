"""Secrets of steps from Airflow's connections and variables, on both Airflows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flowyml import Pipeline
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.secrets import Place, place_of
from tests.adapters.airflow.operating import orchestrator_of, set_connection, set_variable
from tests.adapters.airflow.signing_in import fails, lacks, reads
from tests.engines.airflow import Airflow, airflow_python
from tests.security.test_what_a_secret_shows import VALUE, holds


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("warehouse/password", Place("warehouse", "password")),
        ("warehouse/extra.key.of", Place("warehouse", "extra.key.of")),
        ("warehouse/extra.", Place("warehouse/extra.")),
        ("warehouse/pass", Place("warehouse/pass")),
        ("token", Place("token")),
        ("var:warehouse/password", Place("warehouse/password")),
        ("conn:warehouse.password", Place("warehouse", "password")),
        ("conn:ware.house.host", Place("ware.house", "host")),
        ("conn:warehouse.extra.key", Place("warehouse", "extra.key")),
        ("conn:warehouse", Place("warehouse", "uri")),
    ],
)
def test_what_a_name_means(reference: str, place: Place) -> None:
    assert place_of(reference) == place


WAYS = [("airflow3", "other"), ("airflow2", "")]  # Airflow 3 with its own interpreter runs the conformance suite
NAMES = {"renamed": "conn:flowyml_warehouse.extra.key"}


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.parametrize(("airflow", "python"), WAYS, indirect=["airflow"])
def test_values_reach_the_step_alone(airflow: Airflow, python: str, tmp_path: Path) -> None:
    """Also one whose interpreter is another, where nothing of Airflow is."""
    extra = json.dumps({"key": "key of the extra"})
    set_connection(airflow, "flowyml_warehouse", conn_type="generic", password=VALUE, extra=extra)
    set_variable(airflow, "flowyml/token", "token of the variable")
    (tmp_path / "python").symlink_to(shutil.which("python3.11") or airflow_python(2).resolve())
    options = {"airflow": {"python": str(tmp_path / "python")}} if python else {}
    orchestrator = orchestrator_of(airflow, secrets=NAMES)
    read = orchestrator.run_pipeline(Pipeline(f"secrets read {python}".strip(), **options).add_step(reads))
    failing = orchestrator.run_pipeline(
        Pipeline(f"secrets fail {python}".strip(), **options).add_step(fails).add_step(lacks)
    )
    assert read.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED, read.error
    assert read.outputs["reads"] == [len(VALUE), len("key of the extra"), len("token of the variable")]
    assert failing.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    lines = "\n".join(line.message for handle in (read, failing) for line in handle.logs())
    assert "signing in with ***, ***" in lines
    assert "logged: *** and ***" in lines
    assert "warned: *** and ***" in lines
    assert "ValueError: cannot sign in: app:***" in lines
    assert "Secret 'flowyml_nowhere/password' is missing: Airflow gave no field 'password' of connection" in lines
    assert not holds(lines)
    assert orchestrator.missing_secrets(["flowyml_warehouse/host", "flowyml_none/host", "flowyml/none"]).keys() == {
        "flowyml_none/host", "flowyml/none",
    }  # fmt: skip
