"""Locks between processes: one holds a lock or several share it, and where there are none, nobody waits."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.core.locks import held


def test_one_holds_a_lock_and_the_next_one_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path) as mine, held(path) as second, held(path, shared=True) as looks:
        assert (mine, second, looks) == (True, False, False)
    with held(tmp_path / "lock") as mine:
        assert mine
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from flowyml.core.locks import held\n"
    code += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with held(tmp_path / "lock") as mine:
            assert mine is False
        process.kill()
        with held(tmp_path / "lock", wait=None) as mine:
            assert mine


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none, as some network file systems."""

    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch)
    with held(tmp_path / "lock", wait=None) as mine, held(tmp_path / "lock", wait=None) as second:
        assert (mine, second) == (None, None)
