"""One process for several steps, without fork: it runs one request after another."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowyml.core.forks import cut_off, flush_output, reopen_output
from flowyml.runtime.lines import OnLine
from flowyml.runtime.spawn import Child, SpawnedProcesses, as_input

__all__ = ["SharedProcesses", "further", "hush"]

_SLICE = 0.05
_PATIENCE = 10  # seconds to wait for the end of a process that is no longer needed


class SharedProcesses(SpawnedProcesses):
    """Starts a process for each request, or one for all requests ``together`` while the one before was to ``hold``."""

    def __init__(self, python: str, bundle: Path, config: Mapping[str, Any]) -> None:
        super().__init__(python, bundle, config)
        self._held: dict[str, _Shared] = {}

    @contextmanager
    def child(self, subject: str, request: Mapping[str, Any], body: Any, on_line: OnLine) -> Iterator[Child]:
        """Start a process for a request, or use the one that is held for it."""
        together = request.get("together", "")
        held = self._held.pop(together, None) if together else None
        if held is None and not request.get("hold"):
            with super().child(subject, request, body, on_line) as child:
                yield child
            return
        shared = self._begun(held, subject, request, body, on_line)
        with self._watched(shared):
            try:
                yield shared
            finally:
                if shared.is_idle and request.get("hold") and not self._closed:
                    self._held[together] = shared
                else:
                    shared.end()

    def _begun(
        self, held: _Shared | None, subject: str, request: Mapping[str, Any], body: Any, on_line: OnLine
    ) -> _Shared:
        """Return a process that has begun a request: the held one, or a new one."""
        folder = held.folder if held else tempfile.TemporaryDirectory(prefix="flowyml-")
        try:
            whole = self._whole(request, body, tempfile.mkdtemp(dir=folder.name))
            if held is None:
                return _Shared(subject, self._command, whole, folder, on_line, self._hooks)
            held.take(subject, whole, on_line)
        except BaseException:
            held.end() if held else folder.cleanup()
            raise
        return held

    def release(self, together: str) -> None:
        """Let the held process end, if there is one."""
        if held := self._held.pop(together, None):
            held.end()

    def close(self) -> None:
        super().close()
        while self._held:
            self._held.popitem()[1].end()


class _Shared(Child):
    """A process with a socket for further requests, each a file, with pipes for its output."""

    def __init__(
        self, subject: str, command: Sequence[str], request: Mapping[str, Any],
        folder: tempfile.TemporaryDirectory[str], on_line: OnLine, hooks: int,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.is_idle = False
        self._more, theirs = socket.socketpair()
        with theirs:
            more = theirs.fileno()
            try:
                super().__init__(subject, command, {**request, "more": more}, on_line, hooks, (more,))
            except BaseException:
                self._more.close()
                raise

    def take(self, subject: str, request: Mapping[str, Any], on_line: OnLine) -> None:
        """Give it another request; its output goes to the new ``on_line`` from now on."""
        self.is_idle = False
        self._subject, self._answer, self._started = subject, Path(request["answer"]), time.monotonic()
        pipes = [os.pipe() for _ in range(2)]
        self._listen([os.fdopen(ours, "rb") for ours, _ in pipes], on_line)
        with as_input(request) as standard_input, suppress(OSError):  # it has died, as its end shows
            socket.send_fds(self._more, [b"!"], [standard_input.fileno(), *(theirs for _, theirs in pipes)])
        for _, theirs in pipes:
            os.close(theirs)

    def end(self) -> None:
        """Let it end as the process of a step does, and wait for that."""
        self._more.close()
        deadline = time.monotonic() + _PATIENCE
        while self.is_idle and not self._has_died() and time.monotonic() < deadline:
            time.sleep(_SLICE)
        self.kill()
        self.folder.cleanup()

    def _has_ended(self) -> bool:
        """Return whether it has answered, or died."""
        self.is_idle = self._answer.exists()
        return self.is_idle or self._has_died()


def hush() -> None:
    """Flush the output of a step, and drop any further output of it; called in its process."""
    flush_output()
    cut_off(1, 2)


def further(number: int) -> Iterator[None]:
    """Yield for each further request, which is then the standard input, until the other end closes; in the process.

    The output of each request goes to pipes that come with it.
    """
    with socket.socket(fileno=number) as more:
        while True:
            data, files, _, _ = socket.recv_fds(more, 1, 3)
            if not data:
                return
            for file, target in zip(files, (0, 1, 2), strict=True):
                os.dup2(file, target)
                os.close(file)
            reopen_output()
            yield
