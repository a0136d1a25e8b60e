"""The mark in every file that FlowyML writes, by which it never replaces a file of another origin.

The mark is one comment line, ``# flowyml: {…}``, with the comment signs of the file's format. Its JSON has facts that
FlowyML reads back, such as the URLs to which people ``copy`` the files beside it, and ``digest``, the SHA-256 of the
rest of the file: a file that was edited since does not match it. The mark is the last line: a mark further up, left by
an edit or part of a user's text, proves nothing. Line endings do not count, since git changes them. Plans and bundles
are FlowyML's own formats and are recognized by reading them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from flowyml.core.errors import FlowymlError
from flowyml.plan.codec import decode

__all__ = ["Mark", "mark_of", "marked", "objection"]

_WORD = b"flowyml: "
_HASH, _PERCENT, _XML = (b"# ", b""), (b"%% ", b""), (b"<!-- ", b" -->")
_SIGNS: Mapping[str, tuple[bytes, bytes]] = {
    **dict.fromkeys((".py", ".yaml", ".yml", ".toml", ".txt", ""), _HASH),
    ".mmd": _PERCENT,
    ".svg": _XML,
}
_DIGEST = re.compile("[0-9a-f]{64}")
_SHEBANG = b"#!"  # of a bundle; no text that FlowyML writes has one


@dataclass(frozen=True, slots=True)
class Mark:
    """Proof that FlowyML wrote a file. ``is_untouched`` is false once anything in it was changed."""

    is_untouched: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


def marked(data: bytes, name: str, facts: Mapping[str, Any] | None = None) -> bytes:
    """Add a mark as the last line of a file's text. A file with a mark, or in a format without comments, is unchanged.

    The suffix of ``name`` is the format.

    >>> print(marked(b"steps: []\\n", "flow.yaml", {"pipeline": "train"}).decode()[:41])
    steps: []
    # flowyml: {"pipeline": "train"
    """
    signs = _SIGNS.get("" if name.startswith(".") else PurePath(name).suffix)
    if signs is None or ((there := mark_of(data)) and there.is_untouched):
        return data
    text = data if data.endswith(b"\n") else data + b"\n"
    return text + _line({**(facts or {}), "digest": _digest(text, facts or {})}, signs) + b"\n"


def mark_of(data: bytes) -> Mark | None:
    """Return the mark of a file; None for a file that FlowyML did not write, whatever its comments contain."""
    lines = data.split(b"\n") if _WORD in data else []
    for number in range(len(lines) - 1, -1, -1):
        facts = _facts(lines[number])
        if facts is not None:
            digest = facts.pop("digest")
            rest = b"\n".join([*lines[:number], *lines[number + 1 :]])
            is_last = lines[number + 1 :] in ([], [b""])
            return Mark(is_last and digest == _digest(rest, facts), facts)
    return _own_format(data)


def objection(old: bytes | None, new: bytes, *, force: bool = False) -> str:
    """Say why a file must not be replaced, as the end of a sentence about it; empty if it may be replaced.

    With ``force``, a file of FlowyML's is replaced even if people edited it, but never a file of their own.
    """
    if old is None or old == new:
        return ""
    mark = mark_of(old)
    if mark is None:
        return "was not written by FlowyML and would be lost. Choose another name, or move that file away."
    if mark.is_untouched or force:
        return ""
    return "was edited after FlowyML wrote it, and the edits would be lost. Use --force (force=True) to replace it."


def _facts(line: bytes) -> dict[str, Any] | None:
    if _WORD not in line:
        return None
    line = line.removesuffix(b"\r")
    for start, end in (_HASH, _PERCENT, _XML):
        if line.startswith(start + _WORD) and line.endswith(end):
            try:
                facts = json.loads(line[len(start + _WORD) : len(line) - len(end)])
            except (ValueError, RecursionError):
                continue
            if isinstance(facts, dict) and _DIGEST.fullmatch(str(facts.get("digest"))):
                return facts
    return None


def _line(facts: Mapping[str, Any], signs: tuple[bytes, bytes]) -> bytes:
    start, end = signs
    text = json.dumps(facts).replace("--", "-\\u002d")  # two hyphens would end a comment of XML
    return start + _WORD + text.encode() + end


def _digest(rest: bytes, facts: Mapping[str, Any]) -> str:
    lines = rest.replace(b"\r\n", b"\n")
    return hashlib.sha256(lines + json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _own_format(data: bytes) -> Mark | None:
    """Return whether a file is a plan or a bundle."""
    try:
        if data.startswith(_SHEBANG):
            from flowyml.plan.bundle import Bundle  # with what builds one, which no worker needs

            Bundle.of(data)
            return Mark(is_untouched=True)
        return Mark(decode(data).canonical == data.rstrip())
    except FlowymlError:
        return None
