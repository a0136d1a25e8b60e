"""Pipelines of a real notebook: their functions have no file, so they travel by value."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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

RUN = """
import sys, warnings
warnings.simplefilter("ignore")
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read("notebook.ipynb", as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", ""), end="")
"""


def test_a_notebook_runs_and_submits_its_pipeline(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("def rows(count):\n    return list(range(count))\n")
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [{**cell, "source": source, "id": f"cell{number}"} for number, source in enumerate(CELLS)]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebook.ipynb").write_text(json.dumps(notebook))
    run = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "here 6" in run.stdout
    assert "submitted COMPLETED {'total': 10} None" in run.stdout
    assert "hook saw add" in run.stdout
