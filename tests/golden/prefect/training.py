"""A FlowyML pipeline as a Prefect flow.

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. It can be deployed like any
flow; ``python flow.py`` runs it, ``python flow.py '{"rows": 5}'`` with these parameters. The code of the steps is in
the bundle beside it. So a worker needs this folder, Prefect, and what the steps import, but no FlowyML.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from runpy import run_path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State

BUNDLE = Path(__file__).resolve().with_name("training-ef649151.pyz")
DIGEST = "ef6491519350b79da40251c6f1fd39044a87c9894c08f6cc2cce46330f530cfd"
if sha256(BUNDLE.read_bytes()).hexdigest() != DIGEST:  # a worker fetches it from where others may write
    raise ImportError(f"{BUNDLE} is not the code of this flow: it was replaced or cut short. Run it again.")
run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)  # the imports below come from it

from flowyml_prefect.worker import GRACE, FlowPipeline, Values, exact_parameters, finish_run, retry_on, run_step  # noqa: E402

PIPELINE = FlowPipeline("training", BUNDLE)


@task(
    name="load",
    task_run_name="load",
    description="Reads the data.",
    retries=2,
    retry_delay_seconds=[10, 20.0],
    retry_condition_fn=retry_on(["OOM", "Timeout"]),
)
def load(rows: int, source: str) -> Values | State[Any]:
    return run_step("load", {"rows": rows, "source": source}, secrets={"password": "Warehouse/password"})


@task(name="train model", task_run_name="train model", tags=["heavy"], timeout_seconds=900 + GRACE)
def train_model(load: Values, rate: float | None, form: dict[str, Any]) -> Values | State[Any]:
    return run_step(
        "train model",
        {"dataset": load["dataset"], "labels": load["labels"], "rate": rate, "form": form},
        timeout=900,
    )


@task(name="notify", task_run_name="notify")
def notify() -> Values | State[Any]:
    return run_step("notify", {})


@flow(
    name="training",
    description="Trains a classifier.",
    timeout_seconds=3600,
    validate_parameters=False,
    on_running=[PIPELINE.on_start],
    on_completion=[PIPELINE.on_end],
    on_failure=[PIPELINE.on_end],
    on_cancellation=[PIPELINE.on_end],
    on_crashed=[PIPELINE.on_end],
)
@exact_parameters
def training(source: str, rows: int = 100, rate: float | None = None, form: dict[str, Any] = ...) -> State[Any]:
    if form is ...:
        form = {"$ref": "#/x"}
    with PIPELINE.run_steps(rows=rows, source=source, rate=rate, form=form):
        load_future = load.submit(rows, source)
        train_model_future = train_model.submit(load_future, rate, form)
        notify_future = notify.submit(wait_for=[train_model_future])
        return finish_run(
            {"load": load_future, "train model": train_model_future, "notify": notify_future},
            {"model": (train_model_future, "model")},
            "training-outputs",
        )


if __name__ == "__main__":
    training(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
