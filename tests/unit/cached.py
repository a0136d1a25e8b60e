"""Steps whose results are kept, that note when they run."""

from pathlib import Path
from typing import Any

from flowyml import pipeline, step

__all__ = ["Point", "chain", "note", "ran"]


def ran(path: Path) -> int:
    """How often a step has written its line."""
    return len(path.read_text().splitlines()) if path.exists() else 0


def note(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("ran\n")


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x


@step(cache=True, outputs=["point", "rows", "nothing"])
def make(path: str, x: int) -> tuple[Point, list[int], None]:
    note(path)
    return Point(x), list(range(x)), None


@step(cache=True)
def use(path: str, point: Point, rows: list[int], nothing: None) -> tuple[int, int]:
    note(path)
    return point.x, len(rows)


@pipeline
def chain(path: str, x: int = 3) -> Any:
    point, rows, nothing = make(path, x)
    return {"found": use(path, point, rows, nothing), "point": point}
