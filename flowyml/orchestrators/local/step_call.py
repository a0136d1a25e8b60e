"""Run one attempt of a step: in this thread, or in a separate process."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flowyml.artifacts import artifact_key, is_reference, open_store, pack, run_place, unpack
from flowyml.artifacts.listing import artifacts_of
from flowyml.artifacts.previews import noted_preview, preview_of
from flowyml.core.dates import RunDates
from flowyml.core.errors import ArtifactError, OutputError, StepError
from flowyml.core.hooks import PipelineHook, fire
from flowyml.core.logs import with_level
from flowyml.orchestrators.local.capture import Sink, attributed, pass_on
from flowyml.orchestrators.local.copies import MappedValue, distinct, own, with_large_mapped
from flowyml.orchestrators.local.engine import LocalTask, error_text
from flowyml.orchestrators.local.lent_values import LentValues
from flowyml.orchestrators.local.options import reuses_process
from flowyml.orchestrators.local.retrying import Recorded
from flowyml.orchestrators.local.schema import SavedRow
from flowyml.plan.groups import ExecutionGroup
from flowyml.plan.kinds import kind_of
from flowyml.plan.model import Plan
from flowyml.plan.parameters import own_copy
from flowyml.runtime.code import Code, LiveState
from flowyml.runtime.decider import Gathered, checked_lists, is_taken, listed, mapped
from flowyml.runtime.execution import AttemptOutputs, run_step, step_error
from flowyml.runtime.nodes import Decision, Node, Opening
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.reporting import reported
from flowyml.runtime.running_step import running
from flowyml.runtime.taken import Taken, not_taken

__all__ = ["Stored", "StepCalls", "goes_apart"]

logger = logging.getLogger("flowyml.local")


class Stored:
    """A value from or for a process: packed, and unpacked once when a thread needs it."""

    __slots__ = ("_live", "_lock", "packed")

    def __init__(self, packed: Any, *live: Any) -> None:
        self.packed = packed
        self._live = live
        self._lock = threading.Lock()

    def live(self, unpack: Callable[[Any], Any]) -> Any:
        with self._lock:
            if not self._live:
                self._live = (unpack(self.packed),)
            return self._live[0]


class StepCalls:
    """Calls the steps of one run. ``folder`` has the values that pass between processes during the run.

    With ``share``, threads share the values themselves; ``sharing`` are the steps whose outputs they share.
    ``lent_values`` are those that steps got uncopied; of those up to ``max_copied_bytes`` a copy is made first.
    ``save`` is called with the outputs of a step, before another step gets them.
    """

    def __init__(
        self, pipeline: str, code: Code, run_id: str, folder: Path, stop: threading.Event,
        sink: Callable[[int, str], Sink], parameters: Mapping[str, Any], dates: RunDates, *, share: bool = False,
        sharing: Collection[str] = (), together: Mapping[str, ExecutionGroup] = {}, max_copied_bytes: float = 0,
        save: Callable[[LocalTask, Mapping[str, Any]], object] | None = None, taken: Taken | None = None,
    ) -> None:  # fmt: skip
        self._live_states = code.live
        self.apart: StepProcesses | None = None
        self._functions = code.functions
        self._hooks: tuple[PipelineHook, ...] = tuple(code.hooks)
        self._pipeline = pipeline
        self._run_id = run_id
        self._parameters = parameters
        self._dates = dates
        self._share = share
        self._sharing = sharing
        self._together = together
        self._folder = folder
        self._save = save
        self._results = taken.results if taken else {}
        self._stop = stop
        self._sink = sink
        self._locks: dict[tuple[int, str], threading.Lock] = {}
        self._mapped: set[tuple[int, str]] = set()
        self.lent_values = LentValues(max_copied_bytes)
        self._idle: dict[str, list[str]] = {}  # by step, the names of processes that no item uses now
        self._idle_lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.artifacts: list[SavedRow] = []
        """The records of outputs, of all attempts so far."""

    def call(self, node: LocalTask) -> AttemptOutputs:
        """Return the outputs of one attempt. Raises what the step raises."""
        with attributed(self._sink(node.position, node.row.item)):
            if node.label in self._results:
                outputs = self._taken_over(node, *self._results[node.label])
            else:
                outputs = self._call_apart(node) if node.apart else self._call_here(node)
        if self._save is not None:
            self._save(node, outputs)
        return outputs

    def _taken_over(self, node: LocalTask, run_id: str, entries: Mapping[str, Any]) -> AttemptOutputs:
        """Return the outputs of another run, as values of this one: that run may be removed."""
        values: dict[str, Any] = {}
        for name, entry in entries.items():
            recorded = Recorded(entry)
            try:
                values[name] = recorded if "not_kept" in entry else recorded.read()
            except Exception as error:  # whatever the class of the value raises in the new code
                raise step_error(StepError, node.step, not_taken(node.label, error_text(error))) from error
        outputs = AttemptOutputs(values, run_id)
        self._note_artifacts(node, {name: value for name, value in values.items() if type(value) is not Recorded})
        self._report_cached(node, outputs)
        return outputs

    def _report_cached(self, node: LocalTask, outputs: AttemptOutputs) -> None:
        self._sink(node.position, node.row.item).line("INFO", outputs.note(node.label))
        fire(self._hooks, "on_step_cached", node.step.name, outputs.cached_from)

    def live(self, value: Any) -> Any:
        return listed(self.read(value))

    def read(self, value: Any) -> Any:
        """Return the value itself; of a loop, the ``Gathered`` ones."""
        return mapped(value, self._live)

    def _live(self, value: Any) -> Any:
        if type(value) is Recorded:
            return value.read()
        if type(value) is MappedValue:
            return value.copy()
        return value.live(self._unpack) if type(value) is Stored else value

    def as_returned(self, value: Any) -> Any:
        """Return a value as its step returned it, for a retry. Raises ``ChangedValueError``."""
        if type(value) is MappedValue:
            return value.copy()
        return self._unpack(value.packed) if type(value) is Stored else self.lent_values.as_returned(value)

    def _call_here(self, node: LocalTask) -> AttemptOutputs:
        return AttemptOutputs(self._run_here(node)) if node.step.caching is None else self._call_cached(node)

    def _run_here(self, node: LocalTask) -> dict[str, Any]:
        arguments: dict[str, Any] = own_copy(node.fixed)  # an attempt may change its own
        lent: list[Any] = []
        for name, source, output in node.completed_arguments():
            arguments[name] = self._read_value(node, source, output, lent)
        inputs = _as_declared(node, arguments)
        with running(self._pipeline, self._run_id, node.step, self._dates, node.index):
            outputs = distinct(run_step(node.step, self._functions[node.step.name], inputs, self._hooks))
            self._note_artifacts(node, outputs)
        self.lent_values.take_back(lent)
        return outputs

    def _call_cached(self, node: LocalTask) -> AttemptOutputs:
        """Return the outputs of an earlier run, else those of this one, both packed for the cache and unpacked."""
        from flowyml.runtime.caching import Depends, StepCache

        read_state = self._live_states.get(node.step.name, LiveState)
        state = read_state()
        if state.changed:
            return self._uncached(node, state.changed, self._run_here(node))
        try:
            contents, cached = self._contents(node), open_store()
        except ArtifactError as error:  # an input cannot be written, so has no digest; or the store cannot be opened
            return self._uncached(node, error, self._run_here(node))
        depends = Depends(contents, state.digest, self._dates.plain())
        store, live = open_store(self._folder), dict[str, Any]()
        key_of = partial(artifact_key, run_place("local", self._pipeline, self._run_id), node.label, node.attempt)

        def compute() -> dict[str, Any]:
            before = len(self.artifacts)
            live.update(self._run_here(node))
            if reason := read_state().changed:
                raise ArtifactError(reason)
            noted = {
                row.output: json.loads(row.entry)
                for row in self.artifacts[before:]
                if (row.position, row.item) == (node.position, node.row.item)
            }
            return {
                name: pack(value, store, key=key, preview=noted_preview(noted.get(name), value, store, key))
                for name, value in live.items()
                for key in (partial(key_of, name),)
            }

        try:
            cache = StepCache(
                node.step, depends, pipeline=self._pipeline, run_id=self._run_id,
                store=store, cached=cached, key_of=key_of,
            )  # fmt: skip
            outputs = cache.outputs(compute)
        except ArtifactError as error:  # of a value that cannot be written, which threads hand over anyway
            if not live:
                raise
            return self._uncached(node, error, live)
        if outputs.cached_from:
            self._report_cached(node, outputs)
            self._note_stored(node, outputs)
            return AttemptOutputs({name: Stored(value) for name, value in outputs.items()}, outputs.cached_from)
        return AttemptOutputs({name: Stored(outputs[name], value) for name, value in live.items()})

    def _uncached(self, node: LocalTask, reason: object, outputs: Mapping[str, Any]) -> AttemptOutputs:
        with attributed(self._sink(node.position, node.row.item)):
            logger.warning("step %r is not cached: %s", node.label, reason)
        return AttemptOutputs(outputs)

    def _contents(self, node: LocalTask) -> dict[str, Any]:
        from flowyml.artifacts.content_digest import content_of_value

        contents: dict[str, Any] = {name: content_of_value(value) for name, value in node.fixed.items()}
        contents.update(
            (name, self._content(source.values[output])) for name, source, output in node.completed_arguments()
        )
        return _as_declared(node, contents)

    def _content(self, value: Any) -> list[Any]:
        from flowyml.artifacts.content_digest import content_of, content_of_value

        if isinstance(value, Gathered):
            parts = [self._content(part) for part in value.values]
            if value.indexes is None:
                return ["list", *parts]
            return [
                "list",
                *(["list", ["json", index], part] for index, part in zip(value.indexes, parts, strict=True)),
            ]
        if type(value) in (Recorded, MappedValue):
            return content_of_value(self._live(value))
        return content_of(value.packed) if type(value) is Stored else content_of_value(value)

    def evaluate(self, node: Decision | Opening) -> Any:
        """Evaluate a branch: whether it is taken; or a loop: its lists. Raises ``StepError``."""
        if isinstance(node, Decision):
            return is_taken(node.branches, lambda source: self.live(node.value(source, self._parameters)))
        arguments = {
            name: self._read_value(node, source, output) for name, source, output in node.completed_arguments()
        }
        return checked_lists(node.loop, {**own_copy(node.fixed), **arguments})

    def _read_value(self, node: Node, source: Node, output: str, lent: list[Any] | None = None) -> Any:
        """Return a returned value for a consumer: the value itself for the last one, a copy for the others.

        A consumer that is retried needs it again, so only its last attempt gets the value itself. Values passed
        uncopied are added to ``lent``.
        """
        is_last = self._gets_itself(node, source, output)
        if not is_last:
            self._map_once(source, output)
        lent = None if self._is_shared(source) else lent
        return listed(mapped(source.values[output], partial(self._hand_over, is_last=is_last, lent=lent)))

    def _gets_itself(self, node: Node, source: Node, output: str) -> bool:
        return self._is_shared(source) or (source.uses[output] == 1 and _is_last_attempt(node))

    def _is_shared(self, source: Node) -> bool:
        return self._share or _step_of(source) in self._sharing

    def _map_once(self, source: Node, output: str) -> None:
        """Move large arrays to a file, which the consumers map: in all, they take as much memory as one of them."""
        with self._locks.setdefault((id(source), output), threading.Lock()):
            if (id(source), output) not in self._mapped:
                self._mapped.add((id(source), output))
                source.values[output] = mapped(source.values[output], self._with_large_mapped)

    def _with_large_mapped(self, value: Any) -> Any:
        return value if type(value) in (Stored, Recorded) else with_large_mapped(value, self._folder)

    def _hand_over(self, value: Any, *, is_last: bool, lent: list[Any] | None) -> Any:
        if type(value) in (Recorded, MappedValue):  # a copy in any case
            return self._live(value)
        if is_last:
            if lent is not None and type(value) is not Stored and self.lent_values.lend(value):
                lent.append(value)
            return self.live(value)
        if type(value) is Stored and is_reference(value.packed):
            return self._unpack(value.packed)
        return own(self.live(value))

    def _call_apart(self, node: LocalTask) -> AttemptOutputs:
        assert self.apart is not None
        arguments = dict(node.fixed)  # plain JSON, which a process takes as it is
        for name, source, output in node.completed_arguments():
            is_plain = output in source.plain  # a worker unpacks only values of steps
            arguments[name] = source.values[output] if is_plain else self._store_once(node, source, output)
        inputs = _as_declared(node, arguments)
        sink = self._sink(node.position, node.row.item)
        with self._process_of(node) as (together, hold):
            packed = self.apart.run(
                node.step.name, inputs, attempt=node.attempt, index=node.index, secrets=node.step.secrets,
                timeout=node.step.timeout_seconds, on_line=partial(_pass_line, sink), stop=self._stop,
                together=together, hold=hold,
            )  # fmt: skip
        self._note_stored(node, packed)
        return AttemptOutputs({name: Stored(value) for name, value in packed.items()}, packed.cached_from)

    def _note_stored(self, node: LocalTask, packed: Mapping[str, Any]) -> None:
        self.artifacts += [
            SavedRow(node.position, node.row.item, found.name, json.dumps(_without_place(found.packed)))
            for found in artifacts_of(node.step.name, packed)
        ]

    def _note_artifacts(self, node: LocalTask, outputs: Mapping[str, Any]) -> None:
        """Record previews of values that are not stored, if that is cheap for plain ones."""
        for name, value in outputs.items():
            facts, kind = reported(name), node.step.kinds.get(name) or kind_of(value)
            if facts or kind not in ("data", "text"):
                preview = value if kind == "metrics" and not facts else {"$artifact": self._seen(value, kind, facts)}
                self.artifacts.append(SavedRow(node.position, node.row.item, name, json.dumps(preview)))

    def _seen(self, value: Any, kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {**preview_of(value, None, str, kind=kind, facts=facts), "format": "none"}

    @contextmanager
    def _process_of(self, node: LocalTask) -> Iterator[tuple[str, bool]]:
        """Yield the name of the process that a step shares with others, if it does, and whether it waits for them."""
        if node.together or not (node.index and reuses_process(node.step)):
            group = self._together.get(node.step.execution_group)
            yield node.together, group is not None and node.is_followed(group.steps)
            return
        with self._idle_lock:
            idle = self._idle.setdefault(node.step.name, [])
            name = idle.pop() if idle else f"{node.step.name}, process {next(self._numbers)}"
        try:
            yield name, True
        finally:  # if it was killed or has crashed, the next item of this name gets a new one
            with self._idle_lock:
                idle.append(name)

    def end_processes(self) -> None:
        """Let the processes that items share end, as the process of a step does."""
        for name in (name for names in self._idle.values() for name in names):
            if self.apart is not None:
                self.apart.release(name)

    def release(self, node: LocalTask) -> None:
        """Release the process of an execution group that has ended."""
        if self.apart is not None:
            self.apart.release(node.together)

    def _store_once(self, node: LocalTask, source: Node, output: str) -> Any:
        """Store a value at most once, however many steps take it."""
        with self._locks.setdefault((id(source), output), threading.Lock()):
            store = partial(self._store, node=node, source=source, output=output)
            value = source.values[output] = mapped(source.values[output], store)
            return listed(mapped(value, lambda part: part.packed))

    def _store(self, value: Any, node: LocalTask, source: Node, output: str) -> Stored:
        if type(value) in (Recorded, MappedValue):
            return Stored(self._pack(self._live(value), node, source, output))
        return value if type(value) is Stored else Stored(self._pack(value, node, source, output), value)

    def _pack(self, value: Any, node: LocalTask, source: Node, output: str) -> Any:
        place = run_place("local", self._pipeline, self._run_id)
        key = artifact_key(place, source.label, getattr(source, "attempt", 0), f"local-{output}")
        try:
            return pack(value, open_store(self._folder), key=key)
        except Exception as cause:  # whatever a user's __reduce__ raises
            error = OutputError(
                f"step {node.step.name!r} runs in its own process, but output {output!r} of step "
                f"{source.label!r} cannot be passed to it: {error_text(cause)}. Return a picklable value, or run both "
                f"in threads, without a timeout."
            )
            error.step = node.step.name
            raise error from cause

    def _unpack(self, packed: Any) -> Any:
        return unpack(packed, open_store(self._folder))


def _without_place(packed: Any) -> Any:
    """Return a reference without the path of a file that is removed with the run."""
    if not is_reference(packed):
        return packed
    return {"$artifact": {name: part for name, part in packed["$artifact"].items() if name not in ("url", "picture")}}


def _step_of(source: Node) -> str:
    """Return the name of the step with these outputs; those of a loop's items are gathered under its name."""
    step = getattr(source, "step", "")
    return step if isinstance(step, str) else step.name


def _as_declared(node: LocalTask, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Sort arguments in the plan's order, which a step sees in its ``**kwargs``."""
    return {item.name: arguments[item.name] for item in node.step.inputs if item.name in arguments}


def _is_last_attempt(node: Node) -> bool:
    return not isinstance(node, LocalTask) or node.attempt >= node.max_attempts


def goes_apart(plan: Plan, workers: str) -> frozenset[str]:
    """Return the steps that run in separate processes: those that may have to be killed, those with secrets, or all on
    request.
    """
    everything = workers == "processes" or plan.timeout_seconds is not None
    alone = {
        step.name
        for step in plan
        if everything or step.timeout_seconds is not None or step.secrets or reuses_process(step)
    }
    for group in plan.structure.execution_groups.values():  # one process for all of them, or none
        if alone.intersection(group.steps):
            alone.update(group.steps)
    return frozenset(alone)


def _pass_line(sink: Sink, source: str, line: str) -> None:
    if source in ("stdout", "stderr"):
        sink.line("INFO", line)
        pass_on(source, line)
    else:
        sink.line(source, line)
        pass_on("stderr", with_level(source, line))
