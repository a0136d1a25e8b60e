"""FlowyML and Prefect agree on which server Prefect's settings name."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from prefect.settings import Settings
from pydantic import SecretStr

from flowyml.core.errors import ConfigurationError
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection, auth_of

_PROFILES = """
active = "team"
[profiles.team]
PREFECT_API_URL = "http://team:4200/api"
PREFECT_API_AUTH_STRING = "user:password"
[profiles.other]
PREFECT_API_URL = "http://other:4200/api"
"""

_NOT_TEXT = """
active = "typed"
[profiles.typed]
PREFECT_API_URL = "http://typed:4200/api"
PREFECT_API_TLS_INSECURE_SKIP_VERIFY = true
"""


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        ({}, {}, None),
        ({"PREFECT_API_URL": "http://env:4200/api"}, {"home/profiles.toml": _PROFILES}, "http://env:4200/api"),
        ({}, {"home/profiles.toml": _PROFILES}, "http://team:4200/api"),
        ({"PREFECT_PROFILE": "other"}, {"home/profiles.toml": _PROFILES}, "http://other:4200/api"),
        ({}, {"prefect.toml": '[api]\nurl = "http://toml:4200/api"\nkey = "k"'}, "http://toml:4200/api"),
        ({}, {"pyproject.toml": '[tool.prefect.api]\nurl = "http://project:4200/api"'}, "http://project:4200/api"),
        ({}, {".env": "PREFECT_API_URL=http://dotenv:4200/api\n"}, "http://dotenv:4200/api"),
        ({}, {"home/profiles.toml": _NOT_TEXT}, "http://typed:4200/api"),
    ],
    ids=[
        "nothing",
        "environment",
        "active profile",
        "named profile",
        "prefect.toml",
        "pyproject.toml",
        ".env",
        "not text",
    ],
)
def test_the_settings_of_prefect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    files: dict[str, str],
    expected: str | None,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name, value in {"PREFECT_HOME": str(tmp_path / "home"), **environment}.items():
        monkeypatch.setenv(name, value)
    ours = Connection.configured()
    theirs = Settings().api
    assert (ours and ours.api_url) == theirs.url == expected
    if ours:
        assert (ours.auth.token.get(), ours.password) == (said(theirs.key), said(theirs.auth_string))


def said(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


@pytest.mark.parametrize("url", ["http://h:4200", "http://h:4200/", "http://h:4200/api", "http://h:4200/api/"])
def test_urls_with_and_without_api(url: str) -> None:
    connection = Connection.to(url)
    assert (connection.api_url, connection.ui_url) == ("http://h:4200/api", "http://h:4200")


@pytest.mark.parametrize("host", ["api", "api.example", "h"])
def test_a_host_that_is_called_api_is_no_path(host: str) -> None:
    assert Connection.to(f"http://{host}").api_url == f"http://{host}/api"
    assert Connection.to(f"http://{host}/team/api/v1").api_url == f"http://{host}/team/api/v1"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("prefect.toml", 'api = "x"'),
        ("prefect.toml", "client = 5"),
        ("pyproject.toml", 'tool.prefect = "x"'),
        ("pyproject.toml", 'tool = "x"'),
        ("profiles.toml", 'active = "a"\nprofiles = "x"'),
        ("profiles.toml", 'active = "a"\nprofiles.a = "x"'),
    ],
)
def test_settings_that_are_no_table_are_named(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=rf"settings in \S*{file} cannot be read: .* is not a table"):
        Connection.configured()


def test_prefect_cloud_has_its_ui_elsewhere() -> None:
    cloud = Connection.to("https://api.prefect.cloud/api/accounts/a1/workspaces/w1", auth_of("pnu_secret"))
    assert cloud.ui_url == "https://app.prefect.cloud/account/a1/workspace/w1"
    assert cloud.auth.headers() == {"Authorization": "Bearer pnu_secret"}
    assert "secret" not in repr(cloud)


def test_a_user_and_password_are_basic_authentication() -> None:
    connection = Connection.to("http://h:4200", auth_of("admin:secret"))
    assert connection.auth.headers() == {"Authorization": "Basic YWRtaW46c2VjcmV0"}
    environment = {name: value for name, value in connection.environment.items() if value not in ("", "{}", "false")}
    assert environment == {"PREFECT_API_URL": "http://h:4200/api", "PREFECT_API_AUTH_STRING": "admin:secret"}
    assert "secret" not in repr(connection)


@pytest.mark.parametrize(
    ("in_url", "sent"), [("admin:s3cr%40t", b"admin:s3cr@t"), ("admin", b"admin:"), (":s3cret", b":s3cret")]
)
def test_a_user_and_password_in_the_url_are_sent_and_never_shown(
    in_url: str, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection.to(f"http://{in_url}@h:4200/api?token=s3cret")
    assert connection.auth.headers() == {"Authorization": f"Basic {base64.b64encode(sent).decode()}"}
    assert (connection.api_url, connection.ui_url) == ("http://h:4200/api", "http://h:4200")
    assert "s3cr" not in repr(connection)
    assert Connection.to(f"http://{in_url}@h:4200", auth_of("key")).auth.headers() == {"Authorization": "Bearer key"}
    monkeypatch.setenv("PREFECT_API_URL", f"http://{in_url}@h:4200/api")
    monkeypatch.setenv("PREFECT_API_KEY", "key")
    assert Connection.configured() == connection
    assert Connection.to("http://h:4200") == connection
    monkeypatch.setenv("PREFECT_API_URL", "http://h:4200/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", sent.decode())
    assert Connection.to("http://h:4200").auth.headers() == connection.auth.headers()
    monkeypatch.setenv("PREFECT_UI_URL", f"https://{in_url}@ui")
    assert Connection.to("http://h:4200").ui_url == "https://ui"


@pytest.mark.parametrize("url", ["", "h:4200", "ftp://h", "http://"])
def test_invalid_addresses(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the address of a server"):
        Connection.to(url)


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_a_process_for_another_server_takes_no_credentials_along(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"PREFECT_API_AUTH_STRING": "me:planted", "PREFECT_API_KEY": "planted", "PREFECT_API_URL": "http://h/api",
                "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Gate": "planted"}'}  # fmt: skip
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    if where == "profile":
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        (tmp_path / "profiles.toml").write_text(f'active = "team"\n[profiles.team]\n{lines}')
    else:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
    for url, headers, shown in (
        ("http://other", {}, ("", "", {"X-Gate": ""})),
        # Of its own server: the password, which wins over the key, and the header.
        ("http://h", {"Authorization": f"Basic {base64.b64encode(b'me:planted').decode()}"},
         ("me:planted", "", {"X-Gate": "planted"})),
    ):  # fmt: skip
        with monkeypatch.context() as process:
            for name, value in Connection.to(url).environment.items():
                process.setenv(name, value)
            theirs, ours = Settings(), Connection.configured()
            assert ours is not None
            assert PrefectClient(ours).headers() == headers
            secrets = (said(theirs.api.auth_string) or "", said(theirs.api.key) or "")
            assert (*secrets, theirs.client.custom_headers) == shown
