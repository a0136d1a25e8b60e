"""Every code block of the README and of docs/ runs, page by page, as a reader would run it.

The blocks of a page share a folder. `python` blocks make one script; one with a title is a file of that name, and a
script of its own. `bash` blocks run where they stand. `sh`, `text` and `toml` blocks are for reading only. Blocks run
in processes of their own, since code that is executed inside the test process has no file, as no user's code is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docs_code import PAGES, ROOT, blocks

NEEDS_PREFECT = re.compile(r"""on="prefect"|--on prefect|flowyml_prefect""")


def _marked(page: Path) -> object:
    found = list(blocks(page))
    needs_prefect = any(NEEDS_PREFECT.search(block.code) for block in found)
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.prefect] if needs_prefect else [])


@pytest.mark.parametrize("page", [_marked(page) for page in PAGES if list(blocks(page))])
def test_blocks_of_page_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = _environment(tmp_path)
    if request.node.get_closest_marker("prefect"):
        environment["PREFECT_API_URL"] = f"{request.getfixturevalue('prefect_url')}/api"
    script = ""
    for block in blocks(page):
        if block.language == "bash":
            _run(["bash", "-euo", "pipefail", "-c", block.code], tmp_path, environment)
        elif block.title:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.code)
            _run([sys.executable, block.title], tmp_path, environment)
        else:  # keeps the line numbers of the page, so that a traceback points at it
            script += "\n" * (block.line - script.count("\n")) + block.code
    if script:
        (tmp_path / "page.py").write_text(script)
        _run([sys.executable, "page.py"], tmp_path, environment)


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLOWYML_HOME": str(folder / ".home"),
        "PYTHONWARNINGS": "error::DeprecationWarning:__main__",
        "NO_COLOR": "1",
    }


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"


def test_lists_of_commands_say_what_each_of_them_does() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text()
    for line in (
        "* `clear`: Delete cached",
        "* `airflow`: Read Airflow DAG files",
        "* `show`: List the features that one engine",
    ):
        assert page.count(line) == 1


def test_no_page_installs_flowyml_from_an_index() -> None:
    """The name belongs to another project there, so pip would run its code."""
    found = re.compile(r"\b(install|add|uvx)\b[^`\n]*?[ '\"]flowyml\b(?!-)|index-url")
    pages = [*PAGES, *(ROOT / "changes").glob("*.md")]
    assert [(page.name, line) for page in pages for line in page.read_text().splitlines() if found.search(line)] == []


def test_the_tests_that_the_threat_model_names_are_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`([\w/*]*test_\w+\.py)`", text))
    assert len(named) > 10
    for name in named:
        folder = ROOT if "/" in name else ROOT / "tests" / "security"
        assert list(folder.glob(name)), name
    for path in (ROOT / "tests" / "security").glob("test_*.py"):
        assert path.name in named, f"docs/security.md does not say what {path.name} stops"
