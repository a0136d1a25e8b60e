"""What `import flowyml` and `import flowyml.runtime` cost above a bare interpreter."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, side_by_side

# Its own peak, in KiB: what the kernel tells of an ended process counts the one that it was forked from.
PEAK = """
with open("/proc/self/status") as file:
    print('{"peak":', next(line for line in file if line.startswith("VmHWM")).split()[1], "}")
"""
SCRIPTS = {
    "bare": PEAK,
    "flowyml": "import flowyml" + PEAK,
    "runtime": "import flowyml.runtime.worker" + PEAK,
    "prefect": "import prefect.flows" + PEAK,
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
        peak, plain = (taken[script].values["peak"] / 2**10 for script in (name, "bare"))
        yield Row(f"import {name}: peak memory", peak, "MiB", "bare Python", plain, "25 MB" if aim else "")
