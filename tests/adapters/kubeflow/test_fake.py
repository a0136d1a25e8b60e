"""The fake of KFP's API beside a real one: what it serves of the pipelines that a real KFP 2.17 ran.

The real server's answers are data beside the repository, in ``../shared/kubeflow-real``; its README says what each is.
The fake gets the same compiled files. What their containers left is not among the data, so others stand for them here,
which leave texts as long.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest

from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_kubeflow.spec import documents
from tests.adapters.kubeflow.test_recorded import NAMES, RECORDED, recorded, server
from tests.engines.kubeflow_api import served
from tests.engines.kubeflow_argo import packed
from tests.engines.kubeflow_argocompiler import go_json
from tests.waiting import wait_until

Json = dict[str, Any]

pytestmark = [
    pytest.mark.kubeflow,
    pytest.mark.skipif(not RECORDED.exists(), reason="the server's answers are not part of this checkout"),
]
SIZES = 0.03  # by how much of themselves they may differ
TOO_LARGE = "stock-two"
_TIME, _NOW = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "2026-12-01T03:10:00Z"


@dataclass(frozen=True)
class Manifest:
    """A workflow as an API server has it, by the text in which it hands it on."""

    text: str

    @property
    def workflow(self) -> Json:
        found: Json = json.loads(self.text)
        return found

    @property
    def nodes(self) -> dict[str, Json]:
        """By their names without that of the workflow."""
        workflow = self.workflow
        return {node["name"].removeprefix(workflow["metadata"]["name"]): node for node in _nodes(workflow).values()}

    @property
    def is_packed(self) -> bool:
        return "compressedNodes" in self.workflow["status"]

    def size(self, *, is_packed: bool = False) -> int:
        """In bytes, with its nodes unpacked, or packed here: at one time, since the fake's pods take less of it.

        In the order of their names: that of their ids, which are hashes of the workflow's random name, packs up to
        three hundredths better or worse.
        """
        workflow = self.workflow
        nodes = dict(sorted(_nodes(workflow).items(), key=lambda each: str(each[1]["name"])))
        for name in ("nodes", "compressedNodes"):
            workflow["status"].pop(name, None)
        at_once = _TIME.sub(_NOW, go_json(nodes))
        workflow["status"] |= {"compressedNodes": packed(at_once)} if is_packed else {"nodes": nodes}
        return len(go_json(workflow).encode())


def _nodes(workflow: Json) -> Json:
    status = workflow["status"]
    nodes: Json = status.get("nodes") or json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))
    return nodes


class Record:
    """A run of the real server."""

    def __init__(self, name: str) -> None:
        self.run: Json = recorded(name, "v2beta1")
        self.manifest = Manifest(recorded(name, "v1beta1")["pipeline_runtime"]["workflow_manifest"])
        self.version: Json = (
            recorded(name, "version") if (RECORDED / name / "version.json.gz").exists()
            else {"pipeline_spec": self.run["pipeline_spec"], "pipeline_id": "1", "pipeline_version_id": "2"}
        )  # fmt: skip
        self.nodes = self.manifest.nodes
        self.pipeline, _ = documents(self.version["pipeline_spec"])

    def tasks(self, *, template: str, phase: str) -> set[str]:
        """Those of which a node ended like this."""
        found = {
            path for path, node in self.nodes.items() if template in node["templateName"] and node["phase"] == phase
        }
        return {path.removesuffix(".executor").rpartition(".")[2].partition("(")[0] for path in found}

    def items(self) -> dict[str, int]:
        """How many iterations loops had, by the tasks that gave their items."""
        dags = [each["dag"] for each in (self.pipeline["root"], *self.pipeline["components"].values()) if "dag" in each]
        loops = {
            name: task["inputs"]["parameters"][items["inputParameter"]]["taskOutputParameter"]["producerTask"]
            for dag in dags for name, task in dag["tasks"].items()
            if "inputParameter" in (items := task.get("parameterIterator", {}).get("items", {}))
        }  # fmt: skip
        groups = {path: node for path, node in self.nodes.items() if node["type"] == "TaskGroup"}
        return {
            loops[path.rpartition(".")[0].rpartition(".")[2].partition("(")[0]]: len(node["children"])
            for path, node in groups.items()
        }


class Containers:
    """Stand for those of a recorded run."""

    def __init__(self, fails: set[str], items: dict[str, int]) -> None:
        self.fails, self.items = fails, items

    def start(self, command: Sequence[str], environment: object, log: Path) -> Ended:
        (given,) = (json.loads(word)["outputs"] for word in command if word.startswith('{"inputs"'))
        output = Path(given["outputFile"])
        task = output.parent.parent.name
        log.write_text(f"{task} was here\n")
        chunks = json.dumps([f"{number}:{number + 1}" for number in range(self.items.get(task, 0))])
        for port, place in given.get("parameters", {}).items():
            Path(place["outputFile"]).write_text(chunks if port == "chunks__" else "[0, 1]")
        kinds = {"code__": {"sha256": "0" * 64}}
        artifacts = {
            port: {"artifacts": [{**listed["artifacts"][0], "metadata": kinds.get(port, {"format": "flowyml-record"})}]}
            for port, listed in given["artifacts"].items()
        }
        output.write_text(json.dumps({"artifacts": artifacts}))
        return Ended(int(task in self.fails))


@dataclass(frozen=True)
class Ended:
    """A container that has run."""

    code: int

    def wait(self) -> int:
        return self.code

    def kill(self) -> None:
        pass


@dataclass
class Replay:
    """The same run on the real server and on the fake."""

    name: str
    record: Record
    run: Json
    manifest: Manifest
    url: str


@pytest.fixture(scope="module", params=NAMES)
def replay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    record = Record(request.param)
    failed = record.tasks(template="system-container-impl", phase="Failed")
    containers = Containers(failed, record.items())
    with served(tmp_path_factory.mktemp("kfp"), containers) as (url, state):
        state.version = "2.16.0" if request.param.startswith("216") else "2.17.0"
        state.cached |= record.tasks(template="system-container-impl", phase="Skipped")
        (version, run) = record.version, record.run
        spec = version["pipeline_spec"]
        if request.param == TOO_LARGE:
            spec = json.loads(re.sub("A{4000,}", lambda code: _code(len(code[0])), json.dumps(spec)))
        ids = {"pipeline_id": version["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]}
        state.versions[ids["pipeline_version_id"]] = kfp_server_api.V2beta1PipelineVersion(
            **ids, pipeline_spec=spec, description=version.get("description", "")
        )
        state.experiments[run["experiment_id"]] = kfp_server_api.V2beta1Experiment(display_name="Default")
        body = {
            "display_name": run["display_name"], "experiment_id": run["experiment_id"],
            "pipeline_version_reference": ids, "runtime_config": run.get("runtime_config", {}),
        }  # fmt: skip
        made: list[str] = []
        for task in record.tasks(template="system-container-driver", phase="Failed"):
            task = task.removesuffix("-driver")
            stops = run["state_history"][-2]["state"] == "CANCELING"
            state.in_drivers[task] = (lambda: _call(url, f"{made[0]}:terminate", {})) if stops else _two_of_one_name
        state.pods_may_start.clear()
        made.append(_call(url, "", body)["run_id"])
        state.pods_may_start.set()
        wait_until(lambda: _call(url, made[0])["state"] in ("SUCCEEDED", "FAILED"))
        v1 = _call(url, made[0], version="v1beta1")
        manifest = Manifest(v1["pipeline_runtime"]["workflow_manifest"])
        yield Replay(request.param, record, _call(url, made[0]), manifest, url)


def _two_of_one_name() -> None:
    raise RuntimeError("two tasks have the same task name train_170_idx_11")


@cache
def _code(size: int) -> str:
    return base64.b64encode(random.Random(size).randbytes(size))[:size].decode()


def _call(url: str, path: str, body: Json | None = None, version: str = "v2beta1") -> Json:
    address = f"{url}/apis/{version}/runs{'/' * bool(path)}{path}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data)) as answer:  # the fake
        found: Json = json.load(answer)
    return found


def test_states(replay: Replay) -> None:
    real = replay.record.run
    assert replay.run["state"] == real["state"]
    assert [each["state"] for each in replay.run["state_history"]] == [each["state"] for each in real["state_history"]]
    assert "error" not in replay.run
    status, theirs = (each.workflow["status"] for each in (replay.manifest, replay.record.manifest))
    assert status["phase"] == theirs["phase"]


def test_nodes(replay: Replay) -> None:
    def shown(nodes: dict[str, Json]) -> dict[str, tuple[str, ...]]:
        return {
            path: (node["type"], node["templateName"], node["phase"], _message(node)) for path, node in nodes.items()
        }

    assert shown(replay.manifest.nodes) == shown(replay.record.nodes)


def _message(node: Json) -> str:
    """Without names of workflows and times."""
    text = re.sub(r"deadline \S+ \S+", "deadline", node.get("message", ""))
    return re.sub(r"task '[^.(]+", "task '", text)


def test_sizes(replay: Replay) -> None:
    real = replay.record.manifest
    assert replay.manifest.size() == pytest.approx(real.size(), rel=SIZES)
    assert replay.manifest.is_packed == real.is_packed
    if real.is_packed:
        assert replay.manifest.size(is_packed=True) == pytest.approx(real.size(is_packed=True), rel=SIZES)


def test_task_details_stop_where_the_nodes_are_packed(replay: Replay) -> None:
    for run, manifest in ((replay.run, replay.manifest), (replay.record.run, replay.record.manifest)):
        has_all = len(run["run_details"]["task_details"]) >= len(manifest.nodes)
        assert has_all != manifest.is_packed


def test_the_adapter_reads_both_alike(replay: Replay) -> None:
    if "rbac" in replay.name:
        pytest.skip("not a pipeline of FlowyML's")
    with server(replay.name) as (real, job_id):
        theirs = read(real, job_id)
    assert read(KubeflowOrchestrator(replay.url), replay.run["run_id"]) == theirs


def read(kubeflow: KubeflowOrchestrator, job_id: str) -> list[object]:
    run = kubeflow.get_run(job_id)
    steps = [
        (step.name, step.status, step.attempt, step.raw_status, _without_logs(step.error))
        for step in kubeflow.step_runs(job_id)
    ]
    return [run.status, _without_logs(run.error), *steps]


def _without_logs(error: str | None) -> str:
    """The first line of an error, which the server says; the recorded one has no logs any more."""
    first = str(error).partition("\n")[0].removesuffix("; its log is gone")
    return re.sub(r"compressed size \d+|deadline \S+ \S+", "", first)
