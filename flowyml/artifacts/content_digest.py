"""A digest of a value's content: the same for equal values in every process, as far as possible."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

from flowyml.artifacts.files import MOST_ENTRIES
from flowyml.artifacts.hashing import HashingWriter, sha256_of
from flowyml.artifacts.packing import REFERENCE, is_reference, pack, read_reference
from flowyml.artifacts.store import Produce, Store, Written
from flowyml.core.errors import ArtifactError

__all__ = ["content_of", "content_of_value", "files_named_by", "has_object"]

_PLAIN = frozenset({"npy", "parquet", "parquet-arrow", "parquet-polars"})
"""Formats of values without code of their own; files, bytes and texts may be a pickle, or have one in base64."""

_ENCODED = re.compile(r"[\w+/=\n-]{32,}", re.ASCII)


def content_of(packed: Any) -> list[Any]:
    """Return the content of a packed value, as JSON: the value itself if it is small, else its format and SHA-256."""
    if not is_reference(packed):
        return ["json", packed]
    written, form = read_reference(packed[REFERENCE])
    files = (packed[REFERENCE].get(key) for key in ("name", "files"))  # which steps may read
    return ["artifact", form.name, written.sha256, *filter(None, files)]


def content_of_value(value: Any) -> list[Any]:
    """Return the content of a value, as it would be packed. Raises ``ArtifactError`` if it cannot be packed."""
    if type(value) in (datetime.date, datetime.datetime):
        return ["date", repr(value)]  # with the class of its time zone, and its fold
    return content_of(pack(value, _Nowhere(""), key="value"))


def files_named_by(content: list[Any]) -> list[Any]:
    """Return the contents of the files and folders that the texts in a plain input name, as JSON; None if missing.

    Raises ``ArtifactError`` for what cannot be read, and for a folder of too many files.
    """
    kind, *rest = content
    if kind == "list":
        return [file for part in rest for file in files_named_by(part)]
    return [_content_of_path(Path(text)) for text in _texts(rest[0])] if kind == "json" else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _content_of_path(path: Path) -> Any:
    try:
        if path.is_file():
            return sha256_of(path)
        if not path.is_dir():
            return None
        entries = sorted(islice(path.rglob("*"), MOST_ENTRIES + 1))
        if len(entries) > MOST_ENTRIES:
            raise ArtifactError(f"{path} has more than {MOST_ENTRIES:,} files")
        return [[entry.relative_to(path).as_posix(), sha256_of(entry) if entry.is_file() else ""] for entry in entries]
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def has_object(content: list[Any]) -> bool:
    """Return whether the content may have an object of a class, whose methods are code: also as base64 in a text."""
    kind, *rest = content
    if kind == "list":
        return any(map(has_object, rest))
    if kind == "json":
        return any(map(_ENCODED.fullmatch, _texts(rest[0])))
    return kind == "artifact" and rest[0] not in _PLAIN


class _Nowhere(Store):
    """Only hashes what is written to it."""

    def write(self, key: str, produce: Produce) -> Written:
        with Path(os.devnull).open("wb", buffering=0) as nothing, HashingWriter(nothing) as writer:
            produce(writer)  # type: ignore[arg-type]  # it has all methods that formats use
        return Written("", writer.sha256, writer.size)

    def local_copy(self, url: str) -> AbstractContextManager[Path]:
        raise ArtifactError("Nothing was kept.")
