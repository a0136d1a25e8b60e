"""Retry an ended run with new code: take the results that fit the new plan, and run the rest under a new run id."""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowyml.core.dates import DATA_INTERVAL_END, DATA_INTERVAL_START, LOGICAL_DATE
from flowyml.core.durations import listed
from flowyml.core.item_names import labelled
from flowyml.core.runs import Run, StepRun
from flowyml.core.syntax import parsed
from flowyml.orchestrators.retrying import NOT_SAVED, Ends, StepInstance, end_of, why_again
from flowyml.plan.bundle import Bundle
from flowyml.plan.differences import changed_paths
from flowyml.plan.groups import Branch, Group, Loop
from flowyml.plan.model import FromParameter, Plan, Step
from flowyml.plan.parameters import check_values
from flowyml.plan.values import Constant, Source
from flowyml.runtime.decider import End
from flowyml.runtime.taken import Taken

__all__ = ["EndedRun", "NewRun", "changes"]

_SHOWN = 8
"""The number of steps or files that a message names."""
_DATES = (LOGICAL_DATE, DATA_INTERVAL_START, DATA_INTERVAL_END)
"""Values that each run fills with dates of its own."""


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """An ended run: its code and parameters, how its steps ended, and what they returned, by step and item.

    ``outputs`` are packed; in local runs they have the form of the database. ``made_by`` names the run that computed a
    result, if that was another one. ``place`` is the prefix of the run's artifacts in its store.
    """

    run_id: str
    bundle: Bundle
    parameters: Mapping[str, Any]
    ends: Mapping[StepInstance, End | None]
    outputs: Mapping[StepInstance, Mapping[str, Any]]
    made_by: Mapping[StepInstance, str] = field(default_factory=dict)
    place: str = ""

    @classmethod
    def of(
        cls, run: Run, bundle: Bundle, steps: Iterable[StepRun], outputs: Mapping[StepInstance, Mapping[str, Any]],
        place: str = "",
    ) -> EndedRun:  # fmt: skip
        """Make it from the records of an engine."""
        step_runs = list(steps)
        ends = {(step.name, step.index): end_of(step.status.name, step.raw_status.lower()) for step in step_runs}
        made_by = {(step.name, step.index): step.cached_from for step in step_runs if step.cached_from}
        known = {instance: outputs for instance, outputs in outputs.items() if ends.get(instance) is End.OK}
        return cls(
            run_id=run.run_id, bundle=bundle, parameters=run.parameters, ends=ends, outputs=known, made_by=made_by,
            place=place,
        )  # fmt: skip


@dataclass(frozen=True)
class NewRun:
    """A run of new code: what it takes from the ended run, and ``reasons`` why other completed steps run again.

    ``defaults`` has parameters with the old run's value, although that was the default and now another one is: the
    value and the new default.
    """

    taken: Taken
    reasons: Mapping[str, str]
    defaults: Mapping[str, tuple[Any, Any]]

    @classmethod
    def of(
        cls, run: EndedRun, plan: Plan, parameters: Mapping[str, Any], steps: Collection[str] | None
    ) -> NewRun:  # fmt: skip
        """Decide for a run of ``plan``; ``steps`` name steps and items that run again though they completed."""
        fit = _Fit(run, plan, parameters, steps or ())
        fit.compare()
        kept = {
            (*instance, name)
            for instance, outputs in run.outputs.items()
            for name, value in outputs.items()
            if not (isinstance(value, Mapping) and "not_kept" in value)
        }
        ends = Ends(plan, fit.ends)
        changed = {instance: NOT_SAVED for instance, _ in ends.all() if not _is_whole(run, plan, instance)}
        changed |= dict.fromkeys(fit.changed, "it was asked for, or its item has changed")
        changed |= {(name, index): fit.reasons[name] for (name, index), _ in ends.all() if name in fit.reasons}
        again = why_again(ends, changed, kept)
        taken = [instance for instance, _ in ends.all() if ends.ran(*instance) and instance not in again]
        results = {
            labelled(*instance): (run.made_by.get(instance) or run.run_id, dict(run.outputs.get(instance, {})))
            for instance in sorted(taken)
        }
        reasons = {labelled(*instance): why for instance, why in again.items() if run.ends.get(instance) is End.OK}
        return cls(Taken(run.place, results), reasons, fit.kept_defaults())

    def summary(self, run: EndedRun, bundle: Bundle, run_id: str) -> str:
        """Say what the run takes, which of it was computed by code that has changed, and what runs again and why."""
        labels = list(self.taken.results)
        if not labels:
            parts = [f"Run {run_id!r} takes nothing from run {run.run_id!r}: all steps run.", *self._again()]
            return " ".join([*parts, *self._about_defaults()])
        parts = [f"Run {run_id!r} takes {listed(labels, _SHOWN)} from run {run.run_id!r}, with the code of that run."]
        steps = [name for name in bundle.plan.by_name if any(label.partition("[")[0] == name for label in labels)]
        files, functions = changes(run.bundle, bundle, steps)
        if files:
            parts.append(f"Changed since then: {listed(files, _SHOWN)}.")
        if functions:
            again = " ".join(f"--step {name}" for name in functions[:_SHOWN])
            parts.append(f"The functions of {listed(functions, _SHOWN)} have changed, too; to run them again: {again}.")
        return " ".join([*parts, *self._again(), *self._about_defaults()])

    def _again(self) -> Iterator[str]:
        """Yield a sentence for each reason why completed steps run again."""
        by_reason: dict[str, list[str]] = {}
        for label, why in self.reasons.items():
            by_reason.setdefault(why, []).append(label)
        for why, labels in by_reason.items():
            yield f"Runs again although it completed: {listed(labels, _SHOWN)}, since {why}."

    def _about_defaults(self) -> Iterator[str]:
        for name, (value, default) in self.defaults.items():
            text = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
            yield (
                f"Parameter {name!r} stays {value!r}, the old default, and the new one is {default!r}: to run with "
                f"that, add -p {shlex.quote(f'{name}={text}')}, in Python parameters={{{name!r}: {default!r}}}."
            )


def _is_whole(run: EndedRun, plan: Plan, instance: StepInstance) -> bool:
    """Return whether the outputs of a step or item are known; True for one that did not run."""
    step, index = plan.by_name[instance[0]], instance[1]
    if run.ends.get(instance) is not End.OK or len(index) < len(plan.structure.loops(step.group)):
        return True
    return run.outputs.get(instance, {}).keys() >= set(step.outputs)


class _Fit:
    """Compares two plans: ``reasons`` has the steps that do not fit, ``changed`` single items of loops.

    ``ends`` are those of the steps that the new plan has, without items that its lists no longer have.
    """

    def __init__(self, run: EndedRun, plan: Plan, parameters: Mapping[str, Any], chosen: Iterable[str]) -> None:
        self.old, self.new = run.bundle.plan, plan
        self.ends = {instance: end for instance, end in run.ends.items() if instance[0] in plan.by_name}
        self.reasons: dict[str, str] = {}
        self.changed: set[StepInstance] = set()
        before = check_values(self.old.name, self.old.parameters, dict(run.parameters))
        dated = {name for name, value in parameters.items() if value in _DATES}
        self._values = before, parameters
        self._changed_parameters = {
            name for name, value in parameters.items() if name not in before or repr(before[name]) != repr(value)
        } | dated
        self._chosen = list(chosen)

    def kept_defaults(self) -> dict[str, tuple[Any, Any]]:
        """Return the values of this run that were the defaults of the old code, with the other defaults of the new."""
        old = {parameter.name: repr(parameter.default) for parameter in self.old.parameters if not parameter.required}
        return {
            parameter.name: (value, parameter.default)
            for parameter in self.new.parameters
            if repr(value := self._values[1].get(parameter.name)) == old.get(parameter.name)
            and parameter.name not in self._changed_parameters
            and not (parameter.required or repr(parameter.default) == repr(value))
        }

    def compare(self) -> None:
        """Fill ``reasons``, ``changed`` and ``ends``."""
        for step in self.new:
            if reason := self._why_not(step):
                self.reasons[step.name] = reason
        for loop in (group for group in self.new.structure if isinstance(group, Loop)):
            self._compare_loop(loop)
        for name in self._chosen:
            if name in self.new.by_name:
                self.reasons[name] = "it was asked for"
            self.changed |= {instance for instance in self.ends if name == labelled(*instance)}

    def _why_not(self, step: Step) -> str:
        """Return why the result of a step does not fit; empty if it does, apart from the steps and lists before it."""
        before = self.old.by_name.get(step.name)
        if before is None:
            return "it is new"
        if step.operator is not None:
            return "the engine's own operator runs it"
        if before.outputs != step.outputs:
            return "its outputs have changed"
        wiring = [repr((side.inputs, sorted(side.after), side.run_if, dict(side.secrets))) for side in (before, step)]
        if wiring[0] != wiring[1]:
            return "its inputs, its secrets or what it waits for have changed"
        if names := self._changed(item.source for item in step.inputs):
            return f"parameter {', '.join(map(repr, names))} has changed"
        if repr(self._around(self.old, before)) != repr(self._around(self.new, step)):
            return "the loop or branch around it has changed"
        branches = self.new.structure.branches(step.group)
        if names := self._changed(source for branch in branches for source in self.new.structure.sources(branch)):
            return f"parameter {', '.join(map(repr, names))}, on which its branch depends, has changed"
        return ""

    def _changed(self, sources: Iterable[Source]) -> list[str]:
        """Return the names of the parameters among these values that have changed."""
        names = {source.name for source in sources if isinstance(source, FromParameter)}
        return sorted(names & self._changed_parameters)

    def _around(self, plan: Plan, step: Step) -> list[Any]:
        """Return what matters of the groups around a step: names, conditions, and where lists are from."""
        structure = plan.structure
        return [self._shape(plan, structure.by_name[name]) for name in structure.path(step.group)]

    def _shape(self, plan: Plan, group: Group) -> Any:
        if isinstance(group, Loop):
            # Constants and parameters are compared item by item.
            kinds = (Constant, FromParameter)
            over = [(item.name, "values" if isinstance(item.source, kinds) else item.source) for item in group.over]
            return group.name, over, group.on_item_error
        if isinstance(group, Branch):
            return [(item.name, item.condition) for item in plan.structure.choices[group.choice]], group.name
        return group.KIND

    def _compare_loop(self, loop: Loop) -> None:
        """Compare a list of constants or parameters item by item; a list of a step is as its step."""
        before, members = self.old.structure.by_name.get(loop.name), self.new.structure.members(loop.name)
        if not isinstance(before, Loop):
            return
        lists, now = self._lists(before, 0), self._lists(loop, 1)
        if repr(lists) == repr(now):  # 1 and True are equal
            return
        why = f"the list of loop {loop.name!r} has changed"
        if self.new.structure.loops(loop.parent) or not all(isinstance(side, list) for side in (*lists, *now)):
            self.reasons |= dict.fromkeys(members, why)
            return
        old, new = (list(zip(*side, strict=False)) for side in (lists, now))
        same = {number for number, item in enumerate(new) if number < len(old) and repr(old[number]) == repr(item)}
        taken_by = {later for name in members for later in self.new.downstream[name]} - set(members)
        self.reasons |= dict.fromkeys(taken_by, why)
        for name, index in [(name, index) for name, index in self.ends if name in members]:
            if not index or index[0] >= len(new):
                del self.ends[name, index]
            elif index[0] not in same:
                self.changed.add((name, index))

    def _lists(self, loop: Loop, which: int) -> list[Any]:
        """Return the lists of a loop; that of a step stands for itself."""
        values = self._values[which]
        return [
            item.source.value
            if isinstance(item.source, Constant)
            else values.get(item.source.name)
            if isinstance(item.source, FromParameter)
            else item.source
            for item in loop.over
        ]


def changes(old: Bundle, new: Bundle, steps: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files of the user's code that differ, and those of the ``steps`` whose own function does."""
    before, after = old.files, new.files
    files = [path.removeprefix("code/") for path in changed_paths(before, after) if path.startswith("code/")]
    functions = [
        name
        for name in dict.fromkeys(steps)
        if _function(old, before, old.plan.by_name[name]) != _function(new, after, new.plan.by_name[name])
    ]
    return files, functions


def _function(bundle: Bundle, files: Mapping[str, bytes], step: Step) -> Any:
    """Return something that is the same for the same function: the tree of its definition, or a pickle's digest."""
    module, _, name = step.function.partition(":")
    if module == "pickle":
        return bundle.versions.get(name) or files.get(f"objects/{name}.pkl")
    path = f"code/{module.replace('.', '/')}"
    data = files.get(f"{path}.py", files.get(f"{path}/__init__.py", b""))
    try:
        body: Any = parsed(data)
    except (SyntaxError, ValueError):
        return data
    for part in name.split("."):
        definitions = [node for node in getattr(body, "body", ()) if getattr(node, "name", "") == part]
        if not definitions:
            return data
        body = definitions[-1]
    return ast.dump(body)
