"""Run steps in separate processes that can be stopped at any moment and start within milliseconds."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from flowyml.artifacts.pickling import decide_on_pickles
from flowyml.core.dates import RunDates
from flowyml.core.errors import (
    MissingSecretError,
    ParameterError,
    StepCancelledError,
    StepError,
)
from flowyml.core.item_names import labelled
from flowyml.plan.parameters import is_too_deep, too_deep
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.fork_client import ForkedProcesses, Server, start_ahead
from flowyml.runtime.hooks import plain_arguments
from flowyml.runtime.kept_outputs import KEEP, KeptOutputs
from flowyml.runtime.lines import OnLine, print_line
from flowyml.runtime.secrets import Mask, ReadSecret, from_environment, secrets_of
from flowyml.runtime.step_errors import failed

__all__ = ["StepProcesses", "can_fork", "starting_ahead"]


class _Child(Protocol):
    """A process that runs one step or hook."""

    hooks: int

    def wait(self, timeout: float | None, stop: threading.Event | None) -> dict[str, Any]: ...
    def kill(self) -> None: ...
    def mute(self) -> None: ...


class _Children(Protocol):
    """The source of such processes."""

    def child(
        self, subject: str, request: Mapping[str, Any], body: Any, on_line: OnLine
    ) -> AbstractContextManager[_Child]: ...
    def release(self, together: str) -> None: ...
    def close(self) -> None: ...


class StepProcesses:
    """Runs the steps of one run, each attempt in a process of its own, which ends with all of its descendants.

    A warm process loads the user's code once, in the background, and forks for each step. Use this as a context
    manager, or ``close()`` it; whatever still runs ends then, and also when this process dies. ``run`` may be called
    from many threads.

    Outside Linux, and with ``FLOWYML_FORK=0`` in the environment, for libraries that do not survive a fork, each
    attempt is a fresh process, which takes longer.

    With ``fork_here`` the process that loads the code is a fork of this one, on Linux: steps use this process's state,
    such as its connections, and its standard input. ``python`` and ``started`` are then ignored. A user's module with
    the name of one that this process has imported replaces it, except for ``host_packages``.

    ``place`` is the run's prefix among the ``artifacts``: see ``run_place``.

    ``read_secret`` returns the values of secrets, which this process passes to the steps that name them.

    ``dates`` are those of the run, by default now. With ``caller``, from ``read_parent_env()``, steps import from where
    that process does, after the bundle. ``started`` is the result of ``starting_ahead()``.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        run_id: str,
        artifacts: str,
        place: str = "",
        parameters: Mapping[str, Any] = {},
        caller: Mapping[str, Any] = {},
        python: str = sys.executable,
        started: Server | None = None,
        fork_here: bool = False,
        host_packages: Collection[str] = (),
        dates: RunDates | None = None,
        read_secret: ReadSecret = from_environment,
    ) -> None:
        for name, value in parameters.items():
            if is_too_deep(value):  # an engine's form allows values that `flowyml` would have refused
                raise ParameterError(too_deep(f"Parameter {name!r} of the run"))
        config = {
            "run_id": run_id, "artifacts": artifacts, "place": place, "parameters": dict(parameters),
            "caller": {"no_pickles": decide_on_pickles(), **caller}, "dates": (dates or RunDates()).plain(),
        }  # fmt: skip
        self._kept = KeptOutputs(artifacts, place) if place and os.environ.get(KEEP) else None
        self._children: _Children
        if not can_fork():
            from flowyml.runtime.shared import SharedProcesses

            self._children = SharedProcesses(python, bundle, config)
        else:
            self._children = ForkedProcesses(
                bundle, config, python=python, ahead=started, host_packages=host_packages if fork_here else None
            )
        self._read_secret = read_secret
        self._closed = False

    def run(
        self,
        step: str,
        inputs: Mapping[str, Any],
        *,
        attempt: int = 1,
        index: Sequence[int] = (),
        secrets: Mapping[str, str] = {},
        timeout: float | None = None,
        on_line: OnLine = print_line,
        stop: threading.Event | None = None,
        together: str = "",
        hold: bool = False,
    ) -> AttemptOutputs:
        """Run one attempt of a step: packed inputs to packed outputs. ``index`` is the index of its item, for a step in
        a loop.

        Steps with the same name ``together`` must not run at the same time. They share one process,
        which waits for the next one while ``hold`` is true, until ``release``, or until a step has to be killed.

        Parameters and constants need not be among the inputs; those of the run and the plan are used. ``secrets`` are
        the step's: their values are removed from its output and from the errors that this raises. ``timeout`` is in
        seconds, from the moment the process starts; loading the code, which comes before, may take as long again, or a
        minute if that is longer. A fresh process loads the code itself, and that time counts. ``on_line`` gets each
        line when it is printed, as ``("stdout", "a line")``; by default it is printed here. ``stop`` ends the step.

        Raises ``MissingSecretError``, ``StepFailedError``, ``OutputError``, ``StepTimeoutError``,
        ``StepCancelledError``, and ``StepCrashedError`` for a process that died. Any exception raised in this thread
        meanwhile, such as the caller's timeout, kills the process before it propagates.
        """
        try:
            values = secrets_of(step, secrets, self._read_secret)
        except MissingSecretError as error:
            self.fire("on_error", step, error, on_line=on_line)
            raise
        request: dict[str, Any] = {
            "kind": "step", "step": step, "attempt": attempt, "index": list(index), "secrets": values
        }  # fmt: skip
        if together:
            request.update(together=together, hold=hold)
        if values:
            on_line = Mask(values.values()).lines(on_line)
        answer = self._answer(f"step {step!r}", request, dict(inputs), timeout, on_line, stop)
        del values, request  # tools that report errors show the variables of the frames that an error went through
        if failure := answer.get("failure"):
            raise failed(step, failure)
        outputs = AttemptOutputs(answer["outputs"], answer.get("cached", ""))
        if self._kept is not None:
            self._kept.keep(labelled(step, index), outputs)
        return outputs

    def evaluate(
        self,
        group: str,
        packed: Mapping[str, Any],
        *,
        index: Sequence[int] = (),
        on_line: OnLine = print_line,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Evaluate a branch or a loop in a process with the user's code: see ``Worker.evaluate``.

        Raises ``StepFailedError``, and what ``run`` raises of a process that does not answer.
        """
        request = {"kind": "look", "group": group, "index": list(index)}  # the word that older bundles know
        answer = self._answer(f"group {group!r}", request, dict(packed), None, on_line, stop)
        if failure := answer.get("failure"):
            raise failed("", failure)
        outputs: dict[str, Any] = answer["outputs"]
        return outputs

    def fire(self, event: str, *arguments: object, on_line: OnLine = print_line, timeout: float = 60) -> None:
        """Fire an event on the pipeline's hooks, in a separate process. Failures are only reported."""
        try:
            self._answer(
                f"hook {event}", {"kind": "hook", "event": event}, plain_arguments(arguments), timeout, on_line, None
            )
        except StepError as error:
            on_line("stderr", f"{error} The run goes on.")

    def release(self, together: str) -> None:
        """Let the process that is held for steps with that name end, if there is one."""
        self._children.release(together)

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(
        self,
        subject: str,
        request: Mapping[str, Any],
        body: Any,
        timeout: float | None,
        on_line: OnLine,
        stop: threading.Event | None,
    ) -> dict[str, Any]:
        if self._closed:
            raise StepCancelledError(f"{subject} was not started: its run has ended.")
        with self._children.child(subject, request, body, on_line) as child:
            try:
                return child.wait(timeout, stop)
            except StepError as error:
                error.step = request.get("step", "")
                self._kill(child, request, error, on_line)
                raise
            except BaseException as error:
                child.mute()  # it may have come from on_line
                self._kill(child, request, error, on_line)
                raise

    def _kill(self, child: _Child, request: Mapping[str, Any], error: BaseException, on_line: OnLine) -> None:
        child.kill()
        if child.hooks and request["kind"] == "step" and not self._closed and isinstance(error, Exception):
            self.fire("on_error", request["step"], error, on_line=on_line)


@contextmanager
def starting_ahead() -> Iterator[Server | None]:
    """Start the warm process while its bundle is still being written, for a ``StepProcesses`` within the context."""
    server = start_ahead(sys.executable) if can_fork() else None
    try:
        yield server
    finally:
        if server is not None:
            server.close()


def can_fork() -> bool:
    """Return whether to fork: on Linux.

    Forking is risky on macOS, whose libraries start threads (CPython issue 33725).
    """
    return sys.platform == "linux" and os.environ.get("FLOWYML_FORK") != "0"
