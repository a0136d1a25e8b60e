"""Compare the runs of a DAG and of its pipeline for the same intervals: statuses and outputs.

The values of a DAG are its XComs, which are JSON; those of the pipeline are compared in the form that JSON has for
them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import partial
from typing import Any

from flowyml.core.durations import counted
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.markdown import escaped, table
from flowyml.core.plain_text import safe_line
from flowyml.core.runs import Run, StepRun
from flowyml.orchestrators.base import Orchestrator

_LONGEST = 200
_DEEPEST = 100
_MISSING = "—"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One run. ``steps`` are by label, such as ``load[3]``; ``outputs`` are None if the run did not succeed."""

    status: ExecutionStatus
    steps: Mapping[str, StepRun] = field(default_factory=dict)
    outputs: Mapping[str, Any] | None = None
    url: str | None = None


class Verdict(StrEnum):
    """The result of comparing an interval."""

    EQUAL = "equal"
    DIFFERS = "differs"
    NOTHING_TO_COMPARE = "nothing to compare"
    """Runs and steps ended in the same way, and no outputs could be compared."""
    WAITS = "waits"
    """One side has not run the interval to its end yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``what`` is ``run``, ``step`` or ``output``; ``old`` and ``new`` are texts for people."""

    what: str
    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One time of the schedule. A side is None if it has no run. ``why`` is the reason if nothing could be compared."""

    time: datetime
    verdict: Verdict
    old: Seen | None
    new: Seen | None
    differences: tuple[Difference, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All intervals, oldest first. ``apart`` names what was not compared, and why."""

    dag: str
    pipeline: str
    intervals: tuple[Interval, ...]
    apart: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """Return the number of intervals with a verdict."""
        return sum(each.verdict is verdict for each in self.intervals)

    @property
    def total(self) -> str:
        """A line about all intervals: ``3 intervals: 2 equal, 1 differs``."""
        words = {each: f"with {each}" if each is Verdict.NOTHING_TO_COMPARE else each for each in Verdict}
        counts = ", ".join(f"{self.count(each)} {word}" for each, word in words.items() if self.count(each))
        return f"{counted(len(self.intervals), 'interval')}{counts and ': '}{counts}"

    @property
    def is_same(self) -> bool:
        """True if an interval is equal and none differs, not counting those that wait or have nothing to compare."""
        return bool(self.count(Verdict.EQUAL)) and not self.count(Verdict.DIFFERS)


def look_at(engine: Orchestrator, run: Run) -> Seen:
    """Read a run with its steps, and its outputs if it succeeded."""
    if not run.status.is_terminal:
        return Seen(status=run.status, url=run.url)
    steps = {step.label: step for step in engine.step_runs(run.job_id)}
    outputs = engine.outputs(run.job_id) if run.status.is_successful else None
    return Seen(status=run.status, steps=steps, outputs=outputs, url=run.url)


def compared(dag: str, pipeline: str, old: Mapping[datetime, Seen], new: Mapping[datetime, Seen]) -> Comparison:
    """Compare the two sides, by the times of the schedule.

    Steps and outputs that only one side has in all its runs are named in ``apart``, and otherwise left out. A time that
    one side lacks waits for that side, unless it has run a later time.
    """
    both = [(old[time], new[time]) for time in sorted(old.keys() & new.keys())]
    steps, outputs = _Names.of_steps(both), _Names.of_outputs(both)
    unlike: dict[str, str] = {}
    intervals = []
    for time in sorted(old.keys() | new.keys()):
        left, right = old.get(time), new.get(time)
        if left is None or right is None:
            is_late = time < max((new if left else old), default=time)
            intervals.append(_of_one_side(time, left, right, is_late=is_late))
        elif not (left.status.is_terminal and right.status.is_terminal):
            intervals.append(Interval(time=time, verdict=Verdict.WAITS, old=left, new=right))
        else:
            differing, how_many = _outputs(left, right, outputs, unlike)
            found = (*_runs(left, right), *_steps(left, right, steps), *differing)
            verdict = Verdict.DIFFERS if found else Verdict.EQUAL if how_many else Verdict.NOTHING_TO_COMPARE
            why = _why_nothing(left, right) if verdict is Verdict.NOTHING_TO_COMPARE else ""
            intervals.append(Interval(time=time, verdict=verdict, old=left, new=right, differences=found, why=why))
    apart = (*steps.apart(), *outputs.apart(), *(f"output {_cut(name)}: {why}" for name, why in unlike.items()))
    return Comparison(dag=dag, pipeline=pipeline, intervals=tuple(intervals), apart=apart)


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of each side's steps, or of its outputs."""

    what: str
    old: set[str]
    new: set[str]

    @classmethod
    def of_steps(cls, both: Sequence[tuple[Seen, Seen]]) -> _Names:
        """Return the names of the steps of runs that have ended."""
        ended = [pair for pair in both if all(run.status.is_terminal for run in pair)]
        old, new = ({step.name for pair in ended for step in pair[side].steps.values()} for side in (0, 1))
        return cls("step", old, new)

    @classmethod
    def of_outputs(cls, both: Sequence[tuple[Seen, Seen]]) -> _Names:
        """Return the names of outputs of successful runs.

        An output that is None in the pipeline may be missing in the DAG: Airflow stores no such XCom.
        """
        values = [pair for pair in ((left.outputs, right.outputs) for left, right in both) if None not in pair]
        old = {name for left, _ in values for name in left or {}}
        new = {name for _, right in values for name, value in (right or {}).items() if name in old or value is not None}
        return cls("output", old, new)

    def apart(self) -> list[str]:
        sides = ((self.old - self.new, "the DAG"), (self.new - self.old, "the pipeline"))
        return [f"{self.what} {_cut(name)}: {side} alone has it" for names, side in sides for name in sorted(names)]


def _of_one_side(time: datetime, old: Seen | None, new: Seen | None, *, is_late: bool) -> Interval:
    if not is_late:
        return Interval(time=time, verdict=Verdict.WAITS, old=old, new=new)
    missing = Difference(what="run", name="", old=_status(old), new=_status(new))
    return Interval(time=time, verdict=Verdict.DIFFERS, old=old, new=new, differences=(missing,))


def _status(run: Seen | None) -> str:
    return run.status.name if run else "no run"


def _runs(old: Seen, new: Seen) -> Iterable[Difference]:
    if old.status is not new.status:
        yield Difference(what="run", name="", old=_status(old), new=_status(new))


def _steps(old: Seen, new: Seen, names: _Names) -> Iterable[Difference]:
    for label in dict.fromkeys((*old.steps, *new.steps)):
        left, right = old.steps.get(label), new.steps.get(label)
        name = (left or right or _NEVER).name
        if name in names.old & names.new and _ended(left) != _ended(right):
            yield Difference(what="step", name=_cut(label), old=_ended(left), new=_ended(right))


_NEVER = StepRun(name="", status=ExecutionStatus.QUEUED, raw_status="")


def _ended(step: StepRun | None) -> str:
    """Return the end of a step, in words that all engines share."""
    if step is None:
        return _MISSING
    return "skipped" if step.raw_status in ("skipped", "no_items") else step.status.name


def _outputs(old: Seen, new: Seen, names: _Names, unlike: dict[str, str]) -> tuple[Sequence[Difference], int]:
    """Compare outputs; return the differences, and the number of outputs that were compared."""
    found: list[Difference] = []
    how_many = 0
    if old.outputs is None or new.outputs is None:
        return found, how_many
    for name in sorted(names.old & names.new):
        try:
            left, right = _plain(old.outputs.get(name)), _plain(new.outputs.get(name))
        except _UnlikeJson as error:
            unlike[name] = str(error)
            continue
        how_many += name in old.outputs or name in new.outputs
        if not _same(left, right):
            found.append(Difference(what="output", name=_cut(name), old=_shown(left), new=_shown(right)))
    return found, how_many


def _why_nothing(old: Seen, new: Seen) -> str:
    """Say why no output of two runs that ended alike was compared."""
    if old.outputs is None or new.outputs is None:
        return f"a run that is {old.status.name} has no outputs"
    return "no output of the two has the same name, and a value that JSON has a form for"


class _UnlikeJson(Exception):
    """A value that JSON has no form for, or no form that can be compared."""


def _plain(value: Any, depth: int = 0) -> Any:
    """Return the value in JSON's form. Raises ``_UnlikeJson``."""
    if depth > _DEEPEST:
        raise _UnlikeJson(f"it has more than {_DEEPEST} levels")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if "__classname__" in value:  # how Airflow writes an object; source: airflow.serialization.serde
            kind = value["__classname__"]
            raise _UnlikeJson(f"a {_cut(kind if isinstance(kind, str) else type(kind).__name__)} has no form in JSON")
        if not all(isinstance(key, str) for key in value):
            raise _UnlikeJson("JSON has no form for a key that is not text")
        return {key: _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, date):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name), depth + 1) for each in dataclasses.fields(value)}
    raise _UnlikeJson(f"a {_cut(type(value).__name__)} has no form in JSON")


def _same(old: Any, new: Any) -> bool:
    """Return whether values are equal; NaN equals itself, and no number equals a truth value."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old):
        return math.isnan(new)
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


def _shown(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


# The report.


def rows(found: Comparison) -> list[tuple[str, str, str, str]]:
    """Return the row of each interval: its time, the verdict, and the end of each side.

    Control characters are escaped.
    """
    return [
        (
            each.time.astimezone(UTC).isoformat(timespec="seconds"),
            str(each.verdict),
            _status(each.old),
            _status(each.new),
        )
        for each in found.intervals
    ]


def lines(found: Comparison) -> list[str]:
    """Return the lines of each difference, then of intervals without comparison, and of what was not compared."""
    said = [
        f"{each.time.astimezone(UTC).isoformat(timespec='seconds')}: {one.what}{one.name and ' '}{one.name}: "
        f"{one.old} in the DAG, {one.new} in the pipeline"
        for each in found.intervals
        for one in each.differences
    ]
    said += [
        f"{each.time.astimezone(UTC).isoformat(timespec='seconds')}: {each.verdict}: {each.why}"
        for each in found.intervals
        if each.why
    ]
    return [safe_line(line) for line in (*said, *(f"not compared: {each}" for each in found.apart))]


HEADERS = ("FOR", "VERDICT", "DAG", "PIPELINE")


def markdown(found: Comparison) -> str:
    """Return the report as Markdown."""
    shown = partial(escaped, in_file=True)
    title = f"# {shown(found.dag)} beside {shown(found.pipeline)}"
    intervals = table(HEADERS, (map(shown, row) for row in rows(found)))
    listed = [f"- {shown(line)}" for line in lines(found)]
    return "\n".join([title, "", f"{found.total}.", "", intervals, *([""] if listed else []), *listed]) + "\n"


def document(found: Comparison) -> dict[str, object]:
    """Return the report as JSON."""
    return {
        "dag_id": found.dag, "pipeline": found.pipeline,
        "totals": {verdict.name.lower(): found.count(verdict) for verdict in Verdict},
        "not_compared": list(found.apart),
        "intervals": [
            {
                "time": each.time.astimezone(UTC).isoformat(), "verdict": each.verdict.name.lower(),
                "reason": each.why or None,
                "dag": _side(each.old), "pipeline": _side(each.new),
                "differences": [
                    {"what": one.what, "name": one.name, "dag": one.old, "pipeline": one.new}
                    for one in each.differences
                ],
            }
            for each in found.intervals
        ],
    }  # fmt: skip


def _side(run: Seen | None) -> dict[str, object] | None:
    return None if run is None else {"status": run.status.name, "url": run.url}
