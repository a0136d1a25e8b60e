"""Where artifacts stand: a folder, or anything that fsspec reaches. Every write is all or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from flowyml.artifacts.hashing import HashingWriter
from flowyml.core.errors import ArtifactError
from flowyml.core.home import home

__all__ = ["Store", "Written", "default_url", "open_store"]

_SAFE_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")
# Object stores show an object only when it is whole, and have no cheap rename.
_WHOLE_PUTS = frozenset({"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "cos", "hf"})


@dataclass(frozen=True, slots=True)
class Written:
    """What was stored: where, how much, and its SHA-256."""

    url: str
    sha256: str
    size: int


class Store(ABC):
    """A root under which artifacts are written once, by key, and read back by URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def write(self, key: str, produce: Callable[[BinaryIO], None]) -> Written:
        """Store what ``produce`` writes. If it raises, nothing is left behind."""

    @abstractmethod
    def local_copy(self, url: str) -> Any:
        """A context manager that gives the path of a file with the artifact's content."""


class LocalStore(Store):
    """A folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"file://{root.as_posix()}")
        self.root = root

    def write(self, key: str, produce: Callable[[BinaryIO], None]) -> Written:
        target = self.root / _checked_key(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _fresh_file(target.parent) as fresh:
                digest, size = _produced(fresh, produce)
                fresh.replace(target)
        except OSError as error:
            raise ArtifactError(f"Artifact {target} could not be written: {error}") from error
        return Written(f"{self.url}/{key}", digest, size)

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise ArtifactError(f"Artifact {url} is not there. It was deleted, or another machine wrote it.")
        yield path


class FsspecStore(Store):
    """Anything that fsspec reaches: s3://, gs://, sftp://, memory:// and more."""

    def __init__(self, url: str) -> None:
        self.filesystem, self.root = _filesystem(url)
        super().__init__(_without_credentials(url).rstrip("/"))

    def write(self, key: str, produce: Callable[[BinaryIO], None]) -> Written:
        target = f"{self.root}/{_checked_key(key)}"
        with _fresh_file(None) as fresh:
            digest, size = _produced(fresh, produce)
            with self._errors("written", f"{self.url}/{key}"):
                self._put(fresh, target)
        return Written(f"{self.url}/{key}", digest, size)

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        if not url.startswith(f"{self.url}/"):
            with FsspecStore(url.rpartition("/")[0]).local_copy(url) as path:
                yield path
            return
        with _fresh_file(None) as fresh:
            with self._errors("read", url):
                self.filesystem.get_file(f"{self.root}{url.removeprefix(self.url)}", str(fresh))
            yield fresh

    def _put(self, fresh: Path, target: str) -> None:
        protocol = urlsplit(self.url).scheme
        self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        if protocol in _WHOLE_PUTS:
            self.filesystem.put_file(str(fresh), target)
            return
        beside = f"{target}.{os.urandom(4).hex()}.part"
        try:
            self.filesystem.put_file(str(fresh), beside)
            self.filesystem.mv(beside, target)
        except BaseException:
            with suppress(Exception):
                self.filesystem.rm_file(beside)
            raise

    @contextmanager
    def _errors(self, verb: str, url: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ArtifactError(f"Artifact {url} is not there.") from error
        except Exception as error:  # each filesystem has errors of its own
            raise ArtifactError(f"Artifact {url} could not be {verb}: {type(error).__name__}: {error}") from error


def default_url() -> str:
    """``FLOWYML_ARTIFACTS``, else a folder among FlowyML's data."""
    return os.environ.get("FLOWYML_ARTIFACTS") or str(home() / "artifacts")


def open_store(url: str | os.PathLike[str] | None = None) -> Store:
    """The store at a path or a URL, by default ``default_url()``. Raises ``ArtifactError``."""
    url = os.fspath(url or default_url())
    for prefix in ("file://", "local://"):
        url = url.removeprefix(prefix)
    if "://" in url:
        return FsspecStore(url)
    return LocalStore(Path(url).expanduser().absolute())


@contextmanager
def _fresh_file(folder: Path | None) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _produced(path: Path, produce: Callable[[BinaryIO], None]) -> tuple[str, int]:
    with path.open("wb", buffering=0) as file, HashingWriter(file) as writer:
        produce(writer)  # type: ignore[arg-type]  # it writes, and that is all that is asked of it
    return writer.sha256, writer.size


def verify(path: Path, url: str, sha256: str, size: int, *, content: bool) -> None:
    """Raise ``ArtifactError`` unless the file is what was written; ``content`` compares the hash too."""
    found = path.stat().st_size
    if found != size:
        raise ArtifactError(f"Artifact {url} has {found} bytes, and {size} were written. Run its step again.")
    if content:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ArtifactError(f"Artifact {url} is not what was written: its SHA-256 differs. Run its step again.")


def _checked_key(key: str) -> str:
    if not _SAFE_KEY.fullmatch(key):
        raise ArtifactError(f"An artifact cannot have the key {key!r}. Make it with artifact_key(…).")
    return key


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise ArtifactError(f"Artifacts at {_without_credentials(url)} need fsspec: pip install fsspec") from error
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ArtifactError(f"Artifacts at {_without_credentials(url)}: {error} {_install_hint(url)}") from error
    except ValueError as error:
        raise ArtifactError(f"Artifacts at {_without_credentials(url)}: {error}.") from error
    return filesystem, str(root).rstrip("/")


def _install_hint(url: str) -> str:
    from fsspec.registry import known_implementations

    target = known_implementations.get(urlsplit(url).scheme, {}).get("class", "")
    return f"(pip install {str(target).partition('.')[0]})" if target else ""


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
