"""Check which values are visible to a step: those of loops, of branches, of steps that may not have run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import get_origin

from flowyml.authoring.calls import Call
from flowyml.authoring.source_lines import errors_at
from flowyml.core.errors import DefinitionError
from flowyml.plan.groups import Branch, Cleanup, Group, Groups, Loop
from flowyml.plan.model import Step
from flowyml.plan.types import is_rich_leaf, returned_type, type_text
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source, steps_of

__all__ = ["around", "check_loops", "check_scopes", "check_seen"]


def check_scopes(structure: Groups, calls: Mapping[str, Call], steps: Sequence[Step]) -> None:
    """Raise ``DefinitionError`` if a step or a group takes a value that it cannot see, or that may be missing."""
    for step in steps:
        with errors_at(calls[step.name].line):
            for item in step.inputs:
                check_seen(
                    structure, item.source, step.group, f"step {step.name!r} takes {item.into or item.name!r}, which"
                )
            for name in step.after:
                between = structure.between(name, step.group)
                _refuse_cleanup(between, f"step {step.name!r} comes after {name!r}, which")
            if step.run_if != "all_success":
                _check_defaults(step, calls[step.name])
    for group in structure:
        with errors_at(_place_in(structure, calls, group)):
            for source in structure.sources(group):
                check_seen(structure, source, group.parent, f"{group.name!r} depends on a value that")
            if isinstance(group, Loop):
                _check_lists(group)


def check_loops(structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object]) -> None:
    """Raise ``DefinitionError`` if a loop goes over a value whose annotation is not a list; ``types`` are those of
    parameters.
    """
    for group in structure:
        for item in group.over if isinstance(group, Loop) else ():
            kind, what = _annotated(structure, calls, types, item.source, group.parent)
            is_other = (get_origin(kind) or kind) in (bool, int, float, str, bytes, dict, set) or is_rich_leaf(kind)
            if is_other:
                over = what if item.name == "item" else f"{item.name!r}, {what}"
                with errors_at(_place_in(structure, calls, group)):
                    raise DefinitionError(
                        f"Loop {group.name!r} goes over {over}, which is of type {type_text(kind)}. A loop goes "
                        f"over a list: annotate it as list[…], or call the step once."
                    )


def _annotated(
    structure: Groups, calls: Mapping[str, Call], types: Mapping[str, object], source: Source, group: str
) -> tuple[object, str]:
    """Return the annotation of a list, and its description; None if unknown."""
    if isinstance(source, FromParameter):
        return types.get(source.name), f"parameter {source.name!r}"
    if isinstance(source, FromStep) and not structure.loops_between(source.step, group):
        call = calls[source.step]
        kind = returned_type(call.step.function) if len(call.outputs) == 1 else None
        return kind, f"the output of step {source.step!r}"
    return None, ""


def check_seen(structure: Groups, source: Source, group: str, subject: str) -> None:
    """Raise ``DefinitionError`` if a step or group in ``group`` cannot take a value; ``subject`` begins the message."""
    if isinstance(source, FromItem) and source.loop not in structure.path(group):
        raise DefinitionError(f"{subject} is the item of {source.loop!r}: it is known only within that loop.")
    for name in steps_of(source):
        between = structure.between(name, group)
        if not between:
            continue
        _refuse_cleanup(between, subject)
        branch = next((scope for scope in between if isinstance(scope, Branch)), None)
        if isinstance(source, FromStep) and branch:
            raise DefinitionError(
                f"{subject} comes from step {name!r} in branch {branch.name!r}, which may not be taken. Join the "
                f"branches with either(…), or move the step that takes it into the branch."
            )
        if isinstance(source, FromEither) and any(isinstance(scope, Loop) for scope in between):
            raise DefinitionError(f"{subject} is either of outputs in a loop: call either(…) within the loop.")


def around(structure: Groups, step: Step) -> Iterator[Group]:
    """Return the groups around a step, the outermost first."""
    return (structure.by_name[name] for name in structure.path(step.group))


def _refuse_cleanup(between: Sequence[Group], subject: str) -> None:
    if any(isinstance(scope, Cleanup) for scope in between):
        raise DefinitionError(f"{subject} is in cleanup(), which runs after all steps outside it.")


def _check_defaults(step: Step, call: Call) -> None:
    """Check that the function has a default for each value from another step that may be missing."""
    for name, parameter in call.step.signature.parameters.items():
        sources = [item.source for item in step.inputs if name in (item.name, item.into)]
        is_taken = not all(isinstance(source, FromParameter | Constant | FromItem) for source in sources)
        if is_taken and parameter.default is inspect.Parameter.empty:
            why = "it cleans up" if call.step.step_options.run_if != step.run_if else f"run_if={step.run_if!r}"
            raise DefinitionError(
                f"step {step.name!r} may run without {name!r}, since {why}: give it a default, {name}=None."
            )


def _check_lists(loop: Loop) -> None:
    lengths = {item.name: len(item.source.value) for item in loop.over if isinstance(item.source, Constant)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise DefinitionError(f"The lists of {loop.name!r} are taken item by item and must be equally long: {listed}.")


def _place_in(structure: Groups, calls: Mapping[str, Call], group: Group) -> tuple[str, int] | None:
    """Return the line of the first step in a group."""
    members = structure.members(group.name)
    return calls[members[0]].line if members else None
