"""Automations on the server: they mark a run as crashed if its process died, since nothing else would end the run.

A flow sends heartbeats. Prefect's documented remedy for flows that stop sending them is an automation, which FlowyML
creates on the server with the first deployment (source: Prefect, *How to detect and respond to zombie flows*). It
applies only to runs that have FlowyML's tag.

Other automations do the same for runs whose process died before the flow began. Such a run is *Pending*: it was
claimed. A run that has not been claimed yet, since its pool is busy or has no worker, is *Scheduled* or *Late*, and no
automation applies to it. A run without a work pool begins within seconds of being claimed, so a run that is still
pending after two minutes will not begin. A worker claims a run when it has room for it, and may then have to pull an
image or start a machine: a pool's run has an hour. A run that still begins after that runs, since Prefect allows a
crashed run to continue.
"""

from __future__ import annotations

from typing import Any

from flowyml_prefect.client import TAG

__all__ = [
    "AUTOMATIONS", "DETACHED_TAG", "HEARTBEAT", "HEARTBEAT_SECONDS", "NEVER_BEGAN_MESSAGE", "PENDING",
    "SILENCE_SECONDS", "SILENT", "SILENT_MESSAGE", "crash_after",
]  # fmt: skip

HEARTBEAT_SECONDS = 30
"""The least interval that Prefect allows."""

SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
"""A flow without a heartbeat for so long has probably died."""

DETACHED_TAG = "flowyml:detached"
"""The tag of runs without a work pool."""

SILENT = "Silent"
"""The name of the state of runs that stopped sending heartbeats. Prefect's type of it is CRASHED."""

SILENT_MESSAGE = f"The flow stopped responding: no heartbeat came for {SILENCE_SECONDS} s."
NEVER_BEGAN_MESSAGE = "The process that took this run ended before the flow began."
HEARTBEAT = "prefect.flow-run.heartbeat"
PENDING = "prefect.flow-run.Pending"


def crash_after(name: str, after: str, tag: str, within: int, message: str, state: str = "Crashed") -> dict[str, Any]:
    """Return an automation: a run with this tag has crashed if no event follows ``after`` within this many seconds."""
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
    crash_after("FlowyML: runs that fell silent", HEARTBEAT, TAG, SILENCE_SECONDS, SILENT_MESSAGE, SILENT),
    crash_after("FlowyML: runs that never began", PENDING, DETACHED_TAG, 120, NEVER_BEGAN_MESSAGE),
    crash_after("FlowyML: runs of pools that never began", PENDING, TAG, 3600, NEVER_BEGAN_MESSAGE),
)
