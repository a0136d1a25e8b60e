"""Pipelines of a real notebook: their functions have no file, so they travel by value."""

from __future__ import annotations

from pathlib import Path

from tests.engines.notebook import run_notebook

CELLS = [
    "import helpers\nfrom flowyml import Pipeline, context, step\nfrom flowyml.core.hooks import PipelineHook",
    """
class Hook(PipelineHook):
    def on_step_end(self, step_name, outputs, duration):
        print("hook saw", step_name)

@step(outputs=["rows"])
def load(count: int):
    return helpers.rows(count)

@step(outputs=["total"], timeout=60)
def add(rows):
    return sum(rows)

pipeline = Pipeline("in a notebook", hooks=[Hook()], context=context(count=4)).add_step(load).add_step(add)
""",
    "print('here', pipeline.run()['total'])",
    (
        "handle = pipeline.submit({'count': 5}).wait_for_completion(60, progress=False)\n"
        "print('submitted', handle.status, handle.outputs, handle.error)"
    ),
]


def test_a_notebook_runs_and_submits_its_pipeline(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("def rows(count):\n    return list(range(count))\n")
    printed = run_notebook(tmp_path, CELLS)
    assert "here 6" in printed
    assert "submitted COMPLETED {'total': 10} None" in printed
    assert "hook saw add" in printed
