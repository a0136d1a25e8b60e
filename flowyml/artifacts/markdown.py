"""Artifacts as Markdown, for the UIs of engines: users' data is text there, never markup."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from flowyml.artifacts.listing import artifact_of
from flowyml.artifacts.opening import open_store
from flowyml.artifacts.store import Written
from flowyml.core.durations import size_text
from flowyml.core.markdown import escaped, table
from flowyml.core.runs import Artifact

__all__ = ["artifacts_in", "markdown_of"]

_MOST_FACTS = 50
_LARGEST_PICTURE = 150_000  # bytes of a picture that is embedded in the text
_PNG = b"\x89PNG\r\n\x1a\n"
_NOTE = re.compile(r"<!-- flowyml:([A-Za-z0-9+/=]+) -->\s*\Z")


def markdown_of(artifacts: Iterable[Artifact], store: str | None = None) -> str:
    """Return a section for each artifact, followed by a hidden comment that ``artifacts_in`` reads back.

    Small PNG pictures of figures in the ``store`` are embedded in the text.
    """
    listed = list(artifacts)
    note = [[artifact.step, artifact.name, list(artifact.index), artifact.packed] for artifact in listed]
    data = base64.b64encode(json.dumps(note, ensure_ascii=False).encode()).decode()
    return "\n\n".join([*(_section(artifact, store) for artifact in listed), f"<!-- flowyml:{data} -->"])


def artifacts_in(markdown: Any) -> list[Artifact]:
    """Return the artifacts that ``markdown_of`` wrote into a text; empty for any other text."""
    match = _NOTE.search(markdown) if isinstance(markdown, str) else None
    if match is None:
        return []
    try:
        rows = json.loads(base64.b64decode(match[1]))
        listed = [artifact_of(str(step), str(name), data, tuple(map(int, index))) for step, name, index, data in rows]
    except (ValueError, TypeError):  # written by hand
        return []
    return [artifact for artifact in listed if artifact]


def _section(artifact: Artifact, store: str | None) -> str:
    about = [escaped(artifact.type), *([size_text(artifact.size)] if artifact.size is not None else [])]
    parts = [f"### {escaped(artifact.name)}", ", ".join(about)]
    if artifact.metadata:
        facts = list(artifact.metadata.items())[:_MOST_FACTS]
        parts.append(_table(("fact", "value"), facts))
    if artifact.picture:
        parts.append(_picture(artifact, store))
    if isinstance(artifact.head, str):
        parts.append("\n".join(f"> {escaped(line)}  " for line in artifact.head.splitlines()[:30]))
    elif isinstance(artifact.head, Mapping):
        parts.append(_table(artifact.head.get("columns", ()), artifact.head.get("rows", ())))
    if artifact.url:
        parts.append(f"Stored at {escaped(artifact.url)}")
    return "\n\n".join(parts)


def _table(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    titles = list(map(escaped, columns))
    return table(titles, (map(escaped, row) for row in rows)) if titles else ""


def _picture(artifact: Artifact, store: str | None) -> str:
    """Return the picture itself if it is a small PNG that can be read here, else its URL."""
    about = artifact.packed["$artifact"]["picture"]
    if about.get("media") == "image/png" and about["size"] <= _LARGEST_PICTURE:
        try:
            holder, data = open_store(store), b""
            if holder.holds(about["url"]):
                with holder.fetch(Written(about["url"], about["sha256"], about["size"])) as path:
                    data = path.read_bytes()
            if data.startswith(_PNG):
                return f"![{escaped(artifact.name)}](data:image/png;base64,{base64.b64encode(data).decode()})"
        except OSError:  # it is elsewhere
            pass
    return f"Its picture is at {escaped(artifact.picture)}"
