"""KFP's own store of artifacts, read through ml-pipeline-ui, where it cannot be reached itself: MinIO, S3, GCS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from flowyml.artifacts.store import Store, Written, passing_file
from flowyml.core.errors import ArtifactError, EngineError
from flowyml_kubeflow.client import Client

__all__ = ["UiStore"]

_SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}  # source: KFP, frontend/server/handlers/artifacts.ts


class UiStore(Store):
    """What one run wrote: KFP puts the run's id into the path of each artifact, and another run's are not read."""

    def __init__(self, client: Client, run_id: str, *, size: int = 0) -> None:
        super().__init__(f"{client.where}/artifacts")
        self.client = client
        self.run_id = run_id
        self.size = size

    def holds(self, url: str) -> bool:
        parts = urlsplit(url)
        steps = parts.path.split("/")[1:]
        leads_down = all(step not in ("", ".", "..") for step in steps) and "\\" not in url
        plain = not (parts.query or parts.fragment or parts.username)
        return parts.scheme in _SOURCES and bool(parts.netloc) and plain and leads_down and self.run_id in steps[:-1]

    def write(self, key: str, produce: Callable[..., None]) -> Written:
        raise ArtifactError("KFP's UI takes no artifacts.")

    @contextmanager
    def fetch(self, written: Written, *, once: bool = False) -> Iterator[Path]:
        """As any store does; no more is loaded than was written."""
        with Store.fetch(UiStore(self.client, self.run_id, size=written.size), written) as path:
            yield path

    @contextmanager
    def local_copy(self, url: str) -> Iterator[Path]:
        parts = urlsplit(url)
        page = f"/artifacts/{_SOURCES[parts.scheme]}/{parts.netloc}{quote(parts.path)}"
        with passing_file() as (path, file):
            try:
                self.client.download(page, file.write, self.size)
            except EngineError as error:
                raise ArtifactError(f"KFP's UI does not give {url}: {error}") from error
            yield path
