"""``python -m benchmarks [imports|local|compiling|prefect …] [--json]``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Row

NOT_ROOMS = ("__init__", "__main__", "measure")
ROOMS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_ROOMS)


def measured(rooms: list[str]) -> Iterator[Row]:
    """The rows of each room, as they come."""
    for room in rooms:
        yield from importlib.import_module(f"benchmarks.{room}").rows()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked for: ``rooms``, and ``json`` for machines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"what to measure; all by default: {', '.join(ROOMS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args(arguments)
    if unknown := set(given.rooms) - set(ROOMS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    given.rooms = given.rooms or ROOMS
    return given


def main() -> None:
    """Print each row as soon as it is measured."""
    given = options()
    for row in measured(given.rooms):
        print(row.as_json() if given.json else _line(row), flush=True)


def _line(row: Row) -> str:
    beside = f"{row.ratio:6.2f} x {row.beside} ({row.base:.3g} {row.unit})"
    return f"{row.what:58} {row.value:9.3f} {row.unit:4} {beside:66} {f'aim: {row.aim}' if row.aim else ''}".rstrip()


if __name__ == "__main__":
    main()
