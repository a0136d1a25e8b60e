"""The versions of engines that the docs name are those that the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("page", "words", "package"),
    [
        ("engines/prefect.md", r"Tested with Prefect (\S+)\.", "prefect"),
        ("faults.md", r"a real (\S+) server and real workers", "prefect"),
        ("faults.md", r"of KFP's own SDK (\S+);", "kfp"),
    ],
)
def test_a_version_is_the_pinned_one(page: str, words: str, package: str) -> None:
    pinned = re.findall(rf"^{package}==(\d+\.\d+)\.", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert re.findall(words, (ROOT / "docs" / page).read_text()) == pinned
