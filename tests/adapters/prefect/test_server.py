"""The embedded Prefect: started once, shared, its owner's alone, started again after a crash, and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
import websockets
from websockets.typing import Subprotocol

from flowyml import Pipeline, step
from flowyml.cli import main
from flowyml.core.process_identity import ProcessIdentity, born, is_alive
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.targets import resolve
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.server import _newest_ui, ensure_worker, stop_embedded_server
from tests.adapters.prefect.samples import run_processes, step_process, waiting
from tests.engines.browser import browser_page
from tests.engines.web import Reply, web
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

_RUN = """
import json
from flowyml import Pipeline, step
from flowyml_prefect import PrefectOrchestrator

@step(outputs=["pid"])
def where():
    import os
    return os.getpid()

orchestrator = PrefectOrchestrator()
before = orchestrator.health().reachable
handle = orchestrator.run_pipeline(Pipeline("embedded").add_step(where)).wait_for_completion(1200, 0.2)
print(json.dumps([before, str(handle.status), handle.url, orchestrator.health().url]))
"""

_START = "from flowyml_prefect.server import embedded_server; print(embedded_server().url)"

# The server is not up before the test has interrupted its starter.
_START_FOR_LONG = """
import time
from flowyml_prefect import server
server._await_health = lambda *_: time.sleep(3600)
server.embedded_server()
"""

_SUBMIT_MANY = """
import json
from flowyml import Pipeline, step
from flowyml_prefect import PrefectOrchestrator

orchestrator = PrefectOrchestrator(work_pool="many")  # without a worker: the server has enough to do
orchestrator.client.ensure_process_pool("many")
many = Pipeline("many").add_step(step(name="five")(lambda: 5))
print(json.dumps({run_id: orchestrator.run_pipeline(many, run_id).job_id for run_id in RUN_IDS}))
"""

_ATTACK = """
import json, os, sys, urllib.error, urllib.request

plan = json.load(sys.stdin)

def answer(method, path, body, headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(plan["url"] + path, data, headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=240) as got:
            return [got.status, got.headers.get("Access-Control-Allow-Origin")]
    except urllib.error.HTTPError as error:
        return [error.code, error.headers.get("Access-Control-Allow-Origin")]

def seen(path):
    try:
        return os.listdir(path) if os.path.isdir(path) else open(path, "rb").read().decode(errors="replace")
    except OSError as error:
        return type(error).__name__

print(json.dumps({
    "user": os.geteuid(),
    "answers": [answer(*call, {"Content-Type": "application/json", **plan["headers"]}) for call in plan["calls"]],
    "files": [seen(path) for path in plan["paths"]],
}))
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the one server of these tests is, which may be up or not; one that other users can get to, which pytest's
    own are not.
    """
    folder = Path(tempfile.mkdtemp(prefix="flowyml-embedded-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWYML_HOME", str(folder))
        yield folder
        stop_embedded_server()
    shutil.rmtree(folder)


@pytest.fixture
def served(folder: Path) -> Path:
    """The same with the server up, and a run that completed: whatever the test before left."""
    if not _is_up(folder, "server"):
        _output(_start(_RUN))
    return folder


@pytest.fixture
def home(served: Path) -> Path:
    """The same with a worker."""
    if not _is_up(served, "worker"):
        ensure_worker()
    return served


def _is_up(folder: Path, who: str) -> bool:
    record = _record(folder) if (folder / "prefect/server.json").exists() else {}
    return bool(record.get(who)) and is_alive(ProcessIdentity(**record[who]))


def _record(home: Path) -> Any:
    return json.loads((home / "prefect" / "server.json").read_text())


def _password(home: Path) -> str:
    return (home / "prefect" / "password").read_text().strip()


def _attack(home: Path, headers: Mapping[str, str] = {}, *, user: str | None = None) -> Any:
    """What somebody without the password reaches: of Prefect's API, and of the files."""
    url, prefect = _record(home)["url"], home / "prefect"
    owner = PrefectOrchestrator().client
    (deployment, *_), (run, *_) = owner.query("/deployments/filter", {}), owner.query("/flow_runs/filter", {})
    forged = {"key": "forged-outputs", "type": "table", "data": "[]", "flow_run_id": run["id"]}
    state = {"state": {"type": "CANCELLING"}, "force": True}
    plan = {
        "url": url,
        "headers": dict(headers),
        "calls": [
            ("POST", f"/api/deployments/{deployment['id']}/create_flow_run", {"job_variables": {"command": "id"}}),
            ("PATCH", f"/api/deployments/{deployment['id']}", {"entrypoint": "/tmp/theirs.py:flow"}),
            ("POST", "/api/artifacts/", forged),
            ("POST", f"/api/flow_runs/{run['id']}/set_state", state),
            ("POST", "/api/flow_runs/filter", {}),
            ("GET", f"/api/flow_runs/{run['id']}", None),
            ("GET", "/api/admin/settings", None),
        ],
        "paths": [
            *(str(path) for path in (prefect, prefect / "server.json", prefect / "password", prefect / "prefect.db")),
            *(f"/proc/{_record(home)[who]['pid']}/environ" for who in ("server", "worker")),
        ],
    }
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", _ATTACK], input=json.dumps(plan), capture_output=True, text=True,
        check=True, user=user, cwd="/",
    )  # fmt: skip
    return json.loads(done.stdout)


def _start(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _output(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    return out.strip(), err


def _servers(home: Path) -> list[int]:
    """The processes of Prefect's servers whose data is there."""
    return [
        process.pid for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(home / "prefect") and "server" in (process.info["cmdline"] or ())
    ]  # fmt: skip


def _is_recorded(home: Path) -> bool:
    """Whether the record names the server that is running."""
    return (home / "prefect" / "server.json").exists() and _record(home)["server"]["pid"] in _servers(home)


def test_of_processes_that_are_interrupted_or_begin_at_once_none_leaves_a_second_server(folder: Path) -> None:
    stop_embedded_server()
    for number in (signal.SIGINT, signal.SIGKILL):
        starting = _start(_START_FOR_LONG)
        wait_until(lambda: _is_recorded(folder))
        starting.send_signal(number)
        starting.communicate(timeout=1200)
        if number == signal.SIGINT:
            assert _servers(folder) == []
    (left,) = _servers(folder)
    (ran, first), (started, second) = [_output(process) for process in [_start(_RUN), _start(_START)]]
    before, status, run_url, url = json.loads(ran)
    assert (before, status, url) == (False, "COMPLETED", started)
    assert run_url.startswith("http://127.0.0.1:")
    first_lines = sorted(err.splitlines()[0] for err in (first, second))
    assert first_lines[0].startswith("Another process is starting")
    assert first_lines[1].startswith("Starting Prefect at http://127.0.0.1:")
    assert not psutil.pid_exists(left)
    assert _record(folder)["server"]["pid"] in _servers(folder)


def test_after_a_crash_it_comes_back_at_the_same_address(served: Path) -> None:
    record = _record(served)
    port = int(record["url"].rpartition(":")[2])
    assert 20_000 <= port < 32_768, "no port that the system gives to clients, of which one could have it by now"
    os.killpg(record["server"]["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(ProcessIdentity(**record["server"])))
    url, _ = _output(_start(f"import sys; sys.stderr = None; {_START}"))
    assert url == record["url"], "and nothing else is on standard output"


def test_it_has_a_new_password_after_a_restart_unless_a_run_in_progress_reports_with_the_old_one(
    home: Path, tmp_path: Path
) -> None:
    """Prefect's UI leaves it in the browser, where the page of a later server at that address can read it."""
    orchestrator = PrefectOrchestrator()
    handle = orchestrator.run_pipeline(waiting(str(tmp_path)))
    step_process(tmp_path)
    password, worker = _password(home), _record(home)["worker"]
    _kill_and_start(home)
    assert _password(home) == password
    assert _record(home)["worker"] == worker
    (tmp_path / "go").touch()
    assert handle.wait_for_completion(1200, 0.2).outputs == {"waited": True}
    wait_until(lambda: not run_processes(handle))
    _kill_and_start(home)
    assert _password(home) != password
    assert handle.refresh().outputs == {"waited": True}
    assert not is_alive(ProcessIdentity(**worker)), "it reports with the old one"
    assert _is_up(home, "worker")


def _kill_and_start(home: Path) -> None:
    record = _record(home)
    os.killpg(record["server"]["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(ProcessIdentity(**record["server"])))
    _output(_start(_START))


def test_it_is_used_again_and_a_schedule_brings_a_worker(served: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if _is_up(served, "worker"):
        os.killpg(_record(served)["worker"]["pid"], signal.SIGKILL)
    orchestrator = PrefectOrchestrator()
    five = Pipeline("embedded schedule").add_step(step(name="five")(lambda: 5))
    made = orchestrator.schedule_pipeline(five, Schedule.of("interval", 15))
    (ended, *_) = wait_until(lambda: [run for run in orchestrator.runs(five.name) if run.status.is_terminal], every=0.5)
    orchestrator.delete_schedule(made.schedule_id)
    assert (ended.status.name, orchestrator.outputs(ended.job_id)) == ("COMPLETED", {"five": 5})
    assert "Starting Prefect" not in capfd.readouterr().err
    record = _record(served)
    assert os.getpgid(record["worker"]["pid"]) == record["worker"]["pid"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_of_the_machine_is_refused_everything(home: Path) -> None:
    found = _attack(home, user="nobody")
    assert found["user"] == pwd.getpwnam("nobody").pw_uid
    assert [status for status, _ in found["answers"]] == [401] * 7
    assert found["files"] == ["PermissionError"] * 6


def test_a_web_page_is_refused_everything(home: Path) -> None:
    found = _attack(home, {"Origin": "http://evil.example"})
    assert found["answers"] == [[401, None]] * 7
    url = _record(home)["url"]
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    theirs = httpx.options(f"{url}/api/flow_runs/filter", headers={"Origin": "http://evil.example", **ask}, timeout=240)
    own = httpx.options(f"{url}/api/flow_runs/filter", headers={"Origin": url, **ask}, timeout=240)
    assert "access-control-allow-origin" not in theirs.headers
    assert own.headers["access-control-allow-origin"] == url


def test_every_page_of_the_api_asks_for_the_password(home: Path) -> None:
    """All that Prefect says it has, with any method; two pages tell whether it is up, and nothing else."""
    url, nothing = _record(home)["url"], str(UUID(int=0))
    with httpx.Client(base_url=f"{url}/api", timeout=240) as anybody:
        paths = anybody.get("/openapi.json", auth=tuple(_password(home).split(":"))).raise_for_status().json()["paths"]
        assert len(paths) > 100
        answers = {
            (method, path): anybody.request(method.upper(), re.sub(r"\{[^}]*\}", nothing, path)).status_code
            for path, methods in paths.items()
            for method in methods
        }
    assert {call for call, status in answers.items() if status != 401} == {("get", "/health"), ("get", "/ready")}


def test_every_socket_of_the_api_asks_for_the_password(home: Path) -> None:
    url = _record(home)["url"].replace("http", "ws", 1)

    async def ask(path: str, secret: str | None) -> Any:
        async with websockets.connect(
            f"{url}/api/{path}", subprotocols=[Subprotocol("prefect")], proxy=None, open_timeout=240
        ) as socket:
            await socket.send(json.dumps({"type": "auth", "token": secret}))
            return json.loads(await socket.recv())

    for path in ("events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"):
        for token in (None, "", "flowyml:", "guess"):
            with pytest.raises(websockets.ConnectionClosedError) as refused:
                asyncio.run(ask(path, token))
            assert refused.value.rcvd is not None, path
            assert refused.value.rcvd.code == 1008, path
        assert asyncio.run(ask(path, _password(home)))["type"] == "auth_success", path


def test_the_password_stands_in_its_file_and_nowhere_else(home: Path) -> None:
    secret = _password(home).partition(":")[2]
    assert len(secret) > 40
    modes = {name: (home / "prefect" / name).stat().st_mode & 0o777 for name in ("", "password", "server.json")}
    assert modes == {"": 0o700, "password": 0o600, "server.json": 0o600}
    own = [path for path in (home / "prefect").iterdir() if path.is_file()]
    assert [path for path in own if path.stat().st_mode & 0o077] == []
    assert {"lock", "server.log", "worker.log"} <= {path.name for path in own}
    holding = [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holding == [home / "prefect" / "password"]
    server = psutil.Process(_record(home)["server"]["pid"])
    assert any(secret in value for value in server.environ().values()), "it does reach the server"
    assert not [process for process in psutil.process_iter(["cmdline"]) if secret in str(process.info["cmdline"])]


def test_its_url_is_enough_for_its_owner(home: Path) -> None:
    """As a target or in PREFECT_API_URL, the embedded Prefect's own address brings its password along."""
    assert resolve(_record(home)["url"]).runs()


def test_many_processes_submit_at_once_and_none_fails(home: Path) -> None:
    """SQLite takes one writer: Prefect answered 503 to some, or that its database is locked. Each two ask for the same
    ten runs, of which the server has one each."""
    asked = [[f"many-{pair}-{number}" for number in range(10)] for pair in (1, 1, 2, 2, 3, 3)]
    processes = [_start(_SUBMIT_MANY.replace("RUN_IDS", repr(run_ids))) for run_ids in asked]
    submitted = [json.loads(_output(process)[0]) for process in processes]
    assert [list(jobs) for jobs in submitted] == asked
    assert submitted[0::2] == submitted[1::2]
    there = sorted((run.run_id, run.job_id) for run in PrefectOrchestrator().runs("many", limit=200))
    assert there == sorted((run_id, job) for jobs in submitted[0::2] for run_id, job in jobs.items())


def test_its_owner_signs_in_as_it_is_printed_and_sees_the_run(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    orchestrator = PrefectOrchestrator()
    (run,) = orchestrator.runs("embedded", limit=1)
    deployed = orchestrator.deploy_pipeline(Pipeline("looked at").add_step(step(name="five")(lambda: 5)))
    capfd.readouterr()
    assert main(["backends", "sign-in", "prefect"]) == 0
    said = capfd.readouterr()
    address, shown = said.out.splitlines()
    assert str(run.url).startswith(f"{address}/runs/flow-run/")
    assert (_password(home) in said.err, shown) == (False, f"password: {_password(home)}")
    with browser_page(tmp_path) as page:
        page.goto(str(run.url))
        page.get_by_label("Password").or_(page.locator("input[type=password]")).first.fill(shown.partition(": ")[2])
        page.keyboard.press("Enter")
        page.get_by_text(run.run_id).first.wait_for()
        page.get_by_text("Completed").first.wait_for()
        page.goto(str(run.url))
        page.get_by_text(run.run_id).first.wait_for()  # once is enough
        page.goto(str(deployed.url))
        page.get_by_text("looked at").first.wait_for()


@pytest.mark.parametrize(
    ("body", "ui"),
    [(b'{"v2_base_url": "/v2"}', "/v2"), (b"{}", ""), (b"[]", ""), (b"<html>", ""),
     (b" " * 2**20 + b'{"v2_base_url": "/v2"}', "")],
)  # fmt: skip
def test_of_what_another_program_says_of_its_pages_not_much_is_read(body: bytes, ui: str) -> None:
    with web(lambda _: Reply(body=body)) as other:
        assert _newest_ui(other.url) == ui


def test_a_server_whose_password_others_could_have_read_is_replaced(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, secret = _record(home), _password(home)
    (home / "prefect").chmod(0o755)
    (home / "prefect" / "password").chmod(0o644)
    assert PrefectOrchestrator().runs("embedded"), "it knows what the other one knew"
    assert "whose password is lost" in capfd.readouterr().err
    assert _password(home) != secret
    modes = {name: (home / "prefect" / name).stat().st_mode & 0o777 for name in ("", "password", "server.json")}
    assert modes == {"": 0o700, "password": 0o600, "server.json": 0o600}
    assert [born(before[who]["pid"]) for who in ("server", "worker")] == [None, None]


def test_it_stops_with_its_worker(home: Path) -> None:
    record = _record(home)
    assert stop_embedded_server()
    assert [born(record[who]["pid"]) for who in ("server", "worker")] == [None, None]
    assert not stop_embedded_server()
