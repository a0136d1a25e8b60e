"""What goes wrong on the command line, and what a terminal, a pipe or a closed stream shows of it."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.core.home import home
from tests.unit.commands import Done, command, flowyml, on_a_terminal

pytestmark = pytest.mark.usefixtures("train")


# What goes wrong.


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("run", "gone.py"), 2, "UsageError"),
        (("run", "train.py", "-p", "row=5"), 2, "ParameterError"),
        (("run", "train.py", "-p", "rows=x"), 2, "ParameterError"),
        (("run", "train.py", "--run-id", "a\nb"), 2, "DefinitionError"),
        (("run", "train.py", "--on", "nope"), 4, "OrchestratorNotFoundError"),
        (("run", "train.py", "--on", "http://127.0.0.1:1"), 3, "EngineUnreachableError"),
        (("run", "train.py", "--on", "ftp://x"), 2, "ConfigurationError"),
        (("status", "nope"), 4, "RunNotFoundError"),
        (("watch", "nope"), 4, "RunNotFoundError"),
        (("logs", "nope"), 4, "RunNotFoundError"),
        (("outputs", "nope"), 4, "RunNotFoundError"),
        (("cancel", "nope"), 4, "RunNotFoundError"),
        (("schedule", "pause", "nope"), 4, "ScheduleNotFoundError"),
        (("run", "train.py", "--detach", "--timeout", "3"), 2, "UsageError"),
        (("run", "train.py", "--run-id", ""), 2, "UsageError"),
        (("bundle", "train.py", "-o", "train.py"), 2, "UsageError"),
        (("run",), 2, "MissingParameter"),
        (("run", "train.py", "--nope"), 2, "NoSuchOption"),
        (("nope",), 2, "NoSuchCommand|UsageError"),  # by the version of click
    ],
)
def test_an_error_is_an_exit_code_and_an_object(arguments: tuple[str, ...], code: int, kind: str) -> None:
    done = flowyml(*arguments, "--json")
    assert (done.code, done.out) == (code, "")
    assert done.error["exit_code"] == code
    assert done.error["type"] in kind.split("|")
    assert done.error["message"]


def test_errors_say_what_would_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("odd.py").write_text(
        "from typing import Literal\nfrom flowyml import pipeline, step\n"
        "@step(outputs=['a', 'b'])\ndef two(mode: str) -> int:\n    return 1\n"
        "@pipeline\ndef odd(mode: Literal['x', 'y'] | None = 'x', sizes: dict[str, int] | None = None):\n"
        "    two(mode)\n"
    )
    for arguments, said in {
        ("-p", "mode=z"): "'mode' must be 'x' or 'y' or null, not 'z'.",
        ("-p", 'sizes={"a": "b"}'): "'sizes'['a'] must be of type integer, not 'b'.",
        ("-p", "mode=x", "-p", "mode=y"): "-p mode: it is given twice.",
    }.items():
        done = flowyml("run", "odd.py", *arguments)
        assert (done.code, said in done.err) == (2, True), done.err
    done = flowyml("run", "odd.py")
    assert "error: step 'two' declares 2 outputs ('a', 'b') and returned one int." in done.err
    assert "step 'two': step" not in done.err
    assert "failed: step" not in done.err
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__L__ENGINE", "local")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__L__RETRY_POLICY", '{"max_attempts": 0}')
    done = flowyml("run", "odd.py", "--on", "l")
    assert "Value error" not in done.err
    assert done.err.endswith("max_attempts must be a whole number from 1.\n")


@pytest.mark.processes
def test_an_output_whose_class_is_elsewhere_says_how_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it of a module or of a script."""
    Path("away").mkdir()
    Path("away/shapes.py").write_text("class Shape:\n    pass\n")
    Path("away/script.py").write_text(
        "import shapes\nfrom flowyml import pipeline, step\nclass Shape:\n    pass\n"
        "@step(outputs=['shape', 'own'])\ndef one():\n    return shapes.Shape(), Shape()\n"
        "@pipeline\ndef shaping():\n    return one()\n"
        "if __name__ == '__main__':\n    shaping.run(run_id='shaped').raise_for_status()\n"
    )
    subprocess.run([sys.executable, "away/script.py"], check=True, timeout=2400, stdin=subprocess.DEVNULL)
    message = flowyml("outputs", "shaped").out
    for name in ("shapes", "script"):
        assert (
            f"of run 'shaped': Its class cannot be imported here: ModuleNotFoundError: No module named '{name}'."
            in message
        )
    assert "Set PYTHONPATH to the folder of its module" in message
    monkeypatch.syspath_prepend(tmp_path / "away")
    there = flowyml("outputs", "shaped").out
    assert "shape = <shapes.Shape object" in there
    assert "own = <script.Shape object" in there


def test_an_error_is_one_line_for_people_unless_they_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    done = flowyml("run", "train.py", "-p", "row=5")
    assert done.err.splitlines()[-1].startswith("error: Parameters of pipeline 'training': it has no parameter 'row'")
    assert "Traceback" not in done.err
    monkeypatch.setenv("FLOWYML_DEBUG", "1")
    debugged = flowyml("run", "train.py", "-p", "row=5")
    assert debugged.code == 2
    assert "Traceback" in debugged.err


def test_every_command_takes_the_short_id() -> None:
    job = flowyml("run", "train.py", "--json").json["job_id"]
    flowyml("run", "train.py", "--run-id", "a run with a long id of its own", "--json")
    listed = [line.split()[0] for line in flowyml("runs").out.splitlines()[1:]]
    assert listed[1] == job[-8:]
    for words in (("status",), ("watch",), ("logs",), ("outputs",), ("cancel",)):
        for given in (*listed, job):
            assert flowyml(words[0], given).code == 0, (words, given)
    assert flowyml("cancel", listed[1], "--json").json["job_id"] == job
    assert flowyml("status", listed[0], "--json").json["run_id"] == "a run with a long id of its own"


@pytest.mark.parametrize("name", ["[red]bold[/red]", '\'; drop "x"', "日本語 🙂", "../../etc/passwd", "n" * 150])
def test_hostile_names_are_shown_as_they_are(name: str) -> None:
    Path("odd.py").write_text(
        "from flowyml import Pipeline, step\n@step(outputs=['value'])\ndef one() -> int:\n    return 1\n"
        f"p = Pipeline({name!r}).add_step(one)\n"
    )
    assert flowyml("run", "odd.py", "--run-id", name, "--json").json["run_id"] == name
    assert flowyml("runs").out.count(name) == 2
    assert name in flowyml("status", name).out
    assert flowyml("status", name, "--json").json["pipeline"] == name


@pytest.mark.processes
def test_what_an_encoding_lacks_is_shown_as_an_escape() -> None:
    run = command("run", "train.py", "-p", "label=Größe", "--run-id", "odd", PYTHONIOENCODING="ascii")
    assert (run.code, "Gr\\xf6\\xdfe: 3" in run.out) == (0, True), run.err
    logs = command("logs", "odd", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (logs.code, "load \\u2502 printed by a step" in logs.out) == (0, True), logs.err


@pytest.mark.processes
def test_a_reader_that_leaves_fails_neither_a_step_nor_a_command() -> None:
    Path("loud.py").write_text(
        "from flowyml import pipeline, step\n@step\ndef one() -> int:\n    for n in range(20000):\n"
        "        print(n, flush=True)\n    return 1\n@pipeline\ndef loud():\n    return one()\n"
    )
    for words in ("run loud.py --run-id loud", "logs loud"):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m flowyml {words} | head -n 1"],
            capture_output=True, text=True, timeout=2400,
        )  # fmt: skip
        assert (done.returncode, done.stdout.endswith("0\n")) == (0, True)
    assert re.fullmatch(r"times of [\d-]+, in \S+\n", done.stderr)
    assert flowyml("status", "loud", "--json").json["status"] == "COMPLETED"
    assert flowyml("logs", "loud").out.endswith("19999\n")


@pytest.mark.processes
@pytest.mark.parametrize("words", [("--help",), ("runs", "--json")])
def test_nor_does_one_that_has_left_before(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", *words], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=240
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_not_among_the_choices_is_said_in_plain_words() -> None:
    said = "error: Invalid value for '--format' / '-f': 'nope' is not one of 'terminal', 'mermaid', 'svg'.\n"
    assert flowyml("graph", "train.py", "--format", "nope").err.endswith(said)


@pytest.mark.parametrize(
    ("closing", "said"),
    [
        ("sys.__stdout__.close(); sys.stdout = sys.stderr = None", ""),
        ("os.close(1)", "a step has closed standard output; how the run ended: flowyml status closing\n"),
    ],
)
def test_a_step_that_closes_the_output_does_not_fail(closing: str, said: str) -> None:
    Path("closing.py").write_text(
        f"import os, sys\nfrom flowyml import pipeline, step\n@step\ndef one() -> int:\n    {closing}\n    return 1\n"
        "@pipeline\ndef closing():\n    return one()\n"
    )
    words = [sys.executable, "-m", "flowyml", "run", "closing.py", "--run-id", "closing"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2400)
    assert (done.returncode, done.stderr) == (0, said)
    assert flowyml("status", "closing", "--json").json["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run train.py --json >&-", 0, ""),
        ("runs 2>&-", 0, ""),
        ("runs --json >/dev/full", 1, "No space left on device"),
    ],
)
def test_streams_that_are_closed_or_full(words: str, code: int, message: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m flowyml {words}", shell=True, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == code
    assert message in done.stderr
    assert "bug in FlowyML" not in done.stderr


def test_a_file_of_the_users_that_hides_a_module(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "from flowyml import pipeline, step\n\n"
        "@step\ndef one(n: int) -> int:\n    return n\n\n@pipeline\ndef hiding(n: int = 3):\n    return one(n)\n"
    )
    (tmp_path / "platformdirs.py").write_text("dump = None\n")
    environment = {name: value for name, value in os.environ.items() if name != "FLOWYML_HOME"}
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", "run", "train.py", "--detach"],
        cwd=tmp_path, capture_output=True, text=True, timeout=2400, env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{tmp_path / 'platformdirs.py'} hides the module 'platformdirs'" in done.stderr
    assert "Rename that file." in done.stderr
    assert "bug in FlowyML" not in done.stderr


def test_a_record_that_cannot_be_written() -> None:
    command = f"ulimit -f 0; {sys.executable} -m flowyml run train.py"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 1
    assert "The record of local runs, " in done.stderr
    assert done.stderr.count("cannot be read or written: ") == 1
    assert "bug in FlowyML" not in done.stderr


@pytest.mark.parametrize(
    ("number", "file", "code", "message"),
    [
        (errno.EACCES, "local.db", 2, "keeps its data there: give that folder to this user, or set FLOWYML_HOME"),
        (errno.ENOSPC, "", 1, "error: No space left on device. FlowyML keeps its data in HOME: `flowyml prune`"),
    ],
)
def test_a_folder_of_ours_that_cannot_be_used_names_the_setting(
    number: int, file: str, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), *([str(home() / file)] if file else []))

    monkeypatch.setattr("flowyml.orchestrators.local.LocalOrchestrator.runs", refuse)  # root may read everything
    done = flowyml("runs")
    assert (done.code, message.replace("HOME:", f"{home()}:") in done.err) == (code, True), done.err
    assert "FLOWYML_HOME" in done.err


def test_ctrl_c_while_it_is_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupt:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "flowyml.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "flowyml.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupt(), *sys.meta_path])
    assert flowyml("runs") == Done(130, "", "")


# Help and terminals.


def test_help_names_every_command() -> None:
    done = flowyml("--help")
    assert done.code == 0
    for verb in ("run", "deploy", "compile", "bundle", "graph", "runs", "status", "watch", "logs", "outputs"):
        assert re.search(rf"│ {verb} ", done.out), verb
    assert flowyml().out == done.out
    assert "--run-id" in flowyml("run", "-h").out
    assert "create" in flowyml("schedule").out
    assert flowyml("--version").out.startswith("flowyml 1.")


LOOP = """
from flowyml import pipeline, step

@step(on_item_error="continue")
def train_a_model_with_a_long_name(n: int) -> int:
    if n == 1:
        raise ValueError("no")
    return n

@pipeline
def loop():
    return train_a_model_with_a_long_name.map(n=[0, 1, 2])
"""


def test_status_folds_items_and_opens_those_that_failed_on_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("loop.py").write_text(LOOP)
    job = flowyml("run", "loop.py", "--json").json["job_id"]
    monkeypatch.setenv("COLUMNS", "40")
    assert on_a_terminal("status", job)[1:] == [
        "train_a_model_with_a_long… 3 of 3 FAILED", "  1 failed",
        "train_a_model_with_a_long_name[1] FAILED", "  ValueError: no",
    ]  # fmt: skip
    monkeypatch.setenv("COLUMNS", "120")
    loop, item = on_a_terminal("status", job)[2:4]
    assert re.fullmatch(r"train_a_model_with_a_long_name 3 of 3 +FAILED +[\d.]+ s +1 +1 failed", loop)
    assert re.fullmatch(r"train_a_model_with_a_long_name\[1\] +FAILED +[\d.]+ s +1 +ValueError: no", item)


@pytest.mark.processes
def test_a_terminal_gets_progress_and_colours() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowyml", "run", "train.py", "-p", "wait=1"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(2400) == 0
    text = seen.decode()
    assert "✓" in text
    assert "\x1b[32mCOMPLETED\x1b[0m" in text
