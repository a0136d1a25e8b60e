"""What other writers to an engine's records can do to those who read a run: numbers, sizes and forms beyond reason."""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from flowyml.core.errors import EngineError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import MOST_ITEMS
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection
from flowyml_prefect.reader import PrefectReader
from flowyml_prefect.step_runs import Planned, index_of, recorded_runs
from flowyml_prefect.step_runs import step_runs as prefect_step_runs
from tests.engines.web import Recorded, Reply, web

pytest.importorskip("kfp")

from flowyml_kubeflow import KubeflowOrchestrator, records
from flowyml_kubeflow.parameters import _typed
from flowyml_kubeflow.reader import lines_by_item
from flowyml_kubeflow.records import Known
from flowyml_kubeflow.step_runs import is_result
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
    from tests.adapters.prefect.test_step_runs import task

    assert index_of(task(name), "train") == ()


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
    assert all(map(is_result, ({"note": NOTE}, {"note": {"time": 1, "opened": 3}}, {"outputs": {}, "files": []})))
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


def test_a_manifest_that_is_nested_without_end_counts_as_none() -> None:
    assert Workflow.of({"pipeline_runtime": {"workflow_manifest": "[" * 100_000}}) is None


def test_numbers_that_are_none() -> None:
    """One run with NaN as a parameter spoiled the list of all runs."""
    found = [_typed(value, None) for value in (float("nan"), float("inf"), 3.0, 2.5, 2**80)]
    assert str(found) == "[nan, inf, 3, 2.5, 1208925819614629174706176]"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (json.dumps({"run_id": str(uuid.uuid4())}), "sent run .* for run"),
        ('{"run_id":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_an_answer_about_another_run_or_without_end(answer: str, error: str) -> None:
    def reply(request: Recorded) -> Reply:
        return Reply(body=b'{"multi_user": false}' if request.path.endswith("healthz") else answer.encode())

    with web(reply) as server, pytest.raises(EngineError, match=error) as raised:
        KubeflowOrchestrator(server.url).attach(RUN)
    assert not isinstance(raised.value, RunNotFoundError)
