"""What `make test` says of tests that fail: always, at first, or at first and for a known reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "scripts"
FAILS_AT_FIRST = """
from pathlib import Path

def test_late():
    before = Path("tries").read_text() if Path("tries").exists() else ""
    Path("tries").write_text(before + "x")
    assert before, "the machine is busy"

def test_good():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with a project of its own."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import run_tests

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWYML_TEST_STRICT", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second to import
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name, value in {
        "ROOT": tmp_path, "LOGS": tmp_path / "logs", "GROUPS": (run_tests.Group("some", ["test_some.py"]),),
        "other_pythons": tuple,
    }.items():  # fmt: skip
        monkeypatch.setattr(run_tests, name, value)
    yield run_tests
    for module in ("run_tests", "pythons", "environment"):
        sys.modules.pop(module, None)


def test_the_tests_that_depend_on_the_python_are_there(suite: Any) -> None:
    tests = Path(__file__).parent
    assert [name for name in suite.DEPENDS_ON_PYTHON if not list(tests.glob(f"test_{name}.py"))] == []


def test_what_fails_at_first_is_a_warning_with_its_name(suite: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_some.py").write_text(FAILS_AT_FIRST)
    assert suite.main([]) == 0
    printed = capsys.readouterr().out
    assert "the machine is busy" in printed
    assert "PASSED AT A LATER TRY ONLY" in printed
    assert "WARNING: test_some.py::test_late\n         not known" in printed
    assert "test_good" not in printed


@pytest.mark.parametrize(("listed", "code"), [({}, 1), ({"test_some.py::test_late": "it draws lots"}, 0)])
def test_strictly_it_has_failed_unless_a_reason_is_known(
    suite: Any, listed: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWYML_TEST_STRICT", "1")
    monkeypatch.setattr(suite, "FLAKY", listed)
    Path("test_some.py").write_text(FAILS_AT_FIRST)
    assert suite.main([]) == code
    assert ("it draws lots" in capsys.readouterr().out) == bool(listed)


def test_what_fails_always_has_failed(suite: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_some.py").write_text("def test_bad():\n    assert False\n")
    assert suite.main([]) == 1
    assert "LATER TRY" not in capsys.readouterr().out
