"""A pipeline to do harm to, and the processes of its runs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from flowyml import Pipeline, cleanup, pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.http import ConflictError
from flowyml_prefect.client import PrefectClient
from tests.waiting import wait_until

__all__ = ["Journal", "cleans_up", "run_processes", "save_secret", "sleeping", "step_process", "waiting"]


class Journal(PipelineHook):
    """Writes down how a run ended."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        (Path(self.folder) / "ended").write_text(status.name)


def sleeping(folder: str, seconds: float, name: str = "sleeping") -> Pipeline:
    """A step that says where it runs, sleeps, and says that it is done."""

    @step(outputs=["slept"])
    def sleep(seconds: float) -> float:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        time.sleep(seconds)
        with (Path(folder) / "done").open("a") as file:
            file.write("x")
        return seconds

    return Pipeline(name, hooks=[Journal(folder)], context={"seconds": seconds}).add_step(sleep)


def waiting(folder: str) -> Pipeline:
    """A step that says where it runs, and ends once there is a file called ``go``."""

    @step(outputs=["waited"])
    def wait() -> bool:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        while not (Path(folder) / "go").exists():
            time.sleep(0.1)
        return True

    return Pipeline("waiting").add_step(wait)


def cleans_up(name: str, folder: str, timeout: float | None) -> Pipeline:
    """Two steps that would take ten minutes, one of them before its second attempt, and one that tidies up."""

    @step(retry=OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=600))
    def flaky() -> None:
        raise ValueError("not yet")

    @step
    def sleep() -> None:
        (Path(folder) / "begun").touch()
        time.sleep(600)

    @step
    def tidy() -> None:
        time.sleep(2)
        (Path(folder) / "tidy").touch()

    @pipeline(name=name, timeout=timeout)
    def made() -> None:
        flaky()
        sleep()
        with cleanup():
            tidy()

    return made


def step_process(folder: Path) -> psutil.Process:
    """The process of the step, once it works."""
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    return psutil.Process(int((folder / "pid").read_text()))


def run_processes(handle: SubmissionResult) -> list[psutil.Process]:
    """The process that tends a run, and below it that of the flow."""
    keepers = [
        process for process in psutil.process_iter(["cmdline"])
        if "flowyml_prefect.runner" in (process.info["cmdline"] or ()) and handle.job_id in process.info["cmdline"]
    ]  # fmt: skip
    return [*keepers, *(child for keeper in keepers for child in keeper.children())]


def save_secret(client: PrefectClient, name: str, value: Any) -> None:
    """Make a Secret block, as the UI does it; one that is there from the last try stays."""
    kind = client.get("/block_types/slug/secret")["id"]
    (schema, *_) = client.query("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    document = {"name": name, "data": {"value": value}, "block_type_id": kind, "block_schema_id": schema["id"]}
    with suppress(ConflictError):
        client.write("/block_documents/", document)
