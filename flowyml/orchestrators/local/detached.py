"""Execute a submitted run in its own process, which outlives the submitting one."""

from __future__ import annotations

import codecs
import json
import os
import pickle
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flowyml.artifacts.pickling import decide_on_pickles, pickles_decided
from flowyml.core.dates import RunDates
from flowyml.core.errors import ConfigurationError, RetryRefusedError, StepCancelledError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.forks import flush_output
from flowyml.core.home import open_private, private_folder
from flowyml.core.logs import make_records
from flowyml.core.process_identity import ProcessIdentity, await_ends, identity_of, signal_process, this_process
from flowyml.core.runs import WAS_CANCELLED
from flowyml.orchestrators.background import start_detached
from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.orchestrators.local.engine import Engine, error_text
from flowyml.orchestrators.local.host import Host
from flowyml.orchestrators.local.retrying import choose
from flowyml.orchestrators.local.schema import RunRow, item_of
from flowyml.orchestrators.local.store import (
    CLEANING_UP,
    PRUNED,
    Ending,
    Line,
    RunStore,
    clear_folder,
    unread_output,
    write,
)
from flowyml.plan.bundle import Bundle
from flowyml.runtime.loading import import_from, loading
from flowyml.runtime.parent_env import apply_parent_env, read_parent_env
from flowyml.runtime.process_tree import kill_tree
from flowyml.runtime.taken import Taken

if TYPE_CHECKING:
    from flowyml.orchestrators.local.orchestrator import LocalOrchestrator

__all__ = ["described", "end_process", "job_of", "kept_job", "main", "start_again", "start_run"]

_GRACE_SECONDS = 10
_POLL_SECONDS = 0.1
_LEAVING_SECONDS = 30
_LOST = "The run completed, but its outputs and steps could not be recorded; its log has the reason. Retry it."


def start_run(
    store: RunStore, path: Path, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], orchestrator: bytes,
    dates: RunDates | None = None,
) -> bool:  # fmt: skip
    """Start the process of a new run, for the present time unless ``dates`` are given.

    Returns False, without starting anything, if the id exists.
    """
    plan, job = bundle.plan, job_of(path, dates or RunDates())
    with store.session():
        if not store.add(
            run_id, plan.name, [step.name for step in plan], parameters, this_process(),
            detached=True, origin=bundle.origin, code_digest=bundle.code_digest,
            revision=bundle.revision,
        ):  # fmt: skip
            return False
        try:
            store.keep_job(run_id, job, orchestrator)
            owner = _start(store, run_id, parameters, job, orchestrator)
        except BaseException:
            store.forget(run_id)
            shutil.rmtree(store.folder_of(run_id), ignore_errors=True)
            raise
        store.hand_over(run_id, owner)
    return True


def job_of(bundle: Path, dates: RunDates) -> dict[str, Any]:
    """Return the data to start a run, except for its parameters, which are in the database."""
    return {"bundle": str(bundle), "caller": read_parent_env(), "dates": dates.plain()}


def start_again(store: RunStore, row: RunRow, chosen: Sequence[str] | None) -> None:
    """Start the process of an ended run again. Raises ``RetryRefusedError``."""
    job, orchestrator = kept_job(store, row)
    _wait_for_process(row)
    bundle = Bundle.read(job["bundle"])
    if row.code_digest and bundle.code_digest != row.code_digest:
        raise RetryRefusedError(
            f"Run {row.run_id!r} cannot be retried: {job['bundle']} holds other code than it ran. Start a new run."
        )
    if not orchestrator.startswith(b"{") and (reason := decide_on_pickles()):
        raise RetryRefusedError(
            f"Run {row.run_id!r} cannot be retried: its orchestrator is kept as a pickle, which is forbidden: {reason}."
        )
    plan = bundle.plan
    again, gone = choose(plan, store.steps(row.number), store.kept(row.number), chosen)
    if not again and not gone:
        raise RetryRefusedError(f"Run {row.run_id!r} has no step to run again.")
    positions = {step.name: position for position, step in enumerate(plan)}
    rows, forgotten = ([(positions[name], item_of(index)) for name, index in instances] for instances in (again, gone))
    with store.session():
        if not store.queue_again(row.number, this_process(), rows, forgotten):
            raise RetryRefusedError(f"Another process has just retried run {row.run_id!r}.")
        try:
            job["caller"]["no_pickles"] = decide_on_pickles()
            owner = _start(store, row.run_id, json.loads(row.parameters), job, orchestrator)
        except BaseException as error:
            store.finish(row.run_id, Ending("FAILED", "failed", f"It could not be restarted: {error_text(error)}"))
            clear_folder(store.folder_of(row.run_id))
            raise
        store.hand_over(row.run_id, owner)


def _wait_for_process(row: RunRow) -> None:
    """Wait until the process of the previous attempt has ended: it records the end, then clears the run's folder."""
    owner = ProcessIdentity(row.host, row.pid, row.born)
    if row.detached and owner != this_process() and not await_ends([owner], _LEAVING_SECONDS):
        raise RetryRefusedError(
            f"Run {row.run_id!r} has ended, but its process (id {row.pid}) has not exited yet. Try again when it has."
        )


def kept_job(store: RunStore, row: RunRow) -> tuple[dict[str, Any], bytes]:
    kept = store.job(row.number)
    if row.raw_status == PRUNED:
        why = "`flowyml prune` is removing the run"
    elif kept is None and row.raw_status == "crashed":
        why = "the process that called run() executed it, and died"
    elif kept is None and ExecutionStatus[row.status].is_successful:
        why = "pipeline.run() saves the code of failed runs only, `flowyml run` and submit() save that of each"
    elif kept is None:
        why = "it could not be recorded when it ran"
    elif "lacks" in kept[0]:
        why = kept[0]["lacks"]
    elif not Path(kept[0]["bundle"]).is_file():
        why = f"its bundle, {kept[0]['bundle']}, is gone"
    else:
        return kept[0], kept[1] or b""
    raise RetryRefusedError(f"The code of run {row.run_id!r} is not there: {why}. Start a new run instead.")


def _start(
    store: RunStore, run_id: str, parameters: Mapping[str, Any], job: Mapping[str, Any], orchestrator: bytes
) -> ProcessIdentity:  # fmt: skip
    folder = store.folder_of(run_id)
    private_folder(folder)
    with open_private(folder / "job.json", "w") as file:
        json.dump({"run_id": run_id, "store": str(store.path), "parameters": parameters, **job}, file)
    with open_private(folder / "orchestrator") as file:
        file.write(orchestrator)
    with open_private(folder / "output.log", "ab") as log:
        command = [sys.executable, "-P", str(Path(__file__).with_name("__main__.py")), str(folder)]
        process = start_detached(command, log, secrets=True)
    return identity_of(process.pid)


def described(orchestrator: LocalOrchestrator, options: Mapping[str, Any] | None) -> bytes:
    """Serialize the orchestrator for another process: its options as JSON, or without options a pickle.

    Raises ``ConfigurationError`` if a pickle is needed and pickles are forbidden.
    """
    if options is not None:
        return json.dumps(options).encode()
    if reason := decide_on_pickles():
        raise ConfigurationError(
            f"{type(orchestrator).__name__} is a subclass of LocalOrchestrator, which reaches another process only as "
            f"a pickle, and those are forbidden: {reason}. Use LocalOrchestrator itself, or allow pickles."
        )
    import cloudpickle

    data: bytes = cloudpickle.dumps(orchestrator)
    return data


def _described(data: bytes, make_orchestrator: Callable[..., LocalOrchestrator]) -> LocalOrchestrator:
    options = json.loads(data)
    try:
        return make_orchestrator(**options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"The options of LocalOrchestrator that are kept with this run are not those of this FlowyML: {error}. "
            f"Another release kept them, or another program changed them. Start a new run."
        ) from error


def _pickled_orchestrator(data: bytes) -> LocalOrchestrator:
    if reason := decide_on_pickles():
        raise ConfigurationError(f"The orchestrator of this run is kept as a pickle, which is forbidden: {reason}.")
    with loading():
        orchestrator: LocalOrchestrator = pickle.loads(data)
    return orchestrator


def end_process(store: RunStore, row: RunRow) -> None:
    """Ask the process of a cancelled run to stop, and kill it with all its children if it does not.

    A process that runs clean-ups ends by itself, within the time that ``stopping`` allows.
    """
    owner = ProcessIdentity(row.host, row.pid, row.born)
    if not _is_its_own(row) or not signal_process(owner, signal.SIGTERM):
        return
    if _ends(store, row.run_id, _GRACE_SECONDS):
        return
    kill_tree(owner)
    store.finish(row.run_id, Ending("CANCELLED", "cancelled", "The run was cancelled; its process had to be killed."))


def _is_its_own(row: RunRow) -> bool:
    """Return whether the recorded process exists only for this run, and did not call ``run()`` or ``submit()``."""
    return bool(row.detached) and row.raw_status != "queued"


def main(folder: Path, make_orchestrator: Callable[..., LocalOrchestrator]) -> int:
    """Execute the run, make sure that its end is recorded, and clean up.

    ``make_orchestrator`` creates an orchestrator from its options.
    """
    job = json.loads((folder / "job.json").read_bytes())
    apply_parent_env(job["caller"])
    host = _Detached(job["run_id"], folder, job["caller"].get("levels", {}))
    host.dates = RunDates.of(job["dates"])
    signal.signal(signal.SIGTERM, host.on_sigterm)
    store = RunStore(Path(job["store"]))
    try:
        with pickles_decided(job["caller"]["no_pickles"]):
            ending = _execute(job, folder, host, make_orchestrator)
    except BaseException as error:
        if host.is_stopped:  # before the run had begun to take notice
            ending = Ending("CANCELLED", "cancelled", WAS_CANCELLED)
        else:
            traceback.print_exc()
            ending = Ending("FAILED", "failed", error_text(error))
    unrecorded = Ending("FAILED", "crashed", _LOST) if ending.status == "COMPLETED" else ending
    if store.finish(job["run_id"], unrecorded):  # not recorded yet: execute() could not, or did not get that far
        ending = unrecorded
        host.record_output(store)
    clear_folder(folder, all_of_it=ending.status == "COMPLETED")
    if host.has_stopped:
        host.end()
    return 0 if ending.status == "COMPLETED" else 1


def _execute(
    job: Mapping[str, Any], folder: Path, host: _Detached, make_orchestrator: Callable[..., LocalOrchestrator]
) -> Ending:
    pipeline = BundledPipeline(job["bundle"])
    host.code_folder = pipeline.folder / "code"
    host.taken = Taken.read(pipeline.folder, job["run_id"])
    import_from(pipeline.folder)
    kept = (folder / "orchestrator").read_bytes()
    orchestrator = _described(kept, make_orchestrator) if kept.startswith(b"{") else _pickled_orchestrator(kept)
    orchestrator.host = host
    orchestrator.secrets = {}  # the bundle's plan has this target's names already
    result = orchestrator.execute(pipeline, job["run_id"], job["parameters"])
    return Ending(result.status.name, result.status.name.lower(), result.error)


class _Detached(Host):
    """A process that exists for one run only."""

    alone = keeps = True

    def __init__(self, run_id: str, folder: Path, levels: Mapping[str, int]) -> None:
        self.run_id: str = run_id
        self._levels = levels
        self.is_stopped = False
        self._engine: Engine | None = None
        self._output = folder / "output.log"
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def has_stopped(self) -> bool:
        """True if the run was stopped: by a signal, or by its database record before that came."""
        return self.is_stopped or bool(self._engine and self._engine.stopping)

    def begin(self, engine: Engine) -> None:
        self._engine = engine
        make_records(self._levels)

    def stray_text(self) -> str:
        data = unread_output(self._output.parent)
        return self._decoder.decode(data)

    def record_output(self, store: RunStore) -> None:
        """Record the output as the log of a run that failed before or after its steps."""
        row = store.get(self.run_id)
        lines = [Line(None, "INFO", time.time(), line) for line in self.stray_text().splitlines()]
        with store.session() as db:
            write(db, row.number, (), lines)

    def on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Run in the main thread, between two of its instructions."""
        if self._engine is not None and self._engine.is_cleaning_up:
            return
        self.is_stopped = True
        if self._engine is None:
            raise KeyboardInterrupt
        self._engine.stopping = self._engine.stopping or "cancelled"  # the recorder's thread does the rest
        if self._engine.is_inside_step:
            raise StepCancelledError("The step was stopped with its run.")

    def end(self) -> None:
        """End this process at once, with all running children of its steps."""
        clear_folder(self._output.parent)
        flush_output()
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)


def _ends(store: RunStore, run_id: str, seconds: float) -> bool:
    """Return whether a run ends, or begins its clean-up, in time.

    The time is counted in polls: when the machine stalls, so does the run.
    """
    for _ in range(round(seconds / _POLL_SECONDS)):
        row = store.find(run_id)
        if row is None or row.status not in ("QUEUED", "RUNNING") or row.raw_status == CLEANING_UP:
            return True
        time.sleep(_POLL_SECONDS)
    return False
