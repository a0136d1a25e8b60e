"""Old bundles go, and none that something may still need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from flowyml_airflow.deploy import remove_old_bundles
from flowyml_airflow.folder import open_folder


class Client:
    """All that is asked of Airflow: whether a run has not ended."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy

    def is_busy(self, dags: Sequence[str]) -> bool:
        assert list(dags) == ["train", "train__dev"]
        return self.busy


def bundle(number: int) -> str:
    return f"train-{number:08x}.pyz"


@pytest.mark.parametrize("scheme", ["", "local://"])
def test_bundles_that_nothing_needs_go(tmp_path: Path, scheme: str) -> None:
    bundles = tmp_path / "flowyml_bundles"
    bundles.mkdir()
    others = ["train-model-00000001.pyz", "train-1.pyz", ".airflowignore", "train-0000000g.pyz"]
    for name in [*map(bundle, range(6)), *others]:
        (bundles / name).write_bytes(b"")
    (tmp_path / "train.py").write_text(f'BUNDLE = "{bundle(5)}"')
    (tmp_path / "renamed.py").write_text(f'# a copy that somebody made\nBUNDLE = "{bundle(1)}"')
    (tmp_path / "notes.txt").write_text(bundle(2))
    folder = open_folder(f"{scheme}{tmp_path}")
    assert folder is not None

    def swept(**options: Any) -> Sequence[str]:
        return remove_old_bundles(folder, cast("Any", Client(**options)), "train", {bundle(5), bundle(4)})

    assert swept(busy=True) == ()
    assert list(swept()) == [bundle(0), bundle(2), bundle(3)]
    assert sorted(path.name for path in bundles.iterdir()) == sorted([*map(bundle, (1, 4, 5)), *others])
    assert swept() == []
