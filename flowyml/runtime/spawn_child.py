"""The process of a step that was started without fork: it takes a request, runs it, answers, and ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowyml.core.files import write_whole
from flowyml.core.forks import cut_off
from flowyml.runtime.shutdown import End, StepStopped, stoppable
from flowyml.runtime.worker import Worker

__all__ = ["main"]


def main(folder: Path) -> int:
    """Run the request on standard input, then those that follow, if more are to come; return the exit code."""
    sys.argv[1:] = []  # they are not for the user's modules, which may parse arguments of their own
    first = _received()
    end = End()
    if "life" in first:
        _end_with_parent(first["life"])
    code = 0
    try:
        worker = Worker(folder, **first["run"], is_read=True)
        for request in _requests(first):
            with stoppable():
                answer = worker.answer(request)
            if "more" in first:
                from flowyml.runtime.shared import hush

                hush()
            write_whole(Path(request["answer"]), json.dumps(answer).encode())
    except StepStopped:
        code = -signal.SIGTERM
    return end.prepare(code)


def _received() -> dict[str, Any]:
    """Return the request on standard input, which is then empty for the step."""
    with open(0, "rb", closefd=False) as file:  # a descriptor
        request: dict[str, Any] = json.loads(file.read())
    cut_off(0)
    return request


def _requests(first: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "more" not in first:
        yield first
        return
    os.set_inheritable(first["more"], False)
    yield first
    from flowyml.runtime.shared import further  # which travels only where it is needed

    for _ in further(first["more"]):
        yield _received()


def _end_with_parent(number: int) -> None:
    """End when the process that started this one dies, which closes its end of a pipe."""

    def watch() -> None:
        os.read(number, 1)
        os.killpg(0, signal.SIGKILL)

    os.set_inheritable(number, False)
    threading.Thread(target=watch, daemon=True).start()
