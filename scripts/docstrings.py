"""A Griffe extension: docstrings in the house style become Markdown, so that the reference shows them as meant.

Doctests and reStructuredText's literal blocks and tables become code blocks. The rest of the house style is the same
in both.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_TABLE = re.compile(r"^=+(?: +=+)+\n(?:.+\n)*=+(?: +=+)+$", re.MULTILINE)
_LITERAL = re.compile(r"^::$\n\n|::$(?=\n\n )", re.MULTILINE)


def as_markdown(text: str) -> str:
    """The text of one docstring."""
    text = _DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
    text = _TABLE.sub(lambda found: f"```text\n{found[0]}\n```", text)
    return _LITERAL.sub(lambda found: "" if found[0].startswith("::\n") else ":", text)


class HouseDocstrings(griffe.Extension):
    """Applied to every object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
