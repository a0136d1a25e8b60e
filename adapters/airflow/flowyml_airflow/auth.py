"""How a call proves who asks, and what a refusal means."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flowyml.core.credentials import Login
from flowyml.core.errors import AuthenticationError
from flowyml_airflow.connection import Connection

__all__ = ["Token", "expiry", "refusal"]


class Token:
    """A token of Airflow 3: the user's own, or one fetched from ``/auth/token`` and fetched again when it has expired.

    ``fetch`` logs in and gives a new token. The user's own comes from a file or a command anew after a refusal, and is
    replaced by a fetched one where there is a password.
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
    told = _refusal(f"Airflow at {connection.url}", connection.login, status, known)
    return AuthenticationError(f"{told} {connection.login.note}".rstrip())


def _refusal(where: str, login: Login, status: int, known: bool) -> str:
    if login.username is not None and status == 401:
        return f"{where} refuses user {login.username!r}: wrong user name or password."
    if login.username is not None and not known:
        return f"{where} refuses user {login.username!r}: wrong user name or password, or no permission for this."
    if login.username is not None:
        return f"{where} does not allow this to user {login.username!r}. Ask for the permission."
    if not login.token:
        return f"{where} wants to know who asks. Give username=… and password=…, or token=…."
    ends = expiry(login.token.get() or "")
    if ends is not None and ends < datetime.now(UTC):
        return f"{where} refuses the token: it expired at {ends:%Y-%m-%d %H:%M:%S} UTC. Get a new one."
    return f"{where} refuses the token (status {status}). Is it one of this Airflow, and allowed to do this?"
