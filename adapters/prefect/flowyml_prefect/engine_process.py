"""Prefect's private protocol between its engine and the process that starts it: command, variables, control channel.

FlowyML uses no other part of it. ``tests/adapters/prefect/test_contract.py`` tests it with Prefect's own other side.
"""

from __future__ import annotations

import secrets
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Self

__all__ = ["ENGINE_MODULE", "ControlChannel", "run_variables"]

ENGINE_MODULE = "prefect.engine"
_MOST_STRANGERS = 100  # connections that have not sent the token yet
_STRANGER_SECONDS = 5


def run_variables(run_id: str, entrypoint: str) -> dict[str, str]:
    """Return the variables that name the run for the engine to execute, and the flow: ``flow.py:name`` by its path."""
    return {"PREFECT__FLOW_RUN_ID": run_id, "PREFECT__FLOW_ENTRYPOINT": entrypoint}


class ControlChannel:
    """This side of Prefect's control channel: the engine connects, and learns over it why it gets a SIGTERM.

    Without it an engine reports a crash. Source: prefect/runner/_control_channel.py, protocol version 1. An engine
    without such a channel does not connect, and is then killed at once.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(16)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._engine: socket.socket | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the engine needs to connect."""
        port = self._listener.getsockname()[1]
        return {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": self._token}

    def say_cancelled(self) -> bool:
        """Announce the SIGTERM; return True if the engine understood."""
        engine = self._engine
        if engine is None:
            return False
        with suppress(OSError):
            engine.settimeout(1)
            engine.sendall(b"c")
            answer = engine.recv(64)
            while answer and b"a" not in answer:
                answer = engine.recv(64)
            return b"a" in answer
        return False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
        if self._engine is not None:
            self._engine.close()

    def _accept(self) -> None:
        """Accept the connection that sends the token.

        Every program of the machine can connect. A connection that sends nothing blocks no other, and is closed after
        some seconds, or sooner if there are many.
        """
        strangers: dict[socket.socket, float] = {}  # since when each is connected, the oldest first
        while self._engine is None:
            try:
                ready, _, _ = select.select([self._listener, *strangers], [], [], 1)
            except (OSError, ValueError):  # the listener was closed
                break
            for peer in ready:
                if peer is not self._listener:
                    del strangers[peer]
                    self._admit(peer)
                else:
                    with suppress(OSError):  # it has hung up already
                        strangers[self._listener.accept()[0]] = time.monotonic()
            for peer, since in [*strangers.items()]:
                if len(strangers) > _MOST_STRANGERS or time.monotonic() - since > _STRANGER_SECONDS:
                    del strangers[peer]
                    peer.close()
        for peer in strangers:
            peer.close()

    def _admit(self, peer: socket.socket) -> None:
        """Accept a connection whose first bytes are the token, and close any other."""
        peer.setblocking(False)
        with suppress(OSError):
            if secrets.compare_digest(peer.recv(len(self._token) + 1).strip(), self._token.encode()):
                self._engine = peer
                return
        peer.close()
