"""The DAGs folder: where files go, since Airflow's REST API takes no code. A path, or anything that fsspec reaches."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowyml.core.errors import ConfigurationError

__all__ = ["Folder", "open_folder"]


class Folder(ABC):
    """Small files by relative path. ``name`` is how it is called in messages: no credentials are in it."""

    name: str

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The content; None when there is no such file."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Put a file there, all or nothing. Raises ``ConfigurationError``."""

    def _refused(self, error: BaseException) -> ConfigurationError:
        reason = getattr(error, "strerror", None) or error
        return ConfigurationError(
            f"dags_folder={self.name!r} cannot be written: {reason}. Give the folder that Airflow reads its DAGs from, "
            f"and the right to write there."
        )


class LocalFolder(Folder):
    """A folder of this machine, or one that is mounted. It must exist: a new one is none that Airflow reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._refused(error) from error

    def write(self, path: str, data: bytes) -> None:
        target = self.root / path
        if not self.root.is_dir():
            raise ConfigurationError(
                f"dags_folder={self.name!r} is no folder. Give the one that Airflow reads its DAGs from."
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._replace(target, data)
        except OSError as error:
            raise self._refused(error) from error

    @staticmethod
    def _replace(target: Path, data: bytes) -> None:
        handle, fresh = tempfile.mkstemp(dir=target.parent, prefix=".new-")
        try:
            with open(handle, "wb") as file:  # noqa: PTH123  # a descriptor
                file.write(data)
            Path(fresh).chmod(0o644)
            os.replace(fresh, target)  # noqa: PTH105  # the one call that is atomic
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise


class FsspecFolder(Folder):
    """A folder that fsspec reaches: s3://, gs://, sftp:// and more. A file is moved into place when it is whole."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"dags_folder={self.name!r}: {error}") from error

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{path}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each filesystem has errors of its own
            raise self._refused(error) from error

    def write(self, path: str, data: bytes) -> None:
        target = f"{self._root}/{path}"
        beside = f"{target.rpartition('/')[0]}/.new-{os.urandom(4).hex()}"
        try:
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(beside, data)
            self._files.mv(beside, target)
        except Exception as error:  # as above
            with suppress(Exception):
                self._files.rm_file(beside)
            raise self._refused(error) from error


def open_folder(place: str | os.PathLike[str] | None) -> Folder | None:
    """The folder at a path or a URL; None for none. Raises ``ConfigurationError``."""
    if place is None:
        return None
    text: Any = os.fspath(place)
    text = text.removeprefix("file://")
    return FsspecFolder(text) if "://" in text else LocalFolder(Path(text).expanduser().absolute())
