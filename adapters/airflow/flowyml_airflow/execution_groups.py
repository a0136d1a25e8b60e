"""Run the steps of an execution group one after the other, in one process that their task starts.

This file travels in the bundle. ``step_runs`` reads on the user's machine the record that is written here.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import StepCancelledError, StepError, StepTimeoutError
from flowyml.core.item_names import labelled
from flowyml.plan.model import Constant, FromParameter, FromStep, Step
from flowyml.runtime.decider import End, Outcome, listed
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.step_runner import StepEvent, run_decided
from flowyml_airflow.facts import TaskDecider
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.names import STEP_MARKER, STEPS_KEY
from flowyml_airflow.xcoms import carried

__all__ = ["GroupRun", "printed"]

logger = logging.getLogger("airflow.task")
_SKIP = "AirflowSkipException"
_FINAL = ("AirflowFailException", _SKIP)
"""The exceptions of Airflow that a step raises in order not to be retried."""


class GroupRun:
    """One try of such a task. ``run`` raises the error of the first step that failed, after all steps.

    A step whose function fails is retried here, by its policy; it runs if FlowyML's rules say so. The state of each
    step is written at each change, so that it is known even if the task is killed. ``call`` makes one attempt; it takes
    the arguments of ``StepProcesses.run``.
    """

    def __init__(
        self, graph: TaskGraph, task: Task, decider: TaskDecider, ti: Any, call: Callable[..., AttemptOutputs],
        stop: threading.Event,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.decider = decider
        self.ti = ti
        self.call = call
        self.stop = stop
        self.steps = graph.runs(task)
        self.at_work = self.steps[0]
        self.outputs: dict[str, Any] = {}
        """The packed outputs of the completed steps, by ``step.output``."""
        self._process = labelled(task.name, decider.index)
        self._tries = int(ti.try_number)
        self._written: dict[str, dict[str, Any]] = {}
        self._failures: list[StepEvent] = []
        self._skips: list[StepError] = []
        decider.facts.all_before_succeeded = not graph.is_checked(task)

    @property
    def failed(self) -> Step:
        """The step whose error ``run`` raised."""
        return self._failures[0].step if self._failures else self.at_work

    def run(self) -> None:
        """Run all steps."""
        for step in self.steps:
            self.at_work = step
            # The tries of the task before this one count as one attempt each.
            run_decided(
                step, self.decider.index, self.decider, self._attempt, self._on_event, first=self._tries,
                wait=self._wait, final=_FINAL,
            )  # fmt: skip
        if self._failures:
            failure = self._failures[0]
            _say_turn(failure.step, failure.attempt)  # Airflow is about to log the error
            assert failure.error
            raise failure.error
        if self._skips:
            raise self._skips[0]

    def _attempt(self, inputs: Mapping[str, Any], number: int, may_follow: bool) -> AttemptOutputs:
        """Make one attempt. Parameters and constants are left out, since they are known where the step runs."""
        step = self.at_work
        fixed = {item.name for item in step.inputs if isinstance(item.source, Constant | FromParameter)}
        return self.call(
            step.name,
            {name: listed(value) for name, value in inputs.items() if name not in fixed},
            attempt=number,
            timeout=step.timeout_seconds,
            together=self._process,
            hold=step is not self.steps[-1] or may_follow,
        )

    def _on_event(self, event: StepEvent) -> None:
        """Log and record a change, and record an end for the steps after it."""
        step, outcome, error = event.step, event.outcome, event.error
        if not event.attempt and outcome:
            cause = {"error": f"not run, since {outcome.cause}"} if outcome.end is End.FAILED else {}
            self._write(step, "upstream_failed" if cause else "skipped", 0, **cause)
        elif error and _SKIP in getattr(error, "names", ()):
            outcome = Outcome(End.SKIPPED)
            self._skips.append(error)
            self._write(step, "skipped", event.attempt)
        elif error:
            logger.error("%s", (getattr(error, "traceback", "") or str(error)).rstrip())
            self._failures += [event] if outcome else []
            state, late = "failed" if outcome else "up_for_retry", isinstance(error, StepTimeoutError)
            self._write(step, state, event.attempt, error=str(error), late=late)
        elif outcome:
            keys = {name: self.graph.key(FromStep(step.name, name)) for name in event.outputs}
            for name, packed in event.outputs.items():
                self.ti.xcom_push(key=keys[name], value=carried(packed))
                self.outputs[f"{step.name}.{name}"] = packed
            cached = {"cached_from": event.outputs.cached_from} if event.outputs.cached_from else {}
            self._write(step, "success", event.attempt, outputs=keys, **cached)
        else:
            self._write(step, "running", event.attempt)
            _say_turn(step, event.attempt)
        if outcome:
            self.decider.facts.results[step.name] = outcome, event.outputs

    def _wait(self, seconds: float) -> None:
        logger.info("It is tried again in %g s.", seconds)
        if self.stop.wait(seconds):
            error = StepCancelledError(f"step {self.at_work.name!r} was stopped while it waited to be tried again.")
            error.step = self.at_work.name
            raise error

    def _write(self, step: Step, state: str, attempt: int, **more: Any) -> None:
        """Record the state of a step, in Airflow's words, together with the states of the earlier steps."""
        now = datetime.now(UTC).isoformat()
        began = self._written.get(step.name, {}).get("began")
        if state == "running":
            self._written[step.name] = {"state": state, "attempt": attempt, "began": now}
        else:
            self._written[step.name] = {"state": state, "attempt": attempt, "began": began, "ended": now, **more}
        self.ti.xcom_push(key=STEPS_KEY, value=carried({"try": self._tries, "steps": self._written}))


def _say_turn(step: Step, attempt: int) -> None:
    """Log a marker: the following lines belong to this step and attempt."""
    logger.info("%s%s", STEP_MARKER, json.dumps({"step": step.name, "attempt": attempt}))


def printed(line: str) -> str:
    """Return a line of a user's code as it is logged: never to be read as a marker of a step.

    >>> printed("done"), printed('flowyml-turn {"step": "train"}')
    ('done', ' flowyml-turn {"step": "train"}')
    """
    return f" {line}" if line.startswith(STEP_MARKER) else line
