"""The deploy barrier, on a real Airflow: what was deployed is parsed, or it is said why not."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import ConfigurationError, EngineError, OwnershipError, RunNotFoundError, WaitTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.schedule import Schedule
from flowyml.plan.bundle import Bundle
from flowyml.plan.marks import marked
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.deployed_dag import Deployed, facts_of, is_untouched
from flowyml_airflow.deployer import _is_elsewhere
from flowyml_airflow.folder import LocalFolder, open_folder
from flowyml_airflow.names import dag_file, dag_id
from flowyml_airflow.stalled import is_missing
from tests.adapters.airflow.operating import foreign_dag, orchestrator_of, short
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_deploying_waits_until_airflow_has_parsed_it_and_again_is_a_no_op(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    first = orchestrator.deploy_pipeline(short("deploy twice"))
    assert first.changed
    dag = orchestrator.client.dag(dag_id("deploy twice"))
    assert dag["description"].endswith(f"(version {first.digest})")
    assert [tag["name"] for tag in dag["tags"]] == ["flowyml"], "one tag, so that Airflow's filter has no digests"
    ours = [path for path in airflow3.dags_folder.rglob("*") if re.match("deploy.twice", path.name)]
    files = {path: path.stat().st_mtime_ns for path in ours}
    second = orchestrator.deploy_pipeline(short("deploy twice"))
    assert (second.changed, second.digest) == (False, first.digest)
    assert files == {path: path.stat().st_mtime_ns for path in files}
    for answer in (2, 3, 4):
        assert orchestrator.deploy_pipeline(short("deploy twice", answer=answer)).changed
    left = (airflow3.dags_folder / "flowyml_bundles").glob("deploy-twice-*.pyz")
    assert len([*left]) == 1, "the version before the one that runs, which is in plain files"
    source = orchestrator.client.source({"dag_id": dag_id("deploy twice")})
    assert all((airflow3.dags_folder / path).is_file() for path in facts_of(source)["files"])


def test_a_pipeline_is_taken_away_with_its_runs_at_once_or_later(airflow: Airflow) -> None:
    orchestrator, dag = orchestrator_of(airflow), dag_id("taken away")
    records = f"DAG {dag} in Airflow, with its runs"
    handle = orchestrator.run_pipeline(short("taken away"))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED
    removed = orchestrator.deployer.undeploy("taken away", runs=True)
    assert [f"{dag}.py", records] == [removed[0], removed[-1]]
    assert not [path for path in airflow.dags_folder.rglob("*") if dag in str(path) and "__pycache__" not in str(path)]
    with pytest.raises(RunNotFoundError):
        orchestrator.get_run(handle.job_id)
    handle = orchestrator.run_pipeline(short("taken away"))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED
    orchestrator.deployer.undeploy("taken away")
    wait_until(lambda: is_missing(orchestrator.client, dag))
    assert orchestrator.get_run(handle.job_id)
    assert orchestrator_of(airflow, dags_folder=None).deployer.undeploy("taken away", runs=True) == [records]
    with pytest.raises(RunNotFoundError):
        orchestrator.get_run(handle.job_id)


def test_a_missing_pool_is_reported_before_anything_is_written(airflow: Airflow) -> None:
    @step(outputs=["made"], airflow={"pool": "no such/pool"})
    def work() -> int:
        return 1

    orchestrator, pipeline = orchestrator_of(airflow), Pipeline("deploy pool").add_step(work)
    for attempt in (
        lambda: orchestrator.check_deployable(pipeline.bundle(), force=True),
        lambda: orchestrator.deploy_pipeline(pipeline),
    ):
        with pytest.raises(
            ConfigurationError, match=r"step 'work' asks for the pool 'no such/pool', .* has no pool of t"
        ):
            attempt()
    assert not (airflow.dags_folder / dag_file("deploy pool")).exists()
    assert orchestrator_of(airflow).client.has_pool("default_pool")


def test_a_deployment_waits_as_long_as_airflows_settings_say(airflow3: Airflow, airflow2: Airflow) -> None:
    assert orchestrator_of(airflow3).client.reads_new_files_within == 901, "these tests' own, which it shows"
    assert orchestrator_of(airflow2).client.reads_new_files_within == 330, "Airflow's defaults where it shows none"


def test_the_difference_is_shown_without_the_folder_too(airflow3: Airflow) -> None:
    orchestrator, two = orchestrator_of(airflow3), short("deploy diff", answer=2)
    orchestrator.deploy_pipeline(short("deploy diff"))
    shown = orchestrator.diff(two.bundle(orchestrator.plan(two)))
    assert '-    params={"number": Param(1' in shown
    assert '+    params={"number": Param(2' in shown
    bare = orchestrator_of(airflow3, dags_folder=None)
    dag_file = bare.diff(two.bundle(orchestrator.plan(two))).splitlines()[2:]  # its bundle is not seen there
    assert dag_file == shown.splitlines()[2:][: len(dag_file)]
    assert bare.deploy_pipeline(short("deploy diff")).changed is False
    with pytest.raises(ConfigurationError, match="dags_folder="):
        bare.deploy_pipeline(two)


def deploy_broken(orchestrator: AirflowOrchestrator, pipeline: Pipeline, found: Deployed | None = None) -> None:
    """A DAG file that cannot be imported, as a bad plugin or policy would have it."""
    compiled = orchestrator._deployer.compiled(pipeline.bundle(orchestrator.plan(pipeline)), None)
    with pytest.raises(EngineError, match=r"(?s)cannot import .*SyntaxError"):
        orchestrator._deployer.write(replace(compiled, text=compiled.text + "\nthis is no Python\n"), found)


def put(airflow: Airflow, path: str, text: str) -> Path:
    place = airflow.dags_folder / path
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    return place


@pytest.mark.beside
def test_a_deployment_that_fails_leaves_what_was_there(airflow3: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow3)
    pipeline, path = short("deploy failing"), airflow3.dags_folder / dag_file("deploy failing")
    deploy_broken(orchestrator, pipeline)
    assert not path.exists()
    orchestrator.deploy_pipeline(pipeline)
    before = path.read_bytes()
    found = orchestrator._deployer.found(dag_id("deploy failing"))
    deploy_broken(orchestrator, short("deploy failing", answer=2), found)
    assert path.read_bytes() == before
    handle = orchestrator.run_pipeline(pipeline)
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"answer": 1}

    elsewhere = orchestrator_of(airflow3, dags_folder=tmp_path, deploy_timeout=1)
    with pytest.raises(ConfigurationError, match=f"in dags_folder='{tmp_path}', the two files would keep replacing"):
        elsewhere.deploy_pipeline(short("deploy failing", answer=3))
    assert list(tmp_path.glob("*.py")) == []


def test_a_file_that_was_written_by_hand_is_never_replaced(airflow3: Airflow) -> None:
    by_hand = "print('a DAG of our own')\n"
    path = put(airflow3, dag_file("deploy sales"), by_hand)
    orchestrator, pipeline = orchestrator_of(airflow3), short("deploy sales")
    for deploy in (orchestrator.deploy_pipeline, orchestrator.run_pipeline):
        with pytest.raises(ConfigurationError, match=f"{path.name} in dags_folder=.* was not written by FlowyML"):
            deploy(pipeline)
    with pytest.raises(ConfigurationError, match="was not written by FlowyML"):
        orchestrator.diff(pipeline.bundle(orchestrator.plan(pipeline)))
    assert path.read_text() == by_hand
    path.unlink()
    assert orchestrator.deploy_pipeline(pipeline).changed
    path.write_text(path.read_text() + "\nprint('a line more')\n")
    edited = path.read_bytes()
    with pytest.raises(OwnershipError, match=f"{path.name} in dags_folder=.* was edited after FlowyML wrote it"):
        orchestrator.deploy_pipeline(pipeline)
    with pytest.raises(OwnershipError, match="was edited after FlowyML wrote it"):
        orchestrator.check_deployable(pipeline.bundle(orchestrator.plan(pipeline)))
    assert path.read_bytes() == edited
    assert orchestrator.deploy_pipeline(pipeline, force=True).changed


def from_elsewhere(bundle: Bundle) -> Bundle:
    """The same pipeline, as another project would have it."""
    about = {**json.loads(bundle.files["bundle.json"]), "origin": Origin("other", "theirs.py").to_dict()}
    return bundle.repacked({**bundle.files, "bundle.json": json.dumps(about).encode()})


def test_an_unrelated_pipeline_of_the_same_name_replaces_nothing(airflow3: Airflow) -> None:
    orchestrator, pipeline = orchestrator_of(airflow3), short("deploy owned")
    made = orchestrator.schedule_pipeline(pipeline, Schedule.of("daily", 3))
    ours = pipeline.bundle()
    first = orchestrator.submit(ours, "ours", {"number": 1})
    path = airflow3.dags_folder / dag_file("deploy owned")
    before = path.read_bytes()
    theirs = from_elsewhere(short("deploy owned", answer=2).bundle())
    for attempt in (
        lambda: orchestrator.deploy(theirs),
        lambda: orchestrator.check_deployable(theirs),
        lambda: orchestrator.submit(theirs, "theirs", {"number": 2}),
        lambda: orchestrator.create_schedule(theirs, Schedule.of("daily", 4)),
    ):
        with pytest.raises(OwnershipError, match=r"The DAG 'deploy_owned_\w+' comes from .*; this pipeline comes from"):
            attempt()
    assert path.read_bytes() == before
    assert not (airflow3.dags_folder / f"{made.schedule_id}__dev.py").exists()
    assert orchestrator.deploy(theirs, force=True).changed
    assert orchestrator.submit(ours, "ours", {"number": 1}) == first, "whose DAG it is now does not count"
    assert orchestrator.schedules("deploy owned")[0].schedule == made.schedule


def test_another_project_that_comes_first_at_the_last_moment_keeps_its_file(
    airflow3: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator, pipeline = orchestrator_of(airflow3), short("deploy raced")
    path = airflow3.dags_folder / dag_file("deploy raced")
    ask = orchestrator.client.import_error

    def asked(filename: str) -> Any:
        """The last question before the file is written."""
        monkeypatch.undo()
        assert orchestrator_of(airflow3).deploy(from_elsewhere(pipeline.bundle())).changed
        return ask(filename)

    monkeypatch.setattr(orchestrator.client, "import_error", asked)
    with pytest.raises(OwnershipError, match=rf"^The file {path.name} in dags_folder=.* comes from"):
        orchestrator.deploy_pipeline(pipeline)
    assert facts_of(path.read_text())["origin"] != pipeline.bundle().origin.to_dict()


@pytest.mark.parametrize(
    ("airflow", "is_ours"), [("airflow3", False), ("airflow2", False), ("airflow3", True)], indirect=["airflow"]
)
def test_a_dag_of_the_same_id_in_another_file_is_refused(airflow: Airflow, *, is_ours: bool) -> None:
    name = f"deploy orders {is_ours}"
    orchestrator, path = orchestrator_of(airflow), airflow.dags_folder / dag_file(name)
    if is_ours:
        orchestrator.deploy_pipeline(short(name))
    else:
        foreign_dag(airflow, dag_id(name))
    other = path.rename(path.with_name(f"moved_{is_ours}.py"))
    wait_until(lambda: (dag := orchestrator._deployer.found(path.stem)) and dag.place.endswith(other.name))
    whose = "" if is_ours else ", which FlowyML did not write"
    bare = orchestrator_of(airflow, dags_folder=None)  # which deploys nothing of ours anyway
    for there in (orchestrator,) if is_ours else (orchestrator, bare):
        with pytest.raises(ConfigurationError, match=rf"from .*{other.name}{whose}\. .* keep replacing"):
            there.deploy_pipeline(short(name, answer=2))
    assert not path.exists()
    other.unlink()


@pytest.mark.beside
def test_a_dag_from_another_folder_is_refused(airflow3: Airflow) -> None:
    """Two teams that both call a pipeline ``training``: neither runs the other's code."""
    one, two = airflow3.dags_folder / "team one", airflow3.dags_folder / "team two"
    for folder in (one, two):
        folder.mkdir(exist_ok=True)
    name = "deploy training"
    orchestrator_of(airflow3, dags_folder=one).deploy_pipeline(short(name))
    for there in (two, airflow3.dags_folder):
        orchestrator = orchestrator_of(airflow3, dags_folder=there)
        with pytest.raises(ConfigurationError, match=r"from .*team one/\S+\.py\. .* keep replacing each other"):
            orchestrator.run_pipeline(short(name, answer=2))
        with pytest.raises(ConfigurationError, match="keep replacing each other"):
            orchestrator.diff(short(name, answer=2).bundle())
        assert not (there / dag_file(name)).exists()
    link = airflow3.dags_folder.with_name("link to dags")
    link.symlink_to(one)
    assert orchestrator_of(airflow3, dags_folder=link).deploy_pipeline(short(name)).changed is False
    assert orchestrator_of(airflow3, dags_folder=link).deploy_pipeline(short(name, answer=3)).changed


@pytest.mark.parametrize(
    ("place", "file", "elsewhere"),
    [
        ("memory://dags", "a.py", False),
        ("memory://dags/team", "team/a.py", False),
        ("memory://dags/team", "other/a.py", True),
        ("memory://dags", "b.py", True),
        ("memory://dags", "/opt/airflow/dags/a.py", False),
    ],
)
def test_the_place_of_a_dag_in_a_folder_that_cannot_be_seen(place: str, file: str, elsewhere: bool) -> None:
    folder = open_folder(place)
    assert folder is not None
    found = Deployed({"relative_fileloc": file, "fileloc": f"/opt/airflow/dags/{file}"}, client=cast("Any", None))
    assert _is_elsewhere(found, folder, "a.py") is elsewhere
    if file.endswith("a.py"):
        folder.write("a.py", b"# mounted there under another name")
        assert not _is_elsewhere(found, folder, "a.py")
        folder.remove("a.py")


def test_what_was_changed_by_hand_is_read_anew(airflow3: Airflow) -> None:
    """The changed file carries the version of the one that it was made from."""
    pipeline, path = short("deploy edited"), airflow3.dags_folder / dag_file("deploy edited")
    orchestrator = orchestrator_of(airflow3)
    orchestrator.deploy_pipeline(pipeline)
    for deployer in (orchestrator, orchestrator_of(airflow3)):
        path.write_text(path.read_text().replace('step="work"', 'step="work", doc_md="edited"'))
        client, dag = deployer.client, {"dag_id": dag_id("deploy edited")}
        wait_until(lambda client=client, dag=dag: "edited" in client.source(dag).partition("doc_md=")[2])
        assert deployer.deploy_pipeline(pipeline, force=True).changed
        assert is_untouched(client.source(dag))


def test_a_deployment_that_is_overtaken_says_so(airflow3: Airflow) -> None:
    pipeline, newer = short("deploy contended"), short("deploy contended", answer=2)

    class Overtaken(LocalFolder):
        def write(self, path: str, data: bytes) -> None:
            super().write(path, data)
            if path == dag_file(pipeline.name):
                orchestrator_of(airflow3).deploy_pipeline(newer)

    orchestrator = orchestrator_of(airflow3)
    orchestrator._deployer = replace(orchestrator._deployer, folder=Overtaken(airflow3.dags_folder), timeout=240)
    with pytest.raises(EngineError, match="Another deployment of 'deploy contended' replaced this one"):
        orchestrator.deploy_pipeline(pipeline)
    assert orchestrator_of(airflow3).deploy_pipeline(newer).changed is False


def test_an_import_error_of_another_file_with_the_same_name_is_none_of_ours(airflow: Airflow) -> None:
    orchestrator, name = orchestrator_of(airflow), dag_file("deploy beside")
    theirs = put(airflow, f"team/{name}", "this is no Python, airflow DAG\n")
    client = orchestrator.client
    wait_until(
        lambda: any(name in item["filename"] for item in client._pages(f"{client.api}/importErrors", "import_errors"))
    )
    assert client.import_error(name) is None
    assert orchestrator.deploy_pipeline(short("deploy beside")).changed
    theirs.unlink()


@pytest.mark.beside
def test_a_new_error_is_reported_where_an_old_one_was(airflow3: Airflow) -> None:
    orchestrator, pipeline = orchestrator_of(airflow3), short("deploy again broken")
    put(airflow3, dag_file(pipeline.name), marked(b"raise ValueError('the old airflow DAG')\n", "dag.py").decode())
    wait_until(lambda: orchestrator.client.import_error(dag_file(pipeline.name)))
    deploy_broken(orchestrator, pipeline)
    assert orchestrator_of(airflow3).deploy_pipeline(pipeline).changed


@pytest.mark.beside
def test_a_change_that_is_made_while_airflow_reads_the_file(airflow3: Airflow) -> None:
    """It would find it after its interval, which is 15 minutes here."""
    orchestrator, pipeline = orchestrator_of(airflow3), short("deploy while it reads")
    old = b"import time\nopen(__file__ + '.read', 'w').close()\ntime.sleep(4)  # an airflow DAG\n"
    path = put(airflow3, dag_file(pipeline.name), marked(old, "dag.py").decode())
    wait_until(lambda: path.with_suffix(".py.read").exists())
    assert orchestrator.deploy_pipeline(pipeline).changed


def test_a_folder_that_airflow_does_not_read(airflow3: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow3, dags_folder=tmp_path, deploy_timeout=3)
    with pytest.raises(WaitTimeoutError, match=f"within 3 s from dags_folder='{tmp_path}'"):
        orchestrator.run_pipeline(short("deploy elsewhere"))
    path = tmp_path / dag_file("deploy elsewhere")
    assert path.exists(), "so that trying again goes on"
    path.rename(airflow3.dags_folder / path.name)
    shutil.copytree(tmp_path / "flowyml_bundles", airflow3.dags_folder / "flowyml_bundles", dirs_exist_ok=True)
    assert orchestrator_of(airflow3).deploy_pipeline(short("deploy elsewhere")).digest


@pytest.mark.parametrize("place", ["/proc/flowyml", "/proc", "/no/such/folder"])
def test_a_folder_that_cannot_be_written(airflow3: Airflow, place: str) -> None:
    with pytest.raises(ConfigurationError, match=f"dags_folder='{place}'"):
        orchestrator_of(airflow3, dags_folder=place).run_pipeline(short("deploy nowhere"))


def test_files_appear_whole(tmp_path: Path) -> None:
    for place in (tmp_path / "local", f"local://{tmp_path}/fsspec"):
        Path(str(place).removeprefix("local://")).mkdir()
        folder = open_folder(place)
        assert folder is not None
        assert folder.read("sub/a.py") is None
        folder.write("sub/a.py", b"one")
        folder.write("sub/a.py", b"two")
        assert folder.read("sub/a.py") == b"two"
        folder.write("sub/[b].py", b"three")
        assert (folder.names("sub"), folder.names(), folder.names("none")) == (["[b].py", "a.py"], [], [])
        assert sorted(folder.read_all(["sub/a.py", "sub/[b].py"])) == [b"three", b"two"]
        assert folder.read_all([]) == []
        folder.remove("sub/[b].py")
        assert [path.name for path in Path(str(place).removeprefix("local://")).rglob("*")] == ["sub", "a.py"]


def test_a_new_version_is_never_taken_for_the_bytecode_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = open_folder(tmp_path)
    assert folder is not None
    for hour in range(10):
        folder.write("dag.py", f"HOUR = {hour}\n".encode())
        loader = SourceFileLoader(f"dag_{hour}", str(tmp_path / "dag.py"))  # as Airflow does
        module = ModuleType(loader.name)
        loader.exec_module(module)
        assert vars(module)["HOUR"] == hour


@pytest.mark.beside
def test_a_new_version_runs_at_once(airflow3: Airflow) -> None:
    """The run that follows a change never runs the version before."""
    orchestrator = orchestrator_of(airflow3)
    for number in (1, 2):

        @step(name="work", outputs=["made"])
        def work(number: int = number) -> int:
            return number

        handle = orchestrator.run_pipeline(Pipeline("deploy versions").add_step(work))
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).outputs == {"made": number}
