"""Loops: what 50 of them add to compiling 5,000 steps, on each engine that has them; what an item costs locally."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, side_by_side

COMPILE = """
import json, time
from flowyml import for_each, pipeline, step
from flowyml.core.errors import NoFileFormatError, UnsupportedFeatureError
from flowyml.orchestrators import registry
from flowyml.orchestrators.target import Target
from flowyml.orchestrators.targets import construct

GROUPS, LENGTH = 50, 100

@step
def add(value: int = 0) -> int:
    return value + 1

def chain(value):
    for _ in range(LENGTH):
        value = add(value)
    return value

@pipeline
def flat():
    for number in range(GROUPS):
        chain(number)

@pipeline
def loops():
    for number in range(GROUPS):
        with for_each([1, 2, 3], name=f"loop {number}") as item:
            chain(item)

def timed(action):
    started = time.process_time()
    made = action()
    return made, time.process_time() - started

def measured():
    taken = {}
    bundles = {}
    for made in (flat, loops):
        plan, taken[f"plan {made.name}"] = timed(made.compile)
        assert len(plan.steps) == GROUPS * LENGTH
        bundles[made.name] = made.bundle()
    for name in registry.declared():
        orchestrator = construct(registry.load(name), Target(name, name), {})
        for made in (flat, loops):
            try:
                orchestrator.plan(made)
                _, taken[f"{name} {made.name}"] = timed(lambda: orchestrator.compile_files(bundles[made.name]))
            except (NoFileFormatError, UnsupportedFeatureError):
                pass
    return taken

if __name__ == "__main__":
    print(json.dumps(measured()))
"""

FAN_OUT = """
import json, resource, sqlite3, time
from flowyml import pipeline, step

@step
def same(item: int) -> int:
    return item

@step
def count(items: list[int]) -> int:
    return len(items)

@pipeline
def fan_out(items: list[int] = [1, 2, 3]):
    return {"count": count(same.map(item=items))}

def bare(length):
    database = sqlite3.connect("bare.db", isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("create table steps (run, name, item, status, started, ended)")
    started = time.perf_counter()
    database.execute("begin")
    for number in range(length):
        begun = time.time()
        same(number)
        database.execute(
            "insert into steps values (1, 'same', ?, 'COMPLETED', ?, ?)", (number, begun, time.time())
        )
    database.execute("commit")
    return time.perf_counter() - started

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

fan_out.run()
before = peak()
started = time.perf_counter()
result = fan_out.run({"items": list(range(LENGTH))})
seconds = time.perf_counter() - started
assert result["count"] == LENGTH
grown = peak() - before
print(json.dumps({"item": seconds / LENGTH * 1e3, "bare": bare(LENGTH) / LENGTH * 1e3, "memory": grown}))
"""


def rows() -> Iterator[Row]:
    """CPU seconds of compiling; milliseconds and memory of an item."""
    yield from _compiling()
    yield from _items()


def _compiling() -> Iterator[Row]:
    taken = side_by_side({"compile": COMPILE}, repeats=3)["compile"].values
    for name in sorted(key.removesuffix(" loops") for key in taken if key.endswith(" loops")):
        what = f"{name}: compile 5,000 steps in 50 loops: CPU"
        yield Row(what, taken[f"{name} loops"], "s", "the same without loops", taken[f"{name} flat"], "1.2 times")


def _items() -> Iterator[Row]:
    lengths = (1000, 10_000)
    taken = side_by_side({str(length): FAN_OUT.replace("LENGTH", str(length)) for length in lengths}, repeats=3)
    few, many = (taken[str(length)].values for length in lengths)
    beside = "plain calls with a bare SQLite record"
    yield Row("local, fan-out of 1,000 no-op items: an item", few["item"], "ms", beside, few["bare"], "0.1 ms")
    yield Row("local, fan-out of 10,000: an item", many["item"], "ms", "one of 1,000", few["item"], "1.2 times")
    yield Row("local, fan-out of 10,000: memory", many["memory"], "MiB", "one of 1,000", few["memory"])
