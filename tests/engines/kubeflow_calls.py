"""What tests of KFP share: their marks, how long a run may take, names that are used once, what a fake cannot do."""

from __future__ import annotations

import os
import time

import pytest

from flowyml.core.capabilities import Capabilities, Feature, no
from flowyml_kubeflow.capabilities import CLUSTER

IS_REAL = "FLOWYML_TEST_KFP_URL" in os.environ

RUN = 900.0 if IS_REAL else 600.0  # seconds; pods wait for nodes and images

OVER_THE_API = [
    pytest.mark.kubeflow,
    pytest.mark.filterwarnings("ignore:.*Argo's limit:UserWarning"),  # steps bring this large module along
]


def without(**notes: str) -> Capabilities:
    """What a fake can do: what a cluster can, without these features, for these reasons."""
    return Capabilities(CLUSTER.orchestrator, {**CLUSTER.support, **{Feature[name]: no(notes[name]) for name in notes}})


def run_id(name: str) -> str:
    return f"{name}-{time.time_ns()}"
