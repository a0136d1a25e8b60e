"""What tests of KFP share: their marks, how long a run may take, names that are used once, what a fake cannot do."""

from __future__ import annotations

import time

import pytest

RUN = 2400.0  # seconds, as long as a test may take: pods wait for nodes and images

OVER_THE_API = [
    pytest.mark.kubeflow,
]


def run_id(name: str) -> str:
    return f"{name}-{time.time_ns()}"
