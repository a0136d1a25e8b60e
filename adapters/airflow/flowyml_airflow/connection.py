"""Which Airflow is meant, and who asks: from arguments, else from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from flowyml.core.errors import ConfigurationError
from flowyml.core.urls import checked_url

__all__ = ["Connection"]


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of an Airflow and the credentials for it, of which ``repr`` shows none.

    Each can come from ``FLOWYML_AIRFLOW_URL``, ``_USERNAME``, ``_PASSWORD`` and ``_TOKEN``.

    >>> Connection.to("http://ada:secret@127.0.0.1:8080/")
    Connection(url='http://127.0.0.1:8080', username='ada')
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def to(
        cls,
        url: str | None = None,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
    ) -> Connection:
        """Arguments win over what the URL holds, and that over the environment. Raises ``ConfigurationError``.

        Without any URL it leads nowhere, which is enough for compiling: see ``checked_address``.
        """
        address = url or _environment("URL")
        if not address:
            return cls("")
        parts = urlsplit(checked_url(address))
        plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        token, password = _line(token), _line(password)
        if token or username or parts.username:
            in_url = (unquote(parts.username or "") or None, unquote(parts.password or "") or None)
            return cls(
                plain, username or in_url[0], password or in_url[1] or _environment("PASSWORD"), token
            )._checked()
        return cls(
            plain, _environment("USERNAME"), password or _environment("PASSWORD"), _environment("TOKEN")
        )._checked()

    def checked_address(self) -> str:
        """The URL. Raises ``ConfigurationError`` where none was given."""
        if not self.url:
            raise ConfigurationError(
                "No Airflow is named. Give AirflowOrchestrator(url=…), or set FLOWYML_AIRFLOW_URL."
            )
        return self.url

    def _checked(self) -> Connection:
        if self.token and not _fits_a_header(self.token):
            raise ConfigurationError(
                f"the token for Airflow at {self.url} has blanks, control characters or letters beyond ASCII, which no "
                f"token has. It is not shown here. Give it anew, as token=… or in FLOWYML_AIRFLOW_TOKEN."
            )
        if self.username and not self.password and not self.token:
            raise ConfigurationError(
                f"user {self.username!r} of Airflow at {self.url} has no password. Give password=…, or set "
                f"FLOWYML_AIRFLOW_PASSWORD."
            )
        return self


def _environment(name: str) -> str | None:
    return _line(os.environ.get(f"FLOWYML_AIRFLOW_{name}"))


def _line(text: str | None) -> str | None:
    """Without the line break that a file of a mounted secret ends with; None for nothing."""
    return (text or "").strip("\r\n") or None


def _fits_a_header(token: str) -> bool:
    """Whether HTTP can carry it; else the error of the HTTP client would show it."""
    return token.isascii() and token.isprintable() and " " not in token
