"""Imports the modules that are written from DAG files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from flowyml.migration.airflow.writer.text.modules import Written


def loaded(folder: Path, made: Written, name: str) -> ModuleType:
    """The module, imported where there is no Airflow."""
    path = folder / f"{name}.py"
    path.write_text(made.text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
