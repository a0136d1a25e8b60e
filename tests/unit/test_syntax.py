"""Source is parsed in threads as it is in one."""

from __future__ import annotations

import ast
import gc
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from flowyml.core.syntax import parsed

SOURCE = "def f(a, b):\n    return [x for x in (a, b) if x]\n" * 60


class _Garbage:
    """Runs Python when it is collected, which lets another thread go on in the middle of a tree."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


@pytest.fixture
def restless() -> Iterator[None]:
    """Garbage is collected often, and threads take turns often."""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_threads_that_parse_at_once_beside_a_library_that_does_too() -> None:
    done = threading.Event()

    def library() -> None:
        while not done.is_set():
            with suppress(SystemError):
                ast.parse(SOURCE)

    with ThreadPoolExecutor(5) as threads:
        threads.submit(library)
        waiting = [threads.submit(parsed, SOURCE) for _ in range(40)]
        while not all(each.done() for each in waiting):
            _Garbage()
            time.sleep(0.0001)
        done.set()
    assert [len(each.result().body) for each in waiting] == [60] * 40
