"""Orders more where too little is left: a branch picks one of two ways, which meet again."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task

ENOUGH = 20


@dag(
    schedule="0 */4 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"owner": "purchasing"},
    tags=["stock"],
)
def stock_check():
    @task
    def count_stock() -> int:
        return 12

    @task.branch
    def is_enough(count: int) -> str:
        return "rest" if count >= ENOUGH else "order_more"

    @task
    def order_more() -> str:
        return "40 chests ordered"

    @task
    def rest() -> str:
        return "nothing to do"

    @task(trigger_rule="none_failed_min_one_success")
    def note_down() -> str:
        return "noted"

    is_enough(count_stock()) >> [order_more(), rest()] >> note_down()


stock_check()
