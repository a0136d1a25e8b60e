"""Tells the suppliers what was sold. Its mail goes through a connection of Airflow's, so that task stays there."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.smtp.operators.smtp import EmailOperator
from airflow.sdk import dag, task


@dag(
    schedule="0 7 * * 1",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"owner": "purchasing"},
    tags=["mail"],
)
def supplier_mail():
    @task
    def summary() -> str:
        return "12 chests of tea were sold."

    mail = EmailOperator(
        task_id="mail",
        to="suppliers@example.org",
        subject="Sold in the week of {{ ds }}",
        html_content="{{ ti.xcom_pull(task_ids='summary') }}",
    )
    summary() >> mail


supplier_mail()
