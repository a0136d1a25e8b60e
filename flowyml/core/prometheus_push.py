"""Send metrics to a Pushgateway, or to a Prometheus server by its remote-write receiver.

A server accepts samples by remote write if a flag allows it (source: Prometheus, *HTTP API*, "Remote Write Receiver").
The request is written here, in a few lines: libraries for it need OpenTelemetry's SDK and native code, and a worker has
neither. OTLP is not used, even if a server's OTLP receiver is on: OpenTelemetry's exporter would bring that SDK, and
Debian builds Prometheus without the receiver.
"""

from __future__ import annotations

import os
import platform
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING

from prometheus_client import pushadd_to_gateway

from flowyml.core.credentials import Login
from flowyml.core.errors import ConfigurationError
from flowyml.core.urls import shown, without_credentials
from flowyml.core.web import Answer, exchange

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

__all__ = ["HTTP_ERRORS", "Destination"]

HTTP_ERRORS = (OSError, HTTPException)
"""The errors of requests if nothing answers, or the answer is wrong."""

_WRITE = "/api/v1/write"
_WRITE_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_LONGEST_ANSWER = 65536


class Destination:
    """The target of metrics: the server that answers at a URL. A user and a password in it are sent with each request.

    Asking and sending raise ``OSError`` and ``HTTPException`` if nothing answers, or the answer is wrong. Redirects
    are not followed: metrics and credentials go only to the given address.
    """

    def __init__(self, url: str, job: str, timeout: float) -> None:
        self._root = without_credentials(url).rstrip("/")
        self._login = Login.in_url(url)
        self._job = job
        self._timeout = timeout
        self._is_server: bool | None = None

    def find(self) -> None:
        """Find out which server answers; nothing is stored by asking.

        Raises ``ConfigurationError`` for a Prometheus server that accepts no samples by remote write.
        """
        about = self._exchange("GET", f"{self._root}/api/v1/status/buildinfo", {}, None).json()
        is_server = isinstance(about, dict) and about.get("status") == "success"
        if is_server and self._write(b"").status in (404, 405):
            raise ConfigurationError(
                f"The Prometheus server at {shown(self._root)} accepts no samples by remote write, and FlowyML sends "
                f"none by OTLP, whether that receiver is on or off. Start the server with "
                f"--web.enable-remote-write-receiver, or give endpoint= the URL of a Pushgateway."
            )
        self._is_server = is_server

    def send(self, registry: CollectorRegistry) -> None:
        """Send the metrics in the registry, and return when they were accepted."""
        if self._is_server is None:
            self.find()
        try:
            if self._is_server:
                _check(self._write(_write_request(registry.collect(), self._job, time.time_ns() // 10**6)))
            else:
                pushadd_to_gateway(self._root, self._job, registry, timeout=self._timeout, handler=self._sender)
        except HTTP_ERRORS:
            self._is_server = None  # something else may answer next time
            raise

    def _write(self, request: bytes) -> Answer:
        return self._exchange("POST", f"{self._root}{_WRITE}", _WRITE_HEADERS, _snappy(request))

    def _sender(
        self, url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        """The function with which prometheus_client sends a request."""
        return lambda: _check(self._exchange(method, url, dict(headers), data))

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        return exchange(
            url, method=method, headers={**headers, **self._login.headers()}, body=body, timeout=self._timeout,
            limit=_LONGEST_ANSWER, cut=True,
        )  # fmt: skip


def _check(answer: Answer) -> None:
    if 300 <= answer.status < 400:
        raise OSError(f"it redirects ({answer.status}). Set endpoint= to the address that it redirects to.")
    if answer.status >= 400:
        raise OSError(f"it answered {answer.status}: {answer.body[:300].decode(errors='replace').strip()}")


def _instance() -> str:
    """The label of this process, which separates the counts of several processes; ``sum`` adds them up."""
    global _known
    if _known is None or _known[0] != os.getpid():
        _known = os.getpid(), f"{platform.node()}:{os.getpid()}-{os.urandom(4).hex()}"
    return _known[1]


_known: tuple[int, str] | None = None


# Remote write 1.0: a protobuf message ``WriteRequest``, compressed by Snappy.


def _write_request(families: Iterable[Metric], job: str, now: int) -> bytes:
    """Encode the request. ``now`` is in milliseconds since 1970. Labels are sorted, as the receiver requires."""
    series = []
    for family in families:
        for sample in family.samples:
            if sample.name.endswith("_created"):  # a time, which the server has no use for
                continue
            labels = {**sample.labels, "__name__": sample.name, "job": job, "instance": _instance()}
            pairs = [_field(1, _field(1, name.encode()) + _field(2, labels[name].encode())) for name in sorted(labels)]
            value = b"\x09" + struct.pack("<d", sample.value) + b"\x10" + _varint(now)
            series.append(_field(1, b"".join(pairs) + _field(2, value)))
    return b"".join(series)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _snappy(data: bytes) -> bytes:
    """Encode data in Snappy's block format, uncompressed, as literals of up to 64 KiB.

    Source: *Snappy compressed format*.
    """
    chunks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
    return _varint(len(data)) + b"".join(b"\xf4" + struct.pack("<H", len(chunk) - 1) + chunk for chunk in chunks)
