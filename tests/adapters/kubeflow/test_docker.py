"""The conformance suite on KFP's Docker runner: components in their container form, on a real Docker engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import OrchestratorConformance
from flowyml_kubeflow import KubeflowOrchestrator

pytestmark = [pytest.mark.kubeflow, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def docker_engine(load_engine: Callable[[str], Any]) -> Iterator[str]:
    docker = load_engine("kubeflow_docker")
    if not docker.can_run():
        assert "CI" not in os.environ, (
            "CI has to have a Docker engine: docker.io and debootstrap could not be installed"
        )
        pytest.skip("needs root on Debian, to start a Docker engine by hand")
    with docker.docker_engine() as host:
        yield host


class TestDockerRunner(OrchestratorConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, docker_engine: str, load_engine: Callable[[str], Any]) -> Callable[..., Orchestrator]:
        """The steps of the suite leave traces in temporary folders, so the containers see those."""
        options = load_engine("kubeflow_docker").same_python(tempfile.gettempdir())

        def make(**given: Any) -> Orchestrator:
            return KubeflowOrchestrator(runner="docker", runner_options=options, **given)

        return make
