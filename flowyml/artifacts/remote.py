"""Artifacts in anything that fsspec reaches: s3://, gs://, sftp://, memory:// and more.

Credentials and endpoints come from the environment, or from fsspec's own configuration (``FSSPEC_S3_ENDPOINT_URL``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowyml.artifacts.store import Produce, Store, Written, by_content, checked_key, passing_file, write_hashed
from flowyml.core.errors import ArtifactError
from flowyml.core.files import unfinished_name
from flowyml.core.urls import without_credentials

__all__ = ["RemoteStore"]

# Protocols that show an object only when it is complete, and have no cheap rename.
_WHOLE_PUTS = frozenset({"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "cos", "hf"})


class RemoteStore(Store):
    """A root on an fsspec filesystem. Artifacts are written and read through a local file."""

    def __init__(self, url: str) -> None:
        super().__init__(without_credentials(url).rstrip("/"))
        self.filesystem, self.root = _open(url, self.url)
        self._login = "".join(urlsplit(url).netloc.rpartition("@")[:2])

    def write(self, key: str, produce: Produce) -> Written:
        checked_key(key)
        with passing_file() as (path, file):
            digest, size = write_hashed(file, produce)
            key = by_content(key, digest)
            url = f"{self.url}/{key}"
            with self.errors(f"Artifact {url} could not be written"):
                self._put(path, f"{self.root}/{key}")
        return Written(url, digest, size)

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        with passing_file() as (path, _):
            with self.errors(f"Artifact {url} could not be read"):
                self.filesystem.get_file(f"{self.root}{url.removeprefix(self.url)}", str(path))
            yield path

    def take(self, source: Store, written: Written, key: str) -> Written:
        """Have the store itself copy the file, if it can; then its size alone is compared here."""
        key = checked_key(by_content(key, written.sha256))
        if isinstance(source, RemoteStore) and source.url == self.url:
            with self.errors(f"Artifact {written.url} could not be copied"):
                if self._copies(f"{self.root}{written.url.removeprefix(self.url)}", f"{self.root}/{key}"):
                    size = self.filesystem.size(f"{self.root}/{key}")
                    if size != written.size:
                        self.filesystem.rm_file(f"{self.root}/{key}")
                        raise ValueError(f"it has {size} bytes, and {written.size} were written")
                    return Written(f"{self.url}/{key}", written.sha256, written.size)
        return super().take(source, written, key)

    def _copies(self, source: str, target: str) -> bool:
        self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            self.filesystem.cp_file(source, target)
        except NotImplementedError:  # fsspec raises it for a filesystem that cannot copy
            return False
        return True

    def folders(self, root: str, depth: int) -> Iterator[str]:
        top = f"{self.root}/{checked_key(root)}"
        with self.errors(f"{self.url} could not be listed"):
            self.filesystem.invalidate_cache()
            files = self.filesystem.find(top) if self.filesystem.exists(top) else []
        inner = (str(file).partition(f"{top.lstrip('/')}/")[2].split("/")[:depth] for file in files)
        yield from sorted({f"{root}/{'/'.join(parts)}" for parts in inner if len(parts) == depth})

    def remove(self, folder: str) -> None:
        path = f"{self.root}/{checked_key(folder)}"
        with self.errors(f"{self.url}/{folder} could not be deleted"):
            if self.filesystem.exists(path):
                self.filesystem.rm(path, recursive=True)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn what the filesystem raises in this block into an ``ArtifactError`` without the store's login."""
        try:
            yield
        except FileNotFoundError as error:
            raise ArtifactError(f"{what}: it does not exist") from error
        except Exception as error:  # each filesystem has errors of its own
            said = f"{what}: {type(error).__name__}: {error}"  # which may quote the URL
            raise ArtifactError(said.replace(self._login, "")) from (None if self._login else error)

    def _put(self, path: Path, target: str) -> None:
        self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        if urlsplit(self.url).scheme in _WHOLE_PUTS:
            self.filesystem.put_file(str(path), target)
            return
        beside = f"{target.rpartition('/')[0]}/{unfinished_name()}"
        try:
            self.filesystem.put_file(str(path), beside)
            self.filesystem.mv(beside, target)
        except BaseException:
            with suppress(Exception):
                self.filesystem.rm_file(beside)
            raise


def _open(url: str, shown: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise ArtifactError(f"Artifacts at {shown} need fsspec: pip install fsspec") from error
    try:
        filesystem, root = url_to_fs(url)
    except ImportError as error:
        raise ArtifactError(f"Artifacts at {shown} need a package: pip install {_package(shown)} ({error})") from error
    except Exception as error:  # an unknown scheme, or options that the filesystem refuses
        raise ArtifactError(f"Artifacts at {shown} cannot be reached: {str(error).replace(url, shown)}") from None
    return filesystem, str(root).rstrip("/")


def _package(url: str) -> str:
    from fsspec.registry import known_implementations

    module = str(known_implementations.get(urlsplit(url).scheme, {}).get("class", "")).partition(".")[0]
    return module if module != "fsspec" else f"'fsspec[{urlsplit(url).scheme}]'"
