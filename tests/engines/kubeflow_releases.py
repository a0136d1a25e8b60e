"""What differs between releases of KFP, as they are shipped, as far as the fake shows it.

Sources: KFP's manifests and protobufs by their tags; a real 2.17.0, in its own configuration and in that of 2.16.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

__all__ = ["Release", "release", "unknown_field"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """One release. ``unknown_fields`` are those that its protobufs lack, of what Kubernetes is asked for."""

    number: tuple[int, ...]
    ttl: timedelta
    """How long Argo keeps a workflow after its end, with its pods."""
    unknown_fields: frozenset[str] = frozenset()

    @property
    def template_defaults(self) -> Json:
        """What Argo's ConfigMap adds to each template of a workflow."""
        return {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}} if self.number >= (2, 17) else {}

    @property
    def reads_archived_logs(self) -> bool:
        """Whether the API server finds the log of a pod that is gone."""
        return self.number >= (2, 17)

    @property
    def reports_states_of_inner_dags(self) -> bool:
        """Whether a DAG that holds another one gets its state from it (KFP issue 13322)."""
        return self.number >= (2, 17)


_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_RELEASES = (
    Release((2, 14), _DAY, frozenset({"optional", "securityContext"})),
    Release((2, 15), _DAY, frozenset({"securityContext"})),
    Release((2, 16), _DAY),
    Release((2, 17), _HOUR),
)


def release(version: str) -> Release:
    """The release of a version; the newest of a server that was built without saying which it is."""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2]) or _RELEASES[-1].number
    return max((each for each in _RELEASES if each.number <= number), key=lambda each: each.number)


def unknown_field(platform: Mapping[str, Any], fields: frozenset[str]) -> str:
    """The first of these fields that Kubernetes is asked for; empty if there is none."""
    executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    for config in executors.values():
        lists = [each for value in config.values() if isinstance(value, list) for each in value]
        for part in (config, *lists):
            if found := fields & part.keys():
                return min(found)
    return ""
