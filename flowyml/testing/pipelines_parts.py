"""Small steps for the pipelines with control flow, and the decorator that fills them in."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from flowyml import Pipeline, pipeline, step

__all__ = ["Parts", "flow", "parts", "wait_for"]


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


def flow(function: Callable[..., Any]) -> Callable[..., Pipeline]:
    """Decorate the function of a sample pipeline, whose name follows ``conformance``; a folder makes it a pipeline.

    The function takes parts, ``folder``, and settings of the suite by their names; its other parameters are those of a
    run.
    """

    def of(folder: str, **settings: Any) -> Pipeline:
        signature = inspect.signature(function, eval_str=True)
        filled = {**parts(folder)._asdict(), "folder": folder, **settings}
        filled = {name: filled[name] for name in filled.keys() & signature.parameters.keys()}

        @wraps(function)
        def sample(**values: Any) -> Any:
            return function(**filled, **values)

        own = [parameter for name, parameter in signature.parameters.items() if name not in filled]
        sample.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]  # what inspect looks for
        name = f"conformance {function.__name__.replace('_', ' ')}"
        return pipeline(name=name, description="")(sample)

    return of


def wait_for(folder: str, name: str, patience: float) -> Callable[[], None]:
    """A function for steps: it waits for a file, and fails if the file does not exist after ``patience`` seconds."""

    def wait() -> None:
        for _ in range(int(20 * patience)):
            if (Path(folder) / name).exists():
                return
            time.sleep(0.05)
        raise TimeoutError(f"waited {patience:g} s for {name}")

    return wait
