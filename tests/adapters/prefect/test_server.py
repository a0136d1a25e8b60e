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

from flowyml.core.process_identity import ProcessIdentity, born, is_alive
from flowyml_prefect.server import _free_port, _newest_ui
from tests.engines.browser import browser_page
from tests.engines.web import Reply, web
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

_RUN = """
import json, sys
from flowyml import Pipeline, step
from flowyml_prefect import PrefectOrchestrator

@step(outputs=["pid"])
def where():
    import os
    return os.getpid()

orchestrator = PrefectOrchestrator()
before = orchestrator.health().reachable
handle = orchestrator.run_pipeline(Pipeline("embedded").add_step(where)).wait_for_completion(240, 0.2)
print(json.dumps([before, str(handle.status), handle.url, orchestrator.health().url]))
"""

_SCHEDULE = """
import json, time
from flowyml import Pipeline, step
from flowyml.core.schedule import Schedule
from flowyml_prefect import PrefectOrchestrator

@step(outputs=["five"])
def five():
    return 5

orchestrator = PrefectOrchestrator()
made = orchestrator.schedule_pipeline(Pipeline("embedded schedule").add_step(five), Schedule.of("interval", 4))
deadline = time.monotonic() + 240
while not (ended := [run for run in orchestrator.runs("embedded schedule") if run.status.is_terminal]):
    assert time.monotonic() < deadline
    time.sleep(0.5)
orchestrator.delete_schedule(made.schedule_id)
print(json.dumps([str(ended[0].status), orchestrator.outputs(ended[0].job_id)]))
"""

_NEWEST = """
import json
from flowyml_prefect import PrefectOrchestrator

(run,) = PrefectOrchestrator().runs("embedded", limit=1)
print(json.dumps([run.url, run.run_id]))
"""

_DEPLOY = """
from flowyml import Pipeline, step
from flowyml_prefect import PrefectOrchestrator

print(PrefectOrchestrator().deploy_pipeline(Pipeline("looked at").add_step(step(name="five")(lambda: 5))).url)
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

_MANY = """
import json
from flowyml_prefect import PrefectOrchestrator

print(json.dumps([[run.run_id, run.job_id] for run in PrefectOrchestrator().runs("many", limit=200)]))
"""

_WORKER = """
from flowyml_prefect.server import ensure_worker
ensure_worker()
"""

_STOP = "from flowyml_prefect.server import stop_embedded_server; print(stop_embedded_server())"


_ATTACK = """
import json, os, sys, urllib.error, urllib.request

plan = json.load(sys.stdin)

def answer(method, path, body, headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(plan["url"] + path, data, headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as got:
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
    """Where the one server of most tests is, which may be up or not."""
    yield from _made_home()


@pytest.fixture
def home(folder: Path) -> Path:
    """The same with the server and a worker up, and a run that completed: whatever the test before left."""
    if not _is_ready(folder):
        _output(_start(folder, f"{_RUN}{_WORKER}"))
    return folder


def _is_ready(folder: Path) -> bool:
    record = _record(folder) if (folder / "prefect/server.json").exists() else {}
    return all(record.get(who) and is_alive(ProcessIdentity(**record[who])) for who in ("server", "worker"))


@pytest.fixture
def own_home() -> Iterator[Path]:
    """Where a test has a server of its own."""
    yield from _made_home()


def _made_home() -> Iterator[Path]:
    """In a folder that other users can get to, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="flowyml-embedded-"))
    folder.chmod(0o755)
    yield folder
    _output(_start(folder, _STOP))
    shutil.rmtree(folder)


def _record(home: Path) -> Any:
    return json.loads((home / "prefect" / "server.json").read_text())


def _password(home: Path) -> str:
    return (home / "prefect" / "password").read_text().strip()


def _attack(home: Path, headers: Mapping[str, str] = {}, *, user: str | None = None) -> Any:
    """What somebody without the password reaches: of Prefect's API, and of the files."""
    url, prefect = _record(home)["url"], home / "prefect"
    with httpx.Client(base_url=f"{url}/api", auth=tuple(_password(home).split(":"))) as owner:
        (deployment, *_) = owner.post("/deployments/filter", json={}).raise_for_status().json()
        (run, *_) = owner.post("/flow_runs/filter", json={}).raise_for_status().json()
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


def _start(home: Path, code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "FLOWYML_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _output(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.strip(), err


def test_two_processes_that_need_it_at_once_start_one(folder: Path) -> None:
    _output(_start(folder, _STOP))
    outcomes = [_output(process) for process in [_start(folder, _RUN) for _ in range(2)]]
    results = [json.loads(out) for out, _ in outcomes]
    assert [result[:2] for result in results] == [[False, "COMPLETED"]] * 2
    assert len({result[3] for result in results}) == 1
    assert all(result[2].startswith("http://127.0.0.1:") for result in results)
    first_lines = sorted(err.splitlines()[0] for _, err in outcomes)
    assert first_lines[0].startswith("Another process is starting")
    assert first_lines[1].startswith("Starting Prefect at http://127.0.0.1:")


def test_after_a_crash_it_comes_back_at_the_same_address(home: Path) -> None:
    record = _record(home)
    os.killpg(record["server"]["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(ProcessIdentity(**record["server"])))
    without_stderr = f"import sys; sys.stderr = None{_RUN}"
    before, status, _, url = json.loads(_output(_start(home, without_stderr))[0])
    assert (before, status, url) == (False, "COMPLETED", record["url"]), "and nothing else is on standard output"


def test_it_is_used_again_and_a_schedule_brings_a_worker(home: Path) -> None:
    os.killpg(_record(home)["worker"]["pid"], signal.SIGKILL)
    out, err = _output(_start(home, _SCHEDULE))
    assert "Starting Prefect" not in err
    assert json.loads(out) == ["COMPLETED", {"five": 5}]
    record = _record(home)
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
    theirs = httpx.options(f"{url}/api/flow_runs/filter", headers={"Origin": "http://evil.example", **ask})
    own = httpx.options(f"{url}/api/flow_runs/filter", headers={"Origin": url, **ask})
    assert "access-control-allow-origin" not in theirs.headers
    assert own.headers["access-control-allow-origin"] == url


def test_every_page_of_the_api_asks_for_the_password(home: Path) -> None:
    """All that Prefect says it has, with any method; two pages tell whether it is up, and nothing else."""
    url, nothing = _record(home)["url"], str(UUID(int=0))
    with httpx.Client(base_url=f"{url}/api", timeout=120) as anybody:
        paths = anybody.get("/openapi.json", auth=tuple(_password(home).split(":"))).raise_for_status().json()["paths"]
        assert len(paths) > 100
        answers = {
            (method, path): anybody.request(method.upper(), re.sub(r"\{[^}]*\}", nothing, path)).status_code
            for path, methods in paths.items()
            for method in methods
        }
    assert {call for call, status in answers.items() if status != 401} == {("get", "/health"), ("get", "/ready")}


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"])
@pytest.mark.parametrize("token", [None, "", "flowyml:", "guess"])
def test_every_socket_of_the_api_asks_for_the_password(home: Path, path: str, token: str | None) -> None:
    url = _record(home)["url"].replace("http", "ws", 1)

    async def ask(secret: str | None) -> Any:
        async with websockets.connect(f"{url}/api/{path}", subprotocols=[Subprotocol("prefect")], proxy=None) as socket:
            await socket.send(json.dumps({"type": "auth", "token": secret}))
            return json.loads(await socket.recv())

    with pytest.raises(websockets.ConnectionClosedError) as refused:
        asyncio.run(ask(token))
    assert refused.value.rcvd is not None
    assert refused.value.rcvd.code == 1008
    assert asyncio.run(ask(_password(home)))["type"] == "auth_success"


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
    url = _record(home)["url"]
    listed = f"from flowyml.orchestrators.targets import resolve; print(len(resolve({url!r}).runs()) > 0)"
    assert _output(_start(home, listed))[0] == "True"


def test_many_processes_submit_at_once_and_none_fails(home: Path) -> None:
    """SQLite takes one writer: Prefect answered 503 to some, or that its database is locked. Each two ask for the same
    ten runs, of which the server has one each."""
    asked = [[f"many-{pair}-{number}" for number in range(10)] for pair in (1, 1, 2, 2, 3, 3)]
    processes = [_start(home, _SUBMIT_MANY.replace("RUN_IDS", repr(run_ids))) for run_ids in asked]
    submitted = [json.loads(_output(process)[0]) for process in processes]
    assert [list(jobs) for jobs in submitted] == asked
    assert submitted[0::2] == submitted[1::2]
    there = json.loads(_output(_start(home, _MANY))[0])
    assert sorted(there) == sorted([run_id, job] for jobs in submitted[0::2] for run_id, job in jobs.items())


def test_its_owner_signs_in_as_it_is_printed_and_sees_the_run(home: Path, tmp_path: Path) -> None:
    url, run_id = json.loads(_output(_start(home, _NEWEST))[0])
    command = [sys.executable, "-m", "flowyml", "backends", "sign-in", "prefect"]
    done = subprocess.run(
        command, env={**os.environ, "FLOWYML_HOME": str(home)}, capture_output=True, text=True, check=True
    )
    address, shown = done.stdout.splitlines()
    assert url.startswith(f"{address}/runs/flow-run/")
    assert (_password(home) in done.stderr, shown) == (False, f"password: {_password(home)}")
    with browser_page(tmp_path) as page:
        page.goto(url)
        page.get_by_label("Password").or_(page.locator("input[type=password]")).first.fill(shown.partition(": ")[2])
        page.keyboard.press("Enter")
        page.get_by_text(run_id).first.wait_for()
        page.get_by_text("Completed").first.wait_for()
        page.goto(url)
        page.get_by_text(run_id).first.wait_for()  # once is enough
        page.goto(_output(_start(home, _DEPLOY))[0])
        page.get_by_text("looked at").first.wait_for()


@pytest.mark.parametrize(
    ("body", "ui"),
    [(b'{"v2_base_url": "/v2"}', "/v2"), (b"{}", ""), (b"[]", ""), (b"<html>", ""),
     (b" " * 2**20 + b'{"v2_base_url": "/v2"}', "")],
)  # fmt: skip
def test_of_what_another_program_says_of_its_pages_not_much_is_read(body: bytes, ui: str) -> None:
    with web(lambda _: Reply(body=body)) as other:
        assert _newest_ui(other.url) == ui


def test_it_stops_with_its_worker(home: Path) -> None:
    record = _record(home)
    assert _output(_start(home, _STOP))[0] == "True"
    assert [born(record[who]["pid"]) for who in ("server", "worker")] == [None, None]
    assert _output(_start(home, _STOP))[0] == "False"


def test_its_port_is_none_that_clients_are_given() -> None:
    """One of them could have it by the time the server listens."""
    assert 20_000 <= _free_port(0) < 32_768
    assert _free_port(port := _free_port(0)) == port


def _servers(home: Path) -> list[int]:
    """The processes of Prefect's servers whose data is there."""
    return [
        process.pid for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(home / "prefect") and "server" in (process.info["cmdline"] or ())
    ]  # fmt: skip


def _is_recorded(home: Path) -> bool:
    """Whether the record names the server that is running."""
    return (home / "prefect" / "server.json").exists() and _record(home)["server"]["pid"] in _servers(home)


def test_who_is_interrupted_while_it_starts_leaves_no_second_server(own_home: Path) -> None:
    code = "from flowyml_prefect.server import embedded_server; embedded_server()"
    for number in (signal.SIGINT, signal.SIGKILL):
        starting = _start(own_home, code)
        wait_until(lambda: _is_recorded(own_home))
        starting.send_signal(number)
        starting.communicate(timeout=240)
        if number == signal.SIGINT:
            assert _servers(own_home) == []
    (left,) = _servers(own_home)
    _output(_start(own_home, code))
    assert not psutil.pid_exists(left)
    assert _record(own_home)["server"]["pid"] in _servers(own_home)
    _output(_start(own_home, _STOP))
    assert _servers(own_home) == []


def test_a_server_whose_password_others_could_have_read_is_replaced(own_home: Path) -> None:
    _output(_start(own_home, f"{_RUN}{_WORKER}"))
    before, secret = _record(own_home), _password(own_home)
    (own_home / "prefect").chmod(0o755)
    (own_home / "prefect" / "password").chmod(0o644)
    out, err = _output(_start(own_home, _RUN))
    assert json.loads(out)[1] == "COMPLETED"
    assert "whose password is lost" in err
    assert _password(own_home) != secret
    modes = {name: (own_home / "prefect" / name).stat().st_mode & 0o777 for name in ("", "password", "server.json")}
    assert modes == {"": 0o700, "password": 0o600, "server.json": 0o600}
    assert [born(before[who]["pid"]) for who in ("server", "worker")] == [None, None]
