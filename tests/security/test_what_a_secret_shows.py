"""A step that does its best to show its secret: afterwards all that FlowyML wrote and showed is searched for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.test_planted_secrets import unpacked
from tests.unit.commands import command, flowyml
from tests.waiting import wait_for_processes, wait_until

NAME, VARIABLE = "warehouse/password", "FLOWYML_SECRET_WAREHOUSE_PASSWORD"
VALUE = f"planted-as/secret+18&{os.urandom(4).hex()}"  # other tests run at the same time, with values of their own
SHOWS = """
import base64, json, os, subprocess, sys, textwrap
from pathlib import Path
from urllib.parse import quote, quote_plus
from flowyml import Pipeline, get_logger, step
from flowyml.core.hooks import PipelineHook

def forms(value: str) -> list[str]:
    coded = base64.b64encode(f"user:{value}".encode()).decode()
    return [value, repr(value), json.dumps({"key": value}), quote(value, safe=""), quote_plus(value), coded,
            base64.urlsafe_b64encode(value.encode()).decode(), *textwrap.wrap(value, 9), *textwrap.wrap(coded, 13)]

@step(secrets={"password": "warehouse/password", "WAREHOUSE": "warehouse/password"})
def shows(password: str = "") -> list[str]:
    commands = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                commands.append((folder / "cmdline").read_bytes().decode("utf-8", "replace"))
            except OSError:
                pass
    for form in forms(password):
        print("shown:", form)
        print(form, file=sys.stderr)
        get_logger().warning("logged: %s", form)
    print(password, end="")
    print(password, end="\\r", flush=True)
    sys.stdout.write(password[:12]); sys.stdout.flush(); sys.stdout.write(password[12:] + "\\n")
    os.write(1, (password + "\\n").encode())
    subprocess.run([sys.executable, "-c", "import os; print(os.environ['WAREHOUSE'])"], check=True)
    return [command for command in commands if password in command]

@step(secrets={"password": "warehouse/password"}, after="shows")
def fails(password: str = "") -> None:
    class Refused(Exception):
        pass
    try:
        raise Refused(f"refused: {password}")
    except Refused as error:
        error.add_note(f"tried with {password}")
        raise RuntimeError({"connection": f"u:{password}@host"}) from error

@step(secrets={"password": "warehouse/password"}, after="shows")
def gives(password: str = "") -> dict[str, list[str]]:
    return {"urls": [f"https://u:{password}@host"]}

shown = Pipeline("shown").add_step(shows).add_step(fails).add_step(gives)
alone = Pipeline("alone").add_step(shows)
"""


def holds(data: bytes | str) -> bool:
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    pieces = (VALUE.encode(), VALUE[4:16].encode(), VALUE[-12:].encode())
    return any(piece in place for place in unpacked(raw) for piece in pieces)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "shows.py").write_text(SHOWS)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv(VARIABLE, VALUE)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(("detached", "fork"), [(False, "1"), (True, "0")], ids=["run", "submitted, without fork"])
def test_a_local_run_shows_and_keeps_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, detached: bool, fork: str
) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)
    shown = ""
    for name, code in (("shown", 1), ("alone", 0)):
        words = ("--detach",) if detached else ()
        done = [command("run", f"shows.py:{name}", "--run-id", name, *words), flowyml("watch", name)]
        assert done[1].code == code, done[1].err
        done += [flowyml(word, name) for word in ("logs", "status", "outputs")]
        shown += "".join(each.out + each.err for each in done)
    assert shown.count("***") > 20
    assert "RuntimeError" in shown
    assert not holds(shown)
    outputs = flowyml("outputs", "alone", "--json")
    assert outputs.code == 0, outputs.err
    assert outputs.json["shows"] == []  # no command line held it
    wait_for_processes(project / "home" / "runs.db")
    files = [path for path in (project / "home").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if holds(path.read_bytes())] == []


@pytest.mark.parametrize("engine", ["airflow", "kubeflow", "prefect"])
def test_no_compiled_file_holds_it(project: Path, engine: str) -> None:
    done = flowyml("compile", "shows.py:alone", "--to", engine, "-o", str(project / "made"))
    assert done.code == 0, done.err
    files = [path for path in (project / "made").rglob("*") if path.is_file()]
    assert any(
        NAME.encode() in place or b"warehouse" in place for path in files for place in unpacked(path.read_bytes())
    )
    assert [path for path in files if holds(path.read_bytes())] == []


def test_no_file_of_an_engine_holds_it(project: Path) -> None:
    assert flowyml("bundle", "shows.py:alone", "-o", str(project / "made")).code == 0
    assert flowyml("compile", "shows.py:alone", "--to", "plan", "-o", str(project / "made" / "plan.json")).code == 0
    assert NAME in (project / "made" / "plan.json").read_text()
    assert [path for path in (project / "made").iterdir() if holds(path.read_bytes())] == []


def test_a_killed_run_leaves_no_file_with_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where fork is unavailable, values pass from process to process too."""
    (project / "project" / "waits.py").write_text(
        "import time\nfrom pathlib import Path\nfrom flowyml import Pipeline, step\n"
        "@step(secrets={'password': 'warehouse/password'})\ndef waits(password: str = '') -> None:\n"
        "    Path('began').touch()\n    time.sleep(600)\nwaiting = Pipeline('waiting').add_step(waits)\n"
    )
    (project / "tmp").mkdir()
    environment = {**os.environ, "FLOWYML_FORK": "0", "TMPDIR": str(project / "tmp")}
    with subprocess.Popen([sys.executable, "-m", "flowyml", "run", "waits.py"], env=environment) as run:
        wait_until((project / "project" / "began").exists)
        run.kill()
    left = [*(project / "tmp").rglob("flowyml-*"), *(project / "project" / ".flowyml").rglob("*")]
    assert left
    assert [path for path in left if path.is_file() and holds(path.read_bytes())] == []


def test_by_hand_a_command_line_is_no_place_for_it(project: Path) -> None:
    assert flowyml("bundle", "shows.py:alone", "-o", str(project / "made")).code == 0
    bundle = next((project / "made").iterdir())
    words = [sys.executable, str(bundle), "step", "shows"]
    refused = subprocess.run([*words, f"--secrets={VALUE}"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    given = subprocess.run(words, capture_output=True, text=True, check=False)
    assert given.returncode == 0, given.stderr
    without = {name: value for name, value in os.environ.items() if name != VARIABLE}
    missing = subprocess.run(words, capture_output=True, text=True, check=False, env=without)
    assert missing.returncode == 2
    assert f"step 'shows': Secret 'warehouse/password' is missing: set {VARIABLE}" in missing.stderr
