"""A whole adapter, for GNU make: the page "Write an adapter" shows it part by part."""

from __future__ import annotations

# --8<-- [start:imports]
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowyml.artifacts import open_store, run_place
from flowyml.core.capabilities import Capabilities, Feature, no, yes
from flowyml.core.dates import RunDates
from flowyml.core.errors import ConfigurationError, RunNotFoundError, UnknownStateError, UnsupportedFeatureError
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
from flowyml_make_worker import read, records_of, tasks_of

# --8<-- [end:imports]
# --8<-- [start:capabilities]
SUPPORTED = [
    Feature.PARALLEL_STEPS, Feature.PARAMETERS, Feature.CANCEL, Feature.LOGS, Feature.OUTPUTS, Feature.ATTACH,
    Feature.IDEMPOTENT_SUBMIT, Feature.FAN_OUT, Feature.MAX_PARALLEL, Feature.BRANCHES, Feature.RUN_IF,
    Feature.CLEANUP, Feature.SUB_PIPELINES, Feature.EXECUTION_GROUPS, Feature.STEP_RETRY, Feature.RETRYABLE_ERRORS,
    Feature.STEP_TIMEOUT, Feature.PIPELINE_TIMEOUT, Feature.SECRETS,
]  # fmt: skip
CAPABILITIES = Capabilities(
    "make",
    {**dict.fromkeys(SUPPORTED, yes), Feature.CACHING: no("The records of steps do not say that one was cached.")},
)
# --8<-- [end:capabilities]
# --8<-- [start:status]
STATUSES = {
    "queued": ExecutionStatus.QUEUED,
    "waiting": ExecutionStatus.QUEUED,
    "running": ExecutionStatus.RUNNING,
    "completed": ExecutionStatus.COMPLETED,
    "failed": ExecutionStatus.FAILED,
    "lost": ExecutionStatus.FAILED,
    "cancelled": ExecutionStatus.CANCELLED,
    "upstream_failed": ExecutionStatus.CANCELLED,
    "timeout": ExecutionStatus.TIMEOUT,
    "skipped": ExecutionStatus.COMPLETED,
    "no_items": ExecutionStatus.COMPLETED,
}


def status_of(state: str) -> ExecutionStatus:
    """Return the status for a state. One that is not in the table is an error, never a guess."""
    if state not in STATUSES:
        raise UnknownStateError(f"The run has the state {state!r}, which this adapter does not know.")
    return STATUSES[state]


# --8<-- [end:status]
# --8<-- [start:compile]
WORKER = Path(__file__).with_name("flowyml_make_worker.py")
JOBS = 8  # tasks of a run at the same time
MAKEFILE = r"""# Pipeline {name!r}
TASK := "{python}" "{worker}" "$(RUN)"
AGAIN = $(MAKE) -f "$(RUN)/Makefile"
.PHONY: run main cleanup {main} {cleanup}
run:
	sh -c 'echo $$$$ > "$(RUN)/pid"; test -e "$(RUN)/cancel" && exit 143; \
	exec timeout --foreground {timeout} $(AGAIN) main'; code=$$?; \
	mv "$(RUN)/stoppable" "$(RUN)/over" 2>/dev/null || code=143; $(AGAIN) cleanup; $(TASK) end $$code
main: {main}
cleanup: {cleanup}
{rules}"""


def makefile(plan: Plan) -> str:
    """Return the plan as a Makefile. Pure: the same plan gives the same text. Raises ``UnsupportedFeatureError``.

    make must not skip what comes after a failed step, so tasks end well; by the dash it goes on if one has died. By
    ``exec``, a signal that make passes on reaches the worker, not a shell.
    """
    structure, tasks, needs, rules = plan.structure, tasks_of(plan), dict[str, list[str]](), ""
    target_of = {step: f"task-{number}" for number, steps in enumerate(tasks) for step in steps}
    cleanup = {target_of[step.name] for step in plan if structure.is_cleanup(step.group)}
    for number, steps in enumerate(tasks):
        target = f"task-{number}"
        before = {target_of[name] for step in steps for name in structure.upstream(plan.by_name[step])} - {target}
        needs[target] = sorted(other for other in before if (other in cleanup) == (target in cleanup))
        rules += f"\n# {steps}\n{target}: {' '.join(needs[target])}\n\t-exec $(TASK) {number}\n"
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        steps = [step for step, target in target_of.items() if target in error.args[1]]
        raise UnsupportedFeatureError(f"make: loops and execution groups wait for one another: {steps}.") from error
    return MAKEFILE.format(
        name=plan.name, python=sys.executable, worker=WORKER, timeout=plan.timeout_seconds or 0, rules=rules,
        main=" ".join(sorted(needs.keys() - cleanup)), cleanup=" ".join(sorted(cleanup)),
    )  # fmt: skip


# --8<-- [end:compile]
# --8<-- [start:submit]
class MakeOrchestrator(Orchestrator):
    """Runs pipelines by GNU make, on this machine. ``folder`` is for their files."""

    name = "make"
    capabilities = CAPABILITIES
    worker_packages = ("flowyml_make_worker",)  # a script that imports this class is imported by workers too

    def __init__(self, folder: Path, *, retry_policy: OrchestratorRetryPolicy | None = None) -> None:
        super().__init__(retry_policy=retry_policy)
        self.folder = folder
        if found := set(str(folder)) & set("\"$'`\\\n"):
            raise ConfigurationError(f"make and shells read {sorted(found)} in {str(folder)!r} in their own way.")

    @property
    def reader(self) -> MakeReader:
        return MakeReader(self.folder)

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        return {"Makefile": makefile(bundle.plan).encode(), bundle.filename: bundle.data}

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        job_id, run = slug(run_id), self.folder / slug(run_id)
        job = {
            "run_id": run_id, "pipeline": bundle.plan.name, "parameters": dict(parameters), "created": time.time(),
            "origin": bundle.origin and bundle.origin.to_dict(), "code": bundle.code_digest,
            "bundle": str(bundle.write(self.folder / "bundles")), "dates": RunDates().plain(),
            "place": run_place(f"make {self.folder}", bundle.plan.name, run_id),
        }  # fmt: skip
        compiled = makefile(bundle.plan)

        def create() -> str | None:
            with TemporaryDirectory(dir=self.folder, prefix=".", ignore_cleanup_errors=True) as new:
                Path(new, "Makefile").write_text(compiled)
                Path(new, "job.json").write_text(json.dumps(job))
                Path(new, "stoppable").touch()
                try:
                    Path(new).rename(run)
                except OSError:  # it is there: of many, one submits it
                    return None
            command = [  # make runs in the background, and the file `lock` is locked as long as it does
                "setsid", "--fork", "flock", "--close", f"{run}/lock",
                "make", "--silent", "--no-print-directory", f"--jobs={JOBS}", f"--file={run}/Makefile", f"RUN={run}",
            ]  # fmt: skip
            with (run / "log.jsonl").open("a") as log:
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            return job_id

        return submit_once(bundle, run_id, parameters, find=lambda: self.get_run(job_id), create=create)

    # --8<-- [end:submit]
    # --8<-- [start:operate]
    def cancel(self, job_id: str) -> bool:
        """Stop ``make main``, which stops its tasks; clean-ups follow. Return False if it has ended already."""
        if self.get_run(job_id).status.is_terminal:
            return False
        run, pid = self.folder / job_id, self.folder / job_id / "pid"
        try:  # the end of `make main` renames this file too: only one of the two can
            (run / "stoppable").rename(run / "cancel")
        except FileNotFoundError:
            return (run / "cancel").exists()
        if number := pid.exists() and pid.read_text():
            with suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGTERM)
        return True

    def health(self) -> Health:
        return Health(reachable=self.folder.is_dir() and shutil.which("make") is not None, url=str(self.folder))


# --8<-- [end:operate]
# --8<-- [start:read]
@dataclass(frozen=True)
class MakeReader(RunReader):
    """Reads the runs in a folder."""

    folder: Path

    def get_run(self, job_id: str) -> Run:
        job, state, pid = self._job(job_id), self._state(job_id), self.folder / job_id / "pid"
        return Run(
            job_id=job_id, run_id=job["run_id"], pipeline=job["pipeline"], parameters=job["parameters"],
            status=status_of(state["state"]), raw_status=state["state"], created_at=_time(job["created"]),
            started_at=_time(pid.stat().st_mtime) if pid.exists() else None, ended_at=_time(state.get("ended")),
            error=of_several(state.get("failures", ())) or None, origin=Origin.from_dict(job["origin"]),
            code_digest=job["code"],
        )  # fmt: skip

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        runs = sorted(Runs.listed(self._job_ids(), self.get_run), key=lambda run: str(run.created_at), reverse=True)
        return [run for run in runs if pipeline in (None, run.pipeline)][:limit]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        run = self._state(job_id)
        records = records_of(self.folder / job_id, self._plan(job_id))
        return tuple(_step_run(record, run) for record in records)

    def outputs(self, job_id: str) -> Outputs:
        outputs = self._state(job_id).get("outputs", {})
        plan, store = self._plan(job_id), open_store(self.folder / job_id / "artifacts")
        loops = {output.name: plan.structure.item_errors(output.source) for output in plan.outputs}
        return read_outputs(self._job(job_id)["run_id"], outputs, store, loops=loops)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        self._job(job_id)
        shown = 0

        def poll() -> Poll:
            nonlocal shown
            ended = self.get_run(job_id).status.is_terminal
            path = self.folder / job_id / "log.jsonl"
            lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may be half written
            yield from map(_log_line, lines[shown:])
            shown = len(lines)
            return ended or not follow

        return log_lines(poll, follow=follow, pause=0.2)

    def _job_ids(self) -> list[str]:
        return [path.parent.name for path in self.folder.glob("[!.]*/job.json")]

    def _job(self, job_id: str) -> Any:
        if job_id not in self._job_ids():
            raise RunNotFoundError(f"No run in {self.folder} has the id {job_id!r}.")
        return read(self.folder / job_id / "job.json")

    def _plan(self, job_id: str) -> Plan:
        return Bundle.read(self._job(job_id)["bundle"]).plan

    def _state(self, job_id: str) -> Any:
        run = self.folder / job_id
        has_begun = (run / "pid").exists()
        with suppress(BlockingIOError):  # another process has it: make runs
            if has_begun:
                with (run / "lock").open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return read(run / "end.json") or {"state": "lost" if has_begun else "queued"}
        return {"state": "running"}


def _step_run(record: Mapping[str, Any], run: Mapping[str, Any]) -> StepRun:
    state = record["state"]
    if "end" not in record and status_of(run["state"]).is_terminal:
        state = "cancelled" if run["state"] in ("cancelled", "timeout") else "lost"
    not_run = f"not run, since {record['cause']}" if state == "upstream_failed" else None
    return StepRun(
        name=record["step"], index=tuple(record["index"]), status=status_of(state), raw_status=state,
        attempt=record.get("attempt", 0), started_at=_time(record.get("started")), ended_at=_time(record.get("ended")),
        error=record.get("error") or not_run,
    )  # fmt: skip


def _log_line(text: str) -> LogLine:
    try:
        line = json.loads(text)
    except ValueError:  # of make itself
        return LogLine(text)
    level = logging.getLevelName(level_of(line["source"]))
    return LogLine(line["line"], step=line["step"], index=tuple(line["index"]), level=level, time=_time(line["time"]))


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


# --8<-- [end:read]
