"""Runs in Airflow's environment: load folders as Airflow does, each with settings, and print what is there, as JSON."""

import json
import os
import sys
import warnings

warnings.simplefilter("ignore")

import airflow  # noqa: E402

MAJOR = int(airflow.__version__.split(".")[0])

if MAJOR == 3:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization as Serialized
else:
    from airflow.models.dagbag import DagBag
    from airflow.serialization.serialized_objects import SerializedDAG as Serialized


def of_pod(config):
    """The pod that an executor is asked for."""
    if "pod_override" not in (config or {}):
        return None
    from kubernetes.client import ApiClient

    return ApiClient().sanitize_for_serialization(config["pod_override"])


def of_task(task, stored):
    return {
        "display": task.task_display_name,
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "retry_delay": task.retry_delay.total_seconds(),
        "backoff": task.retry_exponential_backoff,
        "max_retry_delay": task.max_retry_delay and task.max_retry_delay.total_seconds(),
        "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
        "pool": task.pool,
        "queue": task.queue,
        "owner": task.owner,
        "doc": task.doc_md,
        "pod": of_pod(stored.executor_config),
        "mapped": type(task).__name__ == "MappedOperator",
        "group": task.task_group and task.task_group.group_id,
        "teardown": task.is_teardown,
        "rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
    }


def of_dag(dag):
    stored = Serialized.from_dict(Serialized.to_dict(dag))  # as the scheduler gets it
    return {
        "display": dag.dag_display_name,
        "tags": sorted(dag.tags),
        "description": dag.description,
        "doc": dag.doc_md,
        "timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
        "schedule": json.dumps(Serialized.to_dict(dag)["dag"].get("timetable")),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "params": {name: dag.params.get_param(name).schema for name in dag.params},
        "tasks": {task.task_id: of_task(task, stored.get_task(task.task_id)) for task in dag.tasks},
    }


def of_folder(folder: str, settings: dict[str, str]) -> dict[str, object]:
    os.environ.update(settings)
    before = set(sys.modules)
    bag = DagBag(folder)
    return {
        "errors": {path: str(error) for path, error in bag.import_errors.items()},
        "dags": {name: of_dag(dag) for name, dag in bag.dags.items()},
        "files": sorted(str(stat.file) for stat in bag.dagbag_stats),
        "imported": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
        "stdlib": sorted(sys.stdlib_module_names),
    }


DagBag("/dev/null")  # for what loading a bag imports by itself
print("\n@@@" + json.dumps([of_folder(*each) for each in json.loads(sys.argv[1])]))
