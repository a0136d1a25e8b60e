"""The example of `make demo ON=kubeflow-local`, as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kubeflow

EXAMPLE = Path(__file__).parents[3] / "examples" / "train_classifier.py"


def test_the_classifier_is_trained_without_a_cluster() -> None:
    command = [sys.executable, str(EXAMPLE), "--on", "kubeflow-local", "--trees", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COMPLETED" in done.stdout
    assert "accuracy" in done.stdout
