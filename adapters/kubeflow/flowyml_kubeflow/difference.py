"""What deploying a pipeline would change on a KFP: steps, parameters, options, and the user's code."""

from __future__ import annotations

import base64
import bz2
import json
from collections.abc import Mapping
from difflib import unified_diff
from hashlib import sha256
from typing import Any

from flowyml.core.errors import PlanError
from flowyml.plan.bundle import Bundle
from flowyml_kubeflow import names
from flowyml_kubeflow.compiler import Compiled
from flowyml_kubeflow.tasks import documents

__all__ = ["difference"]

Json = dict[str, Any]
Texts = dict[str, list[str]]

_CODE = f"exec-{names.BUNDLE_TASK}"
_SHOWN = ("code/", "objects/", "plan.json")  # FlowyML's own part of a bundle changes with FlowyML


def difference(found: Mapping[str, Any] | None, compiled: Compiled) -> str:
    """A unified diff from the version that KFP has, if it has one, to the compiled one; empty when they are the same.

    The code of the version that KFP has is shown where it stands in its file; of one in a store, its digest.
    """
    before: Texts = {}
    words, after = _parts(compiled.spec, compiled.platform)
    if found:
        old_words, before = _parts(*documents(found))
        if held := _bundle_in(old_words):
            before, after = {**before, **_files(held)}, {**after, **_files(compiled.bundle)}
        else:
            before, after = {**before, "code": [_digest_in(old_words)]}, {**after, "code": [_digest_in(words)]}
    else:
        after = {**after, **_files(compiled.bundle)}
    lines = [
        line
        for name in sorted(before.keys() | after.keys())
        for line in unified_diff(before.get(name, []), after.get(name, []), f"KFP/{name}", f"new/{name}", lineterm="")
    ]
    return "".join(f"{line}\n" for line in lines)


def _parts(spec: Json, platform: Json) -> tuple[list[str], Texts]:
    """The arguments of the task that hands the code on, and all else as lines."""
    spec = json.loads(json.dumps(spec))
    container = spec.get("deploymentSpec", {}).get("executors", {}).get(_CODE, {}).get("container", {})
    words = [str(word) for word in container.pop("args", [])]
    return words, {"pipeline": _plain(spec), "kubernetes": _plain(platform)}


def _files(bundle: Bundle) -> Texts:
    return {path: _lines(data) for path, data in bundle.files.items() if path.startswith(_SHOWN)}


def _bundle_in(words: list[str]) -> Bundle | None:
    """The bundle that stands in the arguments of the task that hands it on."""
    text = "".join(word for word in words if len(word) > 64 and "://" not in word)
    try:
        return Bundle.of(bz2.decompress(base64.b64decode(text))) if text else None
    except (OSError, ValueError, PlanError):  # of a FlowyML that packs it in another way
        return None


def _digest_in(words: list[str]) -> str:
    return next((word for word in words if len(word) == 64), "")


def _plain(document: Json) -> list[str]:
    return json.dumps(_numbers(document), indent=1, sort_keys=True, ensure_ascii=False).splitlines() if document else []


def _numbers(value: Any) -> Any:
    """KFP carries numbers as doubles: 3 comes back as 3.0."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lines(data: bytes) -> list[str]:
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        return [f"{len(data)} bytes, SHA-256 {sha256(data).hexdigest()}"]
