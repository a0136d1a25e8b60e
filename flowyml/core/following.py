"""The common part of waiting for a run on an engine and running it here: showing its log, and Ctrl-C."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from flowyml.core.errors import FlowymlError
from flowyml.core.plain_text import safe_text
from flowyml.core.runs import LogLine
from flowyml.core.urls import without_credentials

if TYPE_CHECKING:
    from flowyml.core.submission_result import RunOperations, SubmissionResult

__all__ = ["cancel_on_interrupt", "command_for", "command_line", "command_on", "printing_logs", "say"]

logger = logging.getLogger("flowyml.runs")

_LAST_LINES_SECONDS = 15
"""The time to wait for the last lines when the run has ended: engines deliver logs in batches."""


def say(text: str) -> None:
    """Print a line on the terminal."""
    if sys.stderr is not None:
        print(safe_text(text), file=sys.stderr, flush=True)


def command_for(command: str, submission: SubmissionResult) -> str:
    """Return a command line for this run: ``flowyml watch 1f3a9c2e --on prefect``."""
    return command_on(submission.orchestrator, command, submission.job_id)


def command_on(orchestrator: RunOperations, command: str, *words: str) -> str:
    """Return a command line for this orchestrator's target, such as a configured one or a URL."""
    return command_line(command, *words, on=orchestrator.target or orchestrator.name)


def command_line(command: str, *words: str, on: str | None = None) -> str:
    """Return a command line for the target ``on``, without credentials of a URL; None is the default target.

    >>> command_line("schedule resume", "my dag", on="prod")
    "flowyml schedule resume 'my dag' --on prod"
    """
    is_default = on is None or on == "local" == (os.environ.get("FLOWYML_ORCHESTRATOR") or "local")
    where = () if is_default else ("--on", quote(without_credentials(str(on))))
    return " ".join(["flowyml", command, *map(quote, words), *where])


@contextmanager
def cancel_on_interrupt(submission: SubmissionResult, write: Callable[[str], None] = say) -> Iterator[None]:
    """Cancel the run on Ctrl-C, as for a run in this process, print its ids, and raise the interrupt again.

    A second Ctrl-C does not wait for the engine's answer.
    """
    try:
        yield
    except KeyboardInterrupt:
        run = f"run {submission.run_id} on {submission.orchestrator.name}, job {submission.job_id}"
        write(f"\nInterrupted: cancelling {run} …")
        watch, cancel = command_for("watch", submission), command_for("cancel", submission)
        try:
            stopped = submission.cancel()
        except (FlowymlError, KeyboardInterrupt) as error:
            why = str(error) or "interrupted again"
            write(f"It may still be running: {why}\nTo cancel it: {cancel}\nTo see how it ends: {watch}")
        else:
            write(f"To see how it ends: {watch}" if stopped else f"It has already ended: {watch}")
        raise


@contextmanager
def printing_logs(
    submission: SubmissionResult, printer: Callable[[LogLine], None], write: Callable[[str], None] = say
) -> Iterator[None]:  # fmt: skip
    """Pass each line of the run to ``printer``, in a thread, while the block waits for the run.

    If the engine does not answer, the lines end early; the call that waits for the run raises the error. If the run
    ends long before its lines arrive, the rest of them is dropped, and ``write`` gets a line that says so.
    """
    stop = threading.Event()

    def follow() -> None:
        try:
            for line in submission.logs(follow=True):
                if stop.is_set():
                    return
                printer(line)
        except (FlowymlError, OSError, ValueError) as error:  # OSError, ValueError: standard output is closed
            logger.debug("Stopped reading the log of run %r: %s", submission.run_id, error)

    thread = threading.Thread(target=follow, name="flowyml-logs", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        raise
    thread.join(_LAST_LINES_SECONDS)
    stop.set()
    if thread.is_alive():
        write(f"The log is not complete yet. To see all of it: {command_for('logs', submission)}")
