"""A value becomes JSON that any engine can carry: the value itself when it is small and plain, else a reference."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from flowyml.artifacts.formats import FORMATS, format_for
from flowyml.artifacts.store import Store, verify
from flowyml.core.errors import ArtifactError
from flowyml.plan.names import slug

__all__ = ["artifact_key", "is_reference", "pack", "unpack"]

REFERENCE = "$artifact"
INLINE_LIMIT = 65536
_DEEPEST = 100


def artifact_key(run_id: str, step: str, attempt: int, output: str) -> str:
    """Where the output of an attempt stands in a store, whatever the names are."""
    return f"{slug(run_id, max_length=100)}/{slug(step)}/{attempt}/{slug(output)}"


def pack(value: Any, store: Store, *, key: str, inline_limit: int = INLINE_LIMIT) -> Any:
    """JSON that stands for a value. Plain values up to ``inline_limit`` bytes of JSON are that JSON themselves.

    Plain is what JSON gives back exactly: no tuples, no NaN, no integers beyond 64 bits, which some engines refuse.
    Raises ``ArtifactError`` when the value cannot be stored.
    """
    if is_plain(value) and not is_reference(value) and len(encoded := _json(value)) <= inline_limit:
        return json.loads(encoded) if isinstance(value, list | dict) else value
    chosen = format_for(value)
    written = store.write(f"{key}{chosen.suffix}", lambda file: chosen.write(value, file))
    return {
        REFERENCE: {
            "url": written.url,
            "format": chosen.name,
            "sha256": written.sha256,
            "size": written.size,
            "type": f"{type(value).__module__}.{type(value).__qualname__}",
        }
    }


def unpack(packed: Any, store: Store) -> Any:
    """The value that ``pack`` was given. Raises ``ArtifactError`` when it is gone or not what was written."""
    if not is_reference(packed):
        return packed
    reference = packed[REFERENCE]
    try:
        url, found = reference["url"], FORMATS[reference["format"]]
        sha256, size = reference["sha256"], reference["size"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"This is no reference to an artifact that can be read here: {reference!r:.200}") from error
    with store.local_copy(url) as path:
        verify(path, url, sha256, size, content=not found.mapped)
        try:
            return found.read(path)
        except ArtifactError:
            raise
        except Exception as error:  # whatever a user's __setstate__ or a damaged file leads to
            raise ArtifactError(f"Artifact {url} cannot be read as {found.name}: {error!r}") from error


def is_reference(packed: Any) -> bool:
    """True for what stands for a stored value."""
    return isinstance(packed, Mapping) and REFERENCE in packed


def is_plain(value: Any, depth: int = 0) -> bool:
    """True for what every engine's JSON gives back just as it was."""
    kind = type(value)
    if value is None or kind is bool:
        return True
    if kind is int:
        return -(2**63) <= value < 2**63
    if kind is float:
        return math.isfinite(value)
    if kind is str:
        return _is_plain_text(value)
    if depth > _DEEPEST:
        return False
    if kind is list:
        return all(is_plain(item, depth + 1) for item in value)
    return kind is dict and all(
        type(key) is str and _is_plain_text(key) and is_plain(item, depth + 1) for key, item in value.items()
    )


def _is_plain_text(text: str) -> bool:
    """Databases refuse NUL characters, and no UTF-8 has lone surrogates."""
    return text.isascii() and "\0" not in text or "\0" not in text and _encodes(text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
