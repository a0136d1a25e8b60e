"""Previews of outputs: kind, facts, the head of a table, a picture.

A preview is part of the reference to the stored value. So it is small, whatever the value is: engines store it in
databases.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from flowyml.artifacts.optional import require
from flowyml.artifacts.packing import REFERENCE, is_reference
from flowyml.artifacts.plain import INLINE_LIMIT, is_plain, without_floats
from flowyml.artifacts.store import Store
from flowyml.core.plain_text import storable_text
from flowyml.plan.kinds import kind_of

__all__ = ["noted_preview", "preview_of"]

logger = logging.getLogger("flowyml.artifacts")

Text = Callable[[str], str]

_ROWS, _COLUMNS, _CELL = 10, 12, 40  # of the head of a table
_MOST_BYTES = 8000  # of a preview, as JSON
_LONGEST = 500  # characters of a text's beginning
_WIDTH = 10  # inches at most of a picture's longer side; its height and width go together
_PARTS = frozenset({"kind", "name", "head", "metadata"})  # of a preview; a picture is a file of its own
_SAYS_IT_ITSELF = frozenset({"", "text", "metrics", "data"})


def preview_of(
    value: Any,
    store: Store | None,
    key: Callable[[], str],
    *,
    kind: str = "",
    facts: Mapping[str, Any] = {},
    mask: Text = str,
) -> dict[str, Any]:
    """Return the preview of a value, for its reference; empty for plain values, which show themselves.

    Without a ``store`` there is no picture. ``kind`` is that of the annotation, ``facts`` are those that the step
    reported. ``mask`` removes secrets from a text. Parts that cannot be shown are left out and logged; no step fails.
    """
    kind = kind or kind_of(value)
    is_stored = (kind == "text" and len(value) > INLINE_LIMIT) or (kind == "metrics" and not is_plain(value))
    if not facts and kind in _SAYS_IT_ITSELF and not is_stored:
        return {}
    preview: dict[str, Any] = {"kind": kind}

    def shown(text: str) -> str:
        return storable_text(mask(text))

    if isinstance(value, Path):
        preview["name"] = mask(value.name)
    try:
        preview |= _seen(value, kind, store, key, shown)
    except Exception as error:  # whatever the value's library raises
        logger.warning("An output of kind %s is kept, and cannot be shown: %s: %s", kind, type(error).__name__, error)
    known = {**preview.pop("facts", {}), **facts}
    if known:
        preview["metadata"] = {
            shown(name): shown(fact) if isinstance(fact, str) else fact for name, fact in known.items()
        }
    return _bounded(preview)


def noted_preview(noted: Any, value: Any, store: Store, key: Callable[[], str]) -> dict[str, Any]:
    """Return the preview of a value that is stored only now, from the reference noted when its step returned it."""
    if not is_reference(noted):
        return {}
    preview = {part: shown for part, shown in noted[REFERENCE].items() if part in _PARTS}
    return {**preview, **preview_of(value, store, key, kind="figure")} if preview.get("kind") == "figure" else preview


def _seen(value: Any, kind: str, store: Store | None, key: Callable[[], str], mask: Text) -> dict[str, Any]:
    match kind:
        case "table":
            return _of_table(value, mask)
        case "array":
            return {"facts": {"shape": "×".join(map(str, value.shape)) or "()", "dtype": str(value.dtype)}}
        case "figure" if store is not None:
            return _of_figure(value, store, key)
        case "metrics" if isinstance(value, Mapping):
            return {"facts": {str(name)[:_CELL]: _fact(number) for name, number in islice(value.items(), 100)}}
        case "text" | "markdown" if isinstance(value, str):
            return {"head": mask(value[: 4 * _LONGEST])[: 4 * _LONGEST]}
        case "file" if isinstance(value, Path) and value.is_file():
            return {"facts": {}}
        case "folder" if isinstance(value, Path):
            return {"facts": {"files": sum(1 for path in islice(value.rglob("*"), 100_000) if path.is_file())}}
        case "model":
            return {"facts": {"class": f"{type(value).__module__}.{type(value).__qualname__}"}}
    return {}


def _fact(number: Any) -> Any:
    """Return a number that databases accept: they refuse NaN and integers of more than 64 bits."""
    plain = without_floats(number)
    return plain if is_plain(plain) else str(number)


def _of_table(table: Any, mask: Text) -> dict[str, Any]:
    columns, rows, count = _head(table)
    cells = [[_cell(cell, mask) for cell in row[:_COLUMNS]] for row in rows]
    more = {"more_columns": len(columns) - _COLUMNS} if len(columns) > _COLUMNS else {}
    named = [_cell(column, mask) for column in columns[:_COLUMNS]]
    return {"facts": {"rows": count, "columns": len(columns)}, "head": {"columns": named, "rows": cells, **more}}


def _head(table: Any) -> tuple[Sequence[Any], list[Sequence[Any]], int]:
    """Return columns, first rows and the number of rows of a frame of pandas or Polars, a table of Arrow, or dicts."""
    if isinstance(table, Sequence):
        columns = list(dict.fromkeys(name for row in table[:_ROWS] for name in row))
        return columns, [[row.get(name) for name in columns] for row in table[:_ROWS]], len(table)
    if hasattr(table, "iloc"):
        return list(table.columns), [list(row) for row in table.iloc[:_ROWS].itertuples(index=False)], len(table)
    if hasattr(table, "to_pylist"):
        first = table.slice(0, _ROWS)
        return table.column_names, [list(row) for row in zip(*first.to_pydict().values(), strict=True)], table.num_rows
    return table.columns, list(table.head(_ROWS).rows()), table.height


def _cell(cell: Any, mask: Text) -> str:
    """Return the text of a cell. It is masked before it is cut: the mask would not find a secret that ends in "…"."""
    text = "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    text = mask(f"{text}.0" if isinstance(cell, float) and text.lstrip("-").isdecimal() else text)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _of_figure(figure: Any, store: Store, key: Callable[[], str]) -> dict[str, Any]:
    """Store the picture of a figure beside the value: PNG for matplotlib's, a self-contained page for plotly's."""
    if hasattr(figure, "savefig"):
        longer = max(figure.get_size_inches())
        dpi = min(100.0, 100.0 * _WIDTH / longer)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
        data, media, suffix = file.getvalue(), "image/png", ".png"
    else:
        page = require("plotly.io").to_html(figure, include_plotlyjs=True, full_html=True, div_id="figure")
        data, media, suffix = page.encode(), "text/html", ".html"
    written = store.write(f"{key()}{suffix}", lambda file: file.write(data))
    return {"picture": {"url": written.url, "sha256": written.sha256, "size": written.size, "media": media}}


def _bounded(preview: dict[str, Any]) -> dict[str, Any]:
    """Drop parts of a preview that is too large: rows of the head first, then facts, the last ones first."""
    for smaller in _smaller(preview):
        if len(json.dumps(smaller, ensure_ascii=False).encode("utf-8", "replace")) <= _MOST_BYTES:
            return smaller
    return {"kind": preview["kind"]}


def _smaller(preview: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield preview
    head = preview.get("head")
    if isinstance(head, dict):
        for count in (5, 2, 0):
            yield {**preview, "head": {**head, "rows": head["rows"][:count]}}
    bare = {name: part for name, part in preview.items() if name != "head"}
    facts = list(preview.get("metadata", {}).items())
    for count in (len(facts), 20, 5, 0):
        yield {**bare, "metadata": dict(facts[:count])}
