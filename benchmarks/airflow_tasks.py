"""How long a task takes on a real Airflow 3 that runs a step, beside a `@task` that does the same, in turns."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from benchmarks.measure import Row
from flowyml import Pipeline, step
from tests.engines.airflow import airflow3, wait_until

COUNT = 12
NATIVE = """
from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def native():
    @task
    def one():
        return 1

    one()


native()
"""


def rows() -> Iterator[Row]:
    """From the start to the end of the task, as Airflow tells them: the start of its process counts for neither."""
    from flowyml_airflow import AirflowOrchestrator

    with tempfile.TemporaryDirectory() as folder, airflow3(Path(folder)) as airflow:
        orchestrator = AirflowOrchestrator(
            airflow.url, auth=(airflow.username, airflow.password), dags_folder=airflow.dags_folder,
            deploy_timeout=120,
        )  # fmt: skip
        (airflow.dags_folder / "native.py").write_text(NATIVE)
        own = {"python": f"{airflow.python.parent}/../bin/python"}  # the same path, written in another way
        for name, options in (("step", {}), ("step_other", own)):
            orchestrator.deploy_pipeline(Pipeline(name, airflow=options).add_step(step(name="one")(lambda: 1)))
        taken: dict[str, list[float]] = {"native": [], "step": [], "step_other": []}
        for name in taken:
            wait_until(lambda name=name: _is_there(orchestrator, name), 60)
            orchestrator.client.pause(name, False)
        for number in range(COUNT + 1):
            for name, times in taken.items():
                orchestrator.client.trigger(name, f"run-{number}", {})
                handle = orchestrator.attach(f"{name}/run-{number}")
                assert handle.wait_for_completion(timeout=120, poll_interval=0.3).status.is_successful, handle.error
                task = orchestrator.client.task_instances(name, f"run-{number}")[0]
                began, ended = (datetime.fromisoformat(task[key]) for key in ("start_date", "end_date"))
                times.append((ended - began).total_seconds() * 1e3)
    base, step_, other = (statistics.median(times[1:]) for times in taken.values())
    yield Row("Airflow, a task that runs a step: p50", step_, "ms", "@task", base)
    yield Row("Airflow, a step in another interpreter: p50", other, "ms", "@task", base)


def _is_there(orchestrator: object, name: str) -> bool:
    from flowyml_airflow import AirflowOrchestrator

    assert isinstance(orchestrator, AirflowOrchestrator)
    return orchestrator._deployer.found(name) is not None
