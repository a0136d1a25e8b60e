"""What the fake of KFP's API remembers, and how it refuses."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.engines.kubeflow_driver import Metadata
from tests.engines.kubeflow_releases import Release, release

if TYPE_CHECKING:
    from tests.engines.kubeflow_pods import Pods

Json = dict[str, Any]

CODES = {400: 3, 401: 16, 404: 5, 409: 6, 500: 13}


class Refused(Exception):
    """An answer that is an error, as grpc-gateway words it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    """Fail the next calls that fit: ``before`` anything is done, or after, when only the answer is lost."""

    method: str
    path: str
    status: int = 500
    before: bool = True
    seconds: float = 0
    times: int = 1


@dataclass
class State:
    """All that the fake remembers."""

    folder: Path
    pods: Pods
    token: str | None = None
    users: dict[str, set[str]] = field(default_factory=dict)  # tokens and their namespaces, where KFP has several users
    login: bool = False  # whether a proxy in front shows a login page to whom has no token
    login_headers: dict[str, str] = field(default_factory=dict)  # of the last who came to the login page
    below: str = ""  # the path at which a dashboard in front has the API
    is_ui: bool = False  # whether ml-pipeline-ui is in front
    is_ready: bool = True  # whether the API server behind it answers
    version: str = "2.17.0"  # of KFP, as it is shipped
    says_version: bool = True  # not of a server that was built without the name of its release
    refuses_at_upload: bool = True  # whether a file with faults is refused at once, as a real server does not
    reports_canceling: bool = True  # whether KFP's agent sees a workflow between its termination and its end
    metadata: Metadata = field(default_factory=Metadata)
    cached: set[str] = field(default_factory=set)  # tasks that KFP takes from its cache as if they had run before
    in_drivers: dict[str, Callable[[], None]] = field(default_factory=dict)  # what happens in those of tasks
    page: int = 3
    page_of_runs: int = 50  # of which there are hundreds in the end
    lists_runs: bool = True  # unlike a cache in front of KFP, which does not have the newest
    lags: list[float] = field(default_factory=list)  # of the next runs, how long each takes until it can be seen
    pods_may_start: threading.Event = field(default_factory=threading.Event)  # on a cluster it takes some seconds
    pipelines: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    recurring: dict[str, Any] = field(default_factory=dict)
    ahead: timedelta = timedelta()  # how far the clock of the server is ahead
    rounds: int = 0  # how often the scheduler has looked for what is due
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.pods_may_start.set()

    @property
    def release(self) -> Release:
        return release(self.version)

    @property
    def shown_version(self) -> str:
        return self.version if self.says_version else "unknown"

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


def existing(items: dict[str, Any], key: str, kind: str) -> Any:
    if key not in items:
        raise Refused(404, f"ResourceNotFoundError: {kind} {key} not found.")
    return items[key]


def current_time() -> datetime:
    """To the second, as KFP keeps its times."""
    return datetime.now(UTC).replace(microsecond=0)
