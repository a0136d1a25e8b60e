"""Run the steps of an execution group one after the other, in one process that their task starts.

This file travels in the bundle. ``step_runs`` reads on the user's machine the record that is written here.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import StepCancelledError, StepError, StepTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.plan.model import Constant, FromEither, FromParameter, FromStep, Source, Step
from flowyml.plan.values import steps_of
from flowyml.runtime.decider import listed
from flowyml.runtime.execution import StepOutputs
from flowyml_airflow.facts import TaskDecider
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.names import STEPS_KEY, TURN
from flowyml_airflow.task_exceptions import is_final, not_run
from flowyml_airflow.xcoms import carried

__all__ = ["GroupRun", "printed"]

logger = logging.getLogger("airflow.task")
_FINAL = ("AirflowFailException", "AirflowSkipException")
"""The exceptions of Airflow that a step raises in order not to be retried."""


@dataclass
class GroupRun:
    """One try of such a task. ``run`` raises the error of the first step that failed, after all steps.

    A step whose function fails is retried here, by its policy. A step does not run if one that it waits for failed. The
    state of each step is written at each change, so that it is known even if the task is killed. ``call`` makes one
    attempt; it takes the arguments of ``StepProcesses.run``.
    """

    flow: TaskGraph
    task: Task
    decider: TaskDecider
    ti: Any
    call: Callable[..., StepOutputs]
    stop: threading.Event
    _made: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _written: dict[str, dict[str, Any]] = field(default_factory=dict)
    _failures: list[tuple[Step, StepError]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = self.flow.runs(self.task)
        self.at_work = self.steps[0]
        self._tries = int(self.ti.try_number)
        self._index = self.decider.index
        self._process = labelled(self.task.name, self._index)

    @property
    def failed(self) -> Step:
        """The step whose error ``run`` raised."""
        return self._failures[0][0] if self._failures else self.at_work

    @property
    def outputs(self) -> dict[str, Any]:
        """The packed outputs of the completed steps, by ``step.output``."""
        return {f"{step}.{name}": packed for step, made in self._made.items() for name, packed in made.items()}

    def run(self) -> None:
        """Run all steps."""
        skips = []
        for step in self.steps:
            self.at_work = step
            states = {self._written[name]["state"] for name in self._before(step)}
            if states <= {"success"}:
                try:
                    self._made[step.name] = self._run(step)
                except StepCancelledError:
                    raise
                except StepError as error:
                    if "AirflowSkipException" in getattr(error, "names", ()):
                        skips.append(error)
                    else:
                        self._failures.append((step, error))
            elif states <= {"success", "skipped"}:
                self._write(step, "skipped", 0)
            else:
                self._write(step, "upstream_failed", 0, error=self._cause(step))
        if self._failures:
            first, failure = self._failures[0]
            _say_turn(first, self._written[first.name]["attempt"])  # Airflow is about to log the error
            raise failure
        if skips:
            raise skips[0]

    def _run(self, step: Step) -> Mapping[str, Any]:
        """Run a step as often as its policy allows; return its outputs."""
        delays = list(step.retry.delays) if step.retry else []
        attempt = self._tries  # the tries of the task before this one count as one each
        while True:
            self._write(step, "running", attempt)
            _say_turn(step, attempt)
            try:
                outputs = self.call(
                    step.name,
                    self._inputs(step),
                    attempt=attempt,
                    timeout=step.timeout_seconds,
                    together=self._process,
                    hold=step is not self.steps[-1] or bool(delays),
                )
            except StepCancelledError:
                raise  # its record stays as it is: the end of the task decides its end
            except StepError as error:
                self._note(step, attempt, error, is_last=not delays)
                if self._is_over(step, error) or not delays:
                    raise
                self._wait(step, delays.pop(0))
                attempt += 1
            else:
                keys = {name: self.flow.key(FromStep(step.name, name)) for name in outputs}
                for name, packed in outputs.items():
                    self.ti.xcom_push(key=keys[name], value=carried(packed))
                cached = {"cached_from": outputs.cached_from} if outputs.cached_from else {}
                self._write(step, "success", attempt, outputs=keys, **cached)
                return outputs

    def _note(self, step: Step, attempt: int, error: StepError, *, is_last: bool) -> None:
        """Log and record an attempt that failed."""
        if "AirflowSkipException" in getattr(error, "names", ()):
            self._write(step, "skipped", attempt)
            return
        logger.error("%s", (getattr(error, "traceback", "") or str(error)).rstrip())
        state = "failed" if is_last or self._is_over(step, error) else "up_for_retry"
        self._write(step, state, attempt, error=str(error), late=isinstance(error, StepTimeoutError))

    def _is_over(self, step: Step, error: StepError) -> bool:
        return is_final(step, error) or any(name in getattr(error, "names", ()) for name in _FINAL)

    def _wait(self, step: Step, seconds: float) -> None:
        logger.info("It is tried again in %g s.", seconds)
        if self.stop.wait(seconds):
            error = StepCancelledError(f"step {step.name!r} was stopped while it waited to be tried again.")
            error.step = step.name
            raise error

    def _before(self, step: Step) -> list[str]:
        """Return the steps of the group that a step waits for."""
        names = [name for item in step.inputs for name in steps_of(item.source)]
        return [name for name in dict.fromkeys((*names, *step.after)) if name in self._written]

    def _cause(self, step: Step) -> str:
        """Say why a step does not run: the first failed step of the group that it would have needed."""
        for name in self._before(step):
            said = self._written[name]
            if said["state"] == "upstream_failed":
                return str(said["error"])
            if said["state"] == "failed":
                status = ExecutionStatus.TIMEOUT if said["late"] else ExecutionStatus.FAILED
                return not_run(f"step {labelled(name, self._index)!r}", status)
        raise AssertionError(f"nothing keeps {step.name!r} from running")

    def _inputs(self, step: Step) -> dict[str, Any]:
        """Return the packed inputs. Parameters and constants are left out, since they are known where the step runs."""
        return {
            item.name: self._value(step, item.source)
            for item in step.inputs
            if not isinstance(item.source, Constant | FromParameter)
        }

    def _value(self, step: Step, source: Source) -> Any:
        """Return a packed value: of a step of the group from memory, of any other from Airflow."""
        outputs = source.outputs if isinstance(source, FromEither) else [source]
        for output in outputs:
            if isinstance(output, FromStep) and output.step in self._made:
                return self._made[output.step][output.output]
        return listed(self.decider.value(source, step.group, self._index))

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
    logger.info("%s%s", TURN, json.dumps({"step": step.name, "attempt": attempt}))


def printed(line: str) -> str:
    """Return a line of a user's code as it is logged: never to be read as a marker of a step.

    >>> printed("done"), printed('flowyml-turn {"step": "train"}')
    ('done', ' flowyml-turn {"step": "train"}')
    """
    return f" {line}" if line.startswith(TURN) else line
