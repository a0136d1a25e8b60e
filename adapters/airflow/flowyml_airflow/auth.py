"""How a call proves who asks, and what a refusal means."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import AuthenticationError
from flowyml_airflow.connection import Connection

__all__ = ["Basic", "Credentials", "Token", "expiry", "refusal"]


class Credentials:
    """Headers that carry the proof. ``renew`` is asked after a refusal and says whether trying again makes sense."""

    def headers(self) -> dict[str, str]:
        return {}

    def renew(self, refused: dict[str, str]) -> bool:
        return False


class Basic(Credentials):
    """User name and password with every call, as Airflow 2 takes them. A token goes along as it is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def headers(self) -> dict[str, str]:
        who = self._connection
        if who.token:
            return {"Authorization": f"Bearer {who.token}"}
        if who.username is None:
            return {}
        pair = f"{who.username}:{who.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


class Token(Credentials):
    """A token of Airflow 3, fetched from ``/auth/token`` at the first call and again when it has expired.

    ``fetch`` logs in and gives a new token. A token that the user gave cannot be renewed, unless there is a password.
    """

    def __init__(self, connection: Connection, fetch: Callable[[], str]) -> None:
        self._connection = connection
        self._fetch = fetch
        self._token = connection.token
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        if self._token is None and self._connection.username is not None:
            with self._lock:
                if self._token is None:  # another thread may have been quicker
                    self._token = self._fetch()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def renew(self, refused: dict[str, str]) -> bool:
        """Fetch a new token, unless another thread has done so since the refused call."""
        if self._connection.username is None or self._connection.password is None:
            return False
        with self._lock:
            if refused.get("Authorization") == f"Bearer {self._token}":
                self._token = self._fetch()
        return True


def expiry(token: str) -> datetime | None:
    """When a JSON Web Token ends, by its own word; None when it does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError):
        return None


def refusal(connection: Connection, status: int, *, known: bool = True) -> AuthenticationError:
    """What a 401 or 403 means, given who asked. Airflow 2 says 403 for a wrong password too: it is not ``known``."""
    where = f"Airflow at {connection.url}"
    if connection.username is not None and status == 401:
        return AuthenticationError(f"{where} refuses user {connection.username!r}: wrong user name or password.")
    if connection.username is not None and not known:
        return AuthenticationError(
            f"{where} refuses user {connection.username!r}: wrong user name or password, or no permission for this."
        )
    if connection.username is not None:
        return AuthenticationError(
            f"{where} does not allow this to user {connection.username!r}. Ask for the permission."
        )
    if connection.token is None:
        return AuthenticationError(f"{where} wants to know who asks. Give username=… and password=…, or token=….")
    ends = expiry(connection.token)
    if ends is not None and ends < datetime.now(UTC):
        return AuthenticationError(
            f"{where} refuses the token: it expired at {ends:%Y-%m-%d %H:%M:%S} UTC. Get a new one."
        )
    return AuthenticationError(
        f"{where} refuses the token (status {status}). Is it one of this Airflow, and allowed to do this?"
    )
