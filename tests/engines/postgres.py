"""A PostgreSQL of the tests, for engines with many writers, which on SQLite find it locked now and then."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.engines.processes import end_engine, free_port, start_engine

__all__ = ["Postgres", "postgres"]

_USER = "engines"
# Nothing outlives the tests, so nothing has to survive a power cut.
_SETTINGS = {
    "listen_addresses": "127.0.0.1", "max_connections": "300", "fsync": "off", "full_page_writes": "off",
    "synchronous_commit": "off",
}  # fmt: skip


@dataclass(frozen=True)
class Postgres:
    """A running server on 127.0.0.1."""

    programs: Path
    port: int
    password: str

    def new_database(self, template: str = "template1") -> str:
        """Make a database that is a copy of another, by default empty, and give its name."""
        name = f"engine_{secrets.token_hex(8)}"
        self._run("createdb", f"--template={template}", name)
        return name

    def execute(self, database: str, statement: str) -> None:
        """Run one statement of SQL."""
        self._run("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--command={statement}", database)

    @contextmanager
    def locked(self, database: str, table: str) -> Iterator[None]:
        """Keep everything waiting that writes to a table."""
        command = [self.programs / "psql", "--quiet", database]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        ) as session:  # which ends, and the lock with it, when its input does
            assert session.stdin is not None
            assert session.stdout is not None
            print(f"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE; \\echo locked", file=session.stdin, flush=True)
            assert session.stdout.readline() == "locked\n"
            yield

    def url(self, database: str, driver: str = "psycopg2") -> str:
        """What SQLAlchemy connects to."""
        return f"postgresql+{driver}://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self.programs / program, *arguments], env=self._environment, check=True, timeout=2400)

    @property
    def _environment(self) -> dict[str, str]:
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": _USER, "PGPASSWORD": self.password}
        return {**os.environ, **where}


@cache
def postgres() -> Postgres | None:
    """The one server of this process, which ends with it. None where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        return None
    home = Path(tempfile.mkdtemp(prefix="flowyml-postgres-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    as_user = _without_root(home)
    password = secrets.token_hex(16)
    secret = home / "password"
    secret.write_text(password)
    subprocess.run(
        [*as_user, programs / "initdb", "--auth=scram-sha-256", f"--username={_USER}", f"--pwfile={secret}",
         "--encoding=UTF8", "--no-locale", "--no-sync", "--pgdata", home / "data"],
        check=True, capture_output=True, timeout=2400,
    )  # fmt: skip
    port = free_port()
    options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    with (home / "log").open("wb") as log:
        server = start_engine(
            [*map(str, as_user), str(programs / "postgres"), "-D", str(home / "data"), "-p", str(port), "-k", str(home),
             *options], log=log, cwd=home,
        )  # fmt: skip
    atexit.register(end_engine, server)
    deadline = time.monotonic() + 240
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL does not start:\n{(home / 'log').read_text(errors='replace')}")
        time.sleep(0.1)
    return Postgres(programs, port, password)


def _programs() -> Path | None:
    """Where the server's programs are: Debian keeps them off the PATH, in a folder for each release."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


def _without_root(home: Path) -> list[str]:
    """What starts a command as another user where root runs the tests, since PostgreSQL refuses to serve as root."""
    if os.geteuid() != 0:
        return []
    shutil.chown(home, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
