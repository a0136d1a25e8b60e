"""One attempt of a step in a process of its own, and what a pod writes to its log."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowyml.artifacts import default_url, run_place
from flowyml.core.dates import RunDates
from flowyml.core.errors import MissingSecretError, StepError, StepTimeoutError
from flowyml.core.logs import level_of, with_level
from flowyml.plan.model import Step
from flowyml.plan.secrets import variable_of
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.lines import OnLine
from flowyml.runtime.spawn import SpawnedProcesses
from flowyml.runtime.step_errors import failed
from flowyml_kubeflow import names

__all__ = [
    "ENGINE", "LOCAL", "RESULT", "TIMED_OUT", "fire_hooks", "leveled", "make_attempt", "note", "printed",
    "processes_of", "publish", "reason",
]  # fmt: skip

LOCAL = "FLOWYML_KUBEFLOW_LOCAL"  # the folder of a run of the local runner; absent on a cluster
RESULT = "flowyml-result "  # begins a line of a pod's log with data that KFP's API lacks; only `publish` writes it
ENGINE = (
    r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \w+\.go:\d+\] "  # of KFP's launcher, by Kubernetes' klog
    r"|time=\S+ level=\w+ .*\bargo=true( |$)"  # of Argo's executor
)
"""The beginning of a line that KFP or Argo writes to a pod's log, as a regular expression."""
TIMED_OUT = "StepTimeoutError"  # a failure's kind
_LEVELS = ("DEBUG", "WARNING", "ERROR", "CRITICAL")
_TAKEN = re.compile(f" *({RESULT}|({'|'.join(_LEVELS)}): |{ENGINE})")  # lines that mean something in a pod's log


def note(**facts: Any) -> None:
    """Write facts about a step, or an item of it, to the pod's log."""
    publish(note={"time": time.time(), **facts})


def publish(**result: Any) -> None:
    """Write the outputs of the pipeline, or a failure, to the pod's log: KFP's API shows neither."""
    print(RESULT + json.dumps(result, separators=(",", ":")), flush=True)


def _log(source: str, line: str) -> None:
    """Write a line of a user's code to the pod's log."""
    target = sys.stdout if source == "stdout" else sys.stderr
    level = logging.getLevelName(level_of(source))
    print(printed(line) if level == "INFO" else with_level(source, line), file=target, flush=True)


def processes_of(
    bundle: Path, pipeline: str, run: str, scratch: Path, dates: RunDates, brought: Sequence[Path],
    steps: Sequence[Step],
) -> SpawnedProcesses:  # fmt: skip
    """Return the processes of attempts, which store outputs in ``scratch`` or in the store of ``FLOWYML_ARTIFACTS``.

    Inputs are there, too, or in one of the folders ``brought``. Several ``steps`` share one process. ``run`` is the id
    of the run, if it is known.
    """
    store = os.environ.get(names.ARTIFACTS) or str(scratch / "store")
    run_id = os.environ.get("FLOWYML_RUN_ID") or run or f"kfp-{os.urandom(8).hex()}"
    # Runs on the local runner share cached results with those of the local engine.
    cache = {"cache": default_url()} if LOCAL in os.environ and any(step.caching for step in steps) else {}
    config = {
        "run_id": run_id, "artifacts": store, "parameters": {}, "caller": cache, "dates": dates.plain(),
        # A pod does not know the id of its KFP.
        "place": run_place(f"kubeflow-{os.urandom(8).hex()}", pipeline, run_id),
        # Outputs that KFP took from its cache are where an earlier run has put them.
        "also": [str(folder) for folder in dict.fromkeys((store, *brought))],
    }  # fmt: skip
    if len(steps) > 1:
        from flowyml.runtime.shared import SharedProcesses  # which travels only where it is needed

        return SharedProcesses(sys.executable, bundle, config)
    return SpawnedProcesses(sys.executable, bundle, config)


def make_attempt(
    bundle: Path, step: Step, number: int, inputs: Mapping[str, Any], processes: SpawnedProcesses,
    index: Sequence[int] = (), *, together: str = "", hold: bool = False,
) -> AttemptOutputs:  # fmt: skip
    """Make one try of a step, in a process. Raises ``StepError``.

    Steps ``together`` share a process, which waits for the next of them if it is to ``hold``.
    """
    on_line: OnLine = _log
    answer: dict[str, Any] = {}
    error: StepError | None = None
    try:
        secrets, on_line = _secrets(step, on_line)
        request = {"kind": "step", "step": step.name, "attempt": number, "index": index, "secrets": secrets}
        if together:
            request.update(together=together, hold=hold)
        with processes.child(f"step {step.name!r}", request, inputs, on_line) as child:
            answer = child.wait(step.timeout_seconds, None)
    except StepError as lost:
        error = lost
        _log_error(str(lost), on_line)
        # The step's process cannot call the hooks any more.
        about_error = {"type": type(lost).__name__, "message": str(lost), "step": step.name}
        fire_hooks(bundle, "on_error", (step.name, about_error), on_line)
    if failure := answer.get("failure"):
        error = failed(step.name, {**failure, "message": failure["message"] + _lacking(failure)})
        _log_error(failure["traceback"], on_line)
    if error:
        publish(failure={"kind": type(error).__name__, "message": str(error)})
        raise error
    return AttemptOutputs(answer["outputs"], answer.get("cached", ""))


def _lacking(failure: Mapping[str, Any]) -> str:
    """Return the remedy for a package that the image of a pod lacks; empty for another failure."""
    is_of_image = "ModuleNotFoundError" in failure["names"] and LOCAL not in os.environ
    if not is_of_image or "include=[" in failure["message"]:  # with its own remedy: see ``left_behind``
        return ""
    return ". Pods install nothing: give an image that has the package, kubeflow={'image': '…'}"


def _secrets(step: Step, on_line: OnLine) -> tuple[dict[str, str], OnLine]:
    """Return the values of the step's secrets, and the function that takes its lines without them."""
    if not step.secrets:
        return {}, on_line
    from flowyml.runtime.secrets import Mask, from_environment, secrets_of

    secrets = secrets_of(step.name, step.secrets, from_environment if LOCAL in os.environ else _of_kubernetes)
    return secrets, Mask(secrets.values()).lines(on_line)


def _of_kubernetes(reference: str) -> str:
    """Return a secret of Kubernetes, which is a variable of the pod. Raises ``MissingSecretError``."""
    if value := os.environ.get(variable_of(reference)):
        return value
    name, _, key = reference.partition("/")
    raise MissingSecretError(
        f"Secret {reference!r} is missing in the namespace of the run. Create it: kubectl create secret generic "
        f"{name} --from-literal={key}=…"
    )


def _log_error(text: str, on_line: OnLine) -> None:
    for line in text.splitlines():
        on_line("ERROR", line)


def reason(error: StepError) -> str:
    """Return the message of an error; after ``TIMED_OUT`` if the step took too long, which has a status of its own."""
    return f"{TIMED_OUT}: {error}" if isinstance(error, StepTimeoutError) else str(error)


def fire_hooks(bundle: Path, event: str, arguments: Sequence[object], on_line: OnLine = _log) -> None:
    """Call the hooks of a pipeline in a process; their exceptions never change the outcome of a run."""
    processes = SpawnedProcesses(sys.executable, bundle, {"run_id": "", "caller": {}})
    try:
        with processes.child(f"hook {event}", {"kind": "hook", "event": event}, list(arguments), on_line) as child:
            child.wait(None, None)
    except StepError as error:
        on_line("stderr", f"{error} The run goes on.")


def leveled(line: str) -> tuple[str, str]:
    """Return the level of a line of a pod's log, and the line as it was printed or logged.

    >>> leveled("WARNING: it rains"), leveled("NOTE: it rains"), leveled(" WARNING: it rains")
    (('WARNING', 'it rains'), ('INFO', 'NOTE: it rains'), ('INFO', 'WARNING: it rains'))
    """
    level, colon, message = line.partition(": ")
    if colon and level in _LEVELS:
        return level, message
    return "INFO", line[1:] if line.startswith(" ") and _TAKEN.match(line) else line


def printed(line: str) -> str:
    """Return a line that a user's code prints, for the pod's log.

    After a space, if it would be read as one of FlowyML's, KFP's or Argo's, or as a record with a level.

    >>> printed("done"), printed('flowyml-result {"outputs":{}}'), printed("ERROR: none")
    ('done', ' flowyml-result {"outputs":{}}', ' ERROR: none')
    """
    return f" {line}" if _TAKEN.match(line) else line
