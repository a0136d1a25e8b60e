"""What FlowyML compiles, as KFP's and Argo's sources take it: a second opinion that knows nothing of the compiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from flowyml import Pipeline, cleanup, context, pipeline, step
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, PipelineOutput, Plan, Step
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import compile_pipeline

pytest.importorskip("kfp")

from tests.engines.kubeflow_ir import RULES, faults

Json = dict[str, Any]


ODD_NAMES = [
    "2nd", "matches", "x-driver", "x-iterations", "executor", "{{workflow.name}}", "{{inputs.parameters.x}}",
    "{{=1+1}}", "{{$.pipeline_job_name}}", "日本", "a" * 200, "cost in $$", "$(FLOWYML_SECRET_PW)",
]  # fmt: skip


@pytest.mark.parametrize("hooks", [False, True], ids=["plain", "hooks"])
def test_odd_names_have_no_faults(hooks: bool) -> None:
    steps = tuple(Step(name=name, function="m:f", outputs=(name,)) for name in (*ODD_NAMES, "x"))
    last = tuple(PipelineOutput(name, FromStep(name, name)) for name in ODD_NAMES)
    plan = Plan(name="{{workflow.name}}", steps=steps, outputs=last, hooks=("m:hook",) if hooks else ())
    made = compile_pipeline(build(plan))
    assert faults(made.documents) == []


def test_a_name_that_argo_would_compute_is_read_back() -> None:
    from flowyml_kubeflow.reader import Tasks

    named = (*ODD_NAMES, "{ {x} }", "{{{x")
    plan = Plan(name="computed", steps=tuple(Step(name=name, function="m:f") for name in named))
    made = compile_pipeline(build(plan))
    assert faults(made.documents) == []
    read = Tasks(type("Run", (), {"run_details": None}), yaml.safe_load(spec.text(made)))
    assert {*read.steps.values()} == {*named}


@pytest.mark.parametrize("hooks", [(), ("m:hook",)], ids=["", "hooks"])
@pytest.mark.parametrize("kind", ["plain", "cleanup", "loop"])
def test_a_pipeline_may_be_called_like_its_step(kind: str, hooks: tuple[str, ...]) -> None:
    @step
    def train(n: int = 0) -> int:
        return n

    @pipeline(name="train")
    def made() -> None:
        if kind == "loop":
            train.map(n=[1, 2])
        else:
            train()
        if kind == "cleanup":
            with cleanup():
                train.options(name="tidy")()

    plan = replace(made.bundle().plan, hooks=hooks)
    assert faults(compile_pipeline(build(plan)).documents) == []


# Each rule refuses something: a change to a sound pipeline, and the rule that has to see it.


@pytest.fixture(scope="module")
def sound() -> str:
    @step(outputs=["rows"], retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=5))
    def load(count: int = 3) -> list[int]:
        return [*range(count)]

    @step(
        outputs=["total"],
        resources=ResourceRequirements(cpu="1"),
        kubeflow={
            "env": {"A": "b"}, "secrets": {"S": "s/k"}, "pvcs": {"/data": "claim"}, "labels": {"team": "a"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        },
    )  # fmt: skip
    def add(rows: list[int]) -> int:
        return sum(rows)

    pipeline = Pipeline("sound", context=context(count=2)).add_step(load).add_step(add)
    made = compile_pipeline(pipeline.bundle())
    assert faults(made.documents) == []
    return json.dumps(made.documents)


def _tasks(documents: list[Json]) -> Json:
    found: Json = documents[0]["root"]["dag"]["tasks"]
    return found


def _pod(documents: list[Json]) -> Json:
    found: Json = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-add"]
    return found


def _container(documents: list[Json], name: str = "add") -> Json:
    found: Json = documents[0]["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return found


def _renamed(documents: list[Json], name: str) -> None:
    tasks = _tasks(documents)
    tasks[name] = tasks.pop("add")
    for selectors in documents[0]["root"]["dag"]["outputs"].values():
        text = json.dumps(selectors).replace('"producerSubtask": "add"', f'"producerSubtask": "{name}"')
        selectors.clear()
        selectors.update(json.loads(text))


CHANGES: list[tuple[str, Callable[[list[Json]], Any]]] = [
    ("the_protobufs_take_it", lambda made: made[0].update(more=1)),
    ("the_api_server_reads_it", lambda made: made[0].update(schemaVersion="2.0.0")),
    ("components_are_there", lambda made: _tasks(made)["add"].update(componentRef={"name": "comp-other"})),
    ("kfp_loads_the_pipeline", lambda made: made[0]["pipelineInfo"].update(name="add")),
    ("components_end", lambda made: made[0]["components"].update(
        {"comp-add": {"dag": {"tasks": {"inner": {"componentRef": {"name": "comp-add"}}}}}})),
    ("no_two_components_share_a_container", lambda made: made[0]["deploymentSpec"]["executors"].update(
        {"exec-add": {"container": _container(made, "load")}})),
    ("containers_can_start", lambda made: _container(made).pop("image")),
    ("placeholders_lead_to_ports", lambda made: _container(made)["args"].append("{{$.inputs.parameters['no']}}")),
    ("argo_takes_the_names", lambda made: _renamed(made, "2nd")),
    ("argo_tells_the_nodes_apart", lambda made: _renamed(made, "load-driver")),
    ("argo_finds_no_variable", lambda made: _tasks(made)["add"]["taskInfo"].update(name="{{=1+1}}")),
    ("argo_finds_no_variable", lambda made: _tasks(made)["add"]["taskInfo"].update(name="{{workflow.name}}")),
    ("kubernetes_finds_no_variable", lambda made: _container(made)["args"].append("$(HOME)")),
    ("kubernetes_finds_no_variable", lambda made: _tasks(made)["add"]["inputs"].update(
        parameters={"step-name": {"runtimeValue": {"constant": "a $$ b"}}})),
    ("the_workflow_fits_into_etcd", lambda made: _container(made)["args"].extend(["x" * 120_000] * 9)),
    ("a_driver_can_start", lambda made: _container(made)["args"].extend(["x" * 120_000] * 2)),
    ("a_launcher_can_start", lambda made: made[0]["components"]["comp-add"]["inputDefinitions"]["artifacts"].update(
        {f"more_{n}": {"artifactType": {}, "isOptional": True} for n in range(200)})),
    ("dependencies_are_there", lambda made: _tasks(made)["add"]["dependentTasks"].append("other")),
    ("inputs_are_those_of_the_component", lambda made: _tasks(made)["add"]["inputs"]["artifacts"].pop("rows")),
    ("inputs_come_from_somewhere", lambda made: _tasks(made)["add"].pop("dependentTasks")),
    ("inputs_come_from_somewhere", lambda made: _tasks(made)["add"]["inputs"]["artifacts"]["rows"]
        ["taskOutputArtifact"].update(outputArtifactKey="other")),
    ("inputs_have_the_type_of_their_source", lambda made: made[0]["root"]["inputDefinitions"]["parameters"]["count"]
        .update(parameterType="STRING", defaultValue="x")),
    ("artifacts_have_the_type_of_their_source", lambda made: (
        made[0]["components"]["comp-add"]["inputDefinitions"]["artifacts"].update(
            rows={"artifactType": {"schemaTitle": "system.Model"}}),
        made[0]["components"]["comp-load"]["outputDefinitions"]["artifacts"].update(
            rows={"artifactType": {"schemaTitle": "system.Dataset"}}))),
    ("conditions_can_be_computed", lambda made: _tasks(made)["add"].update(
        triggerPolicy={"condition": "inputs.parameter_values['when'] == 'true'"})),
    ("iterations_have_items", lambda made: _tasks(made)["add"].update(
        parameterIterator={"items": {"inputParameter": "many"}, "itemInput": "one"})),
    ("outputs_come_from_somewhere", lambda made: made[0]["root"]["outputDefinitions"]["artifacts"].clear()),
    ("defaults_are_of_their_type", lambda made: made[0]["root"]["inputDefinitions"]["parameters"]["count"].update(
        defaultValue=0.5)),
    ("pods_are_those_of_executors", lambda made: made[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        .update({"exec-other": {}})),
    ("volumes_are_distinct", lambda made: _pod(made)["pvcMount"].append({"constant": "claim", "mountPath": "/b"})),
    ("variables_are_set_once", lambda made: _container(made)["env"].append({"name": "S", "value": "x"})),
    ("kubernetes_takes_the_pods", lambda made: _pod(made)["podMetadata"]["labels"].update(team="a b")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), CHANGES, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(CHANGES)])
def test_a_fault_is_found(rule: str, change: Callable[[list[Json]], Any], sound: str) -> None:
    documents = json.loads(sound)
    change(documents)
    found = faults(documents)
    seen = [fault for fault in found if fault.startswith(f"{rule}: ")]
    assert seen or (rule == "the_protobufs_take_it" and found), found


def test_each_rule_has_a_fault_that_it_finds() -> None:
    assert {rule for rule, _ in CHANGES} == {rule.__name__ for rule in RULES}
