"""TLS: the authorities that a client trusts, and its own certificate. The same for every engine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.core.credentials import refusals
from flowyml.core.errors import ConfigurationError

if TYPE_CHECKING:
    from ssl import SSLContext, SSLError

__all__ = ["ClientCertificate", "Tls", "tls_cause", "tls_trouble"]

ClientCertificate = str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]]
"""A file with a certificate and its key, or a file for each."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The trusted authorities, and the client's certificate.

    ``ca_file`` is a file of authorities in PEM format, trusted instead of the system's; ``client_cert`` is a file with
    a certificate and its key, or a pair of files. ``verify=False`` trusts any server.
    Options that ``refusing_sources`` refuses raise ``ConfigurationError`` where they are used.
    """

    verify: bool = True
    ca_file: str | os.PathLike[str] | None = None
    client_cert: ClientCertificate | None = None
    _refusal: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options = {"verify": self.verify is not True, "ca_file": self.ca_file, "client_cert": self.client_cert}
        object.__setattr__(self, "_refusal", refusals(option for option, value in options.items() if value))

    @property
    def authorities(self) -> str | None:
        self._check()
        return None if self.ca_file is None else _path(self.ca_file)

    @property
    def certificate(self) -> tuple[str, str | None] | None:
        """The files of the client's certificate and of its key; the key may be in the same file."""
        self._check()
        if self.client_cert is None:
            return None
        if isinstance(self.client_cert, str | os.PathLike):
            return _path(self.client_cert), None
        certificate, key = self.client_cert
        return _path(certificate), _path(key)

    def _check(self) -> None:
        if self._refusal:
            raise ConfigurationError(self._refusal)

    def context(self) -> SSLContext:
        """Return a context for the standard library and all that builds on it.

        Raises ``ConfigurationError`` for unusable files.
        """
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.authorities)
        except OSError as error:  # SSLError too
            raise ConfigurationError(
                f"ca_file={self.authorities!r} is not a PEM file of certificate authorities: {error.strerror or error}."
            ) from error
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate is not None:
            try:
                context.load_cert_chain(*self.certificate, password="")  # else it would ask the terminal
            except OSError as error:
                raise ConfigurationError(
                    f"client_cert={self.client_cert!r} is not a PEM file with a certificate and its unencrypted key: "
                    f"{error.strerror or error}."
                ) from error
        return context


def tls_cause(error: BaseException | None) -> SSLError | None:
    """Return the TLS error that is an error or its cause; None if TLS was cut off at a timeout."""
    import ssl

    while error is not None and not isinstance(error, ssl.SSLError | TimeoutError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, ssl.SSLError) else None


def tls_trouble(cause: SSLError) -> str:
    """Explain why the two sides could not agree, and suggest options."""
    reason = getattr(cause, "verify_message", "") or cause.reason or str(cause)
    return (
        f"{reason}. Give tls=Tls(ca_file='/path/to/ca.pem') for a private authority, with client_cert=… where the "
        f"server wants a certificate, or check that the server speaks https."
    )


def _path(file: str | os.PathLike[str]) -> str:
    return str(Path(file).expanduser())
