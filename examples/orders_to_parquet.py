"""Extract, transform, load: orders from a CSV file, through pandas, into one Parquet file a day.

    python examples/orders_to_parquet.py
    flowyml run examples/orders_to_parquet.py -p warehouse=/data/warehouse --on prefect

The CSV file travels with the code (`include`), tables travel between steps as Parquet, and a run of the same day
writes the same file again. On an engine, name a `warehouse` that its workers reach: an absolute path or `s3://…`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flowyml import pipeline, step

ORDERS = Path(__file__).parent / "data/orders.csv"


@step(outputs=["orders"])
def extract(day: str) -> pd.DataFrame:
    """All orders of one day."""
    orders = pd.read_csv(ORDERS)
    return orders[orders["day"] == day]


@step(outputs=["sales"])
def transform(orders: pd.DataFrame) -> pd.DataFrame:
    """Pieces and revenue of each item; orders without a price are left out."""
    priced = orders.dropna(subset=["price"])
    priced = priced.assign(revenue=priced["price"] * priced["count"])
    return priced.groupby("item", as_index=False)[["count", "revenue"]].sum()


@step(outputs=["written"], retry=2)
def load(sales: pd.DataFrame, day: str, warehouse: str) -> str:
    """Write the day's file."""
    path = f"{warehouse}/sales-{day}.parquet"
    if "://" not in warehouse:
        Path(warehouse).mkdir(parents=True, exist_ok=True)
    sales.to_parquet(path, index=False)
    return f"{len(sales)} items, {sales['revenue'].sum():.2f} in all, written to {path}"


@pipeline(name="orders-to-parquet", include=["data/orders.csv"], tags=["etl"])
def orders_to_parquet(day: str = "2026-01-31", warehouse: str = "warehouse") -> str:
    """One day's orders into the warehouse."""
    return load(transform(extract(day)), day, warehouse)


if __name__ == "__main__":
    print(orders_to_parquet.run()["written"])
