"""DAG files in a repository that Airflow 3 reads as a git bundle, of which each commit is a version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flowyml
import flowyml_airflow
from flowyml.orchestrators.http import NotFoundError
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

SOURCE = """
import time
from pathlib import Path

from flowyml import __version__, pipeline, step


@step
def wait(folder: str) -> str:
    (Path(folder) / "begun").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.1)
    return f"{word} {__version__}"


@step
def add(first: str) -> str:
    return f"{first} {word} {__version__}"


@pipeline
def carried(folder: str) -> dict[str, str]:
    return {"both": add(wait(folder))}
"""


class Repository:
    """A checkout of what Airflow reads, with a pipeline and the DAG file that is compiled from it."""

    def __init__(self, url: Path, folder: Path) -> None:
        self.folder = folder
        self.path = ""
        subprocess.run(["git", "clone", "-q", url, folder], check=True)

    def git(self, *arguments: str) -> None:
        author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        self._run("git", *author, *arguments)

    def flowyml(self, *arguments: str) -> None:
        self._run(sys.executable, "-m", "flowyml", *arguments)

    def _run(self, *command: str) -> None:
        variables = {**os.environ, "PYTHONPATH": self.path}
        done = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def push(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "-m", message)
        self.git("push", "-q")

    def compile(self, word: str) -> None:
        (self.folder / "carried.py").write_text(SOURCE.replace("{word}", word))
        self.flowyml("compile", "carried.py", "--to", "airflow", "-o", "dags/")
        self.flowyml("compile", "carried.py", "--to", "airflow", "-o", "dags/", "--check")
        self.push(f"It says {word}")

    def upgrade(self, folder: Path, version: str) -> None:
        """Compile with the next FlowyML from now on."""
        for package in (flowyml, flowyml_airflow):
            root = Path(str(package.__file__)).parent
            shutil.copytree(root, folder / root.name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "flowyml/_version.py").write_text(f'__version__ = "{version}"\n')
        self.path = str(folder)


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_a_run_keeps_its_commit_and_its_flowyml_and_a_revert_brings_both_back(
    airflow3: Airflow, tmp_path: Path
) -> None:
    airflow, one = orchestrator_of(airflow3, dags_folder=None), f"one {flowyml.__version__}"
    repository = Repository(airflow3.home.parent / "repository.git", tmp_path / "checkout")
    for name in ("open", "waiting"):
        (tmp_path / name).mkdir()
    (tmp_path / "open" / "go").touch()

    def shown() -> str:
        """The commit whose DAG Airflow shows."""
        try:
            return str(airflow.client.transport.get("/api/v2/dags/carried/details")["bundle_version"])
        except NotFoundError:
            return ""

    def wait_until_shown() -> None:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository.folder, capture_output=True, text=True)
        wait_until(lambda: shown() == head.stdout.strip(), "Airflow shows the commit")

    repository.compile("one")
    wait_until_shown()
    airflow.client.pause("carried", paused=False)
    across = airflow.trigger("carried", parameters={"folder": str(tmp_path / "waiting")})
    wait_until((tmp_path / "waiting" / "begun").exists, "the first step has begun")
    repository.upgrade(tmp_path / "next", "99.0")
    repository.compile("two")
    wait_until_shown()
    after = airflow.trigger("carried", parameters={"folder": str(tmp_path / "open")})
    assert after.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"both": "two 99.0 two 99.0"}
    (tmp_path / "waiting" / "go").touch()
    assert across.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"both": f"{one} {one}"}
    repository.git("revert", "--no-edit", "HEAD")
    repository.git("push", "-q")
    wait_until_shown()
    again = airflow.trigger("carried", parameters={"folder": str(tmp_path / "open")})
    assert again.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"both": f"{one} {one}"}
    repository.flowyml("undeploy", "carried", "-o", "dags/", "--on", "airflow")
    assert not (repository.folder / "dags" / "carried.py").exists()
