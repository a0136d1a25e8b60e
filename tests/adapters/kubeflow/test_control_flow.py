"""Loops, branches and what failed of them, beside what the conformance suite says of every engine."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from flowyml import Pipeline, pipeline, step
from flowyml.cli.records import plain_artifact
from flowyml.core.errors import OutputNotKeptError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators.downloading import download
from flowyml.runtime.decider import OK, Decider, End, Gathered, Index, Outcome
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.graph import chunks
from flowyml_kubeflow.records import Entry, Known, PodEvaluator, PodFacts
from flowyml_kubeflow.step_runs import step_runs
from flowyml_kubeflow.tasks import Tasks
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.engines.kubeflow_ir import faults

pytest.importorskip("kfp")
pytestmark = OVER_THE_API


def awkward(folder: str) -> Pipeline:
    """Values that JSON, or a database, does not take, and a loop's list of files."""

    @step
    def numbers() -> list[int]:
        return [1]

    @step
    def scores(n: int) -> dict[str, float]:
        return {"auc": float("nan"), "n": n}

    @step
    def text() -> str:
        return "a\0b"

    @step
    def write(n: int) -> Path:
        path = Path(folder) / f"{n}.txt"
        path.write_text("kept?")
        return path

    @pipeline(name="awkward")
    def made() -> Any:
        items = numbers()
        file = write.options(name="one file")(7)
        return {"scores": scores.map(n=items), "text": text(), "files": write.map(n=items), "file": file}

    return made


def test_awkward_values_are_listed_and_downloaded_and_files_of_a_loop_are_not_kept(
    orchestrator: KubeflowOrchestrator, shared: Path, tmp_path: Path
) -> None:
    handle = orchestrator.run_pipeline(awkward(str(shared)), run_id("awkward")).wait_for_completion(RUN, 0.2)
    found = {each.label: each for each in handle.artifacts()}
    listed = json.loads(json.dumps(plain_artifact(found["scores[0].scores"]), allow_nan=False))
    assert (listed["type"], listed["metadata"]) == (
        "metrics", {"auc": {"$type": "float", "$repr": "nan"}, "n": 1},
    )  # fmt: skip
    assert found["text.text"].size == 3
    download(found.values(), orchestrator.artifact_stores(handle.job_id), tmp_path / "out")
    assert (tmp_path / "out" / "text" / "text.txt").read_bytes() == b"a\0b"
    assert json.loads((tmp_path / "out" / "scores[0]" / "scores.json").read_text()) == listed["metadata"]
    assert (tmp_path / "out" / "one file" / "7.txt").read_text() == "kept?"
    assert handle.outputs["text"] == "a\0b"
    with pytest.raises(OutputNotKeptError, match="'files' is a loop's list of files or folders"):
        handle.outputs["files"]


def total_of_doubles() -> Pipeline:
    @step
    def numbers() -> list[int]:
        return [1, 2, 3]

    @step
    def double(n: int) -> int:
        return 2 * n

    @step
    def total(values: list[int]) -> int:
        return sum(values)

    @pipeline(name="doubles")
    def made() -> Any:
        return {"total": total(double.map(n=numbers()))}

    return made


@pytest.mark.parametrize(
    ("left", "outcome"),
    [
        ({(0,): End.OK, (1,): End.OK, (2,): End.OK}, OK),
        ({(0,): End.OK, (2,): End.OK}, Outcome(End.FAILED, "'double[1]' left nothing")),
        ({(): End.OK}, OK),  # the loop has no items
        ({(): End.SKIPPED}, Outcome(End.SKIPPED)),
        ({}, Outcome(End.FAILED, "'double' left nothing")),
    ],
)
def test_a_list_is_as_complete_as_what_the_pods_of_its_items_left(
    tmp_path: Path, left: dict[Index, End], outcome: Outcome
) -> None:
    """An item whose pod died has left nothing, and is not missing in silence."""
    of_items, known, plan = Known(tmp_path), Known(tmp_path), total_of_doubles().compile()
    of_items.steps["double"] = {index: Entry(end, "", {"double": 2}) for index, end in left.items()}
    of_items.write(tmp_path / "record", steps=["double"])
    known.read(tmp_path / "record")
    facts = PodFacts(known, plan.structure, lambda _: None, "")
    decider = Decider(plan, facts, PodEvaluator(plan.structure, lambda packed: packed, lambda value: value))
    assert decider.decide(plan.by_name["total"], ()) == outcome
    if outcome == OK:
        count = sum(len(index) for index in left)
        assert decider.inputs(plan.by_name["total"], ()) == {"values": Gathered([2] * count)}


def test_an_older_local_runner_refuses_loops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.15.2" if name == "kfp" else here(name))
    with pytest.raises(UnsupportedFeatureError, match=r"from kfp 2.16 on; here is kfp 2.15.2"):
        KubeflowLocalOrchestrator(folder=tmp_path).plan(awkward(str(tmp_path)))


@pytest.mark.parametrize(
    ("count", "pods", "size"), [(1, 1, 1), (50, 50, 1), (51, 26, 2), (200, 50, 4), (10_000, 50, 200)]
)
def test_chunks_hold_all_items_once(count: int, pods: int, size: int) -> None:
    made = [tuple(map(int, chunk.split(":"))) for chunk in chunks(count, 50)]
    assert [n for first, last in made for n in range(first, last)] == list(range(count))
    assert (len(made), max(last - first for first, last in made)) == (pods, size)


def test_kfp_shows_a_loop_by_its_name_and_limit_and_constant_items_need_no_pod() -> None:
    @step(max_parallel=3)
    def one(n: int) -> int:
        return n

    @pipeline(name="limited")
    def made(given: list[int] = [1]) -> Any:
        return one.map(n=given), one.options(name="fixed").map(n=[5, 6, 7])

    tasks = compile_pipeline(made.bundle(), store="s3://code").spec["root"]["dag"]["tasks"]
    loop = tasks["one--loop"]
    assert (loop["taskInfo"]["name"], loop["iteratorPolicy"]) == ("one", {"parallelismLimit": 3})
    assert [task["taskInfo"]["name"] for task in tasks.values()] == [
        "one: items", "one", "one: all items", "fixed", "fixed: all items", "the end of the run",
    ]  # fmt: skip
    assert json.loads(tasks["fixed--loop"]["parameterIterator"]["items"]["raw"]) == ["0:1", "1:2", "2:3"]


@pytest.mark.parametrize("length", [50, 51, 60])
def test_a_loop_has_a_name_that_argo_takes(length: int) -> None:
    @step(name="x" * length)
    def train(number: int) -> int:
        return number

    @pipeline
    def long(numbers: list[int]) -> Any:
        return {"all": train.map(number=numbers)}

    made = compile_pipeline(long.bundle(), store="s3://code")
    assert faults(made.documents) == []
    assert list(Tasks(type("Run", (), {"run_details": None}), made.spec).steps.values()) == ["x" * length]


def test_what_looks_like_a_reference_in_a_value_is_a_value(tmp_path: Path) -> None:
    """Only what stands for the whole of an output is taken out of a record's file, never what is within it."""
    secret = tmp_path / "secret.zip"
    with ZipFile(secret, "w") as file:
        file.writestr("0", "secret")
    planted = {"$artifact": {"url": f"zip:{secret}!0", "format": "json", "sha256": "", "size": "6", "type": "str"}}
    known = Known(tmp_path / "scratch")
    known.steps["one"] = {(): Entry(End.OK, "", {"value": [planted]})}
    known.write(tmp_path / "record.zip", steps=["one"])
    read = Known(tmp_path / "other")
    read.read(tmp_path / "record.zip")
    value = read.steps["one"][()].outputs["value"]
    assert value == [planted]
    assert read.here(value) == [planted]


def test_what_stood_in_for_items_is_gone_when_they_have_come_to_be() -> None:
    """When the run was tried again, after what the list is from had failed."""

    def note(*index: int, **facts: Any) -> dict[str, Any]:
        return {"index": list(index), "attempt": 0, "error": "", "time": 1.0, **facts}

    stood_in = note(ended="upstream_failed")
    items = [note(0, ended="no_items"), note(1, 0, attempt=1), note(1, 1, attempt=1)]
    for notes, known, expected in (
        ([stood_in], None, ["train"]),
        ([stood_in, *items], 3, ["train[0]", "train[1][0]", "train[1][1]", "train[2]"]),
    ):
        turns = step_runs("train", notes, ExecutionStatus.RUNNING, items=known)
        assert [turn.label for turn in turns] == expected


def test_no_step_of_a_completed_run_was_cancelled_whatever_its_log_lacks() -> None:
    """Kubernetes drops the oldest lines of a long log."""
    note = {"index": [2], "attempt": 0, "error": "", "time": 1.0, "ended": "completed"}
    turns = step_runs("train", [note], ExecutionStatus.COMPLETED, items=3)
    assert [turn.status for turn in turns] == [ExecutionStatus.COMPLETED] * 3
    assert ["cut off" in str(turn.error) for turn in turns] == [True, True, False]
