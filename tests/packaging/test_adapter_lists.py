"""An adapter in this repository has one entry in pyproject.toml; every other list of adapters follows from it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import adapters  # noqa: E402


def test_one_entry_point_brings_an_adapter_into_every_list() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    entry = 'local = "flowyml.orchestrators.local:LocalOrchestrator"\n'
    text = text.replace(entry, f'{entry}argo = "flowyml_argo:ArgoOrchestrator"\n')
    made = adapters.updated("pyproject.toml", text, adapters.adapters(text))
    settings: dict[str, Any] = tomllib.loads(made)
    tool = settings["tool"]
    assert "adapters/argo/flowyml_argo" in tool["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "/adapters/argo:" in tool["mypy"]["mypy_path"]
    assert "flowyml_argo" in tool["coverage"]["run"]["source_pkgs"]
    assert tool["coverage"]["paths"]["flowyml_argo"] == ["adapters/argo/flowyml_argo", "*/flowyml_argo"]
    assert "flowyml_argo" in tool["importlinter"]["root_packages"]
    contracts = [contract for contract in tool["importlinter"]["contracts"] if "flowyml_prefect" in str(contract)]
    assert len(contracts) == 5
    assert all("flowyml_argo" in str(contract) for contract in contracts)
    assert adapters.updated("mkdocs.yml", (ROOT / "mkdocs.yml").read_text(), ["argo"]).count("adapters/argo]") == 1
    before = tomllib.loads(text)
    assert {key: value for key, value in settings.items() if key != "tool"} == {
        key: value for key, value in before.items() if key != "tool"
    }, "nothing else changes"
