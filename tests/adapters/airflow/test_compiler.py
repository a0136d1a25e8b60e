"""The compiler: Plan to DAG file. No Airflow here."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest

import flowyml_airflow
from flowyml import Pipeline
from flowyml import step as step_of
from flowyml.core.errors import ConfigurationError, DefinitionError, ScheduleError, UnknownOptionError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.targets import resolve
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.differences import bundle_difference
from flowyml.plan.model import Parameter, Plan, Step
from flowyml_airflow import AirflowOrchestrator, external_dag
from flowyml_airflow.beside import runtime
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.dag_file.parts import CALLBACK, WORKER
from flowyml_airflow.deployed_dag import facts_of, is_untouched
from flowyml_airflow.names import BUNDLES_FOLDER, START_TASK, pipeline_of, task_id, version_note, xcom_key
from tests.adapters.airflow import dags

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/golden/airflow"
RUFF = Path(sys.executable).with_name("ruff")


def bundle(plan: Plan) -> Bundle:
    """A bundle without code: what is compiled depends on the plan, and on the digest."""
    return _Bundle(plan, b"no code")


class _Bundle(Bundle):
    """Its digest does not change with FlowyML's own code, so that golden files only change with the compiler."""

    origin = None
    code_digest = "0" * 64

    @property
    def files(self) -> dict[str, bytes]:
        return {"code/m.py": self.data}

    def repacked(self, files: Any) -> Bundle:
        return self


def text(plan: Plan, schedule: Schedule | None = None) -> str:
    return steady(compile_dag(bundle(plan), schedule=schedule).text)


def steady(text: str) -> str:
    """The text without the name of the runtime, which changes with each line of FlowyML, and digests that it is in."""
    shown = text.replace(runtime().name, "flowyml-VERSION-DIGEST.pyz")
    shown = shown.replace(facts_of(text)["version"], "VERSION")
    return re.sub(r'("digest": ")[0-9a-f]{64}', r"\1DIGEST", shown)


def one_step(**options: Any) -> Plan:
    return Plan(name="one", steps=(Step(name="only", function="m:f", outputs=("out",)),), **options)


def example(name: str) -> Pipeline:
    """The pipeline of ``examples/NAME.py``."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        (pipeline,) = [made for made in vars(import_module(name)).values() if isinstance(made, Pipeline)]
    finally:
        sys.path.pop(0)
    return pipeline


EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
# Flows that together show each form.
GOLDEN_FILES = {
    "everything.py": lambda: text(
        dags.everything.compile(), Schedule.of("weekly", "MON:09:00", timezone="Europe/Berlin")
    ),
    "flow.py": lambda: text(dags.flow.compile()),
    "linked.py": lambda: steady(
        compile_dag(bundle(dags.grouped.compile()), artifact_links="https://files.example.org/{key}").text
    ),
    "small.py": lambda: text(
        dags.small.compile(), Schedule(interval_seconds=5400, start=datetime(2026, 1, 1, tzinfo=UTC))
    ),
}


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_golden_files(name: str, update_golden: bool) -> None:
    compiled = GOLDEN_FILES[name]()
    if update_golden:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name).write_text(compiled)
    assert compiled == (GOLDEN / name).read_text()


def formatted(source: str) -> str:
    command = [str(RUFF), "format", "--isolated", "--line-length", "120", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


def test_the_runtime_has_the_whole_adapter() -> None:
    """Folders too: a pipeline's file may import any part of it."""
    package = Path(flowyml_airflow.__file__).parent
    with ZipFile(BytesIO(runtime().data)) as archive:
        ours = {path for path in archive.namelist() if path.startswith("flowyml_airflow/")}
    assert ours == {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}
    assert "flowyml_airflow/dag_file/parts.py" in ours


def test_compiled_files_are_formatted_and_clean(tmp_path: Path) -> None:
    for name, compiled in GOLDEN_FILES.items():
        (tmp_path / name).write_text(compiled())
    style = ["--isolated", "--line-length", "120", "."]
    rules = ["--select", "E4,E7,F,I,B,W", "--ignore", "B018"]
    for command in (["format", "--diff", *style], ["check", *rules, *style]):
        done = subprocess.run([str(RUFF), *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_version_changes_with_code_and_schedule_and_shows_in_the_description() -> None:
    plan = one_step()
    first = compile_dag(bundle(plan))
    others = [
        compile_dag(_Bundle(plan, b"other code")),
        compile_dag(bundle(plan), schedule=Schedule.of("hourly", 5)),
        compile_dag(bundle(plan), python="/opt/ml/bin/python"),
    ]
    assert len({dag.version for dag in (first, *others)}) == 4
    assert version_note(first.version) in first.text


def test_the_code_lies_in_plain_files_where_airflow_does_not_look_for_dags() -> None:
    dag = compile_dag(dags.small.bundle())
    first, *ours, shared, ignored = dag.files
    assert (first, ignored) == (dag.filename, f"{BUNDLES_FOLDER}/.airflowignore")
    assert shared == f"{BUNDLES_FOLDER}/{runtime().name}"
    assert {
        f"{BUNDLES_FOLDER}/{dag.dag_id}/{name}" for name in ("plan.json", "code/tests/adapters/airflow/dags.py")
    } <= {*ours}
    assert facts_of(dag.text)["files"] == ours
    assert facts_of(dag.text)["code"] == dags.small.bundle().code_digest, "the layout of the plan does not count"
    assert json.loads(dag.files[f"{BUNDLES_FOLDER}/{dag.dag_id}/plan.json"])["name"] == "kleine Strecke/1"


def test_a_changed_line_of_a_step_is_a_changed_line_of_its_file() -> None:
    """And three lines of the DAG file, which have digests."""
    old, new = (
        compile_dag(build(one_step(), files={"m.py": b"def f():\n    return %d\n" % answer, "rows.csv": b"1\n"}))
        for answer in (1, 2)
    )
    changed = [path for path, data in new.files.items() if old.files.get(path) != data]
    assert changed == ["one.py", f"{BUNDLES_FOLDER}/one/code/m.py"]
    lines = list(zip(old.text.splitlines(), new.text.splitlines(), strict=True))
    assert [re.match("[ #]*[A-Za-z]+", before)[0].strip() for before, after in lines if before != after] == [
        "CODE", "description", "# flowyml"
    ]  # fmt: skip


def test_two_hundred_pipelines_take_less_than_twenty_megabytes() -> None:
    files = {}
    for number in range(200):
        files.update(compile_dag(dags.small.bundle().with_plan(replace(dags.small.compile(), name=f"p{number}"))).files)
    assert len(files) > 200 * 3
    assert sum(map(len, files.values())) < 20_000_000


def test_facts_are_read_back_from_the_last_line() -> None:
    schedule = Schedule.of("daily", "03:30", timezone="America/New_York", parameters={"rows": 9})
    dag = compile_dag(dags.small.bundle(), schedule=schedule, python="/its/own", artifacts="s3://bucket")
    assert dag.text.splitlines()[-1].startswith("# flowyml: {")
    assert is_untouched(dag.text)
    assert not is_untouched(dag.text + "# reviewed\n")
    assert facts_of(dag.text + "# reviewed\n") == facts_of(dag.text)
    facts = facts_of(dag.text)
    check = task_id("Prüfung/3 '\"")
    assert facts["pipeline"] == "kleine Strecke/1"
    assert facts["version"] == dag.version
    assert (facts["bundle"], facts["bundle_file"]) == (dag.bundle.digest, dag.bundle.filename)
    assert (facts["python"], facts["artifacts"]) == ("/its/own", "s3://bucket")
    assert (facts["steps"], facts["timeout"]) == (["nothing", "values", check], None)
    assert facts_of(compile_dag(dags.everything.bundle()).text)["timeout"] == 3600
    assert facts["outputs"] == {name: [check, "return_value"] for name in facts["outputs"]}
    assert facts["xcoms"][check] == {"Prüfung/3 '\"": "return_value"}
    assert Schedule.from_dict(facts["schedule"]) == schedule


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "ExternalDag("), ({"url": "http://elsewhere"}, "Step("), ({"timeout": 60}, "Step("),
        ({"secrets": {"FLOWYML_AIRFLOW_TOKEN": "reports/password"}}, "Step("),
    ],
)  # fmt: skip
def test_an_external_dag_of_its_own_airflow_waits_in_the_triggerer(options: Any, kind: str) -> None:
    waits = external_dag("report", **options)
    made = compile_dag(Pipeline("around").add_step(waits).bundle(), artifact_links="https://x/{key}").text
    assert f"report = {kind}" in made
    assert ("class ExternalDag(TriggerDagRunOperator):" in made) is (kind == "ExternalDag(")
    assert ("class Step(" in made) is ("with_links(report" in made) is (kind == "Step(")


def test_links_to_outputs_are_those_of_the_option_alone() -> None:
    bundle = dags.everything.bundle()
    plain = compile_dag(bundle)
    assert "Link" not in plain.text
    linked = compile_dag(bundle, artifact_links="https://files.example.org/it's?prefix={key}&tab=1")
    assert "artifact_links" not in facts_of(plain.text)
    assert facts_of(linked.text)["artifact_links"] == "https://files.example.org/it's?prefix={key}&tab=1"
    assert linked.version != plain.version


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("s3://bucket/{key}", "is not an address for a browser"),
        ("javascript:alert('{key}')", "is not an address for a browser"),
        ("https://example.org/", "is not an address for a browser"),
        ("{key}", "is not an address for a browser"),
        ("https://me:hidden@example.org/{key}", "contains credentials"),
        ("https://example.org/{key}?sig=hidden", "contains credentials"),
    ],
)
def test_a_link_to_outputs_leads_to_a_page_and_holds_no_credentials(template: str, why: str) -> None:
    for options in ({}, {"artifact_links": template}):
        made = one_step(options={} if options else {"airflow": {"artifact_links": template}})
        with pytest.raises(ConfigurationError, match=f"artifact_links.*{why}") as error:
            compile_dag(bundle(made), **options)
        assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pol": "gpu"},
            "pipeline 'one': airflow has no option 'pol'. Did you mean 'pool'? Known: artifact_links, artifacts, ",
        ),
        (
            {"max_active_runs": 0},
            "pipeline 'one': airflow max_active_runs=0 is not a whole number from 1 to 2147483647.",
        ),
        ({"pool_slots": 2**31}, "airflow pool_slots=2147483648 is not a whole number from 1 to 2147483647."),
        ({"priority_weight": -(2**31) - 1}, "airflow priority_weight=-2147483649 is not a 32-bit integer."),
        ({"tags": "nightly"}, "pipeline 'one': airflow tags='nightly' is not a list of strings."),
        ({"weight_rule": "up"}, "airflow weight_rule='up' is not one of downstream, upstream, absolute."),
        ({"on_failure_callback": "page()"}, "airflow on_failure_callback='page()' is not 'module.function', "),
        ({"trigger_rule": "all_done"}, "airflow has no option 'trigger_rule' (an option of steps). Known: "),
    ],
)
def test_wrong_options_of_a_pipeline(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError) as error:
        text(one_step(options={"airflow": options}))
    assert message in str(error.value)


def test_wrong_options_of_a_step_and_tags() -> None:
    step = Step(name="only", function="m:f", options={"airflow": {"python": "/usr/bin/python3"}})
    with pytest.raises(UnknownOptionError, match=r"'only': airflow has no option 'python' \(an option of the whole"):
        text(Plan(name="one", steps=(step,)))
    with pytest.raises(DefinitionError, match="longer than Airflow's 100"):
        text(one_step(tags=("t" * 101,)))
    assert "lane" not in text(one_step(options={"prefect": {"lane": 1}})), "which is another engine's"


def test_a_schedule_needs_what_airflow_needs() -> None:
    required = one_step(parameters=(Parameter(name="day", required=True),))
    with pytest.raises(ScheduleError, match="Parameter 'day' of 'one' has no default"):
        text(required, Schedule.of("hourly", 1))
    with pytest.raises(ScheduleError, match="has catch_up=True, so it needs a start"):
        text(one_step(), Schedule.of("hourly", 1, catch_up=True))
    assert 'Param("2026-01-01")' in text(required, Schedule.of("hourly", 1, parameters={"day": "2026-01-01"}))


def test_schedules_become_timetables() -> None:
    begin, end = datetime(2026, 3, 1, 8, 30, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    cron = text(
        one_step(), Schedule.of("cron", "*/5 * * * *", timezone="Asia/Tokyo", start=begin, end=end, catch_up=True)
    )
    assert 'schedule=CronTriggerTimetable("*/5 * * * *", timezone="Asia/Tokyo"),' in cron
    assert "start_date=datetime(2026, 3, 1, 8, 30, tzinfo=timezone.utc)," in cron
    assert "end_date=datetime(2027, 1, 1, tzinfo=timezone.utc)," in cron
    assert "catchup=True," in cron


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("@once", 'schedule="@once"'),
        (["s3://a", {"alias": "b"}], 'schedule=[Asset("s3://a"), AssetAlias("b")]'),
        (
            {"any": [{"name": "a", "uri": "s3://a"}, {"all": ["b", "c"]}]},
            'schedule=AssetAny(Asset("a", "s3://a"), AssetAll(Asset("b"), Asset("c")))',
        ),
        (["x')]  # "], """schedule=[Asset("x')]  # ")]"""),
    ],
)
def test_a_schedule_that_airflow_alone_has(wanted: Any, said: str) -> None:
    dag = text(one_step(options={"airflow": {"schedule": wanted}}))
    assert said in dag
    assert ("from airflow.datasets import" in dag) is (wanted != "@once")
    assert formatted(dag) == dag
    assert said not in text(one_step(options={"airflow": {"schedule": wanted}}), schedule=Schedule.of("hourly", 5))


@pytest.mark.parametrize(
    "wanted", ["@daily", [], [1], {"any": []}, {"name": "a", "x": "b"}, {"all": ["a"], "any": ["b"]}]
)
def test_a_schedule_that_airflow_does_not_have(wanted: Any) -> None:
    with pytest.raises(UnknownOptionError, match="a list of assets"):
        text(one_step(options={"airflow": {"schedule": wanted}}))


def test_one_retry_knows_no_growth() -> None:
    """Airflow's would be jittered."""
    compiled = text(one_step().with_retry_policy(OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=120)))
    assert "retries=1, retry_delay=timedelta(minutes=2)" in compiled
    assert "backoff" not in compiled


@pytest.mark.parametrize(
    ("options", "ones", "others"),
    [
        pytest.param("", "seconds=0", "seconds=10", id="as the steps say"),
        pytest.param("retry_delay = 300", "minutes=5", "seconds=10", id="a default"),
        pytest.param("least_retry_delay = 30", "seconds=30", "seconds=30", id="a minimum"),
        pytest.param("retry_delay = 300\nleast_retry_delay = 30", "minutes=5", "seconds=30", id="both"),
    ],
)
def test_delays_of_retries_are_set_once_for_a_target(
    options: str, ones: str, others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that only counts its retries has the default, and it does not grow."""
    policy = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=10)
    one = step_of(name="one", retry=3)(lambda: None)
    other = step_of(name="other", retry=policy)(lambda: None)
    (tmp_path / "flowyml.toml").write_text(f"[orchestrators.production]\nengine = 'airflow'\n{options}\n")
    monkeypatch.chdir(tmp_path)
    files = resolve("production").compile_pipeline(Pipeline("p").add_step(one).add_step(other))
    compiled = files["p.py"].decode()
    assert f"retries=3, retry_delay=timedelta({ones})" in compiled
    assert f"retries=1, retry_delay=timedelta({others})" in compiled
    assert "backoff" not in compiled


def test_a_delay_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="least_retry_delay=-1 must be seconds"):
        AirflowOrchestrator(least_retry_delay=-1)


def test_a_union_of_plain_types_is_a_list_of_them() -> None:
    """Airflow's form has a field for such a list, and none for ``anyOf``."""
    union = {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "How many."}
    plan = one_step(parameters=(Parameter(name="rows", schema=union),))
    assert 'Param(None, type=["integer", "null"], description="How many.")' in text(plan)
    other = {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}
    assert "anyOf=[" in text(one_step(parameters=(Parameter(name="code", schema=other),)))


def test_an_option_of_airflow_counts_before_a_shared_one() -> None:
    own = {"airflow": {"trigger_rule": "all_skipped", "doc_md": "Of Airflow.", "pool": "gpu"}}
    last = Step(name="last", function="m:f", after=("first",), run_if="all_done", description="Shared.", options=own)
    steps = (Step(name="first", function="m:f"), last)
    dag = text(Plan(name="called", steps=steps, options={"airflow": {"pool": "cpu"}}))
    assert 'trigger_rule="all_skipped"' in dag
    assert 'trigger_rule="all_done"' not in dag
    assert 'doc_md="Of Airflow."' in dag
    assert 'pool="gpu"' in dag.partition('task_id="last"')[2], "the step's pool, not the pipeline's"


def test_trigger_rules_and_callbacks() -> None:
    notifier = {"my_alerts.Slack": {"text": 'it\'s "late"'}}
    steps = (
        Step(name="first", function="m:f", options={"airflow": {"on_retry_callback": "my_alerts.retried"}}),
        Step(name="last", function="m:f", after=("first",), options={"airflow": {"trigger_rule": "all_done"}}),
    )
    options = {"airflow": {"on_failure_callback": ["my_alerts.page", notifier], "on_success_callback": "my_alerts.ok"}}
    dag = text(Plan(name="called", steps=steps, options=options))
    assert CALLBACK in dag
    assert 'on_retry_callback=callback("my_alerts.retried")' in dag
    assert 'trigger_rule="all_done"' in dag
    assert 'on_success_callback=callback("my_alerts.ok")' in dag
    made: dict[str, Any] = {}
    (function,) = [
        node for node in ast.parse(dag).body if isinstance(node, ast.FunctionDef) and node.name == "callback"
    ]
    exec(compile(ast.Module([function], []), "dag.py", "exec"), made)
    calls: list[Any] = []
    module = ModuleType("my_alerts")
    vars(module).update(page=calls.append, Slack=lambda text: lambda context: calls.append((text, context)))
    sys.modules["my_alerts"] = module
    try:
        made["callback"]("my_alerts.page")("context")
        made["callback"](*next(iter(notifier.items())))("context")
    finally:
        del sys.modules["my_alerts"]
    assert calls == ["context", ('it\'s "late"', "context")]
    hooked = text(Plan(name="hooked", steps=(Step(name="only", function="m:f"),), hooks=("h",), options=options))
    assert 'on_success_callback=[on_end, callback("my_alerts.ok")]' in hooked


def test_errors_name_the_line_of_the_step_or_of_the_pipeline(tmp_path: Path) -> None:
    @step_of(airflow={"pool": 3})
    def load() -> int:
        return 1

    line = load.function.__code__.co_firstlineno
    for_step = Pipeline("p").add_step(load)
    for_pipeline = Pipeline("p", tags=["x" * 101]).add_step(step_of(load.function))
    orchestrator = AirflowOrchestrator(dags_folder=tmp_path)
    with pytest.raises(UnknownOptionError, match=rf"step 'load': .*test_compiler\.py, line {line}\)$"):
        orchestrator.compile_pipeline(for_step)
    with pytest.raises(DefinitionError, match=rf"longer than Airflow's 100.*test_compiler\.py, line {line + 6}\)$"):
        orchestrator.compile_pipeline(for_pipeline)


def test_docs_show_fifty_steps() -> None:
    many = Plan(name="many", steps=tuple(Step(name=f"s{number}", function="m:f") for number in range(60)))
    docs = ast.get_docstring(ast.parse(text(many))) or ""
    assert "| `s49` |  |  |\n| … | 10 more |  |" in docs


def test_names_in_docs_are_escaped_for_markdown() -> None:
    names = ("a|b", "``` x", "*bold* <b>")
    docs = ast.get_docstring(ast.parse(text(Plan(name="n", steps=tuple(Step(name=n, function="m:f") for n in names)))))
    assert docs is not None
    assert "````text\n" in docs, "a fence that no name ends"
    assert docs.splitlines()[-6:-3] == ["| `a\\|b` |  |  |", "| ```` ``` x ```` |  |  |", "| `*bold* <b>` |  |  |"]


def test_code_that_is_not_deployed_has_a_dag_of_its_own() -> None:
    plan = one_step()
    own, trial = compile_dag(bundle(plan)), compile_dag(bundle(plan), development=True)
    assert (trial.dag_id, trial.filename) == ("one__dev", "one__dev.py")
    assert 'dag_display_name="one (development)"' in trial.text
    assert trial.bundle.filename == own.bundle.filename
    assert pipeline_of(trial.dag_id, "one (development)") == pipeline_of(own.dag_id, "one") == "one"


def test_the_difference_of_code_is_shown() -> None:
    plan = one_step()
    old = build(plan, files={"a.py": b"x = 1\n", "b.py": b"same\n", "c.bin": b"\xff", "gone.py": b"1"})
    new = build(plan, files={"a.py": b"x = 2\n", "b.py": b"same\n", "c.bin": b"\xff\xfe", "new.py": b"2\n"})
    assert bundle_difference(old, old) == ""
    shown = bundle_difference(old, new)
    assert "--- deployed/code/a.py\n+++ new/code/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n" in shown
    assert "code/c.bin changes: 1 bytes, then 2.\n" in shown
    assert "--- deployed/code/gone.py\n+++ /dev/null\n" in shown
    assert "--- /dev/null\n+++ new/code/new.py\n" in shown
    assert "b.py" not in shown
    assert "FlowyML itself changes, in 1 file of" in bundle_difference(old, old.with_files({"flowyml/x.py": b""}))


def test_no_two_share_a_task_or_an_xcom_and_none_is_airflows_own() -> None:
    names = ["a b", "a-b", "a_b", "A_b", "a/b", "ä_b", START_TASK, "class", "x" * 200, "y" * 199 + "/", "return_value"]
    for made, taken in (([*map(task_id, names)], START_TASK), ([*map(xcom_key, names)], "return_value")):
        assert len({*made, taken}) == len(names) + 1
        assert all(len(each) <= 250 and each.isascii() for each in made)


def test_a_task_that_is_stopped_while_its_code_is_loaded_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"sys": sys}
    exec(WORKER, names)
    monkeypatch.setitem(sys.modules, "flowyml_airflow.worker", ModuleType("half"))
    with pytest.raises(SystemExit, match="stopped before the code of its step was loaded"):
        names["stop"]()
    try:
        raise TimeoutError
    except TimeoutError:
        names["stop"]()  # that error is what ends the task
