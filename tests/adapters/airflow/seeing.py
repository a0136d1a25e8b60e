"""Steps that use Airflow. Workers import this module: FlowyML only."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from flowyml import DATA_INTERVAL_START, LOGICAL_DATE, current_run, pipeline, step


@step(outputs=["seen"])
def ask(folder: str) -> dict[str, Any]:
    import logging
    import os

    try:
        from airflow.sdk import BaseHook, Connection, Variable, get_current_context
    except ImportError:  # Airflow 2
        from airflow.hooks.base import BaseHook
        from airflow.models import Connection, Variable
        from airflow.operators.python import get_current_context
    try:
        from airflow.providers.standard.hooks.filesystem import FSHook
    except ImportError:  # Airflow 2
        from airflow.hooks.filesystem import FSHook
    found = get_current_context()
    found["ti"].xcom_push("mine", [1, 2])
    Variable.set("flowyml_written", "by a step")
    connection = BaseHook.get_connection("flowyml_files")
    logging.getLogger("of.the.step").info("logged at info")
    os.chdir(folder)
    os.environ["FLOWYML_LEFT_BEHIND"] = "yes"
    return {
        "variable": Variable.get("flowyml_told", deserialize_json=True)["answer"],
        "written": Variable.get("flowyml_written"),
        "is a connection": isinstance(connection, Connection),
        "password": connection.password,
        "hook": FSHook("flowyml_files").get_path(),
        "task": found["ti"].task_id,
        "pulled": found["ti"].xcom_pull(task_ids=found["ti"].task_id, key="mine"),
        "run": found["run_id"],
    }


@step(outputs=["left"])
def leave(seen: dict[str, Any]) -> Any:
    try:
        from airflow.sdk.exceptions import AirflowSkipException
    except ImportError:  # Airflow 2
        from airflow.exceptions import AirflowSkipException
    raise AirflowSkipException("nothing to do today")


@step
def leave_last(folder: str) -> None:
    import time
    from pathlib import Path

    from airflow.exceptions import AirflowSkipException  # of Airflow 2

    (Path(folder) / "began").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.05)
    raise AirflowSkipException("nothing to do today")


@pipeline(name="steps leave last")
def leaving(folder: str) -> Any:
    return leave_last(folder)


@pipeline(name="steps see airflow")
def seeing(folder: str) -> Any:
    seen = ask(folder)
    return seen, leave(seen)


@step(outputs=["dates"])
def tell(day: str, since: datetime, on: date) -> list[str]:
    run = current_run()
    interval = [str(run.data_interval_start), str(run.data_interval_end)]
    return [day, since.isoformat(), on.isoformat(), run.logical_date.isoformat(), *interval]


@pipeline(name="steps know dates")
def dated(day: str = LOGICAL_DATE, since: datetime = DATA_INTERVAL_START, on: date = LOGICAL_DATE) -> Any:
    return tell(day, since, on)


@step(outputs=["word"])
def say(word: str) -> str:
    return word


@pipeline(name="steps catch up")
def caught_up(
    day: str = LOGICAL_DATE, since: datetime = DATA_INTERVAL_START, on: date = LOGICAL_DATE, word: str = ""
) -> Any:
    return tell(day, since, on), say(word)


@pipeline(name="steps by interval")
def by_interval(day: str = LOGICAL_DATE, since: datetime = DATA_INTERVAL_START, on: date = LOGICAL_DATE) -> Any:
    return tell(day, since, on)


@step(retry=3)
def count(since: str, item: int) -> int:
    return item


@pipeline(name="steps lack an interval")
def without_interval(since: str = DATA_INTERVAL_START) -> Any:
    return count.partial(since=since).map(item=[1, 2])


@pipeline(name="steps by form")
def by_form(day: str = LOGICAL_DATE, since: datetime = DATA_INTERVAL_START, on: date = LOGICAL_DATE) -> Any:
    return tell(day, since, on)
