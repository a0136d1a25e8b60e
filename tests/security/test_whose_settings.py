"""Settings can have commands run: one that another user left in a folder above is refused, and does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.core.errors import ConfigurationError
from flowyml.core.files import refuse_others_link
from flowyml.core.settings import TRUSTED, settings_file
from tests.engines.web import Reply, web

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own below one for all, as in /tmp."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o1777)
    (shared / "mine").mkdir()
    monkeypatch.chdir(shared / "mine")
    return shared


@pytest.mark.parametrize("name", ["flowyml.toml", "pyproject.toml"])
def test_a_command_of_theirs_is_not_run(below: Path, name: str) -> None:
    table = "orchestrators.airflow" if name == "flowyml.toml" else "tool.flowyml.orchestrators.airflow"
    theirs, ran = below / name, below / "ran"
    asked = [sys.executable, "-m", "flowyml", "runs", "--on", "airflow"]
    with web(lambda _: Reply(body=b'{"version": "3.3.2", "git_version": "x"}')) as airflow:
        theirs.write_text(f'[{table}]\nurl = "{airflow.url}"\ntoken_command = "touch {ran}"\n')
        subprocess.run(asked, capture_output=True, text=True, check=False)
        assert ran.exists(), "the attack works where the file is one's own"
        ran.unlink()
        os.chown(theirs, NOBODY, NOBODY)
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert not ran.exists()
    assert f"{theirs} belongs to another user" in done.stderr


def test_neither_does_their_store_get_a_run(below: Path) -> None:
    (below / "flowyml.toml").write_text(f'[orchestrators.local]\nstore = "{below}/loot.db"\n')
    os.chown(below / "flowyml.toml", NOBODY, NOBODY)
    Path("train.py").write_text("from flowyml import Pipeline, step\np = Pipeline('p').add_step(step(name='a')(int))\n")
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", "run", "train.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert not (below / "loot.db").exists()


def test_a_folder_may_be_trusted_by_name(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (below / "flowyml.toml").touch()
    os.chown(below / "flowyml.toml", NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match=f"set {TRUSTED}="):
        settings_file()
    monkeypatch.setenv(TRUSTED, f"/elsewhere:{below}")
    assert settings_file() == below / "flowyml.toml"


def test_a_pyproject_that_does_not_speak_of_flowyml_may_be_theirs(below: Path) -> None:
    (below / "pyproject.toml").write_text("[project]\n")
    os.chown(below / "pyproject.toml", NOBODY, NOBODY)
    assert settings_file() is None


def test_a_folder_that_is_their_link_is_not_written_to(below: Path) -> None:
    (below / "real").mkdir()
    link = below / "flowyml_bundles"
    link.symlink_to(below / "real")
    refuse_others_link(link)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(OSError, match="a link that belongs to another user"):
        refuse_others_link(link)
