"""The command line as people and scripts use it, in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path, PosixPath
from typing import Any

import pytest

from flowyml.cli import main
from flowyml.graph.text import width

PIPELINE = """
import os, subprocess, sys, time
from pathlib import Path
from flowyml import Context, Pipeline, step

print("printed while loading")

@step(outputs=["rows_loaded"])
def load(rows: int, label: str) -> int:
    print("printed by a step")
    subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
    if label == "fail":
        raise ValueError("the label is fail")
    return rows

@step(outputs=["message", "things"])
def tell(rows_loaded: int, label: str, wait: float) -> tuple[str, object]:
    time.sleep(wait)
    return f"{label}: {rows_loaded}", {"path": Path("/x"), "nan": float("nan"), "tuple": (1, 2)}

training = Pipeline("training", context=Context(rows=3, label="plain", wait=0.0)).add_step(load).add_step(tell)
training.run()
"""

RUN_KEYS = {
    "job_id", "run_id", "pipeline", "orchestrator", "status", "raw_status", "created_at", "started_at", "ended_at",
    "duration_seconds", "error", "url", "parameters", "revision",
}  # fmt: skip
STEP_KEYS = {
    "name", "index", "status", "raw_status", "attempt", "started_at", "ended_at", "duration_seconds", "error",
}  # fmt: skip


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which is the last line of standard error."""
        document: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return document


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    (tmp_path / "train.py").write_text(PIPELINE)
    yield
    for name in ("train", "odd", "loud", "broken"):
        sys.modules.pop(name, None)


def flowyml(*arguments: str) -> Done:
    """In this process, which is quick."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(arguments)
    return Done(code, out.getvalue(), err.getvalue())


def command(*arguments: str, **environment: str) -> Done:
    """In a process of its own, where it matters."""
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


# Running.


def test_a_run_tells_its_outputs() -> None:
    done = flowyml("run", "train.py", "-p", "rows=5", "-p", "label=7")
    assert done.code == 0
    assert re.search(r"^training COMPLETED in \d+\.\d s, run training-", done.out, re.MULTILINE)
    assert "  message = '7: 5'\n" in done.out
    assert done.err == ""


def test_a_run_as_json_is_one_document_whatever_is_printed() -> None:
    done = command("run", "train.py", "--run-id", "mine", "--json")
    assert done.code == 0
    document = done.json
    assert set(document) == RUN_KEYS | {"steps", "outputs"}
    assert [set(step) for step in document["steps"]] == [STEP_KEYS] * 2
    assert (document["job_id"], document["status"], document["orchestrator"]) == ("mine", "COMPLETED", "local")
    assert document["parameters"] == {"rows": 3, "label": "plain", "wait": 0.0}
    assert document["outputs"]["message"] == "plain: 3"
    assert document["outputs"]["things"] == {  # pathlib's classes stand in pathlib._local on Python 3.13
        "path": {"$type": f"{PosixPath.__module__}.PosixPath", "$repr": "PosixPath('/x')"},
        "nan": {"$type": "float", "$repr": "nan"},
        "tuple": [1, 2],
    }
    assert datetime.fromisoformat(document["started_at"]).tzinfo is not None
    for text in ("printed while loading", "printed by a step", "printed by a child"):
        assert text in done.err


def test_a_failed_run_has_exit_code_1() -> None:
    done = flowyml("run", "train.py", "-p", "label=fail")
    assert done.code == 1
    assert "training FAILED" in done.out
    assert "error: step 'load' failed: ValueError: the label is fail" in done.err
    as_json = flowyml("run", "train.py", "-p", "label=fail", "--json")
    assert as_json.code == 1
    assert as_json.json["status"] == "FAILED"
    assert "the label is fail" in as_json.json["error"]


def test_the_same_run_id_is_the_same_run() -> None:
    first = flowyml("run", "train.py", "--run-id", "once", "--json").json
    second = flowyml("run", "train.py", "--run-id", "once", "--json").json
    assert first["started_at"] == second["started_at"]
    assert len(flowyml("runs", "--json").json) == 1


def test_a_bundle_runs_like_its_file() -> None:
    bundled = flowyml("bundle", "train.py", "-o", "dist", "--json")
    assert set(bundled.json) == {"pipeline", "path", "digest", "size"}
    path = bundled.json["path"]
    assert Path(path).stat().st_size == bundled.json["size"]
    Path("train.py").unlink()
    assert flowyml("run", path, "-p", "rows=4", "--json").json["outputs"]["message"] == "plain: 4"


# A submitted run and everything that can be asked of it.


def test_a_detached_run_can_be_watched_and_read() -> None:
    submitted = flowyml("run", "train.py", "--detach", "--json", "-p", "wait=0.5")
    assert submitted.code == 0
    assert set(submitted.json) == RUN_KEYS
    job = submitted.json["job_id"]
    watched = flowyml("watch", job)
    assert watched.code == 0
    assert "training COMPLETED" in watched.out

    status = flowyml("status", job, "--json").json
    assert set(status) == RUN_KEYS | {"steps"}
    assert [step["status"] for step in status["steps"]] == ["COMPLETED", "COMPLETED"]
    shown = flowyml("status", job)
    assert re.search(r"^load +COMPLETED ", shown.out, re.MULTILINE)

    lines = [json.loads(line) for line in flowyml("logs", job, "-f", "--json").out.splitlines()]
    assert {frozenset(line) for line in lines} == {frozenset({"time", "step", "index", "level", "message"})}
    assert ("load", "printed by a step") in {(line["step"], line["message"]) for line in lines}
    assert "load │ printed by a step" in flowyml("logs", job).out
    assert flowyml("logs", job, "--step", "tell").out == ""
    typo = flowyml("logs", job, "--step", "tel")
    assert (typo.code, typo.err) == (2, "error: This run has no step 'tel'. It has: load, tell.\n")

    assert flowyml("outputs", job, "--json").json["message"] == "plain: 3"
    assert flowyml("outputs", job, "message").out == "plain: 3\n"
    missing = flowyml("outputs", job, "nothing")
    assert missing.code == 2
    assert "It has: message, things." in missing.err

    assert flowyml("cancel", job, "--json").json == {"job_id": job, "cancelled": False, "status": "COMPLETED"}
    assert flowyml("cancel", job).out == "nothing to cancel: it is COMPLETED\n"


def test_a_run_can_be_cancelled_and_waiting_has_an_end() -> None:
    job = flowyml("run", "train.py", "-d", "-p", "wait=60").out.splitlines()[-1]
    waited = flowyml("watch", job, "--timeout", "0.3", "--json")
    assert waited.code == 124
    assert waited.error["type"] == "WaitTimeoutError"
    assert waited.error["exit_code"] == 124
    assert flowyml("cancel", job).out == "cancelled\n"
    ended = flowyml("watch", job, "--json")
    assert ended.code == 1
    assert ended.json["status"] == "CANCELLED"
    outputs = flowyml("outputs", job)
    assert outputs.code == 1
    assert "only a completed run has outputs" in outputs.err
    as_json = flowyml("outputs", job, "--json")
    assert (as_json.code, as_json.error["exit_code"]) == (1, 1)
    assert "is CANCELLED: only a completed run has outputs" in as_json.error["message"]


def test_run_with_a_timeout_stops_waiting_and_the_run_goes_on() -> None:
    done = flowyml("run", "train.py", "--timeout", "0.3", "-p", "wait=60", "--run-id", "slow")
    assert done.code == 124
    assert flowyml("status", "slow", "--json").json["status"] in ("RUNNING", "QUEUED")
    assert flowyml("cancel", "slow", "--json").json["cancelled"]


def started(run_id: str, wait: float) -> subprocess.Popen[str]:
    """A run in a command of its own, whose second step waits when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "flowyml", "run", "train.py", "-p", f"wait={wait}", "--run-id", run_id],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "by a child" in line:
            break
    time.sleep(0.3)
    return process


def test_ctrl_c_stops_a_run_here() -> None:
    process = started("stopped", 60)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert flowyml("status", "stopped", "--json").json["status"] == "CANCELLED"


def test_a_run_in_another_command_is_told_to_stop() -> None:
    process = started("elsewhere", 3)  # a step in a thread is stopped once its sleep is over
    assert flowyml("cancel", "elsewhere").out == "being cancelled: its work has been asked to stop\n"
    process.communicate(timeout=30)
    assert process.returncode == 1
    assert flowyml("cancel", "elsewhere").out == "nothing to cancel: it is CANCELLED\n"


def test_runs_are_listed_newest_first() -> None:
    assert flowyml("runs").err == "no runs yet\n"
    assert flowyml("runs", "--json").json == []
    for name in ("a", "b"):
        flowyml("run", "train.py", "--run-id", name)
    found = flowyml("runs", "--json").json
    assert [run["run_id"] for run in found] == ["b", "a"]
    assert {frozenset(run) for run in found} == {frozenset(RUN_KEYS)}
    assert [run["run_id"] for run in flowyml("runs", "-n", "1", "--json").json] == ["b"]
    assert flowyml("runs", "--pipeline", "other", "--json").json == []
    assert flowyml("runs").out.splitlines()[0].split() == ["ID", "PIPELINE", "STATUS", "STARTED", "TOOK", "JOB"]


# Making.


def test_compile_to_the_plan() -> None:
    printed = command("compile", "train.py", "--to", "plan")
    assert json.loads(printed.out)["name"] == "training"
    assert printed.err == "printed while loading\n"
    document = command("compile", "train.py", "--to", "plan", "-o", "out.json", "--json").json
    assert document == {"engine": "plan", "files": ["out.json"]}
    unwritten = flowyml("compile", "train.py", "--to", "plan", "--json").json
    assert (unwritten["files"], json.loads(unwritten["text"])["name"]) == ([], "training")
    plan = json.loads(Path("out.json").read_text())
    assert (plan["name"], plan["schema_version"]) == ("training", 1)


def test_compile_to_an_engine_writes_the_main_file_as_named_and_the_rest_beside() -> None:
    files = flowyml("compile", "train.py", "--to", "prefect", "-o", "flows/flow.py", "--json").json["files"]
    assert files[0] == "flows/flow.py"
    assert sorted(map(str, Path("flows").iterdir())) == sorted(files)
    compile(Path("flows/flow.py").read_text(), "flow.py", "exec")
    inside = flowyml("compile", "train.py", "--to", "prefect", "-o", "all/", "--json").json["files"]
    assert len(inside) == len(files)
    assert all(file.startswith("all/") for file in inside)
    assert "@flow" in flowyml("compile", "train.py", "--to", "prefect").out


def test_compile_to_what_has_no_files() -> None:
    done = flowyml("compile", "train.py", "--to", "local")
    assert done.code == 2
    assert "there is nothing to compile to" in done.err


@pytest.mark.parametrize("words", [("compile", "--to", "plan"), ("compile", "--to", "prefect"), ("graph",)])
def test_nothing_is_written_over_the_source(words: tuple[str, ...]) -> None:
    source = Path("train.py").read_bytes()
    done = flowyml(words[0], "train.py", *words[1:], "-o", "./train.py")
    assert done.code == 2
    assert "train.py is source code of this pipeline" in done.err
    assert Path("train.py").read_bytes() == source


def test_a_graph_in_each_form() -> None:
    assert "│ load  │" in flowyml("graph", "train.py").out
    assert flowyml("graph", "train.py", "-f", "mermaid", "-o", "g.mmd").out.endswith("g.mmd\n")
    assert Path("g.mmd").read_text().startswith("flowchart LR\n")
    flowyml("graph", "train.py", "--format", "svg", "-o", "g.svg")
    assert Path("g.svg").read_text().startswith("<svg ")
    steps = [
        {"name": "load", "after": [], "outputs": ["rows_loaded"]},
        {"name": "tell", "after": ["load"], "outputs": ["message", "things"]},
    ]
    assert flowyml("graph", "train.py", "--json").json == {"pipeline": "training", "steps": steps}
    assert flowyml("graph", "train.py", "--json", "-o", "g.svg", "-f", "svg").json["path"] == "g.svg"


def test_a_place_that_cannot_be_written_is_one_error() -> None:
    done = flowyml("compile", "train.py", "--to", "plan", "-o", "train.py/plan.json")
    assert done.code == 2
    assert "cannot be written" in done.err


def test_deploy() -> None:
    first = flowyml("deploy", "train.py", "--json").json
    assert set(first) == {"name", "digest", "changed", "url", "also"}
    assert first["changed"]
    assert not flowyml("deploy", "train.py", "--json").json["changed"]
    assert "training already deployed, version " in flowyml("deploy", "train.py").out


# Schedules.


def test_a_schedule_from_its_creation_to_its_end() -> None:
    made = command(
        "schedule", "create", "train.py", "weekly", "MON:09:00", "--timezone", "Europe/Berlin", "-p", "rows=9", "--json"
    )
    assert made.code == 0
    assert "warning: The schedule is saved, but nothing will fire until" in made.err
    info = made.json
    assert set(info) == {"schedule_id", "pipeline", "orchestrator", "schedule", "paused", "next_runs", "drift"}
    assert info["schedule"] == {"cron": "0 9 * * 1", "timezone": "Europe/Berlin", "parameters": {"rows": 9}}
    assert datetime.fromisoformat(info["next_runs"][0]).hour == 9
    name = info["schedule_id"]
    assert [item["schedule_id"] for item in flowyml("schedule", "list", "--json").json] == [name]
    assert flowyml("schedule", "pause", name, "--json").json["paused"]
    assert "paused" in flowyml("schedule", "list").out
    assert not flowyml("schedule", "resume", name, "--json").json["paused"]
    assert flowyml("schedule", "delete", name, "--json").json == {"schedule_id": name, "deleted": True}
    gone = flowyml("schedule", "delete", name, "--json")
    assert gone.code == 4
    assert gone.error["type"] == "ScheduleNotFoundError"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("daily", "25"), "daily takes an hour from 0 to 23, not 25"),
        (("cron", "* * *"), "has 3 fields"),
        (("interval", "often"), "interval takes seconds"),
        (("interval", "1e400"), "interval=inf: use a number of seconds"),
        (("daily", "3", "--timezone", "Mars/Base"), "Unknown time zone"),
        (("daily", "3", "--start", "soon"), "--start 'soon' is not a time"),
        (("daily", "3", "-p", "rows=x"), "'rows' must be of type integer"),
        (("yearly", "3"), "'yearly'"),
    ],
)
def test_a_schedule_that_makes_no_sense(words: tuple[str, ...], message: str) -> None:
    done = flowyml("schedule", "create", "train.py", *words)
    assert done.code == 2
    assert message in done.err
    assert flowyml("schedule", "list", "--json").json == []


def test_serve_fires_what_is_due() -> None:
    command("schedule", "create", "train.py", "interval", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "flowyml", "schedule", "serve"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (found := flowyml("runs", "--json").json) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert found[0]["pipeline"] == "training"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "serving the schedules in" in err
    flowyml("watch", found[0]["job_id"])


# Engines.


def test_backends_tell_what_each_can_do() -> None:
    found = {item["name"]: item for item in flowyml("backends", "--json").json}
    local = found["local"]
    assert set(local) == {
        "name", "engine", "state", "installed", "install", "problem", "reachable", "version", "url", "detail",
        "capabilities",
    }  # fmt: skip
    assert (local["state"], local["installed"], local["reachable"]) == ("ready", True, True)
    assert local["capabilities"]["PARALLEL_STEPS"] == {"level": "yes", "note": None}
    assert local["capabilities"]["RESOURCES_GPU"]["level"] == "partly"
    assert found["prefect"]["capabilities"]["SCHEDULE_CRON"]["level"] == "yes"
    text = flowyml("backends").out
    assert re.search(r"^local +local +ready", text, re.MULTILINE)
    assert re.search(r"^GPU requests ", text, re.MULTILINE)
    assert "Not reserved: each step sees all that this machine has" in flowyml("backends", "show", "local").out


def test_a_broken_plugin_is_one_line_of_backends(tmp_path: Path) -> None:
    (tmp_path / "acme_plugin.py").write_text("raise RuntimeError('acme is broken')\n")
    metadata = tmp_path / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[flowyml.orchestrators]\nacme = acme_plugin:Acme\n")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    found = {item["name"]: item for item in command("backends", "--json", PYTHONPATH=path).json}
    assert found["acme"]["state"] == "broken"
    assert "acme is broken" in found["acme"]["problem"]
    assert found["local"]["state"] == "ready"
    done = command("run", "train.py", "--on", "acme", PYTHONPATH=path)
    assert done.code == 3
    assert "'acme' of acme cannot be loaded" in done.err


def test_configured_targets_are_backends_too() -> None:
    Path("flowyml.toml").write_text('[orchestrators.here]\nengine = "local"\nworkers = "processes"\n')
    found = {item["name"]: item for item in flowyml("backends", "--json").json}
    assert (found["here"]["engine"], found["here"]["state"]) == ("local", "ready")
    assert flowyml("run", "train.py", "--on", "here", "--json").json["status"] == "COMPLETED"
    wrong = command("run", "train.py", "--on", "here", FLOWYML_ORCHESTRATORS__HERE__WORKERS="many")
    assert wrong.code == 2
    assert "FLOWYML_ORCHESTRATORS__HERE__WORKERS" in wrong.err


def test_a_target_that_cannot_be_used_is_one_line_of_backends() -> None:
    Path("flowyml.toml").write_text('[orchestrators.un]\nengine = "spark"\n')
    found = {item["name"]: item for item in flowyml("backends", "--json").json}
    assert (found["un"]["engine"], found["un"]["state"]) == ("spark", "not configured")
    assert "there is no engine 'spark'" in found["un"]["problem"]
    assert flowyml("run", "train.py", "--json").json["status"] == "COMPLETED"
    wrong = flowyml("run", "train.py", "--on", "un")
    assert (wrong.code, "there is no engine 'spark'" in wrong.err) == (2, True)


def test_stopping_a_server_that_does_not_run() -> None:
    assert flowyml("backends", "stop", "local", "--json").json == {"engine": "local", "stopped": False}
    assert flowyml("backends", "stop", "nope").code == 4


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
        (("nope",), 2, "UsageError"),
    ],
)
def test_an_error_is_an_exit_code_and_an_object(arguments: tuple[str, ...], code: int, kind: str) -> None:
    done = flowyml(*arguments, "--json")
    assert (done.code, done.out) == (code, "")
    assert done.error["exit_code"] == code
    assert done.error["type"] == kind
    assert done.error["message"]


def test_errors_say_what_would_be_right() -> None:
    Path("odd.py").write_text(
        "from typing import Literal\nfrom flowyml import pipeline, step\n"
        "@step(outputs=['a', 'b'])\ndef two(mode: str) -> int:\n    return 1\n"
        "@pipeline\ndef odd(mode: Literal['x', 'y'] | None = 'x', sizes: dict[str, int] | None = None):\n"
        "    two(mode)\n"
    )
    for arguments, said in {
        ("-p", "mode=z"): "'mode': 'z' is not 'x' or 'y' or null.",
        ("-p", 'sizes={"a": "b"}'): "'sizes'['a']: 'b' is not of type 'integer'.",
        ("-p", "mode=x", "-p", "mode=y"): "-p mode: it is given twice.",
    }.items():
        done = flowyml("run", "odd.py", *arguments)
        assert (done.code, said in done.err) == (2, True), done.err
    done = command("run", "odd.py")
    assert "Step 'two' declares 2 outputs ('a', 'b') and returned one int." in done.err
    assert "step 'two': step" not in done.err
    assert "failed: step" not in done.err
    wrong = {
        "FLOWYML_ORCHESTRATORS__L__ENGINE": "local",
        "FLOWYML_ORCHESTRATORS__L__RETRY_POLICY": '{"max_attempts": 0}',
    }
    done = command("run", "odd.py", "--on", "l", **wrong)
    assert "Value error" not in done.err
    assert done.err.endswith("max_attempts must be a whole number from 1.\n")


def test_an_output_whose_class_is_elsewhere_says_how_to_read_it(tmp_path: Path) -> None:
    Path("away").mkdir()
    Path("away/shapes.py").write_text("class Shape:\n    pass\n")
    Path("odd.py").write_text(
        "from flowyml import pipeline, step\nimport shapes\n@step(outputs=['shape'])\ndef one():\n"
        "    return shapes.Shape()\n@pipeline\ndef odd():\n    return one()\n"
    )
    ran = command("run", "odd.py", "--run-id", "shaped", PYTHONPATH=str(tmp_path / "away"))
    assert ran.code == 0, ran.err
    told = command("outputs", "shaped").out
    assert "was kept, but its class cannot be imported here: ModuleNotFoundError: No module named 'shapes'." in told
    assert "Set PYTHONPATH to the folder of its module" in told
    there = command("outputs", "shaped", PYTHONPATH=str(tmp_path / "away"))
    assert "shape = <shapes.Shape object" in there.out


def test_an_output_of_a_scripts_own_class_is_read_where_the_script_can_be_imported(tmp_path: Path) -> None:
    Path("away").mkdir()
    Path("away/script.py").write_text(
        "from flowyml import pipeline, step\nclass Shape:\n    pass\n@step(outputs=['shape'])\ndef one():\n"
        "    return Shape()\n@pipeline\ndef shaping():\n    return one()\n"
        "if __name__ == '__main__':\n    shaping.run(run_id='own').raise_for_status()\n"
    )
    subprocess.run([sys.executable, "away/script.py"], check=True, timeout=60, stdin=subprocess.DEVNULL)
    assert "cannot be imported here: ModuleNotFoundError: No module named 'script'." in command("outputs", "own").out
    there = command("outputs", "own", PYTHONPATH=str(tmp_path / "away"))
    assert "shape = <script.Shape object" in there.out


def test_an_error_is_one_line_for_people_unless_they_debug() -> None:
    done = flowyml("run", "train.py", "-p", "row=5")
    assert done.err.splitlines()[-1].startswith("error: Parameters of pipeline 'training': there is no parameter 'row'")
    assert "Traceback" not in done.err
    debugged = command("run", "train.py", "-p", "row=5", FLOWYML_DEBUG="1")
    assert debugged.code == 2
    assert "Traceback" in debugged.err


def test_a_file_that_cannot_be_loaded_shows_where() -> None:
    Path("broken.py").write_text("x = 1\ny = x / 0\n")
    done = flowyml("run", "broken.py")
    assert done.code == 2
    assert 'broken.py", line 2' in done.err
    assert done.err.splitlines()[-1] == "error: broken.py cannot be loaded: ZeroDivisionError: division by zero"


def test_a_server_that_is_no_engine() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        done = command("runs", "--on", f"http://127.0.0.1:{server.server_port}", no_proxy="127.0.0.1")
        server.shutdown()
        thread.join()
    assert done.code == 4
    assert "No known engine answers at" in done.err
    assert "/api/admin/version answered 404" in done.err


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


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_runs_on_a_terminal_are_one_line_each(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    Path("odd.py").write_text(
        "from flowyml import Pipeline, step\n@step(outputs=['value'])\ndef one() -> int:\n    return 1\n"
        "p = Pipeline('a pipeline with quite a long name 日本語').add_step(one)\n"
    )
    flowyml("run", "odd.py")
    flowyml("run", "train.py", "-p", "label=fail", "--run-id", "mine")

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    with redirect_stdout(Terminal()) as out:
        main(["runs"])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in out.getvalue().splitlines()]
    assert len(lines) == 3
    assert max(width(line.rstrip()) for line in lines) <= columns
    assert lines[1].split()[:3] == ["mine", "training", "FAILED"]
    assert re.match(r"[0-9a-f]{8}  a pipeli.* COMPLETED ", lines[2])
    assert ("TOOK" in lines[0]) == (columns >= 80)


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


def test_what_an_encoding_lacks_is_shown_as_an_escape() -> None:
    run = command("run", "train.py", "-p", "label=Größe", PYTHONIOENCODING="ascii")
    assert (run.code, "Gr\\xf6\\xdfe: 3" in run.out) == (0, True), run.err
    assert command("runs", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").code == 0
    job = json.loads(command("runs", "--json", PYTHONIOENCODING="ascii").out)[0]["job_id"]
    logs = command("logs", job, PYTHONIOENCODING="ascii")
    assert (logs.code, "load \\u2502 printed by a step" in logs.out) == (0, True), logs.err


def test_a_reader_that_leaves_is_no_error() -> None:
    Path("loud.py").write_text(
        "from flowyml import pipeline, step\n@step\ndef one() -> int:\n    for n in range(20000):\n        print(n)\n"
        "    return 1\n@pipeline\ndef loud():\n    return one()\n"
    )
    flowyml("run", "loud.py", "--run-id", "loud")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m flowyml logs loud | head -n 1"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.endswith("0\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_step_does_not_fail_because_nobody_reads_what_it_prints() -> None:
    Path("loud.py").write_text(
        "from flowyml import pipeline, step\n@step\ndef one() -> int:\n    for n in range(20000):\n"
        "        print(n, flush=True)\n    return 1\n@pipeline\ndef loud():\n    return one()\n"
    )
    subprocess.run(
        f"{sys.executable} -m flowyml run loud.py --run-id loud | head -n 1", shell=True, check=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert flowyml("status", "loud", "--json").json["status"] == "COMPLETED"
    assert flowyml("logs", "loud").out.endswith("19999\n")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("graph train.py >&-", 0, ""),
        ("run train.py >&-", 0, ""),
        ("run train.py --json >&-", 0, ""),
        ("runs 2>&-", 0, ""),
        ("runs --json >/dev/full", 1, "No space left on device"),
    ],
)
def test_streams_that_are_closed_or_full(words: str, code: int, told: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m flowyml {words}", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert told in done.stderr
    assert "fault of FlowyML" not in done.stderr


def test_a_file_of_the_users_that_hides_a_module(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "from flowyml import pipeline, step\n\n"
        "@step\ndef one(n: int) -> int:\n    return n\n\n@pipeline\ndef hiding(n: int = 3):\n    return one(n)\n"
    )
    (tmp_path / "cloudpickle.py").write_text("dump = None\n")
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", "run", "train.py", "--detach"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{tmp_path / 'cloudpickle.py'} hides the module 'cloudpickle'" in done.stderr
    assert "Rename that file." in done.stderr
    assert "fault of FlowyML" not in done.stderr


def test_a_record_that_cannot_be_written() -> None:
    command = f"ulimit -f 0; {sys.executable} -m flowyml run train.py"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "The record of local runs, " in done.stderr
    assert done.stderr.count("cannot be read or written: ") == 1
    assert "fault of FlowyML" not in done.stderr


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
    for command in ("run", "deploy", "compile", "bundle", "graph", "runs", "status", "watch", "logs", "outputs"):
        assert re.search(rf"│ {command} ", done.out), command
    assert flowyml().out == done.out
    assert "--run-id" in flowyml("run", "-h").out
    assert "create" in flowyml("schedule").out
    assert flowyml("--version").out.startswith("flowyml 1.")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def test_a_terminal_gets_progress_and_colours(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
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
    assert process.wait(30) == 0
    text = seen.decode()
    assert "✓" in text
    assert "\x1b[32mCOMPLETED\x1b[0m" in text


@pytest.mark.parametrize("engine", ["prefect", "kubeflow", "airflow", "plan"])
def test_compile_writes_over_no_file_that_people_wrote_or_edited(engine: str) -> None:
    """One rule for all formats: a comment that looks like FlowyML's mark is none."""
    main = Path(flowyml("compile", "train.py", "--to", engine, "-o", "made/", "--json").json["files"][0])
    again = ("compile", "train.py", "--to", engine, "-o", "made/")
    assert flowyml(*again).code == 0, "its own file is replaced"
    written = main.read_bytes()
    main.write_bytes(b" " + written)
    done = flowyml(*again)
    assert (done.code, main.read_bytes()) == (2, b" " + written)
    assert f"{main} was edited after FlowyML wrote it" in done.err
    assert flowyml(*again, "--force").code == 0
    assert main.read_bytes() == written
    main.write_text("# flowyml: TODO\n")
    for words in (again, (*again, "--force")):
        done = flowyml(*words)
        assert (done.code, main.read_text()) == (2, "# flowyml: TODO\n")
        assert "was not written by FlowyML and would be lost" in done.err


def test_a_bundle_takes_no_place_of_what_people_wrote() -> None:
    path = Path(flowyml("bundle", "train.py", "--json").json["path"])
    path.write_text("mine")
    done = flowyml("bundle", "train.py")
    assert (done.code, path.read_text()) == (2, "mine")
    assert f"{path} was not written by FlowyML and would be lost" in done.err
