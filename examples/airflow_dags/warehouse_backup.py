"""The warehouse, packed each night. Operators, as most DAGs are written."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import PythonOperator

KEEP = 14


def old_backups(keep):
    """All but the newest; a real one would delete them."""
    names = sorted(f"backup-{day:02}" for day in range(1, 17))
    print(f"{len(names) - keep} of {len(names)} backups can go")
    return names[:-keep]


with DAG(
    dag_id="warehouse_backup",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"owner": "platform", "retries": 1, "retry_delay": timedelta(minutes=1)},
    tags=["platform"],
) as dag:
    start = EmptyOperator(task_id="start")
    dump = BashOperator(
        task_id="dump",
        bash_command="seq 1000 | gzip | gunzip | wc -l",
        execution_timeout=timedelta(minutes=10),
    )
    space = BashOperator(task_id="space", bash_command="df --output=pcent . | tail -1")
    prune = PythonOperator(
        task_id="prune",
        python_callable=old_backups,
        op_kwargs={"keep": KEEP},
        trigger_rule="none_failed",
    )
    start >> [dump, space] >> prune
