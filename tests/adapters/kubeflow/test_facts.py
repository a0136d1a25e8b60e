"""What KFP's UI shows of outputs: their kind and facts, or small values, in few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp")

from flowyml_kubeflow import sizes
from flowyml_kubeflow.task_files import FACTS_BYTES, described, read, store

STORED = {"format": "flowyml"}


def facts_of(packed: Any) -> dict[str, Any]:
    found = described(packed, STORED, "")
    return {name: value for name, value in found.items() if name != "format"}


def test_facts_of_outputs() -> None:
    assert facts_of({"auc": 0.5, "n": 3}) == {"kind": "metrics", "auc": 0.5, "n": 3}
    assert facts_of({"$artifact": {"kind": "table", "metadata": {"rows": 3}}}) == {"kind": "table", "rows": 3}
    assert facts_of({"$artifact": {"kind": "data"}}) == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(6.5, 6.5), (2**60, str(2**60)), ("done", "done"), (None, "null"), ([1, "a"], '[1, "a"]'), (True, "true")],
)
def test_a_small_value_is_shown(value: Any, shown: Any) -> None:
    """Whole numbers as text, since KFP keeps numbers as doubles."""
    assert facts_of(value) == {"value": shown}


@pytest.mark.parametrize("text", ["$(FLOWYML_SECRET_PW)", "a $$ b", "{{$}}", "{{workflow.name}}", "a\udcff"])
def test_a_text_that_would_be_changed_is_not_in_the_description_of_a_pod(text: str, tmp_path: Path) -> None:
    """KFP, Argo and Kubernetes replace in it. The name of a file is quoted there, and is itself when it is read."""
    assert facts_of(text) == {}
    assert facts_of({text: 0.5, "n": 3}) == {"kind": "metrics", "n": 3}
    (tmp_path / "made").write_text("1")
    about = {"url": (tmp_path / "made").as_uri(), "format": "file", "sha256": "0", "size": 1, "type": "file"}
    for name in (f"100% {text} ä.csv", "plain.csv"):
        (tmp_path / "made").write_text("1")
        target = {"uri": str(tmp_path / "out" / "made")}
        stored = store({"$artifact": {**about, "name": name}}, target, tmp_path)
        shown = json.dumps(stored)
        assert not [part for part in ("$", "{{", "\\ud") if part in shown]
        assert read({**target, "metadata": stored})["$artifact"]["name"] == name
    assert stored["file_name"] == "plain.csv"


def test_a_large_value_is_not() -> None:
    assert facts_of("x" * 201) == facts_of([0] * 100) == {}


def test_metrics_by_annotation_have_their_numbers_alone(tmp_path: Path) -> None:
    """KFP's UI shows and compares everything that an artifact of its type for metrics has."""
    metrics = {"auc": 0.5, "n": 3}
    (tmp_path / "metrics").write_text(json.dumps(metrics))
    shown = described(metrics, STORED, "metrics")
    assert shown == metrics
    assert read({"uri": str(tmp_path / "metrics"), "metadata": {**shown, "display_name": "scores"}}) == metrics
    odd = {"format": 1.5}
    (tmp_path / "odd").write_text(json.dumps(odd))
    assert read({"uri": str(tmp_path / "odd"), "metadata": described(odd, STORED, "metrics")}) == odd


@pytest.mark.parametrize("character", ["v", '"', "\\", "<", "ü", "\n"])
def test_they_fit_into_the_description_of_a_pod(character: str) -> None:
    """In JSON in JSON in JSON, as Go writes it."""
    facts = {f"name {number}": character * 200 for number in range(50)}
    packed = {"$artifact": {"kind": "table", "metadata": {**facts, "rows": 3}}}
    shown = facts_of(packed)
    written = sizes.text(sizes.text(sizes.text(shown)))
    assert len(written.encode()) <= FACTS_BYTES
    assert shown["rows"] == 3
    assert described(packed, STORED, "", 0) == STORED
