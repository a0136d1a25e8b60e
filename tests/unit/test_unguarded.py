"""A script that works at module level is warned of once, with the line; setting something up is not work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.authoring.unguarded import work_in

pytestmark = pytest.mark.processes

HEAD = "from flowyml import Pipeline, step\n@step\ndef one() -> int:\n    return 1\np = Pipeline('p').add_step(one)\n"


@pytest.mark.parametrize(
    "text",
    [
        "print('x')", "server.start()", "subprocess.run(['make'])", "with open('x') as f:\n    text = f.read()",
        "for x in rows:\n    total += x", "while busy():\n    pass", "STAMP = datetime.now()", "KEY: str = uuid4()",
        "if slow:\n    load()", "try:\n    connect()\nexcept OSError:\n    pass", "asyncio.run(main())", "main()",
        "p.bundle().write('x')", "server = subprocess.Popen(['make'])", "STAMP = datetime.now().isoformat()",
        "STAMP = str(now())", "IDS = [uuid4() for _ in range(3)]", "start += time.time()",
        "try:\n    import fast\nexcept ImportError:\n    install_it()", "init_db()", "update_prices()", "db.insert(1)",
        "add_rows()", "seed_database()", "with connect() as db:\n    db.insert(1)",
    ],
)  # fmt: skip
def test_work(text: str) -> None:
    ((line, shown),) = work_in(f"import asyncio, subprocess\n{text}\n".encode())
    assert line in (2, 3, 5)
    assert shown


@pytest.mark.parametrize(
    "text",
    [
        '"""Docs."""', "logging.basicConfig(level=1)", "sys.path.append('x')", "np.random.seed(1)", "load_dotenv()",
        "p.add_step(one).add_step(two)", "rows = [1]", "logger = logging.getLogger()",
        "if __name__ == '__main__':\n    go()",
        "for n in range(3):\n    p.add_step(make(n))", "with quiet():\n    import slow",
        "warnings.filterwarnings('error')", "NOW = lambda: datetime.now()", "logging.addLevelName(5, 'TRACE')",
        "try:\n    import fast\nexcept ImportError:\n    fast = None", "pd.set_option('x', 1)", "torch.manual_seed(1)",
        "matplotlib.use('Agg')", "use_color(True)", "logging.disable(10)", "logger.addHandler(h)", "sns.set_theme()",
        "sys.path.insert(0, 'x')", "codecs.register_error('x', f)", "n: int",
        "p.run()\nprint('never loaded')", "print(p.run())\nserver.start()", "Pipeline('p').add_step(s).submit()\ngo()",
        "for n in range(3):\n    @step(name=str(n))\n    def f(): ...", "def f():\n    print()", "not python",
    ],
)  # fmt: skip
def test_code_that_only_sets_up_is_not_reported(text: str) -> None:
    assert work_in(text.encode()) == []


def run(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stderr


def test_a_script_and_a_command_warn_once_with_the_line(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(f"{HEAD}print('loaded')\nimport time\nSTAMP = time.time()\np.submit()\np.submit()\np.submit()\n")
    expected = "unguarded.py, line 6: `print('loaded')` runs again in every process that loads this file"
    printed = run(tmp_path, "unguarded.py")
    assert printed.count(expected) == 1
    assert "So does line 8. Put it under `if __name__ == '__main__':`, or into a step." in printed
    assert run(tmp_path, "-m", "flowyml", "bundle", "unguarded.py").count(expected) == 1


def test_threads_of_the_own_process_and_guarded_scripts_get_no_warning(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(f"{HEAD}print('loaded')\np.run()\n")
    assert "runs again" not in run(tmp_path, "threads.py")
    (tmp_path / "guarded.py").write_text(f"{HEAD}if __name__ == '__main__':\n    print('x')\n    p.submit()\n")
    assert "runs again" not in run(tmp_path, "guarded.py")
    (tmp_path / "importing.py").write_text("from threads import p\nif __name__ == '__main__':\n    p.bundle()\n")
    (tmp_path / "threads.py").write_text(f"{HEAD}print('loaded')\n")
    assert "runs again" not in run(tmp_path, "importing.py")
