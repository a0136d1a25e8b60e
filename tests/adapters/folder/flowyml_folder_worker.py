"""What the engine of the page "Write an adapter" runs: ``python flowyml_folder_worker.py RUN`` runs all steps of a run.

It runs one step after another, each in a process of its own, and notes what becomes of them in ``RUN/steps.json``.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.core.dates import RunDates
from flowyml.core.errors import MissingSecretError, StepCancelledError, StepTimeoutError
from flowyml.core.item_names import labelled
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import FromStep, Plan, Step
from flowyml.plan.parameters import days_of
from flowyml.runtime.decider import OK, Decider, End, Facts, Index, Outcome, listed
from flowyml.runtime.due import due
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.packed_decisions import PackedEvaluator
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.step_errors import of_step
from flowyml.runtime.step_runner import StepEvent, run_attempts


# --8<-- [start:facts]
class Records(Facts):
    """The steps of a run so far, by their labels, such as ``train[2]``; they are also in a file for the adapter."""

    def __init__(self, path: Path, parameters: Mapping[str, Any]) -> None:
        self.path = path
        self.parameters = parameters
        self.about: dict[str, Any] = {"steps": {}, "failures": [], "outputs": {}, "timed_out": False}
        self.given_up: set[str] = set()  # steps that no longer run, when only clean-ups do

    def end(self, step: str, index: Index) -> Outcome | None:
        run = self.about["steps"].get(labelled(step, index), {})
        if "end" in run:
            return Outcome(End(run["end"]), run["cause"])
        return Outcome(End.FAILED, "the run was stopped") if step in self.given_up else None

    def value(self, step: str, output: str, index: Index) -> Any:
        return self.about["steps"][labelled(step, index)]["outputs"][output]

    def parameter(self, name: str) -> Any:
        return self.parameters[name]

    def note(self, step: str, index: Index, **facts: Any) -> None:
        run = self.about["steps"].setdefault(labelled(step, index), {"step": step, "index": index})
        run.update(facts)
        self.save()

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.about))
        new.replace(self.path)


# --8<-- [end:facts]
# --8<-- [start:decide]
class Worker:
    """Runs the steps of one run."""

    def __init__(self, run: Path, plan: Plan, parameters: Mapping[str, Any], processes: StepProcesses) -> None:
        self.plan = plan
        self.processes = processes
        self.records = Records(run / "steps.json", parameters)
        self.decider = Decider(plan, self.records, PackedEvaluator(processes.evaluate))
        self.stop = threading.Event()

    def run(self) -> bool:
        """Run all steps, then the clean-ups, even after a stop. Return whether the run failed."""
        self.records.save()
        self.perform_all(is_cleanup=False)
        structure, self.stop = self.plan.structure, threading.Event()
        self.records.given_up = {step.name for step in self.plan if not structure.is_cleanup(step.group)}
        self.perform_all(is_cleanup=True)
        self.records.about["failures"] += self.decider.faults
        self.records.about["outputs"] = dict(self.outputs())
        self.records.save()
        return bool(self.records.about["failures"])

    def perform_all(self, *, is_cleanup: bool) -> None:
        while not self.stop.is_set() and (first := next(due(self.decider, is_cleanup=is_cleanup), None)):
            step, index, outcome = first
            if outcome != OK:
                self.note(StepEvent(step, index, 0, outcome))
                continue
            with suppress(StepCancelledError):
                run_attempts(step, index, partial(self.attempt, step, index), self.note, wait=self.wait)

    # --8<-- [end:decide]
    # --8<-- [start:attempts]
    def attempt(self, step: Step, index: Index, number: int, may_follow: bool) -> AttemptOutputs:
        """Make one attempt of a step."""
        group = labelled(step.execution_group, index) if step.execution_group else ""
        is_last = not group or step.name == self.plan.structure.execution_groups[step.execution_group].steps[-1]
        return self.processes.run(
            step.name, {name: listed(value) for name, value in self.decider.inputs(step, index).items()},
            attempt=number, index=index, secrets=step.secrets, timeout=step.timeout_seconds, stop=self.stop,
            on_line=partial(self.log, step, index), together=group, hold=not is_last,
        )  # fmt: skip

    def wait(self, seconds: float) -> None:
        """Wait before the next attempt."""
        if self.stop.wait(seconds):
            raise StepCancelledError("The run was stopped.")

    def note(self, event: StepEvent) -> None:
        """Note what becomes of a step, for the decider and for the adapter."""
        step, index, error = event.step, event.index, event.error
        label, now = labelled(step.name, index), time.time()
        if error:
            for line in (getattr(error, "traceback", "") or str(error)).splitlines():
                self.log(step, index, "ERROR", line)
        facts: dict[str, Any] = {"state": state_of(event), "attempt": event.attempt, "error": error and str(error)}
        if event.outcome:
            facts.update(end=event.outcome.end, cause=event.outcome.cause, outputs=event.outputs)
            facts["ended"] = now if event.attempt else None
            if error and not self.plan.structure.may_fail(step.group):
                self.records.about["failures"].append(of_step(step.name, str(error), label))
        elif event.attempt == 1 and not error:
            facts["started"] = now
        self.records.note(step.name, index, **facts)

    def log(self, step: Step, index: Index, source: str, line: str) -> None:
        print(json.dumps({"step": step.name, "index": index, "source": source, "line": line}), flush=True)

    # --8<-- [end:attempts]
    # --8<-- [start:work]
    def outputs(self) -> Iterator[tuple[str, Any]]:
        """Yield the outputs of the pipeline, each with the handling of failed items in the loops that it is from."""
        for output in self.plan.outputs:
            if self.decider.end(output.source, "", ()) == OK:
                source = output.source
                loops = self.plan.structure.loops_between(source.step, "") if isinstance(source, FromStep) else ()
                value = listed(self.decider.value(source, "", ()))
                yield output.name, [value, [loop.on_item_error for loop in loops]]


def main(run: Path) -> int:
    job, given = json.loads((run / "job.json").read_text()), json.loads((run / "parameters.json").read_text())
    plan, dates = Bundle.read(Path(job["bundle"])).plan, RunDates.of(job["dates"])
    processes = StepProcesses(
        Path(job["bundle"]), run_id=job["run_id"], artifacts=str(run / "artifacts"), place=job["place"],
        parameters=given, dates=dates, read_secret=lambda name: secret(run.parent, name),
    )  # fmt: skip
    with processes:
        worker = Worker(run, plan, dates.filled(given, days_of(plan.parameters)), processes)

        def stop(*_: object, timed_out: bool = False) -> None:
            worker.records.about["timed_out"] = timed_out
            worker.stop.set()

        signal.signal(signal.SIGTERM, stop)
        if plan.timeout_seconds is not None:
            timer = threading.Timer(plan.timeout_seconds, stop, kwargs={"timed_out": True})
            timer.daemon = True
            timer.start()
        return 1 if worker.run() or worker.records.about["timed_out"] else 0


def state_of(event: StepEvent) -> str:
    """Return the word for the state of a step, which the adapter's table of statuses knows."""
    if event.outcome is None:
        return "running"
    if not event.attempt:
        return {End.OK: "no_items", End.SKIPPED: "skipped", End.FAILED: "upstream_failed"}[event.outcome.end]
    return "done" if event.outcome == OK else "timeout" if isinstance(event.error, StepTimeoutError) else "failed"


def secret(folder: Path, name: str) -> str:
    """Return a secret from the engine's own place for them."""
    file = folder / "secrets.json"
    secrets = json.loads(file.read_text()) if file.exists() else {}
    if name not in secrets:
        raise MissingSecretError(f"There is no secret {name!r} in {file}: add it.")
    return str(secrets[name])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
# --8<-- [end:work]
