"""Check that the steps of an execution group can run in one task, process or pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flowyml.authoring.calls import Call
from flowyml.authoring.source_lines import errors_at
from flowyml.core.errors import DefinitionError
from flowyml.plan.groups import Groups
from flowyml.plan.model import Step

__all__ = ["check_execution_groups"]


def check_execution_groups(structure: Groups, calls: Mapping[str, Call], steps: Sequence[Step]) -> None:
    """Raise ``DefinitionError`` for an execution group whose steps are not neighbours, or cannot share a process."""
    if not structure.execution_groups:
        return
    earlier, later = _as_one(structure, steps)
    for group in structure.execution_groups.values():
        first, *others = (structure.step(name) for name in group.steps)
        for step in (first, *others):
            with errors_at(calls[step.name].line):
                _check_alone(step, structure)
        for step in others:
            with errors_at(calls[step.name].line):
                _check_beside(step, first)
                _check_options(step, [structure.step(name) for name in group.steps])
        between = _reached(group.steps, later) & _reached(group.steps, earlier)
        if unlisted := [step.name for step in steps if step.name in between - set(group.steps)]:
            with errors_at(calls[unlisted[0]].line):
                raise DefinitionError(
                    f"step {unlisted[0]!r} lies between steps of execution_group={group.name!r}, which run one after "
                    f"the other in one process. Put it into the group, or leave {group.steps[-1]!r} out."
                )


def _check_alone(step: Step, structure: Groups) -> None:
    subject = f"step {step.name!r} is in execution_group={step.execution_group!r}"
    if structure.is_cleanup(step.group):
        raise DefinitionError(
            f"{subject} and in cleanup(). Clean-up steps run in separate tasks: remove execution_group."
        )
    if step.secrets:
        raise DefinitionError(f"{subject} and has secrets, which no other step may see. Remove one of the two.")
    if step.run_if != "all_success":
        raise DefinitionError(
            f"{subject} and has run_if={step.run_if!r}, but a group starts only when all steps that it waits for have "
            f"succeeded. Remove one of the two."
        )


def _check_beside(step: Step, first: Step) -> None:
    if step.group != first.group:
        places = [f"{one.name!r} in {one.group!r}" if one.group else f"{one.name!r} in none" for one in (first, step)]
        raise DefinitionError(
            f"Steps of execution_group={step.execution_group!r} are in different loops, branches or pipelines: "
            f"{' and '.join(places)}. Put all of them into the same one."
        )


def _check_options(step: Step, members: Iterable[Step]) -> None:
    """Check that options of a whole task or pod agree."""
    for other in members:
        if other is step:
            return
        for engine in sorted(step.options.keys() & other.options.keys() - {"local"}):
            mine, theirs = step.options[engine], other.options[engine]
            for name in sorted(mine.keys() & theirs.keys()):
                if mine[name] != theirs[name]:
                    raise DefinitionError(
                        f"Steps {other.name!r} and {step.name!r} of execution_group={step.execution_group!r} run in "
                        f"one task, and have different options for {engine}: {name}={theirs[name]!r:.60} and "
                        f"{mine[name]!r:.60}. Give them the same, or leave one of them out of the group."
                    )
        kinds = {one.resources.gpu_type for one in (step, other) if one.resources and one.resources.gpu_type}
        if len(kinds) > 1:
            raise DefinitionError(
                f"Steps {other.name!r} and {step.name!r} of execution_group={step.execution_group!r} ask for different "
                f"GPUs: {' and '.join(sorted(kinds))}."
            )


def _as_one(structure: Groups, steps: Sequence[Step]) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
    """Return the steps before and after each step, with the steps of a group counted as one."""
    own = {name: group.steps for group in structure.execution_groups.values() for name in group.steps}
    earlier: dict[str, set[str]] = {step.name: set() for step in steps}
    later: dict[str, set[str]] = {step.name: set() for step in steps}
    for step in steps:
        for name in structure.upstream(step):
            for before in own.get(step.name, (step.name,)):
                for other in own.get(name, (name,)):
                    if before not in own.get(name, ()):
                        earlier[before].add(other)
                        later[other].add(before)
    return earlier, later


def _reached(names: Iterable[str], ways: Mapping[str, Iterable[str]]) -> set[str]:
    reached: set[str] = set()
    pending = list(names)
    while pending:
        fresh = [name for name in ways[pending.pop()] if name not in reached]
        reached.update(fresh)
        pending += fresh
    return reached
