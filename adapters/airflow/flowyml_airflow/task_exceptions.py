"""Map the end of a task to Airflow's exceptions. This file travels in the bundle; it needs Airflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from flowyml.core.errors import StepCancelledError, StepError, StepFailedError, StepTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import labelled
from flowyml.plan.model import Step
from flowyml_airflow.graph import Task
from flowyml_airflow.names import ERROR_KEY, TIMED_OUT, UPSTREAM_FAILED
from flowyml_airflow.secrets import masked

__all__ = [
    "airflow_exceptions", "as_airflow", "interrupted", "interruptions", "is_final", "never_retried", "no_output",
    "not_run", "recorded", "upstream_failed",
]  # fmt: skip

_T = TypeVar("_T")

logger = logging.getLogger("airflow.task")
_NO_ERRORS = frozenset({"AirflowSkipException", "DagRunTriggerException"})  # with the latter, Airflow 3 runs a DAG
_NAMED = 5  # items that an error names
_LONGEST = 1 << 16  # characters of an error in an XCom


def as_airflow(step: Step, error: StepError) -> Exception:
    """Convert the error of a step to the exception that its task raises."""
    known = airflow_exceptions()
    for name in ("AirflowSkipException", "AirflowFailException"):
        if name in getattr(error, "names", ()):
            same: Exception = getattr(known, name)(str(error))
            return same
    final = is_final(step, error) and not isinstance(error, StepCancelledError)
    kind = known.AirflowFailException if final else known.AirflowException
    if isinstance(error, StepTimeoutError):
        kind = type(TIMED_OUT, (kind,), {"__module__": __name__})
    exception: Exception = kind(str(error))
    return exception


def is_final(step: Step, error: StepError) -> bool:
    """Return True for an error that the step's policy does not retry."""
    return step.retry is not None and not step.retry.retries_on(error)


def airflow_exceptions() -> ModuleType:
    """Return Airflow's module of exceptions."""
    try:
        return import_module("airflow.sdk.exceptions")
    except ImportError:  # Airflow 2
        return import_module("airflow.exceptions")


def interruptions() -> tuple[type[BaseException], ...]:
    """Return the exceptions that Airflow raises in a task that takes too long, or that Airflow 2 was asked to stop."""
    names = ("AirflowTaskTimeout", "AirflowTaskTerminated")
    return tuple(getattr(airflow_exceptions(), name) for name in names if hasattr(airflow_exceptions(), name))


def interrupted(step: Step, error: BaseException) -> StepError:
    """Convert such an exception to FlowyML's."""
    if type(error).__name__ == "AirflowTaskTimeout":
        ended: StepError = StepTimeoutError(f"step {step.name!r} ran longer than its timeout and was stopped.")
    else:
        ended = StepCancelledError(f"step {step.name!r} was stopped by Airflow.")
    ended.step = step.name
    return ended


def upstream_failed(task: Task) -> Exception:
    """Return the exception for a task that Airflow started although a step that it waits for failed."""
    kind = type(UPSTREAM_FAILED, (airflow_exceptions().AirflowFailException,), {"__module__": __name__})
    exception: Exception = kind(f"{task.name} did not run: a step that it waits for failed.")
    return exception


def no_output(step: str, indexes: Sequence[int] = (-1,)) -> StepError:
    """Return the error of a task without its input: a step left no output, or none for these items (-1: not mapped).

    Airflow returns None for an XCom that does not exist, as of a task that a person marked as success. Another try
    would not find one either, so it counts as Airflow's ``AirflowFailException``.
    """
    named = [repr(labelled(step, (index,) if index >= 0 else ())) for index in indexes[:_NAMED]]
    more = f" and {len(indexes) - _NAMED} more" if len(indexes) > _NAMED else ""
    them = "them" if len(indexes) > 1 else "it"
    error = StepFailedError(
        f"Airflow has no output of {', '.join(named)}{more}. A task that was marked as success by hand leaves none, "
        f"nor does one that did not complete. Clear {them}, and Airflow runs {them} again, and then this."
    )
    error.names = ("AirflowFailException",)
    return error


@contextmanager
def never_retried() -> Iterator[None]:
    """Raise a ``StepError`` of the block as ``AirflowFailException``, so that Airflow does not retry the task."""
    try:
        yield
    except StepError as error:
        raise airflow_exceptions().AirflowFailException(str(error)) from None


def recorded(run: Callable[..., _T]) -> Callable[..., _T]:
    """Push the error of a task as an XCom, from which it is read even if the log of the task is gone, and raise it.

    A DAG file passes the function that returns the folder of the code, so that its errors are pushed, too.
    """

    @wraps(run)
    def call(operator: Any, context: Mapping[str, Any], bundle: Callable[[], Path], *args: Any) -> _T:
        try:
            return run(operator, context, bundle(), *args)
        except BaseException as error:
            name = type(error).__name__  # Airflow 3 and 2 have these in other modules; its timeout is not an Exception
            if name == "AirflowTaskTimeout" or (isinstance(error, Exception) and name not in _NO_ERRORS):
                try:
                    said = {"class": name, "said": masked(str(error))[:_LONGEST], "try": context["ti"].try_number}
                    context["ti"].xcom_push(key=ERROR_KEY, value=said)
                except Exception as refused:
                    logger.warning("Airflow refused the XCom of the error below, so only this log has it: %r", refused)
            raise

    return call


def not_run(what: str, status: ExecutionStatus) -> str:
    """Say that a step did not run since something that it waits for failed.

    >>> not_run("step 'train[2]'", ExecutionStatus.TIMEOUT)
    "not run, since step 'train[2]' ended TIMEOUT"
    """
    return f"not run, since {what} ended {status}"
