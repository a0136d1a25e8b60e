"""A real notebook for tests: its cells run in a Jupyter kernel of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run_notebook"]

_RUN = """
import sys, warnings
warnings.simplefilter("ignore")
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read("notebook.ipynb", as_version=4)
NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", ""), end="")
        if output.output_type == "display_data":
            print("displayed", output.data["text/html"])
"""


def run_notebook(folder: Path, sources: Sequence[str]) -> str:
    """Run these cells in a notebook in this folder; gives what they printed and displayed."""
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [{**cell, "source": source, "id": f"cell{number}"} for number, source in enumerate(sources)]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    run = subprocess.run([sys.executable, "-c", _RUN], cwd=folder, capture_output=True, text=True, timeout=2400)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout
