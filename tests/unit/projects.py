"""Projects whose files a test edits between runs. Not in `cached`: such code counts for the steps beside it."""

import importlib
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from flowyml.core.runs import PipelineResult

__all__ = ["APART", "Project", "project_in"]

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


def project_in(folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> Project:
    """A project with a home and a cache of its own, whose modules leave no bytecode."""
    monkeypatch.setenv("FLOWYML_HOME", str(folder / "home"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("FLOWYML_ARTIFACTS", raising=False)
    (folder / "project").mkdir()
    monkeypatch.chdir(folder / "project")  # what may be read there counts: of a checkout it would be the whole of it
    return Project(folder / "project", files)
