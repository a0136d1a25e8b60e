"""URLs of servers and stores: checked, and as they may be shown."""

from __future__ import annotations

import re

from flowyml.core.errors import ConfigurationError

__all__ = ["checked_url", "safe_to_show", "without_credentials"]


def checked_url(url: object) -> str:
    """The URL itself if it is one of HTTP, else a ``ConfigurationError`` that never shows its credentials."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        usable = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and (parts is None or parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not isinstance(url, str):
        shown = safe_to_show(url) if isinstance(url, str) else repr(url)
        raise ConfigurationError(f"url={shown!r} is no address of a server. Write it like http://host:4200.")
    return url


def without_credentials(url: str) -> str:
    """The URL without user, password, query and fragment, which may hold secrets.

    >>> without_credentials("https://ada:secret@host/api?token=secret")
    'https://host/api'
    """
    return re.sub(r"(^|://)[^/]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


def safe_to_show(url: str) -> str:
    """The same of a URL that may be wrong: in a password, a bare ``/``, ``?`` or ``#`` looks like a path or a query.

    >>> safe_to_show("sftp://ada:sec/ret@host/dags")
    'sftp://host/dags'
    """
    return without_credentials(re.sub(r"^([A-Za-z][\w+.-]*://)?.*@", r"\1", url, flags=re.DOTALL))
