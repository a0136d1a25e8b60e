"""A DAG as a line of JSON, in the keys that ``flowyml import airflow --json`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowyml.migration.airflow.model import DagModel, FileModel, Symbolic, TaskModel

__all__ = ["documents"]


def documents(file: FileModel) -> Iterator[dict[str, Any]]:
    """Yield one document for each DAG of a file, or one with the reason why it has none."""
    if not file.dags:
        yield {
            "path": file.path,
            "dag_id": None,
            "reason": file.reason,
            "warnings": [str(one) for one in file.warnings],
        }
    yield from (_dag(dag) for dag in file.dags)


def _dag(dag: DagModel) -> dict[str, Any]:
    return {
        "path": dag.path,
        "dag_id": dag.dag_id,
        "dag_id_known": dag.id_known,
        "line": dag.place.line,
        "schedule": dag.schedule if dag.schedule_known else "?",
        "schedule_omitted": dag.schedule_omitted,
        "timezone": dag.timezone,
        "catchup": dag.catchup,
        "tags": list(dag.tags),
        "tasks": [_task(task) for task in dag.tasks],
        "warnings": [str(one) for one in dag.warnings],
    }


def _task(task: TaskModel) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "task_id_known": task.id_known,
        "operator": task.operator,
        "module": task.import_path.rpartition(".")[0],
        "line": task.place.line,
        "upstream": list(task.upstream),
        "trigger_rule": _plain(task.trigger_rule),
        "retries": _plain(task.retries),
        "retry_delay": _plain(task.retry_delay),
        "execution_timeout": _plain(task.execution_timeout),
        "mapped": task.mapped,
        "in_mapped_group": task.in_mapped_group,
        "group": task.group,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Symbolic):
        return "{" + value.source + "}"
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
