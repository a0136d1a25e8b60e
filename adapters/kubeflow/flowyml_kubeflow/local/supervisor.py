"""Runs one compiled pipeline by KFP's official local runner, in a process of its own.

``python -m flowyml_kubeflow.local.supervisor FOLDER`` supervises: it starts a second process that is KFP's, and ends
it at the timeout or when somebody asks for it. All that is known of the run stands in the files of its folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowyml.core.process_identity import ProcessIdentity, identity_of, is_alive, signal_group, signal_process
from flowyml.runtime.shutdown import GRACE
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import LOCAL, fire_hook
from flowyml_kubeflow.local.folder import RunFolder

__all__ = ["for_kfp_local", "main", "stop_steps"]

_SLICE = 0.05
_LOOKS = 20  # at a lock that is held, a slice apart
_LIGHT = "_KFP_RUNTIME"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # kfp.local writes them into its errors
_SCHEDULE_TIME = "{{$.pipeline_job_schedule_time_utc}}"
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG; source: prctl(2)


def main(arguments: list[str]) -> int:
    """Supervise a run, or with ``--kfp`` be the process that KFP runs in."""
    if arguments[0] == "--kfp":
        return _run_kfp(RunFolder(Path(arguments[1])))
    folder = RunFolder(Path(arguments[0]))
    with _alone(folder) as alone:
        if alone and not folder.result():
            _supervise(folder)
    return 0


@contextmanager
def _alone(folder: RunFolder) -> Iterator[bool]:
    """Hold the lock of a run: whoever finds it free knows that nobody runs it. Who only looks holds it for a moment."""
    with folder.lock.open("a") as file:
        for _ in range(_LOOKS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_SLICE)
            else:
                yield True
                return
        yield False


def _supervise(folder: RunFolder) -> None:
    request = folder.request()
    folder.write("started.json", {"time": time.time()})
    limit = request.get("timeout_seconds")
    deadline = time.monotonic() + limit if limit else None
    ending = None
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowyml_kubeflow.local.supervisor", "--kfp", str(folder.path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(folder),
        )  # fmt: skip
        leader = identity_of(process.pid)
        folder.write("kfp.json", {"group": leader.pid, "born": leader.born})
        while process.poll() is None and ending is None:
            time.sleep(_SLICE)
            if folder.is_cancelled():
                ending = "CANCELED"
            elif deadline and time.monotonic() >= deadline:
                ending = "TIMEOUT"
        if ending is None and folder.outcome():
            folder.write("result.json", {**folder.outcome(), "time": time.time()})
            return
        _stop(process, leader, folder)
    folder.end(ending or "FAILED", _why(folder, ending, limit))
    _tell_hooks(folder, ending or "FAILED")


def _environment(folder: RunFolder) -> dict[str, str]:
    """For KFP's process and, on the subprocess runner, for all steps: the folder, and nothing that confuses KFP."""
    environment = {**os.environ, LOCAL: str(folder.path), "FLOWYML_RUN_ID": folder.request()["run_id"]}
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def _why(folder: RunFolder, ending: str | None, limit: float | None) -> str | None:
    if ending == "TIMEOUT":
        return f"The run took longer than its timeout of {limit:g} s and was stopped."
    if ending is None:
        return f"KFP's local runner died:\n{folder.last_words()}"
    return None


def _stop(process: subprocess.Popen[bytes], leader: ProcessIdentity, folder: RunFolder) -> None:
    """The runner and the processes of its tasks stand still, so that nothing new begins. The steps are asked to stop.
    Then all is killed.
    """
    signal_group(leader, signal.SIGSTOP)
    if folder.request()["runner"] != "docker":
        _ask([step for step in folder.groups(of_steps=True) if step.pid != leader.pid])
    if not signal_group(leader, signal.SIGKILL):  # as where the process table cannot be read
        process.kill()
    process.wait()
    stop_steps(folder)


def _ask(steps: Sequence[ProcessIdentity]) -> None:
    for step in steps:
        signal_process(step, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(map(is_alive, steps)) and time.monotonic() < deadline:
        time.sleep(_SLICE)


def stop_steps(folder: RunFolder) -> None:
    """End what still runs of a run: KFP's processes, and the steps in process groups of their own.

    The numbers that containers wrote down are of no process out here.
    """
    in_containers = folder.request()["runner"] == "docker"
    for leader in folder.groups(of_steps=not in_containers):
        signal_group(leader, signal.SIGKILL, bearing=f"{LOCAL}={folder.path}")
    if in_containers:
        _stop_containers(folder.request())


def _stop_containers(request: Mapping[str, Any]) -> None:
    import docker  # type: ignore[import-untyped]  # ships no types

    client = docker.from_env()
    try:
        for container in client.containers.list(filters={"label": f"flowyml.job={request['job_id']}"}):
            with suppress(docker.errors.APIError):
                container.kill()
    finally:
        client.close()


def _tell_hooks(folder: RunFolder, ending: str) -> None:
    """On a cluster the exit handler runs even then; here nobody is left to run it."""
    request = folder.request()
    if not request["hooks"]:
        return
    status = {"CANCELED": "CANCELLED"}.get(ending, ending)
    duration = time.time() - folder.read("started.json")["time"]
    fire_hook(folder.bundle, "on_pipeline_end", request["pipeline"], request["run_id"], status, duration)


# KFP's own process.


def _run_kfp(folder: RunFolder) -> int:
    _die_with_parent()
    if not folder.is_supervised():  # it died before it could take this process with it
        return 1
    import warnings

    warnings.simplefilter("ignore")  # of settings that only a cluster can honour; the docs tell which
    components, local = _imported()
    request = folder.request()
    pipeline = components.load_component_from_file(str(folder.pipeline))
    local.init(
        _runner(local, folder), pipeline_root=str(folder.root), workspace_root=str(folder.path / "workspace"),
        enable_caching=True, cache_root=str(folder.path / "cache"),
    )  # fmt: skip
    try:
        task = pipeline(**request["arguments"])
    except Exception as error:
        # A task that failed is a RuntimeError of kfp.local; one whose failure was lost is whatever comes of it later.
        if not isinstance(error, RuntimeError) and not folder.first_failure():
            raise
        told = _COLOURS.sub("", str(error))
        folder.write("outcome.json", {"state": "FAILED", "error": folder.first_failure() or told})
        return 1
    if lost := folder.first_failure():
        # kfp.local counts a container that was removed before it asked for its exit code as one that succeeded.
        folder.write("outcome.json", {"state": "FAILED", "error": lost})
        return 1
    outputs = {name: value for name, value in task.outputs.items() if isinstance(value, str)}
    folder.write("outcome.json", {"state": "SUCCEEDED", "outputs": outputs})
    return 0


def _imported() -> tuple[Any, Any]:
    """Without kfp's client, which would take two seconds and is for clusters: by the switch that its components use."""
    os.environ[_LIGHT] = "true"
    try:
        import kfp  # type: ignore[import-untyped]  # noqa: F401  # ships no types; loaded now, while the switch is set
    finally:
        del os.environ[_LIGHT]
    from kfp import components, local
    from kfp.local import subprocess_task_handler  # type: ignore[import-untyped]  # ships no types

    subprocess_task_handler.replace_python_executable = _with_this_python
    return components, local


def _with_this_python(command: list[str], python: str) -> list[str]:
    """The command ``sh -c SCRIPT …`` with the Python that is meant. kfp.local puts its path for every ``python3``, in
    what the user has named and given too."""
    return [*(part.replace("python3", python) for part in command[:3]), *command[3:]]


def _runner(local: Any, folder: RunFolder) -> Any:
    request = folder.request()
    if request["runner"] == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    environment = {LOCAL: str(folder.path), "FLOWYML_RUN_ID": request["run_id"]}
    return local.DockerRunner(
        labels={"flowyml.job": request["job_id"]},
        environment={**environment, **request["options"].pop("environment", {})},
        **request["options"],
    )


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def for_kfp_local(spec: dict[str, Any], run_id: str, *, runner: str) -> dict[str, Any]:
    """The same pipeline, so that kfp.local's faults hurt nobody. Each is one of kfp 2.17.

    - It stops everything at the first failure, unless the steps are in a DAG within the DAG (``run_dag``).
    - It gives all tasks of a component one folder, where they overwrite their files (``construct_local_task_root``).
    - It names a run itself, with the time of day (``get_local_pipeline_resource_name``), and its time is each task's.
    - It hands a DAG no artifact when it hands it no parameter (``build_nested_dag_arguments``).
    - It would install packages into the caller's own environment (``SubprocessRunner(use_venv=False)``).
    """
    text = json.dumps(spec)
    for name in ("{{$.pipeline_job_name}}", "{{$.pipeline_job_resource_name}}"):
        text = text.replace(name, _escaped(run_id))
    local: dict[str, Any] = json.loads(text.replace(_SCHEDULE_TIME, datetime.now(UTC).isoformat()))
    _one_component_a_task(local)
    if names.RUN_TASK not in local["root"]["dag"]["tasks"]:
        _nest(local)
    if runner == "subprocess":
        for executor in local["deploymentSpec"]["executors"].values():
            command = executor["container"]["command"]
            executor["container"]["command"] = command[command.index("sh", 1) :] if command[1] == "-c" else command
    return local


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _one_component_a_task(spec: dict[str, Any]) -> None:
    components, own = spec["components"], {}
    for dag in [spec["root"], *components.values()]:
        for name, task in dag.get("dag", {}).get("tasks", {}).items():
            mine = f"comp-task--{name}"
            own[mine] = components[task["componentRef"]["name"]]
            task["componentRef"] = {"name": mine}
            if "dag" not in own[mine] and name not in (names.START_TASK, names.END_TASK):
                task["cachingOptions"] = {"enableCache": True}  # within the run, so that it can be retried
    spec["components"] = own


def _nest(spec: dict[str, Any]) -> None:
    """Move all tasks into a DAG within the root."""
    root, task = spec["root"], names.STEPS_TASK
    ports = root.get("inputDefinitions", {}).get("parameters", {})
    spec["components"][f"comp-{task}"] = {
        **root, "inputDefinitions": {"parameters": {**ports, names.RUN: {"parameterType": "STRING"}}},
    }  # fmt: skip
    given = {port: {"componentInputParameter": port} for port in ports}
    outputs = {}
    for name in root.get("outputDefinitions", {}).get("parameters", {}):
        outputs[name] = {"valueFromParameter": {"producerSubtask": task, "outputParameterKey": name}}
    inner = {
        "componentRef": {"name": f"comp-{task}"},
        "inputs": {"parameters": {**given, names.RUN: {"runtimeValue": {"constant": "local"}}}},
        "taskInfo": {"name": task},
    }
    definitions = {"parameters": {name: {"parameterType": "STRING"} for name in outputs}}
    spec["root"] = {
        "dag": {"tasks": {task: inner}, **({"outputs": {"parameters": outputs}} if outputs else {})},
        **({"inputDefinitions": root["inputDefinitions"]} if ports else {}),
        **({"outputDefinitions": definitions} if outputs else {}),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
