"""Each example runs as its docstring says; the adapters' golden files show what they compile to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "daily_sales": "2026-01-31: 979.80 in all, shop 2 sold the most; 40 orders were rejected.",
    "train_classifier": "tumours that it has never seen.",
    "tune_on_gpu": "{'rate': 0.01, ",
}


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_as_a_script(example: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{example}.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "FLOWYML_HOME": str(tmp_path / "home")},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert SAID[example] in done.stdout
