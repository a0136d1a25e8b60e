"""Small steps for the pipelines with control flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flowyml import step

__all__ = ["Parts", "parts", "wait_for"]


class Parts(NamedTuple):
    """The steps. ``note`` is a plain function for steps: it writes a line into the trace."""

    note: Callable[..., None]
    numbers: Any
    double: Any
    add: Any
    total: Any
    same: Any
    risky: Any


def parts(folder: str) -> Parts:
    """Create the steps for one pipeline, inside a function, so that they are pickled by value."""

    def note(*words: object) -> None:
        from pathlib import Path

        with (Path(folder) / "trace").open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    @step
    def numbers(count: int) -> list[int]:
        return list(range(count))

    @step
    def double(n: int) -> int:
        return 2 * n

    @step
    def add(a: int, b: int = 0) -> int:
        return a + b

    @step
    def total(values: list[int]) -> int:
        return sum(values)

    @step
    def same(value: Any = None) -> Any:
        """Notes that it ran, by the name that it has in the pipeline, and for which item."""
        from flowyml import current_run

        run = current_run()
        note(run.step, *run.index)
        return value

    @step
    def risky(n: int) -> int:
        """Fails for negative numbers."""
        note("risky", n)
        if n < 0:
            raise ValueError(f"no {n}")
        return n

    return Parts(note, numbers, double, add, total, same, risky)


def wait_for(folder: str, name: str, patience: float) -> Callable[[], None]:
    """A function for steps: it waits for a file, and fails if the file does not exist after ``patience`` seconds."""

    def wait() -> None:
        import time
        from pathlib import Path

        for _ in range(int(20 * patience)):
            if (Path(folder) / name).exists():
                return
            time.sleep(0.05)
        raise TimeoutError(f"waited {patience:g} s for {name}")

    return wait
