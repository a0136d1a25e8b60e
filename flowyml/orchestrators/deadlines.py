"""Connections of httpcore with one deadline for a whole call, however slowly the server sends."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextvars import ContextVar
from ssl import SSLContext
from typing import Any

import httpcore

__all__ = ["DeadlineBackend"]


class DeadlineBackend(httpcore.NetworkBackend):
    """httpcore's ordinary network. ``until`` is the deadline of this thread's call, by the monotonic clock."""

    def __init__(self, until: ContextVar[float]) -> None:
        self._until = until
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        return _DeadlineStream(stream, self._until)

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, until: ContextVar[float]) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._remaining(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._remaining(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        remaining = self._remaining(timeout, httpcore.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, remaining), self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _remaining(self, timeout: float | None, late: type[httpcore.TimeoutException]) -> float | None:
        """Return the timeout, or the time left until the deadline if that is less."""
        remaining = self._until.get(float("inf")) - time.monotonic()
        if remaining <= 0:
            raise late("the answer was not complete in time")
        return remaining if timeout is None else min(timeout, remaining)
