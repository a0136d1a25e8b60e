"""Undeploying a pipeline removes its own files from a DAGs folder, whatever the marks and links there say."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from flowyml import Pipeline, step
from flowyml.core.errors import ConfigurationError, DeploymentError, EngineUnreachableError, OwnershipError
from flowyml.plan.marks import mark_of, marked
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.beside import runtime
from flowyml_airflow.client import AirflowClient, NotThereError
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.folder import LocalFolder

BUNDLES = "flowyml_bundles"


def one(name: str) -> Pipeline:
    @step
    def work() -> int:
        return 1

    return Pipeline(name).add_step(work)


def written(folder: Path, *names: str) -> None:
    for name in names:
        for path, data in AirflowOrchestrator().compile_pipeline(one(name)).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def undeployed(folder: Path, name: str, *, force: bool = False, dry_run: bool = False) -> set[str]:
    return {*AirflowOrchestrator().deployer.undeploy(name, folder=str(folder), force=force, dry_run=dry_run)}


def rewritten(path: Path, *listed: str) -> None:
    """Give a DAG file a mark that lists more files, with a digest that fits: whoever writes it can compute that."""
    mark = mark_of(path.read_bytes())
    assert mark
    body = path.read_bytes().rpartition(b"# flowyml: ")[0]
    facts = {name: value for name, value in mark.facts.items() if name != "digest"}
    path.write_bytes(marked(body, "dag.py", {**facts, "files": [*facts["files"], *listed]}))


def test_all_of_one_pipeline_goes_and_nothing_of_another(tmp_path: Path) -> None:
    written(tmp_path, "train", "report")
    (tmp_path / "theirs.py").write_text("# a DAG file of theirs")
    (tmp_path / BUNDLES / "report-0123abcd.pyz").write_bytes(b"replaced")
    (tmp_path / BUNDLES / "train-0123abcd.pyz").write_bytes(b"replaced")
    before = files(tmp_path)
    shown = undeployed(tmp_path, "train", dry_run=True)
    assert files(tmp_path) == before
    gone = undeployed(tmp_path, "train")
    assert gone == shown == before - files(tmp_path)
    assert {path for path in gone if not path.startswith(f"{BUNDLES}/train/")} == {
        "train.py", f"{BUNDLES}/train-0123abcd.pyz"
    }  # fmt: skip
    assert not (tmp_path / BUNDLES / "train").exists()
    assert f"{BUNDLES}/{runtime().name}" in undeployed(tmp_path, "report"), "the last that needs the runtime"
    assert files(tmp_path) == {"theirs.py", f"{BUNDLES}/.airflowignore"}
    with pytest.raises(DeploymentError, match="has no DAG file of pipeline 'train'"):
        undeployed(tmp_path, "train")


@pytest.mark.parametrize(
    "listed",
    ["theirs.py", "../outside", "/etc/hostname", f"{BUNDLES}/train/../../theirs.py", f"{BUNDLES}/train/./../x",
     f"{BUNDLES}/report/plan.json", f"{BUNDLES}/train//../report/plan.json", f"{BUNDLES}/train"],
)  # fmt: skip
def test_a_mark_that_lists_others_files_removes_none_of_them(tmp_path: Path, listed: str) -> None:
    folder = tmp_path / "dags"
    written(folder, "train", "report")
    (folder / "theirs.py").write_text("")
    (tmp_path / "outside").write_text("")
    rewritten(folder / "train.py", listed)
    undeployed(folder, "train", force=True)
    assert {"theirs.py", "report.py", f"{BUNDLES}/report/plan.json"} <= files(folder)
    assert (tmp_path / "outside").exists()


def test_links_lead_nowhere(tmp_path: Path) -> None:
    written(tmp_path / "dags", "train")
    treasure = tmp_path / "treasure"
    (tmp_path / "dags" / BUNDLES / "train").rename(treasure)
    (tmp_path / "dags" / BUNDLES / "train").symlink_to(treasure)
    kept = files(treasure)
    named = " ".join(path.removeprefix(f"{BUNDLES}/") for path in files(tmp_path / "dags"))
    (tmp_path / "dags" / "theirs.py").write_text(f"# also if a DAG file names what stays: {named}")
    with pytest.raises(ConfigurationError, match="could not be removed"):
        undeployed(tmp_path / "dags", "train", force=True)
    assert files(treasure) == kept


class Timeless(MemoryFileSystem):
    """A store without modification times, in which nothing can be removed."""

    protocol = "timeless"

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {name: each for name, each in super().info(path, **options).items() if name != "created"}

    def rm_file(self, path: str) -> None: ...


def test_files_that_stay_are_named_in_a_store_without_times(tmp_path: Path) -> None:
    register_implementation("timeless", Timeless)
    written(tmp_path, "train")
    Timeless().put(f"{tmp_path}/", "timeless://dags/", recursive=True)
    with pytest.raises(ConfigurationError, match=r"could not be removed: train\.py, .*plan\.json"):
        AirflowOrchestrator().deployer.undeploy("train", folder="timeless://dags")


def test_what_was_edited_or_added_by_hand_stays(tmp_path: Path) -> None:
    written(tmp_path, "train")
    (code,) = (tmp_path / BUNDLES / "train" / "code").rglob("*.py")
    (tmp_path / BUNDLES / "train" / "notes.txt").write_text("mine")
    whole = code.read_bytes()
    code.write_bytes(whole + b"# tried\n")
    with pytest.raises(OwnershipError, match="changed by hand"):
        undeployed(tmp_path, "train")
    assert code.exists()
    code.write_bytes(whole)
    undeployed(tmp_path, "train")
    assert files(tmp_path / BUNDLES / "train") == {"notes.txt"}, "FlowyML did not write it"


def test_a_dag_file_of_others_is_refused_even_with_force(tmp_path: Path) -> None:
    written(tmp_path, "train")
    (tmp_path / "train.py").rename(tmp_path / "report.py")
    (tmp_path / "train.py").write_text("from airflow import DAG  # " + json.dumps({"pipeline": "train"}))
    os.utime(tmp_path / "train.py")
    for name in ("train", "report"):
        with pytest.raises(ConfigurationError, match=f"is not the DAG file of pipeline '{name}'"):
            undeployed(tmp_path, name, force=True)
    assert {"train.py", "report.py"} <= files(tmp_path)


class Client:
    """Of an Airflow with the DAG ``train``, which has these tags and unfinished runs."""

    def __init__(self, tag: str, *unfinished: str) -> None:
        self.tag, self.runs = tag, unfinished
        self.deleted: list[str] = []

    def row(self, dag: str) -> dict[str, Any]:
        if dag != "train":
            raise NotThereError(404, "gone")
        return {"dag_id": dag, "tags": [{"name": self.tag}]}

    def dags(self, tag: str) -> list[dict[str, str]]:
        return [{"dag_id": "report"}, {"dag_id": "train"}]

    def unfinished(self, dags: Sequence[str]) -> list[dict[str, str]]:
        return [{"dag_run_id": run} for run in self.runs if "report" in dags or not run.startswith("report")]

    def delete(self, dag: str) -> None:
        self.deleted.append(dag)


def deployer_of(client: Client, folder: Path) -> AirflowDeployer:
    return AirflowDeployer(lambda: cast(AirflowClient, client), LocalFolder(folder))


@pytest.mark.parametrize(("tag", "deleted"), [("flowyml", ["train"]), ("reports", [])])
def test_runs_of_a_dag_that_others_wrote_stay(tmp_path: Path, tag: str, deleted: list[str]) -> None:
    """It has the id of the pipeline's DAG, and a file elsewhere."""
    written(tmp_path, "train")
    said = deployer_of(client := Client(tag), tmp_path).undeploy("train", runs=True)
    assert client.deleted == deleted
    assert [line for line in said if line.startswith("DAG ")] == [
        f"DAG {dag} in Airflow, with its runs" for dag in deleted
    ]


def test_records_stay_while_airflow_has_the_dag_from_another_folder(tmp_path: Path) -> None:
    deployer = deployer_of(client := Client("flowyml"), tmp_path)
    with pytest.raises(DeploymentError, match="as soon as Airflow has noticed"):
        deployer.undeploy("train", runs=True)
    assert client.deleted == []


@pytest.mark.parametrize(("runs", "force"), [(False, False), (True, False), (True, True)])
def test_nothing_is_removed_while_a_run_is_in_progress(tmp_path: Path, runs: bool, force: bool) -> None:
    """With force the files are, but not together with the records, which Airflow keeps while a task runs."""
    written(tmp_path, "train")
    before = files(tmp_path)
    deployer = deployer_of(client := Client("flowyml", "r1"), tmp_path)
    with pytest.raises(DeploymentError, match="runs that have not ended, such as 'r1'"):
        deployer.undeploy("train", runs=runs, force=force)
    assert (files(tmp_path), client.deleted) == (before, [])
    deployer.undeploy("train", force=True)
    assert not (tmp_path / "train.py").exists()


def test_a_runtime_stays_while_a_run_of_any_pipeline_is_in_progress(tmp_path: Path) -> None:
    """A task that has begun names it, although its DAG file was replaced meanwhile."""
    left = {f"{BUNDLES}/.airflowignore", f"{BUNDLES}/{runtime().name}"}
    written(tmp_path, "train")
    deployer_of(Client("flowyml", "report-1"), tmp_path).undeploy("train")
    assert files(tmp_path) == left
    written(tmp_path, "train")
    deployer_of(Client("flowyml"), tmp_path).undeploy("train")
    assert files(tmp_path) == left - {f"{BUNDLES}/{runtime().name}"}


def test_a_deployment_that_takes_a_runtime_up_meanwhile_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "train")
    deployer = deployer_of(Client("flowyml"), tmp_path)
    assert deployer.folder is not None
    remove = deployer.folder.remove_own

    def removed(path: str) -> None:
        remove(path)
        if path.endswith(runtime().name):
            (tmp_path / "report.py").write_bytes(AirflowOrchestrator().compile_pipeline(one("report"))["report.py"])

    monkeypatch.setattr(deployer.folder, "remove_own", removed)
    deployer.undeploy("train")
    assert (tmp_path / BUNDLES / runtime().name).read_bytes() == runtime().data


def test_with_force_files_go_while_airflow_does_not_answer(tmp_path: Path) -> None:
    def unreachable() -> AirflowClient:
        raise EngineUnreachableError("Airflow does not answer.")

    written(tmp_path, "train")
    deployer = AirflowDeployer(unreachable, LocalFolder(tmp_path))
    with pytest.raises(EngineUnreachableError):
        deployer.undeploy("train")
    deployer.undeploy("train", force=True)
    assert files(tmp_path) == {f"{BUNDLES}/.airflowignore", f"{BUNDLES}/{runtime().name}"}
