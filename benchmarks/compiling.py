"""The compile command as a whole, for 1,000 steps."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, side_by_side

PIPELINE = """
from flowyml import Pipeline, step

def work(value: int = 0) -> int:
    return value

big = Pipeline("big")
for number in range(1000):
    inputs = {"value": f"s{number - 1}"} if number else {}
    big.add_step(step(name=f"s{number}", inputs=inputs, outputs=[f"s{number}"])(work))
"""

COMMAND = """
import sys
from pathlib import Path
Path("big.py").write_text(PIPELINE)
sys.argv = ["flowyml", "compile", "big.py", "--to", "TARGET", "-o", "out/"]
from flowyml.cli import main
sys.exit(main())
"""

BARE = """
from pathlib import Path
Path("big.py").write_text(PIPELINE)
"""


def rows() -> Iterator[Row]:
    """CPU seconds of the whole process."""
    text = f"PIPELINE = {PIPELINE!r}\n"
    scripts = {"bare": text + BARE, "plan": text + COMMAND.replace("TARGET", "plan").replace("out/", "out.json")}
    scripts["prefect"] = text + COMMAND.replace("TARGET", "prefect")
    taken = side_by_side(scripts)
    for target in ("plan", "prefect"):
        yield Row(
            f"flowyml compile --to {target}, 1,000 steps: CPU",
            taken[target].cpu,
            "s",
            "a bare interpreter",
            taken["bare"].cpu,
            "0.2 s",
        )
