"""What a program puts in the place of what its files say counts, whatever it looks like."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.projects import Project, project_in
from tests.unit.replacing import NINE, wrapped

FILES = {
    "flow.py": """
        import helper
        from flowyml import pipeline, step

        @step(cache=True)
        def work(x: int):
            found = [helper.current(), helper.Kind.chosen(), helper.Kind().sized(), helper.Kind.made.get()]
            found += [helper.one(), helper.instance.sized(), helper.more()]
            return [*found, str(helper.Other()).partition(" at ")[0]]

        @pipeline
        def flow(x: int = 2):
            return work(x)
    """,
    "helper.py": """
        class Made:
            def __init__(self, number):
                self.number = number
            def get(self):
                return self.number

        def one():
            return 1

        def two():
            return 2

        def more(number=3):
            return number

        current = one

        class Kind:
            chosen = staticmethod(one)
            made = Made(1)
            def sized(self):
                return 1

        class Other:
            def __str__(self):
                return "other"

        instance = Kind()
    """,
}
REPLACED: dict[str, Callable[[Any, pytest.MonkeyPatch], None]] = {
    "a function under another name": lambda helper, patch: patch.setattr(helper, "current", helper.two),
    "a function of the same module": lambda helper, patch: patch.setattr(helper, "one", helper.two),
    "a class's function under another name": lambda helper, patch: patch.setattr(
        helper.Kind, "chosen", staticmethod(helper.two)
    ),
    "a method by a wrapper": lambda helper, patch: patch.setattr(helper.Kind, "sized", wrapped(helper.Kind.sized)),
    "a function by a wrapper": lambda helper, patch: patch.setattr(helper, "one", wrapped(helper.one)),
    "a class's object": lambda helper, patch: patch.setattr(helper.Kind, "made", helper.Made(9)),
    "a class by a function": lambda helper, patch: patch.setattr(helper, "Other", NINE),
    "a class by another": lambda helper, patch: patch.setattr(helper, "Other", helper.Kind),
    "the code of a function": lambda helper, patch: patch.setattr(helper.one, "__code__", helper.two.__code__),
    "a default": lambda helper, patch: patch.setattr(helper.more, "__defaults__", (9,)),
    "a module": lambda helper, patch: patch.setattr(
        sys.modules["flow"], "helper", SimpleNamespace(**{**vars(helper), "one": helper.two})
    ),
}


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    project: Project = project_in(tmp_path, monkeypatch, FILES)
    monkeypatch.syspath_prepend(project.folder)
    yield importlib.import_module("flow")
    project.forget()


@pytest.mark.parametrize("case", REPLACED)
def test_what_is_replaced_is_no_hit(flow: Any, case: str) -> None:
    first = flow.flow.run()
    assert flow.flow.run().step_results["work"].is_cached
    with pytest.MonkeyPatch.context() as patch:
        REPLACED[case](sys.modules["helper"], patch)
        patched = flow.flow.run()
        assert patched["work"] == flow.work(2) != first["work"]
    assert flow.flow.run()["work"] == first["work"]


def test_an_object_whose_class_was_reloaded_since_counts_with_its_old_code(flow: Any, tmp_path: Path) -> None:
    helper = sys.modules["helper"]
    old = helper.instance
    flow.flow.run()
    text = Path(str(helper.__file__)).read_text()
    Path(str(helper.__file__)).write_text(text.replace("self):\n        return 1\n", "self):\n        return 5\n"))
    importlib.reload(helper)
    importlib.reload(flow)
    assert flow.flow.run()["work"] == flow.work(2)
    helper.instance = old
    assert flow.flow.run()["work"] == flow.work(2)
