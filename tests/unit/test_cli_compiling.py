"""Files, bundles, graphs, deployments and schedules from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowyml.cli.records import plain_schedule
from flowyml.core.errors import ScheduleNotFoundError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.deployer import Deployer
from flowyml.plan.bundle import Bundle
from tests.unit.commands import command, flowyml
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("train")
quietly = pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")


# Making.


def test_compile_to_the_plan() -> None:
    printed = flowyml("compile", "train.py", "--to", "plan")
    assert json.loads(printed.out)["name"] == "training"
    assert printed.err == "printed while loading\n"
    document = flowyml("compile", "train.py", "--to", "plan", "-o", "out.json", "--json").json
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
        {"name": "load", "after": [], "outputs": ["rows_loaded"], "group": None, "execution_group": None},
        {"name": "tell", "after": ["load"], "outputs": ["message", "things"], "group": None, "execution_group": None},
    ]
    assert flowyml("graph", "train.py", "--json").json == {"pipeline": "training", "steps": steps, "groups": []}
    assert flowyml("graph", "train.py", "--json", "-o", "g.svg", "-f", "svg").json["path"] == "g.svg"


NESTED = """
from flowyml import for_each, pipeline, step

@step
def load(day: str) -> int:
    return len(day)

@pipeline
def daily(day: str = "monday"):
    return load(day)

@pipeline
def weekly():
    with for_each(["monday", "friday"], name="days") as day:
        daily(day)
"""


def test_a_graph_opens_the_pipelines_within() -> None:
    Path("nested.py").write_text(NESTED)
    assert "daily ⟳⊞" in flowyml("graph", "nested.py:weekly").out
    assert "daily.load ⟳" in flowyml("graph", "nested.py:weekly", "--expand").out
    assert 's0["daily.load"]' in flowyml("graph", "nested.py:weekly", "--expand", "-f", "mermaid").out
    assert ">daily.load<" in flowyml("graph", "nested.py:weekly", "--expand", "-f", "svg").out
    assert flowyml("graph", "nested.py:weekly", "--json").json == {
        "pipeline": "weekly",
        "steps": [{"name": "daily.load", "after": [], "outputs": ["load"], "group": "daily", "execution_group": None}],
        "groups": [
            {"name": "days", "kind": "loop", "title": "each item of days", "group": None},
            {"name": "daily", "kind": "section", "title": "daily", "group": "days"},
        ],
    }


def test_a_place_that_cannot_be_written_is_one_error() -> None:
    done = flowyml("compile", "train.py", "--to", "plan", "-o", "train.py/plan.json")
    assert done.code == 2
    assert "cannot be written" in done.err


def test_deploy_and_what_would_change() -> None:
    for _ in range(2):  # the first has changed nothing
        assert "A new bundle" in flowyml("deploy", "train.py", "--dry-run", "--json").json["diff"]
    first = flowyml("deploy", "train.py", "--json").json
    assert (set(first), first["changed"]) == ({"name", "digest", "changed", "url", "also", "scheduled"}, True)
    assert not flowyml("deploy", "train.py", "--json").json["changed"]
    assert "training already deployed, version " in flowyml("deploy", "train.py").out
    assert flowyml("deploy", "train.py", "--dry-run").out == "Nothing would change.\n"


@quietly
def test_a_dry_run_of_what_would_be_refused_says_so_after_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    flowyml("schedule", "create", "train.py", "daily", "03:00")
    monkeypatch.setenv("FLOWYML_NAMESPACE", "other")
    Path("train.py").write_text(Path("train.py").read_text() + "\nADDED = 1\n")
    shown = flowyml("deploy", "train.py", "--dry-run")
    assert (shown.code, "+ADDED = 1" in shown.out) == (2, True)
    said = shown.err.splitlines()[-1]
    assert said.startswith("error: Without --force, this deployment would be refused. The schedule 'training' in ")
    assert "; this pipeline comes from other: " in said
    assert said.endswith("To replace it anyway: force=True, or --force.")
    assert flowyml("deploy", "train.py").code == 2
    forced = flowyml("deploy", "train.py", "--dry-run", "--force")
    assert (forced.code, forced.out) == (0, shown.out)


@quietly
def test_a_dry_run_says_what_force_would_not_help_against_either() -> None:
    flowyml("schedule", "create", "train.py", "daily", "03:00", "-p", "rows=5")
    Path("train.py").write_text(Path("train.py").read_text().replace("rows:", "lines:").replace("rows=3", "lines=3"))
    for force in ((), ("--force",)):
        dry, real = (flowyml("deploy", "train.py", *force, *more) for more in (("--dry-run",), ()))
        assert (dry.code, real.code) == (2, 2)
        *_, note, error = dry.err.splitlines()
        assert (note, error) == ("this deployment would be refused:", real.err.splitlines()[-1])
        assert "'rows'" in error
        assert "lines" in dry.out


def test_an_engine_that_cannot_show_what_would_change_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalOrchestrator, "diff", Deployer.diff)
    done = flowyml("deploy", "train.py", "--dry-run")
    assert done.code == 2
    assert done.err.splitlines()[-1] == "error: deploy --dry-run is not available on this engine."
    done = flowyml("undeploy", "training", "-o", "dags")
    assert (done.code, done.err.endswith("For files of Airflow, add --on airflow.\n")) == (2, True)


# Schedules.


def test_a_schedule_from_its_creation_to_its_end() -> None:
    made = command(
        "schedule", "create", "train.py", "weekly", "MON:09:00", "--timezone", "Europe/Berlin", "-p", "rows=9", "--json"
    )
    assert made.code == 0
    assert "warning: The schedule is saved, but nothing will fire until" in made.err
    info = made.json
    assert set(info) == {
        "schedule_id", "pipeline", "orchestrator", "schedule", "paused", "next_runs", "missed", "drift",
    }  # fmt: skip
    assert info["schedule"] == {"cron": "0 9 * * 1", "timezone": "Europe/Berlin", "parameters": {"rows": 9}}
    assert datetime.fromisoformat(info["next_runs"][0]).hour == 9
    assert re.search(r" 09:00:00 CES?T$", flowyml("schedule", "list").out, re.MULTILINE)
    name = info["schedule_id"]
    assert [item["schedule_id"] for item in flowyml("schedule", "list", "--json").json] == [name]
    assert flowyml("schedule", "pause", name, "--json").json["paused"]
    assert (
        flowyml("schedule", "pause", name).out == f"{name}: {info['pipeline']}, cron 0 9 * * 1 Europe/Berlin, paused\n"
    )
    assert "paused" in flowyml("schedule", "list").out
    assert not flowyml("schedule", "resume", name, "--json").json["paused"]
    assert flowyml("schedule", "delete", name, "--json").json == {"schedule_id": name, "deleted": True}
    gone = flowyml("schedule", "delete", name, "--json")
    assert gone.code == 4
    assert gone.error["type"] == "ScheduleNotFoundError"


def test_of_several_schedules_of_a_pipeline_one_is_named_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(self: LocalOrchestrator, schedule_id: str) -> ScheduleInfo:
        raise ScheduleNotFoundError(schedule_id)

    two = [ScheduleInfo(schedule_id=each, pipeline="p", schedule=Schedule.of("daily", 9)) for each in ("a", "b")]
    monkeypatch.setattr(LocalOrchestrator, "pause_schedule", pause)
    monkeypatch.setattr(LocalOrchestrator, "schedules", lambda self, pipeline: two)
    done = flowyml("schedule", "pause", "p")
    assert (done.code, done.err) == (2, "error: Pipeline 'p' has several schedules. Give the id of one: a, b.\n")


@quietly
def test_a_schedule_that_catches_up_says_how_many_runs_were_missed() -> None:
    start = (datetime.now(UTC) - timedelta(days=2, hours=1)).isoformat()
    create = ("schedule", "create", "train.py", "interval", "86400", "-p", "rows=9", "--start", start)
    assert "missed" not in flowyml(*create).out
    assert flowyml(*create, "--catch-up").out.endswith(", after 3 runs that were missed\n")
    assert flowyml("schedule", "list", "--json").json[0]["missed"] == 3
    begun = ("schedule", "create", "train.py", "interval", "1", "-p", "rows=9", "--start", start)
    assert flowyml(*begun, "--catch-up").out.endswith(", after 1000 or more runs that were missed\n")


def test_times_that_an_engine_gives_in_utc_are_shown_in_the_zone_of_the_schedule() -> None:
    schedule = Schedule.of("daily", 9, timezone="Europe/Berlin")
    planned = datetime(2026, 1, 31, 8, tzinfo=UTC)
    info = ScheduleInfo(schedule_id="1", pipeline="p", schedule=schedule, next_runs=(planned,))
    assert info.next_runs == (planned,)
    assert str(info.next_runs[0].tzinfo) == "Europe/Berlin"
    assert plain_schedule(info, "prefect")["next_runs"] == ["2026-01-31T09:00:00+01:00"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("interval", "often"), "interval takes seconds"),
        (("interval", "1e400"), "interval=inf: use a number of seconds"),
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


@pytest.mark.processes
@quietly
def test_serve_fires_what_is_due() -> None:
    flowyml("schedule", "create", "train.py", "interval", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "flowyml", "schedule", "serve"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        found = wait_until(lambda: flowyml("runs", "--json").json, every=0.3)
        assert found[0]["pipeline"] == "training"
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=2400)
    assert process.returncode == 130
    assert "serving the schedules in" in err
    flowyml("watch", found[0]["job_id"])


@pytest.mark.processes
@pytest.mark.parametrize("engine", ["prefect", "plan"])
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


@pytest.mark.processes
def test_compile_takes_no_schedule_away() -> None:
    from flowyml_airflow.compiler import compile_dag

    again = ("compile", "train.py", "--to", "airflow", "-o", "dags/")
    path = Path(flowyml(*again, "--json").json["files"][0])
    plain = path.read_bytes()
    bundle = Bundle.read(flowyml("bundle", "train.py", "--json").json["path"])
    scheduled = compile_dag(bundle, schedule=Schedule.of("cron", "0 4 * * *"))
    for name, data in scheduled.files.items():
        (path.parent / name).write_bytes(data)
    done = flowyml(*again)
    assert done.code == 2
    assert f"{path} has the schedule `cron 0 4 * * * UTC`" in done.err
    assert path.read_bytes() == next(iter(scheduled.files.values()))
    assert flowyml(*again, "--force").code == 0
    assert path.read_bytes() == plain


DECLARED = """
from flowyml import Pipeline, Schedule, step

@step(outputs=["rows"])
def load() -> int:
    return 1

nightly = Pipeline("nightly", schedule=Schedule.of("daily", "03:30", timezone="Europe/Berlin")).add_step(load)
"""


def test_check_says_which_committed_files_are_not_what_the_source_gives() -> None:
    Path("nightly.py").write_text(DECLARED)
    compiling = ("compile", "nightly.py", "--to", "airflow", "-o", "dags/")
    checking = (*compiling, "--check")
    missing = flowyml(*checking)
    assert (missing.code, Path("dags").exists()) == (1, False)
    assert "dags/nightly.py is missing" in missing.err
    assert flowyml(*compiling).code == 0
    assert (flowyml(*checking).code, flowyml(*checking).out) == (0, "")
    dag = Path("dags/nightly.py")
    dag.write_bytes(dag.read_bytes().replace(b"\n", b"\r\n"))
    assert flowyml(*checking).code == 0, "git changes line ends"
    Path("nightly.py").write_text(DECLARED.replace("03:30", "04:30"))
    before = dag.read_bytes()
    changed = flowyml(*checking)
    assert (changed.code, dag.read_bytes()) == (1, before)
    assert '-    schedule=CronTriggerTimetable("30 3 * * *", timezone="Europe/Berlin"),' in changed.out
    assert '+    schedule=CronTriggerTimetable("30 4 * * *", timezone="Europe/Berlin"),' in changed.out
    assert "dags/nightly.py is not what its source gives\n" in changed.err
    assert "dags/nightly.py" in flowyml(*checking, "--json").json["changed"]
    assert flowyml("compile", "nightly.py", "--to", "airflow", "--check").code == 2


def test_a_paused_schedule_is_in_the_dag_file_and_files_of_other_engines_hold_none() -> None:
    Path("nightly.py").write_text(DECLARED.replace('Berlin"', 'Berlin", paused=True'))
    assert "    is_paused_upon_creation=True,\n" in flowyml("compile", "nightly.py", "--to", "airflow").out
    assert "the files of this engine hold no schedule" in flowyml("compile", "nightly.py", "--to", "prefect").err


@quietly
def test_a_deployment_says_that_it_has_set_the_schedule() -> None:
    Path("nightly.py").write_text(DECLARED)
    assert '+  "cron": "30 3 * * *"' in flowyml("deploy", "nightly.py", "--dry-run").out
    assert "scheduled: cron 30 3 * * * Europe/Berlin\n" in flowyml("deploy", "nightly.py").out
    assert flowyml("schedule", "create", "nightly.py", "hourly", "5").code == 0
    assert '-  "cron": "5 * * * *"' in flowyml("deploy", "nightly.py", "--dry-run").out
    assert flowyml("run", "nightly.py").code == 0
    assert [item["schedule"]["cron"] for item in flowyml("schedule", "list", "--json").json] == ["5 * * * *"]


def test_a_bundle_takes_no_place_of_what_people_wrote() -> None:
    path = Path(flowyml("bundle", "train.py", "--json").json["path"])
    path.write_text("mine")
    done = flowyml("bundle", "train.py")
    assert (done.code, path.read_text()) == (2, "mine")
    assert f"{path} was not written by FlowyML and would be lost" in done.err
