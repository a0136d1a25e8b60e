"""The pipelines that an orchestrator runs, and the lines in their files that its errors name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from flowyml.core.errors import DefinitionError

if TYPE_CHECKING:
    from flowyml.core.origin import Origin
    from flowyml.plan.bundle import Bundle
    from flowyml.plan.model import Plan
    from flowyml.runtime.code import Code

__all__ = ["RunnablePipeline", "about_step", "located"]


class RunnablePipeline(Protocol):
    """An orchestrator's view of a pipeline: a ``flowyml.Pipeline``, or one read from a bundle."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> Origin | None:
        """The origin of the pipeline; None if the bundle does not record it."""

    @property
    def revision(self) -> str | None:
        """The commit of its code, if known."""

    def compile(self) -> Plan:
        """Return the plan; raises ``DefinitionError``."""

    def code(self) -> Code:
        """Return the functions and hooks, for running in this process."""

    def bundle(self, plan: Plan | None = None) -> Bundle:
        """Return code and plan in one file, to run elsewhere. ``plan`` replaces the compiled one."""

    def imports(self) -> set[str]:
        """Return the packages that the user's code imports, by the first parts of their modules' names."""

    def check_parameters(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return all parameters of a run, defaults filled in; raises ``ParameterError``."""

    def refreshed(self, refresh: bool | str | Iterable[str]) -> RunnablePipeline:
        """Return a copy whose cached steps run again: all of them, or the named ones."""

    def locate(self, error: DefinitionError) -> None:
        """Add file and line of its step, or of the pipeline, to an error, such as one of an engine's compiler."""


@contextmanager
def about_step(name: str) -> Iterator[None]:
    """Set the step of a ``DefinitionError`` that an adapter's compiler raises in this block."""
    try:
        yield
    except DefinitionError as error:
        error.step = error.step or name
        raise


@contextmanager
def located(pipeline: RunnablePipeline) -> Iterator[None]:
    """Add file and line to errors of an engine's compiler, as ``compile`` does for its own."""
    try:
        yield
    except DefinitionError as error:
        pipeline.locate(error)
        raise
