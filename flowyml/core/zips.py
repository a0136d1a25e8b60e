"""The one way in which FlowyML writes zip files: the same files give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from zipfile import ZipFile, ZipInfo

__all__ = ["zipped"]

_SHEBANG = b"#!/usr/bin/env python3\n"


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip file of these files, by their paths, that a Python can run.

    Without compression: the bytes would otherwise depend on the version of zlib.
    """
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with ZipFile(buffer, "w") as archive:
        for path, data in files:
            entry = ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
