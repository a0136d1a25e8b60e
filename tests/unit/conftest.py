"""What the tests of the local orchestrator share."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowyml.orchestrators import LocalOrchestrator


@pytest.fixture
def local(tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db")


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    """No thread outlives a run, and the streams are the very ones that were there before."""
    threads, streams, factory = threading.enumerate(), (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    yield
    assert threading.enumerate() == threads
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogRecordFactory() is factory
