"""The differences of two versions of a pipeline, as unified diffs: its code, its data files and its plan."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256

from flowyml.plan.bundle import Bundle

__all__ = ["bundle_difference", "changed_files", "changed_paths", "difference"]

_USERS = ("code/", "objects/")


def difference(path: str, old: str, new: str) -> str:
    """Return the changes of one text; an added or removed text has ``/dev/null`` on the other side."""
    names = (f"deployed/{path}" if old else "/dev/null", f"new/{path}" if new else "/dev/null")
    return "".join(difflib.unified_diff(_lines(old), _lines(new), *names))


def bundle_difference(old: Bundle, new: Bundle) -> str:
    """Return the changes of the plan and of the user's files, file by file, and whether FlowyML itself changes."""
    before, after = old.files, new.files
    changed = changed_paths(before, after)
    parts = [_changed(path, before.get(path, b""), after.get(path, b"")) for path in changed if path.startswith(_USERS)]
    if "plan.json" in changed:
        parts.append(difference("plan.json", _readable(old), _readable(new)))
    others = [path for path in changed if not path.startswith(_USERS) and path.endswith(".py")]
    if others:
        parts.append(f"FlowyML itself changes, in {len(others)} file{'s' * (len(others) != 1)} of the bundle.\n")
    return "".join(parts)


def changed_files(old: Bundle, new: Bundle) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the user's files and the plan where they differ, each with the beginning of its SHA-256 in both bundles.

    None stands for a file that is not there.
    """
    before, after = old.files, new.files

    def digest(files: Mapping[str, bytes], path: str) -> str | None:
        return sha256(files[path]).hexdigest()[:12] if path in files else None

    for path in changed_paths(before, after):
        if path.startswith(_USERS) or path == "plan.json":
            yield path, digest(before, path), digest(after, path)


def changed_paths(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[str]:
    """Return the paths of the files that differ, or that only one of the bundles has."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def _readable(bundle: Bundle) -> str:
    return json.dumps(json.loads(bundle.plan.canonical), indent=2, ensure_ascii=False) + "\n"


def _changed(path: str, old: bytes, new: bytes) -> str:
    if not path.startswith("objects/"):  # pickles
        with suppress(UnicodeDecodeError):
            return difference(path, old.decode(), new.decode())
    return f"{path} changes: {len(old)} bytes, then {len(new)}.\n"


def _lines(text: str) -> list[str]:
    return [f"{line}\n" for line in text.split("\n")[: -1 if text.endswith("\n") else None]] if text else []
