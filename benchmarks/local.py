"""The local orchestrator: overhead of a step, steps side by side, a large value on its way."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, side_by_side

CHAIN = """
import json, sqlite3, time
from flowyml import pipeline, step

@step
def add(value: int = 0) -> int:
    return value + 1

def chain(length):
    @pipeline(name=f"chain of {{length}}")
    def made():
        value = add()
        for _ in range(length - 1):
            value = add(value)
        return {{"end": value}}
    made.compile()
    return made

def bare(length):
    database = sqlite3.connect("bare.db", isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("create table steps (run, name, status, started, ended)")
    started, value = time.perf_counter(), 0
    database.execute("begin")
    for number in range(length):
        begun = time.time()
        value = add(value)
        database.execute("insert into steps values (1, ?, 'COMPLETED', ?, ?)", (f"s{{number}}", begun, time.time()))
    database.execute("commit")
    return time.perf_counter() - started

chain(3).run()
length = {length}
made = chain(length)
started = time.perf_counter()
result = made.run()
seconds = time.perf_counter() - started
assert result["end"] == length
print(json.dumps({{"flowyml": seconds / length, "bare": bare(length) / length}}))
"""

COMPILE_AND_RUN = CHAIN.replace("    made.compile()\n", "")

FAN = """
import json, time
from concurrent.futures import ThreadPoolExecutor
from flowyml import Pipeline, step

@step
def source() -> int:
    return 1

def one(source):
    return source

def total(**parts):
    return sum(parts.values())

pipeline = Pipeline("fan").add_step(source)
names = [f"part{number}" for number in range(200)]
for name in names:
    pipeline.add_step(step(name=name, outputs=[name])(one))
pipeline.add_step(step(inputs=names, outputs=["total"])(total))
pipeline.run()
started = time.perf_counter()
assert pipeline.run()["total"] == 200
fan = time.perf_counter() - started
started = time.perf_counter()
with ThreadPoolExecutor() as pool:
    assert sum(pool.map(one, [1] * 200)) == 200
print(json.dumps({"flowyml": fan, "threads": time.perf_counter() - started}))
"""

SIDE_BY_SIDE = """
import json, time
from concurrent.futures import ProcessPoolExecutor
from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator

def sleep() -> int:
    import time
    time.sleep(0.5)
    return 1

def burn() -> int:
    import time
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    return 1

def timed(function, orchestrator):
    pipeline = Pipeline("eight")
    for number in range(8):
        pipeline.add_step(step(name=f"s{number}")(function))
    started = time.perf_counter()
    assert pipeline.run(on=orchestrator).success
    return time.perf_counter() - started

def pooled():
    started = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        assert sum(future.result() for future in [pool.submit(burn) for _ in range(8)]) == 8
    return time.perf_counter() - started

if __name__ == "__main__":
    sleeping = timed(sleep, LocalOrchestrator(max_workers=8))
    burning = timed(burn, LocalOrchestrator(workers="processes", max_workers=2))
    print(json.dumps({"sleep": sleeping, "burn": burning, "pool": pooled()}))
"""

ITEMS = """
import json, time
from concurrent.futures import ProcessPoolExecutor
from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator

def square(n: int) -> int:
    return n * n

def seconds(items, **options):
    mapped = step(outputs=["squares"], timeout=600, **options)(square).map(n="items")
    pipeline = Pipeline("items", context={"items": list(range(items))}).add_step(mapped)
    started = time.perf_counter()
    assert len(pipeline.run(on=LocalOrchestrator(max_workers=2))["squares"]) == items
    return time.perf_counter() - started

def pooled(items):
    started = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        assert len(list(pool.map(square, range(items)))) == items
    return time.perf_counter() - started

if __name__ == "__main__":
    reused, own = seconds(10_000, local={"reuse_process": True}), seconds(1000)
    print(json.dumps({"reused": reused, "pool": pooled(10_000), "own": own, "small pool": pooled(1000)}))
"""

LARGE = """
import json, resource, sys, time
import numpy

def make() -> numpy.ndarray:
    return numpy.ones(25_000_000)

def use(array: numpy.ndarray) -> float:
    return float(array.sum())

def plain():
    started = time.perf_counter()
    use(make())
    return time.perf_counter() - started

def local():
    from flowyml import Pipeline, step
    # What the first run of a process pays whatever it passes on: imports and the file of the record.
    Pipeline("first").add_step(step(name="one")(lambda: 1)).run()
    pipeline = Pipeline("large").add_step(step(outputs=["array"])(make)).add_step(step(outputs=["sum"])(use))
    pipeline.compile()
    started = time.perf_counter()
    assert pipeline.run()["sum"] == 25e6
    return time.perf_counter() - started

def store():
    from flowyml.artifacts import open_store, pack, unpack
    array = make()
    started = time.perf_counter()
    place = open_store("artifacts")
    packed = pack(array, place, key="array")
    del array  # the next step is in another process
    use(unpack(packed, place))
    return time.perf_counter() - started

MODE = "plain"
print(json.dumps({"seconds": globals()[MODE](), "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""

SHARED = """
import json, resource, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy, pandas
from flowyml import Pipeline, for_each, pipeline, step

def array():
    return numpy.ones(37_500_000)  # 300 MB

def table():
    return pandas.DataFrame({f"c{n}": numpy.ones(1_562_500) for n in range(8)})  # 100 MB

def use(data, n):
    return float(data[n::20].sum()) if isinstance(data, numpy.ndarray) else float(data["c0"].mean())

make, items, mode, watched, sampled = MAKE, ITEMS, "MODE", WATCHED, [0]

def sample():
    # A page that several mappings of a process share counts once in its PSS, and in its RSS as often as it is mapped.
    while watched:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        sampled.append(next(int(line.split()[1]) for line in lines if line.startswith("Pss:")))
        time.sleep(0.01)

Pipeline("first").add_step(step(name="one")(lambda: 1)).run()

@pipeline
def fan():
    data = step(name="made", outputs=["data"], local={"share": mode == "share"})(make)()
    with for_each(list(range(items))) as n:
        return step(name="used")(use)(data, n)

fan.compile()
threading.Thread(target=sample, daemon=True).start()
started = time.perf_counter()
if mode == "plain":
    data = make()
    with ThreadPoolExecutor() as pool:
        assert len(list(pool.map(lambda n: use(data, n), range(items)))) == items
else:
    assert fan.run().success
seconds = time.perf_counter() - started
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "rss": rss / 1024, "pss": max(sampled) / 1024}))
"""


def rows() -> Iterator[Row]:
    """Overhead, parallel steps, large values."""
    yield from _overhead()
    yield from _parallel()
    yield from _large()
    yield from _shared()


def _overhead() -> Iterator[Row]:
    lengths = (1000, 10_000)
    scripts = {f"{length}": CHAIN.format(length=length) for length in lengths}
    scripts["compiled too"] = COMPILE_AND_RUN.format(length=1000)
    taken = side_by_side(scripts)
    short, long, compiled = (taken[name].values for name in scripts)
    beside = "plain calls with a bare SQLite record"
    yield Row("local, chain of 1,000: a step", short["flowyml"] * 1e3, "ms", beside, short["bare"] * 1e3, "0.05 ms")
    yield Row(
        "local, chain of 1,000, compiling included: a step",
        compiled["flowyml"] * 1e3,
        "ms",
        beside,
        compiled["bare"] * 1e3,
    )
    yield Row(
        "local, chain of 10,000: a step",
        long["flowyml"] * 1e3,
        "ms",
        "a chain of 1,000",
        short["flowyml"] * 1e3,
        "1.2 times",
    )
    fan = side_by_side({"fan": FAN})["fan"].values
    yield Row("local, 1 -> 200 -> 1", fan["flowyml"] * 1e3, "ms", "a bare thread pool", fan["threads"] * 1e3, "30 ms")


def _parallel() -> Iterator[Row]:
    eight = side_by_side({"eight": SIDE_BY_SIDE})["eight"].values
    yield Row("local, 8 steps of 0.5 s of sleep", eight["sleep"], "s", "the ideal", 0.5, "1.04 times")
    yield Row(
        "local, 8 steps of 0.5 s of CPU, 2 processes", eight["burn"], "s", "the ideal on 2 cores", 2.0, "1.04 times"
    )
    beside = "a bare pool of 2, which forks the caller"
    yield Row("the same", eight["burn"], "s", beside, eight["pool"])
    items = side_by_side({"items": ITEMS})["items"].values
    beside = "ProcessPoolExecutor, 2 processes"
    yield Row("local, 10,000 items that share 2 processes", items["reused"], "s", beside, items["pool"])
    yield Row("local, 1,000 items in processes of their own", items["own"], "s", beside, items["small pool"])


def _large() -> Iterator[Row]:
    modes = {mode: LARGE.replace('MODE = "plain"', f'MODE = "{mode}"') for mode in ("plain", "local", "store")}
    taken = side_by_side(modes, repeats=5)
    plain = taken["plain"].values
    local, store = taken["local"].values, taken["store"].values
    yield Row("200 MB by reference: time", local["seconds"], "s", "plain Python", plain["seconds"], "1.1 times")
    yield Row(
        "200 MB by reference: peak memory",
        local["peak"] / 2**20,
        "MiB",
        "plain Python",
        plain["peak"] / 2**20,
        "1.1 times",
    )
    yield Row("200 MB through the store: time", store["seconds"], "s", "plain Python", plain["seconds"], "0.30 s")
    yield Row(
        "200 MB through the store: peak memory",
        store["peak"] / 2**20,
        "MiB",
        "plain Python",
        plain["peak"] / 2**20,
        "250 MB",
    )


def _shared() -> Iterator[Row]:
    for what, make, items, modes in (
        ("60 items over a table of 100 MB", "table", 60, ("local",)),
        ("20 items over an array of 300 MB", "array", 20, ("local", "share")),
        ("2 items over an array of 300 MB", "array", 2, ("local", "share")),
    ):
        text = SHARED.replace("MAKE", make).replace("ITEMS", str(items))
        texts = {mode: text.replace('"MODE"', repr(mode)) for mode in ("plain", *modes)}
        timed = side_by_side({mode: text.replace("WATCHED", "False") for mode, text in texts.items()})
        watched = side_by_side({mode: text.replace("WATCHED", "True") for mode, text in texts.items()})
        for mode in modes:
            name = f"{what}{', shared' if mode == 'share' else ''}"
            seconds, pss = timed[mode].values["seconds"], watched[mode].values["pss"]
            yield Row(f"{name}: time", seconds, "s", "plain threads", timed["plain"].values["seconds"], "1.2 times")
            yield Row(f"{name}: peak memory", pss, "MiB", "plain threads", watched["plain"].values["pss"], "1.3 times")
            yield Row(
                f"{name}: peak RSS, which counts shared pages once for each copy", timed[mode].values["rss"], "MiB",
                "plain threads", timed["plain"].values["rss"],
            )  # fmt: skip
