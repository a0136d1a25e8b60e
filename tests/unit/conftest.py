"""What the tests of the local orchestrator share."""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowyml.orchestrators import LocalOrchestrator
from tests.unit.commands import PIPELINE


@pytest.fixture
def local(tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db")


@pytest.fixture(params=["threads", "processes"])
def both_ways(request: pytest.FixtureRequest, tmp_path: Path) -> LocalOrchestrator:
    """Steps in threads, then in processes of their own."""
    return LocalOrchestrator(store=tmp_path / "runs.db", workers=request.param)


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    """No thread outlives a run, and the streams are the very ones that were there before."""
    threads, streams, factory = threading.enumerate(), (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    yield
    for thread in {*threading.enumerate()} - {*threads}:
        thread.join(30)  # rich asks its thread to stop, and does not wait until it has
    assert threading.enumerate() == threads
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogRecordFactory() is factory


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working folder is the test's own and holds ``train.py``; what a command changes in this process goes back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.meta_path)
    (tmp_path / "train.py").write_text(PIPELINE)
    yield
    # Those of libraries that this test was the first to import have to stay.
    sys.meta_path[:] = [each for each in sys.meta_path if each in before or not each.__module__.startswith("flowyml")]
    for name in ("train", "odd", "loud", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def local_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the time zone of this process, until the test ends."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()
