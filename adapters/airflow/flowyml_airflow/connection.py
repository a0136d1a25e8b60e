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

from flowyml.core.credentials import AUTH_OPTIONS, Auth, AuthLike
from flowyml.core.errors import AuthenticationError, ConfigurationError
from flowyml.core.tls import Tls
from flowyml.core.urls import checked_url, redact_url, same_address, without_credentials

__all__ = ["Connection", "Token", "expiry", "permission", "refusal"]


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of an Airflow and the credentials for it, of which ``repr`` shows none.

    The address can come from ``FLOWYML_AIRFLOW_URL``, and its credentials from ``FLOWYML_AIRFLOW_TOKEN`` and the other
    keywords of ``Auth`` in capitals, which are sent to that address and to no other. The same goes for ``_CA_FILE``,
    ``_CLIENT_CERT`` and ``_CLIENT_KEY``.

    >>> Connection.to("http://ada:secret@127.0.0.1:8080/")
    Connection(url='http://127.0.0.1:8080')
    """

    url: str
    auth: Auth = field(default_factory=Auth, repr=False, compare=False)
    tls: Tls = field(default_factory=Tls, repr=False)

    @classmethod
    def to(cls, url: str | None = None, auth: AuthLike | None = None, tls: Tls | None = None) -> Connection:
        """Connect with ``auth``, completed from the URL, and then from the environment if that is for this address.

        Without a URL the connection has no address, which is enough for compiling: see ``checked_address``. Raises
        ``ConfigurationError``.
        """
        home = _environment("URL")
        address = url or home
        if not address:
            return cls("")
        plain = without_credentials(checked_url(address)).rstrip("/")
        is_home = home is not None and same_address(home, plain)
        environment = {name: value for name in AUTH_OPTIONS if (value := _environment(name.upper()))}
        others = [Auth.in_url(address), Auth(**environment)] if is_home else [Auth.in_url(address)]
        auth = Auth.merged(auth, *others)
        if environment and not is_home:
            auth.note = _withheld(environment, home, plain)
        return cls(plain, auth, tls or (_tls() if is_home else Tls()))._checked()

    def checked_address(self) -> str:
        """Return the URL. Raises ``ConfigurationError`` if none was given."""
        if not self.url:
            raise ConfigurationError(
                "No Airflow URL is set. Give AirflowOrchestrator(url=…), or set FLOWYML_AIRFLOW_URL."
            )
        return self.url

    def _checked(self) -> Connection:
        if self.auth.username and not self.auth.password and not self.auth.token:
            raise ConfigurationError(
                f"user {self.auth.username!r} of Airflow at {self.url} has no password. Give "
                f"auth=(username, password), or set FLOWYML_AIRFLOW_PASSWORD. {self.auth.note}".rstrip()
            )
        return self


def _withheld(names: Mapping[str, str], home: str | None, plain: str) -> str:
    """Say in a refusal that the environment's credentials belong to another address and were not sent."""
    variables = " and ".join(f"FLOWYML_AIRFLOW_{name.upper()}" for name in names)
    whose = f"belong to {redact_url(home)}, the FLOWYML_AIRFLOW_URL" if home else "need FLOWYML_AIRFLOW_URL beside them"
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

    def __init__(self, auth: Auth, fetch: Callable[[], str]) -> None:
        self._auth = auth
        self._fetch = fetch
        self._fetched: str | None = None
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        if self._fetched is None and (self._auth.token or self._auth.username is None):
            return self._auth.headers()
        if self._fetched is None:
            with self._lock:
                if self._fetched is None:  # another thread may have been quicker
                    self._fetched = self._fetch()
        return {"Authorization": f"Bearer {self._fetched}", **self._auth.cookie_header()}

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Get a new token, unless another thread has done so since the refused call."""
        if self._fetched is None and self._auth.token and self._auth.renew(refused):
            return True
        if self._auth.username is None or not self._auth.password:
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
    reason = _refusal(f"Airflow at {connection.url}", connection.auth, status, known)
    return AuthenticationError(f"{reason} {connection.auth.note}".rstrip())


def _refusal(where: str, auth: Auth, status: int, known: bool) -> str:
    if auth.username is not None and status == 401:
        return f"{where} refuses user {auth.username!r}: wrong user name or password."
    if auth.username is not None and not known:
        return f"{where} refuses user {auth.username!r}: wrong user name or password, or no permission for this."
    if auth.username is not None:
        return f"{where} does not permit this to user {auth.username!r}."
    if not auth.token:
        return f"{where} requires credentials. Give auth=(username, password) or auth=token."
    ends = expiry(auth.token.get() or "")
    if ends is not None and ends < datetime.now(UTC):
        return f"{where} refuses the token: it expired at {ends:%Y-%m-%d %H:%M:%S} UTC. Get a new one."
    return (
        f"{where} refuses the token (status {status}). Was it issued by this Airflow, and does its user have the "
        f"permission?"
    )
