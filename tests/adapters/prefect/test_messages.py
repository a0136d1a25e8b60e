"""The words that are read back are those that Prefect, and compiled flows, write."""

from __future__ import annotations

import ast
from importlib.resources import files

import pytest

from flowyml_prefect.messages import OF_PREFECT, cached_from, error_text, is_last_line, is_machinery, task_runs

pytestmark = pytest.mark.prefect


def texts(*sources: str) -> str:
    """All texts in Python sources; what varies in one is a #."""
    found = []
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        match node:
            case ast.JoinedStr(values=parts):
                found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "#" for part in parts))
            case ast.Constant(value=str(text)):
                found.append(text)
    return "\n".join(found)


@pytest.mark.parametrize("words", OF_PREFECT)
def test_prefect_still_writes_these_words(words: str) -> None:
    written = texts(*(files("prefect").joinpath(f"{kind}_engine.py").read_text("utf-8") for kind in ("flow", "task")))
    assert words in written or words.replace("exception: ", "#: #") in written  # "exception" is put in, too


def test_flows_write_what_is_read() -> None:
    written = texts(
        *(files("flowyml_prefect").joinpath(name).read_text("utf-8") for name in ("worker.py", "walker.py"))
    )
    assert {"Task runs: #", "cached from #"} <= set(written.splitlines())
    assert (task_runs("Task runs: 12"), task_runs("All states completed."), task_runs("12")) == (12, None, None)
    assert (cached_from("cached from nightly-3"), cached_from("")) == ("nightly-3", "")


def test_the_error_is_read_without_its_wrapping() -> None:
    assert error_text("Task run encountered an exception StepFailedError: no", "Failed") == "no"
    assert error_text("Task run failed due to timeout: StepTimeoutError('late')", "TimedOut") == "late"
    assert error_text("", "Crashed") == "Crashed"


def test_prefects_own_lines_are_told_apart() -> None:
    assert is_last_line("Finished in state Completed()")
    assert is_machinery("Task run failed with exception: StepFailedError() flowyml.core.errors.StepFailedError")
    assert is_machinery("Engine execution exited with unexpected exception prefect.exceptions.FailedRun: step 'a'")
    assert not is_machinery("Task run failed with exception: ValueError()")
