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


@pytest.mark.slow
def test_the_last_twenty_lines_say_what_failed_and_how_to_run_it(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second to import
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    (tmp_path / "test_some.py").write_text(FAILING)
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name")
    for name, value in {
        "ROOT": tmp_path, "LOGS": tmp_path / "logs", "other_pythons": tuple, "COMPILE": "",
        "GROUPS": (script.Group("some", ["test_some.py"]), script.Group("broken", ["test_broken.py"]),
                   script.Group("absent", ["test_absent.py"])),
    }.items():  # fmt: skip
        monkeypatch.setattr(script, name, value)
    assert script.main([]) == 1
    last = capsys.readouterr().out.splitlines()[-20:]
    assert "FAILED in some: AssertionError: the machine is busy" in last
    (command,) = [line for line in last if "test_late" in line]
    assert command.endswith("-m pytest 'test_some.py::test_late[a b - c]'")
    assert last[-2:] == [
        "and 3 more tests, in the logs above",
        "FAILED in absent: pytest ended with exit code 4, see logs/absent.log",
    ]


FAILING = """
import pytest

@pytest.mark.parametrize("what", ["a b - c"])
def test_late(what):
    assert False, "the machine is busy"

@pytest.mark.parametrize("number", range(9))
def test_bad(number):
    assert number < 0

def test_good():
    pass
"""
