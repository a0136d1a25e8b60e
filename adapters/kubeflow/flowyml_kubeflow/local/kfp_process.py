"""KFP's own process of a run on its local runner, and the adaptation of a pipeline for it.

``python -m flowyml_kubeflow.local.kfp_process FOLDER``, started by ``supervisor``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import LOCAL
from flowyml_kubeflow.local.folder import RunFolder

__all__ = ["for_kfp_local", "main"]

_LIGHT = "_KFP_RUNTIME"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # kfp.local writes them into its errors
_SCHEDULE_TIME = "{{$.pipeline_job_schedule_time_utc}}"
# Around the script of a pod. The last line is for kfp.local: it says what this is not.
_LOGGED = """import json, os, sys, time
from pathlib import Path

log = Path(os.environ["{folder}"], "pods", f"{task}--{{time.time_ns()}}.log")
written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.dup2(written, 1)
os.dup2(written, 2)
code = 1
try:
    exec({script!r}, {{"__name__": "__main__"}})
    code = 0
except SystemExit as error:
    code = error.code if isinstance(error.code, int) else int(error.code is not None)
    raise
finally:
    end = log.with_suffix(".new")
    end.write_text(json.dumps({{"code": code, "time": time.time()}}))
    end.replace(log.with_suffix(".json"))
# not by kfp.dsl.executor_main
"""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG; source: prctl(2)


def main(arguments: list[str]) -> int:
    """Run the pipeline in a folder by ``kfp.local``; return the exit code."""
    folder = RunFolder(Path(arguments[0]))
    _die_with_parent()
    if not folder.is_supervised():  # it died before it could take this process with it
        return 1
    import warnings

    warnings.simplefilter("ignore")  # about settings that need a cluster; the docs list them
    components, local = _imported()
    request = folder.request
    pipeline = components.load_component_from_file(str(folder.pipeline))
    local.init(_runner(local, folder), pipeline_root=str(folder.path), workspace_root=str(folder.path / "workspace"))
    try:
        pipeline(**request["arguments"])
    except Exception as error:
        # A failed task is a RuntimeError of kfp.local; a task whose failure was lost may cause any later error.
        if not isinstance(error, RuntimeError) and not folder.workflow().failed_pods:
            raise
        folder.write("outcome.json", {"state": "FAILED", "error": _COLOURS.sub("", str(error))})
        return 1
    # kfp.local counts a container that was removed before it read the exit code as successful.
    failed = bool(folder.workflow().failed_pods)
    folder.write("outcome.json", {"state": "FAILED" if failed else "SUCCEEDED"})
    return failed


def _imported() -> tuple[Any, Any]:
    """Import kfp without its client, which would take two seconds and is for clusters: by the switch for components."""
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
    """Replace ``python3`` in the command ``python3 -c SCRIPT …`` by this Python.

    kfp.local replaces every ``python3`` by its path, also in names and values of the user's.
    """
    return [python, *command[1:]]


def _runner(local: Any, folder: RunFolder) -> Any:
    request = folder.request
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


def for_kfp_local(spec: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Adapt a pipeline to kfp.local's faults. Each is one of kfp 2.17.

    - It stops everything at the first failure, unless the steps are in a DAG within the DAG (``run_dag``).
    - It gives all tasks of a component one folder, where they overwrite their files (``construct_local_task_root``).
    - It names a run itself, with the time of day (``get_local_pipeline_resource_name``), and its time is each task's.
    - It hands a DAG no artifact when it hands it no parameter (``build_nested_dag_arguments``).
    - It finds the items of a loop in the DAG around it alone, as a list, and takes what else comes from a task for the
      item (``_run_parallel_for_task``, ``create_parameter_loop_iteration_task_spec``).
    - In processes it runs commands that name the module of kfp's Python components, and no others
      (``validate_not_container_component``).
    - It has one log for all tasks, so that each pod writes one of its own.
    """
    text = json.dumps(spec)
    for name in ("{{$.pipeline_job_name}}", "{{$.pipeline_job_resource_name}}"):
        text = text.replace(name, json.dumps(run_id)[1:-1])
    local: dict[str, Any] = json.loads(text.replace(_SCHEDULE_TIME, datetime.now(UTC).isoformat()))
    _one_component_a_task(local)
    _nest_loops(local)
    if names.RUN_TASK not in local["root"]["dag"]["tasks"]:
        _nest(local)
    return local


def _one_component_a_task(spec: dict[str, Any]) -> None:
    """Give each task a component, and each pod a container that writes the pod's log."""
    components, executors = spec["components"], spec["deploymentSpec"]["executors"]
    own, containers = {}, {}
    for dag in [spec["root"], *components.values()]:
        for name, task in dag.get("dag", {}).get("tasks", {}).items():
            mine = f"comp-task--{name}"
            own[mine] = {**components[task["componentRef"]["name"]]}
            task["componentRef"] = {"name": mine}
            if label := own[mine].get("executorLabel"):
                container = executors[label]["container"]
                *python, script = container["command"]
                command = [*python, _LOGGED.format(folder=LOCAL, task=name, script=script)]
                own[mine]["executorLabel"] = f"exec-task--{name}"
                containers[f"exec-task--{name}"] = {"container": {**container, "command": command}}
    spec["components"] = own
    spec["deploymentSpec"] = {"executors": containers}


def _nest_loops(spec: dict[str, Any]) -> None:
    """Put each loop into a DAG of its own, to which its items come as a list."""
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if port := task.get("parameterIterator", {}).get("items", {}).get("inputParameter"):
                output = task["inputs"]["parameters"][port]["taskOutputParameter"]
                producer = spec["components"][component["dag"]["tasks"][output["producerTask"]]["componentRef"]["name"]]
                producer["outputDefinitions"]["parameters"][output["outputParameterKey"]] = {"parameterType": "LIST"}
                component["dag"]["tasks"][name] = _around(spec, name, task, port)


def _around(spec: dict[str, Any], name: str, task: dict[str, Any], items: str) -> dict[str, Any]:
    inner = spec["components"][task["componentRef"]["name"]]
    inner["inputDefinitions"]["parameters"][items] = {"parameterType": "LIST"}
    ports = {
        kind: {port: inner["inputDefinitions"][kind][port] for port in sources}
        for kind, sources in task["inputs"].items()
    }  # fmt: skip
    passed = {
        kind: {port: {f"componentInput{kind[:-1].title()}": port} for port in sources}
        for kind, sources in task["inputs"].items()
    }  # fmt: skip
    outputs = {
        port: {"artifactSelectors": [{"producerSubtask": name, "outputArtifactKey": port}]}
        for port in inner.get("outputDefinitions", {}).get("artifacts", {})
    }
    looped = {**task, "inputs": passed}
    looped.pop("dependentTasks")
    spec["components"][f"comp-around--{name}"] = {
        "dag": {"tasks": {name: looped}, "outputs": {"artifacts": outputs}}, "inputDefinitions": ports,
        "outputDefinitions": inner.get("outputDefinitions", {}),
    }  # fmt: skip
    return {
        "componentRef": {"name": f"comp-around--{name}"}, "dependentTasks": task["dependentTasks"],
        "inputs": task["inputs"], "taskInfo": task["taskInfo"],
    }  # fmt: skip


def _nest(spec: dict[str, Any]) -> None:
    """Move all tasks into a DAG within the root."""
    root, task = spec["root"], names.STEPS_TASK
    ports = root.get("inputDefinitions", {}).get("parameters", {})
    spec["components"][f"comp-{task}"] = {
        **root, "inputDefinitions": {"parameters": {**ports, names.RUN: {"parameterType": "STRING"}}},
    }  # fmt: skip
    parameters = {port: {"componentInputParameter": port} for port in ports}
    inner = {
        "componentRef": {"name": f"comp-{task}"},
        "inputs": {"parameters": {**parameters, names.RUN: {"runtimeValue": {"constant": "local"}}}},
        "taskInfo": {"name": task},
    }
    spec["root"] = {
        "dag": {"tasks": {task: inner}}, **({"inputDefinitions": root["inputDefinitions"]} if ports else {}),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
