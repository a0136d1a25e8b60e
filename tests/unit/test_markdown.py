"""Markdown that FlowyML writes: hostile text is text in it, as a program reads it that shows Markdown."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from flowyml.core.markdown import code, escaped, table

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "![x](javascript:alert(1))", "[x](http://evil)",
    "[x]: http://evil", "<http://evil.example>", "https://evil.example", "www.evil.example", "a@evil.example", "|",
    "\\|", "\\\\|", "a\\|<b>|c", "`", "``", "``` x", "a`b``c", "` |", "\\`<b>\\`", "\n# head", "a\n===\n---", "1. x",
    "1) x", "- x", "+ x", "> x", "<!-- -->", "-->", "&lt;b&gt;", "&#60;b&#62;", "**b**", "__b__", "~~b~~", "~~~\n",
    "$x$", "{{ x }}", "{% x %}", ":smile:", "\\", "a\\", "| a |\n| --- |", "a\r\n\r\n<b>", "x  \ny", "\tx", "", " ",
]  # fmt: skip


def inlines(markdown: str) -> list[list[Any]]:
    """The parts of each block or cell, as GitHub and the engines' UIs have them. No block is of HTML, or of code."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(markdown)
    assert not {token.type for token in tokens} & {"html_block", "code_block", "fence", "hr"}
    return [token.children for token in tokens if token.type == "inline"]


def test_hostile_text_is_text_wherever_it_stands() -> None:
    for text, before in product(HOSTILE, ["", "# ", "- ", "> ", "a word and "]):
        line = " ".join(text.split())
        for made, kind in ((escaped(text), "text"), (escaped(text, in_file=True), "text"), (code(text), "code_inline")):
            assert "\n" not in made
            if not line:
                continue
            (parts,) = inlines(f"{before}{made}")
            assert {part.type for part in parts} <= {"text", kind}, made
            assert "".join(part.content for part in parts) == (before if before[2:] else "") + line


def test_hostile_text_stays_in_its_cell() -> None:
    for text in HOSTILE:
        line = " ".join(text.split())
        made = table(["a", "b"], [[escaped(text, in_file=True), code(text, in_cell=True)], [escaped(text), "row"]])
        cells = inlines(made)
        assert {part.type for cell in cells for part in cell} <= {"text", "code_inline"}, made
        said = ["".join(part.content for part in cell) for cell in cells]
        assert said == ["a", "b", line, line, line, "row"]
        # GitHub and Airflow take two backslashes for one, and the bar after them for the end of the cell.
        for cell in (escaped(text), code(text, in_cell=True)):
            assert "|" not in re.sub(r"\\.", "", cell)


def test_hostile_text_makes_no_tag_and_no_link_where_a_file_is_shown_otherwise() -> None:
    """Python-Markdown takes a backslash before ``<`` for a letter; some viewers make links of addresses."""
    shown = pytest.importorskip("markdown").markdown
    for text in HOSTILE:
        made = table(["a", "b"], [[escaped(text, in_file=True), code(text, in_cell=True)]])
        for markdown in (escaped(text, in_file=True), f"word {code(text)}", made):
            tags = set(re.findall(r"<[^>]*>", shown(markdown, extensions=["tables"])))
            assert {tag.strip("</>") for tag in tags} <= {"p", "code", "table", "thead", "tbody", "tr", "th", "td"}
    for text in ("https://evil.example", "www.evil.example", "a@evil.example"):
        assert not re.search(r"://|www\.|@", re.sub(r"\\.", "", escaped(text)))


def test_what_cannot_be_printed_is_not_written() -> None:
    for text in ("\x1b[31m", "\u202ex", "a\x00b", "\ue000", "\ud800"):
        for made in (escaped(text), code(text)):
            assert made.isprintable()
            assert "�" in made


def test_paths_and_sentences_stay_readable() -> None:
    assert escaped('Say it\'s "one/two", 5%; why?') == 'Say it\'s "one/two", 5%; why?'
    assert code("dags/daily_sales.py:12") == "`dags/daily_sales.py:12`"
