"""The DAGs folder, as a path or an fsspec URL: files go there, since Airflow's REST API takes no code."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from flowyml.artifacts.housekeeping import modified
from flowyml.core.errors import ConfigurationError
from flowyml.core.files import refuse_others_link, unfinished_name, whole_file
from flowyml.core.removal import remove, remove_empty
from flowyml.core.urls import redact_url

__all__ = ["Folder", "open_folder"]

_T = TypeVar("_T")


class Folder(ABC):
    """Small files by relative path. ``name`` is for messages and contains no credentials."""

    name: str

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return the content; None if there is no such file."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a file, all or nothing. Raises ``ConfigurationError``."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file if it exists. Raises ``ConfigurationError``."""

    def remove_own(self, path: str) -> None:
        """Remove a file, unless it is another user's or is reached through a link; and folders that are empty then."""
        self.remove(path)

    @abstractmethod
    def about(self, path: str) -> tuple[int, float | None]:
        """Return the size of a file in bytes, and its time of writing in seconds since 1970.

        None if the time is unknown.
        """

    @abstractmethod
    def names(self, path: str = "") -> list[str]:
        """Return the names of the files in a folder below this one; empty if there is no such folder."""

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return the contents of those files that exist."""
        return [data for path in paths if (data := self.read(path)) is not None]

    def local(self, path: str) -> Path | None:
        """Return the path of the file on this machine; None if the folder is elsewhere."""
        return None

    def _refused(self, error: BaseException) -> ConfigurationError:
        reason = getattr(error, "strerror", None) or error
        return ConfigurationError(
            f"dags_folder={self.name!r} cannot be written: {reason}. Give the folder that Airflow reads its DAGs from, "
            f"and the right to write there."
        )

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(
            f"dags_folder={self.name!r} is not a folder. Give the one that Airflow reads its DAGs from."
        )


class LocalFolder(Folder):
    """A local or mounted folder. It must exist: Airflow does not read a new one."""

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
            raise self._missing()
        try:
            refuse_others_link(target.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._replace(target, data)
        except OSError as error:
            raise self._refused(error) from error

    def remove(self, path: str) -> None:
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from error

    def remove_own(self, path: str) -> None:
        parts = path.split("/")
        try:
            remove(self.root, *parts)
        except OSError as error:
            raise self._refused(error) from error
        while len(parts) > 1 and remove_empty(self.root, *parts[:-1]):
            parts.pop()

    def about(self, path: str) -> tuple[int, float | None]:
        try:
            status = (self.root / path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return 0, None
        except OSError as error:
            raise self._refused(error) from error
        return status.st_size, status.st_mtime

    def names(self, path: str = "") -> list[str]:
        try:
            return sorted(item.name for item in (self.root / path).iterdir() if item.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._refused(error) from error

    def local(self, path: str) -> Path:
        return self.root / path

    @staticmethod
    def _replace(target: Path, data: bytes) -> None:
        with whole_file(target) as file:
            file.write(data)
            file.flush()
            os.chmod(file.fileno(), 0o644)  # noqa: PTH101  # a descriptor
            _make_newer(file, target)


def _make_newer(fresh: BinaryIO, target: Path) -> None:
    """Give a file a later second than the one it replaces.

    Airflow imports DAG files, and Python takes a file of the same second and size for the one whose bytecode it keeps
    in ``__pycache__``: another hour of a schedule, written within that second, would never be read. Source: PEP 552.
    """
    with suppress(FileNotFoundError):
        second = int(target.stat().st_mtime)
        if os.stat(fresh.fileno()).st_mtime < second + 1:  # noqa: PTH116  # a descriptor
            os.utime(fresh.fileno(), (second + 1, second + 1))


class FsspecFolder(Folder):
    """A folder that fsspec reaches: s3://, gs://, sftp:// and more. A file is moved into place when it is complete.

    The folder is opened at first use, and again after a lost connection.
    """

    def __init__(self, url: str) -> None:
        self.name = redact_url(url)
        self._user = self._user_part(url)
        try:
            import fsspec

            fsspec.get_filesystem_class(url.partition("://")[0])
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f"dags_folder={self.name!r}: {error}") from error
        self._url = url
        self._reached: tuple[Any, str] | None = None

    def read(self, path: str) -> bytes | None:
        return self._call(lambda files, root: self._content(files, f"{root}/{path}"))

    def write(self, path: str, data: bytes) -> None:
        self._call(lambda files, root: self._put(files, root, path, data))

    def remove(self, path: str) -> None:
        self._call(lambda files, root: self._take_away(files, f"{root}/{path}"))

    def about(self, path: str) -> tuple[int, float | None]:
        return self._call(lambda files, root: self._described(files, f"{root}/{path}"))

    def names(self, path: str = "") -> list[str]:
        return self._call(lambda files, root: self._listed(files, f"{root}/{path}".rstrip("/")))

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Read the files in one call: object stores are slow with one request after another."""
        plain = [path for path in paths if not set(path) & set("*?[]")]  # fsspec takes others for patterns
        contents: dict[str, bytes] = self._call(
            lambda files, root: files.cat([f"{root}/{path}" for path in plain]) if plain else {}
        )
        return [*contents.values(), *super().read_all([path for path in paths if path not in plain])]

    def _user_part(self, url: str) -> str:
        """Return the part of a URL with user and password, which some libraries repeat in errors.

        Raises ``ConfigurationError``.

        fsspec does not decode ``%2F``, so some passwords cannot be in a URL; they go into fsspec's configuration.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port  # an invalid port is a part of the password
        except ValueError:
            raise ConfigurationError(
                f"dags_folder={self.name!r}: its user name or password contains a character that a URL cannot hold, "
                f"such as / or #. Leave both out of the URL and set them for fsspec, such as FSSPEC_SFTP_PASSWORD=…."
            ) from None
        return parts.netloc.rpartition("@")[0]

    def _refused(self, error: BaseException) -> ConfigurationError:
        refusal = super()._refused(error)
        return ConfigurationError(str(refusal).replace(self._user, "…")) if self._user else refusal

    def _call(self, action: Callable[[Any, str], _T]) -> _T:
        """Call ``action`` with filesystem and root; if that fails on an old connection, repeat it on a new one."""
        from fsspec.core import url_to_fs

        try:
            if self._reached:
                with suppress(Exception):
                    return action(*self._reached)
            self._reached = url_to_fs(self._url, skip_instance_cache=True)
            return action(*self._reached)
        except ConfigurationError:
            raise
        except Exception as error:  # each filesystem has errors of its own
            raise self._refused(error) from error

    @staticmethod
    def _content(files: Any, target: str) -> bytes | None:
        try:
            return bytes(files.cat_file(target))
        except FileNotFoundError:
            return None

    @staticmethod
    def _listed(files: Any, folder: str) -> list[str]:
        try:
            entries = files.ls(folder, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(item["name"].rpartition("/")[2] for item in entries if item["type"] == "file")

    @staticmethod
    def _described(files: Any, target: str) -> tuple[int, float | None]:
        try:
            files.invalidate_cache()
            entry = files.info(target)
        except (FileNotFoundError, NotADirectoryError):
            return 0, None
        return int(entry.get("size") or 0), modified(entry)

    @staticmethod
    def _take_away(files: Any, target: str) -> None:
        with suppress(FileNotFoundError):
            files.rm_file(target)

    def _put(self, files: Any, root: str, path: str, data: bytes) -> None:
        target = f"{root.rstrip('/')}/{path}"
        parent = target.rpartition("/")[0]
        beside = f"{parent}/{unfinished_name()}"
        try:
            try:
                files.pipe_file(beside, data)
            except FileNotFoundError:
                if not files.exists(root):  # on S3, fsspec would make the bucket as well
                    raise self._missing() from None
                files.makedirs(parent, exist_ok=True)
                files.pipe_file(beside, data)
            files.mv(beside, target)
        except Exception:
            with suppress(Exception):
                files.rm_file(beside)
            raise


def open_folder(place: str | os.PathLike[str] | None) -> Folder | None:
    """Open the folder at a path or a URL; None for None. Raises ``ConfigurationError``."""
    if place is None:
        return None
    text: Any = os.fspath(place)
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://").removeprefix("localhost"))
    return FsspecFolder(text) if "://" in text else LocalFolder(Path(text).expanduser().absolute())
