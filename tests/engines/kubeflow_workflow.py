"""The run of a pipeline: its workflow, by Argo's controller, and its pods, by KFP's drivers and launcher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import kfp_server_api

from tests.engines.kubeflow_argo import Controller, End, Node
from tests.engines.kubeflow_argocompiler import About, compiled
from tests.engines.kubeflow_driver import Drivers, Lost, Metadata
from tests.engines.kubeflow_launcher import Launcher, Log, driver_log
from tests.engines.kubeflow_pods import Pods
from tests.engines.kubeflow_releases import Release
from tests.engines.kubeflow_state import Json

__all__ = ["Workflow"]

_STATES = {"Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED", "Skipped": "SKIPPED",
           "Failed": "FAILED", "Error": "FAILED", "Omitted": None}  # fmt: skip
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_ONE = {"local_vars_configuration": kfp_server_api.Configuration()}  # else each model makes one, which takes longest


class Workflow:
    """It goes on in threads of its own."""

    def __init__(
        self, pipeline: Json, platform: Json, about: About, constants: Mapping[str, str], folder: Path, pods: Pods,
        release: Release, cached: Collection[str], in_drivers: Mapping[str, Callable[[], None]], metadata: Metadata,
    ) -> None:  # fmt: skip
        """``cached`` are the tasks that KFP takes from its cache; ``in_drivers`` is what happens to the drivers of
        tasks. Raises ``ValueError`` for what Argo refuses."""
        manifest = compiled(pipeline, platform, about, release)
        root = f"minio://mlpipeline/v2/artifacts/{pipeline['pipelineInfo']['name']}/{about.run_id}"
        self.root = root
        self.launcher = Launcher(root, folder, pods)
        self.argo = Controller(manifest, self._run_pod, self.launcher.stop)
        self.logs: dict[str, Log] = {}
        """Those of the pods, by the names of these."""
        self._drivers = Drivers(pipeline, root, constants, cached, release, metadata)
        self._in_drivers = in_drivers

    @property
    def state(self) -> str:
        return str(_STATES[self.argo.phase])

    @property
    def ended(self) -> datetime | None:
        return self.argo.ended

    @property
    def is_stopped(self) -> bool:
        return self.argo.stopped_at is not None

    def start(self, may_start: threading.Event) -> None:
        """Once it may."""

        def run() -> None:
            may_start.wait()
            if not self.ended:
                self.argo.run()

        self._go = may_start
        threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """Kill all pods, and start no more."""
        if not self.ended:
            self.argo.stop()
            self.launcher.stop()

    def retry(self) -> None:
        """Run it again without what succeeded, hooks included: KFP drops only nodes that are called after the workflow
        with ``.onExit``, and the end hook's is not."""
        for pod in self.argo.reset():
            self.logs.pop(pod, None)
        self.launcher.start_again()
        self.start(self._go)

    def details(self, run_id: str) -> list[object]:
        """The nodes as KFP's API gives them, in any order; once they are packed, as they were before. Sources: KFP,
        ``Workflow.NodeStatuses``, ``toModelTasks``, ``toApiPipelineTaskDetail``."""
        with self.argo.lock:
            nodes = [*self.argo.nodes.values()] if self.argo.frozen is None else self.argo.frozen
            made = [self._detail(run_id, node) for node in nodes]
        return sorted(made, key=lambda detail: str(detail.task_id))  # type: ignore[attr-defined]

    def _detail(self, run_id: str, node: Node) -> object:
        return kfp_server_api.V2beta1PipelineTaskDetail(
            run_id=run_id, task_id=self.argo.id_of(node.name)[::-1], display_name=node.shown, state=_STATES[node.phase],
            start_time=node.started, create_time=self.argo.started, end_time=node.ended or _NEVER,
            child_tasks=[
                kfp_server_api.PipelineTaskDetailChildTask(pod_name=child, **_ONE)
                for child in self.argo.children_of(node)
            ],
            **_ONE,
        )  # fmt: skip

    def _run_pod(self, name: str, template: str, given: Mapping[str, str]) -> End:
        if not template.endswith("-driver"):
            log = self.logs[name] = Log()
            code = self.launcher.run(given["pod-spec-patch"], log, self._drivers.publish)
            return End(code, message=log.termination)
        try:
            if template == "system-dag-driver":
                outputs = self._drivers.dag(given)
            else:
                outputs = self._drivers.container(given, self._phases(name), self._take)
            self._in_drivers.get(given["task-name"], lambda: None)()
        except Lost:
            return End(None)
        except Exception as error:
            self.logs[name] = driver_log(str(error) or repr(error), failed=True)
            return End(1)
        self.logs[name] = driver_log(f"outputs: {sorted(outputs)}", failed=False)
        return End(0, outputs)

    def _take(self, patch: str) -> None:
        """Run what the cache spares, without a pod of its own."""
        self.launcher.run(patch, Log(), self._drivers.publish)

    def _phases(self, driver: str) -> dict[str, str]:
        """Those of the tasks of the DAG at whose end a hook is, for its driver."""
        with self.argo.lock:
            (hook,) = [node for node in self.argo.nodes.values() if self.argo.pod_of(node) == driver]
            task, is_hook, _ = hook.name.partition(".onExit")
            ended = self.argo.nodes[task] if is_hook else None
        return {ended.shown: ended.phase} if ended else {}
