"""Removing files that FlowyML made, at the lowest level. What an attacker tries: tests/security."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flowyml.core.removal import remove


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


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    for name in ("", ".", "..", "a/../../outside", "/"):
        assert (remove(root, name), remove(root, name, "outside")) == (0, 0)
    assert (tmp_path / "outside").exists()
