"""Real Airflows for tests, each in its own environment, on 127.0.0.1, and gone after the test.

Their database is PostgreSQL, or SQLite where that is not installed.

``airflow3(tmp)`` and ``airflow2(tmp)`` are context managers. A test may ``stop``, ``kill`` and ``start`` each of the
processes (``api-server``, ``scheduler``, ``dag-processor``; on 2: ``webserver``, ``scheduler``) as it likes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from tests.engines.postgres import Postgres, postgres
from tests.engines.processes import free_port, start_engine
from tests.waiting import wait_until

__all__ = ["PASSWORD", "READER", "USERNAME", "Airflow", "airflow2", "airflow3", "airflow_python", "bare_airflow"]

ROOT = Path(__file__).resolve().parents[2]
USERNAME, PASSWORD = "admin", "admin-of-the-tests"
READER = "reader"  # on Airflow 3 a user with the same password who may change nothing

_COMMANDS = {
    3: {
        "api-server": ["api-server"],
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "dag-processor": ["dag-processor"],
    },
    2: {"webserver": ["webserver"], "scheduler": ["scheduler", "--skip-serve-logs"]},
}
_ASKED_FOR = {"triggerer": ["triggerer", "--skip-serve-logs"]}  # by the few tests whose tasks wait in it


@cache
def airflow_python(major: int) -> Path:
    """The Python of the environment that holds this Airflow, which is made when it is not there."""
    command = [sys.executable, str(ROOT / "scripts/airflow_environment.py"), str(major)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The environment of Airflow {major} cannot be made:\n{done.stdout}{done.stderr}")
    return Path(done.stdout.split()[-1])


@dataclass
class Airflow:
    """An Airflow: how to reach it, and its processes by name."""

    major: int
    home: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    username: str = USERNAME
    password: str = PASSWORD

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def login(self) -> dict[str, str]:
        """The variables that name it, and who asks."""
        values = {"URL": self.url, "USERNAME": self.username, "PASSWORD": self.password}
        return {f"FLOWYML_AIRFLOW_{name}": value for name, value in values.items()}

    @property
    def dags_folder(self) -> Path:
        return self.home / "dags"

    @property
    def python(self) -> Path:
        return airflow_python(self.major)

    @property
    def database_url(self) -> str:
        server = postgres() if self.database else None
        return server.url(self.database) if server else f"sqlite:///{self.home}/airflow.db?timeout=30"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes see. Nothing of this checkout is importable there."""
        foreign = ("AIRFLOW", "PYTHON", "VIRTUAL_ENV", "COVERAGE", "COV_")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        shared = {
            "AIRFLOW_HOME": str(self.home),
            "FLOWYML_AIRFLOW_URL": self.url,  # its workers know where they are
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            "AIRFLOW__CORE__FERNET_KEY": _FERNET_KEY,
            "AIRFLOW__CORE__PARALLELISM": "4",
            # By default a file that takes 30 seconds to import fails its task, and one of 50 is not found at all.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "1000",
            "AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT": "1000",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "1000",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
            # Half of the default. With 0.2, a scheduler and its database take a tenth of a processor without work.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "PATH": f"{self.python.parent}{os.pathsep}{ours.get('PATH', '')}",
        }
        return {**ours, **shared, **(_settings3(self) if self.major == 3 else _settings2(self)), **self.settings}

    def command(self, *arguments: str, timeout: float = 2400, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``airflow …`` to its end."""
        return self.execute(str(self.python.with_name("airflow")), *arguments, timeout=timeout, check=check)

    def execute(self, *command: str, timeout: float = 2400, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run any command in Airflow's environment."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} gave {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )
        return done

    def start(self, name: str) -> None:
        """Start one process, in a process group of its own; its output goes to ``home/NAME.log``.

        It is started again when it ends by itself, as systemd or Kubernetes would.
        """
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = start_engine(
                [str(self.python.with_name("airflow")), *{**_COMMANDS[self.major], **_ASKED_FOR}[name]],
                env=self.environment, cwd=self.home, log=log, again=True,
            )  # fmt: skip

    def stop(self, name: str) -> None:
        """End one process politely, and what it started with it."""
        self._end(name, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End one process as a power cut would (kill -9), and what it started with it."""
        self._end(name, signal.SIGKILL)

    def kill_all(self) -> None:
        """End what still runs; nothing needs what a polite end takes seconds to write."""
        for name in reversed(list(self.processes)):
            self.kill(name)

    def _end(self, name: str, number: int) -> None:
        process = self.processes.pop(name)
        family = _family(process.pid)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.kill()  # an API server may wait for its clients
        process.wait(60)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def health(self) -> dict[str, str]:
        """Each component's own word: ``{"scheduler": "healthy", …}``; empty while there is no answer."""
        page = "/api/v2/monitor/health" if self.major == 3 else "/health"
        try:
            with urllib.request.urlopen(self.url + page, timeout=5) as answer:
                parts = json.load(answer)
        except (OSError, ValueError):
            return {}
        return {name: part["status"] for name, part in parts.items() if isinstance(part, dict)}

    def wait_until_healthy(self) -> None:
        wanted = {"metadatabase", "scheduler"} | ({"dag_processor"} if self.major == 3 else set())
        try:
            wait_until(lambda: all(self.health().get(name) == "healthy" for name in wanted), every=0.5)
        except TimeoutError as error:
            logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.processes)
            raise TimeoutError(f"Airflow is not healthy: {self.health()}\n{logs}") from error


def bare_airflow(major: int, home: Path, settings: Mapping[str, str] = {}, *, database: str = "") -> Airflow:
    """An Airflow without servers, for loading DAG files. ``database`` is the name of one on PostgreSQL, with tables."""
    airflow = Airflow(major, home, free_port(), settings=settings, database=database)
    airflow.dags_folder.mkdir(parents=True, exist_ok=True)
    (home / "passwords.json").write_text(json.dumps({USERNAME: PASSWORD, READER: PASSWORD}))
    (home / "airflow.cfg").touch()  # each of the processes would write one, with a key of its own
    return airflow


@contextmanager
def airflow3(tmp: Path, settings: Mapping[str, str] = {}) -> Iterator[Airflow]:
    """A running Airflow 3 with the LocalExecutor. ``settings`` are more environment variables."""
    with _running(_with_database(3, tmp / "airflow3", settings)) as airflow:
        yield airflow


@contextmanager
def airflow2(tmp: Path, settings: Mapping[str, str] = {}) -> Iterator[Airflow]:
    """A running Airflow 2.11 with basic auth, and the LocalExecutor, or on SQLite the SequentialExecutor."""
    with _running(_with_database(2, tmp / "airflow2", settings)) as airflow:
        yield airflow


def _with_database(major: int, home: Path, settings: Mapping[str, str]) -> Airflow:
    """On PostgreSQL, or on SQLite where that is not installed."""
    airflow = bare_airflow(major, home, settings, database=_new_database(major))
    if not airflow.database:
        airflow.command("db", "migrate")
        if major == 2:
            _add_user(airflow)
    return airflow


@contextmanager
def _running(airflow: Airflow) -> Iterator[Airflow]:
    try:
        for name in _COMMANDS[airflow.major]:
            airflow.start(name)
        airflow.wait_until_healthy()
        yield airflow
    finally:
        airflow.kill_all()


def _settings3(airflow: Airflow) -> dict[str, str]:
    # A file that is new or changed is read within a second; the others not all the time, which takes most of a core.
    quick = ("REFRESH_INTERVAL", "BUNDLE_REFRESH_CHECK_INTERVAL", "PARSING_PROCESSES")
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin,{READER}:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow.home / "passwords.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow.url}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(airflow.port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": airflow.url,
        "AIRFLOW__API__EXPOSE_CONFIG": "non-sensitive-only",
        "AIRFLOW__API__SECRET_KEY": _SECRET,
        "AIRFLOW__API_AUTH__JWT_SECRET": _SECRET,
        **{f"AIRFLOW__DAG_PROCESSOR__{name}": "1" for name in quick},
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "900",
        "AIRFLOW__DAG_PROCESSOR__FILE_PARSING_SORT_MODE": "modified_time",
        # A worker learns within three seconds that its task was stopped, and bears a silent server as long as by
        # default. With one second, a fifth of all that the API server answers are heartbeats.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "5",
        # By default a worker waits 5 s for an answer of the API server, and the start of a task that is sent once more
        # is refused: the task fails, on a busy machine.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "600",
    }


def _settings2(airflow: Airflow) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor" if airflow.database else "SequentialExecutor",
        "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
        "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
        "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(airflow.port),
        "AIRFLOW__WEBSERVER__WORKERS": "1",
        # Its monitor may take another child of a starting server for a worker. When that child is gone, it wants two
        # workers, and by default ends a server that has one after two minutes: a busy machine's, just when it answers.
        "AIRFLOW__WEBSERVER__WEB_SERVER_MASTER_TIMEOUT": "100000",
        "AIRFLOW__WEBSERVER__BASE_URL": airflow.url,
        "AIRFLOW__WEBSERVER__SECRET_KEY": _SECRET,
        "GUNICORN_CMD_ARGS": "--no-control-socket",  # it would lie in the user's home, one for all webservers
        # A process that reads a file may hang, and is ended after 50 s: the file is read again before tests give it up.
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "120",
        "AIRFLOW__SCHEDULER__FILE_PARSING_SORT_MODE": "modified_time",
        "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "1",
        "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
    }


def _add_user(airflow: Airflow) -> None:
    """The one of the tests, on Airflow 2."""
    airflow.command(
        "users", "create", "--username", USERNAME, "--password", PASSWORD, "--role", "Admin",
        "--firstname", "A", "--lastname", "B", "--email", "a@example.org",
    )  # fmt: skip
    _make_cheap(airflow)


def _make_cheap(airflow: Airflow) -> None:
    """Airflow 2 checks the password at each request, for 0.1 s of a processor: the tests' one needs no strong hash."""
    digest = hashlib.pbkdf2_hmac("sha256", airflow.password.encode(), b"salt", 1).hex()
    statement = f"UPDATE ab_user SET password = 'pbkdf2:sha256:1$salt${digest}'"  # the digest is ours
    server = postgres() if airflow.database else None
    if server:
        server.execute(airflow.database, statement)
    else:
        with closing(sqlite3.connect(airflow.home / "airflow.db")) as database, database:
            database.execute(statement)


def _new_database(major: int) -> str:
    """One on PostgreSQL with all tables of an Airflow, and with the user of the tests; empty where there is none."""
    server = postgres()
    return server.new_database(_template(server, major)) if server else ""


@cache
def _template(server: Postgres, major: int) -> str:
    """What new databases are copies of: to make the tables takes six seconds of a processor, and the user four."""
    name = server.new_database()
    with tempfile.TemporaryDirectory(prefix="flowyml-airflow-") as home:
        airflow = Airflow(major, Path(home), free_port(), database=name)
        airflow.command("db", "migrate")
        if major == 2:
            _add_user(airflow)
    return name


_SECRET = secrets.token_hex(48)
_FERNET_KEY = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []
