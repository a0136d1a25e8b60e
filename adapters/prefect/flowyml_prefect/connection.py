"""Which Prefect is meant: a URL that was given, or the one in Prefect's own settings.

Prefect's settings are read from their files here, since importing Prefect to ask it costs two seconds.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flowyml.core.errors import ConfigurationError
from flowyml.core.urls import checked_url, without_credentials

__all__ = ["Connection"]

_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/(?P<account>[^/]+)/workspaces/(?P<workspace>[^/]+)")


@dataclass(frozen=True)
class Connection:
    """The address of a Prefect API, and what it asks for."""

    api_url: str
    api_key: str | None = field(default=None, repr=False)
    auth_string: str | None = field(default=None, repr=False)
    ui: str | None = field(default=None, repr=False, compare=False)
    """Where people look at it, where that is known and not just beside the API."""

    @classmethod
    def to(cls, url: str, api_key: str | None = None) -> Connection:
        """The server at ``url``, with or without ``/api``. A key ``"user:password"`` is one of basic authentication.

        Without ``api_key``, the user and the password of the URL count; and without those the key of Prefect's own
        settings, if they name this same server.

        >>> Connection.to("http://ada:secret@127.0.0.1:4200/")
        Connection(api_url='http://127.0.0.1:4200/api')
        """
        api_url, in_url = _apart(url)
        if api_key is not None:
            return cls(api_url, None, api_key) if ":" in api_key else cls(api_url, api_key)
        if in_url is not None:
            return cls(api_url, None, in_url)
        configured = cls.configured()
        return configured if configured and configured.api_url == api_url else cls(api_url)

    @classmethod
    def configured(cls) -> Connection | None:
        """The server of Prefect's own settings, or None when they name none."""
        for settings in _sources():
            if url := settings.get("PREFECT_API_URL"):
                api_url, in_url = _apart(url)
                if in_url is not None:  # which Prefect's own client sends, whatever else is set
                    return cls(api_url, None, in_url)
                return cls(api_url, _first("PREFECT_API_KEY"), _first("PREFECT_API_AUTH_STRING"))
        return None

    @cached_property
    def ui_url(self) -> str:
        """Where people look at it."""
        if self.ui is not None:
            return self.ui
        if chosen := _first("PREFECT_UI_URL"):
            return without_credentials(chosen).rstrip("/")
        if match := _CLOUD.match(self.api_url):
            return f"https://app.prefect.cloud/account/{match['account']}/workspace/{match['workspace']}"
        return self.api_url.removesuffix("/api")

    @property
    def server_url(self) -> str:
        """What stands for the server as a target, and leads people to it."""
        return self.ui_url if self.ui is None else self.api_url.removesuffix("/api")

    @property
    def headers(self) -> dict[str, str]:
        """What each call carries; of a password and a key the password, as from Prefect's own client."""
        if self.auth_string:
            return {"Authorization": f"Basic {base64.b64encode(self.auth_string.encode()).decode()}"}
        if self.api_key:
            return {"Authorization": f"Bearer {self.api_key}"}
        return {}

    @property
    def environment(self) -> dict[str, str]:
        """The same connection as settings for a process of Prefect's."""
        settings = {"PREFECT_API_URL": self.api_url}
        if self.api_key:
            settings["PREFECT_API_KEY"] = self.api_key
        if self.auth_string:
            settings["PREFECT_API_AUTH_STRING"] = self.auth_string
        return settings


def _apart(url: str) -> tuple[str, str | None]:
    """The address of the API, which may be shown, and the ``user:password`` that stood in it."""
    parts = urlsplit(checked_url(url))
    plain = without_credentials(url).rstrip("/")
    api_url = plain if re.search(r"/api(/|$)", plain) else f"{plain}/api"
    user, at, _ = parts.netloc.rpartition("@")
    if not at:
        return api_url, None
    return api_url, unquote(user if ":" in user else f"{user}:")


def _first(name: str) -> str | None:
    return next((value for settings in _sources() if (value := settings.get(name))), None)


def _sources() -> Iterator[Mapping[str, str]]:
    """Prefect's sources, the strongest first. Source: Prefect, *Settings and profiles*."""
    yield os.environ
    yield _dotenv()
    yield _api_table(_toml(Path("prefect.toml")))
    yield _api_table(_toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {}))
    yield _profile()


def _dotenv() -> Mapping[str, str]:
    if not Path(".env").is_file():
        return {}
    try:
        from dotenv import dotenv_values
    except ModuleNotFoundError:
        return {}
    return {name: value for name, value in dotenv_values(".env").items() if value}


def _api_table(settings: Mapping[str, Any]) -> Mapping[str, str]:
    return {f"PREFECT_API_{name.upper()}": str(value) for name, value in settings.get("api", {}).items()}


def _profile() -> Mapping[str, str]:
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    profiles = _toml(path)
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    found: Mapping[str, str] = profiles.get("profiles", {}).get(active, {})
    return found


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Prefect's settings in {path} cannot be read: {error}") from error
