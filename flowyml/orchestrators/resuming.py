"""Continue a run in another process of its engine: choose the steps that have ended, and those that run again.

For engines that execute a flow of FlowyML's and record its steps themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from flowyml.core.item_names import labelled
from flowyml.orchestrators.retrying import Ends, StepInstance, end_of, to_run_again
from flowyml.plan.model import Plan
from flowyml.runtime.decider import End, Index
from flowyml.runtime.kept_outputs import KeptOutputs

__all__ = ["Before", "Ended", "before"]


class Ended(NamedTuple):
    """The end of a step, or of its run for an item, in one attempt of the run.

    ``attempt`` counts its own attempts within that attempt of the run; ``began`` is the start of the last one, in
    seconds since any fixed moment.
    """

    step: str
    item: Index
    status: str
    raw_status: str
    attempt: int
    error: str | None = None
    began: float = 0.0

    @property
    def end(self) -> End | None:
        """The end for a walk; None if the step runs again."""
        return end_of(self.status, self.raw_status)


class Before(NamedTuple):
    """The past of a run: its steps and items with their packed outputs, and its loops, in the form for ``Walk``."""

    instances: Mapping[tuple[str, Index], tuple[Ended, dict[str, Any]]] = {}
    loops: Mapping[tuple[str, Index], int | None] = {}


def before(plan: Plan, ended: Iterable[Ended], kept: KeptOutputs, chosen: Collection[str] | None) -> Before:
    """Return the past of a run whose failed steps, or those ``chosen`` by name, run again.

    ``ended`` has all attempts of the run, oldest first. In the result, the last one stands for all.
    """
    known = _without_stale(plan, *_joined(ended))
    ends = Ends(plan, {instance: each.end for instance, each in known.items()})
    outputs = {instance: kept.read(labelled(*instance)) or {} for instance in known if ends.ran(*instance)}
    readable = {(*instance, output) for instance, values in outputs.items() for output in values}
    again, gone = to_run_again(ends, readable, (), chosen)
    for instance in gone:
        known.pop(instance, None)
    for instance in known.keys() & set(again):
        known[instance] = known[instance]._replace(status="QUEUED", raw_status="queued")
    ends = Ends(plan, {instance: each.end for instance, each in known.items()})
    instances = {
        instance: (each, outputs.get(instance, {}) if each.end is End.OK else {})
        for instance, each in known.items()
        if instance in ends
    }
    return Before(instances, dict(ends.ended_loops()))


def _joined(ended: Iterable[Ended]) -> tuple[dict[StepInstance, Ended], dict[StepInstance, float]]:
    """Return the last end of each step and item, with the attempts of all; and when completed ones were started again.

    The latter also has the items around, and a list whose items were repeated. A failed step that runs again repeats
    nothing else: the steps that ran although it failed stay.
    """
    known, remade = dict[StepInstance, Ended](), dict[StepInstance, float]()
    completed, has_completed = set[StepInstance](), set[StepInstance]()
    for one in ended:
        instance = one.step, one.item
        around = [(one.step, one.item[:depth]) for depth in range(len(one.item) + 1)]
        earlier = known.get(instance)
        known[instance] = each = one._replace(attempt=one.attempt + earlier.attempt) if earlier else one
        was_made = each.attempt or each.status == "COMPLETED"  # else its record only has the reason why it was not
        if was_made and (instance in has_completed or not completed.isdisjoint(around)):
            remade.update({name: max(each.began, remade.get(name, 0.0)) for name in around})
        if each.status == "COMPLETED":
            completed.add(instance)
            has_completed.update(around)
    return known, remade


def _without_stale(
    plan: Plan, known: Mapping[StepInstance, Ended], remade: Mapping[StepInstance, float]
) -> dict[StepInstance, Ended]:
    """Remove results that depend on a value that was computed again since, and items of such a list."""
    structure = plan.structure
    found = dict(known)
    for (name, index), each in known.items():
        group = plan.by_name[name].group
        for source in structure.upstream(plan.by_name[name]):
            inner = structure.loops_between(source, group)
            shared = index[: len(structure.loops(plan.by_name[source].group)) - len(inner)]
            if remade.get((source, shared), 0.0) <= each.began or (name, index) not in found:
                continue
            if len(shared) < len(index):
                del found[name, index]
            else:
                found[name, index] = each._replace(status="CANCELLED", raw_status="cancelled")
    return found
