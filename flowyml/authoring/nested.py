"""Call a pipeline by names from another pipeline: connect its steps by names, and record them as calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowyml.authoring.calls import Call, Recorder
from flowyml.authoring.compiler import compile_outputs, compile_steps
from flowyml.plan.groups import Groups
from flowyml.plan.values import FromParameter, Source

__all__ = ["record_by_names"]


def record_by_names(
    recording: Recorder, name: str, calls: Sequence[Call], context: Mapping[str, Any], given: Mapping[str, Any],
    outputs: Sequence[str] | None,
) -> Any:  # fmt: skip
    """Record its steps; ``given`` has the value of each parameter in ``context``, or the call that produces it.

    Returns the pipeline's outputs, a dict if there are several.
    """
    by_name = {call.name: call for call in calls}
    steps, _ = compile_steps(name, calls, context)
    made: dict[Source, Any] = {FromParameter(parameter): value for parameter, value in given.items()}
    for step in steps:
        made |= recording.record_wired(by_name[step.name], step, made.__getitem__)
    found = compile_outputs(name, Groups((), steps), steps, outputs, None)
    values = {output.name: made[output.source] for output in found}
    return next(iter(values.values())) if len(values) == 1 else values
