"""A pipeline that is stopped in mid-run. Workers load this file, where no pytest is installed."""

from __future__ import annotations

from flowyml import Pipeline, cleanup, pipeline, step, when

__all__ = ["stopping"]


@step
def count() -> int:
    return 0


@step
def passed_over() -> None: ...


@step
def work(folder: str, count: int) -> int:
    import time
    from pathlib import Path

    Path(folder, "begun").touch()
    time.sleep(90)
    return count


@step
def waiting(rows: int) -> int:
    return rows


@step
def tidy(folder: str) -> None:
    from pathlib import Path

    Path(folder, "tidied").touch()


def stopping(name: str, *, tidies: bool, timeout: float | None = None) -> Pipeline:
    """A branch that is not taken, a step that takes its time, one that waits for it, and perhaps a clean-up."""

    @pipeline(name=name, timeout=timeout)
    def stopped(folder: str) -> int:
        rows = count()
        with when(rows > 0):
            passed_over()
        worked = work(folder, rows)
        result = waiting(worked)
        if tidies:
            with cleanup():
                tidy(folder)
        return result

    return stopped
