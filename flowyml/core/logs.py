"""The logs of steps: shown without any set-up, with the level of each record, across processes.

A process whose output another one reads writes each record as lines that begin with the record's level, between two
separators that no terminal shows; ``flowyml.runtime.lines`` removes them on the other side.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

__all__ = [
    "StderrHandler", "forget_handlers", "get_logger", "level_of", "levels_here", "log_to_reader", "make_records",
    "parts", "with_level",
]  # fmt: skip

_NAME = "flowyml.steps"
_MARK = "\x1e"  # the record separator of ASCII
_LEVELS = {50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO", 10: "DEBUG"}
# They write a line at INFO for each request, or for each login, also for FlowyML's own stores.
_BY_CLIENTS = ("httpx", "httpcore", "botocore.credentials", "aiobotocore.credentials")


def get_logger() -> logging.Logger:
    """Return the logger for steps: its records from INFO up are in the run's log, with their level, on every engine.

    That needs no set-up. If logging is set up, its handlers get the records as well.
    """
    logger = logging.getLogger(_NAME)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Shown) for handler in logger.handlers):
        logger.addHandler(_Shown())
    return logger


def levels_here() -> dict[str, int]:
    """Return the levels that the user has set in this process, by logger; that of the root logger has an empty name."""
    root = logging.getLogger()
    levels = {item.name: item.level for item in _loggers() if item.level and _is_users(item.name, item.level)}
    is_set_up = bool(root.handlers) or root.level != logging.WARNING
    return {**levels, "": root.level} if is_set_up else levels


def _is_users(logger: str, level: int) -> bool:
    return level != logging.INFO if logger == _NAME else logger.partition(".")[0] != "flowyml"


def make_records(levels: Mapping[str, int] = {}) -> None:
    """Enable records from INFO up, or as in ``levels``, unless user code has set levels in this process."""
    root = logging.getLogger()
    for name, level in {**dict.fromkeys(_BY_CLIENTS, logging.WARNING), **levels}.items():
        if name and logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(level)
    if not root.handlers:
        root.setLevel(levels.get("", logging.INFO))


def log_to_reader(levels: Mapping[str, int] = {}, *, marked: bool) -> None:
    """Enable records likewise, and print them to standard error: marked for a reading process, or plain for people.

    If user code has set up logging, its own handlers print them, in its own format.
    """
    make_records(levels)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_Marked() if marked else _Plain())
    elif marked:
        for handler in (handler for logger in (root, *_loggers()) for handler in logger.handlers):
            if _prints(handler) and not isinstance(handler.formatter, _MarkedFormat):
                handler.setFormatter(_MarkedFormat(handler.formatter or logging.Formatter()))


def forget_handlers() -> None:
    """Remove all handlers of this process, without closing them; loggers propagate to the root; warnings are logged."""
    for logger in (logging.getLogger(), *_loggers()):
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)


def parts(line: str) -> list[tuple[str | None, str]]:
    """Split a line of a process into printed parts, with None, and logged ones, with their level.

    A line has one part, unless a record came before a printed line had ended.

    >>> parts("\\x1eWARNING\\x1eit rains"), parts("it rains")
    ([('WARNING', 'it rains')], [(None, 'it rains')])
    >>> parts("50 % \\x1eINFO\\x1ehalf done")
    [(None, '50 % '), ('INFO', 'half done')]
    """
    printed, mark, rest = line.partition(_MARK)
    level, end, message = rest.partition(_MARK)
    if not (mark and end and level in logging.getLevelNamesMapping()):
        return [(None, line)]
    return [(None, printed), (level, message)] if printed else [(level, message)]


def with_level(source: str, line: str) -> str:
    """Return a line for people: a record after its level, a printed line unchanged."""
    return line if source in ("stdout", "stderr") else f"{source}: {line}"


def level_of(source: str) -> int:
    """Return the level of a line from ``source``: a level by its name, or INFO for a stream."""
    return logging.getLevelNamesMapping().get(source, logging.INFO)


def _loggers() -> list[logging.Logger]:
    return [item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)]


def _prints(handler: logging.Handler) -> bool:
    if not isinstance(handler, logging.StreamHandler) or isinstance(handler, StderrHandler):
        return False
    return handler.stream in (sys.stdout, sys.stderr)


def _marked(text: str, level: int) -> str:
    """Mark a record with its level's number: users can change level names, which the reading process does not know."""
    name = next((name for number, name in _LEVELS.items() if level >= number), "DEBUG")
    return "\n".join(f"{_MARK}{name}{_MARK}{line}" for line in text.splitlines() or [""])


class _MarkedFormat(logging.Formatter):
    """A format of the user's, with marks for a reading process."""

    def __init__(self, users: logging.Formatter) -> None:
        super().__init__()
        self._users = users

    def format(self, record: logging.LogRecord) -> str:
        return _marked(self._users.format(record), record.levelno)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current standard error, like logging's own handler of last resort."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        logging.Handler.__init__(self, level)

    @property
    def stream(self) -> Any:  # type: ignore[override]  # logging sets it, here it is always the newest
        return sys.stderr


class _Plain(StderrHandler):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))


class _Shown(_Plain):
    """For steps in a process of the user's in which logging is not set up."""

    def filter(self, record: logging.LogRecord) -> Any:
        return sys.stderr is not None and not logging.getLogger().handlers and super().filter(record)


class _Marked(StderrHandler):
    """Lines for a reading process, in the stream of printed lines: between two streams, a reader has no order.

    It is the stream of the process, even if a step has replaced ``sys.stdout``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stdout = sys.stdout

    @property
    def stream(self) -> Any:  # type: ignore[override]  # logging sets it
        return sys.stderr if self._stdout is None or self._stdout.closed else self._stdout

    def format(self, record: logging.LogRecord) -> str:
        return _marked(super().format(record), record.levelno)
