"""What make runs for the adapter of the page "Write an adapter".

``flowyml_make_worker.py RUN N`` runs the steps of task N of the run in the folder RUN, and ``… RUN end CODE`` ends the
run, with the exit code of ``make main``. Each run of a step has a file there, which only its task writes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.core.dates import RunDates
from flowyml.core.item_names import labelled
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan, Step
from flowyml.plan.names import slug
from flowyml.plan.parameters import days_of
from flowyml.runtime.decider import Decider, End, Facts, Index, Outcome, listed
from flowyml.runtime.due import run_due
from flowyml.runtime.packed_decisions import PackedEvaluator
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.step_errors import of_step
from flowyml.runtime.step_runner import StepEvent


def read(path: Path) -> Any:
    """Return the content of a file; an empty one if it does not exist yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, content: Any) -> None:
    """Write a file in one piece, so that others never read half of it."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    new.replace(path)


# --8<-- [start:tasks]
def tasks_of(plan: Plan) -> list[list[str]]:
    """Return the steps of each task: those of a loop, of an execution group, or one step alone."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for step in plan:
        loops = plan.structure.loops(step.group)
        alone = ("group", step.execution_group) if step.execution_group else ("step", step.name)
        tasks.setdefault(("loop", loops[0].name) if loops else alone, []).append(step.name)
    return list(tasks.values())


# --8<-- [end:tasks]
# --8<-- [start:facts]
class Records(Facts):
    """The records of a run, for the task of these ``steps``."""

    def __init__(self, run: Path, parameters: Mapping[str, Any], steps: Sequence[str]) -> None:
        self.folder = run / "records"
        self.parameters = parameters
        self.steps = steps
        self.ended: dict[Path, dict[str, Any]] = {}  # these do not change, so each is read once

    def path(self, step: str, index: Index) -> Path:
        return self.folder / f"{slug(labelled(step, index))}.json"

    def record(self, step: str, index: Index) -> dict[str, Any]:
        path = self.path(step, index)
        record: dict[str, Any] = self.ended.get(path) or read(path)
        if "end" in record:
            self.ended[path] = record
        return record

    def end(self, step: str, index: Index) -> Outcome | None:
        record = self.record(step, index)
        if "end" in record:
            return Outcome(End(record["end"]), record["cause"])
        # make begins a task after those that it needs. A step of theirs without an end will not get one.
        return None if step in self.steps else Outcome(End.FAILED, f"step {labelled(step, index)!r} was stopped")

    def value(self, step: str, output: str, index: Index) -> Any:
        return self.record(step, index)["outputs"][output]

    def parameter(self, name: str) -> Any:
        return self.parameters[name]

    # --8<-- [end:facts]
    # --8<-- [start:events]
    def note(self, event: StepEvent) -> None:
        """Record what becomes of a step."""
        step, index, error, now = event.step, event.index, event.error, time.time() if event.attempt else None
        for line in (getattr(error, "traceback", "") or str(error)).splitlines() if error else ():
            self.log(step, index, "ERROR", line)
        record = self.record(step.name, index) or {"step": step.name, "index": index, "started": now}
        record |= {"state": event.state, "attempt": event.attempt, "error": error and str(error)}
        if event.outcome:
            record |= {"end": event.outcome.end, "cause": event.outcome.cause, "outputs": event.outputs, "ended": now}
        write(self.path(step.name, index), record)

    def log(self, step: Step, index: Index, source: str, line: str) -> None:
        entry = {"time": time.time(), "step": step.name, "index": index, "source": source, "line": line}
        os.write(1, (json.dumps(entry) + "\n").encode())  # in one piece: the tasks of a run share their log


# --8<-- [end:events]
# --8<-- [start:work]
def main(run: Path, task: str, code: str = "") -> None:
    job = read(run / "job.json")
    plan, dates, stop = Bundle.read(job["bundle"]).plan, RunDates.of(job["dates"]), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    steps = [] if task == "end" else tasks_of(plan)[int(task)]
    records = Records(run, dates.filled(job["parameters"], days_of(plan.parameters)), steps)
    with StepProcesses(
        Path(job["bundle"]), run_id=job["run_id"], artifacts=str(run / "artifacts"), place=job["place"],
        parameters=job["parameters"], dates=dates, fork_here=True,
    ) as processes:  # fmt: skip
        decider = Decider(plan, records, PackedEvaluator(partial(processes.evaluate, stop=stop)))
        if task == "end":
            end_run(run, decider, int(code))
        else:
            run_due(decider, steps, processes, on_event=records.note, on_line=records.log, stop=stop)
            write(run / "faults" / f"{task}.json", decider.faults)


# --8<-- [end:work]
# --8<-- [start:end]
def records_of(run: Path, plan: Plan) -> list[dict[str, Any]]:
    """Return the records of a run's steps, in the plan's order. Those that have not begun are waiting."""
    records = [read(path) for path in (run / "records").glob("*.json")]
    missing = plan.by_name.keys() - {record["step"] for record in records}
    records += [{"step": name, "index": [], "state": "waiting"} for name in missing]
    order = [step.name for step in plan]
    return sorted(records, key=lambda record: (order.index(record["step"]), record["index"]))


def end_run(run: Path, decider: Decider, code: int) -> None:
    """Record the end of a run: its state, what failed, and the outputs of the pipeline."""
    stopped = {124: "timeout", 143: "cancelled"}.get(code, "")  # by `timeout`, or by a signal
    failures: list[str] = []
    for record in records_of(run, decider.plan):
        failed = record["state"] in ("failed", "timeout") or ("end" not in record and not stopped)
        if failed and not decider.structure.may_fail(decider.plan.by_name[record["step"]].group):
            error = record.get("error") or "its task died"
            failures.append(of_step(record["step"], error, labelled(record["step"], record["index"])))
    failures += dict.fromkeys(fault for path in (run / "faults").glob("*.json") for fault in read(path))
    outputs = {name: listed(value) for name, value in decider.outputs().items()}
    state = stopped or ("failed" if failures else "completed")
    write(run / "end.json", {"state": state, "failures": failures, "outputs": outputs, "ended": time.time()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
# --8<-- [end:end]
