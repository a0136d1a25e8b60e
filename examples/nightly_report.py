"""A nightly run that knows which night it is for, kept by the engine's own scheduler.

    python examples/nightly_report.py                       # one run, now
    python examples/nightly_report.py --schedule prefect    # every night at 02:30, from now on
    flowyml schedule list --on prefect
    flowyml backfill nightly-report 2026-01-01 2026-01-31 --on airflow

`night` is filled with the date that the run is for, not with the date on which it happens to run, so that runs which
were missed, or are made again by a backfill, report the right night.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta

from flowyml import LOGICAL_DATE, pipeline, step


@step(outputs=["visits"], retry=3, timeout=600)
def count_visits(night: date) -> dict[str, int]:
    """Visits of the day before. A real one would query a database."""
    day = night - timedelta(days=1)
    return {day.isoformat(): 1000 + day.toordinal() % 100}


@step
def report(visits: dict[str, int]) -> str:
    """One line a day."""
    return "\n".join(f"{day}: {number} visits" for day, number in visits.items())


@pipeline(name="nightly-report", tags=["nightly"])
def nightly_report(night: date = LOGICAL_DATE) -> str:
    """Yesterday's visits."""
    return report(count_visits(night))


if __name__ == "__main__":
    if "--schedule" in sys.argv:
        made = nightly_report.schedule("daily", "02:30", timezone="Europe/Berlin", on=sys.argv[-1])
        print(f"{made.schedule}; next: {made.next_runs[0]}")
    else:
        print(nightly_report.run()["report"])
