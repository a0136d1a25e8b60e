"""A KFP API for these tests: the one at FLOWYML_TEST_KFP_URL, else a fake of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest


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


class Api:
    """Where it is, and how to make trouble when it is the fake."""

    def __init__(self, url: str, state: Any, module: Any) -> None:
        self.url = url
        self.state = state
        self.module = module
        self.options: dict[str, Any] = {"url": url, "form": "python"} if state else {"url": url}

    def fail(self, method: str, path: str, **how: Any) -> None:
        """The next such call fails; skips the test on a real server."""
        if self.state is None:
            pytest.skip("a real server does not fail on demand")
        self.state.faults[:] = [self.module.Fault(method, path, **how)]


@pytest.fixture(scope="session")
def kfp_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if url := os.environ.get("FLOWYML_TEST_KFP_URL"):
        yield Api(url, None, None)
        return
    module = engine("kubeflow_api")
    with module.served(tmp_path_factory.mktemp("kfp")) as (url, state):
        yield Api(url, state, module)


@pytest.fixture(scope="session")
def load_engine() -> Any:
    """Loads a module of tests/engines by name."""
    return engine
