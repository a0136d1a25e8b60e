"""What `make test` says of tests that fail: always, at first, or at first while listed as flaky."""

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
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as it is."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import run_tests

    yield run_tests
    for module in ("run_tests", "pythons", "environment", "adapters"):
        sys.modules.pop(module, None)


@pytest.fixture
def suite(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with a project of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second to import
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name, value in {
        "ROOT": tmp_path, "LOGS": tmp_path / "logs", "GROUPS": (script.Group("some", ["test_some.py"]),),
        "other_pythons": tuple, "COMPILE": "",
    }.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    return script


def test_each_adapter_has_a_group(script: Any) -> None:
    groups = {group.name: [*group.tests] for group in script.groups_with(["airflow", "argo"])}
    assert groups["argo"] == ["tests/adapters/argo"]
    assert "--ignore=tests/adapters/argo" in groups["others"]


def test_each_file_of_tests_is_in_one_group(script: Any) -> None:
    root = SCRIPTS.parent
    for file in (root / "tests").rglob("test_*.py"):
        within = {str(folder.relative_to(root)) for folder in (file, *file.parents) if folder.is_relative_to(root)}
        left_out = {f"--ignore={path}" for path in within}
        groups = [group.name for group in script.GROUPS if within & {*group.tests} and not left_out & {*group.tests}]
        assert len(groups) == 1, (file, groups)


def test_the_tests_that_depend_on_the_python_are_there(suite: Any) -> None:
    tests = Path(__file__).parent
    assert [name for name in suite.DEPENDS_ON_PYTHON if not list(tests.glob(f"test_{name}.py"))] == []


def test_the_flaky_tests_are_there_and_have_a_reason(suite: Any) -> None:
    root = Path(__file__).parents[2]
    for test, reason in suite.FLAKY.items():
        file, _, name = test.partition("::")
        assert f"def {name.rpartition('::')[2].partition('[')[0]}(" in (root / file).read_text()
        assert reason


def test_what_fails_runs_again_only_when_it_is_listed(suite: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_some.py").write_text(FAILS_AT_FIRST)
    assert suite.main([]) == 1
    assert Path("tries").read_text() == "x"
    printed = capsys.readouterr().out
    assert "the machine is busy" in printed
    assert "LATER TRY" not in printed


def test_what_is_listed_may_pass_at_a_later_try_and_is_named(
    suite: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "FLAKY", {"test_some.py::test_late": "it draws lots"})
    Path("test_some.py").write_text(FAILS_AT_FIRST)
    assert suite.main([]) == 0
    assert Path("tries").read_text() == "xx"
    printed = capsys.readouterr().out
    assert "PASSED AT A LATER TRY ONLY" in printed
    assert "WARNING: test_some.py::test_late\n         flaky: it draws lots" in printed
    assert "WARNING: test_some.py::test_good" not in printed


def test_a_failure_beside_a_flaky_test_is_a_failure(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "FLAKY", {"test_some.py::test_late": "it draws lots"})
    Path("test_some.py").write_text(
        FAILS_AT_FIRST.replace("    pass", "    assert not Path('tries').read_text() == 'x'")
    )
    assert suite.main([]) == 1
    assert Path("tries").read_text() == "x"


def test_what_fails_always_has_failed(suite: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_some.py").write_text("def test_bad():\n    assert False\n")
    assert suite.main([]) == 1
    assert "LATER TRY" not in capsys.readouterr().out
