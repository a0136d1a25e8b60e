"""A script that works at module level is warned of once, with the line; setting something up is not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.authoring.unguarded import work_in
from tests.unit.commands import python

pytestmark = pytest.mark.processes

HEAD = "from flowyml import Pipeline, step\n@step\ndef one() -> int:\n    return 1\np = Pipeline('p').add_step(one)\n"


def test_work_is_told_from_setting_up() -> None:
    for work in ("print('x')", "for x in rows:\n    total += x", "STAMP = datetime.now().isoformat()", "main()"):
        ((line, shown),) = work_in(f"import datetime\n{work}\n".encode())
        assert line in (2, 3), shown
    for setting_up in (
        "logging.basicConfig(level=1)",
        "p.add_step(one)",
        "if __name__ == '__main__':\n    go()",
        "no code",
    ):
        assert work_in(setting_up.encode()) == []


def test_a_script_and_a_command_warn_once_with_the_line(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(f"{HEAD}print('loaded')\nimport time\nSTAMP = time.time()\np.submit()\np.submit()\np.submit()\n")
    expected = "unguarded.py, line 6: `print('loaded')` runs again in every process that loads this file"
    printed = python(tmp_path, "unguarded.py").err
    assert printed.count(expected) == 1
    assert "So does line 8. Put it under `if __name__ == '__main__':`, or into a step." in printed
    assert python(tmp_path, "-m", "flowyml", "bundle", "unguarded.py").err.count(expected) == 1


def test_threads_of_the_own_process_and_guarded_scripts_get_no_warning(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(f"{HEAD}print('loaded')\np.run()\n")
    assert "runs again" not in python(tmp_path, "threads.py").err
    (tmp_path / "guarded.py").write_text(f"{HEAD}if __name__ == '__main__':\n    print('x')\n    p.submit()\n")
    assert "runs again" not in python(tmp_path, "guarded.py").err
    (tmp_path / "importing.py").write_text("from threads import p\nif __name__ == '__main__':\n    p.bundle()\n")
    (tmp_path / "threads.py").write_text(f"{HEAD}print('loaded')\n")
    assert "runs again" not in python(tmp_path, "importing.py").err
