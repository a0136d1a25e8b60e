"""Steps whose results are kept, that note when they run; and projects whose files a test edits between runs."""

import importlib
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowyml import pipeline, step
from flowyml.core.runs import PipelineResult

__all__ = ["APART", "Point", "Project", "chain", "note", "ran"]


def ran(path: Path) -> int:
    """How often a step has written its line."""
    return len(path.read_text().splitlines()) if path.exists() else 0


def note(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("ran\n")


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x


@step(cache=True, outputs=["point", "rows", "nothing"])
def make(path: str, x: int) -> tuple[Point, list[int], None]:
    note(path)
    return Point(x), list(range(x)), None


@step(cache=True)
def use(path: str, point: Point, rows: list[int], nothing: None) -> tuple[int, int]:
    note(path)
    return point.x, len(rows)


@pipeline
def chain(path: str, x: int = 3) -> Any:
    point, rows, nothing = make(path, x)
    return {"found": use(path, point, rows, nothing), "point": point}


APART = {
    "flow.py": "from flowyml import pipeline\nfrom rows import source\nfrom used import work\n\n\n"
    "@pipeline\ndef flow():\n    return work(source())\n",
    "rows.py": "from flowyml import step\n\n\n@step\ndef source():\n    return list(range(3))\n",
    "used.py": "from flowyml import step\n\n\n@step(cache=True)\ndef work(found):\n    return repr(found)\n",
}  # fmt: skip
"""A step and the one before it, in modules of their own."""


class Project:
    """A folder with a pipeline, of which each run has modules of its own."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self.text: dict[str, str] = {}
        self.write(files)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            self.text[name] = textwrap.dedent(text).lstrip()
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(self.text[name])

    def run(self, parameters: dict[str, object] | None = None, **options: object) -> PipelineResult:
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()
        try:
            flow = importlib.import_module("flow")
            result: PipelineResult = flow.flow.run(parameters, **options)
            return result.raise_for_status()
        finally:
            sys.path.remove(str(self.folder))
            self.forget()

    def forget(self) -> None:
        """Let go of the modules that are loaded from here."""
        for name, module in list(sys.modules.items()):
            if str(self.folder) in str(getattr(module, "__file__", "")):
                del sys.modules[name]

    def is_cached(self, parameters: dict[str, object] | None = None, **options: object) -> bool:
        return self.run(parameters, **options).step_results["work"].is_cached

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.text[name]
        assert not old or text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        (self.folder / name).write_text(text.replace(old, new) if old else new + text)

    def restore(self, name: str) -> None:
        (self.folder / name).write_text(self.text[name])
