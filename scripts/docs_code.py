"""The code blocks of the README and of docs/; run as a script, write their programs to a folder for type checkers.

A program is a `python` block with a title: the name of its file.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>python|bash)(?: +title="(?P<title>[^"]+)")?\n(?P<code>.*?)^(?P=indent)```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first line in the page, counted from 0."""

    language: str
    title: str | None
    code: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        yield Block(match["language"], match["title"], code, text.count("\n", 0, match.start("code")))


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for page in PAGES:
        name = str(page.relative_to(ROOT).with_suffix("")).translate(str.maketrans("/-", "__"))
        for block in blocks(page):
            if block.language == "python" and block.title:
                file = folder / name / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("\n" * block.line + block.code)  # a complaint names the line of the page


if __name__ == "__main__":
    main(Path(sys.argv[1]))
