"""Tokens and passwords: values, files with a value, or commands that print one."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from flowyml.core.errors import ConfigurationError

__all__ = ["AUTH_OPTIONS", "Auth", "AuthLike", "Secret", "lacks_permission", "refusals", "refusing_sources"]

_COMMAND_SECONDS = 60
_refused: ContextVar[Mapping[str, str] | None] = ContextVar("flowyml_refused_sources", default=None)


@contextmanager
def refusing_sources(reasons: Mapping[str, str]) -> Iterator[None]:
    """Refuse options within the block: files and commands of credentials, and those of TLS.

    A ``Secret`` or a ``Tls`` that is created in it with one of them reads no file and runs no command: if its value is
    needed, it raises ``ConfigurationError`` with the option's reason.
    """
    token = _refused.set(reasons)
    try:
        yield
    finally:
        _refused.reset(token)


def refusals(options: Iterable[str]) -> str:
    """Return the reasons why options are refused here; empty if none is."""
    refused = _refused.get() or {}
    return " ".join(refused[option] for option in options if option in refused)


class Secret:
    """A value that ``repr`` does not show, read at first use. Thread-safe.

    ``name`` is that of the option: ``"token"`` stands for ``token``, ``token_file`` and ``token_command``. A command is
    a list of arguments, or one string that is split as a shell would; no shell runs it. A function as the value is
    called at each use. Raises ``ConfigurationError`` when more than one of the three is given, and at the first use
    when the value cannot be read.
    """

    def __init__(
        self,
        name: str,
        value: str | Callable[[], str] | None = None,
        file: str | os.PathLike[str] | None = None,
        command: str | Sequence[str] | None = None,
    ) -> None:
        self.name = name
        sources = {name: value, f"{name}_file": file, f"{name}_command": command}
        self._sources = {option: source for option, source in sources.items() if source}
        if len(self._sources) > 1:
            raise ConfigurationError(f"{' and '.join(self._sources)} are both given. Give only one.")
        self._file = file
        self._command = command
        self._function = value if callable(value) else None
        self._text = value if isinstance(value, str) else ""
        self._refusal = refusals(self._sources)
        self._value: str | None = None
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Return whether there is a value, without reading it."""
        return bool(self._sources)

    def check(self) -> None:
        """Raise ``ConfigurationError`` for a text that cannot be sent; no file is read and no command run."""
        _checked_line(self.name, self._text)

    def get(self) -> str | None:
        """Return the value; None if none was given."""
        if self._function is not None:
            return self._read()
        if self._value is None and self:
            with self._lock:
                if self._value is None:  # another thread may have been quicker
                    self._value = self._read()
        return self._value

    def renew(self, refused: str) -> bool:
        """Read it again after a refusal. True if the value differs from the refused one."""
        if not (self._file or self._command):
            return False
        with self._lock:
            if self._value == refused:
                self._value = self._read()
            return self._value != refused

    def _read(self) -> str:
        if self._refusal:
            raise ConfigurationError(self._refusal)
        option = next(iter(self._sources))
        if self._text:
            return _checked_line(option, self._text)
        if self._function is not None:
            text, must = self._function(), "returned nothing; it must return"
        elif self._command:
            text, must = _run_command(option, self._command), "printed nothing; it must print"
        else:
            text, must = _read_file(option, self._file or ""), "is empty; it must hold"
        if not text:
            raise ConfigurationError(f"{option} {must} a {self.name}.")
        return _checked_line(option, text)

    def __eq__(self, other: object) -> bool:
        """Return whether two secrets have the same source; neither is read."""
        return isinstance(other, Secret) and (self.name, self._sources) == (other.name, other._sources)

    __hash__ = None  # type: ignore[assignment]  # a stored hash could reveal the value

    def __repr__(self) -> str:
        return f"<Secret {', '.join(self._sources) or 'none'}>"


def lacks_permission(call: str, permission: str, answer: str) -> str:
    """Explain a 403 of any engine: the refused call, the permission that it needs, and the engine's answer.

    >>> lacks_permission("GET /pools/a", "can read on Pools", "Forbidden")
    'GET /pools/a needs the permission "can read on Pools". It answered: Forbidden'
    """
    needs = f'needs the permission "{permission}"' if permission else "needs a permission that this user lacks"
    return f"{call} {needs}.{f' It answered: {answer}' if answer else ''}"


def _read_file(option: str, file: str | os.PathLike[str]) -> str:
    try:
        return Path(file).expanduser().read_text("utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(f"{option}={os.fspath(file)!r} cannot be read: {reason}.") from None


def _run_command(option: str, command: str | Sequence[str]) -> str:
    """Run a command and return its output, which is never shown. Its standard error is, as it explains a failure."""
    import shlex
    import subprocess

    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{option} took longer than {_COMMAND_SECONDS} s and was stopped.") from None
    except (OSError, ValueError, IndexError) as error:
        raise ConfigurationError(f"{option} cannot be run: {error}.") from error
    if done.returncode:
        raise ConfigurationError(f"{option} ended with exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip("\r\n")


def _checked_line(option: str, text: str) -> str:
    """Return a value without a final line break, which mounted secrets have.

    Refuses characters that HTTP cannot carry, since the error of an HTTP library would show the value.
    """
    line = text.strip("\r\n")
    is_token = option.startswith("token")
    if line.isprintable() and not (is_token and (not line.isascii() or " " in line)):
        return line
    wrong = "spaces, control characters or non-ASCII characters, which a token cannot contain" if is_token else (
        "a line break or another control character, which a password cannot contain"
    )  # fmt: skip
    raise ConfigurationError(f"{option} has {wrong}. It is not shown here. Set it again.")


@dataclass(slots=True, init=False)
class Auth:
    """The caller's credentials: a bearer token, or else a user name and a password; and cookies beside either.

    A secret is given as its text, as the file that contains it (``…_file``), or as a command that prints it
    (``…_command``, a list of arguments or one line, run without a shell). Files and commands are read when the secret
    is needed, and again when a server refuses it. ``token`` may also be a function that returns it, called for each
    request. ``cookies`` are those of a login in front of the engine. ``repr`` shows no secret. Raises
    ``ConfigurationError`` if one secret is given in two ways.

    >>> Auth.of(("ada", "hunter2"))
    Auth(token=<Secret none>, username='ada', password=<Secret password>, cookies=<Secret none>)
    """

    token: Secret
    username: str | None
    password: Secret
    cookies: Secret
    note: str = field(default="", repr=False, compare=False)
    """A sentence that is added to the message of a refusal."""

    def __init__(
        self,
        *,
        token: str | Callable[[], str] | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token_command: str | Sequence[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
        password_command: str | Sequence[str] | None = None,
        cookies: str | None = None,
        cookies_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.token = Secret("token", token, token_file, token_command)
        self.username = username
        self.password = Secret("password", password, password_file, password_command)
        self.cookies = Secret("cookies", cookies, cookies_file)
        self.note = ""

    @classmethod
    def of(cls, auth: AuthLike | None) -> Auth:
        """Return ``auth`` itself, or the credentials that a token or a pair of user name and password stands for.

        Raises ``ConfigurationError`` for anything else.
        """
        match auth:
            case None:
                return cls()
            case Auth():
                return auth
            case str():
                return cls(token=auth)
            case (str() as username, str() as password):
                return cls(username=username, password=password)
        raise ConfigurationError(  # which does not show the value
            f"auth is a {type(auth).__name__}. Give a token, a pair of user name and password, or an Auth(…)."
        )

    @classmethod
    def in_url(cls, url: str) -> Auth:
        """Return the user and the password in an HTTP URL; empty if it has none."""
        from urllib.parse import unquote, urlsplit

        try:
            parts = urlsplit(url)
        except ValueError:
            return cls()
        if parts.username is None and parts.password is None:
            return cls()
        return cls(username=unquote(parts.username or ""), password=unquote(parts.password or ""))

    @classmethod
    def merged(cls, auth: AuthLike | None, *others: Auth) -> Auth:
        """Return a copy, completed from other sources for the same address: the first comes first.

        What names a user or has a token gets no token of a later source, which may be another user's, and a password
        only if that source names no other user. Raises ``ConfigurationError`` for a password without a user.
        """
        merged = copy(cls.of(auth))
        for other in others:
            merged.cookies = merged.cookies or other.cookies
            if merged.token:
                continue
            if merged.username is None and not merged.password:
                merged.token, merged.username, merged.password = other.token, other.username, other.password
            elif merged.username is None:
                merged.username = other.username
            elif not merged.password and other.username in (None, merged.username):
                merged.password = other.password
        if merged.password and merged.username is None and not merged.token:
            raise ConfigurationError("password needs a user name beside it: auth=(username, password).")
        for secret in (merged.token, merged.password, merged.cookies):
            secret.check()  # only of those that are used: a wrong one of another source does no harm
        return merged

    def __bool__(self) -> bool:
        return bool(self.token or self.cookies) or self.username is not None

    def headers(self) -> dict[str, str]:
        """Return the headers of each call. Reads the secrets at the first call."""
        if self.token:
            return {"Authorization": f"Bearer {self.token.get()}", **self.cookie_header()}
        if self.username is not None:
            pair = f"{self.username}:{self.password.get() or ''}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}", **self.cookie_header()}
        return self.cookie_header()

    def cookie_header(self) -> dict[str, str]:
        """Return the header for what stands in front of the engine, for calls without the engine's own credentials."""
        return {"Cookie": cookies} if (cookies := self.cookies.get()) else {}

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Read the secrets again after a refusal of these headers. True if another try makes sense."""
        if refused != self.headers():  # another thread has renewed it
            return True
        renewed = [secret.renew(secret.get() or "") for secret in (self.token or self.password, self.cookies)]
        return any(renewed)


AuthLike = str | tuple[str, str] | Auth
"""Credentials as constructors take them: a token, ``(username, password)``, or an ``Auth``."""

AUTH_OPTIONS = tuple(Auth.__init__.__kwdefaults__ or ())
"""The keywords of ``Auth``, which are settings of targets by these names."""
