"""Log lines with time, level and step in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from flowyml.cli.output import LogText, Word
from flowyml.core.plain_text import safe_line
from flowyml.core.runs import LogLine
from flowyml.graph.text import cut, width

__all__ = ["LogPrinter"]

_TIME = len("12:00:00")
_LEVEL = len("WARNING")
_LONGEST_STEP = 24
_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


class LogPrinter:
    """Passes the parts of each line to ``line``.

    Columns are as wide as the ``labels`` of the steps that may come, and as their content so far. ``head`` gets the day
    and time zone of the lines, before the first line and at each change.

    With ``brief``, for a run that is watched live, there are no times and levels, and no lines that belong to no step.
    """

    def __init__(
        self,
        line: Callable[..., None],
        *,
        brief: bool = False,
        labels: Iterable[str] = (),
        head: Callable[..., None] | None = None,
    ) -> None:
        self._line = line
        self._head = head
        self._day = ""
        self._brief = brief
        self._step = max((width(cut(safe_line(label), _LONGEST_STEP)) for label in labels), default=0)
        self._timed = False

    def __call__(self, line: LogLine) -> None:
        """Print a line; further lines of a message are aligned below its first."""
        if self._brief and not line.step:
            return
        self._timed = self._timed or line.time is not None
        step = cut(safe_line(line.label), _LONGEST_STEP)
        self._step = max(self._step, width(step))
        time = self._time(line.time)
        level = cut(safe_line(line.level), _LEVEL)
        for number, text in enumerate(line.message.rstrip("\n").split("\n")):
            columns = (time, level, step) if number == 0 else ("", "", step)
            self._line(*self._columns(*columns), LogText(text))

    def _time(self, moment: datetime | None) -> str:
        if moment is None:
            return ""
        here = moment.astimezone()
        if self._head and (day := f"{here:%Y-%m-%d}, in {here:%Z}") != self._day:
            self._day = day
            self._head(Word(f"times of {day}", "dim"))
        return f"{here:%H:%M:%S}"

    def _columns(self, time: str, level: str, step: str) -> tuple[str | Word, ...]:
        whose = (Word(step + " " * (self._step - width(step)), "cyan"), " │ " if self._step else "")
        if self._brief:
            return whose
        when = Word(f"{time:<{_TIME}} " if self._timed else "", "dim")
        return (when, Word(f"{level:<{_LEVEL}} ", _STYLES.get(level, "dim")), *whose)
