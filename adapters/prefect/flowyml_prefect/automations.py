"""Automations on the server: they mark a run crashed whose process died, since nothing else would end it.

A flow sends heartbeats. Prefect's documented remedy for flows that fall silent is an automation, which FlowyML makes on
the server with the first deployment (source: Prefect, *How to detect and respond to zombie flows*). It touches only
runs that carry FlowyML's tag.

Others do the same for runs whose process died before the flow began. Such a run is *Pending*: it was claimed. One
that has not been claimed yet, since its pool is busy or has no worker, is *Scheduled* or *Late* and is never touched. A
run without a work pool begins within seconds of being claimed, so one that is still pending after two minutes will not
begin. A worker claims a run when it has room for it, and what follows may be an image to pull or a machine to start:
a pool's run has an hour. One that still begins after that runs, since Prefect lets a crashed run go on.
"""

from __future__ import annotations

from typing import Any

from flowyml_prefect.client import TAG

__all__ = [
    "AUTOMATIONS", "DETACHED_TAG", "HEARTBEAT", "HEARTBEAT_SECONDS", "NEVER_BEGAN_MESSAGE", "PENDING", "SILENT",
    "SILENT_MESSAGE", "crash_after",
]  # fmt: skip

HEARTBEAT_SECONDS = 30
"""Prefect sends no more often."""

DETACHED_TAG = "flowyml:detached"
"""On runs without a work pool."""

SILENT = "Silent"
"""The name of the state of runs that fell silent. Prefect's type of it is CRASHED."""

SILENT_MESSAGE = "The flow stopped responding: no heartbeat came for 90 s."
NEVER_BEGAN_MESSAGE = "The process that took this run ended before the flow began."
HEARTBEAT = "prefect.flow-run.heartbeat"
PENDING = "prefect.flow-run.Pending"


def crash_after(name: str, after: str, tag: str, within: int, message: str, state: str = "Crashed") -> dict[str, Any]:
    """An automation: a run with this tag of which nothing is heard for so many seconds after an event has crashed."""
    return {
        "name": name,
        "description": "Made by FlowyML, for its own runs.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "after": [after],
            "expect": ["prefect.flow-run.*"],
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"},
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": within,
        },
        "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "name": state, "message": message}],
    }


AUTOMATIONS = (
    crash_after("FlowyML: runs that fell silent", HEARTBEAT, TAG, 90, SILENT_MESSAGE, SILENT),
    crash_after("FlowyML: runs that never began", PENDING, DETACHED_TAG, 120, NEVER_BEGAN_MESSAGE),
    crash_after("FlowyML: runs of pools that never began", PENDING, TAG, 3600, NEVER_BEGAN_MESSAGE),
)
