"""A forked child: detach from the parent, run one step or hook, answer, and end."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from flowyml.core.forks import cut_off, flush_output, reopen_output
from flowyml.runtime.seeds import Seeds
from flowyml.runtime.shutdown import End, StepStopped, stoppable
from flowyml.runtime.worker import Worker

__all__ = ["run_child", "adopt_orphans", "write_all"]

_PRIVATE = 100  # descriptors from here on are out of the way of those that user code opens and closes
_OUR_FAULT = 70  # EX_SOFTWARE of sysexits.h
_libc = ctypes.CDLL(None)


def run_child(
    worker: Worker,
    request: Mapping[str, Any],
    streams: Sequence[int],
    *,
    parent: int,
    seeds: Seeds,
    early_output: bytes,
    own_input: bool,
) -> NoReturn:
    """Run a request, and never return.

    ``streams`` are stdout, stderr, the pipe for answers and, for a process that is to ``hold`` after a request, the
    pipe for further requests; ``early_output`` is printed first. Without ``own_input`` the process shares the standard
    input of its parent.
    """
    try:
        end = End()
        answer, *more = _detach(streams, parent, early_output, own_input)
        code = 0
        try:
            for step_request in _requests(request, more[0]) if more else (request,):
                reopen_output()
                seeds.reseed()
                with stoppable():
                    result = worker.answer(step_request)
                flush_output()
                write_all(answer, json.dumps(result).encode() + (b"\n" if step_request.get("hold") else b""))
        except StepStopped:
            code = -signal.SIGTERM
        end.leave(code)
    except BaseException:
        with suppress(Exception):  # standard error may be closed
            traceback.print_exc()
    finally:
        flush_output()
        os._exit(_OUR_FAULT)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (source: prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before
        os._exit(_OUR_FAULT)


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants (source: prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(36, 1, 0, 0, 0)


def write_all(number: int, data: bytes) -> None:
    """Write to a descriptor until nothing is left."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def _requests(first: Mapping[str, Any], more: int) -> Iterator[Mapping[str, Any]]:
    """Yield the first request and, while it is to hold, the following ones, until the other side closes the pipe."""
    request: Mapping[str, Any] = first
    with os.fdopen(more, "rb") as file:
        while True:
            yield request
            if not request.get("hold") or not (line := file.readline()):
                return
            request = json.loads(line)


def _detach(streams: Sequence[int], parent: int, early_output: bytes, own_input: bool) -> list[int]:
    """Become a process group, with streams of its own; return the descriptors for answers and for requests."""
    os.setsid()
    _die_with_parent(parent)
    stdout, stderr, *rest = streams
    private = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _PRIVATE) for number in rest]
    if own_input:
        cut_off(0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for number in streams:
        os.close(number)
    write_all(1, early_output)
    return private
