"""The embedded Prefect: a server of the user's own on SQLite, started at first use and then left running.

It is Prefect's own ``prefect server start``, detached, on 127.0.0.1 and a free port, with its database, its log and the
record of its process in ``home()/prefect``. Only its owner can use it: other users of the machine and web pages lack
its password, which is random, in a file that only its owner can read. The server requires it in each call
(``PREFECT_SERVER_API_AUTH_STRING``), and its UI once in each browser, which remembers it; so each start makes a new
password, unless a process still reports with the old one. The server, the worker and the processes of runs get it in
their environment, and it is in no command line.

All processes of this user share the server; a lock makes sure that two processes that need it at once start one server.
Scheduled runs need a worker, so the first schedule also starts a Prefect worker for the work pool ``flowyml``. Both run
until ``stop_embedded_server()``, or until the machine stops; when the server is started again, so is the worker, if it
had one.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO

from flowyml.core.errors import EngineError
from flowyml.core.files import end_of, write_whole
from flowyml.core.following import say
from flowyml.core.home import home, open_private, private_folder
from flowyml.core.locks import lock
from flowyml.core.process_identity import (
    ProcessIdentity,
    await_ends,
    identity_of,
    is_alive,
    signal_group,
    started_with,
)
from flowyml.orchestrators.background import start_detached
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection, auth_of

__all__ = [
    "POOL", "EmbeddedServer", "embedded_server", "ensure_worker", "is_embedded", "one_writer", "prefect_home",
    "server_name", "stop_embedded_server", "write_privately",
]  # fmt: skip

POOL = "flowyml"
"""The work pool whose worker executes scheduled runs on the embedded server."""

_OLDEST_RELEASE = (3, 6, 22)
_USER = "flowyml"
_EMBEDDED = "embedded"
_STARTS_WITHIN = 300
_LONGEST_TURN_SECONDS = 30
_LISTENERS = Path("/proc/net/tcp")
# Below the ports that systems give to clients: such a port could be taken in the seconds before the server listens
# (sources: Linux, Documentation/networking/ip-sysctl.rst, ip_local_port_range; macOS, net.inet.ip.portrange.first).
_PORTS = range(20_000, 32_768)
_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "true",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_CLI_PROMPT": "false",
}
_SHARED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "NO_PROXY", "no_proxy", "FLOWYML_HOME", "FLOWYML_ALLOW_PICKLE", "FLOWYML_FORK", "FLOWYML_TRUSTED_FOLDERS",
})  # fmt: skip
_SHARED_PREFIXES = (
    "LC_",
    "XDG_",
    "PYTHON",
    "CONDA_",
    "CUDA_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "COVERAGE_",
    "COV_CORE_",
)


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """The recorded server, and its worker if it has one."""

    url: str
    server: ProcessIdentity
    worker: ProcessIdentity | None = None
    ui: str = ""
    """The path of the UI whose pages ask for the password, instead of showing an error."""
    is_starting: bool = False
    """True until the server answers.

    If the process that started it was killed before, the next one stops the server.
    """

    @property
    def connection(self) -> Connection:
        secret = _password(prefect_home())
        return Connection(f"{self.url}/api", auth_of(secret, is_password=True), ui=self.url + self.ui)

    @property
    def has_password(self) -> bool:
        """False if the file of the password is lost, or others could have read it."""
        return self.connection.password is not None


def server_name(connection: Connection) -> str:
    """Return the name of a server in the folders of its flows; the embedded one keeps it when its port changes."""
    record = _read_record()
    return _EMBEDDED if record and record.connection.api_url == connection.api_url else connection.api_url


def is_embedded(name: str) -> bool:
    """Return whether this is the embedded server's name from ``server_name``."""
    return name == _EMBEDDED


def prefect_home() -> Path:
    return home() / "prefect"


def embedded_server(*, start: bool = True) -> EmbeddedServer | None:
    """Return the embedded server.

    It is started if it is not running, which takes some ten seconds and is announced on stderr.

    With ``start=False``, None if it is not running. A server whose password is lost counts as not running, and is
    replaced. Raises ``EngineError`` if it cannot be started, also for a Prefect that would answer without the password.
    """
    record = _usable(_read_record())
    if record is not None or not start:
        return record
    _check_release(version("prefect"))
    with _lock():
        before = _read_record()
        if (record := _usable(before)) is not None:
            return record
        if before is not None and before.is_starting:
            _stop(before.server)
        elif before is not None and is_alive(before.server):
            _stop_without_password(before)
        return _start(before)


def ensure_worker() -> None:
    """Start a worker of the embedded server's pool ``flowyml``, unless one is running."""
    with _lock():
        record = _usable(_read_record())
        if record is None:
            raise EngineError("The embedded Prefect has stopped. Try again: it is started when it is needed.")
        if record.worker is None or not is_alive(record.worker):
            _write_record(_start_worker(record))


@contextmanager
def one_writer() -> Iterator[None]:
    """Let only one of this user's processes write at a time: on SQLite, Prefect answers 503 when two writes collide.

    The kernel queues the processes, so that none starves: when eight processes polled for a lock, one waited for a
    minute. If a process takes half a minute, as one that was stopped does, the next one continues without the lock.
    """
    file = open_private(private_folder(prefect_home()) / "turn", "a")
    if lock(file.fileno()) is not False:
        with file:
            yield
        return
    mine, done = threading.Event(), threading.Event()
    threading.Thread(target=_queue, args=(file, mine, done), name="flowyml-turn", daemon=True).start()
    try:
        mine.wait(_LONGEST_TURN_SECONDS)
        yield
    finally:
        done.set()


def _queue(file: IO[str], mine: threading.Event, done: threading.Event) -> None:
    """Wait for the lock in a thread of its own, since the wait cannot be interrupted; hold it until ``done``."""
    with file:
        lock(file.fileno(), wait=None)
        mine.set()
        done.wait()


def stop_embedded_server() -> bool:
    """Stop the worker and the server. Return False if neither was running.

    Their data stays on disk. Active runs continue, and report when the server runs again.
    """
    with _lock():
        record = _read_record()
        if record is None:
            return False
        worker_stopped = record.worker is not None and _stop(record.worker)
        return _stop(record.server) or worker_stopped


def _check_release(release: str) -> None:
    """Refuse a Prefect before 3.6.22: a ``Host`` header of ``x/health?`` makes it answer without the password."""
    if tuple(map(int, re.findall(r"\d+", release)[:3])) < _OLDEST_RELEASE:
        wanted = ".".join(map(str, _OLDEST_RELEASE))
        raise EngineError(
            f"Prefect {release} would answer other users of this machine without the password, so FlowyML does not "
            f"start it: pip install 'prefect>={wanted}', or name a server of yours with PREFECT_API_URL."
        )


def _start(before: EmbeddedServer | None) -> EmbeddedServer:
    port = _free_port(int(before.url.rpartition(":")[2]) if before else 0)  # runs under way know the old one
    url = f"http://127.0.0.1:{port}"
    say(f"Starting Prefect at {url} (takes some 10 s, once; `flowyml backends stop prefect` ends it) …")
    private_folder(prefect_home())
    worker = before.worker if before else None
    secret = _password(prefect_home()) if before and before.url == url else None
    if secret is None or not _is_in_use(secret, worker):
        secret = _make_password(prefect_home())
        if worker is not None:
            _stop(worker)  # it knows neither the new password nor, maybe, the new address
    process = _start_command(
        "server", "server", "start", "--host", "127.0.0.1", "--port", str(port), umask=0o077, settings={
            "PREFECT_SERVER_API_AUTH_STRING": secret,
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": url,
            "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        },
    )  # fmt: skip
    record = EmbeddedServer(url, identity_of(process.pid), worker, is_starting=True)
    try:
        _write_record(record)
        _await_health(record, process)
        record = replace(record, ui=_newest_ui(url), is_starting=False)
        if worker is not None and not is_alive(worker):
            record = _start_worker(record)
        _write_record(record)
    except BaseException:  # Ctrl-C too: a server without a record would run forever
        _stop(record.server)
        if record.worker is not None and record.worker != worker:
            _stop(record.worker)
        raise
    say(f"Prefect is ready: {url}{record.ui} (`flowyml backends sign-in prefect` shows its password)")
    return record


def _newest_ui(url: str) -> str:
    """Return the path of Prefect 3.9's newer UI. Without a login, pages of the older one say "Page not found"."""
    from http.client import HTTPException

    from flowyml.core.web import exchange

    with suppress(OSError, HTTPException):
        settings = exchange(f"{url}/ui-settings", timeout=10, limit=2**20).json()
        return str(settings.get("v2_base_url") or "") if isinstance(settings, dict) else ""
    return ""


def _stop_without_password(record: EmbeddedServer) -> None:
    say(f"Stopping Prefect at {record.url}, whose password is lost or was readable by others …")
    if record.worker is not None:
        _stop(record.worker)
    _stop(record.server)


def _start_worker(record: EmbeddedServer) -> EmbeddedServer:
    client = PrefectClient(record.connection)
    try:
        client.ensure_process_pool(POOL)
    finally:
        client.close()
    process = _start_command(
        "worker", "worker", "start", "--pool", POOL, "--name", "flowyml", "--install-policy", "never",
        settings=record.connection.environment,
    )  # fmt: skip
    return replace(record, worker=identity_of(process.pid))


def _start_command(name: str, *arguments: str, settings: Mapping[str, str], umask: int = -1) -> subprocess.Popen[bytes]:
    """Start a command of Prefect's as a process that outlives this one, with an environment of its own."""
    folder = prefect_home()
    database = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    environment = {
        **_shared_environment(),
        **_SETTINGS,
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        **settings,
    }
    with open_private(folder / f"{name}.log", "ab") as log:
        command = [sys.executable, "-P", "-m", "prefect", *arguments]
        return start_detached(command, log, cwd=folder, env=environment, umask=umask)


def _shared_environment() -> dict[str, str]:
    """Return the part of this environment for a process that runs steps of all pipelines, without credentials."""
    return {name: value for name, value in os.environ.items() if name in _SHARED or name.startswith(_SHARED_PREFIXES)}


def _await_health(record: EmbeddedServer, process: subprocess.Popen[bytes]) -> None:
    """Wait for the server. Ask only when this user's process listens: another user's process would get the password."""
    client = PrefectClient(record.connection, timeout=5)
    deadline = time.monotonic() + _STARTS_WITHIN
    try:
        while not (_listens_as_this_user(record.url) and client.is_healthy()):
            if process.poll() is not None or time.monotonic() > deadline:
                log = end_of(prefect_home() / "server.log", 3000).decode(errors="replace") or "(its log is empty)"
                raise EngineError(f"The embedded Prefect did not start. The end of its log:\n{log}")
            time.sleep(0.1)
    finally:
        client.close()


def _stop(leader: ProcessIdentity) -> bool:
    """End a process group: SIGTERM, ten seconds, SIGKILL."""
    if not is_alive(leader):
        return False
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        signal_group(leader, number)
        if await_ends([leader], seconds):
            return True
    return True


def _usable(record: EmbeddedServer | None) -> EmbeddedServer | None:
    is_ready = record is not None and not record.is_starting and is_alive(record.server) and record.has_password
    return record if is_ready else None


def _read_record() -> EmbeddedServer | None:
    try:
        plain = json.loads(_record_path().read_text("utf-8"))
        worker = ProcessIdentity(**plain["worker"]) if plain["worker"] else None
        server = ProcessIdentity(**plain["server"])
        return EmbeddedServer(plain["url"], server, worker, plain["ui"], plain["is_starting"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write_record(record: EmbeddedServer) -> None:
    write_privately(_record_path(), json.dumps(asdict(record)))


def _record_path() -> Path:
    return prefect_home() / "server.json"


def _free_port(preferred: int) -> int:
    for port in (*([preferred] if preferred else ()), *random.sample(_PORTS, 20), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EngineError("No free port on 127.0.0.1 for the embedded Prefect.")


def _listens_as_this_user(url: str) -> bool:
    """Return whether a process of this user listens at 127.0.0.1 and the port of a URL; True without Linux's table."""
    address = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
    place = f"{address:08X}:{int(url.rpartition(':')[2]):04X}"
    try:
        rows = [line.split() for line in _LISTENERS.read_text("ascii").splitlines()[1:]]
    except OSError:
        return True
    # Local address, state (0A is LISTEN) and user. Source: Linux, Documentation/networking/proc_net_tcp.rst
    return any(row[1] == place and row[3] == "0A" and int(row[7]) == os.geteuid() for row in rows)


@contextmanager
def _lock() -> Iterator[None]:
    private_folder(prefect_home())
    with open_private(prefect_home() / "lock", "w") as file:
        if lock(file.fileno()) is False:
            say("Another process is starting or stopping Prefect; waiting for it …")
            lock(file.fileno(), wait=None)
        yield


def _password(folder: Path) -> str | None:
    """Return ``user:password`` for Prefect; None if the file is missing, or others could have read it."""
    try:
        with (folder / "password").open(encoding="ascii") as file:
            return (file.read().strip() or None) if not os.fstat(file.fileno()).st_mode & 0o077 else None
    except FileNotFoundError:
        return None


def _is_in_use(secret: str, worker: ProcessIdentity | None) -> bool:
    """Return whether a process other than the worker uses a password, as a run does. True if that is unknown."""
    if sys.platform != "linux":
        return True
    bearers = started_with(f"PREFECT_API_AUTH_STRING={secret}".encode())
    return any(worker is None or pid != worker.pid for pid in bearers)


def _make_password(folder: Path) -> str:
    """Create a password and write it to ``folder``, in place of an older one."""
    account = f"{_USER}:{secrets.token_urlsafe(32)}"
    write_privately(folder / "password", account + "\n")
    return account


def write_privately(path: Path, text: str) -> None:
    """Write a file at once, which only its owner can read from the start."""
    write_whole(path, text.encode(), 0o600)
