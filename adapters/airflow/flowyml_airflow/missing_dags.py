"""A run whose DAG has lost its file: Airflow 3 starts none of its tasks, never ends it, and reports nothing.

Airflow 2 does the same, or fails a task that it was about to start; and it does not stop such a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flowyml_airflow.client import AirflowClient, NotThereError
from flowyml_airflow.status import moment

__all__ = ["MissingDags", "is_gone", "is_missing"]

logger = logging.getLogger("flowyml.airflow")
YOUNG = timedelta(seconds=60)  # a run that is younger is not looked into, so a short one costs no more calls
_EVERY = 30  # seconds


def is_gone(dag: Mapping[str, Any]) -> bool:
    """Whether a DAG has no file any more, or none that makes it: ``is_stale``, with Airflow 2 not ``is_active``."""
    return bool(dag.get("is_stale")) or dag.get("is_active") is False


def is_missing(client: AirflowClient, dag: str) -> bool:
    """The same of a DAG by its id."""
    try:
        return is_gone(client.dag(dag))
    except NotThereError:
        return True


@dataclass
class MissingDags:
    """Says of each run once that its DAG is gone; its status stays what Airflow says.

    ``cancels`` gives the command line that cancels a job.
    """

    cancels: Callable[[str], str] = "flowyml cancel {} --on airflow".format
    _looked: dict[tuple[str, str], float] = field(default_factory=dict)

    def warn_if_missing(self, client: AirflowClient, found: Mapping[str, Any]) -> None:
        """Log a warning where the DAG of this run, which has not ended, is gone; ask Airflow every now and then."""
        dag, run_id = key = (found["dag_id"], found["dag_run_id"])
        began = moment(found.get("queued_at") or found.get("run_after") or found.get("start_date"))
        if (began and datetime.now(UTC) - began < YOUNG) or time.monotonic() < self._looked.get(key, 0):
            return
        self._looked[key] = time.monotonic() + _EVERY
        if is_missing(client, dag):
            self._looked[key] = float("inf")
            logger.warning(
                "Airflow no longer has DAG %r: its file is gone, or no longer defines it. Run %r may stay %s: none of "
                "its tasks can start until the file exists again. Deploy the pipeline again%s cancel the run: %s",
                dag, run_id, found["state"], ", or" if client.stops_what_is_gone else "; after that, you can also",
                self.cancels(f"{dag}/{run_id}"),
            )  # fmt: skip
