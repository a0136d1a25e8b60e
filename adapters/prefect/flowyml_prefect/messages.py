"""Read facts from the text of states and log lines on Prefect that nothing else on the server shows.

At its end a flow may write nothing to its run but the message of the state: labels take a request of their own, which a
busy server refuses at first. ``test_messages`` compares Prefect's own words with the installed Prefect.
"""

from __future__ import annotations

import re

__all__ = [
    "OF_PREFECT",
    "cached_from",
    "error_text",
    "is_last_line",
    "is_machinery",
    "task_runs",
]

# The words of compiled flows: `worker` and `walker` write them.
_TASK_RUNS = re.compile(r"Task runs: (\d+)")
_CACHED_FROM = "cached from "  # a run

# The beginning of the last line of a flow. Prefect sends lines in batches, and does not say how many there are.
_LAST_LINE = "Finished in state "
# The beginnings of Prefect's own tracebacks of a step's failure, which have the logger and the level of a step's lines.
_TASK_FAILED, _FLOW_FAILED = "Task run failed with exception: ", "Engine execution exited with "
# The texts before the error in the message of a state, which has no field for the error itself.
_BEFORE_ERRORS = (
    "Task run encountered an exception",
    "Flow run encountered an exception:",
    "Task run failed due to timeout:",
)
OF_PREFECT = (_LAST_LINE, _TASK_FAILED, _FLOW_FAILED, *_BEFORE_ERRORS)
"""The words that Prefect writes."""

_WRAPPED = re.compile(rf"^({'|'.join(map(re.escape, _BEFORE_ERRORS))})\s+(Step\w+Error: |OutputError: )?")
_REPR = re.compile(r"""^\w+Error\((['"])(?P<message>.*)\1\)$""", re.DOTALL)


def task_runs(message: str) -> int | None:
    """Return the number of task runs of a flow that has completed, from the message of its state.

    None if the flow did not write that message: a person has set the state.
    """
    counted = _TASK_RUNS.fullmatch(message)
    return int(counted[1]) if counted else None


def cached_from(message: str) -> str:
    """Return the run whose outputs a step reused, from the message of a state named *Cached*.

    "" for Prefect's own cache.
    """
    return message.removeprefix(_CACHED_FROM) if message.startswith(_CACHED_FROM) else ""


def error_text(message: str, name: str) -> str:
    """Return the error itself, without the texts that Prefect adds."""
    plain = _WRAPPED.sub("", message)
    match = _REPR.match(plain)
    return (match["message"] if match else plain) or name


def is_last_line(message: str) -> bool:
    """Return whether a line of a flow is its last one."""
    return message.startswith(_LAST_LINE)


def is_machinery(message: str) -> bool:
    """Return whether a line is Prefect's own traceback of a step's failure, without any of the step's code.

    A step that failed has logged its own traceback; a failure outside of its code, such as a missing secret, needs
    none.
    """
    if message.startswith(_TASK_FAILED):
        return "flowyml.core.errors." in message
    return message.startswith(_FLOW_FAILED) and "prefect.exceptions.FailedRun: step " in message
