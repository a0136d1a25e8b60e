"""Steps in threads share the memory of large arrays, and see them as they were returned all the same."""

from __future__ import annotations

import copy
import gc
import resource
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, for_each, pipeline, step
from flowyml.orchestrators.local.copies import MappedValue, with_large_mapped

np = pytest.importorskip("numpy")
NUMBERS = 1_500_000
"""Numbers of eight bytes that take more than the 10 MB from which copies are mapped."""


@dataclass
class Model:
    weights: Any
    name: str = "a"


def pss() -> int:
    """Return the bytes of this process; a page that several mappings share counts once."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


needs_pss = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux counts shared memory once")

ARRAYS: dict[str, Callable[[], Any]] = {
    "plain": lambda: np.arange(NUMBERS, dtype=float),
    "of two dimensions": lambda: np.arange(NUMBERS).reshape(1000, -1),
    "in columns": lambda: np.asfortranarray(np.arange(NUMBERS).reshape(1000, -1)),
    "every second": lambda: np.arange(2 * NUMBERS)[::2],
    "reversed": lambda: np.arange(NUMBERS)[::-1],
    "dates": lambda: np.arange(NUMBERS).astype("M8[s]"),
    "big-endian": lambda: np.arange(NUMBERS, dtype=">i8"),
    "texts": lambda: np.arange(NUMBERS).astype(str),
    "read-only": lambda: np.frombuffer(np.arange(NUMBERS).tobytes(), dtype=np.int64),
    "records": lambda: np.frombuffer(np.arange(NUMBERS).tobytes(), dtype=[("a", "i4"), ("b", "f4")]),
    "broadcast": lambda: np.broadcast_to(np.arange(2000), (1000, 2000)),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_each_copy_of_an_array_can_be_changed_alone(make: Callable[[], Any], tmp_path: Path) -> None:
    array = make()
    value = with_large_mapped(array, tmp_path)
    changed, other = value.copy(), value.copy()
    changed.flat[2] = changed.flat[3]
    for seen in (other, value.copy()):
        assert type(seen) is np.ndarray
        assert (seen.dtype, seen.shape) == (array.dtype, array.shape)
        assert np.array_equal(seen, array)
        assert seen.flags.writeable
        assert seen.flags.aligned
    assert not np.array_equal(changed, array)
    assert not list(tmp_path.iterdir())  # the file has no name


def test_objects_with_arrays_keep_their_types_and_what_is_the_same_in_them(tmp_path: Path) -> None:
    weights, small = np.ones(NUMBERS), np.zeros(3)
    value = with_large_mapped({"one": Model(weights), "two": [Model(weights), small], "small": small}, tmp_path)
    assert type(value) is MappedValue
    first, second = value.copy(), value.copy()
    assert first["one"].weights is first["two"][0].weights
    assert first["small"] is first["two"][1]
    first["one"].weights *= 2
    first["small"] += 1
    assert (second["one"].weights.sum(), second["small"].sum()) == (NUMBERS, 0)
    assert (weights.sum(), small.sum()) == (NUMBERS, 0)


def test_other_values_stay_as_they_are(tmp_path: Path) -> None:
    objects = np.array([[1]] * NUMBERS, dtype=object)
    unpicklable = [np.ones(NUMBERS), lambda: 1]
    for value in (np.ones(3), objects, unpicklable, b"x" * 20_000_000, [1, 2], None):
        assert with_large_mapped(value, tmp_path) is value


@needs_pss
def test_copies_share_memory_until_they_are_changed(tmp_path: Path) -> None:
    array = np.ones(4 * NUMBERS)
    size = array.nbytes
    value = with_large_mapped(array, tmp_path)
    del array
    before = pss()
    copies = [value.copy() for _ in range(8)]
    assert sum(float(each.sum()) for each in copies) == 8 * 4 * NUMBERS
    assert pss() - before < 1.2 * size
    copies[0][: NUMBERS // 5] = 0  # a twentieth
    assert pss() - before < 1.3 * size
    for each in copies[:2]:
        each += 1
    assert 2.5 * size < pss() - before < 3.5 * size


def test_a_value_that_was_moved_to_a_file_is_released_before_its_consumers_run() -> None:
    made: list[weakref.ref[Any]] = []

    def make() -> Any:
        array = np.ones(NUMBERS)
        made.append(weakref.ref(array))
        return array

    def use(array: Any, number: int) -> tuple[int, bool]:
        array += number
        return int(array[-1]), made[0]() is None

    @pipeline
    def fan() -> Any:
        array = step(name="make")(make)()
        with for_each([0, 1, 2, 3]) as number:
            used = step(name="use")(use)(array, number)
        return {"used": used, "array": array}

    result = fan.run()
    assert result["used"] == [(1, True), (2, True), (3, True), (4, True)]
    own = result["array"]
    own += 1
    assert own.sum() == 2 * NUMBERS


def test_each_attempt_gets_the_array_as_it_was_returned() -> None:
    seen: list[float] = []

    def make() -> Any:
        return np.ones(NUMBERS)

    def spoil(array: Any) -> float:
        seen.append(float(array.sum()))
        array *= 0
        if len(seen) < 3:
            raise OSError("not yet")
        return 1.0

    made = Pipeline("spoiled").add_step(step(outputs=["array"])(make))
    assert made.add_step(step(outputs=["one"], retry=2)(spoil)).run().success
    assert seen == [NUMBERS] * 3


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_values_are_copied_where_they_cannot_be_written(tmp_path: Path) -> None:
    array = np.ones(NUMBERS)
    with files_of_at_most(5_000_000):
        assert with_large_mapped(array, tmp_path) is array
    assert not list(tmp_path.iterdir())


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_many_copies_leave_file_descriptors_for_the_steps(tmp_path: Path) -> None:
    value = with_large_mapped(np.ones(NUMBERS), tmp_path)
    before = open_files()
    copies = [value.copy()[:1] for _ in range(120)]
    assert open_files() - before < 105
    assert sum(float(each[0]) for each in copies) == 120


def test_a_copy_outlives_its_value(tmp_path: Path) -> None:
    copied = with_large_mapped(np.ones(NUMBERS), tmp_path).copy()
    gc.collect()
    assert copy.deepcopy(copied).sum() == NUMBERS
