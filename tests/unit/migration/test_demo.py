"""The DAGs of `make demo-migration` are imported as its script does it, and run on this machine."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.commands import flowyml

pytest.importorskip("libcst")
pytest.importorskip("psutil")  # of the engines that the script starts

ROOT = Path(__file__).resolve().parents[3]
GIVES = {
    "feeds.py:feed_stock": {"validate": 3},
    "feeds.py:feed_prices": {"validate": 3},
    "order_totals.py": {"report": "3 orders, 40.75 EUR"},
    "warehouse_backup.py": {"dump": "1000", "prune": ["backup-01", "backup-02"]},
}


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the script defines."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return runpy.run_path(str(ROOT / "scripts/demo_migration.py"))


@pytest.mark.processes
def test_the_dags_become_pipelines_that_run(
    demo: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples/airflow_dags", tmp_path / "dags")
    demo["move"](demo["Desk"](tmp_path, dict(os.environ)))
    shown = capfd.readouterr().out
    assert "def order_totals() -> None:" in shown
    assert "opaque  task mail: it is EmailOperator, which runs on Airflow alone." in shown
    for pipeline, gives in GIVES.items():
        run = json.loads(flowyml("run", str(tmp_path / "pipelines" / pipeline), "--json").out)
        assert run["status"] == "COMPLETED"
        assert run["outputs"].items() >= gives.items()
