"""Record what steps print and log, while it still reaches the terminal.

Standard output and standard error are replaced by a tee for as long as a run is active in this process. A context
variable assigns lines to steps, which separates steps in different threads. Logging is recorded where its records are
created, so the handlers stay as the user set them up.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar

__all__ = ["Sink", "attributed", "beneath", "capturing", "leading_through", "pass_on"]

_current: ContextVar[Sink | None] = ContextVar("flowyml_sink", default=None)
_lock = threading.Lock()
_LONGEST_BEGUN = 1000


class Sink:
    """Takes the text of one step and passes its lines to ``write(level, line)``.

    ``print`` writes a line and its end separately, so each thread has its own line.
    """

    __slots__ = ("_begun", "_write")

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._begun: dict[tuple[str, int], list[str]] = {}

    def feed(self, stream: str, text: str) -> None:
        """Take printed text; a line counts when it ends."""
        begun = self._begun.setdefault((stream, threading.get_ident()), [])
        if "\n" in text:
            first, *lines, text = text.split("\n")
            for line in ("".join((*begun, first)), *lines):
                self._write("INFO", _on_terminal(line))
            begun.clear()
        elif text.startswith("\r"):  # a progress bar begins again
            begun.clear()
        if text:
            begun.append(text)

    def line(self, level: str, message: str) -> None:
        """Take one log record, line by line."""
        for line in message.splitlines():
            self._write(level, line)

    def close(self) -> None:
        """Write the last line, which may have no line end."""
        for rest in self._begun.values():
            if rest:
                self._write("INFO", _on_terminal("".join(rest)))
        self._begun.clear()


@contextmanager
def attributed(sink: Sink) -> Iterator[None]:
    """Pass what this thread prints and logs to ``sink``."""
    token = _current.set(sink)
    try:
        yield
    finally:
        _current.reset(token)
        sink.close()


class Tee:
    """Stands in for a text stream: passes everything on, and records it. ``begun`` is an unfinished line."""

    def __init__(self, stream: Any, name: str, *, silent: bool = False) -> None:
        self._stream = stream
        self._name = name
        self._silent = silent
        self.begun = ""

    def write(self, text: str) -> int:
        """Write, and record the text for the step that writes. Records of ``logging`` have been recorded already."""
        written = self.show(text)
        sink = _current.get() or _Installed.fallback
        if sink is not None and sys._getframe(1).f_globals.get("__name__") != "logging":
            sink.feed(self._name, text)
        return written

    def show(self, text: str) -> int:
        """Pass text on without recording it. A step does not fail because its output has no reader, or is closed."""
        if not self._silent and _is_open(self._stream):
            _, end, rest = text.rpartition("\n")
            self.begun = (rest if end else self.begun + rest)[-_LONGEST_BEGUN:]
            with suppress(OSError):
                self._stream.write(text)
        return len(text)

    def isatty(self) -> bool:
        """Return the stream's answer; a missing or closed stream is not a terminal."""
        return _is_open(self._stream) and bool(self._stream.isatty())

    def writelines(self, lines: Any) -> None:
        """Write lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream, if it has a reader."""
        if _is_open(self._stream):
            with suppress(OSError):
                self._stream.flush()

    def close(self) -> None:
        """Flush only: other steps print as well, and so does the caller."""
        self.flush()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Installed:
    """The stand-ins of this process. They are shared by all runs that are active at a time.

    ``tees`` are never freed: another thread may be in ``print``, which in older CPythons has no reference of its own
    to the stream that it writes to, and crashes. Source: python/cpython issue 130163.
    """

    users = 0
    fallback: Sink | None = None
    tees: ClassVar[dict[str, Tee]] = {}
    streams: ClassVar[dict[str, tuple[Any, Tee]]] = {}
    factory: tuple[Any, Any] | None = None


@contextmanager
def capturing(alone: Sink | None = None) -> Iterator[None]:
    """Install the stand-ins. The last run to end restores exactly the previous streams.

    In a process that does nothing else, ``alone`` takes the lines that belong to no step, and nothing is passed on.
    """
    with _lock:
        if _Installed.users == 0:
            _install(alone)
        _Installed.users += 1
    try:
        yield
    finally:
        with _lock:
            _Installed.users -= 1
            if _Installed.users == 0:
                _uninstall()


def beneath(name: str) -> Any:
    """Return the stream behind a stand-in."""
    return _Installed.tees[name]._stream


@contextmanager
def leading_through(lead: Callable[[Any, str], Any]) -> Iterator[None]:
    """Route output to a terminal through ``lead(stream, begun)``; ``begun`` is an unfinished line."""
    before = dict(_Installed.streams)
    for stream, tee in before.values():
        if stream is not None and stream.isatty():
            tee._stream = lead(stream, tee.begun)
    try:
        yield
    finally:
        for stream, tee in before.values():
            tee._stream = stream


def pass_on(name: str, line: str) -> None:
    """Show a line of a child process on the terminal; it is recorded elsewhere."""
    tee = _Installed.streams[name][1]
    with suppress(OSError, ValueError):  # closed, or a pipe without a reader
        tee.show(f"{line}\n")
        tee.flush()


def _be_forked() -> None:
    """Reset the lock in a fork, since another thread may have held it. The parent records the fork's output."""
    global _lock
    _lock = threading.Lock()
    for _, tee in _Installed.streams.values():
        tee._silent = False


os.register_at_fork(after_in_child=_be_forked)


def _install(alone: Sink | None) -> None:
    _Installed.fallback = alone
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        tee = _Installed.tees.setdefault(name, Tee(stream, name))
        if stream is not tee:  # other code may have put it back after the last run
            tee._stream, tee.begun = stream, ""
        tee._silent = alone is not None
        _Installed.streams[name] = (stream, tee)
        setattr(sys, name, tee)
    factory = logging.getLogRecordFactory()
    _Installed.factory = (factory, _noting(factory))
    logging.setLogRecordFactory(_Installed.factory[1])


def _uninstall() -> None:
    """Restore the streams. A stream that other code put in place of a stand-in stays, unless it is closed."""
    for name, (stream, tee) in _Installed.streams.items():
        found = getattr(sys, name)
        if found is tee or not _is_open(found):
            setattr(sys, name, stream)
    _Installed.streams.clear()
    _Installed.fallback = None
    if _Installed.factory and logging.getLogRecordFactory() is _Installed.factory[1]:
        logging.setLogRecordFactory(_Installed.factory[0])
    _Installed.factory = None


def _is_open(stream: Any) -> bool:
    return stream is not None and not getattr(stream, "closed", False)


def _noting(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_and_note(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        sink = _current.get() or _Installed.fallback
        if sink is not None and record.name:
            sink.line(record.levelname, _text(record))
        return record

    return make_and_note


def _text(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # wrong arguments: logging itself tells the user
        message = str(record.msg)
    if record.exc_info:
        message += "\n" + logging.Formatter().formatException(record.exc_info)
    return message


def _on_terminal(line: str) -> str:
    """Return the line that a terminal would show: a progress bar keeps returning to its start."""
    line = line.rstrip("\r")
    return line[line.rfind("\r") + 1 :]
