"""The files of a run on the local runner: the request, the run's progress, and the logs of its pods."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from flowyml.core.errors import ConfigurationError
from flowyml.core.files import end_of, write_whole
from flowyml.core.locks import held
from flowyml.core.process_identity import ProcessIdentity, this_process
from flowyml_kubeflow.workflow import EXECUTOR, Workflow

__all__ = ["RunFolder"]

Json = dict[str, Any]


class RunFolder:
    """One run. Every file is written atomically, or only appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def pipeline(self) -> Path:
        """The compiled pipeline that KFP runs."""
        return self.path / "pipeline.yaml"

    @property
    def pods(self) -> Path:
        """The folder of the pods: for each a log, and a file with its exit code and the time of its end."""
        return self.path / "pods"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor, for as long as it lives."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """The output of KFP's process."""
        return self.path / "runner.log"

    @cached_property
    def request(self) -> Json:
        """The submitted request."""
        return self.read("run.json")

    def read(self, name: str) -> Json:
        """Return the content of a document; empty if it does not exist."""
        try:
            document: Json = json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return document

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a file, all or nothing."""
        write_whole(self.path / name, json.dumps(document).encode(), 0o600)

    def started_at(self) -> float | None:
        """Return the start of the supervisor."""
        return self.read("started.json").get("time")

    def result(self) -> Json:
        """Return the end of the run; empty if it has not ended."""
        return self.read("result.json")

    def end(self, state: str, error: str | None) -> None:
        """Record the end."""
        self.write("result.json", {"state": state, "error": error, "time": time.time()})

    def ask_to_cancel(self) -> None:
        """Request a cancellation: the supervisor looks for this file."""
        (self.path / "cancel").touch()

    def is_cancelled(self) -> bool:
        """Return whether cancellation was requested."""
        return (self.path / "cancel").exists()

    def is_supervised(self) -> bool:
        """Return whether a supervisor is running: only it holds the lock, and a process that dies releases it.

        Raises ``ConfigurationError`` if the file system has no locks.
        """
        try:
            with held(self.lock, shared=True) as is_free:
                if is_free is None:
                    raise ConfigurationError(
                        f"{self.path} is on a file system without locks, which show whether a run is in progress. Give "
                        f"KubeflowLocalOrchestrator a folder on a local disk, or set FLOWYML_HOME to one."
                    )
                return not is_free
        except FileNotFoundError:  # it was removed
            return False

    @property
    def leader(self) -> ProcessIdentity | None:
        """KFP's process, which leads the group of all pods; ``signal_group`` knows whether it still is that process."""
        process = self.read("kfp.json")
        host = this_process().host
        return ProcessIdentity(host, process["group"], process.get("born") or "") if process else None

    def workflow(self) -> Workflow:
        """Return the pods as the nodes of a workflow, as Argo would have recorded them."""
        nodes: Json = {}
        for log in self.pods.glob("*.log"):
            task, _, began = log.stem.rpartition("--")
            end = self.read(f"pods/{log.stem}.json")
            node = {
                "phase": "Running" if not end else "Failed" if end["code"] else "Succeeded",
                "startedAt": _written(int(began) / 1e9), **({"finishedAt": _written(end["time"])} if end else {}),
            }  # fmt: skip
            home = f"{log.stem}-task"
            nodes[home] = {"id": home, "displayName": task, "type": "DAG", "templateName": EXECUTOR, **node}
            nodes[log.stem] = {"id": log.stem, "displayName": "executor", "type": "Pod", "boundaryID": home, **node}
        return Workflow({"status": {"nodes": nodes}})

    def last_words(self) -> str:
        """Return the end of the output of KFP's process."""
        return end_of(self.log, 2000).decode("utf-8", "replace").strip()


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
