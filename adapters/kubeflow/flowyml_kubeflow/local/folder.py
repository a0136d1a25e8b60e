"""The files of a run on the local runner: the requests to it, and its progress."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from flowyml.core.errors import ConfigurationError
from flowyml.core.files import end_of, write_whole
from flowyml.core.locks import held
from flowyml.core.process_identity import ProcessIdentity, this_process
from flowyml.runtime.step_errors import of_several, of_step
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import RESULT

__all__ = ["RunFolder"]

Json = dict[str, Any]


class RunFolder:
    """One run. Every file is written atomically, or only appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def root(self) -> Path:
        """The folder of KFP's outputs of tasks, its ``pipeline_root``; the one folder that containers see."""
        return self.path

    @property
    def pipeline(self) -> Path:
        """The compiled pipeline that KFP runs."""
        return self.path / "pipeline.yaml"

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
        return self.read("request.json")

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

    def outcome(self) -> Json:
        """Return the result that KFP's process wrote at its end."""
        return self.read("outcome.json")

    def end(self, state: str, error: str | None) -> None:
        """Record the end."""
        self.write("result.json", {"state": state, "error": error, "time": time.time()})

    def waits_since(self) -> float:
        """Return the time when it was submitted."""
        return (self.path / "request.json").stat().st_mtime

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

    def steps(self) -> list[str]:
        """Return the tasks that have begun, by name; those of items in a loop end in ``--`` and the item's index."""
        folder = self.path / "steps"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def attempts(self, task: str) -> list[Json]:
        """Return the attempts of a step, each joined with its end."""
        joined: dict[int, Json] = {}
        for document in self.lines(task, "attempts.jsonl"):
            joined.setdefault(document["attempt"], {}).update(document)
        return list(joined.values())

    def lines(self, task: str, name: str) -> list[Json]:
        """Return the documents of a journal, without half a line that is being written or was cut off."""
        path = self.path / "steps" / task / name
        if not path.exists():
            return []
        *whole, _ = path.read_text("utf-8").split("\n")
        return [document for line in whole if (document := _document(line))]

    def groups(self, *, of_steps: bool) -> list[ProcessIdentity]:
        """Return the leaders of process groups that may still run: KFP's, then those of attempts that have not ended.

        A group outlives its leader, so only ``signal_group`` may signal it.
        """
        attempts = [attempt for task in self.steps() for attempt in self.attempts(task) if "ended" not in attempt]
        begun = [self.read("kfp.json"), *(attempts if of_steps else ())]
        host = this_process().host
        return [ProcessIdentity(host, item["group"], item.get("born") or "") for item in begun if "group" in item]

    def failures(self) -> str | None:
        """Return the failures of the run, in the steps' own words."""
        steps = self.request["steps"]
        failures = sorted(
            (attempt["ended"], steps.get(names.step_and_index(task)[0], task), attempt["failure"]["message"])
            for task in self.steps()
            for attempt in self.attempts(task)[-1:]
            if attempt.get("failure")
        )
        return of_several([of_step(step, message) for _, step, message in failures]) or None

    def notes(self, task: str) -> list[Json]:
        """Return the notes of a step's pods, in a pipeline with control flow."""
        return self.lines(task, "notes.jsonl")

    def published(self, task: str) -> Json:
        """Return the outputs of the pipeline that a task published."""
        lines = [line["line"] for line in self.lines(task, "log.jsonl") if line["stream"] == "result"]
        found: Json = json.loads(lines[-1].removeprefix(RESULT)) if lines else {}
        return found

    def verdict(self) -> str | None:
        """Return the failure of a run with control flow, from its last task.

        Failures of an earlier try do not count.
        """
        began = self.started_at() or 0.0
        notes = [note for note in self.notes(names.RESULT_TASK) if note["time"] >= began]
        return str(notes[-1]["failed"]) if notes else None

    def last_words(self) -> str:
        """Return the end of the output of KFP's process."""
        return end_of(self.log, 2000).decode("utf-8", "replace").strip()


def _document(line: str) -> Json:
    try:
        found: Json = json.loads(line)
    except ValueError:
        return {}
    return found
