"""KFP's official local runner as an orchestrator: each run is a process of its own, and is read from its files."""

from __future__ import annotations

import os
import re
import shutil
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from flowyml.artifacts import Store, open_store
from flowyml.artifacts.listing import artifacts_of
from flowyml.core.capabilities import Capabilities
from flowyml.core.errors import (
    ConfigurationError,
    NoFileFormatError,
    RunNotFoundError,
    UnsupportedFeatureError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.home import home, private_folder
from flowyml.core.origin import Origin
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import WAS_CANCELLED, Artifact, LogLine, Outputs, Run, Runs, StepRun
from flowyml.orchestrators.background import reap, start_detached
from flowyml.orchestrators.base import Health, Orchestrator, RunnablePipeline, check_same_run
from flowyml.orchestrators.log_following import Look, log_lines
from flowyml.orchestrators.run_outputs import read_outputs
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan, Step
from flowyml.plan.names import slug
from flowyml_kubeflow import flow_names, names, spec
from flowyml_kubeflow.capabilities import LOCAL_RUNNER
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.flow import Flow, needs_flow
from flowyml_kubeflow.local.folder import RunFolder
from flowyml_kubeflow.local.kfp_process import for_kfp_local
from flowyml_kubeflow.local.supervisor import stop_steps
from flowyml_kubeflow.parameters import argument
from flowyml_kubeflow.reading import artifacts_of_notes, lists_of_files, located
from flowyml_kubeflow.status import status_of
from flowyml_kubeflow.step_runs import moment, step_runs

__all__ = ["KubeflowLocalOrchestrator"]

_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,119}")
_RUNNERS = ("subprocess", "docker")
_LOOPS_FROM = (2, 16)  # the release of kfp
_TO_START = 60  # seconds that a run may wait for its process before it counts as lost
_SLICE = 0.1
_DIED = (
    "The process of the run died: it was killed, or the machine went down. FlowyML stopped the steps that were still "
    "running. Run the pipeline again."
)


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
        if run.path.exists() or not self._claim(run, bundle, run_id, parameters):
            found, origin = self.get_run(job_id), bundle.origin
            check_same_run(found, bundle.plan.name, parameters, origin=origin, code_digest=bundle.code_digest)
        if not run.result() and not run.is_supervised():
            self._start(run)
        return job_id

    def _claim(self, run: RunFolder, bundle: Bundle, run_id: str, parameters: Mapping[str, Any]) -> bool:
        compiled = compile_pipeline(bundle)
        spec.validate(compiled)
        private_folder(self.folder)  # its content has the modes that KFP and containers need
        fresh = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))
        local = replace(compiled, spec=for_kfp_local(compiled.spec, run_id, runner=self.runner), platform={})
        (fresh / "pipeline.yaml").write_text(spec.compact(local), "utf-8")
        (fresh / "bundle.pyz").write_bytes(compiled.bundle.data)
        RunFolder(fresh).write("parameters.json", parameters)
        request = self._request(bundle, run.path.name, run_id, parameters)
        RunFolder(fresh).write("request.json", request)
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
            "hooks": bool(plan.hooks),
            "flow": needs_flow(plan),
            "cleans_up": any(map(Flow(plan).cleans_up, plan)),
            "loops": _loops(plan),
            "parameters": dict(parameters),
            "arguments": {
                names.port(name): _blank(argument(value, by_name[name])) for name, value in parameters.items()
            },
            "steps": {names.task(step.name): step.name for step in plan},
            "attempts": {names.task(step.name): _most_attempts(step) for step in plan},
        }

    def _start(self, run: RunFolder) -> None:
        with run.log.open("ab") as log:
            command = [sys.executable, "-m", "flowyml_kubeflow.local.supervisor", str(run.path)]
            start_detached(command, log, env=_with_this_path())

    def get_run(self, job_id: str) -> Run:
        reap()
        run = self._found(job_id)
        request, result = run.request(), self._result(run)
        started, ended = run.started_at(), result.get("time")
        state = result.get("state") or ("CANCELING" if run.is_cancelled() else "RUNNING" if started else "PENDING")
        return Run(
            job_id=job_id, run_id=request["run_id"], pipeline=request["pipeline"], status=_status(state),
            raw_status=state,
            created_at=moment(request["created"]), started_at=moment(started), ended_at=moment(ended),
            error=WAS_CANCELLED if state == "CANCELED" else result.get("error"),
            parameters=request["parameters"], revision=request.get("revision"),
            origin=Origin.from_dict(request.get("origin")), code_digest=request.get("code"),
        )  # fmt: skip

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        found = [request for run in self._all() if (request := run.request())]
        wanted = [request for request in found if pipeline is None or request["pipeline"] == pipeline]
        newest = sorted(wanted, key=lambda request: -request["created"])[:limit]
        return Runs(self.get_run(request["job_id"]) for request in newest)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        about, run = self.get_run(job_id), self._found(job_id)
        steps = run.request()["steps"].items()
        if run.request().get("flow"):
            return tuple(turn for task, name in steps for turn in _turns(run, task, name, about))
        return tuple(_step_run(run, task, name, about) for task, name in steps)

    def outputs(self, job_id: str) -> Outputs:
        run = self._found(job_id)
        stores, lost, packed = (open_store(), open_store(run.root)), dict[str, str](), dict[str, Any]()
        is_flow = run.request().get("flow")  # whose last task knows which outputs exist
        for task in [flow_names.RESULT_TASK] if is_flow else run.request()["steps"]:
            published = run.published(task)
            packed |= published.get("outputs", {})
            lost |= lists_of_files(published)
        return read_outputs(job_id, packed, *stores, lost=lost)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        run = self._found(job_id)
        listed: list[Artifact] = []
        for task, step in run.request()["steps"].items():
            if run.request().get("flow"):
                listed += artifacts_of_notes(step, run.notes(task))
            else:
                listed += artifacts_of(step, run.published(task).get("artifacts", {}))
        if run.request().get("flow"):
            return located(listed, run.published(flow_names.RESULT_TASK).get("outputs", {}))
        return listed

    def artifact_stores(self, job_id: str) -> Sequence[Store]:
        return (open_store(), open_store(self._found(job_id).root))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        run, seen = self._found(job_id), dict[str, int]()

        def look() -> Look:
            # The hook that the supervisor fires for a stopped run prints after the end of that run.
            over = self.get_run(job_id).status.is_terminal and not run.is_supervised()
            yield from _new_lines(run, seen)
            return over or not follow

        return log_lines(look, follow=follow, pause=_SLICE)

    def cancel(self, job_id: str) -> bool:
        if self.get_run(job_id).status.is_terminal:
            return False
        run = self._found(job_id)
        run.ask_to_cancel()
        if not run.is_supervised() and not run.result():
            run.end("CANCELED", None)
        return True

    def health(self) -> Health:
        from importlib import metadata

        return Health(reachable=True, version=metadata.version("kfp"), detail=f"KFP's local runner, {self.runner}")

    def _all(self) -> Iterator[RunFolder]:
        with suppress(FileNotFoundError):
            yield from (RunFolder(path) for path in self.folder.iterdir() if _JOB_ID.fullmatch(path.name))

    def _found(self, job_id: str) -> RunFolder:
        run = RunFolder(self.folder / job_id)
        if not _JOB_ID.fullmatch(job_id) or not run.request():
            raise RunNotFoundError(f"KFP's local runner has no run {job_id!r} in {self.folder}.")
        return run

    def _result(self, run: RunFolder) -> dict[str, Any]:
        """Return the end of a run. A run whose supervisor has died has ended too."""
        if (result := run.result()) or run.is_supervised():
            return result
        if result := run.result():  # it came while we looked
            return result
        if run.started_at():
            stop_steps(run)
            run.end("FAILED", _DIED)
        elif time.time() - run.waits_since() > _TO_START:
            run.end("FAILED", f"The process of the run did not start within {_TO_START} s: {run.last_words()}")
        return run.result()


def _status(state: str) -> ExecutionStatus:
    return ExecutionStatus.TIMEOUT if state == "TIMEOUT" else status_of(state)


def _step_run(run: RunFolder, task: str, name: str, about: Run) -> StepRun:
    attempts, run_status = run.attempts(task), about.status
    if not attempts:
        status = ExecutionStatus.CANCELLED if run_status.is_terminal else ExecutionStatus.QUEUED
        return StepRun(name=name, status=status, raw_status="PENDING")
    last, most = attempts[-1], run.request()["attempts"][task]
    failure = last.get("failure") or {}
    state = _state(last, failure, may_retry=len(attempts) < most and not run_status.is_terminal)
    status = _status(state)
    if run_status.is_terminal and not status.is_terminal:
        status, state = ExecutionStatus.CANCELLED, "CANCELED"
        if run_status is ExecutionStatus.CANCELLED:
            failure = {"message": WAS_CANCELLED}
    return StepRun(
        name=name, status=status, raw_status=state, attempt=last["attempt"], started_at=moment(last["started"]),
        ended_at=moment(last.get("ended")) or about.ended_at, error=failure.get("message"),
        cached_from=last.get("cached", ""),
    )  # fmt: skip


def _turns(run: RunFolder, task: str, name: str, about: Run) -> list[StepRun]:
    """Return the records of a step in a pipeline with control flow."""
    items = run.request()["loops"].get(task)
    if isinstance(items, str):
        opened = run.notes(items)
        items = opened[-1]["opened"] if opened else None
    return step_runs(name, run.notes(task), about.status, items=items, run_ended=about.ended_at)


def _loops(plan: Plan) -> dict[str, str | int]:
    """Return the steps in loops, each with the task that will know the number of items, or with that number."""
    flow = Flow(plan)
    fixed = {loop.name: flow.fixed_items(loop.name) for loop in flow.loops}
    steps = [(names.task(step.name), flow.loop_of(step.group)) for step in plan]
    return {
        task: flow_names.items_task(loop) if fixed[loop] is None else fixed[loop] or 0 for task, loop in steps if loop
    }


def _state(attempt: Mapping[str, Any], failure: Mapping[str, Any], *, may_retry: bool) -> str:
    if "ended" not in attempt:
        return "RUNNING"
    if not failure:
        return "SUCCEEDED"
    if may_retry:
        return "RUNNING"
    return "TIMEOUT" if failure["kind"] == "StepTimeoutError" else "FAILED"


def _new_lines(run: RunFolder, seen: dict[str, int]) -> list[LogLine]:
    found = []
    for task in run.steps():
        lines = [line for line in run.lines(task, "log.jsonl") if line["stream"] != "result"]
        of_step, index = flow_names.turn_of(task)
        step = run.request()["steps"].get(of_step, "")  # a hook of the pipeline belongs to no step
        found += [
            (line["time"], LogLine(line["line"], step, line.get("level", "INFO"), moment(line["time"]), index=index))
            for line in lines[seen.get(task, 0) :]
        ]
        seen[task] = len(lines)
    return [line for _, line in sorted(found, key=lambda item: item[0])]


def _most_attempts(step: Step) -> int:
    return step.retry.max_attempts if step.retry else 1


def _blank(value: Any) -> Any:
    """Return a value of the same type.

    kfp.local replaces its placeholders in users' texts, converts integers to floats and passes all values to a step in
    one argument, of 128 KiB at most; so the steps get the exact values separately.
    """
    return type(value)()


def _with_this_path() -> dict[str, str]:
    """Return the environment of a child that finds the same packages, and those of Python itself first.

    So no file in the folder of a script, or in the working folder, replaces one of them.
    """
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    own = {*library, *(f"{path}/lib-dynload" for path in library), *site.getsitepackages()}
    paths = sorted((str(Path(path).absolute()) for path in sys.path if path), key=lambda path: path not in own)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
