"""What `make test` runs, and what it says of tests that fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import run_tests

    yield run_tests
    for module in ("run_tests", "pythons", "environment", "adapters"):
        sys.modules.pop(module, None)


def test_each_file_of_tests_is_in_one_group(script: Any) -> None:
    root = SCRIPTS.parent
    for file in (root / "tests").rglob("test_*.py"):
        within = {str(folder.relative_to(root)) for folder in (file, *file.parents) if folder.is_relative_to(root)}
        left_out = {f"--ignore={path}" for path in within}
        groups = [group.name for group in script.GROUPS if within & {*group.tests} and not left_out & {*group.tests}]
        assert len(groups) == 1, (file, groups)
