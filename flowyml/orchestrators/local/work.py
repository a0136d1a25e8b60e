"""Run one attempt of a step: in this thread with values by reference, or in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts import artifact_key, open_store, pack, run_place, unpack
from flowyml.core.dates import RunDates
from flowyml.core.errors import OutputError
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators.local.capture import Sink, attributed, pass_on
from flowyml.orchestrators.local.engine import error_text
from flowyml.orchestrators.local.graph import Node
from flowyml.plan.model import Plan
from flowyml.plan.parameters import own_copy
from flowyml.runtime.code import Code
from flowyml.runtime.current import running
from flowyml.runtime.execution import run_step
from flowyml.runtime.processes import StepProcesses

__all__ = ["Stored", "Work", "goes_apart"]


class Stored:
    """A value that came from a process or went to one: packed, and unpacked once when a thread needs it."""

    __slots__ = ("_live", "_lock", "packed")

    def __init__(self, packed: Any, *live: Any) -> None:
        self.packed = packed
        self._live = live
        self._lock = threading.Lock()

    def live(self, unpack: Callable[[Any], Any]) -> Any:
        """The value itself."""
        with self._lock:
            if not self._live:
                self._live = (unpack(self.packed),)
            return self._live[0]


class Work:
    """Calls the steps of one run. ``folder`` holds the values that pass between processes, while the run lasts."""

    def __init__(
        self, pipeline: str, code: Code, run_id: str, folder: Path, stop: threading.Event, sink: Callable[[int], Sink],
        dates: RunDates,
    ) -> None:  # fmt: skip
        self.apart: StepProcesses | None = None
        self._functions = code.functions
        self._hooks: tuple[PipelineHook, ...] = tuple(code.hooks)
        self._pipeline = pipeline
        self._run_id = run_id
        self._dates = dates
        self._folder = folder
        self._stop = stop
        self._sink = sink
        self._locks: dict[tuple[int, str], threading.Lock] = {}

    def call(self, node: Node) -> dict[str, Any]:
        """The outputs of one attempt. Raises what the step raises."""
        with attributed(self._sink(node.position)):
            return self._call_apart(node) if node.apart else self._call_here(node)

    def live(self, value: Any) -> Any:
        """What a thread works with."""
        return value.live(self._unpack) if type(value) is Stored else value

    def _call_here(self, node: Node) -> dict[str, Any]:
        inputs: dict[str, Any] = own_copy(node.fixed)  # what an attempt does to them is nobody else's business
        for name, source, output in node.arguments:
            inputs[name] = self.live(source.values[output])
        with running(self._pipeline, self._run_id, node.step.name, self._dates):
            return run_step(node.step, self._functions[node.step.name], inputs, self._hooks)

    def _call_apart(self, node: Node) -> dict[str, Any]:
        assert self.apart is not None
        inputs = dict(node.fixed)  # plain JSON, which a process takes as it is
        for name, source, output in node.arguments:
            inputs[name] = self._packed(node, source, output)
        sink = self._sink(node.position)
        packed = self.apart.run(
            node.step.name, inputs, attempt=node.attempt, timeout=node.step.timeout_seconds,
            on_line=partial(_pass_line, sink), stop=self._stop,
        )  # fmt: skip
        return {name: Stored(value) for name, value in packed.items()}

    def _packed(self, node: Node, source: Node, output: str) -> Any:
        """Store a value at most once, however many steps take it."""
        with self._locks.setdefault((source.position, output), threading.Lock()):
            value = source.values[output]
            if type(value) is not Stored:
                value = source.values[output] = Stored(self._pack(value, node, source, output), value)
            return value.packed

    def _pack(self, value: Any, node: Node, source: Node, output: str) -> Any:
        place = run_place("local", self._pipeline, self._run_id)
        key = artifact_key(place, source.step.name, source.attempt, f"local-{output}")
        try:
            return pack(value, open_store(self._folder), key=key)
        except Exception as cause:  # whatever a user's __reduce__ raises
            error = OutputError(
                f"step {node.step.name!r} runs in a process of its own, and output {output!r} of step "
                f"{source.step.name!r} cannot be handed to it: {error_text(cause)}. Return what can be pickled, or let "
                f"both run in threads, without a timeout."
            )
            error.step = node.step.name
            raise error from cause

    def _unpack(self, packed: Any) -> Any:
        return unpack(packed, open_store(self._folder))


def goes_apart(plan: Plan, workers: str) -> frozenset[str]:
    """The steps that run in processes of their own: those that may have to be killed, or all when asked."""
    everything = workers == "processes" or plan.timeout_seconds is not None
    return frozenset(step.name for step in plan if everything or step.timeout_seconds is not None)


def _pass_line(sink: Sink, source: str, line: str) -> None:
    if source in ("stdout", "stderr"):
        sink.line("INFO", line)
        pass_on(source, line)
    else:
        sink.line(source, line)
        pass_on("stderr", f"{source}: {line}")
