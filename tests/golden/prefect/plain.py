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

BUNDLE = Path(__file__).resolve().with_name("plain-ef649151.pyz")
DIGEST = "ef6491519350b79da40251c6f1fd39044a87c9894c08f6cc2cce46330f530cfd"
if sha256(BUNDLE.read_bytes()).hexdigest() != DIGEST:  # a worker fetches it from where others may write
    raise ImportError(f"{BUNDLE} is not the code of this flow: it was replaced or cut short. Run it again.")
run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)  # the imports below come from it

from flowyml_prefect.worker import FlowPipeline, Values, exact_parameters, finish_run, run_step  # noqa: E402

PIPELINE = FlowPipeline("plain", BUNDLE)


@task(name="load", task_run_name="load")
def load(rows: int) -> Values | State[Any]:
    return run_step("load", {"rows": rows})


@task(name="notify", task_run_name="notify")
def notify() -> Values | State[Any]:
    return run_step("notify", {})


@flow(name="plain", validate_parameters=False)
@exact_parameters
def plain(rows: int = 100) -> State[Any]:
    with PIPELINE.run_steps(rows=rows):
        load_future = load.submit(rows)
        notify_future = notify.submit(wait_for=[load_future])
        return finish_run(
            {"load": load_future, "notify": notify_future},
            {"dataset": (load_future, "dataset")},
            "plain-outputs",
        )


if __name__ == "__main__":
    plain(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
