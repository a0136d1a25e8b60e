"""Steps in processes of their own: what the warm process imports, keeps and leaves when it starts and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.runtime import start
from flowyml.runtime.processes import StepProcesses

CODE = """
import atexit, gc, json, sys
from pathlib import Path
import elsewhere

atexit.register(Path("ended").touch)

def look():
    return [json.__file__, sys.argv[1:], sys.dont_write_bytecode, gc.isenabled()]
"""


def look(folder: Path) -> list[object]:
    plan = Plan(name="starts", steps=(Step(name="look", function="code_of_starts:look", outputs=("x",)),))
    bundle = build(plan, files={"code_of_starts.py": CODE.encode()}).write(folder / "bundle")
    with StepProcesses(bundle, run_id="run", artifacts=str(folder)) as processes:
        found: list[object] = processes.run("look", {})["x"]
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a library beside it."""
    for name in ("lib", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib" / "elsewhere.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("safe", ["", "1"])
def test_nothing_comes_from_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, safe: str) -> None:
    (folder / "here" / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    assert look(folder) == [sys.modules["json"].__file__, [], False, True]
    assert (folder / "here" / "ended").exists()  # by what the module registered for the end of its process


def test_only_the_bundle_is_kept_compiled_where_python_shall_not_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert look(folder)[2] is True
    kept = {path.name.partition(".")[0] for path in folder.rglob("*.pyc")}
    assert {"serving", "pipeline", "code_of_starts"} <= kept
    assert "elsewhere" not in kept
    compiled = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pyc")}
    look(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pyc")} == compiled


def test_an_old_python_is_told_which_one_is_needed() -> None:
    candidates = [*map(str, Path.home().glob(".pyenv/versions/3.[89].*/bin/python")), "/usr/bin/python3.9"]
    old = next((path for path in candidates if os.access(path, os.X_OK)), None)
    if old is None:
        pytest.skip("this machine has no old Python")
    done = subprocess.run([old, start.__file__, "3", "4"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("This bundle needs Python 3.11 or newer; this is 3.")
