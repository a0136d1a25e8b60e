"""Runs in Airflow's environment: what its DagBag finds in folders of DAG files, as JSON, by file and DAG.

Of a task, it prints what differs from Airflow's default.
"""

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import airflow  # noqa: E402

if airflow.__version__.startswith("2."):
    from airflow.models.dagbag import DagBag
    from airflow.utils.db import initdb

    initdb(load_connections=False)  # which sub-DAGs and aliases ask when they are loaded
else:
    from airflow.dag_processing.dagbag import DagBag

DEFAULTS = {
    "upstream": [], "trigger_rule": "all_success", "retries": 0, "retry_delay": 300.0, "execution_timeout": None,
    "mapped": False, "group": None,
}  # fmt: skip


def schedule(dag):
    table = dag.timetable
    name = type(table).__name__
    if name in ("NullTimetable", "OnceTimetable", "ContinuousTimetable"):
        return {"Null": "None", "Once": "@once", "Continuous": "@continuous"}[name.removesuffix("Timetable")]
    for cron in ("expression", "_expression"):
        if hasattr(table, cron) and name.startswith("Cron"):
            return f"cron:{getattr(table, cron)}"
    for delta in ("delta", "_delta"):
        if hasattr(table, delta) and name.startswith("Delta"):
            return f"delta:{getattr(table, delta).total_seconds():g}"
    condition = getattr(table, "asset_condition", getattr(table, "dataset_condition", None))
    if condition:
        return "dataset:" + ",".join(sorted(names(condition)))
    return f"timetable:{name}"


def names(condition):
    if hasattr(condition, "objects"):
        return {one for part in condition.objects for one in names(part)}
    return {getattr(condition, "name", None) or condition.uri}


def seconds(value):
    return value.total_seconds() if hasattr(value, "total_seconds") else value


def of_task(task):
    found = {
        "upstream": sorted(task.upstream_task_ids),
        "trigger_rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        "retries": task.retries,
        "retry_delay": seconds(task.retry_delay),
        "execution_timeout": seconds(task.execution_timeout),
        "mapped": type(task).__name__.endswith("MappedOperator"),
        "group": task.task_group and task.task_group.group_id,
    }
    return {name: value for name, value in found.items() if value != DEFAULTS[name]}


found = {}
for folder in sys.argv[1:]:
    bag = DagBag(folder)
    for dag in bag.dags.values():
        found.setdefault(Path(dag.fileloc).stem, {})[dag.dag_id] = {
            "schedule": schedule(dag),
            "tags": sorted(dag.tags),
            "timezone": str(getattr(dag.timezone, "name", dag.timezone)),
            "tasks": {task.task_id: of_task(task) for task in dag.tasks},
        }
print("DAGS " + json.dumps(found))
