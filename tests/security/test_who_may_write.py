"""What one run can do to the values of another: nothing, though they share a store and all names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.artifacts import artifact_key, open_store, pack, run_place, unpack
from flowyml.core.errors import ArtifactError, FlowymlError
from flowyml.orchestrators import LocalOrchestrator
from flowyml.runtime.processes import StepProcesses
from tests.engines.prefect import PrefectServer
from tests.engines.s3 import fake_s3


@step(outputs=["rows"])
def load(seed: int) -> list[list[int]]:
    return [[seed] * 100] * 1000  # too large to be carried inline, and of one size


@step(outputs=["first"])
def train(rows: list[list[int]]) -> int:
    return rows[0][0]


def same(name: str = "nightly") -> Pipeline:
    return Pipeline(name, context={"seed": 1}).add_step(load).add_step(train)


def files(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize("alike", [True, False], ids=["one address", "two addresses"])
@pytest.mark.parametrize("dags", [("one", "two"), ("same", "same")], ids=["two DAGs", "one DAG twice"])
def test_two_of_everything_on_airflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dags: tuple[str, str], alike: bool
) -> None:
    """Two DAGs with one cron have runs of one id; two Airflows may have one DAG each, and not know their address."""
    from flowyml_airflow import worker
    from flowyml_airflow.compiler import compile_dag

    dag = compile_dag(same().bundle())
    bundle = tmp_path / dag.bundle.filename
    bundle.write_bytes(dag.bundle.data)
    store = tmp_path / "store"

    def task(name: str, number: int, **inputs: Any) -> Any:
        monkeypatch.setattr(worker, "_address", lambda: "" if alike else f"http://airflow-{number}")
        run = SimpleNamespace(dag_id=dags[number], conf={"seed": number})
        context = {"run_id": "scheduled__2026-01-01", "dag_run": run, "ti": SimpleNamespace(try_number=1)}
        operator = SimpleNamespace(step=name, inputs=inputs)
        return worker.run_step(operator, context, lambda: bundle, sys.executable, str(store))

    loaded = [task("load", number) for number in (0, 1)]
    assert len(files(store)) == 2, "the second has overwritten the first"
    assert [task("train", number, rows=rows) for number, rows in enumerate(loaded)] == [0, 1]
    monkeypatch.setattr(worker, "as_airflow", lambda step, error: error)  # Airflow is not installed here
    if dags[0] != dags[1]:
        with pytest.raises(FlowymlError, match="belongs to another run, and this run may not read it"):
            task("train", 1, rows=loaded[0])
        return
    # By DAG and run they are one. Each reads what it has a reference to, and nothing that stands in its place.
    first, second = files(store)
    assert (first.parent == second.parent) is alike
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    for number, rows in enumerate(loaded):
        with pytest.raises(FlowymlError, match="its SHA-256 differs from what was written"):
            task("train", number, rows=rows)


@pytest.mark.parametrize("fork", ["1", "0"], ids=["warm", "fresh"])
def test_two_of_everything_in_step_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: str) -> None:
    monkeypatch.setenv("FLOWYML_FORK", fork)
    bundle = same().bundle().write(tmp_path)
    places = [("a", "p", "r"), ("b", "p", "r"), ("a", "q", "r"), ("a", "p", "s"), ("a", "p", "r")]
    loaded: list[Any] = []
    for seed, place in enumerate(places):
        options: Mapping[str, Any] = {"artifacts": str(tmp_path / "store"), "place": run_place(*place)}
        with StepProcesses(bundle, run_id=place[2], parameters={"seed": seed}, **options) as steps:
            loaded.append(steps.run("load", {})["rows"])
            assert steps.run("train", {"rows": loaded[-1]}) == {"first": seed}
            if place[1:] != ("p", "r"):
                with pytest.raises(FlowymlError, match="belongs to another run"):
                    steps.run("train", {"rows": loaded[0]})
    assert len(files(tmp_path / "store")) == len(places)
    with StepProcesses(bundle, run_id="by-hand", artifacts=str(tmp_path / "store")) as steps:
        assert steps.run("train", {"rows": loaded[0]}) == {"first": 0}, "a person at a desk may read any run's"


def test_two_users_of_a_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a folder of data of their own, and one folder, or bucket, for artifacts."""
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "store"))
    local = LocalOrchestrator(keep_outputs=True, workers="processes")
    large = Pipeline("nightly", context={"seed": 1}).add_step(load)
    for number in (1, 2):
        monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / f"user-{number}"))
        assert large.run({"seed": number}, on=local, run_id="today").success
    for number in (1, 2):
        monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / f"user-{number}"))
        assert local.outputs("today")["rows"][0][0] == number
    tops = {path.relative_to(tmp_path / "store").parts[0] for path in files(tmp_path / "store")}
    assert len(tops) == 2, "one user's folder would be in the other's way"


UNREADABLE = """
import hashlib, os, sys  # before it may not read them
from pathlib import Path
from flowyml.artifacts.store import LocalStore, Written
from flowyml.core.errors import ArtifactError
if os.geteuid() == 0:
    os.setuid(65534)
store = LocalStore(Path(sys.argv[1]))
try:
    with store.fetch(Written(f"{store.url}/a", "0" * 64, 1)):
        pass
except ArtifactError as error:
    print(error)
"""


def test_what_one_users_cache_leaves_is_readable_or_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed the other's step with a PermissionError, for ever."""
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "store"))
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    large = Pipeline("nightly", context={"seed": 1}).add_step(load.options(cache=True))
    assert large.run(on=LocalOrchestrator(workers="processes")).success
    rights = {path.name: path.stat().st_mode & 0o777 for path in files(tmp_path / "store")}
    assert len(rights) == 3
    assert set(rights.values()) == {rights["record.json"]}
    with TemporaryDirectory() as folder:  # which others may search, as not those above tmp_path
        Path(folder).chmod(0o755)
        (Path(folder) / "a").write_text("1")
        (Path(folder) / "a").chmod(0)
        done = subprocess.run([sys.executable, "-c", UNREADABLE, folder], capture_output=True, text=True, check=False)
        assert "cannot be read: [Errno 13] Permission denied" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.kubeflow
def test_three_engines_on_one_bucket(prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pipeline under one run id on each, all at once: each run's steps and readers find its own values."""
    pytest.importorskip("kfp")
    from fsspec import filesystem

    from flowyml_kubeflow import KubeflowLocalOrchestrator
    from flowyml_prefect import PrefectOrchestrator

    nightly = Pipeline("nightly", context={"seed": 1}, outputs=["rows", "first"]).add_step(load).add_step(train)
    with fake_s3("shared") as environment:
        for name, value in {**environment, "FLOWYML_ARTIFACTS": "s3://shared/all"}.items():
            monkeypatch.setenv(name, value)
        engines = [
            PrefectOrchestrator(prefect.url), KubeflowLocalOrchestrator(),
            LocalOrchestrator(keep_outputs=True, workers="processes"),
        ]  # fmt: skip
        runs = [nightly.submit({"seed": number}, on=engine, run_id="today") for number, engine in enumerate(engines)]
        for number, run in enumerate(runs):
            assert run.wait_for_completion(2400, 0.5).status.is_successful, run.error
            assert run.outputs["first"] == run.outputs["rows"][0][0] == number
        values = [path for path in filesystem("s3").find("shared/all") if "rows-" in path]
        found = {path.split("/")[2] for path in values}
        assert len(values) == len(found) == len(engines), "each engine has one value, in a folder of its own"


def test_what_stands_under_another_digest_is_never_overwritten(tmp_path: Path) -> None:
    for url in (str(tmp_path), "memory://shared"):
        store = open_store(url)
        key = artifact_key(run_place("airflow", "dag", "run"), "step", 1, "out")
        packed = [pack(value, store, key=key) for value in (b"one", b"two", b"one")]
        assert [unpack(item, store) for item in packed] == [b"one", b"two", b"one"]
        assert packed[0] == packed[2] != packed[1]
        assert "/airflow/dag/run/step/1/out-" in packed[0]["$artifact"]["url"]
        with pytest.raises(ArtifactError, match="to another run"):
            unpack(packed[0], store, place=run_place("airflow", "dag", "run-2"))
        assert unpack(packed[0], store, place=run_place("another address", "dag", "run")) == b"one"
