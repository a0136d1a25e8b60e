"""KFP's official local runner as an orchestrator: each run is a process of its own, and is read from its files."""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from flowyml.artifacts import Store, open_store
from flowyml.core.capabilities import Capabilities
from flowyml.core.errors import ConfigurationError, NoFileFormatError, UnsupportedFeatureError
from flowyml.core.home import home, private_folder
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.background import start_detached
from flowyml.orchestrators.base import Health, Orchestrator, RunnablePipeline
from flowyml.orchestrators.submission import submit_once
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Parameter, Plan
from flowyml.plan.names import slug
from flowyml_kubeflow import names, spec
from flowyml_kubeflow.capabilities import LOCAL_RUNNER
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.kfp_process import for_kfp_local
from flowyml_kubeflow.local.reader import KubeflowLocalReader
from flowyml_kubeflow.parameters import is_json_text

__all__ = ["KubeflowLocalOrchestrator"]

_RUNNERS = ("subprocess", "docker")
_LOOPS_FROM = (2, 16)  # the release of kfp


class KubeflowLocalOrchestrator(Orchestrator):
    """Runs pipelines as KFP's components on this machine, without a cluster, one step after another.

    ``runner`` is ``"subprocess"``, in processes of this machine's Python, or ``"docker"``, in containers with the image
    of each step; ``runner_options`` are then options of Docker's ``containers.run``. ``folder`` is the folder of the
    runs, by default in FlowyML's data folder.
    """

    name: ClassVar[str] = "kubeflow-local"
    capabilities: ClassVar[Capabilities] = LOCAL_RUNNER
    engine_package: ClassVar[str | None] = "kfp"
    extra: ClassVar[str | None] = "kubeflow"

    def __init__(
        self,
        runner: str = "subprocess",
        *,
        runner_options: Mapping[str, Any] = {},
        folder: str | os.PathLike[str] | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
        secrets: Mapping[str, str] = {},
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        if runner not in _RUNNERS:
            raise ConfigurationError(f"runner={runner!r}: KFP's local runners are {' and '.join(map(repr, _RUNNERS))}.")
        self.runner = runner
        self.runner_options = dict(runner_options)
        self.folder = Path(folder) if folder else home() / "kubeflow" / "runs"

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        raise NoFileFormatError("KFP's local runner has no file format of its own: compile for 'kubeflow'.")

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        """Compile as for any engine; KFP's local runner supports loops from kfp 2.16 on."""
        from importlib import metadata

        plan = super().plan(pipeline)
        if self.runner == "docker" and (named := next((step for step in plan if step.secrets), None)):
            raise UnsupportedFeatureError(
                f"step {named.name!r} names secrets, which containers of KFP's local runner do not get. "
                f"Use runner='subprocess', or a cluster."
            )
        release = metadata.version("kfp")
        if plan.has_control_flow and tuple(map(int, release.split(".")[:2])) < _LOOPS_FROM:
            raise UnsupportedFeatureError(
                f"Pipeline {plan.name!r} has loops, branches or rules, which KFP's local runner has from kfp 2.16 on; "
                f"here is kfp {release}. Upgrade it, or use a cluster."
            )
        return plan

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        """Return the secrets that are missing in the environment of this process, each with advice."""
        from flowyml.runtime.secrets import from_environment, missing

        return missing(references, from_environment)

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        """Create the run's folder, which only one process can, and start a process that runs it."""
        job_id = slug(run_id, max_length=100)
        run = RunFolder(self.folder / job_id)

        def create() -> str | None:
            return job_id if self._claim(run, bundle, run_id, parameters) else None

        submit_once(bundle, run_id, parameters, find=lambda: self.get_run(job_id), create=create)
        if not run.result() and not run.is_supervised():
            self._start(run)
        return job_id

    def _claim(self, run: RunFolder, bundle: Bundle, run_id: str, parameters: Mapping[str, Any]) -> bool:
        compiled = compile_pipeline(bundle)
        spec.validate(compiled)
        private_folder(self.folder)  # its content has the modes that KFP and containers need
        fresh = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))
        local = replace(compiled, spec=for_kfp_local(compiled.spec, run_id), platform={})
        (fresh / "pipeline.yaml").write_text(spec.compact(local), "utf-8")
        RunFolder(fresh).pods.mkdir()
        RunFolder(fresh).write("parameters.json", parameters)
        RunFolder(fresh).write("compiled.json", {"pipeline_spec": compiled.spec, "platform_spec": compiled.platform})
        request = self._request(bundle, run.path.name, run_id, parameters)
        RunFolder(fresh).write("run.json", request)
        fresh.chmod(0o755)
        try:
            fresh.rename(run.path)
        except OSError:  # another process was faster
            shutil.rmtree(fresh, ignore_errors=True)
            if not run.path.exists():
                raise
            return False
        return True

    def _request(self, bundle: Bundle, job_id: str, run_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        plan = bundle.plan
        by_name = {item.name: item for item in plan.parameters}
        return {
            "job_id": job_id,
            "run_id": run_id,
            "pipeline": plan.name,
            "origin": bundle.origin.to_dict() if bundle.origin else None,
            "code": bundle.code_digest,
            "revision": bundle.revision,
            "created": time.time(),
            "runner": self.runner,
            "options": self.runner_options,
            "timeout_seconds": plan.timeout_seconds,
            "parameters": dict(parameters),
            "arguments": {names.port(name): _blank(value, by_name[name]) for name, value in parameters.items()},
        }

    def _start(self, run: RunFolder) -> None:
        with run.log.open("ab") as log:
            command = [sys.executable, "-m", "flowyml_kubeflow.local.supervisor", str(run.path)]
            start_detached(command, log, env=_with_this_path())

    @property
    def reader(self) -> KubeflowLocalReader:
        """The reader of the runs in ``folder``."""
        return KubeflowLocalReader(self.folder)

    def artifact_stores(self, job_id: str) -> Sequence[Store]:
        return (open_store(), open_store(self.reader.fetch(job_id).path))

    def cancel(self, job_id: str) -> bool:
        if self.get_run(job_id).status.is_terminal:
            return False
        run = self.reader.fetch(job_id)
        run.ask_to_cancel()
        if not run.is_supervised() and not run.result():
            run.end("CANCELED", None)
        return True

    def health(self) -> Health:
        from importlib import metadata

        return Health(reachable=True, version=metadata.version("kfp"), detail=f"KFP's local runner, {self.runner}")


def _blank(value: Any, parameter: Parameter) -> Any:
    """Return a value of the type that KFP has for a parameter's value.

    kfp.local replaces its placeholders in users' texts, converts integers to floats and passes all values to a step in
    one argument, of 128 KiB at most; so the steps get the exact values separately.
    """
    return "" if is_json_text(parameter) else type(value)()


def _with_this_path() -> dict[str, str]:
    """Return the environment of a child that finds the same packages, and those of Python itself first.

    So no file in the folder of a script, or in the working folder, replaces one of them.
    """
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    own = {*library, *(f"{path}/lib-dynload" for path in library), *site.getsitepackages()}
    paths = sorted((str(Path(path).absolute()) for path in sys.path if path), key=lambda path: path not in own)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
