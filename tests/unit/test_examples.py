"""Each example runs as its docstring says; Airflow's and Kubeflow's tests compile them, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.web import Reply, web

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "alert_webhook": "ALERT mean: ZeroDivisionError: division by zero",
    # tests/adapters/airflow has one
    "around_a_dag": "step 'load_warehouse': LookupError: No Airflow URL is set",
    "custom_orchestrator": "migrate-table: my turn, with {'rows': 5}\ntotal: 10",
    "daily_sales": "2026-01-31: 979.80 in all, shop 2 sold the most; 40 orders were rejected.",
    "metrics": '{"pipeline": "measured", "step": "add_up", "status": "COMPLETED", "seconds": ',
    "nightly_report": " visits",
    "orders_to_parquet": "3 items, 35.80 in all, written to warehouse/sales-2026-01-31.parquet",
    "quality_gate": (
        "published: 21.5 degrees\n800 of 1000 readings can be used\nheld back: only 80% can be used\n"
        "600 of 1000 readings can be used\nALERT only 60% of the readings can be used; at least 70% must be\n"
        "refused: 60% can be used\n"
    ),
    "sales_by_country": "2026-01-31: 3,780.62 EUR in 4 countries, most of it in US",
    "search_rates": "rate 0.0224 leaves an error of 0.0043, found in search 2",
    "train_classifier": "tumours that it has never seen.",
    "tune_on_gpu": "{'rate': 0.01, ",
}


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_as_a_script(example: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{example}.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "FLOWYML_HOME": str(tmp_path / "home")},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert SAID[example] in done.stdout


def test_the_webhook_gets_the_alerts(tmp_path: Path) -> None:
    with web(lambda _: Reply()) as hook:
        subprocess.run(
            [sys.executable, EXAMPLES / "alert_webhook.py"],
            env={**os.environ, "FLOWYML_HOME": str(tmp_path), "ALERT_WEBHOOK": f"{hook.url}/hook"},
            timeout=2400, check=True,
        )  # fmt: skip
    texts = [json.loads(request.body)["text"] for request in hook.requests]
    assert texts[0] == "mean: ZeroDivisionError: division by zero"
    assert " ended FAILED after " in texts[1]
