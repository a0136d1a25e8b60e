"""What the tests of security share: commands run in this process, and leave nothing in it."""

from __future__ import annotations

import logging
import warnings

import pytest

from tests.unit.conftest import nothing_stays_imported

__all__ = ["nothing_stays_imported"]


@pytest.fixture(autouse=True)
def commands_leave_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command has its own way to show warnings and log records."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
