"""What KFP's UI draws of three pipelines, as docs/engines/kubeflow-operate.md says, and the types of outputs there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest

from flowyml import Pipeline, cleanup, otherwise, pipeline, step, when
from flowyml.plan.bundle import Bundle, build
from flowyml_kubeflow.compiler import compile_pipeline
from tests.engines.kubeflow_ir import faults
from tests.engines.kubeflow_ui import drawn

DOCS = Path(__file__).parents[3] / "docs/engines/kubeflow-operate.md"
IMAGE = {"image": "registry.internal/own:1", "runtime": "image"}


@step
def first(n: int) -> int:
    return n + 1


@step
def second(n: int) -> int:
    return n * 2


@step
def configs(count: int) -> list[float]:
    return [1 / n for n in range(1, count + 1)]


@step
def train(rate: float) -> float:
    return rate


@step
def best(scores: list[float]) -> float:
    return max(scores)


@step(secrets={"password": "database/password"})
def ask(password: str) -> int:
    return len(password)


@step
def report(rows: int) -> str:
    return f"{rows} rows"


@step
def excuse() -> str:
    return "none"


@step
def tidy() -> None:
    return None


def made(**options: Any) -> dict[str, Pipeline]:
    @pipeline(name="two", **options)
    def two(n: int = 1) -> Any:
        return second(first(n))

    @pipeline(name="sweep", **options)
    def sweep(count: int = 5) -> Any:
        return best(train.map(rate=configs(count)))

    @pipeline(name="guarded", **options)
    def guarded() -> None:
        with cleanup():
            tidy()
        rows = ask()
        with when(rows > 2, name="many"):
            report(rows)
        with otherwise(name="few"):
            excuse()

    return {"two plain steps": two, "`sweep`": sweep, "two branches": guarded}


def bundle_of(made: Pipeline) -> Bundle:
    """With the steps above for its code."""
    steps = Path(__file__).read_text().partition("\n\n\n@step")[2].partition("def made")[0]
    return build(made.compile(), files={"steps.py": f"from flowyml import step\n\n\n@step{steps}".encode()})


@pytest.mark.parametrize(
    ("column", "options", "store"),
    [(1, IMAGE, None), (1, {}, "s3://code"), (2, {}, None)],
    ids=["image", "store", "file"],
)
def test_the_docs_say_what_is_drawn(column: int, options: dict[str, Any], store: str | None) -> None:
    for name, each in made(**({"kubeflow": options} if options else {})).items():
        (row,) = (line.split("|")[1:] for line in DOCS.read_text().splitlines() if line.startswith(f"| {name}"))
        root = drawn(compile_pipeline(bundle_of(each), store=store).spec)[""]
        numbers = [len(root.tasks), len(root.artifacts), len(root.arrows)]
        assert [int(number) for number in re.findall("[0-9]+", row[column])] == numbers, name


def test_a_step_is_a_box_and_an_output_another() -> None:
    root = drawn(compile_pipeline(bundle_of(made(kubeflow=IMAGE)["two plain steps"])).spec)[""]
    assert root.tasks == ["first", "second"]
    assert root.artifacts == ["first/first", "second/second"]
    assert root.arrows == {
        ("first", "first/first"), ("first/first", "second"), ("first", "second"), ("second", "second/second"),
    }  # fmt: skip


def test_what_flowyml_needs_has_names_that_people_read() -> None:
    spec = compile_pipeline(bundle_of(made(kubeflow=IMAGE)["`sweep`"])).spec
    shown = drawn(spec)
    assert shown[""].tasks == [
        "configs",
        "train: items",
        "DAG: train",
        "train: all items",
        "best",
        "the end of the run",
    ]
    assert shown[""].artifacts == [
        "configs/configs-result", "train: items/train-items", "train/train-result", "train: all items/train-results",
        "best/best-result", "the end of the run/best",
    ]  # fmt: skip
    ports = re.findall('"([a-z-]+-[a-z-]+)": {"(?:componentInput|taskOutput|runtimeValue)', str(spec).replace("'", '"'))
    assert set(ports) == {
        "configs-result", "train-items", "train-result", "train-results", "best-result", "items-of-pods",
        "items-of-pod", "scheduled-time",
    }  # fmt: skip
    assert "__" not in str({**spec, "deploymentSpec": {}})


def test_outputs_have_the_types_that_annotations_name() -> None:
    @step(outputs=["rows"])
    def load() -> Annotated[list[dict[str, int]], "table"]:
        return [{"a": 1}]

    @step(outputs=["model", "scores", "rest"])
    def fit(rows: list[dict[str, int]]) -> tuple[Annotated[Any, "model"], dict[str, float], str]:
        return rows, {"auc": 0.5}, ""

    @pipeline(name="typed")
    def typed() -> Any:
        model, scores, rest = fit(load())
        return {"the model": model, "scores": scores, "rest": rest}

    @pipeline(name="chosen")
    def chosen() -> Any:
        return {"scores": fit(load())[1], "all": fit.options(name="again").map(rows=[[], []])[1]}

    spec = compile_pipeline(typed.bundle()).spec
    assert faults([spec]) == []
    assert types(spec["components"]["comp-load"]["outputDefinitions"]) == {"rows": "system.Dataset"}
    assert types(spec["components"]["comp-fit"]["inputDefinitions"])["rows"] == "system.Dataset"
    given = {"model": "system.Model", "scores": "system.Metrics", "rest": "system.Artifact"}
    assert types(spec["components"]["comp-fit"]["outputDefinitions"]) == given
    of_run = types(spec["root"]["outputDefinitions"])
    assert sorted(of_run.values()) == sorted(given.values())
    decided = compile_pipeline(chosen.bundle()).spec
    assert types(decided["root"]["outputDefinitions"]) == {"scores": "system.Metrics", "all": "system.Artifact"}


def types(definitions: dict[str, Any]) -> dict[str, str]:
    return {port: found["artifactType"]["schemaTitle"] for port, found in definitions["artifacts"].items()}
