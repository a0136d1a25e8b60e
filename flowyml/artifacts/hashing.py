"""Hash data while it is written."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["HashingWriter", "sha256_of"]

_LARGE = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises ``OSError``."""
    import hashlib  # 4 ms, which a worker that stores nothing does not need

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingWriter:
    """A file to write to; ``sha256`` and ``size`` cover everything that was written.

    A large block is hashed by a second thread while this one writes it: neither needs the interpreter's lock.
    """

    def __init__(self, file: BinaryIO) -> None:
        import hashlib

        self._file = file
        self._hash = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self.size = 0

    def write(self, data: Any) -> int:
        """Write and hash a block: bytes, or anything with a contiguous buffer."""
        view = memoryview(data).cast("B")
        hashed = self._start_hashing(view)
        rest = view
        while rest:
            rest = rest[self._file.write(rest) :]
        if hashed:
            hashed.result()
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        """Flush the file; some writers ask for it."""
        self._file.flush()

    def tell(self) -> int:
        """Return the number of bytes that were written."""
        return self.size

    def writable(self) -> bool:
        """Return True; pyarrow asks."""
        return True

    @property
    def closed(self) -> bool:
        """True if the file is closed; pyarrow reads it."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _start_hashing(self, view: memoryview) -> Future[None] | None:
        if len(view) < _LARGE:
            self._hash.update(view)
            return None
        if self._thread is None:
            from concurrent.futures import ThreadPoolExecutor  # 6 ms, which small artifacts do not need

            self._thread = ThreadPoolExecutor(1)
        return self._thread.submit(self._hash.update, view)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._thread.shutdown()
