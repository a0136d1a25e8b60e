"""What a fake server answers, and a real Prefect does not on demand: gateways in front of it, and strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flowyml.cli import main
from flowyml.core.errors import (
    EngineError,
    EngineUnreachableError,
    RunNotFoundError,
    ScheduleNotFoundError,
    ServerTroubleError,
)
from flowyml.orchestrators import http
from flowyml_prefect import PrefectOrchestrator, reader, runner
from tests.engines.web import Recorded, Reply, web

RUN = "5f1a4d02-4c43-4f44-8c5e-0d3f6a2a8e11"


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gateway."""
    monkeypatch.setattr(http, "_BUSY_SECONDS", 0.3)


def json_answer(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())


def flow_run(kind: str, ended: str | None = "2026-01-01T00:00:09+00:00") -> dict[str, Any]:
    ended = ended if kind in ("COMPLETED", "FAILED") else None
    return {
        "id": RUN, "name": "brave-bee", "flow_id": RUN, "state_type": kind, "state_name": kind.capitalize(),
        "labels": {"flowyml.pipeline": "bees", "flowyml.run_id": "bee-1"}, "end_time": ended,
    }  # fmt: skip


NO_SERVER = Reply(502, b"<html><head><title>502 Bad Gateway</title></head></html>", media_type="text/html")
ELSEWHERE = "https://me:s3cret@elsewhere/login?token=s3cret"
RUNNING, COMPLETED = json_answer(flow_run("RUNNING")), json_answer(flow_run("COMPLETED"))


def page(status: int, body: bytes) -> Reply:
    return Reply(status, body, media_type="text/html")


@contextmanager
def answering(pages: dict[str, list[Reply]]) -> Iterator[tuple[PrefectOrchestrator, list[str]]]:
    """An orchestrator of a server that answers these in turn, the last for ever; and the paths that it was asked.

    A page with the name "" stands for all that have no answers of their own.
    """
    asked: list[str] = []

    def reply(request: Recorded) -> Reply:
        path = request.path.removeprefix("/api")
        asked.append(path)
        answers = pages.get(path, pages.get("", [json_answer({"detail": "Not Found"}, 404)]))
        return answers[min(asked.count(path), len(answers)) - 1]

    with web(reply) as server:
        orchestrator = PrefectOrchestrator(server.url)
        yield orchestrator, asked
        orchestrator.close()


def test_the_state_of_a_step_may_be_recorded_after_its_row() -> None:
    """Prefect's recorder commits the two one after the other on SQLite, so a reader may come between them."""
    row = {
        "id": RUN, "name": "divide", "task_key": "divide-1a2b3c4d", "state_type": "FAILED", "state_name": "Failed",
        "state": None, "run_count": 1, "end_time": "2026-01-01T00:00:09+00:00",
    }  # fmt: skip
    whole = {**row, "state": {"message": "Task run encountered an exception ZeroDivisionError: no number"}}
    pages = {
        f"/flow_runs/{RUN}": [json_answer(flow_run("FAILED", datetime.now(UTC).isoformat()))],
        "/task_runs/filter": [json_answer([row]), json_answer([whole])],
        "": [json_answer([])],
    }
    with answering(pages) as (orchestrator, _):
        assert [step.error for step in orchestrator.attach(RUN).step_runs()] == ["ZeroDivisionError: no number"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Task runs: 2", ["COMPLETED"] * 2),
        ("Task runs: 3", [*["COMPLETED"] * 2, *["COMPLETED, not recorded"] * 3]),
        ("marked by hand", [*["COMPLETED"] * 2, *["CANCELLED"] * 3]),
    ],
    ids=["a label that invents items", "records that are lost", "a run that was ended in its midst"],
)
def test_no_item_of_a_completed_run_was_cancelled(message: str, shown: list[str]) -> None:
    """Others can label runs, too."""
    run = {**flow_run("COMPLETED"), "deployment_version": "v", "state": {"message": message}}
    run["labels"] = {**run["labels"], "flowyml.items.half": 5}
    tasks = [
        {"id": RUN, "name": f"half[{index}]", "task_key": "half-1a2b3c4d", "state_type": "COMPLETED",
         "state_name": "Completed", "state": {}, "run_count": 1}
        for index in range(2)
    ]  # fmt: skip
    plan = {"description": "v", "data": json.dumps([{"step": "half", "task": "half", "loops": '["half"]'}])}
    pages = {
        f"/flow_runs/{RUN}": [json_answer(run)], "/artifacts/filter": [json_answer([plan])],
        "/task_runs/filter": [json_answer(tasks)],
    }  # fmt: skip
    with answering(pages) as (orchestrator, _):
        steps = orchestrator.step_runs(RUN)
    assert [f"{step.status.name}{', not recorded' if step.error else ''}" for step in steps] == shown


def test_the_steps_of_a_version_are_found_behind_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PLAN_SECONDS", 0)  # else a list that is missing is looked for each 5 s
    run = {**flow_run("RUNNING"), "deployment_version": "v0"}
    task = {
        "id": RUN, "name": "run this", "task_key": "divide-1a2b3c4d", "state_type": "RUNNING", "state_name": "Running",
        "state": {},
    }  # fmt: skip
    others = [{"description": f"v{number}", "data": []} for number in range(200, 0, -1)]
    mine = {"description": "v0", "data": json.dumps([{"step": "divide", "task": "divide"}])}
    pages = {
        f"/flow_runs/{RUN}": [json_answer(run)],
        "/artifacts/filter": [json_answer([]), json_answer(others), json_answer([mine])],
        "/task_runs/filter": [json_answer([task])],
    }
    with answering(pages) as (orchestrator, asked):
        names = [[step.name for step in orchestrator.step_runs(RUN)] for _ in range(3)]
    assert names == [["run this"], ["divide"], ["divide"]], "they were not there yet at first"
    assert asked.count("/artifacts/filter") == 3, "what is known is not asked for again"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_gateway_without_a_server_counts_as_no_answer(status: int) -> None:
    message = rf"answered GET /flow_runs/\S+ with a page .*\({status}, text/html\)"
    gateway = {"": [replace(NO_SERVER, status=status)]}
    with answering(gateway) as (orchestrator, _), pytest.raises(EngineUnreachableError, match=message):
        orchestrator.get_run(RUN)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (page(200, b"<!doctype html><title> Sign in </title>"), "a page titled 'Sign in' (200, text/html)"),
        (Reply(200, b"hello", media_type="text/plain"), "a page (200, text/plain)"),
        (page(404, b"<title>no such page</title>"), "a page titled 'no such page' (404, text/html)"),
        (Reply(302, b"", {"Location": ELSEWHERE}, "text/html"), "it redirects to https://elsewhere/login."),
        (json_answer({}), "{}"),
        (json_answer({"id": "x"}), "{'id': 'x'}"),
        (json_answer([{}]), "{}"),
        (Reply(200, b""), "None"),
    ],
    ids=["html", "text", "missing html", "redirect", "{}", "object", "list", "nothing"],
)
def test_who_answered_instead_of_prefect(
    answer: Reply, what: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering({"": [answer]}) as (orchestrator, _):
        monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PREFECT__URL", str(orchestrator.url))
        for words in (["runs"], ["status", RUN]):
            assert main([*words, "--on", "prefect"]) == 3
            message = capfd.readouterr().err
            assert f"error: {orchestrator.url}/api answered " in message
            assert "which does not come from Prefect's API" in message or "Another program may answer there" in message
            assert what in message
            assert "s3cret" not in message
        with pytest.raises(EngineError) as submitting:
            orchestrator.client.deployment("flow", "name")
    assert "s3cret" not in str(submitting.value)


@pytest.mark.parametrize(
    ("pages", "code", "message"),
    [
        (
            {"/admin/version": [json_answer("3.9.1")], "/flow_runs/filter": [json_answer([])]},
            4,
            "has no run 'x'. Its id is a UUID, as `flowyml runs --on prefect` shows it.",
        ),
        ({"": [json_answer({"detail": "Unauthorized"}, 401)]}, 3, "refuses these credentials (401)"),
        ({"": [NO_SERVER]}, 3, "cannot reach it"),
        ({"": [json_answer({})]}, 3, "which does not come from Prefect's API"),
    ],
    ids=["prefect", "refused", "away", "stranger"],
)
def test_an_invalid_id_is_unknown_only_to_a_server_that_answers(
    pages: dict[str, list[Reply]],
    code: int,
    message: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(pages) as (orchestrator, _):
        monkeypatch.setenv("FLOWYML_ORCHESTRATORS__PREFECT__URL", str(orchestrator.url))
        assert main(["status", "x", "--on", "prefect"]) == code
        assert message in capfd.readouterr().err


def test_unknown_ids_are_distinguished_from_invalid_ones() -> None:
    with answering({"/admin/version": [json_answer("3.9.1")]}) as (orchestrator, asked):
        with pytest.raises(RunNotFoundError, match=rf"has no run '{RUN}'\.$"):
            orchestrator.get_run(RUN)
        with pytest.raises(ScheduleNotFoundError, match=rf"has no schedule '{RUN}'\.$"):
            orchestrator.delete_schedule(RUN)
        assert asked == [f"/flow_runs/{RUN}", f"/deployments/{RUN}"]
        with pytest.raises(ScheduleNotFoundError, match=r"has no schedule 'x'\. Its id is a UUID"):
            orchestrator.delete_schedule("x")
        assert asked[2:] == ["/admin/version"]


def test_a_label_that_only_looks_like_that_of_a_run_that_was_made_up_for() -> None:
    """Any client of the server may label runs."""
    labels = ["whenever", "2026-01-01T03:00:00", 7, True, {"a": 1}, "2026-01-01T02:00:00+00:00", None]
    run = flow_run("COMPLETED")
    due = {"auto_scheduled": True, "expected_start_time": "2026-01-01T01:00:00Z"}
    runs = [{**run, **due, "labels": {**run["labels"], "flowyml.made_up": label}} for label in labels]
    with answering({"/flow_runs/filter": [json_answer(runs)]}) as (prefect, _):
        assert sorted(time.hour for time in prefect.scheduled_runs("bees")) == [1, 2]


def test_a_run_in_an_unknown_state_hides_no_other_run(caplog: pytest.LogCaptureFixture) -> None:
    runs = [flow_run("MOLTEN"), {**flow_run("COMPLETED"), "id": "0af1c2d3-0000-4000-8000-000000000001"}]
    with answering({"/flow_runs/filter": [json_answer(runs)]}) as (prefect, _):
        assert [run.status.name for run in prefect.runs()] == ["COMPLETED"]
    (said,) = caplog.messages
    assert said.startswith(f"run '{RUN}' is not listed: Prefect reports"), said


@pytest.mark.parametrize("stays", [True, False], ids=["they stay", "they go"])
def test_a_run_with_more_artifacts_than_a_page_is_removed_with_all(stays: bool) -> None:
    first, rest = ([{"id": f"{page}-{number}"} for number in range(size)] for page, size in ((1, 200), (2, 50)))
    pages = {"/artifacts/filter": list(map(json_answer, [first, rest, rest if stays else []]))}
    with answering({**pages, "": [json_answer({})]}) as (orchestrator, asked):
        orchestrator.client.delete_run(RUN)
    removed = [path.removeprefix("/artifacts/") for path in asked if path.startswith("/artifacts/1") or "/2-" in path]
    assert sorted(removed) == sorted(each["id"] for each in first + rest)
    assert asked[-1] == f"/flow_runs/{RUN}"


@pytest.mark.parametrize("trouble", [EngineUnreachableError, ServerTroubleError])
def test_a_server_in_trouble_does_not_end_the_runner_of_a_run(
    trouble: type[EngineError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_POLL_SECONDS", 0.01)
    answers = iter([trouble("the database is locked"), "RUNNING"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert runner._call_patiently(ask, 600) == "RUNNING"
    answers = iter([trouble("for ever")])
    with pytest.raises(trouble):
        runner._call_patiently(ask, -1)
