"""Airflow's shipped example DAGs become pipelines, and Airflow's own DagBag finds the same in what they compile to."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
import threading
from pathlib import Path
from random import Random

import pytest

from flowyml.migration.airflow.writer import verifying
from flowyml.migration.airflow.writer.notes import DagResult, FileResult
from tests.engines.airflow import airflow_python
from tests.unit.commands import flowyml
from tests.unit.migration.dag_files import HEAD
from tests.unit.migration.flows import FLOWS
from tests.unit.migration.modules import IMPORTS, REPOSITORY

pytest.importorskip("libcst")

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

ONE_AT_A_TIME = threading.Lock()

# Steps that FlowyML has no words for yet, one DAG each, and teardowns, which it ends by another rule. Of the flows: a
# join that may be chosen itself, which runs after whatever ran.
OTHERWISE = {
    "a_join_that_is_chosen",
    "example_dynamic_task_mapping_with_no_taskflow_operators", "example_setup_teardown",
    "example_setup_teardown_taskflow", "example_task_state_store_mapped", "tutorial_taskflow_api",
    "tutorial_taskflow_api_virtualenv",
}  # fmt: skip


DEFAULTS = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.decorators import task, task_group
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.utils.task_group import TaskGroup

def go(x=1): return x
def asks(ti): print(ti.hostname)

with DAG("defaults", schedule=None, start_date=datetime(2024, 1, 1),
         default_args={"owner": "team", "retries": 1, "pool": "wide", "depends_on_past": True}):
    BashOperator(task_id="first", bash_command="true", env={"A": "b"}, append_env=True)
    BashOperator(task_id="own", bash_command="true", default_args={"pool": "narrow", "retries": 4})
    with TaskGroup("g", default_args={"retries": 3, "pool": "p", "queue": "q", "depends_on_past": False}) as g:
        BashOperator(task_id="command", bash_command="true")
        BashOperator(task_id="given", bash_command="true", pool="own", default_args={"retries": 7, "owner": "me"})
        PythonOperator(task_id="function", python_callable=go)
        PythonOperator(task_id="asking", python_callable=asks)
        with TaskGroup("inner", default_args={"retries": 5, "owner": "in", "execution_timeout": timedelta(seconds=7)}):
            BashOperator(task_id="command", bash_command="true", retries=2)
            TriggerDagRunOperator(task_id="trigger", trigger_dag_id="other")

        @task_group(default_args={"queue": "deep", "retries": 6})
        def decorated():
            @task
            def flows(owner="x"): return owner
            flows()
        decorated()
"""


RULES = """
try:
    from airflow.sdk import Asset, AssetAlias
except ImportError:
    from airflow.datasets import Dataset as Asset, DatasetAlias as AssetAlias

def one(x): return x
def two(x, y=2): return x

@dag(schedule=None, start_date=datetime(2024, 1, 1), catchup=False)
def flow(n: int = 3):
    @task
    def use(value): return value
    use(n)
    a = BashOperator(task_id="a", bash_command="echo {{ params.n }}", outlets=[Asset("s3://b/c"), AssetAlias("d")])
    a.owner, a.depends_on_past, a.retries = "me", True, 2
    PythonOperator.partial(task_id="m", python_callable=one).expand(op_args=[[1], [2]])
    PythonOperator.partial(task_id="k", python_callable=two, op_args=[1]).expand(op_kwargs=[{"y": 1}, {"y": 2}])
    with TaskGroup("g"):
        part = BashOperator.partial(task_id="p")
    part.expand(bash_command=["true", "false"])
flow()
"""


MODULES = f"""{IMPORTS}
with DAG("flow", schedule=None, start_date=datetime(2024, 1, 1), default_args={{"retries": 2}}):
    PythonOperator(task_id="plain", python_callable=plain, op_args=[1])
    task(plain).override(task_id="again")(2)
    made = parts(4)
    decorated(3); annotated(5); ready()
    chooses() >> EmptyOperator(task_id="one.two")
    Load(task_id="load", table="a", queue="q")
    Say(task_id="say", text="hi")
    BashOperator(task_id="part", bash_command="echo", env={{"A": made["n"]}})
with DAG("sales.daily", schedule=None, start_date=datetime(2024, 1, 1)):
    EmptyOperator(task_id="only")
"""


STARTS = """
from airflow.timetables.trigger import CronTriggerTimetable

with DAG("flow", schedule=CronTriggerTimetable("0 3 * * *", timezone="Europe/Berlin"), catchup=True,
         start_date=datetime(2024, 1, 1), tags=["b", "a"], params={"n": 3, "o": {"a": [1]}, "d": "2024-01-01"}):
    EmptyOperator(task_id="one.two")
    BashOperator(task_id="own", bash_command="{{ var.value.x }}", start_date=datetime(2025, 1, 1), params={"z": None})
with DAG("starts.zoned", schedule=timedelta(hours=2), catchup=False,
         start_date=pendulum.datetime(2024, 1, 1, tz="Europe/Berlin")):
    EmptyOperator(task_id="only")
"""


def generated() -> str:
    """Return operators with texts and values of all kinds, which Airflow itself compares with what is written."""
    random = Random(0)
    pieces = [*"'\"\\{\t\n\r\u2028\xa0", "  ", '"' * 3, "%s", "word", "é" * 9, "x" * 99]
    lines = ["def same(*given, **named): pass", 'with DAG("flow", schedule=None, start_date=datetime(2024, 1, 1)):']
    for number in range(60):
        texts = ["".join(random.choices(pieces, k=random.randrange(1, 40))) for _ in range(3)]
        given = f"op_args={[texts[0], (1, 2.5), {3, 4}]!r}, op_kwargs={ {texts[1]: [None, True, texts[2]]}!r}"
        lines.append(f"    PythonOperator(task_id='t{number}', python_callable=same, {given})")
    return HEAD + "\n".join(lines)


def write(folder: Path, name: str, text: str) -> Path:
    """A file whose DAG has its name."""
    path = folder / f"{name}.py"
    path.write_text(re.sub(r"\bflow(?=[\"(])", name, text), "utf-8")
    return path


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow gives up a file after 30 seconds, which a busy machine may take."""
    monkeypatch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "1000")


@pytest.mark.parametrize("major", [3, 2])
def test_what_is_written_is_the_same_to_airflow(major: int, tmp_path: Path) -> None:
    """Default arguments of groups and tasks, mapped groups and functions, assets, and what is set later."""
    start = "schedule=None, start_date=datetime(2024, 1, 1)"
    mapped = HEAD + textwrap.dedent(FLOWS["mapped_groups"].text).replace("schedule=None", start)
    texts = {"defaults": DEFAULTS, "rules": HEAD + RULES, "mapped_groups": mapped, "modules": HEAD + MODULES}
    texts |= {"generated": generated(), "starts": HEAD + STARTS}
    for name, text in REPOSITORY.items():
        path = tmp_path / name.removeprefix("dags/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    files = [str(write(tmp_path, name, text)) for name, text in texts.items()]
    given = ["--root", str(tmp_path), "-o", f"{tmp_path}/made", "--verify", str(airflow_python(major)), "--json"]
    found = json.loads(flowyml("import", "airflow", *files, *given).out)["verified"]
    assert {each["dag_id"]: each["problem"] for each in found} == dict.fromkeys([*texts, "sales.daily", "starts.zoned"])
    differences = [line for each in found for line in each["differences"]]
    assert [line for line in differences if not ("mapped arguments" in line and line.startswith("rules."))] == []
    assert 'flows(owner="team")' in (tmp_path / "made/defaults.py").read_text("utf-8")
    assert "NotImplementedError" not in (tmp_path / "made/rules.py").read_text("utf-8")


def test_examples_and_flows_are_the_same_to_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples that Airflow ships, and the flows whose pipelines give the same in a run."""
    python = airflow_python(3)
    (examples,) = python.parent.parent.glob("lib/python*/site-packages/airflow/example_dags")
    (tmp_path / "flows").mkdir()
    for name, flow in FLOWS.items():
        write(tmp_path / "flows", name, HEAD + textwrap.dedent(flow.text))
    monkeypatch.setattr(verifying, "_compiled", compiled_here)
    given = ["-o", f"{tmp_path}/made", "--verify", str(python), "--json"]
    found = json.loads(flowyml("import", "airflow", str(examples), f"{tmp_path}/flows", *given).out)["verified"]
    compared = [each for each in found if each["problem"] is None]
    assert len(compared) >= len(found) - 2, [each for each in found if each["problem"]]  # two need Kubernetes
    assert {each["dag_id"] for each in compared} >= FLOWS.keys()
    wrong = {each["dag_id"]: each["differences"] for each in compared if each["differences"]}
    wrong = {name: lines for name, lines in wrong.items() if any(": schedule: " not in line for line in lines)}
    assert wrong.keys() <= OTHERWISE, wrong
    assert not [line for each in compared for line in each["differences"] if "timetable:Cron" in line]


def compiled_here(folder: Path, pair: tuple[FileResult, DagResult], path: Path) -> subprocess.CompletedProcess[str]:
    """In this process, one after the other: a hundred that start Python take a minute."""
    file, dag = pair
    with ONE_AT_A_TIME:
        done = flowyml("compile", f"{folder / file.module}:{dag.pipeline}", "--to", "airflow", "-o", str(path))
    return subprocess.CompletedProcess([], done.code, done.out, done.err)


FAILS = """
def fails(): raise ValueError("no rows")

with DAG("fails", schedule="@daily", start_date=datetime(2024, 1, 1), default_args={"retries": 1}):
    first = PythonOperator(task_id="first", python_callable=fails)
    first >> BashOperator(task_id="after", bash_command="echo no")
    first >> BashOperator(task_id="clean", bash_command="echo {{ ds }} {{ data_interval_start | ts }}",
                          trigger_rule="all_done")
"""
BRANCHES = """
def pushes(ti): ti.xcom_push(key="rows", value=2)

with DAG("branches", schedule=None, start_date=datetime(2024, 1, 1)):
    @task
    def extract(): return {"rows": [1, 2, 3], "share": 10.5, "none": None}
    @task.branch
    def choose(values): return "many" if len(values["rows"]) > 2 else "few"
    @task
    def many(values): return values["rows"]
    @task
    def few(): return "few"
    @task
    def double(x): return x * 2
    @task
    def total(values): return sum(values)
    values = extract()
    rows = many(values)
    choose(values) >> [rows, few()]
    total(double.expand(x=rows))
    PythonOperator(task_id="push", python_callable=pushes)
"""
FORGIVES = """
def optional(): raise ValueError("not there")
with DAG("forgives", schedule=None, start_date=datetime(2024, 1, 1)):
    PythonOperator(task_id="maybe", python_callable=optional) >> EmptyOperator(task_id="end", trigger_rule="all_done")
"""


@pytest.mark.parametrize(("major", "text"), [(3, FAILS + BRANCHES + FORGIVES), (2, FAILS + BRANCHES)])
def test_runs_are_the_same_to_airflow(major: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails, one with a branch and a mapped task, and one that succeeds though a task failed.

    The report calls the outcome of that last one changed. A database that the environment names is not touched.
    """
    (tmp_path / "runs.py").write_text(HEAD + text, "utf-8")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/real.db")
    given = ["import", "airflow", str(tmp_path / "runs.py"), "-o", f"{tmp_path}/made", "--json"]
    found = json.loads(flowyml(*given, "--verify", str(airflow_python(major)), "--run", "2024-03-01").out)["verified"]
    ran = "2024-03-01T00:00:00+00:00"
    assert len(found) == text.count("with DAG")
    assert [each for each in found if each["problem"] or each["differences"] or each["ran"] != ran] == []
    assert not (tmp_path / "real.db").exists()


def test_each_difference_of_a_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline was changed after it was written."""
    (tmp_path / "runs.py").write_text(HEAD + BRANCHES, "utf-8")
    compile_file = verifying._compiled

    def changed(folder: Path, pair: tuple[FileResult, DagResult], path: Path) -> subprocess.CompletedProcess[str]:
        module = folder / pair[0].module
        text = module.read_text("utf-8").replace("return x * 2", "return x + 2")
        module.write_text(text.replace("return sum(values)", "raise ValueError(values)"), "utf-8")
        return compile_file(folder, pair, path)

    monkeypatch.setattr(verifying, "_compiled", changed)
    given = ["import", "airflow", str(tmp_path / "runs.py"), "-o", f"{tmp_path}/made", "--json"]
    done = flowyml(*given, "--verify", str(airflow_python(3)), "--run")
    (found,) = json.loads(done.out)["verified"]
    assert done.code == 1
    assert found["differences"] == [
        "branches: outcome of the run: 'success' in the DAG file, 'failed' in the compiled one",
        "branches.total: state: 'success' in the DAG file, 'failed' in the compiled one",
        "branches.double: XCom return_value of item 0: 2 in the DAG file, 3 in the compiled one",
        "branches.double: XCom return_value of item 2: 6 in the DAG file, 5 in the compiled one",
        "branches.total: XCom return_value: 12 in the DAG file, None in the compiled one",
    ]
