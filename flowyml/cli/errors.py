"""Errors of commands, for people and as JSON with ``--json``: one line and an exit code, a traceback on request."""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from click import ClickException

from flowyml.cli.output import discard_output, note, print_error, print_warnings_of_logging
from flowyml.core.errors import (
    ConfigurationError,
    DefinitionError,
    DeploymentError,
    EngineError,
    FlowymlError,
    MissingExtraError,
    OrchestratorNotFoundError,
    OutputNotKeptError,
    ParameterError,
    PlanError,
    PluginError,
    RetryRefusedError,
    RunNotFoundError,
    ScheduleError,
    ScheduleNotFoundError,
    StepError,
    UnsupportedFeatureError,
    WaitTimeoutError,
)

__all__ = ["FAILED", "INTERRUPTED", "NOT_FOUND", "USAGE", "UsageError", "exit_code_of"]

FAILED, USAGE, ENGINE, NOT_FOUND, FAULT, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 70, 124, 130

_CODES: Mapping[type[BaseException], int] = {
    WaitTimeoutError: TIMED_OUT,
    StepError: FAILED,
    OrchestratorNotFoundError: NOT_FOUND,
    RunNotFoundError: NOT_FOUND,
    ScheduleNotFoundError: NOT_FOUND,
    OutputNotKeptError: NOT_FOUND,
    MissingExtraError: ENGINE,
    PluginError: ENGINE,
    EngineError: ENGINE,
    DefinitionError: USAGE,
    DeploymentError: USAGE,
    ParameterError: USAGE,
    ScheduleError: USAGE,
    ConfigurationError: USAGE,
    PlanError: USAGE,
    RetryRefusedError: USAGE,
    UnsupportedFeatureError: USAGE,
    FlowymlError: FAILED,
    **dict.fromkeys(
        (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError), USAGE
    ),
    OSError: FAILED,
}


class UsageError(FlowymlError):
    """The arguments make no sense. ``detail`` is shown above the error, such as a traceback of the user's file."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def exit_code_of(read: Callable[[Sequence[str]], Callable[[], int | None]], arguments: Sequence[str]) -> int:
    """Parse a command line, run its command, and print the error, if there is one."""
    import warnings

    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    print_warnings_of_logging()
    _open_closed_streams()
    try:
        command = read(arguments)
        gc.enable()
        result = command()
        _open_closed_streams()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        return 0
    except KeyboardInterrupt:
        note("")
        return INTERRUPTED
    except Exception as error:
        _open_closed_streams()
        return _report(error, "--json" in arguments)
    return result or 0


def _open_closed_streams() -> None:
    """Reopen closed streams.

    A stream that the caller closed (``>&-``) is None, and the next opened file would get its number.

    When a command is done, steps may have closed one as well.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as this process lives


def _report(error: Exception, as_json: bool) -> int:
    code = _code(error)
    if os.environ.get("FLOWYML_DEBUG", "0") not in ("", "0") and not isinstance(error, ClickException):
        import traceback

        note("".join(traceback.format_exception(error)).rstrip("\n"))
    message = _message(error, code)
    if as_json:
        note(json.dumps({"error": {"type": type(error).__name__, "message": message, "exit_code": code}}))
        return code
    if above := _above(error):
        note(above.rstrip("\n"))
    print_error(message)
    return code


def _code(error: Exception) -> int:
    if isinstance(error, UsageError | ClickException):
        return USAGE
    if ("sqlite3", "Error") in [(kind.__module__, kind.__name__) for kind in type(error).__mro__]:
        return FAILED  # by name, since most commands never import sqlite3
    known = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    return known or (USAGE if _hidden_module(error) else FAULT)


def _message(error: Exception, code: int) -> str:
    if isinstance(error, ClickException):
        return error.format_message()
    if isinstance(error, PermissionError) and _is_in_home(error.filename):
        return f"{error}. FlowyML keeps its data there: give that folder to this user, or set FLOWYML_HOME to another."
    if type(error) is OSError and error.errno == errno.ENOSPC:
        from flowyml.core.home import home

        where = f" ({error.filename})" if error.filename else ""
        return (
            f"{error.strerror}{where}. FlowyML keeps its data in {home()}: `flowyml prune` makes room there, or set "
            f"FLOWYML_HOME to a folder on another disk."
        )
    if code == USAGE and not isinstance(error, FlowymlError) and (hidden := _hidden_module(error)):
        file, name = hidden
        return (
            f"{type(error).__name__}: {error}. {file} hides the module {name!r} that FlowyML or its dependencies "
            f"import. Rename that file."
        )
    if code == FAULT:
        return f"{type(error).__name__}: {error} (a bug in FlowyML; FLOWYML_DEBUG=1 shows where)"
    return str(error)


def _hidden_module(error: Exception) -> tuple[str, str] | None:
    """Return a loaded file of the user's that has the name of an installed module, or of one of Python's own.

    If there are several, the one of the module that the error is about.
    """
    from importlib.machinery import PathFinder
    from sysconfig import get_path

    from flowyml.core.modules import source_file, travels

    installed = [get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    hiding = {
        name: str(source_file(module))
        for name, module in list(sys.modules.items())
        if "." not in name and name != "__main__" and travels(name) and PathFinder.find_spec(name, installed)
    }
    about = error.name if isinstance(error, ImportError) else getattr(getattr(error, "obj", None), "__name__", None)
    name = about if about in hiding else next(iter(hiding), None)
    return (hiding[name], name) if name else None


def _is_in_home(path: object) -> bool:
    from flowyml.core.home import home

    try:
        return path is not None and Path(os.fsdecode(path)).absolute().is_relative_to(home())  # type: ignore[arg-type]  # a path, where an OSError has one
    except (FlowymlError, TypeError):  # no home, or a number
        return False


def _above(error: Exception) -> str:
    if isinstance(error, UsageError):
        return error.detail
    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    return f"Usage: {usage}\nTry '{context.command_path} --help'."
