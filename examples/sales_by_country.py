"""Extract, convert and load the sales of each country: several steps for each item of a list.

    python examples/sales_by_country.py
    flowyml run examples/sales_by_country.py -p countries='["AT", "JP"]'
    flowyml logs RUN --step convert --index 1          # RUN as `flowyml runs` shows it

A country goes on to its next step without waiting for the others. A real one would ask the shops' databases; this one
draws the orders by chance, the same ones for the same country and day.
"""

from __future__ import annotations

import random
from typing import TypedDict

from flowyml import for_each, gather, pipeline, step

EUROS = {"AT": 1.0, "CL": 0.00098, "JP": 0.0061, "US": 0.92}


class Sales(TypedDict):
    """What was sold in a country, in euros."""

    country: str
    orders: int
    euros: float


@step(outputs=["prices"])
def extract(country: str, day: str) -> list[float]:
    """The prices of the day's orders, in the money of the country."""
    if country not in EUROS:
        raise ValueError(f"No shop in {country!r}. There are: {', '.join(EUROS)}.")
    chance = random.Random(f"{country} {day}")
    return [round(chance.uniform(5, 50) / EUROS[country], 2) for _ in range(chance.randint(20, 40))]


@step(outputs=["euros"])
def convert(country: str, prices: list[float]) -> list[float]:
    """The same in euros."""
    return [round(price * EUROS[country], 2) for price in prices]


@step(outputs=["sales"])
def load(country: str, euros: list[float]) -> Sales:
    """Into the warehouse; here they are only added up."""
    print(f"{country}: {len(euros)} orders")
    return {"country": country, "orders": len(euros), "euros": round(sum(euros), 2)}


@step(outputs=["report"])
def report(sales: list[Sales], day: str) -> str:
    """All countries together, once each is done."""
    best = max(sales, key=lambda each: each["euros"])
    total = sum(each["euros"] for each in sales)
    return f"{day}: {total:,.2f} EUR in {len(sales)} countries, most of it in {best['country']}"


@pipeline(name="sales-by-country", tags=["sales"])
def sales_by_country(day: str = "2026-01-31", countries: list[str] = ["AT", "CL", "JP", "US"]) -> dict[str, str]:
    """Two countries at a time."""
    with for_each(countries, name="country", max_parallel=2) as country:
        sales = load(country, convert(country, extract(country, day)))
    return {"report": report(gather(sales), day)}


if __name__ == "__main__":
    print(sales_by_country.run()["report"])
