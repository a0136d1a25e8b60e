"""An engine itself: its health, and the login of a server that FlowyML started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Health", "SignIn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The health of an engine: whether it answers, its version and its address."""

    reachable: bool
    version: str | None = None
    url: str | None = None
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """The user and password with which the owner of a server that FlowyML started signs in to its UI."""

    url: str
    password: str = field(repr=False)
