"""Dataclasses to canonical JSON: the same bytes for the same values."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

__all__ = ["canonical_json"]


def canonical_json(value: Any, **always: Any) -> bytes:
    """Serialize with sorted keys, no white space, as UTF-8.

    Defaults are left out, so that a field added later changes no older digest; ``always`` are written in any case. A
    class that is one of several kinds names its kind in ``KIND``.
    """
    text = json.dumps(
        {**_plain(value), **always}, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    cls: type = type(value)
    if not is_dataclass(cls):
        return value
    plain: dict[str, Any] = {}
    for name, default in _fields(cls):
        part = getattr(value, name)
        if part == default and type(part) is type(default):
            continue
        plain[name] = [_plain(p) for p in part] if isinstance(part, tuple) else _plain(part)
    if kind := getattr(cls, "KIND", None):
        plain["kind"] = kind
    return plain


@cache
def _fields(cls: type) -> tuple[tuple[str, Any], ...]:
    """Return the names of a class's fields with their defaults."""
    return tuple(
        (item.name, item.default_factory() if item.default_factory is not MISSING else item.default)
        for item in fields(cls)
    )
