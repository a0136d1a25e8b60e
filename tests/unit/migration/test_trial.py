"""A trial: work that may never end is tried in a process that the kernel ends."""

from __future__ import annotations

import pytest

from flowyml.migration.trial import Trial, parse_module

ENDLESS = ("(a|.)" * 39 + "b", "a" * 60)


@pytest.mark.processes
def test_what_takes_too_long_does_not_end_and_the_next_try_has_a_process_of_its_own() -> None:
    with Trial() as trial:
        assert trial.ends("re", "match", "a+", "aa", seconds=1, megabytes=256)
        assert trial.spent < 0.5
        assert not trial.ends("re", "match", *ENDLESS, seconds=1, megabytes=256)
        assert trial.spent >= 1
        assert trial.ends("re", "match", "a+", "aa", seconds=1, megabytes=256)
        assert not trial.ends("re", "finditer", *ENDLESS, seconds=1, megabytes=256), "the items are part of the work"


def test_what_fills_the_memory_does_not_end_and_what_raises_does() -> None:
    with Trial() as trial:
        assert not trial.ends("re", "sub", "a", "b" * 100_000, "a" * 100_000, seconds=2, megabytes=256)
        assert trial.ends("re", "match", "(", "a", seconds=2, megabytes=256)


def test_a_text_that_ends_the_process_of_a_parser_is_a_syntax_error() -> None:
    assert parse_module("x = 1\n").code == "x = 1\n"
    with pytest.raises(SyntaxError, match="nest too deeply"):
        parse_module("x = " + " and ".join(["a"] * 20_000))
    assert parse_module("x = 2\n").code == "x = 2\n"
