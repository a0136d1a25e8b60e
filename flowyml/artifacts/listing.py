"""Describe an output without reading it, from the reference or value that travels between steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowyml.artifacts.packing import is_reference
from flowyml.core.runs import Artifact
from flowyml.plan.kinds import kind_of

__all__ = ["artifacts_of", "artifact_of"]

_BY_FORMAT = {
    "text": "text", "npy": "array", "torch": "array", "parquet": "table", "parquet-arrow": "table",
    "parquet-polars": "table", "file": "file", "folder": "folder", "plotly": "figure",
}  # fmt: skip


def artifact_of(step: str, output: str, packed: Any, index: Sequence[int] = ()) -> Artifact | None:
    """Return the artifact for a reference or metrics; None for other plain values, and for what an engine garbled."""
    whose: dict[str, Any] = {"step": step, "name": output, "index": tuple(index), "packed": packed}
    if not is_reference(packed):
        if kind_of(packed) != "metrics":
            return None
        from hashlib import sha256

        data = json.dumps(packed, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        return Artifact(type="metrics", size=len(data), digest=sha256(data).hexdigest(), metadata=packed, **whose)
    about = packed["$artifact"]
    if not isinstance(about, Mapping):
        return None
    written, picture, facts = str(about.get("format", "?")), about.get("picture"), about.get("metadata")
    return Artifact(
        type=str(about.get("kind") or _BY_FORMAT.get(written, "data")), format=written,
        size=_number(about.get("size")), digest=_text(about.get("sha256")), url=_text(about.get("url")),
        metadata=facts if isinstance(facts, Mapping) else {}, head=about.get("head"),
        picture=_text(picture.get("url")) if isinstance(picture, Mapping) else None, **whose,
    )  # fmt: skip


def artifacts_of(step: str, outputs: Mapping[str, Any], index: Sequence[int] = ()) -> Iterable[Artifact]:
    """Return the artifacts among the packed outputs of a step."""
    return (artifact for name, packed in outputs.items() if (artifact := artifact_of(step, name, packed, index)))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
