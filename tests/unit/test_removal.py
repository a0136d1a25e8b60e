"""Removing files that FlowyML made, at the lowest level. What an attacker tries: tests/security."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flowyml.core.removal import files_below, names_in, remove, remove_leftovers


def test_a_file_and_a_folder_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/one").write_bytes(b"12345")
    (tmp_path / "a/two").write_bytes(b"123")
    assert [(found.parts, found.size) for found in files_below(tmp_path, "a")] == [
        (("a", "b", "one"), 5), (("a", "two"), 3),
    ]  # fmt: skip
    assert remove(tmp_path, "a", "two") == 3
    assert remove(tmp_path, "a") == 5
    assert list(tmp_path.iterdir()) == []
    assert (remove(tmp_path, "a"), remove(tmp_path, "a", "two"), names_in(tmp_path, "a")) == (0, 0, [])


def test_what_was_used_meanwhile_comes_back(tmp_path: Path) -> None:
    before = time.time() - 100
    for name in ("file", "folder"):
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.write_bytes(b"x")
        assert remove(tmp_path, name, unless_since=before) == 0
        assert path.exists()
        os.utime(path, (before - 1, before - 1))
        remove(tmp_path, name, unless_since=before)
        assert not path.exists()


def test_a_folder_in_which_a_file_was_written_meanwhile_comes_back(tmp_path: Path) -> None:
    before = time.time() - 100
    file = tmp_path / "folder/deep/file"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    for folder in (file.parent, file.parent.parent):
        os.utime(folder, (before - 1, before - 1))
    assert remove(tmp_path, "folder", unless_since=before) == 0
    assert file.read_bytes() == b"x"
    os.utime(file, (before - 1, before - 1))
    assert remove(tmp_path, "folder", unless_since=before) == 1


def test_what_a_killed_process_was_about_to_remove_goes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".gone-0123456789abcdef"
    left.mkdir()
    (left / "file").write_bytes(b"12")
    assert remove_leftovers(tmp_path) == 0, "another process may be at it"
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 4000)
    assert remove_leftovers(tmp_path) == 2
    assert not left.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/../../outside", "/"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    assert (remove(root, name), remove(root, name, "outside")) == (0, 0)
    assert (tmp_path / "outside").exists()
