"""Check a day's orders, add them up and report: a pipeline by names, with a hook, a retry and nothing but Python.

    python examples/daily_sales.py
    flowyml run examples/daily_sales.py -p day=2026-03-01 --on prefect
    flowyml schedule create examples/daily_sales.py daily 02:30 --timezone Europe/Berlin --on prefect

A real one would ask a shop's database; this one draws the orders of a day by chance, the same ones for the same day.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date
from typing import Any

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.retry_policy import OrchestratorRetryPolicy

Orders = list[dict[str, Any]]

PRICES = {"coffee": 3.2, "tea": 2.8, "cake": 4.5}


class Announce(PipelineHook):
    """Says how it went. A real one would post to a channel."""

    def on_step_end(self, step_name: str, outputs: Mapping[str, Any], duration: float) -> None:
        """One line for each step."""
        print(f"{step_name} done in {duration:.2f} s")

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """And one for the run."""
        print(f"{pipeline_name} ({run_id}): {status.name}")


@step(
    outputs=["orders"],
    retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=5, retryable_errors=["ConnectionError"]),
    timeout=300,
)
def fetch(day: str, shops: int) -> Orders:
    """The day's orders, some of which are broken."""
    date.fromisoformat(day)
    chance = random.Random(f"{day} {shops}")
    items = [*PRICES, "?"]
    orders = [
        {"shop": shop, "item": chance.choice(items), "count": chance.randint(1, 5)}
        for shop in range(shops)
        for _ in range(chance.randint(20, 40))
    ]
    print(f"{len(orders)} orders of {shops} shops on {day}")
    return orders


@step(inputs=["orders"], outputs=["good", "rejected"])
def check(orders: Orders) -> tuple[Orders, int]:
    """Orders of things that are sold; the others are counted."""
    good = [order for order in orders if order["item"] in PRICES]
    return good, len(orders) - len(good)


@step(inputs=["good"], outputs=["revenue"])
def add_up(good: Orders) -> dict[str, float]:
    """Revenue of each item."""
    revenue = dict.fromkeys(PRICES, 0.0)
    for order in good:
        revenue[order["item"]] += PRICES[order["item"]] * order["count"]
    return {item: round(amount, 2) for item, amount in revenue.items()}


@step(inputs=["good"], outputs=["best_shop"])
def rank(good: Orders) -> int:
    """The shop that sold the most pieces; runs beside ``add_up``."""
    sold: dict[int, int] = {}
    for order in good:
        sold[order["shop"]] = sold.get(order["shop"], 0) + order["count"]
    return max(sold, key=lambda shop: (sold[shop], -shop))


@step(inputs=["revenue", "best_shop", "rejected"], outputs=["report"])
def report(revenue: dict[str, float], best_shop: int, rejected: int, day: str) -> str:
    """The words for people."""
    total = sum(revenue.values())
    return f"{day}: {total:,.2f} in all, shop {best_shop} sold the most; {rejected} orders were rejected."


daily_sales = (
    Pipeline(
        "daily-sales",
        hooks=[Announce()],
        context={"day": "2026-01-31", "shops": 4},
        tags=["sales"],
        description="Revenue and the best shop of one day.",
    )
    .add_step(fetch)
    .add_step(check)
    .add_step(add_up)
    .add_step(rank)
    .add_step(report)
)

if __name__ == "__main__":
    print(daily_sales.run()["report"])
