"""Ways to build a DAG are read as a real Airflow found them for ``tests/golden/idioms.json``, or it is said.

``tests/adapters/airflow/test_import.py`` shows that Airflow still finds the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flowyml.migration.airflow.reader.reading import read_file
from tests.unit.migration.dag_files import codes
from tests.unit.migration.idioms import as_listed, golden, idioms, write_idioms


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_idioms(tmp_path_factory.mktemp("idioms"), 3)


@pytest.mark.parametrize("name", idioms())
def test_an_idiom_is_read_as_airflow_finds_it_or_it_is_said(name: str, paths: Mapping[str, Path]) -> None:
    file = read_file(paths[name], root=paths[name].parent)
    said = idioms()[name].codes
    assert codes(file) == said
    if not said:
        assert {dag.dag_id: as_listed(dag) for dag in file.dags} == golden()[name]
