"""Calls to Airflow: base URL, credentials, and the meaning of answers that are not Airflow's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowyml.core.credentials import Auth
from flowyml.core.errors import AuthenticationError, EngineError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.http import HttpClient
from flowyml.orchestrators.http import NotFoundError as NotThereError
from flowyml_airflow.connection import Connection, Token, permission, refusal

if TYPE_CHECKING:
    from flowyml.core.web import Answer

__all__ = ["Transport"]

_PATIENCE = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=0.2, max_delay_seconds=2)


class Transport(HttpClient):
    """Calls under one base URL. The client for the major version of this Airflow replaces ``credentials``."""

    engine = "Airflow"
    advice = "Is its API server running?"
    answers_objects = True

    def __init__(
        self, connection: Connection, *, timeout: float, policy: OrchestratorRetryPolicy | None = None
    ) -> None:
        super().__init__(
            connection.url, auth=connection.auth, tls=connection.tls, timeout=timeout, policy=policy or _PATIENCE
        )
        self.connection = connection
        self.credentials: Auth | Token | None = None  # none is needed to ask for the version

    def base(self) -> str:
        return self.connection.checked_address()

    def headers(self) -> dict[str, str]:
        return self.credentials.headers() if self.credentials else self.auth.cookie_header()

    def renew(self, refused: Mapping[str, str]) -> bool:
        return self.credentials.renew(refused) if self.credentials else False

    def foreign_answer(self, answer: Answer, method: str, path: str) -> EngineError:
        """Return the error for an answer that is not JSON: Airflow 2 has a page for paths of Airflow 3's API."""
        if answer.status == 404:
            return NotThereError(f"{self.engine} at {self.url} has no {path}. Is the address right?")
        return super().foreign_answer(answer, method, path)

    def permission(self, method: str, path: str) -> str:
        return permission(method, path)

    def refusal(self, status: int) -> AuthenticationError:
        return refusal(self.connection, status, known=isinstance(self.credentials, Token))
