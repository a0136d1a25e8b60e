"""What the statuses of an HTTP answer mean, on all engines."""

from __future__ import annotations

from flowyml.core.errors import EngineError, ServerTroubleError
from flowyml.orchestrators.http import ConflictError, NotFoundError, RefusedError

__all__ = ["STATUSES"]

STATUSES: list[tuple[int, type[EngineError]]] = [
    (400, RefusedError), (404, NotFoundError), (409, ConflictError), (422, RefusedError),
    (500, ServerTroubleError), (501, ServerTroubleError),
]  # fmt: skip
