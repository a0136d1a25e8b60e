"""What the shop sold in the last minute. TaskFlow: functions, and values that pass between them."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import dag, task

PRICES = {"tea": 4.5, "coffee": 7.0, "cocoa": 5.25}


@dag(
    schedule="* * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "sales", "retries": 2, "retry_delay": timedelta(seconds=5)},
    tags=["sales"],
)
def order_totals():
    @task
    def extract() -> list[dict[str, int]]:
        """The shop's till would be asked here."""
        return [{"tea": 3, "coffee": 1}, {"cocoa": 2}, {"tea": 1, "cocoa": 1}]

    @task
    def total(orders: list[dict[str, int]]) -> float:
        return sum(PRICES[item] * count for order in orders for item, count in order.items())

    @task
    def report(orders: list[dict[str, int]], total: float) -> str:
        text = f"{len(orders)} orders, {total:.2f} EUR"
        print(text)
        return text

    orders = extract()
    report(orders, total(orders))


order_totals()
