"""URLs of servers and stores: check and compare them, and show them without their secrets."""

from __future__ import annotations

import re

from flowyml.core.errors import ConfigurationError

__all__ = [
    "STORE_CREDENTIALS",
    "checked_url",
    "refuse_credentials",
    "same_address",
    "redact_url",
    "redact_urls",
    "without_credentials",
]

STORE_CREDENTIALS = (
    "Give them to each machine that reads or writes there: in the environment (such as AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY), or in fsspec's configuration (such as FSSPEC_SFTP_PASSWORD)."
)
"""Advice on credentials of a store: the last sentence of ``refuse_credentials`` for one."""

_HIDDEN = "…"
# The query of the engines' own pages. Every other value in a query may be a secret: a key, a signature, a session.
_HARMLESS = frozenset(
    {"dag_run_id", "execution_date", "limit", "map_index", "namespace", "ns", "offset", "order_by", "run_id", "tab"}
    | {"task_id"}
)
_WEB = ("http", "https")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")  # fsspec: simplecache::s3://bucket/key
_WORD = re.compile(r"[^\s\"'<>]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def checked_url(url: object) -> str:
    """Return the URL if it is an HTTP one, else raise a ``ConfigurationError`` that never shows its credentials."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        usable = parts is not None and parts.scheme in _WEB and bool(parts.hostname)
        usable = usable and (parts is None or parts.port is None or parts.port > 0)
        if usable and parts is not None and parts.hostname:
            parts.hostname.encode("idna")
    except ValueError:
        usable = False
    if not usable or not isinstance(url, str):
        wrong = redact_url(url) if isinstance(url, str) else repr(url)
        raise ConfigurationError(f"url={wrong!r} is not the address of a server. Write it like http://host:4200.")
    if _hides_login(url):
        raise ConfigurationError(
            f"url={redact_url(url)!r} has an @ behind its host, which may be the end of a password. In a password, "
            f"write / as %2F, ? as %3F, # as %23 and @ as %40; elsewhere, @ as %40."
        )
    return url


def _hides_login(url: str) -> bool:
    """Return whether a part of a password may have been read as the host or the path, since it was not quoted.

    >>> _hides_login("http://ada:12/34@host/x"), _hides_login("https://npm.example/@scope/package")
    (True, False)
    >>> _hides_login("http://ada:1?3@host"), _hides_login("http://host:80/x?mail=a@b")
    (True, False)
    """
    authority, slash, rest = re.sub(r"^[^:]*://", "", url).partition("/")
    if mark := re.search(r"[?#]", authority):  # there is no path
        return ":" in authority[: mark.start()] and "@" in url[url.index(mark[0]) :]
    return (":" in authority or "@" in authority) and bool(slash) and "@" in re.split(r"[?#]", rest, maxsplit=1)[0]


def redact_url(url: str) -> str:
    """Return a URL without secrets, safe to show, log and store. A path stays as it is.

    User and password are left out, and every value of a query that is not known to be harmless. The user stays if it is
    part of the address and no password follows, as in the URL of a store. A malformed URL is redacted carefully: in a
    password, a bare ``/``, ``?`` or ``#`` looks like a path or a query, so everything up to the last ``@`` counts as
    one.

    >>> redact_url("https://ada:secret@host/api?token=secret&ns=team")
    'https://host/api?token=…&ns=team'
    >>> redact_url("//ada:secret@host/x"), without_credentials("sftp://ada:sec/ret@host/x::memory://b")
    ('host/x', 'sftp://host/x::memory://b')
    >>> redact_url("sftp://ada:sec/ret@host/dags"), redact_url("abfss://container@account/folder")
    ('sftp://host/dags', 'abfss://container@account/folder')
    >>> redact_url("/data/a@b?c")
    '/data/a@b?c'
    """
    return "::".join(_redacted(part) for part in _CHAIN.split(url))


def _redacted(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        if "@" not in url or (url[:1] in ("/", ".", "~") and not url.startswith("//")):
            return url
        scheme, rest = "", url.rpartition("@")[2] if ":" in url.rpartition("@")[0] else url  # its scheme is misspelt
    rest = _without_user(rest, keep=bool(separator) and not scheme.lower().endswith(_WEB))
    rest, number_sign, fragment = rest.partition("#")
    rest, question_mark, query = rest.partition("?")
    if question_mark:
        rest += "?" + "&".join(_redacted_pair(pair) for pair in query.split("&"))
    if number_sign and fragment.startswith("/") and not {"=", "?", "@"} & {*fragment}:  # a page of Kubeflow's UI
        rest += "#" + fragment
    return scheme + separator + rest


def _without_user(rest: str, *, keep: bool) -> str:
    """Return the part after the scheme, without user and password; with ``keep``, a user without a password stays."""
    end = min((place for mark in "/?#" if (place := rest.find(mark)) >= 0), default=len(rest))
    authority = rest[:end]
    if ":" in authority and "@" in rest:
        return rest.rpartition("@")[2]
    user, at, host = authority.rpartition("@")
    return host + rest[end:] if at and not (keep and user) else rest


def _redacted_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return _HIDDEN if name else ""
    return pair if name.lower() in _HARMLESS and "@" not in value else f"{name}={_HIDDEN}"


def redact_urls(text: object) -> str:
    """Remove secrets from every URL in a text, such as the message of another library's error, as ``redact_url`` does.

    >>> redact_urls("cannot reach 'https://ada:secret@host/api': refused")
    "cannot reach 'https://host/api': refused"
    """
    return _WORD.sub(lambda word: redact_url(word[0]) if "://" in word[0] else word[0], str(text))


def refuse_credentials(url: str, where: str, instead: str = STORE_CREDENTIALS) -> str:
    """Return the URL, if it may be stored or compiled into a file that others read; else raise ``ConfigurationError``.

    ``where`` is the name of its option, and ``instead`` a sentence about the proper place of credentials.

    >>> refuse_credentials("s3://key:secret@bucket/x", "artifacts")
    Traceback (most recent call last):
    flowyml.core.errors.ConfigurationError: artifacts: the URL 's3://bucket/x' contains credentials, ...
    """
    if redact_url(url) == url:
        return url
    raise ConfigurationError(
        f"{where}: the URL {redact_url(url)!r} contains credentials, which would be stored where others can "
        f"read them. Leave them out of the URL. {instead}"
    )


def without_credentials(url: str) -> str:
    """Return the bare address: the URL without user, password, query and fragment. A store's URL keeps a user without a
    password.

    >>> without_credentials("https://ada:secret@host/api?token=secret")
    'https://host/api'
    """
    return "::".join(map(_bare, _CHAIN.split(url)))


def _bare(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.split(r"[?#]", _redacted(url), maxsplit=1)[0]
    end = min((place for mark in "/?#" if (place := rest.find(mark)) >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    user, at, host = authority.rpartition("@")
    if at:
        is_address = bool(user) and ":" not in user and not scheme.lower().endswith(_WEB)
        rest = (authority if is_address else host) + path
    elif ":" in authority and "@" in path and not authority.rpartition(":")[2].isdigit():  # a port is not a password
        rest = path.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]


def same_address(one: str, other: str) -> bool:
    """Return whether two HTTP URLs have the same server and path, however they are written. Credentials do not count.

    >>> same_address("https://ada:pw@Host:443/api/", "HTTPS://host/api"), same_address("http://host", "http://host:81")
    (True, False)
    """
    return _address(one) == _address(other)


def _address(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path of a URL.

    Paths that only a server could equate, such as ``/a`` and ``/%61``, count as different: credentials are then
    withheld, which is safe.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(checked_url(url))
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return parts.scheme, (parts.hostname or "").rstrip("."), port, parts.path.rstrip("/")
