"""Bounds for what KFP's official client reads: it takes any answer whole, however long it is and however long it takes.

A server, or what stands in its place, could otherwise fill the memory, or hold a command for ever by a byte a second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from io import BytesIO
from typing import Any

from flowyml.core.errors import EngineError
from flowyml.core.web import LARGEST_ANSWER, Deadline

__all__ = ["bounded", "watched_pools"]

_deadline: ContextVar[Deadline | None] = ContextVar("_deadline", default=None)


def bounded(request: Callable[..., Any], where: str, seconds: float) -> Callable[..., Any]:
    """A pool manager's ``request`` that reads an answer within ``seconds``, and no more of it than is allowed.

    One that the caller reads by itself, ``preload_content=False``, is bounded up to its headers. Raises
    ``EngineError`` for one that is too large, and ``TimeoutError``.
    """

    def ask(*arguments: Any, preload_content: bool = True, **options: Any) -> Any:
        with Deadline(seconds) as deadline:
            token = _deadline.set(deadline)
            try:
                answer = request(*arguments, preload_content=False, **options)
                return _read(answer, where) if preload_content else answer
            except EngineError:
                raise
            except Exception:
                deadline.check()
                raise
            finally:
                _deadline.reset(token)

    return ask


def _read(answer: Any, where: str) -> Any:
    from urllib3 import HTTPResponse

    body = answer.read(LARGEST_ANSWER + 1)
    if deadline := _deadline.get():
        deadline.check()  # an answer without a length just ends where its connection does
    if len(body) > LARGEST_ANSWER:
        answer.close()
        raise EngineError(
            f"KFP at {where} gave an answer of more than {LARGEST_ANSWER / 2**20:g} MB, which is not read."
        )
    answer.release_conn()
    return HTTPResponse(
        BytesIO(body), answer.headers, answer.status, reason=answer.reason,
        decode_content=False,  # it is decoded
    )  # fmt: skip


def watched_pools() -> dict[str, Any]:
    """Pools by scheme, whose connections the deadline of the call can end."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    def watched(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]  # HTTP or HTTPS
            def getresponse(self) -> Any:
                if (deadline := _deadline.get()) and self.sock is not None:
                    deadline.watch(self.sock)
                return super().getresponse()

        return type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": Connection})

    return {"http": watched(HTTPConnectionPool), "https": watched(HTTPSConnectionPool)}
