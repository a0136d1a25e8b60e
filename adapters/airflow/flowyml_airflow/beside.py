"""A pipeline's bundle as plain files beside its DAG file, for people to review, and one runtime for all DAGs.

The DAG file's last line lists the plain files. Zipped, they have the digest that the DAG file names, so a task never
runs a file that was exchanged. A version that a deployment replaces stays as that zip file, for tasks that have read
the DAG file before.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowyml._version import __version__
from flowyml.core.errors import EngineError
from flowyml.core.zips import zipped
from flowyml.plan.marks import mark_of
from flowyml.plan.runtime_files import python_files, runtime_files
from flowyml.runtime.processes import can_fork
from flowyml.runtime.unpacking import unpack_bundle_bytes
from flowyml_airflow.names import BUNDLES_FOLDER

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = [
    "Runtime", "bundle_in", "is_airflows", "kept_path", "plain_bundle", "plain_files", "runtime", "unpacked",
]  # fmt: skip

_AT_HOME = frozenset({"cli", "migration", "testing"})
_JSON = ("bundle.json", "plan.json")


class Runtime(NamedTuple):
    """FlowyML and this package as one zip file, whose name ends with a part of its digest."""

    name: str
    data: bytes


@cache
def runtime() -> Runtime:
    """Return the runtime of this FlowyML: the same for all pipelines."""
    ours = {f"flowyml_airflow/{path}": data for path, data in python_files(Path(__file__).parent)}
    data = zipped(sorted({**runtime_files(_AT_HOME), **ours}.items()))
    return Runtime(f"flowyml-{__version__}-{hashlib.sha256(data).hexdigest()[:32]}.pyz", data)


def plain_bundle(bundle: Bundle) -> Bundle:
    """Return a bundle without what the runtime has, and with JSON in lines."""
    files = {path: data for path, data in bundle.files.items() if not _is_runtimes(path)}
    lines = {path: json.dumps(json.loads(files[path]), indent=1, ensure_ascii=False) for path in _JSON if path in files}
    return bundle.repacked({**files, **{path: f"{text}\n".encode() for path, text in lines.items()}})


def _is_runtimes(path: str) -> bool:
    package, _, rest = path.partition("/")
    return package in ("flowyml_airflow", "__main__.py") or (
        package == "flowyml" and rest.partition("/")[0] not in _AT_HOME
    )


def plain_files(dag: str, bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a plain bundle, by their paths in the DAGs folder."""
    return {f"{BUNDLES_FOLDER}/{dag}/{path}": data for path, data in bundle.files.items()}


def kept_path(facts: Mapping[str, Any]) -> str:
    """Return the path of the zip file of a replaced version, by the facts in its DAG file."""
    return f"{BUNDLES_FOLDER}/{facts['bundle_file']}"


def bundle_in(read: Callable[[str], bytes | None], facts: Mapping[str, Any]) -> bytes | None:
    """Return the bundle that the facts of a DAG file name, from its plain files or its zip file; else None.

    ``read`` returns a file of the DAGs folder, by its path.
    """
    paths, digest = facts.get("files", ()), facts.get("bundle")
    for data in (_zip_of(read, paths), read(kept_path(facts)) if facts.get("bundle_file") else None):
        if data is not None and hashlib.sha256(data).hexdigest() == digest:
            return data
    return None


def _zip_of(read: Callable[[str], bytes | None], paths: Iterable[str]) -> bytes | None:
    """Return plain files as their zip file; None if one is missing, or is not below the folder of a DAG."""
    files = {}
    for path in paths:
        folder, _, name = path.partition("/")[2].partition("/")
        data = None if ".." in path.split("/") or not path.startswith(f"{BUNDLES_FOLDER}/{folder}/") else read(path)
        if data is None:
            return None
        files[name] = data
    return zipped(sorted(files.items())) if files else None


def unpacked(dag_file: Path, runtime_file: Path, digest: str, python: str) -> Path:
    """Return the folder of the code of a DAG's steps, on the worker's disk; with the runtime, where no fork has it.

    ``digest`` is that of the bundle when Airflow read the DAG file, which may have been replaced since. Raises
    ``EngineError`` for a file that is not of that version.
    """
    mark = mark_of(dag_file.read_bytes())
    kept = next(runtime_file.parent.glob(f"*-{digest[:8]}.pyz"), None)
    facts = {"files": mark.facts.get("files", ()) if mark else (), "bundle": digest}
    data = bundle_in(lambda path: _content(dag_file.parent / path), {**facts, "bundle_file": kept.name if kept else ""})
    if data is None:
        raise EngineError(
            f"The files in {runtime_file.parent} are not those of {dag_file}: one was changed or is missing, or they "
            f"were replaced while this task started. Compile or deploy the pipeline again."
        )
    has_runtime = is_airflows(python) and can_fork()
    return unpack_bundle_bytes(data, *(() if has_runtime else (runtime_file.read_bytes(),)))


def is_airflows(python: str) -> bool:
    """Return whether an interpreter is the one of this process, Airflow's own: steps are forks of it then."""
    return Path(python).absolute() == Path(sys.executable).absolute()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
