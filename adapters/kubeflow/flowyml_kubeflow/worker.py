"""Run a step in its container: between KFP's files and the bundle's ``step`` command.

This file travels in the bundle and needs only Python. KFP passes all paths in one JSON text, the *executor input*;
parameters and artifacts are written there. Source: KFP, *ExecutorInput* and *ExecutorOutput*.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from flowyml.artifacts.packing import is_reference
from flowyml.plan.codec import decode
from flowyml.plan.model import FromParameter, FromStep, Plan
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.step_runner import StepEvent, run_attempts
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import LOCAL, fire_hooks, make_attempt, note, processes_of, publish, reason
from flowyml_kubeflow.task_files import (
    FACTS_BYTES,
    Result,
    TaskFailed,
    Values,
    artifact,
    dates_of,
    described,
    parameter,
    path_of,
    read,
    run_id_of,
    store,
    values_of,
    with_url,
    write_file,
    write_parameters,
)

__all__ = ["main"]

# The final status of a task: in KFP's words, those of its metadata store, and those of kfp.local.
_STATUS = {
    "SUCCEEDED": "COMPLETED", "COMPLETE": "COMPLETED", "CACHED": "COMPLETED",
    "CANCELED": "CANCELLED", "CANCELLED": "CANCELLED",
}  # fmt: skip

# Kubernetes keeps the text of this file of a container that failed, and Argo adds it to the message of its node, which
# stays when pod and log are gone. Sources: Kubernetes, terminationMessagePath; Argo, ``inferFailedReason``.
TERMINATION_LOG = Path("/dev/termination-log")
_REASON = 500  # bytes: Argo stores them twice

_FLOW = ("items", "turn", "together", "result")  # of pipelines with control flow


def main(arguments: Sequence[str]) -> int:
    """Execute ``BUNDLE KIND EXECUTOR_INPUT ABOUT``, in a container without KFP; return the exit code."""
    bundle, kind, text, about = arguments
    executor_input = {**json.loads(text), "about": json.loads(about)}
    try:
        result = _perform(kind, Path(bundle), executor_input)
    except TaskFailed as failed:
        with suppress(OSError):
            if TERMINATION_LOG.exists():
                reason = str(failed).encode("utf-8", "replace")[:_REASON]
                TERMINATION_LOG.write_text(reason.decode("utf-8", "ignore"), "utf-8")
        return 1
    write_parameters(executor_input, result)
    artifacts = {
        name: {"artifacts": [{"name": target.get("name", name), "uri": target["uri"], "metadata": metadata}]}
        for name, metadata in result.artifacts.items()
        for target in [artifact(executor_input, "outputs", name)]  # servers before 2.15 do not name it
    }
    output = {"parameterValues": result.parameters, "artifacts": artifacts}
    write_file(Path(executor_input["outputs"]["outputFile"]), json.dumps(output))
    return 0


def _perform(kind: str, bundle: Path, executor_input: Mapping[str, Any]) -> Result:
    with ZipFile(bundle) as archive:
        plan = decode(archive.read("plan.json"))
    if LOCAL in os.environ:
        os.environ.pop("PYTHONSAFEPATH", None)  # set for KFP's local runner, and not for child processes of a step
    if kind == "start":
        return _start(bundle, plan, executor_input)
    if kind == "end":
        return _end(bundle, plan, executor_input)
    if kind == "last":
        return Result()
    if kind in _FLOW:
        from flowyml_kubeflow.pods import perform  # which travels only where it is needed

        return perform(kind, bundle, plan, executor_input)
    return StepTask(bundle, plan, executor_input).run()


def _start(bundle: Path, plan: Plan, executor_input: Mapping[str, Any]) -> Result:
    parameters = {
        item.name: parameter(plan, item.name, names.port(item.name), executor_input) for item in plan.parameters
    }
    arguments = (plan.name, run_id_of(executor_input), parameters)
    fire_hooks(bundle, "on_pipeline_start", arguments)
    return Result({names.STARTED: repr(time.time())})


def _end(bundle: Path, plan: Plan, executor_input: Mapping[str, Any]) -> Result:
    values = values_of(executor_input)
    status = _STATUS.get(values[names.STATUS]["state"], "FAILED")
    duration = max(time.time() - float(values[names.STARTED]), 1e-6)
    arguments = (plan.name, run_id_of(executor_input), status, duration)
    fire_hooks(bundle, "on_pipeline_end", arguments)
    return Result()


class StepTask:
    """One task of a run: a step, with all attempts inside of this container."""

    def __init__(self, bundle: Path, plan: Plan, executor_input: Mapping[str, Any]) -> None:
        self.bundle = bundle
        self.plan = plan
        self.executor_input = executor_input
        self.values = values_of(executor_input)
        # Steps that share a component get their name as an input.
        name = self.values.get(names.STEP) or executor_input["about"]["step"]
        (self.step,) = (step for step in plan if names.constant(step.name) == name)

    def run(self) -> Result:
        """Run the step, as often as its policy allows. Raises ``TaskFailed``.

        Retries happen in one pod: KFP does not retry a task that ends by itself. Source: Argo, ``OnError``, which stock
        KFP 2.17 sets.
        """
        run_attempts(self.step, (), self._attempt, self._on_event)
        return self._result()

    def _attempt(self, number: int, may_follow: bool) -> AttemptOutputs:
        self.scratch, dates = self._scratch(), dates_of(self.values.get(names.TIME))
        processes = processes_of(
            self.bundle,
            self.plan.name,
            run_id_of(self.executor_input),
            self.scratch,
            dates,
            self._brought(),
            [self.step],
        )
        return make_attempt(self.bundle, self.step, number, self._inputs(), processes)

    def _on_event(self, event: StepEvent) -> None:
        if event.error and event.outcome:
            raise TaskFailed(reason(event.error))
        if event.outcome:
            self.outputs = event.outputs
        elif not event.error and self.step.retry:
            note(attempt=event.attempt)

    def _scratch(self) -> Path:
        """Return a folder beside KFP's output file, so that moving a large output costs nothing if possible."""
        folder = Path(self.executor_input["outputs"]["outputFile"]).parent
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder, prefix=".flowyml-"))

    def _inputs(self) -> Values:
        inputs = {}
        for item in self.step.inputs:
            if isinstance(item.source, FromStep):
                inputs[item.name] = read(artifact(self.executor_input, "inputs", names.port(item.name)))
            elif isinstance(item.source, FromParameter):
                inputs[item.name] = parameter(self.plan, item.source.name, names.port(item.name), self.executor_input)
        return inputs

    def _brought(self) -> list[Path]:
        """Return the folders to which KFP has downloaded inputs: apart from the store, the only places for them."""
        ports = (names.port(item.name) for item in self.step.inputs if isinstance(item.source, FromStep))
        return [path_of(artifact(self.executor_input, "inputs", port)["uri"]).parent for port in ports]

    def _result(self) -> Result:
        result, values = Result(), Values()
        if self.outputs.cached_from:
            note(cached=self.outputs.cached_from)
        for output, packed in self.outputs.items():
            target = artifact(self.executor_input, "outputs", names.port(output))
            values[output] = packed if not is_reference(packed) else with_url(packed, self.scratch, target["uri"])
            stored, kind = store(packed, target, self.scratch), self.step.kinds.get(output, "")
            limit = self.executor_input["about"].get("facts", FACTS_BYTES)
            result.artifacts[names.port(output)] = described(packed, stored, kind, limit)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._publish(values)
        return result

    def _publish(self, values: Values) -> None:
        """Write the outputs of the pipeline to the log, and possible artifacts."""
        ports = {name: source.output for name, source in self.plan.step_outputs if source.step == self.step.name}
        artifacts = {output: packed for output, packed in values.items() if isinstance(packed, dict)}
        if ports or artifacts:
            outputs = {name: values[output] for name, output in ports.items()}
            publish(outputs=outputs, **({"artifacts": artifacts} if artifacts else {}))
