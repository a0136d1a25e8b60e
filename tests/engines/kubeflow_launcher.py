"""KFP's launcher: it runs the container of a task as a process of this machine, and hands in what that left.

The process sees folders of this machine where a pod sees those of a cluster. Source: KFP,
``v2/component/launcher_v2.go``; the lines that it prints are those of a real one.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.engines.kubeflow_driver import Made
from tests.engines.kubeflow_pods import Pod, Pods, termination_log
from tests.engines.kubeflow_replaced import check_unicode, expanded, of_kfp

__all__ = ["Launcher", "Log"]

Json = dict[str, Any]

_ARTIFACTS = re.compile("minio://mlpipeline/v2/artifacts/[^/]+/([0-9a-f-]{36})")
AT_ONCE = threading.BoundedSemaphore(16)  # pods; a cluster has more room than this machine


@dataclass
class Log:
    """What a pod prints: KFP's own lines around those of a step, which are in a file; Argo's, in the pod alone."""

    before: str = ""
    step: Path | None = None
    after: str = ""
    argo: str = ""

    @property
    def own(self) -> str:
        """The step's own lines, which KFP publishes as an artifact."""
        return self.step.read_bytes().decode("utf-8", "replace") if self.step else ""  # no line break but its own

    @property
    def termination(self) -> str:
        """What the container left for Kubernetes, of which that keeps the end."""
        path = self.step and termination_log(self.step)
        return path.read_bytes()[-4096:].decode("utf-8", "replace") if path and path.exists() else ""

    @property
    def archived(self) -> str:
        return self.before + self.own + self.after

    @property
    def text(self) -> str:
        return self.archived + self.argo


class Launcher:
    """The launchers of one run. ``root`` is the URL of its artifacts, which are in ``folder``."""

    def __init__(self, root: str, folder: Path, pods: Pods) -> None:
        self.root, self.folder, self.pods = root, folder, pods
        self._running: set[Pod] = set()
        self._is_stopped = False
        self._lock = threading.Lock()

    def start_again(self) -> None:
        self._is_stopped = False

    def stop(self) -> None:
        """Kill all pods, and start no more."""
        with self._lock:
            self._is_stopped = True
            running = [*self._running]
        for pod in running:
            pod.kill()

    def run(self, patch: str, log: Log, publish: Callable[[int, Made], None]) -> int:
        """The exit code of the container that a pod's patch describes."""
        (container,) = json.loads(patch)["containers"]
        variables = {"KFP_POD_NAME": "a-pod", "KFP_POD_UID": "1"}
        for item in container.get("env", ()):  # those before a variable are replaced in it
            variables[item["name"]] = expanded(item.get("value", "a secret"), variables)
        options, arguments = ([expanded(word, variables) for word in container[part]] for part in ("command", "args"))
        number, given, component = (
            options[options.index(name) + 1] for name in ("--execution_id", "--executor_input", "--component_spec")
        )
        urls = json.loads(given)["outputs"]
        folder = self._path(urls["artifacts"]["executor-logs"]["artifacts"][0]["uri"]).parent
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt before, in whose pod it was
        folder.mkdir(parents=True)
        local = given.replace("/tmp/kfp/outputs/", f"{folder}/parameters-")
        local = local.replace("/" + self.root.replace("://", "/"), str(self.folder))
        # Inputs may be of another run, from which the cache took them.
        local = _ARTIFACTS.sub(lambda run: self.folder.with_name(f"run-{run[1]}").as_uri(), local)
        log.step = folder / "log"
        log.step.touch()
        log.before = _klog("main.go:67", "Setting log level to: '1'", "I") + _klog(
            "launcher_v2.go:590", "Could not determine retry index from pod annotation", "W"
        )
        code = self._process([of_kfp(word, json.loads(local)) for word in arguments], variables, log.step)
        (folder / "executor-logs-0").write_bytes(log.step.read_bytes())
        if code == 0:
            try:
                made, document = self._collect(json.loads(local), urls, json.loads(component))
                publish(int(number), made)
            except (OSError, ValueError) as error:
                code, log.after = 1, _klog("main.go:79", f"failed to execute component: {error}", "F")
            else:
                shown = json.dumps(document, indent=2)
                log.after = _klog("launcher_v2.go:1230", f"ExecutorOutput: {shown}", "I")
                log.after += _klog("launcher_v2.go:206", "publish success.", "I")
        log.argo = f'time={datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z level=INFO msg="capturing logs" argo=true\n'
        return code

    def file(self, path: str) -> bytes:
        """An artifact, by its path below those of the run."""
        return (self.folder / path).read_bytes()

    def _path(self, url: str) -> Path:
        return self.folder / url.removeprefix(f"{self.root}/")

    def _process(self, command: list[str], environment: Mapping[str, str], log: Path) -> int:
        with AT_ONCE:
            with self._lock:
                if self._is_stopped:
                    return 143
                pod = self.pods.start(command, environment, log)
                self._running.add(pod)
            code = pod.wait()
        with self._lock:
            self._running.discard(pod)
        return code if code >= 0 else 128 - code

    def _collect(self, local: Json, urls: Json, component: Json) -> tuple[Made, Json]:
        """What the container left; an output parameter has to be there."""
        made, outputs = Made(), local["outputs"]
        document = json.loads(Path(outputs["outputFile"]).read_text("utf-8"))
        check_unicode(document)
        kinds = component["outputDefinitions"].get("parameters", {})
        for port, place in outputs.get("parameters", {}).items():
            text = Path(place["outputFile"]).read_text("utf-8")
            made.parameters[port] = text if kinds[port]["parameterType"] == "STRING" else json.loads(text)
        for port, listed in urls["artifacts"].items():
            if port != "executor-logs":
                written = document.get("artifacts", {}).get(port, {}).get("artifacts", [{}])
                uri = listed["artifacts"][0]["uri"]
                made.artifacts[port] = [{"name": "", "uri": uri, "metadata": written[0].get("metadata", {})}]
        return made, {"parameterValues": made.parameters, **document}


def _klog(place: str, text: str, level: str) -> str:
    """A line of KFP's, as Kubernetes' klog writes it."""
    return f"{level}{datetime.now(UTC):%m%d %H:%M:%S.%f}      14 {place}] {text}\n"


def driver_log(text: str, *, failed: bool) -> Log:
    """That of a driver's pod."""
    line = _klog("main.go:79", f"KFP driver: {text}", "F") if failed else _klog("main.go:231", text, "I")
    return Log(before=line)
