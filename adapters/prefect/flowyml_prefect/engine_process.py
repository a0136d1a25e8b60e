"""What is private to Prefect between its engine and the process that starts it: command, variables, control channel.

All that FlowyML uses of it stands here. ``tests/adapters/prefect/test_contract.py`` tries it with Prefect's own other
side.
"""

from __future__ import annotations

import secrets
import socket
import threading
from contextlib import suppress
from typing import Self

__all__ = ["ENGINE_MODULE", "ControlChannel", "run_variables"]

ENGINE_MODULE = "prefect.engine"


def run_variables(run_id: str, entrypoint: str) -> dict[str, str]:
    """Which run the engine executes, and the flow: ``flow.py:name`` by its path."""
    return {"PREFECT__FLOW_RUN_ID": run_id, "PREFECT__FLOW_ENTRYPOINT": entrypoint}


class ControlChannel:
    """This side of Prefect's control channel: the engine connects, and learns there why it gets a SIGTERM.

    Without that an engine reports a crash. Source: prefect/runner/_control_channel.py, protocol version 1. An engine
    that knows no such channel does not connect, and is then killed at once.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(16)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._engine: socket.socket | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the engine needs to connect."""
        port = self._listener.getsockname()[1]
        return {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": self._token}

    def say_cancelled(self) -> bool:
        """Announce the SIGTERM; True when the engine understood."""
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
        with suppress(OSError):
            while self._engine is None:
                connection, _ = self._listener.accept()
                connection.settimeout(5)
                if secrets.compare_digest(connection.recv(len(self._token) + 1).strip(), self._token.encode()):
                    self._engine = connection
                else:
                    connection.close()
