"""The line of a task to Airflow's supervisor, private to Airflow 3: ``task_runner.SUPERVISOR_COMMS``.

A test compares this with the installed Airflow.
"""

from __future__ import annotations

import logging
import select
import sys
from typing import Any

from flowyml.core.errors import OutputError, StepError, StepFailedError

__all__ = ["drop_answers_after", "drop_unread_answers"]

logger = logging.getLogger("airflow.task")
_ANSWER = 1.0  # seconds in which the supervisor answers; it asks the API server, which may be busy


def drop_unread_answers() -> None:
    """Drop answers of Airflow's supervisor to a step that was killed: the next question must not get its answer.

    Airflow 3 has one line to the supervisor, and takes the next answer on it for the answer to its next question.
    Airflow 2 has no such line, and that of `dag.test()` has no socket.
    """
    execution = "airflow.sdk.execution_time"
    line: Any = getattr(sys.modules.get(f"{execution}.task_runner"), "SUPERVISOR_COMMS", None)
    in_process = getattr(sys.modules.get(f"{execution}.supervisor"), "InProcessSupervisorComms", ())
    if line is None or isinstance(line, in_process):
        return
    try:
        while select.select([line.socket], [], [], _ANSWER)[0]:
            line._read_frame()
    except (OSError, EOFError, ValueError):
        return  # the line is closed
    except (AttributeError, TypeError):
        logger.warning(
            "FlowyML does not know how tasks of this Airflow talk to their supervisor: the task's next request may get "
            "an answer that was meant for the step. Upgrade FlowyML.",
            exc_info=True,
        )


def drop_answers_after(error: StepError) -> None:
    """Drop unread answers after a step was killed. A step that returned, or raised, has read its answers."""
    if not isinstance(error, StepFailedError | OutputError):
        drop_unread_answers()
