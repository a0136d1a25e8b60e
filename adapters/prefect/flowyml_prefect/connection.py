"""Which Prefect is meant: a URL that was given, or the one in Prefect's own settings.

Prefect's settings are read from their files here, since importing Prefect to ask it costs two seconds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowyml.core.credentials import Login
from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import is_planted
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, without_credentials

__all__ = ["Connection", "login_of"]

_NOTHING = {
    "PREFECT_API_KEY": "",
    "PREFECT_API_AUTH_STRING": "",
    "PREFECT_API_SSL_CERT_FILE": "",
    "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "false",
}
_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/(?P<account>[^/]+)/workspaces/(?P<workspace>[^/]+)")


@dataclass(frozen=True)
class Connection:
    """The address of a Prefect API, and what it asks for."""

    api_url: str
    login: Login = field(default_factory=Login.of, repr=False)
    tls: Tls = field(default_factory=Tls, repr=False)
    ui: str | None = field(default=None, repr=False, compare=False)
    """Where people look at it, where that is known and not just beside the API."""
    is_folders: bool = field(default=False, repr=False, compare=False)
    """Whether a file of the working folder names it, and neither the environment nor a profile of the user's."""

    @classmethod
    def to(cls, url: str, login: Login | None = None, tls: Tls | None = None) -> Connection:
        """The server at ``url``, with or without ``/api``.

        Without ``login``, the user and the password of the URL count; and without those the ones of Prefect's own
        settings, if they name this same server. The same goes for ``tls``.

        >>> Connection.to("http://ada:secret@127.0.0.1:4200/")
        Connection(api_url='http://127.0.0.1:4200/api')
        """
        api_url, in_url = _apart(url)
        configured = cls.configured()
        if configured is None or configured.api_url != api_url:
            configured = cls(api_url)
        login = login or in_url or configured.login
        return cls(api_url, login, tls or configured.tls, is_folders=configured.is_folders)

    @classmethod
    def configured(cls) -> Connection | None:
        """The server of Prefect's own settings, or None when they name none.

        Login and TLS come from the same owner as the address. The working folder may be a cloned repository: a server
        that one of its files names never receives a key from the environment or a profile, and its files change nothing
        for a server that is named there.
        """
        for settings, is_folders in _sources():
            if url := settings.get("PREFECT_API_URL"):
                api_url, in_url = _apart(url)
                first = partial(_first, is_folders=is_folders)
                # The order of Prefect's own client: a password in the URL, one of its own setting, a key.
                password, key = first("PREFECT_API_AUTH_STRING"), first("PREFECT_API_KEY")
                login = in_url or (login_of(password, is_password=True) if password else login_of(key))
                is_open = (first("PREFECT_API_TLS_INSECURE_SKIP_VERIFY") or "").lower() in ("1", "true", "yes", "on")
                tls = Tls(verify=not is_open, ca_file=first("PREFECT_API_SSL_CERT_FILE"))
                return cls(api_url, login, tls, is_folders=is_folders)
        return None

    @property
    def has_strangers_login(self) -> bool:
        """Whether there is a login in Prefect's settings that it does not get, since its address is not from there."""
        names = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
        return self.is_folders and any(_first(name, is_folders=False) for name in names)

    @cached_property
    def ui_url(self) -> str:
        """Where people look at it."""
        if self.ui is not None:
            return self.ui
        if chosen := _first("PREFECT_UI_URL", is_folders=self.is_folders):
            return without_credentials(chosen).rstrip("/")
        if match := _CLOUD.match(self.api_url):
            return f"https://app.prefect.cloud/account/{match['account']}/workspace/{match['workspace']}"
        return self.api_url.removesuffix("/api")

    @property
    def server_url(self) -> str:
        """What stands for the server as a target, and leads people to it."""
        return self.ui_url if self.ui is None else self.api_url.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        """The same connection as settings for a process of Prefect's.

        They replace all that the process would find in its environment or in a profile: that may be another server's.
        """
        configured = self.configured()
        settings = {**_NOTHING, "PREFECT_API_URL": self.api_url}
        is_configured = configured is not None and configured.api_url == self.api_url
        if others := [*_custom_headers(but_of_folder=self.is_folders if is_configured else None)]:
            settings["PREFECT_CLIENT_CUSTOM_HEADERS"] = json.dumps(dict.fromkeys(others, ""))
        if self.login.token:
            settings["PREFECT_API_KEY"] = self.login.token.get() or ""
        elif password := self.password:
            settings["PREFECT_API_AUTH_STRING"] = password
        if self.tls.authorities:
            settings["PREFECT_API_SSL_CERT_FILE"] = self.tls.authorities
        if self.tls.verify is False:
            settings["PREFECT_API_TLS_INSECURE_SKIP_VERIFY"] = "true"
        return settings

    @property
    def password(self) -> str | None:
        """``"user:password"``, as Prefect takes it; None without."""
        if self.login.username is None:
            return None
        return f"{self.login.username}:{self.login.password.get() or ''}"


def login_of(key: str | None, *, is_password: bool = False) -> Login:
    """From what Prefect calls a key, or ``"user:password"`` of a server with basic authentication."""
    if key and (is_password or ":" in key):
        username, _, password = key.partition(":")
        return Login.of(username=username, password=password)
    return Login.of(token=key)


def _apart(url: str) -> tuple[str, Login | None]:
    """The address of the API, which may be shown, and the user and the password that stood in it."""
    plain = without_credentials(checked_url(url)).rstrip("/")
    api_url = plain if re.search(r"/api(/|$)", urlsplit(plain).path) else f"{plain}/api"
    return api_url, Login.in_url(url) or None


def _first(name: str, *, is_folders: bool) -> str | None:
    """What the strongest source of an owner says; that may be nothing, for Prefect's client too."""
    found = next((settings[name] for settings, of in _sources() if of is is_folders and name in settings), None)
    return None if found is None else str(found) or None


def _custom_headers(*, but_of_folder: bool | None) -> Iterator[str]:
    """Names of the headers that Prefect's client adds, but for those of one owner. It merges those of all sources: none
    can be removed.
    """
    for settings, is_folders in _sources():
        given = settings.get("PREFECT_CLIENT_CUSTOM_HEADERS") or {}
        if is_folders is not but_of_folder:
            with suppress(TypeError, ValueError):
                yield from json.loads(given) if isinstance(given, str) else given


def _sources() -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Prefect's sources, the strongest first, and whether each is a file of the working folder.

    Source: Prefect, *Settings and profiles*.
    """
    yield os.environ, False
    yield _dotenv(), True
    yield _tables(Path("prefect.toml")), True
    yield _tables(Path("pyproject.toml"), "tool", "prefect"), True
    yield _profile(), False


def _dotenv() -> Mapping[str, str]:
    if not Path(".env").is_file() or is_planted(Path(".env")):
        return {}
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        return {}
    return {name: value for name, value in dotenv_values(".env").items() if value}


def _tables(path: Path, *below: str) -> Mapping[str, Any]:
    parts = {part: _table(path, *below, part) for part in ("api", "client")}
    return {f"PREFECT_{part}_{name}".upper(): value for part, given in parts.items() for name, value in given.items()}


def _profile() -> Mapping[str, Any]:
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    active = os.environ.get("PREFECT_PROFILE") or _toml(path).get("active")
    return _table(path, "profiles", str(active)) if active else {}


def _table(path: Path, *names: str) -> Mapping[str, Any]:
    """A table in a file; empty where it is missing."""
    found = _toml(path)
    for name in names:
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise ConfigurationError(f"Prefect's settings in {path} cannot be read: {name!r} is not a table.")
    return found


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    if is_planted(path):
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"Prefect's settings in {path} cannot be read: {error}") from error
