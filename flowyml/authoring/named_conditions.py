"""Conditions of pipelines by names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flowyml.authoring.placeholders import CallOutput, ParameterValue, Placeholder, condition_of
from flowyml.authoring.steps import Step
from flowyml.core.errors import DefinitionError
from flowyml.plan.conditions import Condition
from flowyml.plan.values import FromParameter, FromStep

__all__ = ["If", "named_condition"]


class If(NamedTuple):
    """A choice between two steps, as FlowyML 0.x wrote it, for ``Pipeline.add_control_flow``."""

    condition: Callable[[Any], Any]
    then_step: Step[..., Any]
    else_step: Step[..., Any] | None = None


class _Named:
    """The outputs and parameters of a pipeline by names: ``it.score``, ``it["score"]``.

    Also in the form of 0.x: ``it.steps["evaluate"].outputs["score"]``.
    """

    def __getattr__(self, name: str) -> Placeholder:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Placeholder:
        return ParameterValue(FromParameter(name))

    @property
    def steps(self) -> _Steps:
        return _Steps()


class _Steps:
    def __getitem__(self, step: str) -> _Outputs:
        return _Outputs(step)


class _Outputs:
    def __init__(self, step: str) -> None:
        self._step = step

    @property
    def outputs(self) -> _Outputs:
        return self

    def __getitem__(self, output: str) -> Placeholder:
        return CallOutput(FromStep(self._step, output))


def named_condition(condition: Callable[[Any], Any]) -> Condition:
    """Call a function with a pipeline's names; return its condition. Raises ``DefinitionError`` for anything else."""
    if not callable(condition):
        raise DefinitionError(
            f"A condition by names must be a function, as in when(lambda it: it.score > 0.9), not {condition!r:.80}."
        )
    try:
        return condition_of(condition(_Named()))
    except DefinitionError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"The condition raised {type(error).__name__}: {error}. FlowyML calls it to record what it compares. If it "
            f"needs the values themselves, return True or False from a step."
        ) from error
