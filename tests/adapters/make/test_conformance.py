"""The adapter of the page "Write an adapter" keeps the promises that every orchestrator makes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # where a third party's adapter is installed, this one stands

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import OrchestratorConformance
from flowyml_make import MakeOrchestrator


# --8<-- [start:conformance]
class TestMake(OrchestratorConformance):
    compile_options: ClassVar = {"folder": "shared"}
    shows_differences = False
    finds_missing_secrets = False

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Orchestrator]:
        folder = tmp_path_factory.mktemp("engine")
        return lambda **options: MakeOrchestrator(folder, **options)


# --8<-- [end:conformance]
