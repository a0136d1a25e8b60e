"""A folder that names a Prefect gets no login of its owner, and changes nothing for the server that the owner names;
other users of the machine gain nothing from the embedded one, or from the process of a run.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from flowyml.core.errors import ConfigurationError, EngineError
from flowyml.core.settings import TRUSTED
from flowyml_prefect import server
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection, auth_of
from flowyml_prefect.engine_process import ControlChannel
from tests.waiting import wait_until

STRANGER = "http://stranger:4200/api"
PROFILE = """
active = "mine"
[profiles.mine]
PREFECT_API_KEY = "pnu_planted"
PREFECT_CLIENT_CUSTOM_HEADERS = '{"X-Gate": "planted"}'
"""
FOLDER = {
    ".env": f"PREFECT_API_URL={STRANGER}\n",
    "prefect.toml": f'[api]\nurl = "{STRANGER}"\n',
    "pyproject.toml": f'[tool.prefect.api]\nurl = "{STRANGER}"\n',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; the owner's profile is elsewhere."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


@pytest.mark.parametrize("where", ["environment", "profile"])
@pytest.mark.parametrize("file", FOLDER)
def test_a_server_that_a_folder_names_gets_no_login(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, where: str
) -> None:
    (folder / file).write_text(FOLDER[file])
    if where == "profile":
        (folder.parent / "home" / "profiles.toml").write_text(PROFILE)
    else:
        monkeypatch.setenv("PREFECT_API_KEY", "pnu_planted")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:planted")
        monkeypatch.setenv("PREFECT_CLIENT_CUSTOM_HEADERS", '{"X-Gate": "planted"}')
    connection = Connection.configured()
    assert connection is not None
    assert connection.api_url == STRANGER
    for made in (connection, Connection.to(STRANGER)):
        assert PrefectClient(made).headers() == {}
        assert "planted" not in repr(made.environment)
        assert made.environment["PREFECT_API_KEY"] == made.environment["PREFECT_API_AUTH_STRING"] == ""
        assert made.environment["PREFECT_CLIENT_CUSTOM_HEADERS"] == '{"X-Gate": ""}'
        assert f"set PREFECT_API_URL={STRANGER}" in str(PrefectClient(made).refusal(401))


@pytest.mark.parametrize("file", FOLDER)
def test_a_folder_changes_nothing_for_the_owners_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://mine/api")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_mine")
    planted = {
        "API_AUTH_STRING": "stranger:planted",
        "API_TLS_INSECURE_SKIP_VERIFY": "true",
        "UI_URL": "http://stranger",
    }
    table = "".join(f'{name.partition("_")[2].lower()} = "{value}"\n' for name, value in planted.items())
    (folder / file).write_text(
        "".join(f"PREFECT_{name}={value}\n" for name, value in planted.items())
        if file == ".env"
        else FOLDER[file].partition("\n")[0] + "\n" + table
    )
    connection = Connection.configured()
    assert connection is not None
    assert (connection.api_url, connection.auth.token.get()) == ("https://mine/api", "pnu_mine")
    assert connection.tls.verify is not False
    assert connection.password is None
    assert connection.ui_url == "https://mine"


def test_a_folder_cannot_have_variables_of_its_user_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    (folder / ".env").write_text(
        "PREFECT_API_URL=https://evil/${AWS_SECRET_ACCESS_KEY}/api\nPREFECT_API_KEY=${AWS_SECRET_ACCESS_KEY}\n"
    )
    connection = Connection.configured()
    assert connection is not None
    assert "planted" not in f"{connection.api_url} {connection.auth.token.get()}"


TLS = {
    "verify": ("tls_insecure_skip_verify", "true", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY is not used"),
    "ca_file": ("ssl_cert_file", "stranger.pem", "PREFECT_API_SSL_CERT_FILE is not used"),
}


@pytest.mark.parametrize("option", TLS)
@pytest.mark.parametrize("file", FOLDER)
def test_a_folder_decides_nothing_about_tls(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, option: str
) -> None:
    """Also where it names the owner's own server, to which a login of theirs goes."""
    name, value, said = TLS[option]
    line = f"PREFECT_API_{name.upper()}={value}" if file == ".env" else f'{name} = "{value}"'
    (folder / file).write_text(f"{FOLDER[file]}{line}\n")
    for made in (Connection.configured(), Connection.to(STRANGER, auth_of("pnu_mine"))):
        assert made is not None
        with pytest.raises(ConfigurationError, match=said):
            made.tls.context()
        with pytest.raises(ConfigurationError, match=said):
            _ = made.environment
    monkeypatch.setenv(TRUSTED, str(folder))
    trusted = Connection.configured()
    assert trusted is not None
    assert (trusted.tls.verify is False, trusted.tls.authorities) == (
        (True, None) if option == "verify" else (False, value)
    )


@pytest.mark.parametrize("file", FOLDER)
def test_a_file_that_is_a_link_out_of_the_folder_gives_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Else the credentials of another project would go to the server that this folder names."""
    own = folder.parent / "own"
    own.mkdir()
    (own / file).write_text(
        "PREFECT_API_KEY=pnu_planted\n"
        if file == ".env"
        else FOLDER[file].partition("\n")[0] + '\nkey = "pnu_planted"\n'
    )
    (folder / file).symlink_to(f"../own/{file}")
    other = "prefect.toml" if file == ".env" else ".env"
    (folder / other).write_text(FOLDER[other])
    with pytest.raises(ConfigurationError, match=f"{file} is a link out of its folder, and is not used"):
        Connection.configured()
    monkeypatch.setenv(TRUSTED, str(folder))
    trusted = Connection.configured()
    assert trusted is not None
    assert trusted.auth.token.get() == "pnu_planted"


def test_a_link_to_what_is_not_prefects_is_no_matter(folder: Path) -> None:
    (folder.parent / "env").write_text("DB=x\n")
    (folder / ".env").symlink_to("../env")
    assert Connection.configured() is None


def test_a_login_beside_the_address_is_sent_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_planted")
    (folder / "prefect.toml").write_text(f'[api]\nurl = "{STRANGER}"\nkey = "pnu_theirs"\n')
    connection = Connection.configured()
    assert connection is not None
    assert connection.auth.token.get() == "pnu_theirs"


@pytest.mark.parametrize("release", ["3.4.25", "3.6.21", "3.6.21.dev3"])
def test_a_prefect_that_answers_without_the_password_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path))
    monkeypatch.setattr(server, "version", lambda _: release)  # an old one cannot be installed beside the others
    with pytest.raises(EngineError, match=r"pip install 'prefect>=3\.6\.22'"):
        server.embedded_server()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def is_closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def test_connections_that_say_nothing_do_not_keep_an_engine_from_hearing_that_its_run_is_cancelled() -> None:
    """It would be killed, and its clean-up with it. All users of the machine can connect to the port."""
    with ControlChannel() as channel, ExitStack() as stack:
        port, token = channel.environment["PREFECT__CONTROL_PORT"], channel.environment["PREFECT__CONTROL_TOKEN"]

        def connected(says: bytes) -> socket.socket:
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), timeout=240))
            peer.sendall(says)
            return peer

        silent = [connected(b"") for _ in range(110)]
        assert is_closed(connected(b"x" * 10_000))
        hung_up = connected(b"")
        hung_up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        hung_up.close()  # with a reset
        assert is_closed(silent[0]), "the oldest of many"
        engine = connected(token.encode() + b"\n")
        answer = threading.Thread(target=lambda: engine.recv(1) == b"c" and engine.sendall(b"a"))
        answer.start()
        wait_until(channel.say_cancelled)
        answer.join()


def test_the_embedded_prefect_gets_no_credential_of_its_starter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs steps of all pipelines, whichever command was the first to need it."""
    planted = {"AWS_SECRET_ACCESS_KEY", "FLOWYML_AIRFLOW_TOKEN", "FLOWYML_SECRET_A", "FLOWYML_ARTIFACTS", "HTTPS_PROXY"}
    for name in planted:
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path))
    started: list[dict[str, str]] = []

    def start(command: list[str], log: object, *, env: dict[str, str], **_: object) -> None:
        started.append(env)
        raise OSError("as far as this test goes")

    monkeypatch.setattr(server, "start_detached", start)
    with pytest.raises(OSError, match="as far as"):
        server.embedded_server()
    assert {"PATH", "HOME", "FLOWYML_HOME", "PREFECT_HOME"} <= started[0].keys()
    assert planted & started[0].keys() == set()
    assert "planted" not in started[0].values()
