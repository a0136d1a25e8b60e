"""What other writers to an engine's records can do to those who read a run: numbers, sizes and forms beyond reason."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import tracemalloc
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest

from flowyml.core.errors import EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import MOST_ITEMS
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml_airflow.log_events import LogEvent
from flowyml_airflow.names import EXACT_KEY, STEP_MARKER
from flowyml_airflow.parameters import parameters_of
from flowyml_airflow.step_runs import attributed
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection
from flowyml_prefect.parameters import read_parameters
from flowyml_prefect.reader import PrefectReader, _rows
from flowyml_prefect.records import TaskRun
from flowyml_prefect.step_runs import Planned, index_of, recorded_runs
from flowyml_prefect.step_runs import step_runs as prefect_step_runs
from tests.engines.web import Recorded, Reply, web

pytest.importorskip("kfp")

from flowyml_kubeflow import KubeflowOrchestrator, deployer, records
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.parameters import _typed
from flowyml_kubeflow.records import Known
from flowyml_kubeflow.step_runs import lines_by_item, result_of
from flowyml_kubeflow.step_runs import step_runs as kubeflow_step_runs
from flowyml_kubeflow.workflow import Workflow

PLAN = [Planned("train", "train", ("each",)), Planned("test", "test", ("each", "inner"))]
NOTE: dict[str, Any] = {"index": [0], "time": 1.0, "attempt": 1, "ended": "completed", "error": ""}
BEYOND = 10**12
RUN = str(uuid.uuid4())


@pytest.mark.parametrize(
    "labels",
    [
        {"flowyml.items.each": BEYOND},
        {"flowyml.items.each": -BEYOND},
        {"flowyml.items.each": 3, **{f"flowyml.items.inner[{number}]": MOST_ITEMS // 2 for number in range(3)}},
    ],
)
def test_labels_of_a_prefect_run_that_name_countless_items(labels: dict[str, int]) -> None:
    with pytest.raises(EngineError, match=r"has a record of .* items of"):
        prefect_step_runs(PLAN, [], labels)


@pytest.mark.parametrize("name", [f"train[{'9' * 5000}]", f"train{'[0]' * 100_000}"])
def test_a_task_run_of_prefect_whose_name_is_no_index(name: str) -> None:
    task = TaskRun(
        id=name, name=name, function="train", state_type="COMPLETED", state_name="Completed", message="", run_count=1,
        start_time=None, end_time=None,
    )  # fmt: skip
    assert index_of(task, "train") == ()


def prefect_reader(url: str) -> PrefectReader:
    return PrefectReader(PrefectClient(Connection(f"{url}/api")))


def prefect_of(labels: dict[str, Any], data: str = "[]") -> Callable[[Recorded], Reply]:
    """A Prefect whose one run has these labels, and this record of its outputs."""
    run = {
        "id": RUN, "name": "r", "flow_id": RUN, "state_type": "COMPLETED", "state_name": "Completed",
        "labels": {"flowyml.pipeline": "p", **labels}, "start_time": "2026-01-01T00:00:00Z",
    }  # fmt: skip

    def reply(request: Recorded) -> Reply:
        return Reply(body=json.dumps([{"data": data}] if "artifacts" in request.path else run).encode())

    return reply


@pytest.mark.parametrize("label", ["", "yesterday", "2026-02-02T00:00:00", 5, None, {}])
def test_a_label_of_a_prefect_run_that_is_no_time_is_ignored(label: Any) -> None:
    """One such run ended the list of all runs, for all users."""
    with web(prefect_of({"flowyml.retried": label, "flowyml.task_runs": label})) as server:
        reader = prefect_reader(server.url)
        assert reader.get_run(RUN).started_at == datetime(2026, 1, 1, tzinfo=UTC)
        assert recorded_runs(reader.fetch(RUN)) == (label if label == 5 else 0)


@pytest.mark.parametrize(
    "data",
    [
        "{", "5", "[5]", "[[]]", '[{"value":"1"}]', '[{"output":"a","value":5}]', '[{"output":"a","value":"{"}]',
        '[{"output":"a","value":"1","loops":5}]', "[" * 100_000, f'[{{"output":"a","value":"{"9" * 5000}"}}]',
        f'[{{"output":"a","value":"{"[" * 100_000}"}}]',
    ],
)  # fmt: skip
def test_a_record_of_outputs_in_prefect_that_another_program_wrote(data: str) -> None:
    with web(prefect_of({}, data)) as server, pytest.raises(EngineError, match="is not as FlowyML writes it"):
        prefect_reader(server.url).outputs(RUN)


def planted(folder: Path, key: str) -> Path:
    entry = [0, "", {"train": 1}]
    with ZipFile(folder / "planted", "w") as file:
        file.writestr("record.json", json.dumps({"steps": {"train": {key: entry}}, "loops": {}, "failed": []}))
    return folder / "planted"


@pytest.mark.parametrize("key", [f"{BEYOND}", f"-{BEYOND}", f"0/{BEYOND}", "1/" * 100_000])
def test_a_pods_record_that_names_countless_items(key: str, tmp_path: Path) -> None:
    known = Known(tmp_path)
    with pytest.raises((EngineError, ValueError)):
        known.read(planted(tmp_path, key))
    assert max(known.counts.values(), default=0) <= MOST_ITEMS


def test_the_items_of_a_pods_record_are_counted_together(tmp_path: Path) -> None:
    known = Known(tmp_path)
    known.read(planted(tmp_path, f"0/{MOST_ITEMS - 10}"))
    assert known.counts == {("train", ()): 1, ("train", (0,)): MOST_ITEMS - 9}
    with pytest.raises(EngineError, match=r"of 'train', of which FlowyML reads 1000000"):
        known.read(planted(tmp_path, "1/100"))


def test_a_pods_record_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LARGEST", 50)
    with pytest.raises(EngineError, match="of which 50 are read"):
        Known(tmp_path).read(planted(tmp_path, "0"))


@pytest.mark.parametrize(
    "printed",
    [
        "[1]", "null", "5", '"text"', '{"note":5}', '{"note":null}', '{"note":{"index":5}}', '{"note":{"index":[0]}}',
        '{"outputs":[1]}', '{"failure":"x"}', '{"artifacts":[]}', "[" * 100_000, '{"note":{"opened":1e999}}',
        *(
            json.dumps({"note": NOTE | changed})
            for changed in (
                {"index": "abc"}, {"index": [-1]}, {"index": [BEYOND]}, {"index": [[]]}, {"index": [True, None]},
                {"time": 1e300}, {"time": "x"}, {"attempt": "y"}, {"opened": BEYOND}, {"ended": "otherwise"},
                {"error": None}, {"artifacts": 5}, {"task": {}},
            )
        ),
    ],
)  # fmt: skip
def test_a_line_that_is_like_a_pods_is_not_read(printed: str) -> None:
    """Any container of that KFP may print it: it was said to be a bug in FlowyML."""
    assert list(lines_by_item([f"flowyml-result {printed}", "text"])) == [("", (), "text", False)]


def test_the_notes_of_pods_are_read() -> None:
    for written in ({"note": NOTE}, {"note": {"time": 1, "opened": 3}}, {"outputs": {}, "files": []}):
        assert result_of(f"flowyml-result {json.dumps(written)}") == written
    found = kubeflow_step_runs("train", [NOTE, {"time": 1, "cached": "r"}], ExecutionStatus.COMPLETED)
    assert [run.label for run in found] == ["train[0]"]


BOMB = b'{"x":[' + b"{}," * 4_000_001 + b"{}]}"


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_manifest_that_fills_the_memory(is_packed: bool) -> None:
    packed = json.dumps({"status": {"compressedNodes": base64.b64encode(gzip.compress(BOMB)).decode()}})
    manifest = packed if is_packed else BOMB.decode()
    with pytest.raises(EngineError, match="holds more than 4,000,000 values"):
        Workflow.of({"pipeline_runtime": {"workflow_manifest": manifest}})


def test_packed_nodes_are_bounded() -> None:
    packed = base64.b64encode(gzip.compress(b" " * (2**27 + 1))).decode()
    manifest = json.dumps({"status": {"compressedNodes": packed}})
    with pytest.raises(EngineError, match="cannot be read: they are larger than 128 MB"):
        Workflow.of({"pipeline_runtime": {"workflow_manifest": manifest}})


@pytest.mark.parametrize("manifest", ["[" * 100_000, "{", "[]"])
def test_a_manifest_that_is_no_workflow_counts_as_none(manifest: str) -> None:
    """The task details are read then."""
    assert Workflow.of({"pipeline_runtime": {"workflow_manifest": manifest}}) is None


def test_numbers_that_are_none() -> None:
    """One run with NaN as a parameter spoiled the list of all runs."""
    found = [_typed(value, None) for value in (float("nan"), float("inf"), 3.0, 2.5, 2**80)]
    assert str(found) == "[nan, inf, 3, 2.5, 1208925819614629174706176]"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (json.dumps({"run_id": str(uuid.uuid4())}), "sent run .* for run"),
        ('{"run_id":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        (json.dumps({"run_id": RUN, "state_history": 5}), "has another form"),
    ],
    ids=["another run", "nested", "another form"],
)
def test_an_answer_about_another_run_or_without_end(answer: str, error: str) -> None:
    def reply(request: Recorded) -> Reply:
        return Reply(body=b'{"multi_user": false}' if request.path.endswith("healthz") else answer.encode())

    with web(reply) as server, pytest.raises(EngineError, match=error) as raised:
        KubeflowOrchestrator(server.url).attach(RUN)
    assert not isinstance(raised.value, RunNotFoundError)


NESTED = "[" * 100_000
OURS = {"taskInfo": {"name": "train"}, "componentRef": {"name": "comp-train"}}


def spec_of(args: list[str], loop: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a pipeline with one container, in a loop if it has one, as kfp's own compiler writes it."""
    inner = {"dag": {"tasks": {"train": OURS}}}
    outer = {"dag": {"tasks": {"for-loop-1": {"componentRef": {"name": "comp-loop"}, **(loop or {})}}}}
    return {
        "root": outer if loop else inner, "components": {"comp-train": {"executorLabel": "exec"}, "comp-loop": inner},
        "deploymentSpec": {"executors": {"exec": {"container": {"args": args}}}},
    }  # fmt: skip


def a_list_of_runs(*runs: dict[str, Any]) -> Any:
    found = [{"run_id": RUN, "display_name": "r", "state": "RUNNING", **run} for run in runs]

    def reply(request: Recorded) -> Reply:
        healthz = request.path.endswith("healthz")
        one = found[0] if request.path.endswith(RUN) else {"runs": found}
        return Reply(body=json.dumps({"multi_user": False} if healthz else one).encode())

    return web(reply)


DEFINED = {"inputDefinitions": {"parameters": {"x": {"parameterType": "STRING", "description": "JSON"}}}}


@pytest.mark.parametrize(
    "run",
    [
        {"runtime_config": {"parameters": {"x": NESTED}}, "pipeline_spec": {"root": DEFINED}},
        {"runtime_config": {"parameters": {"x": 1}}, "pipeline_spec": {"root": {"inputDefinitions": [1]}}},
        {"runtime_config": {"parameters": {"x": 1}}, "pipeline_spec": {"root": 5}},
        {"description": "FlowyML: [1]"},
        {"description": f"FlowyML: {NESTED}"},
    ],
)
def test_a_run_of_another_form_does_not_spoil_the_list(run: dict[str, Any]) -> None:
    with a_list_of_runs(run, {}) as server:
        assert len(KubeflowOrchestrator(server.url).runs()) == 2


def test_parameters_that_are_nested_too_deeply_are_left_out() -> None:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    item = SimpleNamespace(runtime_config=SimpleNamespace(parameters={"y": value}), pipeline_spec={"root": DEFINED})
    assert KubeflowOrchestrator("http://127.0.0.1:1").pipelines.parameters_of(item) == {}


@pytest.mark.parametrize(
    "items", [{"raw": "[1, 2]"}, {"raw": '[{"a": 1}]'}, {"raw": "[]"}, {"inputParameter": "of-the-run"}]
)
def test_loops_of_other_compilers_are_left_alone(items: dict[str, str]) -> None:
    """A pipeline of KFP's own compiler with a ParallelFor was said to be a bug in FlowyML."""
    run = {"pipeline_spec": spec_of(["--x"], {"parameterIterator": {"items": items}})}
    with a_list_of_runs(run) as server:
        assert KubeflowOrchestrator(server.url).attach(RUN).step_runs() == ()


@pytest.mark.parametrize("args", [["step"], ["step", "url", NESTED], ["turn", "url", "[[1]]"]])
def test_a_container_that_is_like_a_steps_is_an_error_with_a_reason(args: list[str]) -> None:
    with a_list_of_runs({"pipeline_spec": spec_of(args)}) as server:
        handle = KubeflowOrchestrator(server.url).attach(RUN)
        with pytest.raises(EngineError, match="has a form that FlowyML does not write"):
            handle.step_runs()


@pytest.mark.parametrize("status", [{"artifactRepositoryRef": "x"}, {"nodes": {"n": {"phase": "Failed"}}}])
def test_a_manifest_of_another_form_counts_as_none(status: dict[str, Any]) -> None:
    assert Workflow.of({"pipeline_runtime": {"workflow_manifest": json.dumps({"status": status})}}) is None


def test_code_in_a_file_that_unpacks_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployer, "_LARGEST_CODE", 2**20)
    bomb = base64.b64encode(bz2.compress(b" " * 2**25)).decode()
    compiled = compile_pipeline(build(Plan(name="p", steps=(Step(name="a", function="m:f"),))))
    tracemalloc.start()
    try:
        deployer.difference({"pipeline_spec": spec_of(["0" * 64, bomb])}, compiled)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [NESTED, "{", "no"])
def test_a_parameter_of_prefect_that_is_like_a_quoted_one(text: str) -> None:
    given = {"x": {"__prefect_kind": "json", "value": text}}
    assert read_parameters(given) == given


@pytest.mark.parametrize("text", [NESTED, "{", "[1]", "5", 5, None, '{"rate": "another"}', '{"code": 1}'])
def test_a_conf_of_airflow_that_is_like_one_with_exact_parameters(text: Any) -> None:
    """Also of a run whose value was edited in Airflow's form, which has the text of the run before."""
    assert parameters_of({"rate": 0.5, EXACT_KEY: text}) == {"rate": 0.5}


@pytest.mark.parametrize("data", [NESTED, "5", "[1]", [1], [{}], [{"step": "a", "task": "a", "loops": NESTED}]])
def test_a_table_artifact_of_prefect_that_flowyml_did_not_write(data: Any) -> None:
    with pytest.raises(EngineError, match="is not as FlowyML writes it"):
        _rows("key", data, Planned.of)


@pytest.mark.parametrize(
    "printed", [NESTED, "[1]", "null", '{"step":"a"}', '{"step":"a","attempt":"x"}', '{"step":[]}']
)
def test_a_line_that_is_like_a_marker_of_an_execution_group(printed: str) -> None:
    event = LogEvent(message=f"{STEP_MARKER}{printed}")
    assert [each.message for each in attributed([event], ["a"], 1)] == [event.message]
