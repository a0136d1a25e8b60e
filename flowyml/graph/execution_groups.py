"""Show execution groups as groups around their steps: marks in a list, frames in a drawing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowyml.plan.groups import ExecutionGroup, Section
from flowyml.plan.model import Plan

__all__ = ["SharedProcess", "with_execution_groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedProcess(Section):
    """Steps that share a task, process or pod. ``pipeline`` is the execution group's name."""


def with_execution_groups(plan: Plan) -> Plan:
    """Return the plan with a group around the steps of each execution group that are in one other group.

    The name of such a group begins with a space, which no other name does.
    """
    if not plan.structure.execution_groups:
        return plan
    groups = (_around(plan, step) for step in plan.structure.execution_groups.values())
    steps = (replace(step, group=f" {step.execution_group}") if step.execution_group else step for step in plan)
    return replace(plan, steps=tuple(steps), groups=(*plan.groups, *groups))


def _around(plan: Plan, group: ExecutionGroup) -> SharedProcess:
    parent = plan.by_name[group.steps[0]].group
    return SharedProcess(name=f" {group.name}", parent=parent, pipeline=group.name)
