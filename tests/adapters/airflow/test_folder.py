"""DAGs folders by URL: on a real SFTP server in this process, and on moto's server, which is a fake of S3."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.errors import ConfigurationError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.folder import Folder, open_folder
from tests.adapters.airflow.operating import orchestrator_of, short
from tests.engines.airflow import Airflow
from tests.engines.s3 import fake_s3

PASSWORD = "secret-word"
MANY = 20


@dataclass
class Sftp:
    """An SFTP server that shows one folder."""

    loop: asyncio.AbstractEventLoop
    port: int = 0
    connections: list[Any] = field(default_factory=list)

    def url(self, path: str, password: str = PASSWORD) -> str:
        return f"sftp://deployer:{password}@127.0.0.1:{self.port}{path}"

    def hang_up(self) -> None:
        """Close all connections, as a server does with those that were silent for long."""
        closed = threading.Event()

        def abort() -> None:
            while self.connections:
                self.connections.pop().abort()
            closed.set()

        self.loop.call_soon_threadsafe(abort)
        assert closed.wait(2400)


@contextmanager
def sftp_server(root: Path) -> Iterator[Sftp]:
    import asyncssh

    site = Sftp(asyncio.new_event_loop())

    class Server(asyncssh.SSHServer):
        def connection_made(self, connection: Any) -> None:
            site.connections.append(connection)

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("deployer", PASSWORD)

    async def listen() -> Any:
        return await asyncssh.create_server(
            Server, "127.0.0.1", 0, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(root).encode()),
        )  # fmt: skip

    thread = threading.Thread(target=site.loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(listen(), site.loop).result(2400)
        site.port = server.get_port()
        yield site
        site.hang_up()
        site.loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), site.loop).result(2400)
    finally:
        site.loop.call_soon_threadsafe(site.loop.stop)
        thread.join()
        site.loop.close()


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    (tmp_path / "server/dags").mkdir(parents=True)
    with sftp_server(tmp_path / "server") as site:
        yield site


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of moto's server with the empty bucket ``dags``."""
    import boto3

    with fake_s3("dags") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        yield client
        client.close()


def opened(url: str) -> Folder:
    folder = open_folder(url)
    assert folder is not None
    return folder


def never_seen_in_parts(write: Callable[[bytes], None], read: Callable[[], bytes | None]) -> None:
    """A file that is written many times over, while another reads it: each time it is one or the other."""
    versions = [bytes([letter]) * 100_000 for letter in b"ab"]
    write(versions[0])
    seen: list[bytes | None] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(read())
            time.sleep(0.001)  # the server is in this process, too

    thread = threading.Thread(target=look)
    thread.start()
    try:
        number = 0
        while number < MANY or (len(seen) <= MANY / 4 and thread.is_alive()):
            write(versions[number % 2])
            number += 1
    finally:
        done.set()
        thread.join()
    assert len(seen) > MANY / 4
    assert [content for content in seen if content not in versions] == []


@dataclass
class Place:
    """A folder by its URL, and what another sees there."""

    url: str
    read: Callable[[str], bytes]
    names: Callable[[], list[str]]


@pytest.fixture(params=["sftp", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    there = request.getfixturevalue(request.param)
    if request.param == "sftp":
        dags = tmp_path / "server/dags"
        files = dags.rglob
        return Place(
            there.url("/dags"), lambda name: (dags / name).read_bytes(),
            lambda: [str(path.relative_to(dags)) for path in files("*") if path.is_file()],
        )  # fmt: skip
    return Place(
        "s3://dags/team", lambda name: bytes(there.get_object(Bucket="dags", Key=f"team/{name}")["Body"].read()),
        lambda: [file["Key"][5:] for file in there.list_objects_v2(Bucket="dags", Prefix="team/").get("Contents", ())],
    )  # fmt: skip


def test_files(place: Place) -> None:
    folder = opened(place.url)
    assert PASSWORD not in folder.name
    assert folder.read("sub/a.py") is None
    folder.write("sub/a.py", b"one")
    folder.write("sub/a.py", b"two")
    assert folder.read("sub/a.py") == place.read("sub/a.py") == b"two"
    assert place.names() == ["sub/a.py"]
    folder.remove("sub/a.py")
    folder.remove("sub/a.py")
    assert place.names() == []


def test_files_are_never_seen_in_parts(place: Place) -> None:
    folder = opened(place.url)
    never_seen_in_parts(lambda data: folder.write("a.py", data), lambda: place.read("a.py"))


def test_a_connection_that_was_lost_is_made_anew(sftp: Sftp) -> None:
    folder = opened(sftp.url("/dags"))
    folder.write("a.py", b"one")
    sftp.hang_up()
    assert folder.read("a.py") == b"one"
    sftp.hang_up()
    folder.write("a.py", b"two")
    assert folder.read("a.py") == b"two"


@pytest.mark.parametrize(
    ("path", "password", "port", "message"),
    [
        ("/dags", "wrong-word", None, "Authentication failed"),
        ("/no/such", PASSWORD, None, "is not a folder"),
        ("/dags", PASSWORD, 9, "cannot be written"),
    ],
)
def test_a_folder_on_sftp_that_cannot_be_used(
    sftp: Sftp, path: str, password: str, port: int | None, message: str
) -> None:
    """Making an orchestrator asks no server, so that runs can be read without it."""
    url = sftp.url(path, password).replace(f":{sftp.port}/", f":{port or sftp.port}/")
    folder = AirflowOrchestrator("http://127.0.0.1:9", dags_folder=url)._deployer.folder
    assert folder is not None
    shown = f"sftp://127.0.0.1:{port or sftp.port}{path}"
    with pytest.raises(ConfigurationError, match=f"dags_folder='{shown}' .*{message}") as caught:
        folder.write("a.py", b"one")
    assert password not in str(caught.value)


def test_a_remote_folder_shows_no_credentials() -> None:
    assert opened("memory://user:secret@bucket/dags").name == "memory://bucket/dags"
    assert opened("sftp://user:12/34@host/dags").name == "sftp://host/dags"


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "se?cret", "se[cret"])
@pytest.mark.parametrize("scheme", ["sftp", "s3", "unheard-of"])
def test_a_password_that_no_url_takes_is_not_shown(scheme: str, password: str) -> None:
    with pytest.raises(ConfigurationError, match=f"dags_folder='{scheme}://host/dags': .* a URL cannot hold") as caught:
        opened(f"{scheme}://user:{password}@host/dags")
    assert not any(part in str(caught.value) for part in ("user:", "cret"))


def test_a_password_that_a_library_repeats_is_not_shown(s3: Any) -> None:
    """s3fs takes user and password for a part of the bucket's name, and says so."""
    with pytest.raises(ConfigurationError, match="dags_folder='s3://dags/team' cannot be written") as caught:
        opened("s3://KEY:secret@dags/team").write("a.py", b"one")
    assert "secret" not in str(caught.value)


def test_a_password_of_any_kind_comes_from_the_configuration(sftp: Sftp, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.config

    monkeypatch.setitem(fsspec.config.conf, "sftp", {"username": "deployer", "password": PASSWORD})
    folder = opened(f"sftp://127.0.0.1:{sftp.port}/dags")
    folder.write("a.py", b"one")
    assert folder.read("a.py") == b"one"


def test_a_bucket_that_is_not_there_is_not_made(s3: Any) -> None:
    with pytest.raises(ConfigurationError, match="dags_folder='s3://dagz/team' is not a folder"):
        opened("s3://dagz/team").write("a.py", b"one")
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["dags"]


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_a_run_by_way_of_sftp(airflow3: Airflow) -> None:
    """A real Airflow, whose DAGs folder is reached over SFTP only."""
    with sftp_server(airflow3.home) as site:
        orchestrator = orchestrator_of(airflow3, dags_folder=site.url("/dags"))
        for answer in (1, 2):
            handle = orchestrator.run_pipeline(short("folder sftp", answer=answer))
            assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED
            assert handle.outputs == {"answer": answer}
        assert orchestrator.deploy_pipeline(short("folder sftp", answer=2)).changed is False


def test_a_url_of_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "our dags").mkdir()
    uri = (tmp_path / "our dags").as_uri()
    for place in (uri, uri.replace("file:///", "file://localhost/")):
        folder = open_folder(place)
        assert folder is not None
        folder.write("a.py", b"one")
        assert (tmp_path / "our dags" / "a.py").read_bytes() == b"one"
        folder.remove("a.py")
