"""Work on a text of the user's first in a child process, which the kernel ends at its limits.

Python's regular expressions and libcst's parser cannot be interrupted: a text of 40 characters keeps one busy for
years, another text ends the process by a stack overflow. So a child does the work before this process repeats it.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import libcst

_CHILD = """
import importlib, json, resource, sys, time
sys.path[:] = json.loads(sys.stdin.readline())

def limit(name, soft):
    try:
        resource.setrlimit(getattr(resource, name), (soft, resource.getrlimit(getattr(resource, name))[1]))
    except (ValueError, OSError):  # not on every system
        pass

limit("RLIMIT_CORE", 0)
limit("RLIMIT_STACK", 4_000_000)  # half of what is usual: the parent is deeper in its own when it does the same
for line in sys.stdin:
    module, function, seconds, megabytes, args, kwargs = json.loads(line)
    work = getattr(importlib.import_module(module), function)
    began = time.process_time()
    limit("RLIMIT_CPU", int(began + seconds + 0.5))
    limit("RLIMIT_AS", megabytes * 1_000_000)
    ended = True
    try:
        found = work(*args, **kwargs)
        for _ in found if hasattr(found, "__next__") else ():
            pass
    except MemoryError:
        ended = False
    except Exception:
        pass
    found = None
    print(json.dumps([ended, time.process_time() - began]), flush=True)
"""


class Trial:
    """A child process, started on demand, and again after it has died."""

    def __init__(self) -> None:
        self.spent = 0.0
        """The seconds of processor time of all tries."""
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ends(self, module: str, function: str, *args: Any, seconds: int, megabytes: int, **kwargs: Any) -> bool:
        """Return whether ``module.function(*args, **kwargs)`` returns or raises within these limits.

        ``seconds`` are of processor time (half a second more or less), ``megabytes`` of the whole process. Arguments
        are JSON.
        """
        child = self._child = self._child or _started()
        assert child.stdin is not None
        assert child.stdout is not None
        answer = ""
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps([module, function, seconds, megabytes, args, kwargs]) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        if not answer:
            self.spent += seconds
            self.close()
            return False
        ended, taken = json.loads(answer)
        self.spent += taken
        return bool(ended)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError):
                child.communicate()


def parse_module(text: str) -> libcst.Module:
    """Call ``libcst.parse_module``. Raises SyntaxError also for a text that crashes the parser or keeps it busy."""
    import libcst

    if not _of_parser().ends("libcst", "parse_module", text, seconds=20, megabytes=3000):
        raise SyntaxError("its expressions nest too deeply, or it takes a parser too long")
    return libcst.parse_module(text)


@lru_cache(maxsize=1)
def _of_parser() -> Trial:
    trial = Trial()
    atexit.register(trial.close)
    return trial


def _started() -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, encoding="ascii", env={},
    )  # fmt: skip
    assert child.stdin is not None
    child.stdin.write(json.dumps([path for path in sys.path if path]) + "\n")
    return child
