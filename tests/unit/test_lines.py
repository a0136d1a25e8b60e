"""Bytes that come in pieces become lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowyml.runtime.lines import Lines


def lines_of(pieces: list[bytes]) -> list[str]:
    got: list[str] = []
    lines = Lines("stdout", lambda stream, line: got.append(line))
    for piece in pieces:
        lines.feed(piece)
    lines.end()
    return got


def test_an_endless_line_is_cut() -> None:
    got = lines_of([b"x" * 50_000] * 3)
    assert [len(line) for line in got] == [65536, 65536, 18928]


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1),
    st.data(),
)
def test_however_the_bytes_are_cut_the_lines_are_the_same(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(f"{text}\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert lines_of(pieces) == texts
