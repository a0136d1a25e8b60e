"""A sample pipeline with cached steps, which are pickled by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowyml import Pipeline, pipeline, step
from flowyml.core.hooks import PipelineHook

__all__ = ["caches"]


def caches(folder: str, *, together: bool = True, loop: bool = True, hears: bool = True, **engines: Any) -> Pipeline:
    """Steps that record their runs, all but the last one cached: a list, its items, an object, and None.

    Unless ``together`` is false, the object and None are from an execution group. Without ``loop`` there are no items,
    and without ``hears`` no hook.
    """
    group = "both" if together else None

    def note(line: str) -> None:
        with Path(folder, "trace").open("a") as file:
            file.write(f"{line}\n")

    @step(cache=True)
    def numbers(count: int) -> list[int]:
        note("numbers")
        return list(range(count))

    @step(cache=True)
    def square(n: int) -> int:
        note(f"square {n}")
        return n * n

    @step(cache=True, execution_group=group)
    def scaled(values: list[int], scale: int) -> set[int]:
        note("scaled")
        return {scale * value for value in values}

    @step(cache=True, execution_group=group)
    def nothing(values: set[int]) -> int | None:
        note("nothing")
        return None

    @step
    def last(squares: list[int], scaled: Any, nothing: int | None) -> list[Any]:
        note("last")
        return [squares, sorted(scaled), nothing]

    class Hears(PipelineHook):
        def on_step_cached(self, step_name: str, run_id: str) -> None:
            with Path(folder, "journal").open("a") as file:
                file.write(f"{step_name} {run_id}\n")

    @pipeline(name="conformance caches", hooks=[Hears()] if hears else [], **engines)
    def made(count: int = 3, scale: int = 1) -> Any:
        values = numbers(count)
        found = scaled(values, scale)
        squares = square.map(n=values) if loop else [0, 1, 4]
        return {"found": last(squares, found, nothing(found))}

    return made
