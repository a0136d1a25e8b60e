"""Check data before it is published: good data goes on, bad data is set aside and somebody is alerted.

    python examples/quality_gate.py
    flowyml run examples/quality_gate.py -p broken=40
    flowyml backends --for examples/quality_gate.py

A real one would read a table; this one makes up the readings of sensors, of which some are broken.
"""

from __future__ import annotations

from typing import TypedDict

from flowyml import either, elif_, otherwise, pipeline, step, when


class Reading(TypedDict):
    """What a sensor measured; None where it is broken."""

    sensor: int
    degrees: float | None


@step(outputs=["readings"])
def load(count: int, broken: int) -> list[Reading]:
    """Readings around 20 degrees; the first ``broken`` of 100 are missing."""
    return [{"sensor": n, "degrees": None if n % 100 < broken else 20 + n % 7 / 2} for n in range(count)]


@step(outputs=["good", "share"])
def check(readings: list[Reading]) -> tuple[list[Reading], float]:
    """The readings that can be used, and which share of all they are."""
    good = [reading for reading in readings if reading["degrees"] is not None]
    print(f"{len(good)} of {len(readings)} readings can be used")
    return good, len(good) / len(readings)


@step(outputs=["mean"])
def publish(good: list[Reading]) -> float:
    """The mean, which is what the others wait for."""
    degrees = [reading["degrees"] or 0.0 for reading in good]
    return round(sum(degrees) / len(degrees), 2)


@step(outputs=["message"])
def describe(mean: float) -> str:
    """What was published."""
    return f"published: {mean} degrees"


@step(outputs=["message"])
def hold(share: float) -> str:
    """Keep the data back until a person has corrected it."""
    return f"held back: only {share:.0%} can be used"


@step(outputs=["message"])
def alert(share: float, limit: float) -> str:
    """Somebody has to look at it now. A real one would post to a channel, see ``alert_webhook.py``."""
    print(f"ALERT only {share:.0%} of the readings can be used; at least {limit:.0%} must be")
    return f"refused: {share:.0%} can be used"


@pipeline(name="quality-gate", tags=["sensors"])
def quality_gate(count: int = 1000, broken: int = 3, limit: float = 0.9, lowest: float = 0.7) -> dict[str, str]:
    """Publish, hold back or refuse, by the share of readings that can be used."""
    good, share = check(load(count, broken))
    with when(share >= limit, name="good"):
        published = describe(publish(good))
    with elif_(share >= lowest, name="doubtful"):
        held = hold(share)
    with otherwise(name="bad"):
        refused = alert(share, lowest)
    return {"message": either(published, held, refused)}


if __name__ == "__main__":
    for broken in (3, 20, 40):
        print(quality_gate.run({"broken": broken})["message"])
