"""Python source that FlowyML writes: texts of others stay texts in it, and names are free."""

from __future__ import annotations

import ast
from inspect import cleandoc

import pytest

from flowyml.plan.layout import FreeNames, docstring

HOSTILE = [
    'ends with "', '""', '"""', '""""""', 'a""" + open("x").read() + """b', "\\", "\\n", '\\"""', "a\nb\\", "\\N{DASH}",
    "\x1b[31m", "\u202e", "tab\there", "{name} %s", 'one\n\n  two "three"',
]  # fmt: skip


@pytest.mark.parametrize("indent", ["", "    "])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_docstring_says_its_text_and_ends_where_it_ends(text: str, indent: str) -> None:
    head = "def f():\n" if indent else ""
    tree = ast.parse(f"{head}{indent}{docstring(text, indent)}\n")
    (holder,) = tree.body if indent else (tree,)
    assert isinstance(holder, ast.Module | ast.FunctionDef)
    assert len(holder.body) == 1
    assert ast.get_docstring(holder) == cleandoc(text)


def test_a_docstring_is_printable() -> None:
    assert docstring("\x1b[31m \u202e").isprintable()


def test_names_are_free_and_taken_once() -> None:
    names = FreeNames(["a", "b"])
    assert [names.fresh(wanted) for wanted in ("a", "a", "c", "c")] == ["a_", "a__", "c", "c_"]
    assert names.fresh("b", "_task") == "b_task"
