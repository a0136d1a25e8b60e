"""The deploy barrier, on a real Airflow: what was deployed is parsed, or it is said why not."""

from __future__ import annotations

import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import ConfigurationError, EngineError, WaitTimeoutError
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.folder import open_folder
from tests.adapters.airflow.operating import orchestrator_of, short
from tests.engines.airflow import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_deploying_waits_until_airflow_has_parsed_it_and_again_is_a_no_op(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    first = orchestrator.deploy_pipeline(short("deploy twice"))
    assert first.changed
    assert f"flowyml:{first.digest}" in _tags(orchestrator, "deploy twice")
    files = {path: path.stat().st_mtime_ns for path in airflow3.dags_folder.rglob("*") if "deploy" in path.name}
    second = orchestrator.deploy_pipeline(short("deploy twice"))
    assert (second.changed, second.digest) == (False, first.digest)
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert orchestrator.deploy_pipeline(short("deploy twice", answer=2)).changed


def test_the_difference_is_shown_before(airflow3: Airflow) -> None:
    orchestrator = orchestrator_of(airflow3)
    one, two = short("deploy diff"), short("deploy diff", answer=2)
    assert "+++ new/" in orchestrator.diff(one.bundle(orchestrator.plan(one)))
    orchestrator.deploy_pipeline(one)
    assert orchestrator.diff(one.bundle(orchestrator.plan(one))) == ""
    shown = orchestrator.diff(two.bundle(orchestrator.plan(two)))
    assert '-    params={"number": Param(1' in shown
    assert '+    params={"number": Param(2' in shown
    without_folder = orchestrator_of(airflow3, dags_folder=None)
    assert without_folder.diff(two.bundle(orchestrator.plan(two))).splitlines()[2:] == shown.splitlines()[2:]


def test_an_import_error_is_raised_with_its_traceback(airflow3: Airflow) -> None:
    """The file is broken after it was written, as a bad plugin or policy would break it: by the interpreter itself."""
    orchestrator = orchestrator_of(airflow3, deploy_timeout=40)
    pipeline = short("deploy broken")
    policy = airflow3.dags_folder / "deploy_broken"
    compiled = orchestrator._deployer.compiled(pipeline.bundle(orchestrator.plan(pipeline)), None)
    broken = compiled.text + "\nthis is no Python\n"
    object.__setattr__(compiled, "text", broken)
    compiled.__dict__.pop("files", None)
    with pytest.raises(EngineError, match=r"(?s)cannot import .*SyntaxError"):
        orchestrator._deployer.deploy(compiled, None)
    object.__setattr__(compiled, "text", broken.replace("\nthis is no Python\n", ""))
    compiled.__dict__.pop("files", None)
    assert orchestrator.deploy_pipeline(pipeline).changed
    assert not policy.exists()


def test_a_folder_that_airflow_does_not_read(airflow3: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow3, dags_folder=tmp_path, deploy_timeout=3)
    started = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=f"within 3 s from dags_folder='{tmp_path}'"):
        orchestrator.run_pipeline(short("deploy elsewhere"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("place", ["/proc/flowyml", "/proc", "/no/such/folder"])
def test_a_folder_that_cannot_be_written(airflow3: Airflow, place: str) -> None:
    with pytest.raises(ConfigurationError, match=f"dags_folder='{place}'"):
        orchestrator_of(airflow3, dags_folder=place).run_pipeline(short("deploy nowhere"))


def test_without_a_folder_only_what_is_there_runs(airflow3: Airflow) -> None:
    orchestrator_of(airflow3).deploy_pipeline(short("deploy before"))
    bare = orchestrator_of(airflow3, dags_folder=None)
    assert bare.deploy_pipeline(short("deploy before")).changed is False
    with pytest.raises(ConfigurationError, match="dags_folder="):
        bare.deploy_pipeline(short("deploy before", answer=3))


def test_files_appear_whole(tmp_path: Path) -> None:
    for place in (tmp_path / "local", f"local://{tmp_path}/fsspec"):
        Path(str(place).removeprefix("local://")).mkdir()
        folder = open_folder(place)
        assert folder is not None
        assert folder.read("sub/a.py") is None
        folder.write("sub/a.py", b"one")
        folder.write("sub/a.py", b"two")
        assert folder.read("sub/a.py") == b"two"
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


def test_a_remote_folder_shows_no_credentials() -> None:
    folder = open_folder("memory://user:secret@bucket/dags")
    assert folder is not None
    assert "secret" not in folder.name


def test_a_new_version_runs_at_once(airflow3: Airflow) -> None:
    """The run that follows a change never runs the version before."""
    orchestrator = orchestrator_of(airflow3)
    for number in (1, 2):

        @step(name="work", outputs=["made"])
        def work(number: int = number) -> int:
            return number

        handle = orchestrator.run_pipeline(Pipeline("deploy versions").add_step(work))
        assert handle.wait_for_completion(timeout=60, poll_interval=0.5).outputs == {"made": number}


def _tags(orchestrator: AirflowOrchestrator, name: str) -> list[str]:
    found = [dag for dag in orchestrator.client.dags("flowyml") if dag["dag_display_name"] == name]
    return [tag["name"] for dag in found for tag in dag["tags"]]
