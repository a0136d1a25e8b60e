"""The record of local runs: sessions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flowyml.core.errors import ConfigurationError
from flowyml.orchestrators.local.store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs.db")


def test_a_broken_database_is_reported_once(store: RunStore) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught, store.session(), store.session() as db:
        db.execute("SELECT * FROM nowhere")
    assert str(caught.value) == (
        f"The record of local runs, {store.path}, cannot be read or written: no such table: nowhere. "
        "Its disk may be full, which SQLite can report as an I/O error: `flowyml cache clear --all` frees space even "
        "then, `flowyml prune` frees more, and FLOWYML_HOME can name a folder on another disk. "
        "Or a step closed file descriptors that it did not open, as os.closerange does."
    )


def test_a_record_that_cannot_be_written_is_not_taken_for_a_full_disk(store: RunStore) -> None:
    said = r"cannot be written by this user: .* Set FLOWYML_HOME to a folder"
    with pytest.raises(ConfigurationError, match=said), store.session() as db:
        db.executescript("PRAGMA query_only = 1; DELETE FROM runs")


def test_two_records_with_names_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    one, other = RunStore(tmp_path / "runs.db"), RunStore(tmp_path / "runs.sqlite")
    assert one.folder_of("a") != other.folder_of("a")
