"""Supervises a run on KFP's official local runner.

``python -m flowyml_kubeflow.local.supervisor FOLDER`` starts a second process that is KFP's (``kfp_process``), and ends
it at the timeout or on cancellation. All data of the run is in the files of its folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowyml.core.durations import span_text
from flowyml.core.locks import held
from flowyml.core.process_identity import ProcessIdentity, await_ends, identity_of, signal_group, signal_process
from flowyml.runtime.process_tree import descendants, kill_all
from flowyml.runtime.shutdown import GRACE
from flowyml_kubeflow.attempts import LOCAL
from flowyml_kubeflow.local.folder import RunFolder

__all__ = ["main", "stop_steps"]

_SLICE = 0.05
_FOR_LOOKS = 1.0  # most seconds that the lock is waited for


def main(arguments: list[str]) -> int:
    """Supervise the run in a folder, unless another process does, which then holds its lock."""
    folder = RunFolder(Path(arguments[0]))
    with held(folder.lock, wait=_FOR_LOOKS) as is_alone:
        if is_alone and not folder.result():
            _supervise(folder)
    return 0


def _supervise(folder: RunFolder) -> None:
    request = folder.request
    folder.write("started.json", {"time": time.time()})
    limit = request.get("timeout_seconds")
    deadline = time.monotonic() + limit if limit else None
    ending = None
    # The environment of KFP's process is also that of all steps, but for those in containers.
    environment = {LOCAL: str(folder.path), "FLOWYML_RUN_ID": request["run_id"], "PYTHONUNBUFFERED": "1"}
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowyml_kubeflow.local.kfp_process", str(folder.path)], stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip
    leader = identity_of(process.pid)
    folder.write("kfp.json", {"group": leader.pid, "born": leader.born})
    while process.poll() is None and ending is None:
        time.sleep(_SLICE)
        if folder.is_cancelled():
            ending = "CANCELED"
        elif deadline and time.monotonic() >= deadline:
            ending = "TIMEOUT"
    if ending is None and (outcome := folder.read("outcome.json")):
        folder.end(outcome["state"], outcome.get("error"))
        return
    _stop(process, leader, folder)
    folder.end(ending or "FAILED", _why(folder, ending, limit))


def _why(folder: RunFolder, ending: str | None, limit: float | None) -> str | None:
    if ending == "TIMEOUT":
        return f"The run took longer than its timeout of {span_text(limit or 0)} and was stopped."
    if ending is None:
        return f"KFP's local runner died:\n{folder.last_words()}"
    return None


def _stop(process: subprocess.Popen[bytes], leader: ProcessIdentity, folder: RunFolder) -> None:
    """Suspend the runner and the processes of its tasks, so that nothing begins; ask the steps to stop; kill all."""
    signal_group(leader, signal.SIGSTOP)
    steps = [child for child in descendants(leader.pid) if _leads_group(child.pid)]
    for step in steps:
        signal_process(step, signal.SIGTERM)
    await_ends(steps, GRACE)
    kill_all(steps)
    if not signal_group(leader, signal.SIGKILL):  # as where the process table cannot be read
        process.kill()
    process.wait()
    stop_steps(folder)


def _leads_group(pid: int) -> bool:
    """Return whether a process leads a group, as that of a step does."""
    with suppress(ProcessLookupError):
        return os.getpgid(pid) == pid
    return False


def stop_steps(folder: RunFolder) -> None:
    """End the group of KFP's process, and its containers. A step ends with the task that waits for it."""
    if leader := folder.leader:
        signal_group(leader, signal.SIGKILL, bearing=f"{LOCAL}={folder.path}")
    if folder.request["runner"] == "docker":
        _stop_containers(folder.request)


def _stop_containers(request: Mapping[str, Any]) -> None:
    import docker  # type: ignore[import-untyped]  # ships no types

    client = docker.from_env()
    try:
        for container in client.containers.list(filters={"label": f"flowyml.job={request['job_id']}"}):
            with suppress(docker.errors.APIError):
                container.kill()
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
