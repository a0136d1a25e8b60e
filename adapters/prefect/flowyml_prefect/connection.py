"""The connection to a Prefect server: by a URL, or by Prefect's own settings.

Prefect's settings are read from their files here, since importing Prefect for that takes two seconds.
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

from flowyml.core.credentials import Auth, AuthLike, refusing_sources
from flowyml.core.errors import ConfigurationError
from flowyml.core.settings import is_planted, is_trusted, leads_out, without_consent
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, without_credentials

__all__ = ["Connection", "auth_of"]

_NOTHING = {
    "PREFECT_API_KEY": "",
    "PREFECT_API_AUTH_STRING": "",
    "PREFECT_API_SSL_CERT_FILE": "",
    "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "false",
}
_FILES = (".env", "prefect.toml", "pyproject.toml")
_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/(?P<account>[^/]+)/workspaces/(?P<workspace>[^/]+)")


@dataclass(frozen=True)
class Connection:
    """The address of a Prefect API, and the credentials for it."""

    api_url: str
    auth: Auth = field(default_factory=Auth, repr=False)
    tls: Tls = field(default_factory=Tls, repr=False)
    ui: str | None = field(default=None, repr=False, compare=False)
    """The address of the UI, if it is known and not just beside the API."""
    is_folders: bool = field(default=False, repr=False, compare=False)
    """True if the server is named by a file of the working folder, and not by the environment or a user's profile."""

    @classmethod
    def to(cls, url: str, auth: AuthLike | None = None, tls: Tls | None = None) -> Connection:
        """Connect to the server at ``url``, with or without ``/api``.

        ``auth`` is completed from the URL, and then from Prefect's own settings if they name this server; ``tls`` is
        taken from these if none is given.

        >>> Connection.to("http://ada:secret@127.0.0.1:4200/")
        Connection(api_url='http://127.0.0.1:4200/api')
        """
        api_url, in_url = _apart(url)
        configured = cls.configured()
        if configured is None or configured.api_url != api_url:
            configured = cls(api_url)
        merged = Auth.merged(auth, in_url, configured.auth)
        return cls(api_url, merged, tls or configured.tls, is_folders=configured.is_folders)

    @classmethod
    def configured(cls) -> Connection | None:
        """Return the server of Prefect's own settings; None if they name no server.

        Credentials and TLS come from the same source as the address. The working folder may be a cloned repository: a
        server that one of its files names never receives a key from the environment or a profile, and its files change
        nothing for a server that is named there. Whom TLS trusts is used from a folder only if the user has allowed it.
        """
        for settings, is_folders in _sources():
            if url := settings.get("PREFECT_API_URL"):
                api_url, in_url = _apart(url)
                first = partial(_first, is_folders=is_folders)
                # The order of Prefect's own client: a password in the URL, a password in its own setting, a key.
                password, key = first("PREFECT_API_AUTH_STRING"), first("PREFECT_API_KEY")
                auth = in_url or (auth_of(password, is_password=True) if password else auth_of(key))
                is_open = (first("PREFECT_API_TLS_INSECURE_SKIP_VERIFY") or "").lower() in ("1", "true", "yes", "on")
                with refusing_sources(_refused() if is_folders else {}):
                    tls = Tls(verify=not is_open, ca_file=first("PREFECT_API_SSL_CERT_FILE"))
                return cls(api_url, auth, tls, is_folders=is_folders)
        return None

    @property
    def has_strangers_login(self) -> bool:
        """True if Prefect's settings have a login that is not sent, since the address is from another source."""
        names = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
        return self.is_folders and any(_first(name, is_folders=False) for name in names)

    @cached_property
    def ui_url(self) -> str:
        if self.ui is not None:
            return self.ui
        if chosen := _first("PREFECT_UI_URL", is_folders=self.is_folders):
            return without_credentials(chosen).rstrip("/")
        if match := _CLOUD.match(self.api_url):
            return f"https://app.prefect.cloud/account/{match['account']}/workspace/{match['workspace']}"
        return self.api_url.removesuffix("/api")

    @property
    def server_url(self) -> str:
        """The address that names the server as a target, and leads people to it."""
        return self.ui_url if self.ui is None else self.api_url.removesuffix("/api")

    @property
    def environment(self) -> dict[str, str]:
        """The same connection as settings for a process of Prefect's.

        They replace all settings that the process would find in its environment or in a profile, which may be for
        another server.
        """
        configured = self.configured()
        settings = {**_NOTHING, "PREFECT_API_URL": self.api_url}
        is_configured = configured is not None and configured.api_url == self.api_url
        if others := [*_custom_headers(but_of_folder=self.is_folders if is_configured else None)]:
            settings["PREFECT_CLIENT_CUSTOM_HEADERS"] = json.dumps(dict.fromkeys(others, ""))
        if self.auth.token:
            settings["PREFECT_API_KEY"] = self.auth.token.get() or ""
        elif password := self.password:
            settings["PREFECT_API_AUTH_STRING"] = password
        if self.tls.authorities:
            settings["PREFECT_API_SSL_CERT_FILE"] = self.tls.authorities
        if not self.tls.verify:
            settings["PREFECT_API_TLS_INSECURE_SKIP_VERIFY"] = "true"
        return settings

    @property
    def password(self) -> str | None:
        """``"user:password"``, as Prefect accepts it; None without a password."""
        if self.auth.username is None:
            return None
        return f"{self.auth.username}:{self.auth.password.get() or ''}"


def auth_of(key: str | None, *, is_password: bool = False) -> Auth:
    """Return the credentials in Prefect's settings: a key, or ``"user:password"`` for basic authentication."""
    if key and (is_password or ":" in key):
        username, _, password = key.partition(":")
        return Auth(username=username, password=password)
    return Auth(token=key)


def _apart(url: str) -> tuple[str, Auth]:
    """Split a URL: the address of the API without credentials, and the credentials in it."""
    plain = without_credentials(checked_url(url)).rstrip("/")
    api_url = plain if re.search(r"/api(/|$)", urlsplit(plain).path) else f"{plain}/api"
    return api_url, Auth.in_url(url)


def _first(name: str, *, is_folders: bool) -> str | None:
    """Return the value of the highest-ranking source of an owner.

    An empty value counts as set, as in Prefect's client.
    """
    setting = next((settings[name] for settings, of in _sources() if of is is_folders and name in settings), None)
    return None if setting is None else str(setting) or None


def _custom_headers(*, but_of_folder: bool | None) -> Iterator[str]:
    """Yield the names of the headers that Prefect's client adds, without those of one owner.

    Prefect's client merges the headers of all sources: none can be removed.
    """
    for settings, is_folders in _sources():
        headers = settings.get("PREFECT_CLIENT_CUSTOM_HEADERS") or {}
        if is_folders is not but_of_folder:
            with suppress(TypeError, ValueError):
                yield from json.loads(headers) if isinstance(headers, str) else headers


def _refused() -> dict[str, str]:
    """Return the options of TLS that the working folder's files may not give, each with advice."""
    if all(map(is_trusted, map(Path, _FILES))):
        return {}
    names = {
        "verify": ("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "trust any server"),
        "ca_file": ("PREFECT_API_SSL_CERT_FILE", "trust other authorities"),
    }
    return {option: without_consent(Path(_FILES[0]), name, does) for option, (name, does) in names.items()}


def _sources() -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yield Prefect's sources of settings, highest rank first, and whether each is a file of the working folder.

    Source: Prefect, *Settings and profiles*.
    """
    yield os.environ, False
    dotenv, own, project = map(Path, _FILES)
    yield _of_folder(dotenv, _dotenv()), True
    yield _of_folder(own, _tables(own)), True
    yield _of_folder(project, _tables(project, "tool", "prefect")), True
    yield _profile(), False


def _of_folder(path: Path, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings of a file of the working folder; if a link leads elsewhere, only where the user has allowed it.

    Otherwise one of the files could be a link to credentials of the user, and another name the server. Raises
    ``ConfigurationError``.
    """
    settings = {name: value for name, value in values.items() if name.startswith("PREFECT_")}
    if settings and leads_out(path) and not is_trusted(path):
        raise ConfigurationError(
            without_consent(path, f"{path.absolute()} is a link out of its folder, and", "read a file")
        )
    return settings


def _dotenv() -> Mapping[str, str]:
    if not Path(".env").is_file() or is_planted(Path(".env")):
        return {}
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        return {}
    # ${NAME} stays as it is: the file may come with a folder that was cloned, and the value would go to its server.
    return {name: value for name, value in dotenv_values(".env", interpolate=False).items() if value}


def _tables(path: Path, *below: str) -> Mapping[str, Any]:
    parts = {part: _table(path, *below, part) for part in ("api", "client")}
    return {f"PREFECT_{part}_{name}".upper(): value for part, table in parts.items() for name, value in table.items()}


def _profile() -> Mapping[str, Any]:
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    active = os.environ.get("PREFECT_PROFILE") or _toml(path).get("active")
    return _table(path, "profiles", str(active)) if active else {}


def _table(path: Path, *names: str) -> Mapping[str, Any]:
    """Return a table of a file; empty if it is missing."""
    table = _toml(path)
    for name in names:
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"Prefect's settings in {path} cannot be read: {name!r} is not a table.")
    return table


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
