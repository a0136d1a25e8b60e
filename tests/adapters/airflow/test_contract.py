"""Each path, parameter and field that the adapter uses stands in the OpenAPI document of the Airflow that it is for.

The documents are those in the environments of Airflow 3 and 2.11, which their servers go by. A release of Airflow that
changes one of them fails a test here, by its name, before anything is run on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowyml.core.errors import OwnershipError, ScheduleError
from flowyml.core.schedule import Schedule
from flowyml_airflow.backfills import backfill, zone_of
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.connection import Connection
from flowyml_airflow.deployed_dag import Deployed, check_resumable, check_runnable
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.external_run import Calls
from flowyml_airflow.folder import LocalFolder
from flowyml_airflow.handover import DagSchedule, workflows
from flowyml_airflow.names import CODE_KEY, TAG, version_note
from flowyml_airflow.outcomes import cancelled_note
from flowyml_airflow.reader import AirflowReader
from flowyml_airflow.retrying import run_again
from flowyml_airflow.scheduler import schedule_info
from flowyml_airflow.stalled import RunWarnings
from flowyml_airflow.transport import Transport
from tests.adapters.airflow.operating import short
from tests.engines.airflow import airflow_python
from tests.engines.openapi import Contract

pytestmark = pytest.mark.airflow
DAY = datetime(2026, 3, 1, tzinfo=UTC)
DUE = DAY.replace(hour=6)
COMPILED = compile_dag(short("contract").bundle(), schedule=Schedule.of("daily", 6, start=DAY))
VALUES = {
    "state": "failed", "total_entries": 1, "ConfigOption.value": "7", "/dagSources/{file_token}.content": COMPILED.text,
    "DAGSourceResponse.content": COMPILED.text, "extra": '{"flowyml": 1, "update_mask": 1, "is_paused": true}',
    "tags": [{"name": TAG}], "description": version_note(COMPILED.version), "queued_at": None, "conf": {},
    "run_type": "backfill", "timezone": "UTC", "start_date": DAY.isoformat(), "end_date": DAY.isoformat(),
    "is_active": True, "filename": "dags/contract.py", "timetable_summary": "0 6 * * *",
    "schedule_interval": {"__type": "CronExpression", "value": "0 6 * * *"},
}  # fmt: skip
SCHEDULED = {
    **VALUES, "run_type": "scheduled", "is_paused": True,
    **dict.fromkeys(("data_interval_end", "next_dagrun_run_after", "next_dagrun_create_after"), DUE.isoformat()),
}  # fmt: skip
# What one of the two has in another way, or not at all; the adapter asks for both.
ONLY_ON_2 = {"is_active", "next_dagrun_create_after", "schedule_interval"}
ONLY_ON_3 = {
    "bundle_version", "dag_display_name", "dag_versions", "has_import_errors", "is_stale", "next_dagrun_run_after",
    "queued_at", "relative_fileloc", "run_after", "task_display_name", "timetable_summary",
}  # fmt: skip

OF_LOOPS = {"map_index"}  # on 3, in runs with loops, which are not read here


@cache
def _documents(major: int) -> tuple[str, list[Mapping[str, Any]]]:
    packages = next(airflow_python(major).parent.parent.glob("lib/python3*/site-packages"))
    version = next(packages.glob(f"apache_airflow-{major}.*.dist-info")).name.split("-")[1].removesuffix(".dist")
    rest = "airflow/api_fastapi/core_api/openapi/v2-rest-api-generated.yaml" if major == 3 else ""
    auth = "airflow/api_fastapi/auth/managers/simple/openapi/v2-simple-auth-manager-generated.yaml"
    paths = [rest, auth] if major == 3 else ["airflow/api_connexion/openapi/v1.yaml"]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return f"Airflow {version}", [yaml.load((packages / path).read_bytes(), loader) for path in paths]


def _contracts(major: int, **options: Any) -> list[Contract]:
    title, documents = _documents(major)
    root, elsewhere = ("", ONLY_ON_2) if major == 3 else ("/api/v1", ONLY_ON_3 | OF_LOOPS)
    mark = {"flowyml": "yes"}  # stands in Airflow's audit log; see `AirflowClient.pause`
    given = {"root": root, "values": VALUES, "elsewhere": frozenset(elsewhere), "ignored": mark, **options}
    return [Contract(title, document, **given) for document in documents]


class Walked(Transport):
    """Every call is answered by the contract of its path."""

    def __init__(self, contracts: list[Contract]) -> None:
        super().__init__(Connection.to("http://127.0.0.1:9", ("ada", "word")), timeout=1)
        self.contracts = contracts

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] = {},
        json: Any = None,
        again: bool = True,
        anonymous: bool = False,
    ) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        contract = self.contracts[-1] if path.startswith("/auth/") else self.contracts[0]
        return contract.answer(method, path, given, json)


def _client(major: int, contracts: list[Contract]) -> AirflowClient:
    kind = AirflowClient if major == 3 else Airflow2Client
    client = kind(Walked(contracts), f"{major}.0")
    client.dags_folder = "/mounted/dags"
    return client


CALLS: Mapping[str, Callable[[AirflowClient], Any]] = {
    "dag": lambda client: client.dag("d"),
    "row": lambda client: client.row("d"),
    "dags": lambda client: [*client.dags("tag"), *client.dags()],
    "source": lambda client: client.source(client.dag("d"), 1 if client.can_backfill else None),
    "pause": lambda client: client.pause("d", True),
    "delete": lambda client: client.delete("d"),
    "pause_we_set": lambda client: client.pause_we_set("d"),
    "was_paused_by_hand": lambda client: client.was_paused_by_hand("d"),
    "tasks": lambda client: client.tasks("d"),
    "setting": lambda client: client.setting("core", "parallelism", 1),
    "reads_new_files_within": lambda client: client.reads_new_files_within,
    "shows_changes_within": lambda client: client.shows_changes_within,
    "has_pool": lambda client: client.has_pool("p"),
    "has_connection": lambda client: client.has_connection("c"),
    "has_variable": lambda client: client.has_variable("v"),
    "import_error": lambda client: client.import_error("contract.py"),
    "trigger": lambda client: client.trigger("d", "r", {}, is_dated=True),
    "make_run": lambda client: client.make_run("d", "r", DAY, DAY, DAY),
    "set_success": lambda client: client.set_success("d", "r"),
    "run": lambda client: client.run("d", "r"),
    "runs": lambda client: client.runs(["d"], 5, (DAY, DAY)),
    "unfinished": lambda client: client.unfinished(["d"]),
    "task_instances": lambda client: client.task_instances("d", "r"),
    "note": lambda client: client.note("d", "r", "a note"),
    "marked_failed": lambda client: client.marked_failed("d", "r"),
    "why_ended": lambda client: client.why_ended(
        {"dag_id": "d", "dag_run_id": "r"}, {"task_id": "t", "map_index": 0, "try_number": 1}
    ),
    "notes_written": lambda client: client.notes_written("d"),
    "fail": lambda client: client.fail("d", "r"),
    "clear": lambda client: client.clear("d", "r", True),
    "clear_tasks": lambda client: client.clear_tasks("d", "r", {"t": None}),
    "xcom": lambda client: client.xcom("d", "r", "t", "k", 0),
    "returned": lambda client: client.returned("d", "r"),
    "log": lambda client: client.log("d", "r", {"task_id": "t", "map_index": 0}, 1),
    "backfill": lambda client: client.backfill("d", DAY, DAY, {}, run_backwards=True) if client.can_backfill else 0,
    "health": lambda client: client.health(),
}
NO_CALL = {
    "api",
    "api_client",
    "can_backfill",
    "dag_url",
    "dates_all_runs",
    "may_run_after_end",
    "integers",
    "run_url",
    "stops_what_is_gone",
}


def test_every_call_is_walked() -> None:
    names = {name for kind in AirflowClient.__mro__[:-1] for name in vars(kind) if not name.startswith("_")}
    assert names - NO_CALL == CALLS.keys()


@pytest.mark.parametrize("major", [3, 2])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_one_that_airflow_takes(major: int, name: str) -> None:
    contracts = _contracts(major)
    CALLS[name](_client(major, contracts))
    assert contracts[0].called or (name, major) == ("backfill", 2)


@pytest.mark.parametrize("major", [3, 2])
def test_what_is_read_is_there(major: int, tmp_path: Path) -> None:
    contracts, scheduled = _contracts(major), _contracts(major, values=SCHEDULED)
    _read(_client(major, contracts), tmp_path)
    _operate(_client(major, scheduled), tmp_path)
    read = {field for _, field in contracts[0].read | scheduled[0].read}
    assert read >= (ONLY_ON_3 if major == 3 else ONLY_ON_2), "a field in the lists above that is not asked for any more"


def _read(client: AirflowClient, folder: Path) -> None:
    """Read a run, a DAG and its schedule in all ways."""
    reader = AirflowReader(client, str(folder))
    run = client.run("d", "r")
    assert reader.record(run).error is not None
    _identify(reader, run, kept=client.api == "/api/v2")
    assert len(reader.step_runs("d/r")) == 1
    list(reader.logs("d/r"))
    reader.outputs("d/r")
    assert cancelled_note(run, ())
    found = Deployed(client.dag("d"), client)
    assert (found.is_ours, found.facts["pipeline"], str(zone_of(found))) == (True, "contract", "UTC")
    assert schedule_info(found, LocalFolder(folder))
    found.check_parameters({})
    deployer = AirflowDeployer(lambda: client, LocalFolder(folder))
    assert deployer.found("d")
    assert not deployer.is_there(COMPILED, found)
    error = client.import_error("contract.py")
    assert error is not None
    assert error["timestamp"]
    assert error["stack_trace"]
    if client.can_backfill:
        assert backfill(found, DAY.date(), DAY.date(), {}) == [], "the same as before"
        with pytest.raises(ScheduleError, match="has no run from 2026-03-01 00:00:00"):
            backfill(found, DAY, DAY, {})


def _operate(client: AirflowClient, folder: Path) -> None:
    """A DAG with a schedule is listed, handed over and taken back, looked for, and its failed run tried again."""
    (listed,) = workflows(client, 5)
    assert (listed.schedule, listed.is_paused, listed.is_flowymls) == ("0 6 * * *", True, True)
    reader, run = AirflowReader(client, str(folder)), client.run("d", "r")
    old = DagSchedule(client, "d", reader)
    seen = old.look()
    assert (seen.schedule.cron, seen.catch_up, seen.last) == ("0 6 * * *", False, DUE)
    assert list(old.runs(5)) == [DUE]
    old.mark_as_run(DUE, "run elsewhere")
    old.run_for(DUE)
    RunWarnings().warn_if_stalled(client, run)
    found = Deployed(client.dag("d"), client)
    check_resumable(found)
    with pytest.raises(OwnershipError, match="would start its schedule again"):
        check_runnable(found, "r", None)
    run_again(reader, AirflowDeployer(lambda: client, LocalFolder(folder)), "d/r", None)


def _identify(reader: AirflowReader, run: dict[str, Any], *, kept: bool) -> None:
    """The run's own word on its code wins over the version's file, into which Airflow puts what another deployed."""
    code, origin = COMPILED.bundle.code_digest, COMPILED.bundle.origin
    for submitted, digest, known in (
        (None, code if kept else None, kept),
        (code, code, kept),
        ("other", "other", False),
    ):
        said = reader.identified({**run, "conf": {CODE_KEY: submitted} if submitted else {}})
        assert (said.code_digest, said.origin) == (digest, origin if known else None)


@pytest.mark.parametrize("major", [3, 2])
def test_a_step_that_runs_an_existing_dag(major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_AIRFLOW_USERNAME", "ada")
    monkeypatch.setenv("FLOWYML_AIRFLOW_PASSWORD", "word")
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", "http://127.0.0.1:9")
    contracts = _contracts(major, values={**VALUES, "end_date": "2999-01-01T00:00:00+00:00"})

    class WalkedCalls(Calls):
        def _answer(
            self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float = 30
        ) -> tuple[int, Any]:
            if major == 2 and not path.startswith("/api/v1"):
                return 404, {}
            contract = contracts[-1] if path.startswith("/auth/") else contracts[0]
            return 200, contract.answer(method, path, {}, body)

    calls = WalkedCalls(None, "d", 1)
    assert calls.state("r") == "failed"
    calls.trigger("r", {"day": "monday"})
    calls.fail("r")
    walked = {call.partition(" ")[0] for call in contracts[0].called}
    assert (calls.api, walked) == (f"v{major - 1}", {"GET", "POST", "PATCH"})
