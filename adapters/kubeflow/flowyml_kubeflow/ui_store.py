"""The files that a run has in KFP's own store, read by KFP's UI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from flowyml.artifacts.store import Produce, Store, Written, passing_file
from flowyml.core.errors import ArtifactError, EngineError
from flowyml_kubeflow.client import Client

__all__ = ["UiStore", "page_of"]

_SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}  # source: KFP, frontend/server/handlers/artifacts.ts


class UiStore(Store):
    """The files of one run: KFP's path of each artifact includes the run's id, and another run's are not read."""

    def __init__(self, client: Client, run_id: str, *, size: int = 0) -> None:
        super().__init__(f"{client.connection.where}/artifacts")
        self.client = client
        self.run_id = run_id
        self.size = size

    def holds(self, url: str) -> bool:
        parts = urlsplit(url)
        steps = parts.path.split("/")[1:]
        leads_down = all(step not in ("", ".", "..") for step in steps) and "\\" not in url
        plain = not (parts.query or parts.fragment or parts.username)
        return parts.scheme in _SOURCES and bool(parts.netloc) and plain and leads_down and self.run_id in steps[:-1]

    def write(self, key: str, produce: Produce) -> Written:
        raise ArtifactError("KFP's UI does not accept artifacts.")

    @contextmanager
    def fetch(self, written: Written, *, once: bool = False) -> Iterator[Path]:
        """Fetch as any store does; no more is read than was written."""
        with Store.fetch(UiStore(self.client, self.run_id, size=written.size), written) as path:
            yield path

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        with passing_file() as (path, file):
            try:
                self.client.download(page_of(url), file.write, self.size)
            except EngineError as error:
                raise ArtifactError(f"KFP's UI does not give {url}: {error}") from error
            yield path


def page_of(url: str) -> str:
    """Return the page of KFP's UI for a file in KFP's store."""
    parts = urlsplit(url)
    return f"/artifacts/{_SOURCES[parts.scheme]}/{parts.netloc}{quote(parts.path)}"
