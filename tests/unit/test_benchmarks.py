"""The benchmarks' command line; what they measure is shown, never tested."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import ROOMS, options


def test_everything_is_measured_by_default() -> None:
    assert options([]).rooms == ROOMS
    assert {"imports", "local", "prefect"} < set(ROOMS)


def test_one_room_is_measured_on_request() -> None:
    assert options(["local", "--json"]).rooms == ["local"]


def test_an_unknown_room_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        options(["locla"])
    assert "unknown: locla; there are " in capsys.readouterr().err
