"""What FlowyML leaves of Prefect's runs: what goes, and what the server still needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import EngineUnreachableError, RetryRefusedError, RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.pruning import Bounds, Prunable
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.names import flow_name
from flowyml_prefect.pruning import PRUNED, Leftovers, note_server
from flowyml_prefect.server import prefect_home, server_name
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

NAME = "prune these"


def version(number: int, *, fails: bool = False) -> Pipeline:
    @step(outputs=["rows"])
    def load(number: int) -> str:
        return "x" * 100_000 + str(number)

    @step
    def check(rows: str, fails: bool) -> None:
        if fails:
            raise ValueError("no luck")

    return (
        Pipeline(NAME, context={"number": number, "fails": fails}, tags=[f"v{number}"]).add_step(load).add_step(check)
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def make_old(folder: Path) -> None:
    """As if nothing had been written there for a long time."""
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1))


def test_runs_flows_and_outputs_go_when_nothing_on_the_server_needs_them(
    make_prefect: Callable[..., PrefectOrchestrator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = make_prefect(artifacts=tmp_path / "artifacts")
    client, flows = orchestrator.client, prefect_home() / "flows"
    asked = client.begun_runs  # of this test's pipeline alone: the server is that of all tests
    monkeypatch.setattr(client, "begun_runs", lambda flow=None: asked(flow or flow_name(NAME)))

    def found(older_than: float = 0, *, is_own: bool = True) -> dict[tuple[str, str], Prunable]:
        name, bounds = server_name(client.connection), Bounds(older_than=older_than)
        items = Leftovers(orchestrator.reader, prefect_home(), name, str(tmp_path / "artifacts"), bounds, is_own)
        mine = (item for item in items if item.kind == "run" or item.name.startswith("prune-these"))
        return {(item.kind, item.name): item for item in mine}

    first = orchestrator.run_pipeline(version(1, fails=True), "prune-first").wait_for_completion(1200, 0.2)
    assert first.status is ExecutionStatus.FAILED
    assert orchestrator.get_run(first.job_id).revision == version(1).revision
    second = orchestrator.run_pipeline(version(2), "prune-second").wait_for_completion(1200, 0.2)
    assert second.status is ExecutionStatus.COMPLETED, second.error
    pooled = make_prefect(work_pool="prune", artifacts=tmp_path / "artifacts")
    pooled.client.ensure_process_pool("prune")
    waiting = pooled.run_pipeline(version(3), "prune-waiting")
    old, new, queued = (
        f"prune-these-{run_version}" if (flows / f"prune-these-{run_version}").exists() else _folder(flows, run_version)
        for run_version in (client.run(run.job_id).version for run in (first, second, waiting))
    )

    kept = {name: item.kept for (kind, name), item in found(is_own=False).items() if kind == "flow"}
    assert kept[old] == "run 'prune-first' can be retried"
    assert kept[new].startswith("deployment ")
    assert kept[queued].startswith("deployment ")
    assert not any(kind == "run" for kind, _ in found(is_own=False)), "those of a server of one's own are its owner's"
    plan = found()
    assert plan["run", "prune-waiting"].kept == "it is in progress"
    assert plan["run", "prune-first"].bytes > 100_000
    assert {name: plan["run", name].kept for name in ("prune-first", "prune-second")} == dict.fromkeys(
        ("prune-first", "prune-second"), ""
    )
    assert set(found(3600)["run", "prune-first"].kept.split()) > {"1", "h"}

    note_server(flows / old, "http://elsewhere/api")
    assert found()["flow", old].kept == "another server may run it"
    (theirs,) = (path for path in (flows / old).glob(".server-*") if path.read_text() == "http://elsewhere/api")
    theirs.unlink()
    (flows / old / "results.csv").write_text("mine")
    assert found()["flow", old].kept == "it contains files that FlowyML did not write"
    (flows / old / "results.csv").unlink()
    (flows / old / ".new-0123456789abcdef").write_text("a process was killed while it wrote this")
    assert found()["flow", old].kept == ""

    make_old(flows / old)
    assert plan["flow", old].remove() == 0, "the run that may be run again is there yet"
    client.label_run(first.job_id, {PRUNED: True})
    with pytest.raises(RetryRefusedError, match="`flowyml prune` is removing it"):
        first.retry()
    place = next((tmp_path / "artifacts").glob(f"prefect-{first.job_id}-*"))
    assert files(place)
    assert plan["run", "prune-first"].remove() > 100_000
    assert plan["run", "prune-first"].remove() == 0, "as another process that prunes finds it"
    with pytest.raises(RunNotFoundError):
        orchestrator.get_run(first.job_id)
    assert not place.exists()
    assert orchestrator.get_run(second.job_id).status is ExecutionStatus.COMPLETED
    assert plan["flow", old].remove() > 100_000
    assert not (flows / old).exists()
    assert (flows / new).exists()
    waiting.cancel()
    wait_until(lambda: waiting.status.is_terminal)

    assert found(is_own=False)["flow", queued].kept == "run 'prune-waiting' can be retried"
    found()["run", "prune-waiting"].remove()
    (item,) = (each for each in found().values() if each.name == queued)
    assert item.kept == ""
    make_old(flows / queued)
    later = pooled.run_pipeline(version(3), "prune-later")
    assert (flows / queued).stat().st_mtime > 1, "it is used again"
    assert item.remove() == 0, "a run waits for its deployment again"
    later.cancel()
    wait_until(lambda: later.status.is_terminal)
    found()["run", "prune-later"].remove()
    assert item.remove() == 0, "it was used just now"
    make_old(flows / queued)
    assert item.remove() > 100_000
    assert not (flows / queued).exists()
    assert not any(queued.endswith(each["version"]) for each in client.deployments(flow_name(NAME)))
    again = pooled.run_pipeline(version(3), "prune-again")
    assert client.run(again.job_id).version == client.run(again.job_id).labels["flowyml.version"]
    again.cancel()


def test_a_run_that_is_retried_before_its_turn_to_go_stays_and_can_be_retried(
    make_prefect: Callable[..., PrefectOrchestrator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = make_prefect(work_pool="prune")
    client = orchestrator.client
    client.ensure_process_pool("prune")
    run = orchestrator.run_pipeline(version(8))
    run.cancel()
    wait_until(lambda: run.status.is_terminal)
    name = server_name(client.connection)
    leftovers = Leftovers(orchestrator.reader, prefect_home(), name, str(tmp_path), Bounds(older_than=0), True)
    (item,) = (each for each in leftovers if each.name == run.run_id)
    assert item.kept == ""
    client.set_state(run.job_id, {"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True)
    assert item.remove() == 0
    assert not client.run(run.job_id).labels[PRUNED], "it is not being removed"
    with monkeypatch.context() as patched:
        patched.setattr(client, "run", raising(EngineUnreachableError("the server has gone away")))
        with pytest.raises(EngineUnreachableError):
            item.remove()
    assert not client.run(run.job_id).labels[PRUNED]
    run.cancel()


def raising(error: Exception) -> Callable[..., Any]:
    def call(*arguments: object) -> None:
        raise error

    return call


def _folder(flows: Path, run_version: Any) -> str:
    (found,) = (path.name for path in flows.iterdir() if path.name.endswith(str(run_version)))
    return found


def test_a_flow_that_is_published_again_stays(make_prefect: Callable[..., PrefectOrchestrator], tmp_path: Path) -> None:
    """A submission publishes its flow before the server knows of it."""
    orchestrator = make_prefect(artifacts=tmp_path / "artifacts")
    bundle = version(7).bundle()
    from flowyml_prefect.deployer import _publish

    folder = _publish(bundle)
    name = server_name(orchestrator.client.connection)
    note_server(folder, name)
    leftovers = Leftovers(orchestrator.reader, prefect_home(), name, str(tmp_path), Bounds(older_than=100), False)
    make_old(folder)
    (item,) = (each for each in leftovers if each.name == folder.name)
    assert item.kept == ""
    note_server(_publish(bundle), name)
    assert item.remove() == 0
    assert folder.exists()
    make_old(folder)
    assert item.remove() > 100_000
    assert not folder.exists()
