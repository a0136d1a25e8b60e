"""What steps print while a run is drawn: lines above the drawing, progress bars once."""

from __future__ import annotations

import io
import sys
from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from flowyml.cli.output import Output
from flowyml.core.progress_output import OutputAbove


def above(begun: str = "") -> tuple[OutputAbove, StringIO, StringIO]:
    shown, terminal = StringIO(), StringIO()
    return OutputAbove(Console(file=shown, width=40, color_system=None), terminal, begun), shown, terminal


def test_whole_lines_are_printed_and_the_rest_waits() -> None:
    stream, shown, _ = above()
    for text in ("one\ntw", "o", "\n[bold]three\n", "four"):
        stream.write(text)
    assert shown.getvalue() == "one\ntwo\n[bold]three\n"
    assert stream.tail == "four"
    stream.close()
    assert shown.getvalue().endswith("four\n")


def test_a_bar_is_printed_as_it_ended() -> None:
    stream, shown, _ = above()
    for percent in (0, 50, 100):
        stream.write(f"\r{percent}%|###")
        stream.flush()
        assert stream.tail == f"{percent}%|###"
    assert shown.getvalue() == ""
    stream.write("\n")
    stream.write("next\n")
    print("as on Windows", end="\r\n", file=stream)  # which writes twice
    print("more\r", file=stream)
    assert (shown.getvalue(), stream.tail) == ("100%|###\nnext\nas on Windows\nmore\n", "")


def test_richs_bars_are_printed_as_they_ended() -> None:
    stream, shown, _ = above()
    console = Console(file=stream, force_terminal=True, width=60)  # type: ignore[arg-type]  # what rich writes to
    with Progress(console=console, auto_refresh=False) as progress:
        tasks = [progress.add_task(name, total=4) for name in ("first", "second")]
        for _ in range(4):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
    stream.close()
    lines = shown.getvalue().splitlines()
    assert [line.split()[0] for line in lines if "100%" in line] == ["first", "second"]
    assert len(lines) <= 4
    assert not any(sign in shown.getvalue() for sign in ("\x1b", "\\x1b", "[2K"))


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[6n", "\x9b2J"])
def test_what_does_anything_else_is_shown(text: str) -> None:
    stream, shown, _ = above()
    stream.write(f"{text}\n")
    assert "\x1b" not in shown.getvalue()
    assert "\x9b" not in shown.getvalue()


def test_a_line_that_had_begun_becomes_part_of_the_drawing() -> None:
    stream, shown, terminal = above("\r10%\r20%")
    assert terminal.getvalue() == "\r\x1b[2K"
    stream.write("\r30%\nnext\n")
    assert (shown.getvalue(), stream.tail) == ("30%\nnext\n", "")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_of_a_log_is_written_above_the_picture_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who draws has standard output redirected meanwhile; a line past it would be erased with the next picture."""
    terminal, redirected = _Terminal(), _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with Output(shared=True) as out:
        monkeypatch.setattr(sys, "stdout", redirected)
        out.log_line("tick")
        monkeypatch.setattr(sys, "stdout", terminal)
        out.log_line("tock")
    assert ("tick" in redirected.getvalue(), "tick" in terminal.getvalue()) == (True, False)
    assert "tock" in terminal.getvalue()
