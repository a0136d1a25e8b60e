"""What the tests of operating a real Airflow share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flowyml import Pipeline, context, step
from flowyml.orchestrators.http import NotFoundError
from flowyml_airflow import AirflowOrchestrator
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

__all__ = [
    "ENVIRONMENT",
    "failed_group",
    "foreign_dag",
    "orchestrator_of",
    "other_code",
    "set_connection",
    "set_variable",
    "short",
    "slow",
    "wait_for_dag",
    "with_another_step",
]

ENVIRONMENT = dict(os.environ)  # of what is begun in a thread: other tests change it meanwhile


def orchestrator_of(airflow: Airflow, **options: Any) -> AirflowOrchestrator:
    """An orchestrator for it; ``options`` win."""
    given = {
        "auth": (airflow.username, airflow.password), "dags_folder": airflow.dags_folder,
        "deploy_timeout": 2400, **options,
    }  # fmt: skip
    return AirflowOrchestrator(airflow.url, **given)


def set_connection(airflow: Airflow, name: str, **fields: str) -> None:
    """A connection of Airflow's; what the last try of a test left goes before."""
    _replace(airflow, "connections", name, {"connection_id": name, **fields})


def set_variable(airflow: Airflow, key: str, value: str) -> None:
    """A variable of Airflow's."""
    _replace(airflow, "variables", key, {"key": key, "value": value})


def _replace(airflow: Airflow, kind: str, name: str, item: Mapping[str, str]) -> None:
    client = orchestrator_of(airflow).client
    with suppress(NotFoundError):
        client.transport.call("DELETE", f"{client.api}/{kind}/{quote(name, safe='')}")
    client.transport.call("POST", f"{client.api}/{kind}", json=item)


def short(name: str, answer: int = 1) -> Pipeline:
    """One quick step."""

    @step(outputs=["answer"])
    def work(number: int) -> int:
        print(f"the answer is {number}")
        return number

    return Pipeline(name, context=context(number=answer)).add_step(work)


def other_code(name: str) -> Pipeline:
    """The same pipeline, whose step does something else."""

    @step(outputs=["answer"])
    def work(number: int) -> int:
        return number + 1

    return Pipeline(name, context=context(number=1)).add_step(work)


def with_another_step(name: str) -> Pipeline:
    """The pipeline of ``short`` with one more step, which takes one more parameter."""

    @step(outputs=["answer"])
    def work(number: int) -> int:
        return number

    @step(outputs=["product"])
    def multiply(answer: int, factor: int) -> int:
        return answer * factor

    return Pipeline(name, context=context(number=1, factor=2)).add_step(work).add_step(multiply)


def failed_group(name: str, lines: list[str]) -> Pipeline:
    """The first step of an execution group prints lines, the second one fails, and none of the others runs."""

    @step(execution_group="model")
    def load(lines: list[str]) -> int:
        print(*lines, sep="\n")
        return 0

    @step(execution_group="model")
    def train(load: int) -> float:
        return 1 / load

    @step(execution_group="model")
    def evaluate(train: float) -> float:
        return train

    @step
    def publish(evaluate: float) -> float:
        return evaluate

    @step
    def announce(publish: float) -> None: ...

    made = Pipeline(name, context=context(lines=lines))
    for each in (load, train, evaluate, publish, announce):
        made.add_step(each)
    return made


def slow(name: str, folder: str, seconds: float = 20) -> Pipeline:
    """A step that leaves a mark for each execution, its pid, and takes its time, unless there is a file ``enough``."""

    @step(outputs=["executions"], retry=1)
    def work(folder: str, seconds: float) -> int:
        import os
        import time
        from pathlib import Path

        marks = Path(folder) / "marks"
        with marks.open("a") as file:
            print(os.getpid(), file=file)
        for number in range(int(seconds * 5)):
            if (Path(folder) / "enough").exists():
                break
            print(f"beat {number}", flush=True)
            time.sleep(0.2)
        return len(marks.read_text().splitlines())

    return Pipeline(name, context=context(folder=folder, seconds=seconds)).add_step(work)


FOREIGN = """
from datetime import datetime

try:
    from airflow.sdk import dag, task
except ImportError:
    from airflow.decorators import dag, task


@dag(dag_id="{dag_id}", schedule={schedule}, start_date=datetime(2026, 1, 1), catchup=False,
     is_paused_upon_creation={paused})
def legacy():
    @task
    def extract(**context):
        print("extracting by hand")
        return context["params"] and 3 or context["dag_run"].conf.get("rows", 3)

    @task
    def load(rows):
        if context_fails:
            raise ValueError("the legacy DAG is broken")
        return rows * 2

    load(extract())


context_fails = {fails}
legacy()
"""


def foreign_dag(
    airflow: Airflow, dag_id: str, *, fails: bool = False, schedule: str = "None", paused: bool = False
) -> Path:
    """A DAG that was written by hand, in place and parsed."""
    path = airflow.dags_folder / f"{dag_id}.py"
    fresh = path.with_suffix(".new")
    fresh.write_text(FOREIGN.format(dag_id=dag_id, schedule=schedule, fails=fails, paused=paused))
    fresh.replace(path)
    wait_for_dag(airflow, dag_id)
    return path


def wait_for_dag(airflow: Airflow, dag_id: str) -> None:
    """Until Airflow has parsed it."""
    deployer = orchestrator_of(airflow)._deployer
    wait_until(lambda: deployer.found(dag_id))
