"""Values between steps: what is inlined, what is stored, and that each comes back exactly."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml.artifacts import artifact_key, is_reference, open_store, pack, run_place, unpack
from flowyml.artifacts.store import LocalStore, Store
from flowyml.core.errors import ArtifactError
from tests.engines.s3 import fake_s3


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    __slots__ = ()


class Refuses:
    def __reduce__(self) -> str:
        raise RuntimeError("not this one")


class ComesBackBroken:
    def __setstate__(self, state: object) -> None:
        raise RuntimeError("no way back")

    def __getstate__(self) -> object:
        return {"a": 1}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of moto's server, a fake of S3."""
    with fake_s3("bucket") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield "s3://bucket"


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "artifacts")
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory:/"
    return open_store(f"{root}/{tmp_path.name}/artifacts")


def stored_format(packed: Any) -> str:
    return str(packed["$artifact"]["format"]) if is_reference(packed) else "inline"


def round_trip(value: Any, store: Store) -> tuple[str, Any]:
    """The format, and the value that comes back after the reference went through an engine's JSON."""
    packed = pack(value, store, key="run/step/1/out")
    return stored_format(packed), unpack(json.loads(json.dumps(packed)), store)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "inline"),
        (-0.0, "inline"),
        (2**63 - 1, "inline"),
        (2**63, "pickle"),
        (math.inf, "json-nan"),
        ({"a": [-math.inf, 0.5], "$repr": "nan"}, "json-nan"),
        ({"$type": "float", "$repr": "nan"}, "inline"),
        ({"$type": "float", "$repr": math.inf}, "pickle"),
        ("a\0b", "text"),
        (["a\0b", {"\0": "\ud800 and \ud83d\ude00"}], "json-nan"),
        ("lone \ud800 surrogate", "text"),
        ({"a": [1, {"b": None}]}, "inline"),
        ({"$artifact": {"url": "file:///etc/passwd"}}, "json"),
        ({"deeper": {"$artifact": 1}}, "inline"),
        ({1: "a"}, "pickle"),
        ([(1, 2)], "pickle"),
        ((1, 2), "pickle"),
        (Point(1, 2), "pickle"),
        (Text("a"), "pickle"),
        (np.float64(1.5), "pickle"),
        (b"\x00\xff", "bytes"),
        ("x" * 70_000, "text"),
        (["x"] * 70_000, "json"),
    ],
)
def test_each_value_comes_back_with_its_type(tmp_path: Path, value: Any, expected: str) -> None:
    found, back = round_trip(value, open_store(tmp_path))
    assert (found, back, type(back)) == (expected, value, type(value))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype="int16").reshape(3, 4),
        np.asfortranarray(np.ones((3, 2))),
        np.arange(10)[::-2],
        np.zeros((0, 3), dtype="f4"),
        np.array(5.5),
        np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(3, dtype=">i4"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_stand_as_npy(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    found, back = round_trip(array, open_store(tmp_path))
    assert found == "npy"
    assert type(back) is np.ndarray
    assert back.dtype == array.dtype
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("wrapped", [False, True], ids=["array", "dict"])
def test_no_second_copy_of_an_array_is_made(tmp_path: Path, wrapped: bool) -> None:
    array = np.ones(64 << 20, dtype="u1")
    store = open_store(tmp_path)
    tracemalloc.start()
    try:
        packed = pack({"of": array} if wrapped else array, store, key="a")
        while_written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        back = unpack(packed, store)
        while_read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert while_written < 24 << 20
    assert while_read < (72 << 20 if wrapped else 8 << 20)
    assert (back["of"] if wrapped else back)[-1] == 1


def test_every_store_gives_back_what_it_was_given(store: Store) -> None:
    for value in (None, b"\x00\xff", "x" * 70_000, ["x"] * 70_000, {1: "a"}):
        assert round_trip(value, store)[1] == value


def test_a_step_may_change_its_array_and_the_artifact_stays(store: Store) -> None:
    packed = pack(np.zeros(3), store, key="a")
    unpack(packed, store)[:] = 7
    assert unpack(packed, store).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "array",
    [np.array([{"a": 1}, None]), np.ma.masked_array([1, 2], [0, 1]), np.rec.array([(1, 2.0)])],
    ids=lambda array: type(array).__name__,
)
def test_arrays_that_npy_would_change_are_pickled(tmp_path: Path, array: Any) -> None:
    found, back = round_trip(array, open_store(tmp_path))
    assert (found, type(back), repr(back)) == ("pickle", type(array), repr(array))


def test_what_a_pickle_holds_keeps_its_shape(store: Store) -> None:
    """One object twice, a list within itself, and a function without a name."""
    shared, loop, base = {"a": (1,)}, list[Any](), 3
    loop.append(loop)
    back = round_trip([shared, shared, loop, lambda x: x + base], store)[1]
    assert back[0] is back[1]
    assert back[2][0] is back[2]
    assert back[3](4) == 7


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (threading.Lock(), "lock cannot be pickled: cannot pickle '_thread.lock' object"),
        ([Refuses()], "list cannot be pickled: not this one"),
    ],
)
def test_what_cannot_be_pickled_says_so_and_leaves_nothing(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        pack(value, open_store(tmp_path), key="a/b")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_inline_limit(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert pack("x" * 65534, store, key="a") == "x" * 65534
    assert is_reference(pack("x" * 65535, store, key="a"))
    assert is_reference(pack("ü" * 65534, store, key="a"))
    assert is_reference(pack([1], store, key="a", inline_limit=0))


def test_a_reference_tells_what_it_refers_to(tmp_path: Path) -> None:
    packed = pack(np.arange(3), open_store(tmp_path), key="run/step/1/out")
    assert packed == {
        "$artifact": {
            "url": f"file://{tmp_path}/run/step/1/out.npy",
            "format": "npy",
            "sha256": packed["$artifact"]["sha256"],
            "size": 152,
            "type": "numpy.ndarray",
        }
    }


@pytest.mark.parametrize("damage", ["truncate", "change", "delete"])
@pytest.mark.parametrize("value", [b"some bytes", {1: 2}, np.arange(1000)], ids=["bytes", "pickle", "mapped array"])
def test_damage_is_an_error_until_it_is_mended(tmp_path: Path, value: Any, damage: str) -> None:
    store = open_store(tmp_path)
    packed = pack(value, store, key="a")
    path = Path(packed["$artifact"]["url"].removeprefix("file://"))
    whole = path.read_bytes()
    if damage == "truncate":
        os.truncate(path, 3)
    elif damage == "change":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        path.unlink()
    with pytest.raises(ArtifactError, match=r"bytes instead|SHA-256 differs|does not exist"):
        unpack(packed, store)
    path.write_bytes(whole)
    assert pickle.dumps(unpack(packed, store)) == pickle.dumps(value)


def test_a_change_of_a_mapped_array_is_noticed_though_its_time_was_set_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    packed, path = pack(np.arange(1000), store, key="a"), tmp_path / "a.npy"
    assert unpack(packed, store)[-1] == 999
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # a clock of 4 ms
        with path.open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"\1")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        unpack(packed, store)


def test_a_class_that_fails_to_come_back_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    packed = pack(ComesBackBroken(), store, key="a")
    with pytest.raises(ArtifactError, match=r"a\.pkl cannot be read as pickle: RuntimeError: no way back"):
        unpack(packed, store)


@pytest.mark.parametrize("reference", [{}, None, {"url": "x"}, {"url": "x", "format": "?", "sha256": "", "size": 1}])
def test_a_reference_that_is_none(tmp_path: Path, reference: Any) -> None:
    with pytest.raises(ArtifactError, match="not a reference to an artifact"):
        unpack({"$artifact": reference}, open_store(tmp_path))


def test_a_value_is_read_from_the_stores_that_are_named_and_no_other(tmp_path: Path) -> None:
    folder, memory = open_store(tmp_path), open_store(f"memory://{tmp_path.name}/elsewhere")
    in_folder, in_memory = pack({1: 2}, folder, key="a"), pack({3: 4}, memory, key="a")
    other = open_store(f"memory://{tmp_path.name}/other")
    assert unpack(in_folder, memory, folder) == unpack(in_folder, folder, other) == {1: 2}
    assert unpack(in_memory, folder, other, memory) == {3: 4}
    for packed in (in_folder, in_memory):
        with pytest.raises(ArtifactError, match=r"is not in memory://.*/other, .* If the steps use another store"):
            unpack(packed, other)


@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_a_folder_by_path_or_url(tmp_path: Path, prefix: str) -> None:
    store = open_store(f"{prefix}{tmp_path}/with space ü%20")
    assert isinstance(store, LocalStore)
    assert unpack(pack({1: 2}, store, key="a"), store) == {1: 2}
    assert (tmp_path / "with space ü%20" / "a.pkl").is_file()


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path))
    assert open_store().url == f"file://{tmp_path}/artifacts"
    monkeypatch.setenv("FLOWYML_ARTIFACTS", "memory://bucket/x/")
    assert open_store().url == "memory://bucket/x"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://key:hidden@bucket/x?token=hidden", "Artifacts at gs://bucket/x need a package: pip install gcsfs"),
        ("smb://me:hidden@host/x", r"Artifacts at smb://host/x need a package: pip install 'fsspec\[smb\]'"),
        ("bogus://me:hidden@x", "Artifacts at bogus://x cannot be reached: Protocol not known: bogus"),
    ],
)
def test_what_a_url_lacks_is_said_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        open_store(url)
    assert "hidden" not in str(caught.value)


class Shelf(LocalFileSystem):
    """A filesystem that shows files while they are written, as sftp does."""

    protocol = "shelf"

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("shelf://"))  # older releases only know their own protocols

    def put_file(self, lpath: str, rpath: str, callback: Any = None, **kwargs: Any) -> None:
        assert re.fullmatch(r"\.new-[0-9a-f]{16}", rpath.rpartition("/")[2])
        super().put_file(lpath, rpath)
        if Path(rpath).read_bytes() == b"tears":
            raise OSError("the line broke")


def test_where_files_show_while_they_are_written_they_get_their_name_at_the_end(tmp_path: Path) -> None:
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    store = open_store(f"shelf://{tmp_path}/deep")
    packed = pack(b"whole", store, key="a/b", inline_limit=0)
    assert unpack(packed, store) == b"whole"
    with pytest.raises(ArtifactError, match=r"shelf://.*/deep/c\.bin could not be written: OSError: the line broke"):
        pack(b"tears", store, key="c")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b.bin"]


def test_keys_that_could_leave_the_store_are_refused(store: Store) -> None:
    for key in ("../up", "/abs", "a//b", "", "A", "a/", "a/../b", ".hidden", "a\nb"):
        with pytest.raises(ArtifactError, match="cannot have the key"):
            pack({1: 2}, store, key=key)


def test_writers_of_one_key_never_mix(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    values = [bytes([number]) * 300_000 for number in range(16)]
    threads = [threading.Thread(target=pack, args=(value, store), kwargs={"key": "same"}) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "same.bin").read_bytes() in values
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_or_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(ArtifactError, match="could not be written") as caught:
        pack({1: 2}, open_store(tmp_path), key=artifact_key("a", "step", 1, "output"))
    assert "{" not in str(caught.value)


# Any text, the hostile ones included: this becomes a path.
names = st.text(min_size=1, max_size=200)


five = st.tuples(names, names, names, names, names)


@given(five, five)
@settings(max_examples=60)
def test_names_become_keys_that_stay_inside_and_never_collide(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    keys = [artifact_key(run_place(*place), step, 1, output) for *place, step, output in (one, other)]
    for key in keys:
        assert len(key.split("/")) == 6
        assert all(part.isascii() and part not in ("", ".", "..") for part in key.split("/"))
    assert (keys[0] == keys[1]) == (one == other)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=50)
values = st.recursive(
    scalars,
    lambda children: st.lists(children) | st.tuples(children) | st.dictionaries(st.text() | st.integers(), children),
    max_leaves=20,
)


@pytest.mark.slow
@given(values)
@settings(max_examples=100)
def test_any_value_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    store = open_store(tmp_path_factory.getbasetemp() / "any")
    back = round_trip(value, store)[1]
    assert repr(back) == repr(value)  # tells -0.0 from 0.0, True from 1, and nan is like nan


def test_nan_needs_no_pickle_and_is_stored_as_valid_json(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    packed = pack({"a": math.nan}, store, key="nan")
    assert math.isnan(unpack(packed, store)["a"])
    with store.local_copy(packed["$artifact"]["url"]) as path:
        assert json.loads(path.read_bytes(), parse_constant=pytest.fail) == {"a": {"$type": "float", "$repr": "nan"}}
