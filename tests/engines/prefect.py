"""A real Prefect for tests: server and workers on 127.0.0.1, on PostgreSQL or SQLite, and gone after the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.engines.postgres import Postgres
from tests.engines.processes import end_engine, free_port, start_engine
from tests.waiting import wait_until

__all__ = ["PrefectServer", "prefect_server"]

_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_CLI_PROMPT": "false",
    # By default a connection of five seconds is an error, and a statement of ten: too little if the machine stalls.
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "600",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "600",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_TIMEOUT": "600",
}


@dataclass
class PrefectServer:
    """A server that a test may kill and start again, with a database of its own. ``settings`` are further environment
    variables.
    """

    home: Path
    port: int
    database_url: str
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where people look at it; the API is at ``/api`` below."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process of this Prefect needs."""
        return {
            **os.environ, **_SETTINGS, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database_url, **self.settings,
        }  # fmt: skip

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = self._run("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_until(self._is_up)

    def _is_up(self) -> bool:
        """Raises ``RuntimeError`` with the end of its log once the process has ended."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError((self.home / "server.log").read_text(errors="replace")[-3000:])
        return self._has("health")

    def _has(self, path: str) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/api/{path}", timeout=60) as response:
            return bool(response.status == 200)
        return False

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        end_engine(self.process, signal.SIGKILL)

    @contextmanager
    def worker(self, pool: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker that runs what comes to a pool of processes, which it makes if need be."""
        process = self._run(f"worker-{pool}", "worker", "start", "--pool", pool, "--type", "process",
                            "--name", pool, "--install-policy", "never")  # fmt: skip
        self.workers.append(process)
        try:
            wait_until(lambda: self._has(f"work_pools/{pool}"))
            yield process
        finally:
            self.workers.remove(process)
            end_engine(process)

    def _run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "prefect", *arguments]
            return start_engine(command, env=self.environment, cwd=self.home, log=log)


@contextmanager
def prefect_server(tmp: Path, server: Postgres | None = None, **settings: str) -> Iterator[PrefectServer]:
    """A server with its own home in ``tmp``, and a new database on a PostgreSQL, or SQLite as Prefect has by itself.

    ``settings`` are environment variables of Prefect.
    """
    home = tmp / "prefect"
    url = server.url(server.new_database(), "asyncpg") if server else f"sqlite+aiosqlite:///{home / 'prefect.db'}"
    prefect = PrefectServer(home, free_port(), url, settings)
    try:
        prefect.start()
        yield prefect
    finally:
        for process in (*prefect.workers, prefect.process):
            if process is not None:
                end_engine(process)
