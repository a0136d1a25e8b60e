"""What KFP's UI shows of outputs: short, and only what a step said of them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("kfp")

from flowyml_kubeflow.files import facts_of


def test_facts_of_outputs() -> None:
    assert facts_of({"auc": 0.5, "n": 3}) == {"kind": "metrics", "auc": 0.5, "n": 3}
    assert facts_of({"$artifact": {"kind": "table", "metadata": {"rows": 3}}}) == {"kind": "table", "rows": 3}
    for packed in (None, 3, "x", [1], {}, {"a": "private"}, {"a": True}, {"$artifact": {"kind": "data"}}):
        assert facts_of(packed) == {}


def test_they_fit_into_the_argument_of_a_task() -> None:
    facts = {f"name {number}": "v" * 500 for number in range(50)}
    shown = facts_of({"$artifact": {"kind": "table", "metadata": {**facts, "rows": 3}}})
    assert len(json.dumps(shown)) <= 1500
    assert shown["rows"] == 3
