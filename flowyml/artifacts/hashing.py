"""Hash what is written while it is written: a second thread hashes a block as the first one writes it."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Any, BinaryIO

__all__ = ["HashingWriter"]


class HashingWriter:
    """A file to write to; ``sha256`` and ``size`` are those of all that was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        """Write and hash a block: bytes or anything with a buffer."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        self.size += done
        return done

    def flush(self) -> None:
        """Some writers ask for it."""
        self._file.flush()

    def tell(self) -> int:
        """How much was written."""
        return self.size

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        return self._hash.hexdigest()

    def __enter__(self) -> HashingWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None
