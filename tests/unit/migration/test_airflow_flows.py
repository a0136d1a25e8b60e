"""What a pipeline gives that was written from a DAG file: values, templates, groups, loops and branches."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libcst")

from tests.unit.migration.flows import FLOWS
from tests.unit.migration.modules import ran, written


@pytest.mark.parametrize("name", FLOWS)
def test_a_pipeline_does_what_its_dag_does(name: str, tmp_path: Path) -> None:
    flow = FLOWS[name]
    outputs, skipped = ran(tmp_path, written(tmp_path, flow.text), **flow.given)
    assert skipped == flow.skipped
    assert {output: outputs.get(output) for output in flow.outputs} == flow.outputs
