"""What `import flowyml` and `import flowyml.runtime` cost above a bare interpreter."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, side_by_side

SCRIPTS = {
    "bare": "pass",
    "flowyml": "import flowyml",
    "runtime": "import flowyml.runtime.worker",
    "pydantic": "import pydantic",
    "prefect": "import prefect.flows",
}


def rows() -> Iterator[Row]:
    """CPU seconds of a whole process, less those of a bare interpreter."""
    taken = side_by_side(SCRIPTS, repeats=9)
    bare = taken["bare"].cpu
    for name, aim in (("flowyml", "within 40 ms"), ("runtime", "")):
        added = taken[name].cpu - bare
        yield Row(
            f"import {name}: CPU above bare Python",
            added * 1e3,
            "ms",
            "import prefect",
            (taken["prefect"].cpu - bare) * 1e3,
            aim,
        )
        yield Row(
            f"import {name}: peak memory", taken[name].peak / 2**20, "MiB", "bare Python", taken["bare"].peak / 2**20
        )
