"""What a cached step costs: a hit beside a step that runs, and finding the code that a step reaches."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, sample

RUNS = """
import json, time
from flowyml import pipeline, step

STEPS, TIMES = 100, 7

def add(value: int) -> int:
    return value + 1

def chain(made):
    @pipeline(name=f"chain-{made.name}")
    def steps(start: int = 0):
        value = start
        for _ in range(STEPS):
            value = made(value)
        return value
    return steps

def seconds(run):
    taken = []
    for _ in range(TIMES):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return min(taken)

if __name__ == "__main__":
    plain, cached = chain(step(name="plain")(add)), chain(step(name="cached", cache=True)(add))
    plain.run(), cached.run()
    runs, hits = seconds(plain.run), seconds(cached.run)
    compiled = seconds(cached.compile)
    cached.run(refresh=True)
    misses = seconds(lambda: cached.run(refresh=True))
    print(json.dumps({
        "plain": 1000 * runs / STEPS, "hit": 1000 * hits / STEPS, "miss": 1000 * misses / STEPS,
        "compile": 1000 * compiled / STEPS,
    }))
"""


def rows() -> Iterator[Row]:
    """Milliseconds of a processor for each step of a chain of a hundred, whose values are small."""
    found = sample(RUNS).values
    beside, base = "a step that runs, uncached", found["plain"]
    yield Row("a cached step that is not run (a hit), local", found["hit"], "ms", beside, base, "at most 1 ms")
    yield Row("a cached step that runs, and is kept", found["miss"], "ms", beside, base)
    yield Row("compiling a pipeline anew, a cached step", found["compile"], "ms", beside, base)
