"""Search for a learning rate: a step for each rate, and a finer search only where the first was not good enough.

    python examples/search_rates.py
    python examples/search_rates.py --target 0.2     # stops after the first search
    flowyml graph examples/search_rates.py

Each trial stops early too, when its error hardly falls any more, and is cached: a search with another target trains
only with rates that were not tried yet, also on another engine that shares the store. The model is a line through
points, so that it needs nothing but Python.
"""

from __future__ import annotations

import argparse
from typing import TypedDict

from flowyml import either, otherwise, pipeline, step, when


class Trial(TypedDict):
    """A rate, what is left of the error, and after how many rounds."""

    rate: float
    error: float
    rounds: int


@step(outputs=["rates"])
def grid(lowest: float, count: int) -> list[float]:
    """Rates to begin with, each twice the one before."""
    return [lowest * 2**n for n in range(count)]


@step(outputs=["trial"], max_parallel=4, cache=True)
def train(rate: float, rounds: int) -> Trial:
    """Gradient descent towards y = 3 x + 1, until the error falls by less than a thousandth in a round."""
    points = [(n / 10, 3 * n / 10 + 1) for n in range(50)]
    slope = offset = 0.0
    errors = [float("inf")]
    while len(errors) <= rounds and (len(errors) < 3 or errors[-1] < 0.999 * errors[-2]):
        missed = [(slope * x + offset - y, x) for x, y in points]
        slope -= rate * 2 * sum(miss * x for miss, x in missed) / len(points)
        offset -= rate * 2 * sum(miss for miss, _ in missed) / len(points)
        errors.append(sum((slope * x + offset - y) ** 2 for x, y in points) / len(points))
    print(f"rate {rate:g}: error {errors[-1]:.4f} after {len(errors) - 1} rounds")
    return {"rate": rate, "error": round(errors[-1], 4), "rounds": len(errors) - 1}


@step(outputs=["rate", "error"])
def pick(trials: list[Trial]) -> tuple[float, float]:
    """The rate whose error is smallest."""
    best = min(trials, key=lambda trial: trial["error"])
    return best["rate"], best["error"]


@step(outputs=["rates"])
def near(rate: float) -> list[float]:
    """Rates on both sides of the one that was best so far."""
    return [round(rate * factor, 6) for factor in (0.8, 0.9, 1.1, 1.2, 1.4)]


@step(outputs=["report"])
def report(rate: float, error: float, searches: int) -> str:
    """The words for people."""
    return f"rate {rate:g} leaves an error of {error:.4f}, found in search {searches}"


@pipeline(name="search-rates", description="Search for a learning rate, more finely if need be.")
def search_rates(lowest: float = 0.001, count: int = 5, rounds: int = 10, target: float = 0.1) -> dict[str, str]:
    """Stop after the first search when it reaches the target."""
    rate, error = pick(train.partial(rounds=rounds).map(rate=grid(lowest, count)))
    with when(error <= target, name="good enough"):
        first = report(rate, error, 1)
    with otherwise(name="search more finely"):
        trials = train.options(name="train_near").partial(rounds=rounds).map(rate=near(rate))
        finer_rate, finer_error = pick.options(name="pick_near")(trials)
        second = report.options(name="report_near")(finer_rate, finer_error, 2)
    return {"report": either(first, second)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.1, help="the error that is good enough")
    print(search_rates.run({"target": parser.parse_args().target})["report"])
