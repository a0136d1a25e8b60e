"""The command line as people and scripts use it; in a process of its own where that matters."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PosixPath
from types import SimpleNamespace

import pytest

from flowyml.cli.log_lines import LogPrinter
from flowyml.core.capabilities import Feature
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import LogLine
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.commands import RUN_KEYS, STEP_KEYS, Done, command, flowyml
from tests.unit.conftest import InstallPlugin
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("train")


# Running.


def test_a_run_tells_its_outputs() -> None:
    done = flowyml("run", "train.py", "-p", "rows=5", "-p", "label=7")
    assert done.code == 0
    assert re.search(r"^training COMPLETED in [\d.]+ s, run training-", done.out, re.MULTILINE)
    assert "  message = '7: 5'\n" in done.out
    assert done.err == ""


def test_a_table_is_shown_as_one(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text(
        "import pandas\nfrom flowyml import Pipeline, step\n\n@step\ndef load():\n"
        "    return pandas.DataFrame({'city': ['Oslo', 'Rome'] * 10, 'sold': range(20)})\n\n"
        "sold = Pipeline('sold').add_step(load)\n"
    )
    lines = flowyml("run", "table.py").out.splitlines()
    assert lines[1:4] == ["  load is a table of 20 rows and 2 columns:", "city  sold", "Oslo  0"]
    assert len(lines) == 13, "its head"


def test_a_list_of_tables_is_shown_as_tables(tmp_path: Path) -> None:
    (tmp_path / "tables.py").write_text(
        "import pandas\nfrom flowyml import pipeline, step\n\n@step\ndef load(n):\n"
        "    return pandas.DataFrame({'sold': range(n)})\n\n"
        "@pipeline\ndef sold():\n    return load.map(n=[1, 2, 1, 2, 1])\n"
    )
    lines = [line for line in flowyml("run", "tables.py").out.splitlines() if line.startswith("  load")]
    assert lines == [
        "  load[0] is a table of 1 row and 1 column:", "  load[1] is a table of 2 rows and 1 column:",
        "  load[2] is a table of 1 row and 1 column:", "  load: 2 more tables",
    ]  # fmt: skip


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
    assert "error: step 'load': ValueError: the label is fail" in done.err
    waited = flowyml("run", "train.py", "-p", "label=fail", "--timeout", "600", "--run-id", "bad")
    assert waited.err.endswith("its log, with the traceback: flowyml logs bad\n"), "as of a run on an engine"
    assert flowyml("logs", "bad").out.count("ValueError: the label is fail") == 1
    cleared = flowyml("clear", "bad")
    said = "'local' cannot clear steps. To run the failed steps of a run again, use retry."
    assert (cleared.code, said in cleared.err) == (2, True)
    as_json = flowyml("run", "train.py", "-p", "label=fail", "--json")
    assert as_json.code == 1
    assert as_json.json["status"] == "FAILED"
    assert "the label is fail" in as_json.json["error"]


def test_the_same_run_id_is_the_same_run_which_is_not_said_to_be_submitted() -> None:
    first, second = (flowyml("run", "train.py", "--run-id", "once", "--json").json for _ in range(2))
    assert first["started_at"] == second["started_at"]
    assert len(flowyml("runs", "--json").json) == 1
    again = flowyml("run", "train.py", "--run-id", "once", "--detach")
    assert (again.code, again.out.splitlines()[-1]) == (0, "once")
    assert (
        again.err.splitlines()[-1]
        == "a run with this id has already ended (COMPLETED); use another --run-id for a new run"
    )
    assert "submitted" not in again.err
    waited = flowyml("run", "train.py", "--run-id", "once")
    assert "a run with this id has already ended" in waited.err
    assert "has already ended" not in flowyml("run", "train.py", "--run-id", "twice").err
    assert flowyml("run", "train.py", "--run-id", "once", "--detach", "--json").json["status"] == "COMPLETED"


def test_a_backfill_of_a_range_that_is_done_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowyml.cli.operating.resolve", lambda _: SimpleNamespace(backfill=lambda *_, **__: []))
    words = ("backfill", "etl", "2026-01-01", "2026-01-02")
    assert flowyml(*words) == Done(0, "", "")
    assert flowyml(*words, "--json").json == []


def test_a_bundle_runs_like_its_file() -> None:
    bundled = flowyml("bundle", "train.py", "-o", "dist", "--json")
    assert set(bundled.json) == {"pipeline", "path", "digest", "size"}
    path = bundled.json["path"]
    assert Path(path).stat().st_size == bundled.json["size"]
    Path("train.py").unlink()
    assert flowyml("run", path, "-p", "rows=4", "--json").json["outputs"]["message"] == "plain: 4"


# A submitted run and everything that can be asked of it.


@pytest.mark.processes
def test_a_detached_run_can_be_watched_and_read() -> None:
    submitted = flowyml("run", "train.py", "--detach", "--json", "-p", "wait=0.5")
    assert submitted.code == 0
    assert set(submitted.json) == RUN_KEYS
    job = submitted.json["job_id"]
    watched = flowyml("watch", job)
    assert watched.code == 0
    assert "training COMPLETED" in watched.out

    status = flowyml("status", job, "--json").json
    assert set(status) == RUN_KEYS | {"steps", "not_kept"}
    assert status["not_kept"] == {}
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
    assert "of the pipeline: message, things; of the steps" in missing.err

    assert flowyml("cancel", job, "--json").json == {"job_id": job, "cancelled": False, "status": "COMPLETED"}
    assert flowyml("cancel", job).out == "nothing to cancel: it is COMPLETED\n"


def test_a_run_can_be_cancelled_and_waiting_has_an_end() -> None:
    job = flowyml("run", "train.py", "-d", "-p", "wait=600").out.splitlines()[-1]
    waited = flowyml("watch", job, "--timeout", "0.3", "--json")
    assert waited.code == 124
    assert waited.error["type"] == "WaitTimeoutError"
    assert waited.error["exit_code"] == 124
    again = flowyml("run", "train.py", "--run-id", job, "--timeout", "0.3", "-p", "wait=600")
    assert again.code == 124
    assert flowyml("status", job, "--json").json["status"] in ("QUEUED", "RUNNING")
    assert flowyml("cancel", job).out == "cancelled\n"
    ended = flowyml("watch", job, "--json")
    assert ended.code == 1
    assert ended.json["status"] == "CANCELLED", ended.json
    outputs = flowyml("outputs", job)
    assert outputs.code == 1
    assert "only a completed run has outputs" in outputs.err
    as_json = flowyml("outputs", job, "--json")
    assert (as_json.code, as_json.error["exit_code"]) == (1, 1)
    assert "is CANCELLED: only a completed run has outputs" in as_json.error["message"]


def started(run_id: str, wait: float, *words: str, until: str = "by a child") -> subprocess.Popen[str]:
    """A run in a command of its own, whose second step waits when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "flowyml", "run", "train.py", "-p", f"wait={wait}", "--run-id", run_id, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            break
    wait_until(lambda: flowyml("status", run_id, "--json").json["steps"][1]["status"] == "RUNNING")
    return process


@pytest.mark.processes
def test_ctrl_c_stops_a_run_here() -> None:
    process = started("stopped", 600)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=2400)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert flowyml("status", "stopped", "--json").json["status"] == "CANCELLED"


@pytest.mark.processes
def test_a_run_in_another_process_streams_its_lines_and_ctrl_c_cancels_it() -> None:
    """As on an engine: with a limit for the waiting, the run is submitted."""
    process = started("away", 600, "--timeout", "1200", until="load │ printed by a step")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=2400)
    assert process.returncode == 130
    assert "Interrupted: cancelling run away on local, job away …\nTo see how it ends: flowyml watch away\n" in err
    assert "Traceback" not in err
    assert flowyml("watch", "away", "--json").json["status"] == "CANCELLED"


@pytest.mark.processes
def test_cancel_stops_a_run_of_another_command() -> None:
    process = started("elsewhere", 600)
    wait_until(lambda: "by a step" in flowyml("logs", "elsewhere").out)  # all that it printed is recorded
    process.send_signal(signal.SIGSTOP)  # so that it has not ended when the command looks
    try:
        assert flowyml("cancel", "elsewhere").out == "being cancelled: its work has been asked to stop\n"
    finally:
        process.send_signal(signal.SIGCONT)
    process.communicate(timeout=2400)
    assert process.returncode == 1
    assert flowyml("cancel", "elsewhere").out == "nothing to cancel: it is CANCELLED\n"


LARGE = """
import time
from pathlib import Path
from flowyml import pipeline, step

@step
def make() -> str:
    print("made")
    return "x" * 100_000

@step
def size(text: str) -> int:
    while not Path("{folder}/go").exists():
        time.sleep(0.05)
    return len(text)

@pipeline
def large():
    text = make()
    return {{"text": text, "size": size(text)}}
"""


@pytest.mark.processes
def test_a_run_keeps_what_it_made_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    Path("large.py").write_text(LARGE.format(folder=tmp_path))
    words = [sys.executable, "-m", "flowyml", "run", "large.py", "--run-id", "killed"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    local = LocalOrchestrator()
    wait_until(lambda: local.store.find("killed") and local.step_runs("killed")[1].status is ExecutionStatus.RUNNING)
    process.kill()
    process.communicate()
    assert (local.get_run("killed").error or "").endswith("`flowyml retry killed` continues it.")
    (tmp_path / "go").touch()
    retried = flowyml("retry", "killed")
    assert (retried.code, "flowyml retry killed --with-new-code FILE" in retried.err) == (0, True)
    assert flowyml("watch", "killed").code == 0
    assert flowyml("run", "large.py", "--run-id", "whole").err == ""
    for run_id in ("killed", "whole"):
        assert local.outputs(run_id) == {"text": "x" * 100_000, "size": 100_000}
        assert not local.store.folder_of(run_id).exists()


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
    assert flowyml("runs").out.splitlines()[0].split() == [
        "ID", "PIPELINE", "STATUS", "STARTED", f"({datetime.now().astimezone():%Z})", "TOOK", "JOB",
    ]  # fmt: skip


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
    assert "Not reserved: each step sees all GPUs of this machine" in flowyml("backends", "show", "local").out
    assert flowyml("backends", "show", "kubeflow").out.count("No Kubeflow Pipelines URL is set.") == 1


def test_a_broken_plugin_is_one_line_of_backends(install_plugin: InstallPlugin) -> None:
    install_plugin("acme", "raise RuntimeError('acme is broken')\n", dist="acme")
    found = {item["name"]: item for item in flowyml("backends", "--json").json}
    assert found["acme"]["state"] == "broken"
    assert "acme is broken" in found["acme"]["problem"]
    assert found["local"]["state"] == "ready"


def test_a_target_that_cannot_be_used_is_one_line_of_backends() -> None:
    Path("flowyml.toml").write_text('[orchestrators.un]\nengine = "spark"\n')
    found = {item["name"]: item for item in flowyml("backends", "--json").json}
    assert (found["un"]["engine"], found["un"]["state"]) == ("spark", "not configured")
    assert "engine 'spark' is unknown" in found["un"]["problem"]
    said = flowyml("backends", "--for", "train.py", "--json").json["backends"]
    (un,) = [item for item in said if item["name"] == "un"]
    assert (un["can_run"], "engine 'spark' is unknown" in un["problem"]) == (False, True)
    assert re.search(r"^un +spark +not known: ", flowyml("backends", "--for", "train.py").out, re.MULTILINE)


TIRED = """
from flowyml.orchestrators.base import Orchestrator
from flowyml.core.capabilities import Capabilities, Feature, no, partly, yes

class Made(Orchestrator):
    name = "tired"
    capabilities = Capabilities("tired", {
        Feature.STEP_RETRY: partly("twice"), Feature.FAN_OUT: no("it runs a step once"), Feature.PARAMETERS: yes,
    })
    submit = reader = cancel = health = None
"""
LOOPS = """
from flowyml import pipeline, step

@step(retry=3)
def load(day: str) -> int:
    return len(day)

@step(local={"share": True})
def total(lengths: list[int]) -> int:
    return sum(lengths)

@pipeline
def week(days: list[str] = ["monday"]):
    return total(load.map(day=days))

@pipeline
def day():
    return load("monday")
"""


def test_backends_say_who_can_run_a_file_and_which_step_rules_the_others_out(
    install_plugin: InstallPlugin,
) -> None:
    install_plugin("tired", TIRED)
    Path("loops.py").write_text(LOOPS)
    said = flowyml("backends", "--for", "loops.py:week", "--json").json
    found = {item["name"]: item for item in said["backends"]}
    assert said["pipeline"] == "week"
    assert found["local"] == {
        "name": "local", "engine": "local", "can_run": True, "install": None, "problem": None, "lacks": [],
        "limits": [],
    }  # fmt: skip
    lack, limit = found["tired"]["lacks"], found["tired"]["limits"]
    title = "Fan-out over a list (map, for_each)"
    assert lack == [{"feature": "FAN_OUT", "title": title, "steps": ["load"], "reason": "It runs a step once."}]
    assert [(item["feature"], item["steps"], item["reason"]) for item in limit] == [("STEP_RETRY", ["load"], "Twice.")]
    assert not found["tired"]["can_run"]
    text = flowyml("backends", "--for", "loops.py:week").out
    assert re.search(r"^local +local +yes$", text, re.MULTILINE)
    assert re.search(r"^tired +tired +no$", text, re.MULTILINE)
    assert "\ntired cannot run week:\n  - Fan-out over a list (map, for_each), for load: It runs a step once.\n" in text
    assert "Twice" not in text, "limits are of those that can run it"
    text = flowyml("backends", "--for", "loops.py:day").out
    assert re.search(r"^tired +tired +yes, with limits$", text, re.MULTILINE)
    assert re.search(r"^tired can run day, with these limits:\n  - .*: Twice\.$", text, re.MULTILINE)


def test_what_only_the_compiler_of_an_engine_finds_rules_it_out_too() -> None:
    Path("wrong.py").write_text(LOOPS.replace('{"share": True}', '{"shared": 1}'))
    found = {item["name"]: item for item in flowyml("backends", "--for", "wrong.py:week", "--json").json["backends"]}
    (lack,) = found["local"]["lacks"]
    assert (lack["feature"], lack["steps"]) == (None, ["total"])
    assert "'shared'" in lack["reason"]
    assert "wrong.py, line 14" in lack["reason"]


def test_the_matrix_holds_every_feature_of_every_engine() -> None:
    said = flowyml("backends", "--matrix", "--json").json
    names = [feature.name for feature in Feature]
    assert [feature["name"] for feature in said["features"]] == names
    assert {"airflow", "kubeflow", "kubeflow-local", "local", "prefect"} <= set(said["engines"])
    assert all(list(table) == names for table in said["engines"].values())
    assert said["engines"]["local"]["FAN_OUT"] == {"level": "yes", "note": None}
    assert re.search(r"^GPU requests ", flowyml("backends", "--matrix").out, re.MULTILINE)
    both = flowyml("backends", "--matrix", "--for", "train.py")
    assert (both.code, "not both" in both.err) == (2, True)


def test_stopping_a_server_that_does_not_run() -> None:
    assert flowyml("backends", "stop", "local", "--json").json == {"engine": "local", "stopped": False}
    assert flowyml("backends", "stop", "nope").code == 4


def test_the_lines_of_one_item() -> None:
    Path("loop.py").write_text(
        "from flowyml import pipeline, step, when\n\n\n@step(max_parallel=1)\ndef say(n: int) -> int:\n"
        "    print('item', n)\n    return n\n\n\n@pipeline\ndef loop(count: int = 2):\n"
        "    with when(count > 2):\n        say.options(name='more')(count)\n    return say.map(n=[4, 5])\n"
    )
    job = flowyml("run", "loop.py", "--json").json["job_id"]
    assert re.findall(r"item \d", flowyml("logs", job, "--step", "say[1]").out) == ["item 5"]
    assert re.findall(r"item \d", flowyml("logs", job, "--step", "say").out) == ["item 4", "item 5"]
    assert re.findall(r"item \d", flowyml("logs", job, "--step", "say", "--index", "1").out) == ["item 5"]
    for words, reason in [
        (("--step", "sya"), "This run has no step 'sya'. It has: more, say."),
        (("--step", "say[2]"), "This run has no step 'say[2]'. Its indexes go up to [1]."),
        (("--step", "say", "--index", "2"), "This run has no step 'say[2]'. Its indexes go up to [1]."),
        (("--step", "more", "--index", "0"), "This run has no step 'more[0]'. It has no items."),
        (
            ("--step", "say", "--index", "two"),
            "--index 'two' is neither a number nor two numbers separated by a comma.",
        ),
        (("--index", "1"), "--index selects an item of a step: name the step with --step."),
    ]:
        wrong = flowyml("logs", job, *words)
        assert (wrong.code, wrong.err) == (2, f"error: {reason}\n")
    assert re.search(r"^more +COMPLETED +skipped$", flowyml("status", job).out, re.MULTILINE)


def test_times_are_local_and_say_so_once(local_zone: Callable[[str], None]) -> None:
    local_zone("Asia/Kathmandu")  # +05:45, and a name that is a number
    assert flowyml("run", "train.py", "--run-id", "here").code == 0
    listed, logs = flowyml("runs"), flowyml("logs", "here")
    assert "STARTED (+0545)" in listed.out.splitlines()[0]
    began = datetime.fromisoformat(flowyml("runs", "--json").json[0]["started_at"]).astimezone()
    assert f"{began:%Y-%m-%d %H:%M:%S}" in listed.out
    assert logs.err == f"times of {began:%Y-%m-%d}, in +0545\n"
    assert re.match(r"\d\d:\d\d:\d\d INFO ", logs.out), "standard output holds the lines and nothing else"
    assert "LAST USED (+0545)" in flowyml("prune", "--dry-run", "--older-than", "0s").out


def test_a_log_says_each_day_that_it_goes_on(local_zone: Callable[[str], None]) -> None:
    local_zone("Europe/Berlin")
    said: list[str] = []

    def say(*parts: object) -> None:
        said.append("".join(map(str, parts)))

    printer = LogPrinter(say, head=say)
    first = datetime(2026, 10, 24, 21, 59, tzinfo=UTC)
    for hours in (0, 0, 1, 3.5):
        printer(LogLine(message="m", time=first + timedelta(hours=hours)))
    printer(LogLine(message="without a time"))
    assert [line for line in said if line.startswith("times")] == [
        "times of 2026-10-24, in CEST", "times of 2026-10-25, in CEST", "times of 2026-10-25, in CET",
    ]  # fmt: skip


def test_the_columns_of_logs_stand_still() -> None:
    """Whatever the names of the steps that print later; the message always begins in the same column."""
    Path("train.py").write_text(
        "from flowyml import Pipeline, step\n"
        "@step(outputs=['a'])\n"
        "def short():\n    print('first')\n    return 1\n"
        "@step\n"
        "def with_a_long_name(a):\n    print('second')\n"
        "train = Pipeline('train').add_step(short).add_step(with_a_long_name)\n"
    )
    job = flowyml("run", "train.py", "--json").json["job_id"]
    lines = [line for line in flowyml("logs", job).out.splitlines() if "│" in line]
    assert len({line.index("│") for line in lines}) == 1, lines
    assert [line.partition("│ ")[2] for line in lines] == ["first", "second"]
    assert re.match(r"\d\d:\d\d:\d\d INFO    short            │ first$", lines[0])
    one = flowyml("logs", job, "--step", "short").out
    assert "short │ first" in one, "no wider than the step that was asked for"
