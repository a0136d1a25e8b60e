"""A KFP API for these tests: the one at FLOWYML_TEST_KFP_URL, else a fake of it.

FLOWYML_TEST_KFP_NAMESPACE, FLOWYML_TEST_KFP_TOKEN and FLOWYML_TEST_KFP_IMAGE are the namespace, the token and the image
of steps on a real server. FLOWYML_TEST_KFP_SHARED is a folder of this machine that every pod of the namespace has too,
at the same path; without it, tests whose steps leave traces in files are skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from flowyml.orchestrators.base import RunnablePipeline
from flowyml.plan.model import Plan
from flowyml_kubeflow import KubeflowOrchestrator


def engine(name: str) -> Any:
    """A module of tests/engines."""
    path = Path(__file__).parents[2] / "engines" / f"{name}.py"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _given() -> dict[str, str]:
    given = {name: os.environ.get(f"FLOWYML_TEST_KFP_{name.upper()}") for name in ("namespace", "token")}
    return {name: value for name, value in given.items() if value}


class _WithImage(KubeflowOrchestrator):
    """Runs what names no image in that of FLOWYML_TEST_KFP_IMAGE."""

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        plan = super().plan(pipeline)
        image = os.environ.get("FLOWYML_TEST_KFP_IMAGE")
        if not image:
            return plan
        return replace(plan, options={**plan.options, "kubeflow": {"image": image, **plan.options.get("kubeflow", {})}})


class Api:
    """Where it is, and how to make trouble when it is the fake."""

    def __init__(self, url: str, state: Any, module: Any, root: Path | None = None) -> None:
        self.url = url
        self.state = state
        self.module = module
        self.options: dict[str, Any] = {"url": url, **({} if state else _given())}
        if root:  # of KFP's own store, which the fake has in a folder
            self.options["artifacts"] = str(root)

    def orchestrator(self, **options: Any) -> KubeflowOrchestrator:
        made = KubeflowOrchestrator if self.state else _WithImage
        return made(**{**self.options, **options})

    def fail(self, method: str, *paths: str, **how: Any) -> None:
        """The next call of each path fails; skips the test on a real server."""
        if self.state is None:
            pytest.skip("a real server does not fail on demand")
        from tests.engines.kubeflow_state import Fault

        self.state.faults[:] = [Fault(method, path, **how) for path in paths]


@pytest.fixture(scope="session")
def kfp_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if url := os.environ.get("FLOWYML_TEST_KFP_URL"):
        yield Api(url, None, None)
        return
    from tests.engines import kubeflow_api as module

    folder = tmp_path_factory.mktemp("kfp")
    with module.served(folder) as (url, state):
        yield Api(url, state, module, folder)


@pytest.fixture
def orchestrator(kfp_api: Api) -> KubeflowOrchestrator:
    """One on that API."""
    return kfp_api.orchestrator()


@pytest.fixture(scope="session")
def new_shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders that steps and the test see both."""
    if "FLOWYML_TEST_KFP_URL" not in os.environ:
        return lambda: tmp_path_factory.mktemp("shared")
    if not (root := os.environ.get("FLOWYML_TEST_KFP_SHARED")):
        pytest.skip("pods share no folder with this test: mount one into all, and name it in FLOWYML_TEST_KFP_SHARED")

    def new() -> Path:
        folder = Path(tempfile.mkdtemp(dir=root))
        folder.chmod(0o777)  # for the user that pods have
        return folder

    return new


@pytest.fixture
def shared(new_shared: Callable[[], Path]) -> Path:
    """One such folder."""
    return new_shared()


@pytest.fixture(scope="session")
def load_engine() -> Any:
    """Loads a module of tests/engines by name."""
    return engine
