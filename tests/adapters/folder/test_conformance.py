"""The adapter of the page "Write an adapter" keeps the promises that every orchestrator makes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # where a third party's adapter is installed, this one stands

from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import OrchestratorConformance, RandomFlowConformance
from flowyml_folder import FolderOrchestrator


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("engine")
    with subprocess.Popen([sys.executable, str(Path(__file__).with_name("engine.py")), str(folder)]) as process:
        yield folder
        process.terminate()


# --8<-- [start:conformance]
class TestFolder(OrchestratorConformance, RandomFlowConformance):
    compile_options: ClassVar = {"folder": "shared"}
    shows_differences = False
    finds_missing_secrets = False

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, engine: Path) -> Callable[..., Orchestrator]:
        return lambda **options: FolderOrchestrator(engine, **options)

    @pytest.fixture(scope="class")
    @classmethod
    def keep_secret(cls, engine: Path) -> Callable[[str, str], None]:
        def keep(name: str, value: str) -> None:
            (engine / "secrets.json").write_text(json.dumps({name: value}))

        return keep


# --8<-- [end:conformance]
