"""Which modules belong to the user, and which to an installed package."""

from __future__ import annotations

import site
from pathlib import Path

import pytest

from flowyml.core import modules


def test_packages_of_the_user_and_of_the_system_are_installed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `pip install --user`, and Debian's in dist-packages."""
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "dist-packages")])
    modules._installed_roots.cache_clear()
    try:
        assert modules.is_installed(tmp_path / "user" / "numpy" / "__init__.py")
        assert modules.is_installed(tmp_path / "dist-packages" / "numpy" / "__init__.py")
        assert not modules.is_installed(tmp_path / "train.py")
    finally:
        modules._installed_roots.cache_clear()
