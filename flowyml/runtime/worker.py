"""One worker's view of a run: it loads the code, gets a step's inputs, runs the step and packs its outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from flowyml.artifacts import artifact_key, open_store, pack, unpack
from flowyml.artifacts.pickling import worker_main_is
from flowyml.core.errors import OutputError, ParameterError, StepError
from flowyml.core.hooks import PipelineHook, fire
from flowyml.core.retry_policy import error_names
from flowyml.plan.codec import decode
from flowyml.plan.model import Constant, FromParameter, FromStep, Input, Plan, Step
from flowyml.runtime.execution import run_step
from flowyml.runtime.loading import load_function, load_hooks, main_module
from flowyml.runtime.tracebacks import described, traceback_text

__all__ = ["Worker"]

logger = logging.getLogger("flowyml.runtime")


class Worker:
    """Runs steps of one run from an unpacked bundle, in this process."""

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        artifacts: str | None = None,
        parameters: Mapping[str, Any] = {},
    ) -> None:
        self.folder = folder
        self.run_id = run_id
        self.artifacts = artifacts
        self.parameters = parameters
        self._functions: dict[str, Callable[..., Any]] = {}
        worker_main_is(main_module(folder))

    @cached_property
    def plan(self) -> Plan:
        """The plan of the bundle."""
        return decode((self.folder / "plan.json").read_bytes())

    @cached_property
    def hooks(self) -> Sequence[PipelineHook]:
        """The hooks; none, and a line in the log, if they cannot be loaded."""
        try:
            return load_hooks(self.folder)
        except Exception:
            logger.exception("The hooks of pipeline %r cannot be loaded; the run goes on without them.", self.plan.name)
            return ()

    def preload(self) -> None:
        """Import what can be imported. What cannot fails again, visibly, when its step runs."""
        for step in self.plan:
            try:
                self.function(step)
            except (Exception, SystemExit):
                logger.debug("step %r cannot be loaded", step.name, exc_info=True)
        self.hooks  # noqa: B018  # a cached property: loaded once, before anything forks

    def function(self, step: Step) -> Callable[..., Any]:
        """What a step calls."""
        if step.name not in self._functions:
            try:
                self._functions[step.name] = load_function(self.folder, step.function)
            except SystemExit as exit_:
                raise StepError(
                    f"The module of step {step.name!r} called sys.exit({exit_.code!r}) when it was imported."
                ) from exit_
        return self._functions[step.name]

    def perform(self, step: Step, packed: Mapping[str, Any], attempt: int = 1) -> dict[str, Any]:
        """Run one attempt: packed inputs to packed outputs. Raises what the step raises, and ``OutputError``."""
        store = open_store(self.artifacts)
        try:
            function = self.function(step)
            inputs = {item.name: self._input(step, item, packed, store) for item in step.inputs}
        except BaseException as error:
            fire(self.hooks, "on_error", step.name, error)
            raise
        return run_step(
            step, function, inputs, self.hooks, keep=lambda outputs: self._pack(step, outputs, attempt, store)
        )

    def answer(self, step: Step, packed: Mapping[str, Any], attempt: int = 1) -> dict[str, Any]:
        """The same as plain JSON, a failure included."""
        try:
            return {"outputs": self.perform(step, packed, attempt)}
        except BaseException as error:
            return {"failure": self.failure(error)}

    def failure(self, error: BaseException) -> dict[str, Any]:
        """A failed attempt as plain JSON, for another process to raise."""
        return {
            "kind": "output" if isinstance(error, OutputError) else "step",
            "message": str(error) if isinstance(error, StepError) else described(error),
            "names": error_names(error),
            "traceback": traceback_text(error, self.folder / "code"),
        }

    def _input(self, step: Step, item: Input, packed: Mapping[str, Any], store: Any) -> Any:
        """Only what other steps gave is unpacked: a parameter that looks like a reference is just a parameter."""
        source = item.source
        if item.name in packed:
            return unpack(packed[item.name], store) if isinstance(source, FromStep) else packed[item.name]
        if isinstance(source, Constant):
            return source.value
        if isinstance(source, FromParameter):
            return self._parameter(step, item.name, source.name)
        raise StepError(f"step {step.name!r} needs {item.name!r}: output {source.output!r} of step {source.step!r}.")

    def _parameter(self, step: Step, wanted: str, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        for parameter in self.plan.parameters:
            if parameter.name == name and not parameter.required:
                return parameter.default
        raise ParameterError(f"step {step.name!r} needs {wanted!r}: parameter {name!r} of the run, which has no default.")

    def _pack(self, step: Step, outputs: Mapping[str, Any], attempt: int, store: Any) -> dict[str, Any]:
        packed = {}
        for name, value in outputs.items():
            try:
                packed[name] = pack(value, store, key=artifact_key(self.run_id, step.name, attempt, name))
            except Exception as cause:  # whatever a user's __reduce__ raises
                error = OutputError(
                    f"step {step.name!r}: output {name!r} ({type(value).__qualname__}) cannot be handed to another "
                    f"process: {described(cause)}. Return plain data, or what can be pickled."
                )
                error.step = step.name
                raise error from cause
        return packed
