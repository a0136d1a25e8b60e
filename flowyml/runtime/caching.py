"""Cached results of steps: storing them, checking whether one is valid, and reusing it in a run.

An entry is a folder ``cache/PIPELINE/STEP/KEY`` of an artifact store: the artifacts, and ``record.json``, which is
written when they are complete. The key is a digest of everything that the result depends on, as far as that can be
known. Others may write to the store, so a record is only data: it is checked, it can name only files in its own folder,
and these are copied to the run's own artifacts before a step gets them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from flowyml.artifacts.content_digest import content_of, files_named_by, has_object
from flowyml.artifacts.packing import REFERENCE, is_reference, moved_reference, read_reference
from flowyml.artifacts.pickling import why_no_pickles
from flowyml.artifacts.store import LocalStore, Store, Written
from flowyml.core.errors import ArtifactError
from flowyml.core.locks import lock, unlock
from flowyml.core.modules import first_version, installed_version
from flowyml.core.process_identity import ProcessIdentity, is_alive, this_process
from flowyml.plan.canonical import canonical_json
from flowyml.plan.model import Caching, Step
from flowyml.plan.names import slug
from flowyml.runtime.execution import AttemptOutputs

__all__ = ["ROOT", "LOCK_FILE", "Depends", "Entry", "StepCache", "entries_in", "read_entry"]

logger = logging.getLogger("flowyml.runtime")

ROOT = "cache"
"""The folder of a store with all entries."""

LOCK_FILE = "turn"
"""The file in an entry's folder that the process which computes it has locked."""

_RECORD = "record.json"
_VERSION = 2
_LARGEST = 4_000_000  # bytes of a record
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,200}")
_SAY_SECONDS = 10  # until a step reports that it waits
_POLL_SECONDS = 1  # between two checks whether the process that computes is alive
_SKEW_SECONDS = 3600  # that the clock of another machine may be ahead
_LATEST = 100_000_000_000  # seconds since 1970, of a time that dates can be


class Depends(NamedTuple):
    """The dependencies of a result besides the step itself.

    ``contents`` are those of its inputs, by name, as ``content_of`` returns them; a list of several is ``["list", …]``.
    ``held`` is a digest of the code's state in the calling process, if the step runs in one of its threads. ``dates``
    are those of the run.
    """

    contents: Mapping[str, Any]
    held: str = ""
    dates: Mapping[str, str] = {}


class Entry(NamedTuple):
    """The content of one record. Times are seconds since 1970. ``is_refreshed`` is True if ``refresh`` asked for it."""

    key: str
    pipeline: str
    step: str
    run_id: str
    created: float
    seconds: float
    depends: Mapping[str, Any]
    outputs: Mapping[str, Any]
    is_refreshed: bool = False

    @property
    def size(self) -> int:
        """The bytes of its artifacts."""
        return sum(_size(each) for each in self.outputs.values())


class StepCache:
    """The cached result of one step or item: looks it up in the store ``cached``, or stores it there.

    ``store`` has the run's own artifacts, and ``key_of`` returns the key of an output among them.
    """

    def __init__(
        self, step: Step, depends: Depends, *, pipeline: str, run_id: str, store: Store, cached: Store,
        key_of: Callable[[str], str],
    ) -> None:  # fmt: skip
        assert step.caching is not None
        self._step, self._caching, self._depends = step, step.caching, depends
        self._pipeline, self._run_id = pipeline, run_id
        self._store, self._cached, self._key_of = store, cached, key_of
        self._parts: Mapping[str, Any] = {}
        self._folder = ""

    def outputs(self, compute: Callable[[], dict[str, Any]]) -> AttemptOutputs:
        """Return the packed outputs of the step: those of an earlier run, else those of ``compute``, which are cached.

        A result that cannot be read or cached never fails a step. Raises what ``compute`` raises.
        """
        try:
            self._parts = _parts(self._pipeline, self._step, self._caching, self._depends)
        except ArtifactError as error:  # a file that an input names cannot be read
            logger.warning("step %r is not cached: %s", self._step.name, error)
            return AttemptOutputs(compute())
        key = hashlib.sha256(canonical_json({}, **self._parts)).hexdigest()
        self._folder = f"{ROOT}/{slug(self._pipeline)}/{slug(self._step.name)}/{key}"
        if self._caching.refresh:
            return self._computed(compute)
        outputs = self._found(logging.DEBUG)
        if outputs is not None:  # a step may have no outputs
            return outputs
        with _turn(self._cached, self._folder, self._step.timeout_seconds):  # which checks again, and reports errors
            outputs = self._found(logging.WARNING)
            return self._computed(compute) if outputs is None else outputs

    def _found(self, level: int) -> AttemptOutputs | None:
        try:
            entry = read_entry(self._cached, self._folder)
            if entry is None or not self._is_valid(entry):
                return None
            outputs = {name: self._restore(entry.outputs[name], self._key_of(name)) for name in self._step.outputs}
            _note_use(self._cached, self._folder)
        except ArtifactError as error:
            logger.log(level, "ignored a cached result of step %r: %s", self._step.name, error)
            return None
        return AttemptOutputs(outputs, entry.run_id)

    def _is_valid(self, entry: Entry) -> bool:
        belongs_here = (entry.pipeline, entry.step) == (self._pipeline, self._step.name)
        if not belongs_here or entry.outputs.keys() != set(self._step.outputs):
            raise ArtifactError(f"its record belongs to another step: {self._cached.url}/{self._folder}")
        if any(_is_pickle(output) for output in entry.outputs.values()) and why_no_pickles():
            return False
        ttl, age = self._caching.ttl_seconds, time.time() - entry.created
        return ttl is None or -_SKEW_SECONDS <= age < ttl

    def _restore(self, output: Mapping[str, Any], key: str) -> Any:
        """Return an output of the entry, whose artifacts are copied to the run's own, under ``key``."""
        if "files" not in output:
            return output["value"]
        names = list(output["files"])

        def move(written: Written) -> Written:
            name = names.pop(0) if names else None
            if not isinstance(name, str) or not _FILE.fullmatch(name) or name == _RECORD:
                raise ArtifactError(f"its record names {name!r:.80}, which is not a file in its folder")
            there = written._replace(url=f"{self._cached.url}/{self._folder}/{name}")
            return self._copy(there, f"{key}{PurePosixPath(name).suffix}")

        return moved_reference(output["reference"], move)

    def _copy(self, written: Written, key: str) -> Written:
        """Copy an artifact. Raises ``ArtifactError`` for a file that has changed since it was written."""
        if isinstance(self._cached, LocalStore):
            with self._cached.fetch(written):
                return self._store.take(self._cached, written, key)
        taken = self._store.take(self._cached, written, key)  # which hashes artifacts from elsewhere
        if (taken.sha256, taken.size) != (written.sha256, written.size):
            raise ArtifactError(f"{written.url} is not what was written")
        return taken

    def _computed(self, compute: Callable[[], dict[str, Any]]) -> AttemptOutputs:
        started = time.time()
        outputs = AttemptOutputs(compute())
        try:
            _packages(self._caching)  # raises if one was upgraded meanwhile
            if _files(self._step, self._caching, self._depends) != self._parts.get("files", {}):
                raise ArtifactError("the files that its inputs name changed while it ran")
            self._save(outputs, started)
        except ArtifactError as error:
            logger.warning("the result of step %r is not cached: %s", self._step.name, error)
        return outputs

    def _save(self, outputs: Mapping[str, Any], started: float) -> None:
        saved = {name: self._save_output(name, packed) for name, packed in outputs.items()}
        now = time.time()
        record = {
            "version": _VERSION, "pipeline": self._pipeline, "step": self._step.name, "run_id": self._run_id,
            "created": now, "seconds": now - started, "depends": self._parts, "outputs": saved,
            "refreshed": self._caching.refresh,
        }  # fmt: skip
        data = json.dumps(record, ensure_ascii=False).encode()
        if len(data) > _LARGEST:
            raise ArtifactError(f"its record would have {len(data)} bytes")
        self._cached.write(f"{self._folder}/{_RECORD}", lambda file: file.write(data))

    def _save_output(self, name: str, packed: Any) -> dict[str, Any]:
        """Return an output for the record; its artifacts are copied into the entry's folder."""
        if not is_reference(packed):
            return {"value": packed}
        names: list[str] = []

        def move(written: Written) -> Written:
            names.append(f"{slug(name)}-{written.sha256[:16]}{PurePosixPath(written.url).suffix}")
            return self._cached.take(self._store, written, f"{self._folder}/{names[-1]}")._replace(url="")

        return {"reference": moved_reference(packed, move), "files": names}


@contextmanager
def _turn(store: Store, folder: str, timeout: float | None) -> Iterator[None]:
    """Wait while another process computes the same result, if the store is a folder.

    Otherwise both compute it, and the later record counts. At most half of the step's timeout is spent waiting.
    """
    number = _opened(store, folder)
    if number is None:
        yield
        return
    patience = timeout / 2 if timeout else float("inf")
    silent = min(patience, _SAY_SECONDS)
    try:
        if lock(number, wait=silent) is False and patience > silent:
            logger.warning("waiting for another run that is computing %s", folder)
            end = time.monotonic() + patience - silent
            while time.monotonic() < end and _computes(number) and lock(number, wait=_POLL_SECONDS) is False:
                pass
        _note_computing(number)
        yield
    finally:
        unlock(number)  # also for processes that the step has started, which inherited it
        os.close(number)


def _note_use(store: Store, folder: str) -> None:
    """Set the time of the record to now, since ``prune`` uses it; only if the store is a folder."""
    if isinstance(store, LocalStore):
        with suppress(OSError), store.opened(folder) as opened:
            os.utime(_RECORD, dir_fd=opened, follow_symlinks=False)


def read_entry(store: Store, folder: str) -> Entry | None:
    """Return the entry of a folder; None if it has no record, or one of another version.

    Raises ``ArtifactError`` for a file that is not a record, and for the record of another folder.
    """
    try:
        with store.local_copy(f"{store.url}/{folder}/{_RECORD}") as path:
            if path.is_symlink() or path.stat().st_size > _LARGEST:
                raise ValueError("it is a link, or too large")
            plain = json.loads(path.read_bytes())
    except ArtifactError:
        return None
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{store.url}/{folder} has no readable record: {error}") from error
    try:
        if plain["version"] != _VERSION:
            return None
        key = hashlib.sha256(canonical_json({}, **plain["depends"])).hexdigest()
        entry = Entry(
            key, _text(plain["pipeline"]), _text(plain["step"]), _text(plain["run_id"]), _number(plain["created"]),
            _number(plain["seconds"]), plain["depends"],
            {name: _output(each) for name, each in plain["outputs"].items()}, plain.get("refreshed") is True,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{store.url}/{folder} has an invalid record: {error!r}") from error
    if folder != f"{ROOT}/{slug(entry.pipeline)}/{slug(entry.step)}/{key}":
        raise ArtifactError(f"{store.url}/{folder} holds the record of another result")
    return entry


def entries_in(store: Store) -> Iterator[tuple[str, Entry | None]]:
    """Yield the folders of all entries in a store, with their entries; None for one that cannot be read."""
    for folder in store.folders(ROOT, 3):
        try:
            yield folder, read_entry(store, folder)
        except ArtifactError:
            yield folder, None


def _parts(pipeline: str, step: Step, caching: Caching, depends: Depends) -> dict[str, Any]:
    """Return the parts of the key, as JSON; values appear only as digests."""
    contents = {
        name: content for name, content in depends.contents.items() if _is_counted(step, name, caching.arguments)
    }
    parts: dict[str, Any] = {
        "pipeline": pipeline, "step": step.name, "outputs": list(step.outputs), "code": caching.code,
        "inputs": {name: _digest(content) for name, content in contents.items()},
    }  # fmt: skip
    optional = {
        "data": dict(caching.data),
        "makers": caching.makers if any(map(has_object, contents.values())) else "",
        "files": _files(step, caching, depends),
        "version": caching.version,
        "held": depends.held,
        "environment": {name: _variable(name) for name in caching.environment},
        "packages": _packages(caching),
        "secrets": dict(step.secrets),
        "dates": dict(depends.dates) if caching.dates else {},
    }
    return {**parts, **{name: value for name, value in optional.items() if value}}


def _is_counted(step: Step, name: str, arguments: tuple[str, ...] | None) -> bool:
    if arguments is None:
        return True
    return any(item.name == name and (item.into or item.name) in arguments for item in step.inputs)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _files(step: Step, caching: Caching, depends: Depends) -> dict[str, str]:
    """Return for each input that may name files a digest of their contents."""
    return {
        name: _digest(files_named_by(depends.contents[name]))
        for name in caching.paths
        if name in depends.contents and _is_counted(step, name, caching.arguments)
    }


def _variable(name: str) -> str:
    value = os.environ.get(name)
    return "" if value is None else hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


def _packages(caching: Caching) -> dict[str, str]:
    """Return the versions of packages. Raises ``ArtifactError`` if one was changed while this process ran."""
    return {name: _installed(name) for name in caching.packages}


def _installed(name: str) -> str:
    first, now = first_version(name), installed_version(name)
    if first != now:
        change = f"from {first or 'nothing'} to {now or 'nothing'}"
        raise ArtifactError(f"package {name} was changed {change} while this process ran: restart it")
    return now


def _note_computing(number: int) -> None:
    """Write into the locked file which process computes."""
    with suppress(OSError):
        os.ftruncate(number, 0)
        os.pwrite(number, json.dumps(astuple(this_process())).encode(), 0)


def _computes(number: int) -> bool:
    """Return whether the process that noted itself may be alive; if not, what it has forked may hold its lock."""
    try:
        return is_alive(ProcessIdentity(*json.loads(os.pread(number, _LARGEST, 0)))) is not False
    except (OSError, ValueError, TypeError):
        return True


def _opened(store: Store, folder: str) -> int | None:
    """Open the file that processes lock while they compute an entry; None if that is impossible."""
    if not isinstance(store, LocalStore):
        return None
    try:
        with store.opened(folder, make=True) as opened:
            return os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=opened)
    except OSError:
        return None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise TypeError(f"{value!r:.40} is not a name")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise TypeError(f"{value!r:.40} is not a number of seconds")
    return float(value)


def _output(plain: Any) -> dict[str, Any]:
    if not isinstance(plain, dict) or plain.keys() not in ({"value"}, {"reference", "files"}):
        raise TypeError(f"{plain!r:.80} is not an output")
    if "files" in plain:
        if not isinstance(plain["files"], list) or not is_reference(plain["reference"]):
            raise TypeError(f"{plain!r:.80} is not a reference with a list of files")
        moved_reference(plain["reference"], lambda written: written)  # reads all of it
    if "value" in plain and is_reference(plain["value"]):
        raise TypeError("a reference replaces a value")
    return plain


def _is_pickle(output: Mapping[str, Any]) -> bool:
    return "reference" in output and content_of(output["reference"])[1] == "pickle"


def _size(output: Mapping[str, Any]) -> int:
    return read_reference(output["reference"][REFERENCE])[0].size if "reference" in output else 0
