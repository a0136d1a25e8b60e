"""An engine's records of a run and its steps."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self, TypeVar

from flowyml.core.errors import DefinitionError, OutputNotKeptError, StepError, UnknownStateError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.core.origin import Origin

__all__ = [
    "Artifact", "Artifacts", "LogLine", "Outputs", "PipelineResult", "Run", "Runs", "StepOutputs",
    "StepResult", "StepRun", "StepRuns", "find_item", "folded", "opened",
]  # fmt: skip

Found = TypeVar("Found")
logger = logging.getLogger("flowyml.runs")

WAS_CANCELLED = "The run was cancelled."
"""The error of a cancelled run, and of its steps that were running."""


def elapsed(started_at: datetime | None, ended_at: datetime | None) -> float:
    """Return seconds from start to end, or to now if there is no end; 0 before the start."""
    if started_at is None:
        return 0.0
    return max(0.0, ((ended_at or datetime.now(UTC)) - started_at).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The engine's record of a run. ``raw_status`` is the engine's own word; times are UTC.

    ``origin`` is its pipeline's origin, ``code_digest`` the digest of its bundle, and ``revision`` the git commit that
    it was submitted from (``1f3a9c2…``, or ``1f3a9c2…-dirty``), if the engine has them. ``not_kept`` has by name the
    reasons why outputs of a completed local run are lost; for other engines, reading ``outputs`` raises with the
    reason. ``packages`` are the versions of the packages that its code imports, by the names of their modules, if the
    engine records them.
    """

    job_id: str
    run_id: str
    pipeline: str
    status: ExecutionStatus
    raw_status: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    url: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    code_digest: str | None = None
    revision: str | None = None
    not_kept: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def duration_seconds(self) -> float:
        """Seconds since the start, until the end or now."""
        return elapsed(self.started_at, self.ended_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """A step of a run. ``attempt`` counts from 1; 0 before the first.

    A step in a loop has a record for each item; ``index`` is the item's position in the list, a number for each loop
    around it, and empty outside of all loops. ``items``, ``busy_seconds`` and ``cached_part`` are set by ``folded``.
    ``cached_from`` is the run that its results come from, if it did not run itself; of a loop in which only some items
    did not, ``cached_part`` says how many.
    """

    name: str
    status: ExecutionStatus
    raw_status: str
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    index: tuple[int, ...] = ()
    items: tuple[int, int] | None = None
    busy_seconds: float | None = None
    cached_from: str = ""
    cached_part: str = ""

    @property
    def is_cached(self) -> bool:
        """True if the step did not run, and its results come from an earlier run."""
        return bool(self.cached_from)

    @property
    def note(self) -> str:
        """The first line of its error, or why it or some items did not run: ``skipped``, ``no items`` or ``cached``."""
        if self.error:
            return self.error.partition("\n")[0]
        if self.cached_from:
            return f"cached from {self.cached_from}"
        if self.cached_part:
            return self.cached_part
        return self.raw_status.replace("_", " ") if self.raw_status in _DID_NOT_RUN else ""

    @property
    def label(self) -> str:
        """The step with its item: ``train[3]``; for all items together ``train 37 of 200``."""
        return f"{self.name}{self.which}"

    @property
    def which(self) -> str:
        """The part of the label after the name: ``[3]``, or `` 37 of 200``."""
        return f" {self.items[0]} of {self.items[1]}" if self.items else labelled("", self.index)

    def short_label(self, limit: int) -> str:
        """Return the label in at most ``limit`` characters: the name is cut, never its count or index."""
        room = limit - len(self.which)
        return self.label if len(self.name) <= room else f"{self.name[: max(1, room - 1)]}…{self.which}"

    @property
    def duration_seconds(self) -> float:
        """Seconds since the start of its attempt, until the end or now; for a loop, those in which an item ran."""
        return elapsed(self.started_at, self.ended_at) if self.busy_seconds is None else self.busy_seconds


class Runs(list[Run]):
    """Runs, displayed as a table in a notebook."""

    @classmethod
    def listed(
        cls, entries: Iterable[Found], record: Callable[[Found], Run], job_id: Callable[[Found], str] = str
    ) -> Self:
        """Return the records of what an engine lists, without runs in a state that the adapter does not know.

        A warning names each of those, by its ``job_id``.
        """
        runs = cls()
        for entry in entries:
            try:
                runs.append(record(entry))
            except UnknownStateError as error:
                logger.warning("run %r is not listed: %s", job_id(entry), error)
        return runs

    def _repr_html_(self) -> str | None:
        from flowyml.core.notebook import runs_html

        return runs_html(self)


class StepRuns(tuple[StepRun, ...]):
    """Steps of a run, displayed as a table in a notebook."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from flowyml.core.notebook import steps_html

        return steps_html(self)


def find_item(
    steps: Sequence[StepRun], step: str, index: int | Sequence[int] | None = None
) -> tuple[str, tuple[int, ...]]:
    """Return the name and index of a step given by name and index, or as ``train[3]``.

    While a step has not ended, its items may be unknown. Raises ``DefinitionError`` for a step or item that ``steps``
    lack.
    """
    names = list(dict.fromkeys(run.name for run in steps))
    labelled_item = _ITEM.fullmatch(step) if index is None and step not in names else None
    if labelled_item:
        step, index = labelled_item[1], tuple(map(int, re.findall(r"\d+", labelled_item[2])))
    wanted_index = () if index is None else (index,) if isinstance(index, int) else tuple(index)
    runs = [run for run in steps if run.name == step]
    if names and not runs:
        raise DefinitionError(f"This run has no step {labelled(step, wanted_index)!r}. It has: {', '.join(names)}.")
    is_known = any(run.index[: len(wanted_index)] == wanted_index or not run.status.is_terminal for run in runs)
    if names and not is_known:
        count = len(runs) if any(run.index for run in runs) else 0
        items = f"Its indexes go up to {labelled('', runs[-1].index)}" if count else "It has no items"
        raise DefinitionError(f"This run has no step {labelled(step, wanted_index)!r}. {items}.")
    return step, wanted_index


def folded(steps: Iterable[StepRun]) -> list[StepRun]:
    """Return the steps, with one entry for all items of a step in a loop: ``items`` counts the ended ones, and all.

    Its status sums up the items: failed if one failed, then running if one is. Its error is that of the first item with
    an error.
    """
    by_name: dict[str, list[StepRun]] = {}
    for step in steps:
        by_name.setdefault(step.name, []).append(step)
    return [_folded(name, runs) if any(run.index for run in runs) else runs[0] for name, runs in by_name.items()]


def opened(steps: Sequence[StepRun], limit: int = 20) -> Iterator[tuple[StepRun, str]]:
    """Yield the steps to display: ``folded``, and below a step of a loop the first ``limit`` items that failed.

    Each has its note; the note for all items counts those that failed, and those that were cached.
    """
    failed: dict[str, list[StepRun]] = {}
    for step in steps:
        if step.index and step.status in _BAD:
            failed.setdefault(step.name, []).append(step)
    for step in folded(steps):
        items = failed.get(step.name, ()) if step.items else ()
        more = f", the first {limit} are shown" if len(items) > limit else ""
        yield step, ", ".join(filter(None, (f"{len(items)} failed{more}", step.cached_part))) if items else step.note
        yield from ((item, item.note) for item in items[:limit])


def _folded(name: str, runs: Sequence[StepRun]) -> StepRun:
    ended = [run for run in runs if run.status.is_terminal]
    begun = [run.started_at for run in runs if run.started_at]
    worst = min(runs, key=lambda run: (_SHOWN_FIRST.index(run.status), run.raw_status in _DID_NOT_RUN))
    status = worst.status
    if status is ExecutionStatus.QUEUED and ended:
        status = ExecutionStatus.RUNNING
    done = len(ended) == len(runs)
    error = next((f"{run.label}: {run.error}" for run in runs if run.error), None)
    cached = [run for run in runs if run.cached_from]
    sources = {run.cached_from for run in cached}
    source = sources.pop() if len(sources) == 1 else f"{len(sources)} runs" if sources else ""
    return StepRun(
        name=name, status=status, raw_status=worst.raw_status, attempt=max(run.attempt for run in runs),
        started_at=min(begun, default=None), error=error, items=(len(ended), len(runs)),
        ended_at=max((run.ended_at for run in runs if run.ended_at), default=None) if done else None,
        busy_seconds=_busy(runs), cached_from=source if len(cached) == len(runs) else "",
        cached_part=f"{len(cached)} of {len(runs)} cached from {source}" if 0 < len(cached) < len(runs) else "",
    )  # fmt: skip


def _busy(runs: Sequence[StepRun]) -> float:
    """Return the seconds in which at least one item ran: not those until a run is retried."""
    now, seconds, until = datetime.now(UTC), 0.0, datetime.min.replace(tzinfo=UTC)
    for started, ended in sorted((run.started_at, run.ended_at or now) for run in runs if run.started_at):
        seconds += max(0.0, elapsed(max(started, until), ended))
        until = max(until, ended)
    return seconds


_ITEM = re.compile(r"(.+?)((?:\[\d+\])+)")

_BAD = (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT)

_DID_NOT_RUN = ("skipped", "no_items")

_SHOWN_FIRST = (
    ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT, ExecutionStatus.RUNNING, ExecutionStatus.QUEUED,
    ExecutionStatus.CANCELLED, ExecutionStatus.COMPLETED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a run printed or logged. ``step`` is empty for a line that belongs to no step.

    ``attempt`` counts from 1; it is 0 if unknown. ``index`` is as in ``StepRun``. ``of_engine`` marks what the engine
    printed around a step, such as KFP's launcher in a pod.
    """

    message: str
    step: str = ""
    level: str = "INFO"
    time: datetime | None = None
    attempt: int = 0
    index: tuple[int, ...] = ()
    of_engine: bool = False

    @property
    def label(self) -> str:
        """The step with its item: ``train[3]``."""
        return labelled(self.step, self.index)

    def is_of(self, step: str, index: tuple[int, ...] = ()) -> bool:
        """Return whether the line is of a step; with ``index``, of that item or of one within it."""
        return self.step == step and self.index[: len(index)] == index


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A stored output, or metrics; ``name`` is the name of its step's output.

    ``type`` is its kind, such as ``table``; ``format`` its file format. ``size`` is in bytes and ``digest`` the SHA-256
    in hexadecimal. ``url`` is None if it is in no store that outlives the run, or only in the engine, such as metrics.
    ``head`` is the beginning of a text, or columns and first rows of a table; ``picture`` is the URL of a figure's
    picture. ``index`` is as in ``StepRun``.
    """

    step: str
    name: str
    type: str
    format: str = "json"
    size: int | None = None
    digest: str | None = None
    url: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    head: Any = None
    picture: str | None = None
    index: tuple[int, ...] = ()
    packed: Any = field(default=None, repr=False, compare=False)
    """Its packed value, which travels between steps."""

    @property
    def label(self) -> str:
        """The step with its item and the output: ``train[3].model``."""
        return f"{labelled(self.step, self.index)}.{self.name}"


class Artifacts(list[Artifact]):
    """Artifacts, displayed as a table in a notebook."""

    def _repr_html_(self) -> str | None:
        from flowyml.core.notebook import artifacts_html

        return artifacts_html(self)


class Failure(NamedTuple):
    """The failure of a run. ``exception`` is the error itself if it happened in this process."""

    run_id: str
    pipeline: str
    status: ExecutionStatus
    text: str | None
    exception: BaseException | None = None

    def error(self, what: str = "") -> StepError:
        """Return the error to raise for what the run lacks."""
        error = StepError(f"Run {self.run_id!r} of {self.pipeline!r}{what} ended {self.status}: {self.text}")
        error.__cause__ = self.exception
        return error


class Outputs(dict[str, Any]):
    """Pipeline outputs by name. Reading one that was not stored raises an error that says how to store it.

    ``get``, ``in`` and ``len`` count such an output; iteration, ``dict(…)`` and comparison have those that can be read.
    With the ``failure`` of the run, reading any other output by ``[…]`` raises that error.
    """

    def __init__(
        self, values: Mapping[str, Any] = {}, *, not_kept: Mapping[str, str] = {}, failure: Failure | None = None
    ) -> None:
        super().__init__(values)
        self.not_kept = dict(not_kept)
        self.failure = failure

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return an output, or ``default`` if the pipeline has no such output. Raises ``OutputNotKeptError``."""
        return self[name] if name in self.not_kept else super().get(name, default)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.not_kept

    def __len__(self) -> int:
        return len({*self, *self.not_kept})

    def __missing__(self, name: str) -> Any:
        if reason := self.not_kept.get(name):
            raise OutputNotKeptError(reason)
        if self.failure:
            raise self.failure.error(f" has no output {name!r}: it")
        raise KeyError(f"{name} (this run has: {', '.join([*self, *self.not_kept]) or 'no outputs'})")


class StepOutputs(Mapping[str, Any]):
    """The outputs of a step by name, each read from the engine's records when it is asked for.

    ``find`` returns the names with what was recorded, and ``read`` the value of such a record: it raises
    ``OutputNotKeptError`` or ``ArtifactError`` for a value that is gone.
    """

    def __init__(self, find: Callable[[], Mapping[str, Any]], read: Callable[[Any], Any]) -> None:
        self._find = find
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(self._find()[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._find())

    def __len__(self) -> int:
        return len(self._find())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult(StepRun):
    """A step of a finished run.

    ``outputs`` has its outputs by name, as far as the engine has them, and of a step in a loop pairs of the index and
    the value of each item that completed; they are read when they are asked for. If the run was in this process, it
    has those that are also outputs of the pipeline.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, step: StepRun, outputs: Mapping[str, Any] = {}) -> Self:
        """Return the record of a step, with outputs."""
        return cls(**{field.name: getattr(step, field.name) for field in fields(StepRun)}, outputs=outputs)

    @property
    def success(self) -> bool:
        """True if the step completed."""
        return self.status.is_successful


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineResult:
    """The result of a finished run. ``exception`` is the error itself if it happened in this process.

    A notebook shows it as tables below the pipeline's ``graph``, an SVG that is only drawn in notebooks.
    """

    run_id: str
    pipeline: str
    status: ExecutionStatus
    outputs: Outputs
    step_results: Mapping[str, StepResult]
    duration_seconds: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    exception: BaseException | None = field(default=None, repr=False)
    graph: str | None = field(default=None, repr=False, compare=False)

    @property
    def success(self) -> bool:
        """True if every step completed."""
        return self.status.is_successful

    def __post_init__(self) -> None:
        if not self.success:
            self.outputs.failure = self._failure

    @property
    def _failure(self) -> Failure:
        return Failure(self.run_id, self.pipeline, self.status, self.error, self.exception)

    def __getitem__(self, output: str) -> Any:
        """Return the value of an output.

        Raises ``StepError`` if the run failed: ``step_results`` has the completed steps.
        """
        return self.outputs[output]

    def __contains__(self, output: object) -> bool:
        return output in self.outputs

    def _repr_html_(self) -> str:
        from flowyml.core.notebook import html_of

        return html_of(self)

    def raise_for_status(self) -> PipelineResult:
        """Return the result if it succeeded, else raise the step's error."""
        if not self.success:
            raise self._failure.error()
        return self
