"""How a run ends that nobody tends any more: the server notices its silence and marks it crashed.

A flow sends heartbeats. Prefect's documented remedy for flows that fall silent is an automation, which FlowyML makes on
the server with the first deployment (source: Prefect, *How to detect and respond to zombie flows*). It touches only
runs that carry FlowyML's tag. A second one does the same for runs whose process died before the flow began: a run
without a work pool begins within seconds of being claimed, so one that stays pending will not begin.
"""

from __future__ import annotations

from typing import Any

from flowyml_prefect.client import TAG

__all__ = ["AUTOMATIONS", "DETACHED_TAG", "HEARTBEAT_SECONDS", "SILENT_MESSAGE"]

HEARTBEAT_SECONDS = 30
"""Prefect sends no more often."""

DETACHED_TAG = "flowyml:detached"
"""On runs without a work pool."""

SILENT_MESSAGE = "The flow stopped responding: no heartbeat came for 90 s."
_NEVER_BEGAN = "The process that took this run ended before the flow began."


def _crash(name: str, after: str, tag: str, within: int, message: str) -> dict[str, Any]:
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
        "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "name": "Crashed", "message": message}],
    }


AUTOMATIONS = (
    _crash("FlowyML: runs that fell silent", "prefect.flow-run.heartbeat", TAG, 90, SILENT_MESSAGE),
    _crash("FlowyML: runs that never began", "prefect.flow-run.Pending", DETACHED_TAG, 120, _NEVER_BEGAN),
)
