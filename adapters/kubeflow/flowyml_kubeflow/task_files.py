"""KFP's files for a task: its inputs and outputs, by one JSON text, the *executor input*.

This file travels in the bundle. Source: KFP, *ExecutorInput* and *ExecutorOutput*.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from flowyml.artifacts.packing import is_reference
from flowyml.core.dates import RunDates
from flowyml.plan.model import Plan
from flowyml_kubeflow import names
from flowyml_kubeflow.attempts import LOCAL
from flowyml_kubeflow.parameters import restored

__all__ = [
    "FACTS_BYTES", "Result", "TaskFailed", "Values", "artifact", "artifacts", "dates_of", "described", "parameter",
    "path_of", "read", "run_id_of", "store", "values_of", "with_url", "write_file", "write_parameters",
]  # fmt: skip

Values = dict[str, Any]
PACKED = "flowyml"  # the format of an artifact that is JSON for a packed value
FACTS_BYTES = 2000  # of the metadata of one output, as KFP nests them; fewer where there is no room
_QUOTED = re.compile(r"[%${\ud800-\udfff]")  # in names of files
_VALUE = 200  # characters of a value that is shown
_FOLDERS = {"gs": "gcs"}  # where KFP's launcher mounts a scheme; the others go by their own name


@dataclass
class Result:
    """The result of a task: texts of parameters, and metadata of artifacts, by port."""

    parameters: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Values] = field(default_factory=dict)


class TaskFailed(Exception):
    """The step failed, and its failure has been published. The text is the reason."""


def parameter(plan: Plan, name: str, port: str, executor_input: Mapping[str, Any]) -> Any:
    """Return the value of a run's parameter, with its exact type if that is known."""
    if exact := os.environ.get(LOCAL):  # kfp.local turns integers in lists into floats, so they come beside it
        values = json.loads((Path(exact) / "parameters.json").read_text())
        if name in values:
            return values[name]
    (parameter,) = (item for item in plan.parameters if item.name == name)
    return restored(values_of(executor_input).get(port), parameter)


def values_of(executor_input: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a task, by port; KFP leaves out an empty mapping."""
    values: Mapping[str, Any] = executor_input.get("inputs", {}).get("parameterValues", {})
    return values


def run_id_of(executor_input: Mapping[str, Any]) -> str:
    """Return the run's own name, or that of its workflow: runs of a recurring run are compiled without one."""
    values = values_of(executor_input)
    return str(values.get(names.RUN) or values.get(names.JOB, ""))


def dates_of(time: Any) -> RunDates:
    """Return the dates of the run.

    Now if an older KFP does not report them, and for a step that may come from the cache.
    """
    with suppress(TypeError, ValueError):
        return RunDates(logical_date=datetime.fromisoformat(time))
    return RunDates()


def artifact(executor_input: Mapping[str, Any], side: str, port: str) -> Values:
    """Return the description of an artifact: its name, URI and metadata."""
    (entry, *_) = artifacts(executor_input, side, port)
    return entry


def artifacts(executor_input: Mapping[str, Any], side: str, port: str) -> list[Values]:
    """Return all artifacts that a loop has collected."""
    entries: list[Values] = executor_input[side]["artifacts"][port]["artifacts"]
    return entries


def path_of(uri: str) -> Path:
    """Return the path where KFP's launcher has put an artifact, or expects it."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    return Path("/" + rest.lstrip("/")) if scheme == "file" else Path("/", _FOLDERS.get(scheme, scheme), rest)


def read(entry: Mapping[str, Any]) -> Any:
    """Read an input: the JSON in its file, or a reference to the file."""
    path, metadata = path_of(entry["uri"]), entry.get("metadata") or {}
    if metadata.get("format", PACKED) == PACKED:
        return json.loads(path.read_text("utf-8"))
    reference = {
        "url": f"file://{path}",
        "format": metadata["format"],
        "sha256": metadata["sha256"],
        "size": int(metadata["size"]),
        "name": unquote(metadata.get("file_name", ""), errors="surrogatepass"),
    }
    return {"$artifact": reference}


def store(packed: Any, target: Mapping[str, Any], scratch: Path) -> Values:
    """Put an output where KFP reads it; return the metadata that KFP stores with it."""
    path = path_of(target["uri"])
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_reference(packed) and (source := _inside(packed["$artifact"]["url"], scratch)):
        shutil.move(source, path)
        about = packed["$artifact"]
        named = {"file_name": _in_templates(about["name"])} if "name" in about else {}
        return {
            "format": about["format"], "sha256": about["sha256"], "size": str(about["size"]), "type": about["type"],
            **named,
        }  # fmt: skip
    write_file(path, json.dumps(packed, ensure_ascii=False))
    return {"format": PACKED}


def described(packed: Any, stored: Values, kind: str, limit: int = FACTS_BYTES) -> Values:
    """Return the metadata of an output, which KFP's UI shows: its format as ``stored``, its kind and facts, or value.

    KFP describes the inputs of a task in its pod, with their metadata, so these have at most ``limit`` bytes: what is
    more is left out, and so is what would be replaced there, or is not Unicode, which KFP refuses. The UI shows and
    compares all metadata of metrics, so they have only their numbers. Source: KFP, ``CompareUtils.ts``.
    """
    if is_reference(packed):
        facts = packed["$artifact"].get("metadata") or {}
        facts = {"kind": packed["$artifact"].get("kind", "data"), **facts} if facts else {}
    elif _are_metrics(packed):
        is_typed = kind == "metrics" and "format" not in packed
        facts = packed if is_typed else {"kind": "metrics", **packed}
        stored = {} if is_typed else stored  # ``read`` takes it for JSON
    else:
        text = packed if isinstance(packed, str) else json.dumps(packed, ensure_ascii=False)
        facts = {"value": packed if type(packed) is float else text} if len(text) <= _VALUE else {}
    kept_facts: Values = {}
    for name, value in facts.items():
        text = json.dumps({name: value}, ensure_ascii=False)
        is_kept = text.encode("utf-8", "ignore").decode() == text and not names.REPLACED.search(text)
        if is_kept and _bytes_in_pod({**kept_facts, name: value, **stored}) <= limit:
            kept_facts[name] = value
    return {**kept_facts, **stored}


def _in_templates(name: str) -> str:
    """Return a file's name as metadata: what KFP, Argo or Kubernetes would replace, or is not Unicode, is quoted."""
    return _QUOTED.sub(lambda match: quote(match[0], errors="surrogatepass"), name)


def _bytes_in_pod(metadata: Values) -> int:
    """Return the bytes of metadata in a pod's template: JSON in Go's JSON in Go's JSON, with <, > and & escaped."""
    text = json.dumps(metadata)
    return len(json.dumps(json.dumps(text))) + 8 * sum(map(text.count, "<>&"))


def _are_metrics(packed: Any) -> bool:
    return isinstance(packed, dict) and bool(packed) and all(type(value) in (int, float) for value in packed.values())


def _inside(url: str, scratch: Path) -> Path | None:
    path = Path(url.removeprefix("file://"))
    return path if path.is_relative_to(scratch) else None


def with_url(packed: Mapping[str, Any], scratch: Path, uri: str) -> Values:
    """Return a reference with the URL where its value stays, and with its picture if that stays too.

    KFP keeps one file of an artifact. The local runner keeps what is beside it, so the picture goes there.
    """
    about = dict(packed["$artifact"])
    if _inside(about["url"], scratch):
        about["url"] = uri if "://" in uri else f"file://{uri}"
    picture = about.pop("picture", None)
    if picture and picture["url"].startswith("file://"):
        source, path = _inside(picture["url"], scratch), path_of(uri)
        if source and LOCAL in os.environ:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, beside := path.with_name(f"{path.name}{source.suffix}"))
            about["picture"] = {**picture, "url": f"file://{beside}"}
    elif picture:
        about["picture"] = picture
    return {"$artifact": about}


def write_parameters(executor_input: Mapping[str, Any], result: Result) -> None:
    """Write the parameters of a result where KFP reads them."""
    for name, text in result.parameters.items():
        write_file(Path(executor_input["outputs"]["parameters"][name]["outputFile"]), text)


def write_file(path: Path, text: str) -> None:
    """Write a file, in a folder that is created if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
