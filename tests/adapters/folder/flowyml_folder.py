"""A whole adapter, for the engine in ``engine.py``: the page "Write an adapter" shows it part by part."""

from __future__ import annotations

# --8<-- [start:imports]
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowyml.artifacts import open_store, run_place
from flowyml.core.capabilities import Capabilities, Feature, no, yes
from flowyml.core.dates import RunDates
from flowyml.core.errors import RunNotFoundError, UnknownStateError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.logs import level_of
from flowyml.core.origin import Origin
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.base import Health, Orchestrator
from flowyml.orchestrators.log_following import Poll, log_lines
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml.orchestrators.submission import submit_once
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml.plan.names import slug
from flowyml.runtime.step_errors import of_several

NOTHING_YET: dict[str, dict[str, Any]] = {
    "state.json": {"state": "queued"},
    "steps.json": {"steps": {}, "failures": [], "outputs": {}, "timed_out": False},
}
# --8<-- [end:imports]
# --8<-- [start:capabilities]
CAPABILITIES = Capabilities(
    "folder",
    {
        Feature.PARALLEL_STEPS: no("The worker runs one step after another."),
        Feature.PARAMETERS: yes,
        Feature.CANCEL: yes,
        Feature.LOGS: yes,
        Feature.OUTPUTS: yes,
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: yes,
        Feature.MAX_PARALLEL: yes,
        Feature.BRANCHES: yes,
        Feature.RUN_IF: yes,
        Feature.CLEANUP: yes,
        Feature.SUB_PIPELINES: yes,
        Feature.EXECUTION_GROUPS: yes,
        Feature.STEP_RETRY: yes,
        Feature.RETRYABLE_ERRORS: yes,
        Feature.STEP_TIMEOUT: yes,
        Feature.PIPELINE_TIMEOUT: yes,
        Feature.SECRETS: yes,
    },
)
# --8<-- [end:capabilities]
# --8<-- [start:status]
STATUSES = {
    "queued": ExecutionStatus.QUEUED,
    "waiting": ExecutionStatus.QUEUED,
    "running": ExecutionStatus.RUNNING,
    "done": ExecutionStatus.COMPLETED,
    "failed": ExecutionStatus.FAILED,
    "cancelled": ExecutionStatus.CANCELLED,
    "upstream_failed": ExecutionStatus.CANCELLED,
    "timeout": ExecutionStatus.TIMEOUT,
    "skipped": ExecutionStatus.COMPLETED,
    "no_items": ExecutionStatus.COMPLETED,
}


def status_of(state: str) -> ExecutionStatus:
    """The status for a state of the engine. One that is not in the table is an error, never a guess."""
    if state not in STATUSES:
        raise UnknownStateError(f"The engine reports the state {state!r}, which this adapter does not know.")
    return STATUSES[state]


# --8<-- [end:status]
# --8<-- [start:compile]
WORKER = Path(__file__).with_name("flowyml_folder_worker.py")


def compiled(plan: Plan, bundle: str) -> dict[str, Any]:
    """The plan as a job of the engine: a command. Pure: the same plan gives the same job."""
    return {"pipeline": plan.name, "bundle": bundle, "command": [sys.executable, "-u", str(WORKER), "{run}"]}


# --8<-- [end:compile]
# --8<-- [start:submit]
class FolderOrchestrator(Orchestrator):
    """Runs pipelines on the engine that watches ``folder``."""

    name = "folder"
    capabilities = CAPABILITIES

    def __init__(self, folder: Path, *, retry_policy: OrchestratorRetryPolicy | None = None) -> None:
        super().__init__(retry_policy=retry_policy)
        self.folder = folder

    @property
    def reader(self) -> FolderReader:
        return FolderReader(self.folder)

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        job = json.dumps(compiled(bundle.plan, bundle.filename), indent=2)
        return {"job.json": job.encode(), bundle.filename: bundle.data}

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        plan, job_id = bundle.plan, slug(run_id)
        origin = bundle.origin and bundle.origin.to_dict()
        about = {"run_id": run_id, "created": time.time(), "origin": origin, "code": bundle.code_digest}
        about |= {"dates": RunDates().plain(), "place": run_place(f"folder {self.folder}", plan.name, run_id)}
        job = {**compiled(plan, str(bundle.write(self.folder / "bundles"))), **about}

        def create() -> str | None:
            with TemporaryDirectory(dir=self.folder, prefix=".", ignore_cleanup_errors=True) as new:
                Path(new, "parameters.json").write_text(json.dumps(dict(parameters)))
                Path(new, "job.json").write_text(json.dumps(job))
                with suppress(OSError):  # it is there: of many, one submits it
                    Path(new).rename(self.folder / job_id)
                    return job_id
            return None

        return submit_once(bundle, run_id, parameters, find=lambda: self.get_run(job_id), create=create)

    # --8<-- [end:submit]
    # --8<-- [start:operate]
    def cancel(self, job_id: str) -> bool:
        if self.get_run(job_id).status.is_terminal:
            return False
        (self.folder / job_id / "cancel").touch()
        return True

    def health(self) -> Health:
        alive = self.folder / "alive"
        seen = alive.stat().st_mtime if alive.exists() else 0
        return Health(reachable=time.time() - seen < 10, url=str(self.folder))


# --8<-- [end:operate]
# --8<-- [start:read]
@dataclass(frozen=True)
class FolderReader(RunReader):
    """Reads the runs in a folder."""

    folder: Path

    def get_run(self, job_id: str) -> Run:
        job, state, records = (self._read(job_id, f"{name}.json") for name in ("job", "state", "steps"))
        timed_out = records["timed_out"] and state["state"] == "failed"
        return Run(
            job_id=job_id, run_id=job["run_id"], pipeline=job["pipeline"],
            status=status_of("timeout" if timed_out else state["state"]), raw_status=state["state"],
            created_at=_time(job["created"]), started_at=_time(state.get("started")),
            ended_at=_time(state.get("ended")),
            error=of_several(records["failures"]) or None, parameters=self._read(job_id, "parameters.json"),
            origin=Origin.from_dict(job["origin"]), code_digest=job["code"],
        )  # fmt: skip

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        runs = sorted(Runs.listed(self._job_ids(), self.get_run), key=lambda run: str(run.created_at), reverse=True)
        return [run for run in runs if pipeline in (None, run.pipeline)][:limit]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        job, records = self._read(job_id, "job.json"), self._read(job_id, "steps.json")["steps"].values()
        has_ended = "ended" in self._read(job_id, "state.json")
        runs: list[StepRun] = []
        for step in Bundle.read(Path(job["bundle"])).plan:
            of_step = [record for record in records if record["step"] == step.name] or [
                {"step": step.name, "index": []}
            ]
            runs += [_step_run(record, has_ended) for record in sorted(of_step, key=lambda record: record["index"])]
        return tuple(runs)

    def outputs(self, job_id: str) -> Outputs:
        job, records = self._read(job_id, "job.json"), self._read(job_id, "steps.json")
        packed = {name: value for name, (value, _) in records["outputs"].items()}
        loops = {name: loops for name, (_, loops) in records["outputs"].items()}
        return read_outputs(job["run_id"], packed, open_store(self.folder / job_id / "artifacts"), loops=loops)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        self._read(job_id, "job.json")
        shown = 0

        def poll() -> Poll:
            nonlocal shown
            ended = self.get_run(job_id).status.is_terminal
            path = self.folder / job_id / "log.jsonl"
            lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may be half written
            for line in lines[shown:]:
                yield from _log_lines(line)
            shown = len(lines)
            return ended or not follow

        return log_lines(poll, follow=follow, pause=0.2)

    def _job_ids(self) -> list[str]:
        folders = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        return [path.name for path in folders if (path / "job.json").exists()]

    def _read(self, job_id: str, name: str) -> dict[str, Any]:
        """A file of a run. The engine writes the state when it begins."""
        if job_id not in self._job_ids():
            raise RunNotFoundError(f"No run in {self.folder} has the id {job_id!r}.")
        path = self.folder / job_id / name
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else NOTHING_YET[name]
        return content


def _step_run(record: Mapping[str, Any], has_ended: bool) -> StepRun:
    state = record.get("state", "waiting")
    state = "cancelled" if has_ended and state in ("waiting", "running") else state
    not_run = f"not run, since {record['cause']}" if state == "upstream_failed" else None
    return StepRun(
        name=record["step"], index=tuple(record["index"]), status=status_of(state), raw_status=state,
        attempt=record.get("attempt", 0), started_at=_time(record.get("started")), ended_at=_time(record.get("ended")),
        error=record.get("error") or not_run,
    )  # fmt: skip


def _log_lines(text: str) -> Iterator[LogLine]:
    printed = json.loads(text)
    try:
        line = json.loads(printed["line"])
        step, index, source, said = line["step"], tuple(line["index"]), line["source"], line["line"]
    except (ValueError, TypeError, KeyError):  # of the worker itself
        step, index, source, said = "", (), "stderr", printed["line"]
    level = logging.getLevelName(level_of(source))
    yield LogLine(said, step=step, index=index, level=level, time=_time(printed["time"]))


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# --8<-- [end:read]
