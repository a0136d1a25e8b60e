"""The address of Airflow, the credentials for it, and the meaning of a refusal."""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from flowyml.core.credentials import LOGIN_OPTIONS, Login
from flowyml.core.errors import AuthenticationError, ConfigurationError
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, same_address, shown

__all__ = ["Connection", "Token", "expiry", "permission", "refusal"]


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of an Airflow and the credentials for it, of which ``repr`` shows none.

    The address can come from ``FLOWYML_AIRFLOW_URL``, and its credentials from ``FLOWYML_AIRFLOW_TOKEN``,
    ``_TOKEN_FILE``, ``_TOKEN_COMMAND``, ``_USERNAME``, ``_PASSWORD``, ``_PASSWORD_FILE`` and ``_PASSWORD_COMMAND``,
    which are sent to that address and to no other. The same goes for ``_CA_FILE``, ``_CLIENT_CERT`` and
    ``_CLIENT_KEY``.

    >>> Connection.to("http://ada:secret@127.0.0.1:8080/")
    Connection(url='http://127.0.0.1:8080')
    """

    url: str
    login: Login = field(default_factory=Login.of, repr=False, compare=False)
    tls: Tls = field(default_factory=Tls, repr=False)

    @classmethod
    def to(cls, url: str | None = None, tls: Tls | None = None, **options: Any) -> Connection:
        """Merge credentials: ``options`` (see ``Login.of``), then the URL, then the environment.

        Without a URL the connection has no address, which is enough for compiling: see ``checked_address``. Raises
        ``ConfigurationError``.
        """
        address = url or _environment("URL")
        if not address:
            return cls("")
        parts = urlsplit(checked_url(address))
        plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        home = _environment("URL")
        is_home = bool(home) and same_address(str(home), plain)
        of_environment = {name: value for name in LOGIN_OPTIONS if (value := _environment(name.upper()))}
        in_url = {"username": unquote(parts.username or ""), "password": unquote(parts.password or "")}
        login = Login.of(**_merged(options, in_url, of_environment if is_home else {}))
        if of_environment and not is_home:
            login.note = _withheld(of_environment, home, plain)
        return cls(plain, login, tls or (_tls() if is_home else Tls()))._checked()

    def checked_address(self) -> str:
        """Return the URL. Raises ``ConfigurationError`` if none was given."""
        if not self.url:
            raise ConfigurationError(
                "No Airflow URL is set. Give AirflowOrchestrator(url=…), or set FLOWYML_AIRFLOW_URL."
            )
        return self.url

    def _checked(self) -> Connection:
        if self.login.username and not self.login.password and not self.login.token:
            raise ConfigurationError(
                f"user {self.login.username!r} of Airflow at {self.url} has no password. Give password=…, or set "
                f"FLOWYML_AIRFLOW_PASSWORD. {self.login.note}".rstrip()
            )
        return self


def _merged(given: Mapping[str, Any], in_url: Mapping[str, str], of_environment: Mapping[str, str]) -> dict[str, Any]:
    """Merge credentials: the arguments, then the URL for what they lack, then the environment.

    If the arguments or the URL name a user, no token is taken from the environment: it is another user's.
    """
    merged = {name: value for name, value in given.items() if value}
    if in_url["username"] and not _has(merged, "token"):
        merged.setdefault("username", in_url["username"])
        if in_url["password"] and not _has(merged, "password"):
            merged["password"] = in_url["password"]
    is_named = _has(merged, "token") or _has(merged, "username")
    for kind in ("password",) if is_named else ("token", "username", "password"):
        if not _has(merged, kind):
            merged |= {name: value for name, value in of_environment.items() if name.partition("_")[0] == kind}
    return merged


def _has(options: Mapping[str, Any], kind: str) -> bool:
    return any(options.get(name) for name in (kind, f"{kind}_file", f"{kind}_command"))


def _withheld(names: Mapping[str, str], home: str | None, plain: str) -> str:
    """Say in a refusal that the environment's credentials belong to another address and were not sent."""
    variables = " and ".join(f"FLOWYML_AIRFLOW_{name.upper()}" for name in names)
    whose = f"belong to {shown(home)}, the FLOWYML_AIRFLOW_URL" if home else "need FLOWYML_AIRFLOW_URL beside them"
    return (
        f"{variables} {whose}, and were not sent here. Give the credentials of {plain} as options of its target in "
        f"flowyml.toml, such as token_file=…, or in FLOWYML_ORCHESTRATORS__NAME__TOKEN; or set FLOWYML_AIRFLOW_URL."
    )


def _tls() -> Tls:
    certificate, key = _environment("CLIENT_CERT"), _environment("CLIENT_KEY")
    return Tls(ca_file=_environment("CA_FILE"), client_cert=(certificate, key) if certificate and key else certificate)


def _environment(name: str) -> str | None:
    """Return an environment variable without the line break that ends the file of a mounted secret; None if empty."""
    return os.environ.get(f"FLOWYML_AIRFLOW_{name}", "").strip("\r\n") or None


class Token:
    """A token of Airflow 3: the user's own, or one fetched from ``/auth/token`` and fetched again when it has expired.

    ``fetch`` logs in and returns a new token. After a refusal, the user's own token is read again from its file or
    command, or is replaced by a fetched token if there is a password.
    """

    def __init__(self, login: Login, fetch: Callable[[], str]) -> None:
        self._login = login
        self._fetch = fetch
        self._fetched: str | None = None
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        if self._fetched is None and self._login.token:
            return self._login.headers()
        if self._fetched is None and self._login.username is not None:
            with self._lock:
                if self._fetched is None:  # another thread may have been quicker
                    self._fetched = self._fetch()
        return {"Authorization": f"Bearer {self._fetched}"} if self._fetched else {}

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Get a new token, unless another thread has done so since the refused call."""
        if self._fetched is None and self._login.token and self._login.renew(refused):
            return True
        if self._login.username is None or not self._login.password:
            return False
        with self._lock:
            if self._fetched is None or refused.get("Authorization") == f"Bearer {self._fetched}":
                self._fetched = self._fetch()
        return True


def expiry(token: str) -> datetime | None:
    """Return the expiry time in a JSON Web Token; None if it has none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError):
        return None


def permission(method: str, path: str) -> str:
    """Return the permission that a call needs, in the words of Airflow's FAB auth manager; empty if it is not known.

    Source: Airflow, "Access Control" of the FAB provider, and the ``requires_access_…`` of each route. The simple auth
    manager has roles instead: ``viewer`` reads, ``user`` works with DAGs, and ``op`` reads pools and connections.

    >>> permission("PATCH", "/api/v2/dags/train/dagRuns/one"), permission("POST", "/api/v2/dags/~/dagRuns/list")
    ('can edit on DAG Runs', 'can read on DAG Runs')
    """
    parts = path.split("/")[3:]  # a collection, an id, a collection, …
    resource = next((_RESOURCES[part] for part in reversed(parts[::2]) if part in _RESOURCES), "")
    action = "can read" if parts[-1:] == ["list"] else _ACTIONS.get(method, "")
    action = "can edit" if parts[-1:] == ["clearTaskInstances"] else action
    return f"{action} on {resource}" if resource and action else ""


_ACTIONS = {"GET": "can read", "POST": "can create", "PATCH": "can edit", "DELETE": "can delete"}
_RESOURCES = {
    "dags": "DAGs", "dagSources": "DAG Code", "dagRuns": "DAG Runs", "backfills": "DAG Runs",
    "taskInstances": "Task Instances", "clearTaskInstances": "Task Instances", "tasks": "Task Instances",
    "xcomEntries": "XComs", "logs": "Task Logs", "eventLogs": "Audit Logs", "importErrors": "ImportError",
    "pools": "Pools", "connections": "Connections", "variables": "Variables", "config": "Configurations",
}  # fmt: skip


def refusal(connection: Connection, status: int, *, known: bool = True) -> AuthenticationError:
    """Return the error for a 401 or 403.

    Airflow 2 answers 403 for a wrong password too, so its reason is not ``known``.
    """
    reason = _refusal(f"Airflow at {connection.url}", connection.login, status, known)
    return AuthenticationError(f"{reason} {connection.login.note}".rstrip())


def _refusal(where: str, login: Login, status: int, known: bool) -> str:
    if login.username is not None and status == 401:
        return f"{where} refuses user {login.username!r}: wrong user name or password."
    if login.username is not None and not known:
        return f"{where} refuses user {login.username!r}: wrong user name or password, or no permission for this."
    if login.username is not None:
        return f"{where} does not permit this to user {login.username!r}."
    if not login.token:
        return f"{where} requires credentials. Give username=… and password=…, or token=…."
    ends = expiry(login.token.get() or "")
    if ends is not None and ends < datetime.now(UTC):
        return f"{where} refuses the token: it expired at {ends:%Y-%m-%d %H:%M:%S} UTC. Get a new one."
    return (
        f"{where} refuses the token (status {status}). Was it issued by this Airflow, and does its user have the "
        f"permission?"
    )
