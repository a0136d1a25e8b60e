"""The compiled flow: the same for the same plan, laid out as ruff would, and tight whatever the names are."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError, ParameterError, UnknownOptionError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.conditions import Compare
from flowyml.plan.groups import Branch, Cleanup, Loop, Section
from flowyml.plan.layout import source, text_literal, value
from flowyml.plan.model import (
    Caching,
    Constant,
    FromEither,
    FromItem,
    FromParameter,
    FromStep,
    Input,
    Parameter,
    PipelineOutput,
    Plan,
    Step,
)
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.compiler import compile_flow, flow_function, task_functions
from flowyml_prefect.names import FlowNames, flow_name
from flowyml_prefect.parameters import given_parameters, parameter_schema, read_parameters
from flowyml_prefect.worker import to_log
from tests.security.test_what_a_name_can_do import ATTACKS, is_name

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden/prefect"

# Together these have each form that is compiled: what is plain; what people add to steps and runs; and control flow.
PLAIN = Plan(
    name="plain",
    parameters=(Parameter(name="rows", schema={"type": "integer"}, default=100),),
    steps=(
        Step(name="load", function="plain:load", inputs=(Input("rows", FromParameter("rows")),), outputs=("dataset",)),
        Step(name="notify", function="plain:notify", after=("load",)),
    ),
    outputs=(PipelineOutput("dataset", FromStep("load", "dataset")),),
)

TRAINING = Plan(
    name="training",
    description="Trains a classifier.",
    parameters=(
        Parameter(name="rows", schema={"type": "integer"}, default=100),
        Parameter(name="source", schema={"type": "string"}, required=True),
        Parameter(name="rate", schema={"anyOf": [{"type": "number"}, {"type": "null"}]}),
        Parameter(name="form", schema={"type": "object"}, default={"$ref": "#/x"}),
    ),
    steps=(
        Step(
            name="load",
            function="training:load",
            inputs=(Input("rows", FromParameter("rows")), Input("source", FromParameter("source"))),
            outputs=("dataset", "labels"),
            retry=OrchestratorRetryPolicy(
                max_attempts=3, initial_delay_seconds=10, retryable_errors=["OOM", "Timeout"]
            ),
            description="Reads the data.",
            secrets={"password": "Warehouse/password"},
            caching=Caching(code="a digest"),
        ),
        Step(
            name="train model",
            function="training:train",
            inputs=(
                Input("dataset", FromStep("load", "dataset")),
                Input("labels", FromStep("load", "labels")),
                Input("rate", FromParameter("rate")),
                Input("form", FromParameter("form")),
                Input("depth", Constant(4)),
            ),
            outputs=("model",),
            timeout_seconds=900,
            tags=("heavy",),
        ),
        Step(name="notify", function="training:notify", after=("train model",)),
    ),
    outputs=(PipelineOutput("model", FromStep("train model", "model")),),
    hooks=("Journal",),
    timeout_seconds=3600,
    schema_version=2,
)


SEARCH = Plan(
    name="search",
    parameters=(Parameter(name="rates", schema={"type": "array"}, required=True),),
    steps=(
        Step(
            name="train", function="search:train", inputs=(Input("rate", FromItem("train", "rate")),),
            outputs=("score",), retry=OrchestratorRetryPolicy(max_attempts=2), group="train",
        ),
        Step(name="best", function="search:best", inputs=(Input("scores", FromStep("train", "score")),),
             outputs=("score", "rate")),
        Step(name="publish", function="search:publish", inputs=(Input("rate", FromStep("best", "rate")),),
             outputs=("text",), group="good"),
        Step(name="hold", function="search:hold", outputs=("text",), group="bad"),
        Step(
            name="tell", function="search:tell", outputs=(), timeout_seconds=60, run_if="all_done",
            inputs=(Input("text", FromEither((FromStep("publish", "text"), FromStep("hold", "text")))),),
        ),
        Step(name="tidy.up", function="search:tidy", group="tidy", run_if="all_done"),
    ),
    groups=(
        Loop(name="train", over=(Input("rate", FromParameter("rates")),), max_parallel=4, on_item_error="continue"),
        Branch(name="good", choice="c", condition=Compare(">", FromStep("best", "score"), Constant(0.9))),
        Branch(name="bad", choice="c"),
        Cleanup(name="cleanup"),
        Section(name="tidy", parent="cleanup", pipeline="tidy"),
    ),
    outputs=(PipelineOutput("scores", FromStep("train", "score")),),
    schema_version=2,
)  # fmt: skip


def compiled(plan: Plan, *, walks: bool = False) -> str:
    return compile_flow(bundle(plan), walks=walks)


def bundle(plan: Plan) -> Bundle:
    return Bundle(plan, b"the bytes of a bundle")


@pytest.mark.parametrize("plan", [PLAIN, TRAINING, SEARCH], ids=lambda plan: plan.name)
def test_golden(plan: Plan, update_golden: bool) -> None:
    text = compiled(plan)
    golden = GOLDEN / f"{plan.name}.py"
    if update_golden:
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_flows_are_laid_out_as_ruff_would(tmp_path: Path) -> None:
    """With neither more nor fewer imports than are used."""
    for plan in (PLAIN, TRAINING, SEARCH):
        text = compiled(plan)
        assert ast.get_docstring(ast.parse(text))
        (tmp_path / f"{plan.name}.py").write_text(text, "utf-8")
    for command in (
        ["format", "--check"],
        ["check", "--select", "F401,F821,I"],
    ):
        ruff = [sys.executable, "-m", "ruff", *command, "--line-length=120", "--no-cache", "--isolated", str(tmp_path)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_pipeline_in_a_pipeline_alone_is_no_control_flow() -> None:
    plan = replace(
        TRAINING, groups=(Section(name="in", pipeline="in"),), steps=tuple(replace(s, group="in") for s in TRAINING)
    )
    assert compiled(plan) == compiled(TRAINING)


def idle() -> None:
    """A step."""


@pytest.mark.parametrize(
    ("pipeline", "who"),
    [
        (Pipeline("p", prefect={"work_queue": "gpu"}).add_step(step(idle)), "pipeline 'p'"),
        (Pipeline("p").add_step(step(prefect={"work_queue": "gpu"})(idle)), "step 'idle'"),
    ],
)
def test_options_under_prefect_are_refused_and_not_ignored(pipeline: Pipeline, who: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"{who}: prefect has no option 'work_queue'. It takes none."):
        PrefectOrchestrator().compile_files(pipeline.bundle())


def test_files_of_the_orchestrator() -> None:
    """The bundle has what the flow imports from FlowyML."""
    files = PrefectOrchestrator().compile_files(build(TRAINING))
    name = Bundle.of(files[[*files][1]]).filename
    assert list(files) == ["flow.py", name]
    assert f'BUNDLE = Path(__file__).resolve().with_name("{name}")'.encode() in files["flow.py"]
    assert {"flowyml_prefect/worker.py", "flowyml_prefect/walker.py"} <= Bundle.of(files[name]).files.keys()


def test_the_parameter_form() -> None:
    schema = parameter_schema(TRAINING)
    assert schema["required"] == ["source"]
    assert schema["properties"]["rows"] == {"title": "rows", "position": 0, "type": "integer", "default": 100}


def test_types_of_parameters_stand_where_their_references_point() -> None:
    def referring(to: dict[str, Any]) -> dict[str, Any]:
        return {"$defs": {"Item": to}, "type": "array", "items": {"$ref": "#/$defs/Item"}}

    one, other = {"type": "object"}, {"type": "object", "properties": {"next": {"$ref": "#/$defs/Item"}}}
    parameters = (Parameter(name="items", schema=referring(one)), Parameter(name="größe", schema=referring(other)))
    form = parameter_schema(replace(TRAINING, parameters=parameters))
    assert form["properties"]["items"]["items"] == {"$ref": "#/definitions/items.Item"}
    assert "$defs" not in form["properties"]["items"]
    assert form["definitions"]["items.Item"] == one
    assert form["definitions"]["größe.Item"]["properties"]["next"] == {"$ref": "#/definitions/größe.Item"}
    taken = Draft202012Validator(form)
    assert taken.is_valid({"items": [{}], "größe": [{"next": {}}], "source": ""})
    assert not taken.is_valid({"items": [1]})
    assert not taken.is_valid({"größe": [{"next": 1}]})


def test_long_backoffs_are_as_many_as_prefect_takes() -> None:
    policy = OrchestratorRetryPolicy(max_attempts=100, backoff_multiplier=1)
    plan = replace(TRAINING, steps=(replace(TRAINING.steps[0], retry=policy),), outputs=())
    task = loaded(plan)["load"]
    assert (task.retries, len(task.retry_delay_seconds)) == (99, 50)


@pytest.mark.parametrize("name", ["return_state", "wait_for", "run_step", "_x", "a b", "class"])
def test_parameters_that_a_flow_cannot_have(name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot have a parameter called"):
        compiled(replace(TRAINING, parameters=(Parameter(name=name),)))


USED = ["flow", "task", "list", "dict", "PIPELINE", "State", "json", "Values", "print", "rows", "GRACE"]
OF_A_RETRY = ["StepTask", "run_all", "run_step"]


@pytest.mark.parametrize(("name", "walks"), [*((name, False) for name in USED), *((name, True) for name in OF_A_RETRY)])
def test_steps_may_be_called_like_what_the_flow_or_a_retry_uses(name: str, walks: bool) -> None:
    """A retry compiles a flat plan as one with control flow, by the names that the plan has had."""
    step = Step(name=name, function="m:f", inputs=(Input("rows", FromParameter("rows")),), outputs=("out",))
    after = Step(name="after", function="m:f", inputs=(Input("x", FromStep(name, "out")),))
    plan = Plan(name=name, steps=(step, after), parameters=(Parameter(name="rows", default=1),))
    module = loaded(plan, walks=walks)
    assert module[task_functions(plan)[name]].name == module[flow_function(plan)].name == name
    assert name not in (task_functions(plan)[name], flow_function(plan))


def test_no_function_is_called_like_what_a_flow_defines() -> None:
    for plan in (PLAIN, TRAINING, SEARCH):
        own = {flow_function(plan), *task_functions(plan).values()}
        for name in loaded(plan).keys() - own - {"annotations"}:
            assert FlowNames(Plan(name="p", steps=(Step(name="s", function="m:f"),))).fresh(name) != name


def hostile(name: str) -> Plan:
    """A plan in which each name and text that a user may choose is this one; its step is in a branch within a loop."""
    loop = Loop(name=f"{name} loop", over=(Input(name, Constant([name])),), max_parallel=2)
    condition = Compare("==", FromItem(loop.name, name), Constant(name))
    branch = Branch(name=f"{name} branch", parent=loop.name, choice="c", condition=condition)
    section = Section(name=f"{name} section", parent=branch.name, pipeline=name)
    step = Step(
        name=name, function="m:f", outputs=(name,), tags=(name,), description=name, group=section.name,
        inputs=(Input(name, FromItem(loop.name, name)), Input("c", Constant({name: [name]}))),
        retry=OrchestratorRetryPolicy(retryable_errors=[name]),
    )  # fmt: skip
    last = Step(name=f"{name} end", function="m:f", run_if="all_done", group=f"{name} clean-up")
    return Plan(
        name=name, description=name, hooks=(name,), parameters=(Parameter(name="p", default={name: [name]}),),
        steps=(step, last), groups=(loop, branch, section, Cleanup(name=f"{name} clean-up")),
        outputs=(PipelineOutput(name, FromStep(name, name)),),
    )  # fmt: skip


def test_no_name_breaks_out_of_loops_branches_and_clean_up() -> None:
    """Of plain plans and other compilers, ``tests/security/test_what_a_name_can_do.py`` tries that."""
    common = common_names()
    for name in filter(is_name, ATTACKS):
        plan = hostile(name)
        module, tasks = loaded(plan), task_functions(plan)
        assert [module[tasks[step.name]].name for step in plan] == [step.name for step in plan]
        assert [module[tasks[step.name]].tags for step in plan] == [set(step.tags) for step in plan]
        flow = module[flow_function(plan)]
        (parameter,) = signature(flow.fn).parameters.values()
        assert (flow.name, parameter.default) == (flow_name(name), plan.parameters[0].default)
        assert module["PIPELINE"].name == name
        assert set(module) == {*common, *tasks.values(), flow_function(plan)}


texts = st.text(max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_literals_are_what_they_stand_for(plain: Any) -> None:
    assert json.dumps(ast.literal_eval(source(value(plain)))) == json.dumps(plain)


@given(st.text())
def test_text_literals(text: str) -> None:
    assert ast.literal_eval(text_literal(text)) == text
    assert "\n" not in text_literal(text)


def loaded(plan: Plan, *, walks: bool = False) -> Mapping[str, Any]:
    """What executing the compiled file defines; FlowyML is imported from here, since the bundle beside it is empty."""
    with TemporaryDirectory() as folder:
        module: dict[str, Any] = {"__name__": "compiled", "__file__": str(Path(folder).resolve() / "flow.py")}
        path = Path(folder) / bundle(plan).filename
        with ZipFile(path, "w") as empty:
            empty.writestr("__main__.py", "def make_importable(bundle): ...")
        text = compiled(plan, walks=walks).replace(bundle(plan).digest, sha256(path.read_bytes()).hexdigest())
        exec(compile(text, "flow.py", "exec", dont_inherit=True), module)
    return {name: item for name, item in module.items() if not name.startswith("__")}


def common_names() -> set[str]:
    """What each compiled flow with control flow defines."""
    step = Step(name="s", function="m:f", run_if="always", retry=OrchestratorRetryPolicy())
    plan = Plan(name="p", parameters=(Parameter(name="rows"),), steps=(step,))
    return set(loaded(plan)) - {flow_function(plan), *task_functions(plan).values()}


@given(
    st.dictionaries(st.text(max_size=5), values | st.just({"x": [{"__prefect_kind": "jinja", "template": "{{ 1 }}"}]}))
)
def test_parameters_that_look_like_templates_are_read_back(parameters: dict[str, Any]) -> None:
    given = given_parameters(parameters)
    assert read_parameters(given) == parameters
    assert all(
        "jinja" not in json.dumps(item) or item["__prefect_kind"] == "json"
        for item in given.values()
        if isinstance(item, dict)
    )


def test_more_parameters_than_prefect_stores_are_refused_before_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    orchestrator = PrefectOrchestrator("http://127.0.0.1:9")  # where nothing answers
    plan = Plan(
        name="p",
        parameters=(Parameter(name="text", schema={"type": "string"}),),
        steps=(Step(name="s", function="m:f"),),
    )
    bundle = build(plan)
    with pytest.raises(ParameterError, match=r"have 1,000,011 bytes as JSON; Prefect stores at most 524,288 of a run"):
        orchestrator.submit(bundle, "run", {"text": "x" * 1_000_000})
    monkeypatch.setenv("PREFECT_SERVER_API_MAX_PARAMETER_SIZE", "0")
    assert given_parameters({"text": "x" * 1_000_000})


def test_of_many_lines_the_first_and_the_last_are_shown() -> None:
    for printed, notes in ((0, 0), (9_999, 0), (10_000, 1), (11_000, 1)):
        lines = logged(printed)
        assert len(lines) == printed + notes
        assert [line for line in lines if line.startswith("line ")] == [f"line {n}" for n in range(printed)]
    lines = logged(50_000)
    assert lines[:10_000] == [f"line {n}" for n in range(10_000)]
    assert lines[10_000:10_002] == [
        "The first 10000 lines are logged as they come; of the others, only the last 1000 follow at the end.",
        "39000 lines are left out here.",
    ]
    assert lines[10_002:] == [f"line {n}" for n in range(49_000, 50_000)]


def logged(count: int) -> list[str]:
    """What a flow logs of a step that prints so many lines, and then fails."""
    handler = Listing()
    logger = logging.Logger("of the test")
    logger.addHandler(handler)
    with suppress(KeyError), to_log(logger) as on_line:
        for number in range(count):
            on_line("out", f"line {number}")
        raise KeyError("the end")
    return handler.lines


class Listing(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
