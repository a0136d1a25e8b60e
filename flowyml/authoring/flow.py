"""Loops, branches and clean-up in the function of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

from flowyml.authoring.calls import Recorder, list_source
from flowyml.authoring.placeholders import CallOutput, EitherValue, ItemValue, condition_of
from flowyml.authoring.source_lines import adds_source_line
from flowyml.authoring.step_options import check_item_error, check_max_parallel
from flowyml.authoring.steps import recorder
from flowyml.core.errors import DefinitionError
from flowyml.plan.groups import Loop
from flowyml.plan.model import Input
from flowyml.plan.names import check_name
from flowyml.plan.values import FromEither, FromItem, FromStep

__all__ = ["cleanup", "either", "elif_", "for_each", "gather", "otherwise", "when"]

T = TypeVar("T")

ITEM = "item"


@adds_source_line
def for_each(
    items: Iterable[T], *, name: str | None = None, max_parallel: int | None = None, on_item_error: str = "fail"
) -> AbstractContextManager[T]:
    """Run the steps of the block once for each item: ``with for_each(configs) as config:``.

    ``items`` is an output of a step, a parameter or a constant list, such as one of plain JSON, dates or paths. An item
    proceeds to the next step of the block without waiting for the other items. Outside the block, an output of a step
    in it is the list of all items' outputs, in order. At most ``max_parallel`` items run at a time.
    ``on_item_error="continue"`` lets the run succeed when items fail; a step that takes the list then gets an
    ``(index, value)`` pair for each item that succeeded. A loop may contain another loop, but no deeper.

    Raises ``DefinitionError``.
    """
    recording = _recording("for_each")
    source = list_source("for_each(…)", items)
    label = getattr(source, "output", None) or getattr(source, "name", ITEM)
    loop = Loop(
        name=check_name(name, "for_each") if name is not None else f"each of {label}" if label != ITEM else "each item",
        over=(Input(ITEM, source),),
        max_parallel=check_max_parallel(max_parallel, "for_each(…)"),
        on_item_error=check_item_error(on_item_error, "for_each(…)"),
    )

    @contextmanager
    def block() -> Iterator[T]:
        with recording.grouping.open(loop) as opened:
            yield cast(T, ItemValue(FromItem(opened.name, ITEM)))

    return recording.grouping.block("for_each", block())


@adds_source_line
def when(condition: object, *, name: str | None = None) -> AbstractContextManager[None]:
    """Run the steps of the block only if the condition holds: ``with when(score > 0.9):``.

    A condition compares outputs of steps, parameters, dates and plain JSON; conditions are joined with ``&``, ``|`` and
    ``~``, or with ``all_of``, ``any_of`` and ``not_``; ``is_in`` replaces ``in``. An output or parameter by itself is a
    condition too. Steps of a branch that is not taken are skipped: they are COMPLETED, with the raw status ``skipped``.
    Outside the branch, their outputs can be used only in ``either``.

    Raises ``DefinitionError``.
    """
    compiled = condition_of(condition)
    return _recording("when").grouping.choice("when", compiled, name, joins=False)


@adds_source_line
def elif_(condition: object, *, name: str | None = None) -> AbstractContextManager[None]:
    """Run the steps of the block if this condition holds and none of the preceding branches of the choice was taken."""
    compiled = condition_of(condition)
    return _recording("elif_").grouping.choice("elif_", compiled, name, joins=True)


@adds_source_line
def otherwise(*, name: str | None = None) -> AbstractContextManager[None]:
    """Run the steps of the block if none of the preceding branches of the choice was taken."""
    return _recording("otherwise").grouping.choice("otherwise", None, name, joins=True)


@adds_source_line
def either(*outputs: T) -> T:
    """Return the value of the output whose step ran: ``best = either(retrained, current)``.

    The steps are in different branches, of which at most one is taken. If none ran, a step that takes the value is
    skipped.
    """
    _recording("either")
    if len(outputs) < 2 or not all(isinstance(output, CallOutput) for output in outputs):
        raise DefinitionError(f"either takes two or more outputs of steps, not {outputs!r:.120}.")
    sources = tuple(cast(FromStep, cast(Any, output).source) for output in outputs)
    return cast(T, EitherValue(FromEither(sources)))


@adds_source_line
def gather(output: T) -> list[T]:
    """Return the list of all items' outputs, outside the block of their loop: ``report(gather(loaded))``.

    ``report(loaded)`` means the same; ``gather`` gives it the type that it has there, for type checkers. Outside two
    loops, ``gather(gather(output))`` is a list of lists.

    Raises ``DefinitionError`` for anything but an output of a step in a loop whose block has ended.
    """
    recording = _recording("gather")
    if not isinstance(output, CallOutput):
        raise DefinitionError(f"gather takes an output of a step in a loop, not {output!r:.120}.")
    group = next(call.group for call in recording.calls if call.name == output.source.step)
    if not recording.grouping.in_ended_loop(group):
        raise DefinitionError(
            f"gather takes an output of a step in a loop, outside of the loop's block; step {output.source.step!r} is "
            f"in no loop that has ended here. Take the output itself."
        )
    return cast("list[T]", output)


@adds_source_line
def cleanup(*, name: str = "clean-up") -> AbstractContextManager[None]:
    """Run the steps of the block when all others have ended, even after a failure, a timeout or a cancellation.

    Their outcome does not change the outcome of the run. An input that they take from another step needs a default in
    the function, for when that step did not complete.
    """
    return _recording("cleanup").grouping.cleanup("cleanup", name)


def _recording(verb: str) -> Recorder:
    recording = recorder.get()
    if not isinstance(recording, Recorder):
        raise DefinitionError(f"Call {verb}(…) in the function of a @pipeline.")
    return recording
