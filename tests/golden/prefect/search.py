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

BUNDLE = Path(__file__).resolve().with_name("search-ef649151.pyz")
DIGEST = "ef6491519350b79da40251c6f1fd39044a87c9894c08f6cc2cce46330f530cfd"
if sha256(BUNDLE.read_bytes()).hexdigest() != DIGEST:  # a worker fetches it from where others may write
    raise ImportError(f"{BUNDLE} is not the code of this flow: it was replaced or cut short. Run it again.")
run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)  # the imports below come from it

from flowyml_prefect.walker import StepTask, run_all, run_step  # noqa: E402
from flowyml_prefect.worker import GRACE, FlowPipeline, Values, exact_parameters, retry_on  # noqa: E402

PIPELINE = FlowPipeline("search", BUNDLE)


@task(name="train", task_run_name="{task}", retries=1, retry_delay_seconds=[1], retry_condition_fn=retry_on(None))
def train(task: StepTask) -> Values | State[Any]:
    return run_step(task)


@task(name="best", task_run_name="{task}")
def best(task: StepTask) -> Values | State[Any]:
    return run_step(task)


@task(name="publish", task_run_name="{task}")
def publish(task: StepTask) -> Values | State[Any]:
    return run_step(task)


@task(name="hold", task_run_name="{task}")
def hold(task: StepTask) -> Values | State[Any]:
    return run_step(task)


@task(name="tell", task_run_name="{task}", timeout_seconds=60 + GRACE)
def tell(task: StepTask) -> Values | State[Any]:
    return run_step(task)


@task(name="tidy.up", task_run_name="{task}")
def tidy_up(task: StepTask) -> Values | State[Any]:
    return run_step(task)


@flow(name="search", validate_parameters=False)
@exact_parameters
def search(rates: list[Any]) -> State[Any]:
    with PIPELINE.run_steps(rates=rates):
        # for each rate of rates, 4 at a time, and go on after failures:
        #     train(rate=rate)
        # best(scores=train)
        # if score > 0.9:
        #     publish(rate=best.rate)
        # else:
        #     hold()
        # tell(text=either(publish, hold)) if all_done
        # however all of that ends:
        #     pipeline tidy:
        #         tidy.up()
        return run_all(
            {"train": train, "best": best, "publish": publish, "hold": hold, "tell": tell, "tidy.up": tidy_up},
            "search-outputs",
        )


if __name__ == "__main__":
    search(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
