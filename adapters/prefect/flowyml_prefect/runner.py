"""Execute a run without a work pool: a process that claims it, starts Prefect's engine, and watches the engine.

The engine is Prefect's own (``python -m prefect.engine``), started as its runner and workers do. The process around it
is small and does not import Prefect. That is why it is not Prefect's runner: ``prefect flow-run execute`` loads Prefect
three times in a row, and begins a run 8.7 s after it is called; this begins it after 2.7 s, with half the memory.

It behaves like that runner. Only the process that moves the run to PENDING executes it, so of many that try, only one
does. "Cancelling" is seen within a second: the engine learns over Prefect's control channel that it is cancelled, gets
a SIGTERM, and SIGKILL if it has not ended in time. An engine that dies leaves a crashed run, not a running one.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from flowyml.core.errors import EngineError, EngineUnreachableError, ServerTroubleError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.files import end_of
from flowyml.core.home import open_private, private_folder
from flowyml.core.locks import lock
from flowyml.core.process_identity import identity_of, signal_group
from flowyml.orchestrators.background import start_detached
from flowyml.plan.groups import Cleanup
from flowyml.plan.model import Plan
from flowyml.plan.secrets import environment_without_secrets
from flowyml.runtime.step_errors import signal_text
from flowyml_prefect.automations import SILENT
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection
from flowyml_prefect.engine_process import ENGINE_MODULE, ControlChannel, run_variables
from flowyml_prefect.records import FlowRun
from flowyml_prefect.status import status_of
from flowyml_prefect.step_runs import TASK_RUNS

__all__ = ["claim", "launch", "main"]

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 30
_CLEANUP_SECONDS = 3600  # for the steps that clean up in a run that was cancelled
_PATIENCE_SECONDS = 3600  # with a server that is down while the flow continues
_LAST_BYTES = 10_000  # of a log, which contain its last line, or a part of it that is longer than shown


def launch(run_id: str, entrypoint: str, environment: Mapping[str, str], logs: Path) -> None:
    """Start the process that executes a run; it outlives this one. A second such process for a run does no harm."""
    private_folder(logs)
    with open_private(logs / f"{run_id}.log", "ab") as log:
        lock(log.fileno(), shared=True, wait=None)  # for as long as a process has it open: so it is not pruned
        start_detached(
            [sys.executable, "-P", "-m", "flowyml_prefect.runner", run_id, entrypoint, log.name], log,
            env={**environment_without_secrets(), **environment},
        )  # fmt: skip


def main(run_id: str, entrypoint: str, log: Path) -> int:
    """Execute a run, in a process of its own. The log file stays only if something went wrong."""
    connection = Connection.configured()
    if connection is None:
        raise SystemExit("PREFECT_API_URL is not set.")
    client = PrefectClient(connection)
    claim_id = claim(client, run_id)
    if claim_id is None:
        return 0  # another process executes it, or it was cancelled
    code = _Attempt(client, run_id, entrypoint, log, claim_id).execute()
    if code == 0:
        log.unlink(missing_ok=True)
    return code


def claim(client: PrefectClient, run_id: str) -> str | None:
    """Claim a run for this process; return the id of the claim, or None if another process has the run.

    Each try has the same id, since a try whose answer was lost may have succeeded.
    """
    claim_id = str(uuid4())
    return claim_id if _call_patiently(lambda: client.claim(run_id, claim_id)) else None


@dataclass
class _Attempt:
    """One execution of a run, from its claim to its end."""

    client: PrefectClient
    run_id: str
    entrypoint: str
    log: Path
    claim_id: str
    process: str = ""
    channel: ControlChannel = field(init=False)
    has_ended: bool = False

    def __post_init__(self) -> None:
        self.channel = ControlChannel()

    def execute(self) -> int:
        """Run the engine, and make sure that the run ends on the server too."""
        with self.channel:
            engine = self._start()
            _forward_sigterm(engine)
            self.process = f"{socket.gethostname()}:{engine.pid}"
            with suppress(EngineError):
                self.client.record_process(self.run_id, self.process)
            self._watch(engine)
            engine.kill_group()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the engine has ended, and the server may stay away
        return self._conclude(engine.returncode)

    def _start(self) -> _Engine:
        environment = {
            **environment_without_secrets(),
            **self.channel.environment,
            **run_variables(self.run_id, self.entrypoint),
            "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        }
        return _Engine(
            [sys.executable, "-P", "-m", ENGINE_MODULE],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _watch(self, engine: _Engine) -> None:
        """Wait for the engine to end, and end it once the run is cancelled or has ended on the server."""
        ended_since: float | None = None
        while not _has_ended(engine, _POLL_SECONDS):
            run = self._read_run()
            if run is None:
                continue
            if run.state_type == "CANCELLING":
                self._stop(engine)
            elif (run.state_type, run.state_name) == ("CRASHED", SILENT):
                self._contradict()
            elif status_of(run.state_type, run.state_name).is_terminal:
                self.has_ended = True
                ended_since = ended_since or time.monotonic()
                if time.monotonic() - ended_since > _GRACE_SECONDS:
                    engine.kill_group()

    def _read_run(self) -> FlowRun | None:
        try:
            return self.client.run(self.run_id)
        except EngineError:  # down for now; the flow continues
            return None

    def _contradict(self) -> None:
        """Mark a run as running again that the server took for dead: it was away and missed the heartbeats."""
        state = {
            "type": "RUNNING",
            "name": "Running",
            "message": "The flow is alive; the server had missed its heartbeats.",
        }
        with suppress(EngineError):
            self.client.set_state(self.run_id, state, force=True)

    def _stop(self, engine: _Engine) -> None:
        if self.channel.say_cancelled():
            with suppress(ProcessLookupError):
                engine.send_signal(signal.SIGTERM)
            self._await_end(engine)
        engine.kill_group()

    def _await_end(self, engine: _Engine) -> None:
        """Give the engine time to end, and before that the clean-up steps; a label of the flow marks their end."""
        deadline = time.monotonic() + (_CLEANUP_SECONDS if self._cleans_up() else _GRACE_SECONDS)
        has_cleaned_up_since: float | None = None
        while not _has_ended(engine, _POLL_SECONDS) and time.monotonic() < deadline:
            run = self._read_run()
            if run is not None and run.labels.get(TASK_RUNS):
                has_cleaned_up_since = has_cleaned_up_since or time.monotonic()
                deadline = min(deadline, has_cleaned_up_since + _GRACE_SECONDS)

    def _conclude(self, code: int) -> int:
        """End a run whose engine ended without reporting: as cancelled if that was requested, otherwise as crashed."""
        if self.has_ended:
            return 0
        run = _call_patiently(lambda: self.client.run(self.run_id), _PATIENCE_SECONDS if code else _GRACE_SECONDS)
        if status_of(run.state_type, run.state_name).is_terminal or self._is_retried(run):
            return 0
        if run.state_type == "CANCELLING":
            self._end(run, "CANCELLED", "Cancelled", "Flow run was cancelled.", ExecutionStatus.CANCELLED)
            return 0
        self._end(run, "CRASHED", "Crashed", f"{_death(code)}{self._last_words()}", ExecutionStatus.FAILED)
        return 1

    def _is_retried(self, run: FlowRun) -> bool:
        """Return whether the run ended and was retried: it waits for another attempt, or another process has it."""
        if run.state_type == "PENDING":
            return run.transition_id != self.claim_id
        return run.state_type == "SCHEDULED" or run.process not in (None, self.process)

    def _end(self, run: FlowRun, kind: str, name: str, message: str, status: ExecutionStatus) -> None:
        state = {"type": kind, "name": name, "message": message}
        _call_patiently(lambda: self.client.set_state(self.run_id, state, force=True))
        self._fire_end(run, status)

    def _fire_end(self, run: FlowRun, status: ExecutionStatus) -> None:
        """Fire the hooks that the engine could not fire before it died."""
        from flowyml.runtime.processes import StepProcesses

        for bundle, plan in self._bundles():
            if plan.hooks and run.start_time:
                seconds = time.time() - run.start_time.timestamp()
                with StepProcesses(bundle, run_id=run.name, artifacts="") as processes:
                    processes.fire("on_pipeline_end", plan.name, run.name, status, seconds)

    def _cleans_up(self) -> bool:
        return any(isinstance(group, Cleanup) for _, plan in self._bundles() for group in plan.groups)

    def _bundles(self) -> Iterator[tuple[Path, Plan]]:
        """Yield the bundle beside the flow, with its plan."""
        from flowyml.plan.bundle import Bundle

        for path in Path(self.entrypoint).parent.glob("*.pyz"):
            yield path, Bundle.read(path).plan

    def _last_words(self) -> str:
        lines = end_of(self.log, _LAST_BYTES).decode(errors="replace").strip().splitlines()
        return f" Its last line: {lines[-1][:500]} (all of them: {self.log})" if lines else ""


class _Engine(subprocess.Popen[bytes]):
    """Prefect's engine, the leader of a process group of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._identity = identity_of(self.pid)

    def kill_group(self) -> None:
        """Kill the process group, unless its id may belong to another process by now."""
        if not signal_group(self._identity, signal.SIGKILL):  # as where the process table cannot be read
            self.kill()
        self.wait()


def _forward_sigterm(engine: _Engine) -> None:
    """Pass a SIGTERM on to the engine, which then reports a crash itself."""

    def forward(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            engine.send_signal(number)

    signal.signal(signal.SIGTERM, forward)


def _has_ended(process: subprocess.Popen[bytes], within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _call_patiently(call: Callable[[], Any], patience: float = _PATIENCE_SECONDS) -> Any:
    """Make a call and return its answer; repeat it for a while if the server is down or has an error."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except (EngineUnreachableError, ServerTroubleError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _death(code: int) -> str:
    if code >= 0:
        return f"The process of the flow ended with exit code {code}."
    return f"The process of the flow was killed by {signal_text(-code)}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
