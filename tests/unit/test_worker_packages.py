"""A worker imports the script, whose first lines may say where it runs: the adapter travels, a third party's too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowyml.orchestrators import registry
from tests.unit.commands import python

ADAPTER = """
import acme_words
from flowyml.orchestrators.base import Orchestrator

class AcmeOrchestrator(Orchestrator):
    name = "acme"
    worker_packages = ("acme_words",)
"""
SCRIPT = """
from acme_flows import AcmeOrchestrator
from flowyml import Pipeline, step

@step(outputs=["x"])
def greet():
    import acme_words
    return [AcmeOrchestrator.name, acme_words.GREETING]

if __name__ == "__main__":
    print(Pipeline("greets").add_step(greet).bundle().write("."))
"""
OWN = """
from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator

class Script(LocalOrchestrator):
    worker_packages = ("of_mine",)

@step(outputs=["x"])
def greet():
    return Script.name
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder of a distribution with an adapter, as pip would leave it."""
    site = tmp_path / "site"
    metadata = site / "acme_flows-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-flows\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[flowyml.orchestrators]\nacme = acme_flows.engine:AcmeOrchestrator\n")
    (site / "acme_flows").mkdir()
    (site / "acme_flows" / "__init__.py").write_text("from acme_flows.engine import AcmeOrchestrator")
    (site / "acme_flows" / "engine.py").write_text(ADAPTER)
    (site / "acme_words.py").write_text("GREETING = 'hello'")
    return site


@pytest.mark.processes
@pytest.mark.parametrize("declared", [True, False], ids=["with an entry point", "without one"])
def test_the_adapter_of_a_third_party_travels_with_what_it_declares(
    installed: Path, tmp_path: Path, declared: bool
) -> None:
    if not declared:
        (installed / "acme_flows-1.0.dist-info" / "entry_points.txt").unlink()
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    env = {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    bundle = python(folder, "script.py", **env).out.strip()
    python(folder, "-I", bundle, "step", "greet", "--output", "out.json", **env)
    assert json.loads((folder / "out.json").read_text()) == {"x": ["acme", "hello"]}


def test_what_stands_beside_the_script_travels_as_the_users_code(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    code = "from mine import Pipeline, greet\nprint(*Pipeline('greets').add_step(greet).bundle().files, sep='\\n')\n"
    (tmp_path / "script.py").write_text(code)
    paths = python(tmp_path, "script.py").out.splitlines()
    assert [path for path in paths if path.endswith("mine.py")] == ["code/mine.py"]


def test_only_what_the_code_names_travels(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)
    registry._entry_points.cache_clear()
    try:
        assert registry.worker_packages([b"import flowyml_prefect", b"from flowyml import Pipeline"]) == {
            "flowyml_prefect"
        }
        assert registry.worker_packages([b"acme_flows_too", b"my_acme_flows"]) == set()
        (installed / "acme_words.py").write_text("raise ImportError")  # an adapter that cannot be imported here
        assert registry.worker_packages([b"acme_flows"]) == {"acme_flows"}
    finally:
        registry._entry_points.cache_clear()
