"""The pods of a pipeline with control flow: those of its steps, and those around its loops and at its end.

This file travels in the bundle of such a pipeline.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from flowyml.artifacts import open_store, pack, unpack
from flowyml.artifacts.packing import is_reference
from flowyml.core.errors import StepError
from flowyml.core.item_names import checked_items, labelled
from flowyml.plan.groups import Loop
from flowyml.plan.model import Plan, Step
from flowyml.plan.parameters import days_of
from flowyml.plan.values import Source
from flowyml.runtime.decider import Decider, End, Gathered, Index, Outcome, is_plain, listed, mapped, parts_of
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.step_errors import of_several, of_step
from flowyml.runtime.step_runner import StepEvent, run_decided
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import fire_hooks, make_attempt, note, processes_of, publish, reason
from flowyml_kubeflow.graph import PODS, PodGraph, chunks
from flowyml_kubeflow.records import Entry, Items, Known, PodEvaluator, PodFacts
from flowyml_kubeflow.task_files import (
    Result,
    TaskFailed,
    artifact,
    artifacts,
    dates_of,
    described,
    parameter,
    path_of,
    run_id_of,
    store,
    values_of,
    with_url,
)

__all__ = ["perform"]

Decided = TypeVar("Decided")

_SHOWN = 65536  # bytes of a parameter that shows an output


class _Pod:
    """The common base of all pods: results of other pods, and a folder of its own."""

    inside = ""

    def __init__(self, bundle: Path, plan: Plan, executor_input: Mapping[str, Any]) -> None:
        self.bundle = bundle
        self.plan = plan
        self.executor_input = executor_input
        self.about: Mapping[str, Any] = executor_input["about"]
        self.values = values_of(executor_input)
        self.flow = PodGraph(plan, self.about.get("pods", PODS))
        self.dates = dates_of(self.values.get(names.TIME))
        output = Path(executor_input["outputs"]["outputFile"]).parent
        output.mkdir(parents=True, exist_ok=True)
        self.scratch = Path(tempfile.mkdtemp(dir=output, prefix=".flowyml-"))
        self.numbers = itertools.count()  # of the values that it packs
        self.known = Known(self.scratch)
        for port in executor_input.get("inputs", {}).get("artifacts", {}):
            if names.is_record(port):
                for entry in artifacts(executor_input, "inputs", port):
                    self.known.read(path_of(entry["uri"]))
        sys.path.append(f"{bundle}/code")  # for values of the user's classes

    @cached_property
    def decider(self) -> Decider:
        """The decisions by known results."""
        structure = self.plan.structure
        facts = PodFacts(self.known, structure, self._parameter, self._opens())
        return Decider(self.plan, facts, PodEvaluator(structure, self._live, self._pack), self.inside)

    def _opens(self) -> str:
        """Return the outermost loop that it may have to open itself."""
        return self.inside

    def _parameter(self, name: str) -> Any:
        value = parameter(self.plan, name, names.port(name), self.executor_input)
        return self.dates.filled({name: value}, days_of(self.plan.parameters))[name]

    @property
    def _stores(self) -> list[Any]:
        """The stores of the run: in this pod, the only places for other pods' values."""
        return [*map(open_store, dict.fromkeys((self._store, *self._folders)))]

    @property
    def _store(self) -> str:
        return os.environ.get(names.ARTIFACTS) or str(self.scratch / "store")

    @property
    def _folders(self) -> list[str]:
        return [str(self.scratch / name) for name in ("given", "store")]

    def _live(self, packed: Any) -> Any:
        return unpack(self.known.here(packed), *self._stores)

    def _pack(self, value: Any) -> Any:
        return pack(value, open_store(self.scratch / "store"), key=f"{next(self.numbers)}-{os.urandom(4).hex()}")

    def _leave(self, port: str, **what: Any) -> Result:
        """Write the artifact for other pods."""
        path = path_of(artifact(self.executor_input, "outputs", port)["uri"])
        self.known.fail(self.decider.faults)
        self.known.write(path, **what)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return Result(artifacts={port: {"format": "flowyml-record"}})

    def _loop(self) -> Loop:
        return next(loop for loop in self.flow.loops if names.constant(loop.name) == self.about["loop"])


class _ItemsPod(_Pod):
    """Prepares a loop: its items, the other values that its steps take from outside, and the chunks of the pods."""

    def run(self) -> Result:
        loop = self._loop()
        items = self._items(loop)
        self.known.loops[loop.name] = items
        count = len(next(iter(items.lists.values()), ()))
        parts = chunks(count, self.flow.most_chunks(loop.name))
        if items.end is End.OK:
            largest = max(int(stop) - int(start) for start, _, stop in (part.partition(":") for part in parts))
            print(
                f"Loop {loop.name!r}: items: {count}, pods of each step: {len(parts)}, "
                f"items in a pod: {largest} at most."
            )
            note(opened=count)
        result = self._leave(
            names.of_items(loop.name), loops=[loop.name],
            steps=[step.name for step in self.flow.from_outside(loop.name)],
        )  # fmt: skip
        return Result({names.CHUNKS: json.dumps(parts)}, result.artifacts)

    def _opens(self) -> str:
        return self._loop().name

    def _items(self, loop: Loop) -> Items:
        opened = _ended(self.decider.opened(loop.name, ()))
        plain = tuple(item.name for item in loop.over if is_plain(item.source, self.plan.structure))
        return Items(*opened.outcome, opened.lists or {}, plain)


class _GatherPod(_Pod):
    """Joins the results of a loop's pods."""

    def run(self) -> Result:
        loop = self._loop().name
        return self._leave(names.of_all(loop), steps=[step.name for step in self.flow.used_outside(loop)])


class _StepPod(_Pod):
    """Runs a step outside of loops, or for a chunk of the items of its loop; or several steps, one after another."""

    def __init__(self, bundle: Path, plan: Plan, executor_input: Mapping[str, Any]) -> None:
        super().__init__(bundle, plan, executor_input)
        (self.unit,) = self.flow.units(self._steps())
        self.inside = self.flow.loop_of(self.unit.group)
        for step in self.unit.steps:
            self.known.steps.setdefault(step.name, {})
        self.processes = processes_of(
            bundle, plan.name, run_id_of(executor_input), self.scratch, self.dates,
            [Path(folder) for folder in self._folders], self.unit.steps,
        )  # fmt: skip

    def _steps(self) -> list[Step]:
        if "steps" in self.about:
            return [step for step in self.plan if names.task(step.name) in self.about["steps"]]
        return [step for step in self.plan if names.constant(step.name) == self.about["step"]]

    def run(self) -> Result:
        try:
            if not self.inside:
                self._run_steps(())
            else:
                self._run_chunk()
        finally:
            self.processes.close()
        parameters = {
            self._port(step, output): self._shown(step, output) for step in self.unit.steps for output in step.outputs
        }
        result = self._leave(self.unit.record, steps=[step.name for step in self.unit.steps])
        return Result(parameters, result.artifacts)

    def _port(self, step: Step, output: str) -> str:
        return names.output(step.name, output) if self.unit.together else names.port(output)

    def _run_chunk(self) -> None:
        first, _, last = self.values[names.CHUNK].partition(":")
        if first == last:
            self._stand_in((), _ended(self.decider.opened(self.inside, ())).outcome)
        for number in range(int(first), checked_items(int(last), self.inside)):
            self._run_item((number,))

    def _run_item(self, prefix: Index) -> None:
        """Run the steps for an item, or for all items of inner loops that they are in."""
        loops = self.plan.structure.loops(self.unit.group)
        if len(prefix) == len(loops):
            self._run_steps(prefix)
            return
        inner = loops[len(prefix)]
        opened = _ended(self.decider.opened(inner.name, prefix))
        if not opened.count:
            self._stand_in(prefix, opened.outcome)
        for number in range(opened.count):
            self._run_item((*prefix, number))

    def _stand_in(self, prefix: Index, outcome: Outcome) -> None:
        """Add a stand-in for all items of a loop that has none, or did not begin."""
        for step in self.unit.steps:
            self._on_event(StepEvent(step, prefix, 0, outcome))

    def _run_steps(self, index: Index) -> None:
        """Run each step. They share a process until the last of them has begun, or one of them has to be killed."""
        together = labelled(self.unit.together.name, index) if self.unit.together else ""
        for step in self.unit.steps:
            self._run_step(step, index, together)
        if together:
            self.processes.release(together)

    def _run_step(self, step: Step, index: Index, together: str) -> None:
        plain = {item.name for item in step.inputs if is_plain(item.source, self.plan.structure)}

        def attempt(inputs: Mapping[str, Any], number: int, may_follow: bool) -> AttemptOutputs:
            here = {
                name: value if name in plain else listed(mapped(value, self.known.here))
                for name, value in inputs.items()
            }
            hold = may_follow or step is not self.unit.steps[-1]
            return make_attempt(self.bundle, step, number, here, self.processes, index, together=together, hold=hold)

        run_decided(step, index, self.decider, attempt, self._on_event)

    def _on_event(self, event: StepEvent) -> None:
        step, index, outcome = event.step, event.index, event.outcome
        if outcome is None:
            if not event.error:
                self._note(step, index, attempt=event.attempt)
        elif event.error:
            self._fail(event, event.error, outcome)
        elif not event.attempt:
            self._note_end(event, outcome.cause, Entry(*outcome))
        else:
            outputs, cached = event.outputs, event.outputs.cached_from
            artifacts = {name: _placeless(packed) for name, packed in outputs.items() if isinstance(packed, dict)}
            more = {**({"artifacts": artifacts} if artifacts else {}), **({"cached": cached} if cached else {})}
            self._note_end(event, "", Entry(End.OK, "", outputs), **more)

    def _fail(self, event: StepEvent, error: StepError, outcome: Outcome) -> None:
        step = event.step
        self._note_end(event, str(error), Entry(*outcome))
        if not self.flow.ends_well(step):
            raise TaskFailed(reason(error))
        if not self.plan.structure.may_fail(step.group):
            self.known.fail([of_step(step.name, str(error), labelled(step.name, event.index))])

    def _note_end(self, event: StepEvent, error: str, entry: Entry, **more: Any) -> None:
        self.known.steps[event.step.name][event.index] = entry
        self._note(event.step, event.index, ended=event.state, attempt=event.attempt, error=error, **more)

    def _note(self, step: Step, index: Index, **facts: Any) -> None:
        named = {"task": names.task(step.name)} if self.unit.together else {}
        note(index=list(index), chunk=self.values.get(names.CHUNK), **named, **facts)

    def _shown(self, step: Step, output: str) -> str:
        """Return an output for KFP's UI: for a step in a loop the list of its items' outputs."""
        values = [entry.outputs.get(output) for _, entry in sorted(self.known.steps[step.name].items())]
        text = json.dumps(values if self.inside else values[0], ensure_ascii=False, separators=(",", ":"))
        return text if len(text) <= _SHOWN else json.dumps(f"{len(text)} characters")


class _ResultPod(_Pod):
    """Ends a run: returns the outputs of the pipeline, calls the hooks, and fails if a step did."""

    def run(self) -> Result:
        result, published, values = Result(), dict[str, Any](), self.decider.outputs()
        files = [
            name
            for name, value in values.items()
            if isinstance(value, Gathered) and any(map(_is_file, parts_of(value)))
        ]
        for name in files:
            del values[name]
        for output in self.plan.outputs:
            port = names.port(output.name)
            target = artifact(self.executor_input, "outputs", port)
            value = values.get(output.name)
            packed = self._packed(value, output.source)
            public = with_url(packed, self.scratch, target["uri"]) if packed and is_reference(packed) else packed
            is_metrics = str((target.get("type") or {}).get("schemaTitle", "")).endswith(".Metrics")
            stored = store(packed, target, self.scratch)
            result.artifacts[port] = described(packed, stored, "metrics" if is_metrics else "")
            if output.name in values:
                published[output.name] = public
        publish(outputs=published, files=files)
        self.known.fail(self.decider.faults)
        failed = of_several(self.known.failed)
        if failed:
            note(failed=failed)
            print(f"The run failed: {failed}", file=sys.stderr, flush=True)
        self._fire_end()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if failed:
            raise TaskFailed(failed)
        return result

    def _packed(self, value: Any, source: Source) -> Any:
        """Return one value, whose file is in this pod's folder if it has one."""
        if isinstance(value, Gathered):
            return self._pack(listed(mapped(value, self._live)))
        return value if is_plain(source, self.plan.structure) else self.known.here(value)

    def _fire_end(self) -> None:
        if self.plan.hooks:
            status = "FAILED" if self.known.failed else "COMPLETED"
            duration = max(time.time() - float(self.values[names.STARTED]), 1e-6)
            arguments = (self.plan.name, run_id_of(self.executor_input), status, duration)
            fire_hooks(self.bundle, "on_pipeline_end", arguments)


def _ended(decided: Decided | None) -> Decided:
    """Return what was decided: all pods before this one have ended."""
    assert decided is not None
    return decided


def _is_file(packed: Any) -> bool:
    """Return whether a value is a file or folder, which would be gone with this pod."""
    return is_reference(packed) and packed["$artifact"]["format"] in ("file", "folder")


def _placeless(packed: Any) -> Any:
    """Return a reference for other pods, without the path of a file that only pods reach."""
    if not is_reference(packed) or not packed["$artifact"]["url"].startswith("file:"):
        return packed
    return {"$artifact": {name: part for name, part in packed["$artifact"].items() if name not in ("url", "picture")}}


_KINDS: Mapping[str, type[_ItemsPod | _StepPod | _GatherPod | _ResultPod]] = {
    "items": _ItemsPod, "turn": _StepPod, "together": _GatherPod, "result": _ResultPod,
}  # fmt: skip


def perform(kind: str, bundle: Path, plan: Plan, executor_input: Mapping[str, Any]) -> Result:
    """Run the pod of this kind."""
    return _KINDS[kind](bundle, plan, executor_input).run()
