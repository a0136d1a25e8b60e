"""What runs in the container of a step: between KFP's files and the bundle's ``step`` command.

It travels in the bundle and needs nothing but Python. KFP says what goes where in one JSON text, the *executor input*;
parameters and artifacts are written where it says. Source: KFP, *ExecutorInput* and *ExecutorOutput*.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from flowyml.artifacts.packing import is_reference
from flowyml.core.dates import RunDates
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.codec import decode
from flowyml.plan.model import FromParameter, FromStep, Plan
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import LOCAL, Attempt, Journal, fire_pipeline_hooks
from flowyml_kubeflow.parameters import restored
from flowyml_kubeflow.retries import delays_in_pod

__all__ = ["component", "main"]

Values = dict[str, Any]
PACKED = "flowyml"  # the format of an artifact that holds JSON which stands for the value
# The final status of a task: in KFP's words, those of its metadata store, and those of kfp.local.
_STATUS = {
    "SUCCEEDED": "COMPLETED", "COMPLETE": "COMPLETED", "CACHED": "COMPLETED",
    "CANCELED": "CANCELLED", "CANCELLED": "CANCELLED",
}  # fmt: skip
_FOLDERS = {"gs": "gcs"}  # where KFP's launcher mounts a scheme; the others go by their own name


@dataclass
class Result:
    """What a task gives: texts of parameters, and metadata of artifacts, by port."""

    parameters: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Values] = field(default_factory=dict)


class TaskFailed(Exception):
    """The step failed, and its failure has been published."""


def main(arguments: Sequence[str]) -> int:
    """``BUNDLE KIND EXECUTOR_INPUT``, in a container that has no KFP; gives the exit code."""
    bundle, kind, text = arguments[:3]
    given = json.loads(text)
    try:
        result = _perform(kind, Path(bundle), given)
    except TaskFailed:
        return 1
    _write_parameters(given, result)
    artifacts = {
        name: {"artifacts": [{"name": given_one.get("name", name), "uri": given_one["uri"], "metadata": metadata}]}
        for name, metadata in result.artifacts.items()
        for given_one in [_artifact(given, "outputs", name)]  # servers before 2.15 give it no name
    }
    output = {"parameterValues": result.parameters, "artifacts": artifacts}
    _written(Path(given["outputs"]["outputFile"]), json.dumps(output))
    return 0


def component(kind: str, given: Mapping[str, Any], artifacts: Mapping[str, Any]) -> None:
    """The same inside KFP's own Python executor, which writes the metadata of ``artifacts``."""
    bundle = Path(artifacts[names.BUNDLE].path)
    try:
        result = _perform(kind, bundle, given)
    except TaskFailed:
        raise SystemExit(1) from None
    _write_parameters(given, result)
    for name, metadata in result.artifacts.items():
        artifacts[name].metadata.update(metadata)


def _perform(kind: str, bundle: Path, given: Mapping[str, Any]) -> Result:
    with ZipFile(bundle) as archive:
        plan = decode(archive.read("plan.json"))
    if LOCAL in os.environ:
        os.environ.pop("PYTHONSAFEPATH", None)  # set for KFP's local runner, and not meant for what a step starts
    if kind == "start":
        return _start(bundle, plan, given)
    if kind == "end":
        return _end(bundle, plan, given)
    if kind == "last":
        return Result()
    return StepTask(bundle, plan, given).run()


def _start(bundle: Path, plan: Plan, given: Mapping[str, Any]) -> Result:
    parameters = {item.name: _parameter(plan, item.name, names.port(item.name), given) for item in plan.parameters}
    arguments = (plan.name, _run_id(given), parameters)
    fire_pipeline_hooks(bundle, "on_pipeline_start", arguments, Journal.of(names.START_TASK))
    return Result({names.STARTED: repr(time.time())})


def _end(bundle: Path, plan: Plan, given: Mapping[str, Any]) -> Result:
    values = given["inputs"]["parameterValues"]
    status = _STATUS.get(values[names.STATUS]["state"], "FAILED")
    duration = max(time.time() - float(values[names.STARTED]), 1e-6)
    arguments = (plan.name, _run_id(given), status, duration)
    fire_pipeline_hooks(bundle, "on_pipeline_end", arguments, Journal.of(names.END_TASK))
    return Result()


class StepTask:
    """One task of a run: a step, with all the attempts that happen inside this container."""

    def __init__(self, bundle: Path, plan: Plan, given: Mapping[str, Any]) -> None:
        self.bundle = bundle
        self.plan = plan
        self.given = given
        name = given["inputs"]["parameterValues"][names.STEP]
        self.step = plan.by_name.get(name) or next(step for step in plan if names.constant(step.name) == name)
        self.journal = Journal.of(names.task(self.step.name))

    def run(self) -> Result:
        """One attempt, or several where KFP cannot keep the step's retry policy."""
        delays = [*delays_in_pod(self.step)]
        while True:
            attempt = self._attempt()
            if attempt.failure is None:
                return self._result(attempt)
            if not delays or not _worth_it(self.step.retry, attempt.failure):
                raise TaskFailed
            time.sleep(delays.pop(0))

    def _attempt(self) -> Attempt:
        dates = _dates(self.given["inputs"]["parameterValues"].get(names.TIME))
        attempt = Attempt(self.bundle, self.plan.name, self.step, self._scratch(), self.journal, dates)
        attempt.run(self._inputs(), self._brought())
        return attempt

    def _scratch(self) -> Path:
        """Beside KFP's output file, so that moving a large output to its place costs nothing where it can."""
        folder = Path(self.given["outputs"]["outputFile"]).parent
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder, prefix=".flowyml-"))

    def _inputs(self) -> Values:
        inputs = {}
        for item in self.step.inputs:
            if isinstance(item.source, FromStep):
                inputs[item.name] = _packed(_artifact(self.given, "inputs", names.port(item.name)))
            elif isinstance(item.source, FromParameter):
                inputs[item.name] = _parameter(self.plan, item.source.name, names.port(item.name), self.given)
        return inputs

    def _brought(self) -> list[Path]:
        """The folders to which KFP has brought inputs: apart from the store, the only places where they may stand."""
        ports = (names.port(item.name) for item in self.step.inputs if isinstance(item.source, FromStep))
        return [_path(_artifact(self.given, "inputs", port)["uri"]).parent for port in ports]

    def _result(self, attempt: Attempt) -> Result:
        result = Result()
        for output, packed in attempt.outputs.items():
            port = names.artifact(output)
            target = _artifact(self.given, "outputs", port)
            result.artifacts[port] = _store(packed, target, attempt.scratch)
            shown = packed if not is_reference(packed) else _with_url(packed, attempt.scratch, target["uri"])
            result.parameters[names.port(output)] = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
        shutil.rmtree(attempt.scratch, ignore_errors=True)
        self._publish(result)
        return result

    def _publish(self, result: Result) -> None:
        """Those that are outputs of the pipeline."""
        wanted = {name: source.output for name, source in self.plan.step_outputs if source.step == self.step.name}
        if wanted:
            shown = {name: json.loads(result.parameters[names.port(output)]) for name, output in wanted.items()}
            self.journal.publish(outputs=shown)


def _worth_it(policy: OrchestratorRetryPolicy | None, failure: Mapping[str, Any]) -> bool:
    return policy is not None and policy.retries_on_names(failure["names"])


def _parameter(plan: Plan, name: str, port: str, given: Mapping[str, Any]) -> Any:
    """The value of a run's parameter, with its exact type where that is known."""
    if exact := os.environ.get(LOCAL):  # kfp.local turns integers in lists into floats, so they come beside it
        values = json.loads((Path(exact) / "parameters.json").read_text())
        if name in values:
            return values[name]
    (parameter,) = (item for item in plan.parameters if item.name == name)
    return restored(given["inputs"]["parameterValues"].get(port), parameter)


def _run_id(given: Mapping[str, Any]) -> str:
    """The run's own name, or that of its workflow: runs of a recurring run are compiled without one."""
    values = given["inputs"]["parameterValues"]
    return str(values.get(names.RUN) or values.get(names.JOB, ""))


def _dates(time: Any) -> RunDates:
    """When the run is for; now where an older KFP does not say, and for a step that may come from the cache."""
    with suppress(TypeError, ValueError):
        return RunDates(logical_date=datetime.fromisoformat(time))
    return RunDates()


def _artifact(given: Mapping[str, Any], side: str, port: str) -> Values:
    artifact: Values = given[side]["artifacts"][port]["artifacts"][0]
    return artifact


def _path(uri: str) -> Path:
    """Where KFP's launcher has put an artifact, or will look for it."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    return Path("/" + rest.lstrip("/")) if scheme == "file" else Path("/", _FOLDERS.get(scheme, scheme), rest)


def _packed(artifact: Mapping[str, Any]) -> Any:
    """What stands for an input: the JSON in its file, or a reference to the file."""
    path, metadata = _path(artifact["uri"]), artifact.get("metadata") or {}
    if metadata.get("format", PACKED) == PACKED:
        return json.loads(path.read_text("utf-8"))
    reference = {
        "url": f"file://{path}",
        "format": metadata["format"],
        "sha256": metadata["sha256"],
        "size": int(metadata["size"]),
    }
    return {"$artifact": reference}


def _store(packed: Any, target: Mapping[str, Any], scratch: Path) -> Values:
    """Put an output where KFP picks it up; gives the metadata that KFP keeps with it."""
    path = _path(target["uri"])
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_reference(packed) and (source := _inside(packed["$artifact"]["url"], scratch)):
        shutil.move(source, path)
        about = packed["$artifact"]
        return {"format": about["format"], "sha256": about["sha256"], "size": str(about["size"]), "type": about["type"]}
    _written(path, json.dumps(packed, ensure_ascii=False))
    return {"format": PACKED}


def _inside(url: str, scratch: Path) -> Path | None:
    path = Path(url.removeprefix("file://"))
    return path if path.is_relative_to(scratch) else None


def _with_url(packed: Mapping[str, Any], scratch: Path, uri: str) -> Values:
    about = packed["$artifact"]
    url = uri if "://" in uri else f"file://{uri}"
    return {"$artifact": {**about, "url": url} if _inside(about["url"], scratch) else about}


def _write_parameters(given: Mapping[str, Any], result: Result) -> None:
    for name, text in result.parameters.items():
        _written(Path(given["outputs"]["parameters"][name]["outputFile"]), text)


def _written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
