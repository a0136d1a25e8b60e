"""Tables stand as parquet where parquet gives back the same table, else as pickles; they come back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from flowyml.artifacts import open_store, pack, unpack
from flowyml.core.errors import ArtifactError

FRAMES = {
    "plain": (pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": [True, False]}), "parquet"),
    "times": (pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin")}), "parquet"),
    "nullable": (pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}), "parquet"),
    "named index": (pd.DataFrame({"a": [1]}, index=pd.Index([7], name="i")), "parquet"),
    "range index": (pd.DataFrame({"a": [1, 2]}, index=range(5, 9, 2)), "parquet"),
    "whole numbers as columns": (pd.DataFrame({1: [1]}), "parquet"),
    "no rows": (pd.DataFrame({"a": pd.Series([], dtype="int32")}), "parquet"),
    "objects": (pd.DataFrame({"a": [[1], {"b": 2}]}), "pickle"),
    "categories": (pd.DataFrame({"a": pd.Categorical([1, 2], categories=[2, 1, 3], ordered=True)}), "pickle"),
    "seconds": (pd.DataFrame({"a": pd.Series(["2020-01-01"], dtype="datetime64[s]")}), "pickle"),
    "complex": (pd.DataFrame({"a": [1 + 2j]}), "pickle"),
    "twice the same column": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "pickle"),
    "a frequency": (pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2020", periods=2)), "pickle"),
    "levels": (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "b")])), "pickle"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(tmp_path: Path, name: str) -> None:
    frame, expected = FRAMES[name]
    packed = pack(frame, open_store(tmp_path), key="a")
    back = unpack(packed, open_store(tmp_path))
    assert packed["$artifact"]["format"] == expected
    pd.testing.assert_frame_equal(back, frame, check_freq=True, check_exact=True)
    assert type(back.index) is type(frame.index)


def test_what_is_pinned_to_a_frame_stays(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False)
    frame.attrs = {"unit": ("m", 1)}
    back = unpack(pack(frame, open_store(tmp_path), key="a"), open_store(tmp_path))
    assert (back.attrs, back.flags) == (frame.attrs, frame.flags)


def test_a_series_keeps_its_name(tmp_path: Path) -> None:
    series = pd.Series([1, 2], name="n", index=["x", "y"])
    pd.testing.assert_series_equal(unpack(pack(series, open_store(tmp_path), key="a"), open_store(tmp_path)), series)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None], pa.int8()), "parquet-arrow"),
        (pa.array([[1], None]), "parquet-arrow"),
        (pa.array(["a"]).dictionary_encode(), "parquet-arrow"),
        (pa.array([1]).dictionary_encode(), "pickle"),
        (pa.array([1], pa.timestamp("s")), "pickle"),
        (pa.RunEndEncodedArray.from_arrays([2], ["a"]), "pickle"),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_arrow_tables(tmp_path: Path, column: Any, expected: str) -> None:
    table = pa.table({"c": column}).replace_schema_metadata({"k": "v"})
    packed = pack(table, open_store(tmp_path), key="a")
    back = unpack(packed, open_store(tmp_path))
    assert packed["$artifact"]["format"] == expected
    assert back.equals(table)
    assert (back.schema, back.schema.metadata) == (table.schema, table.schema.metadata)


def test_polars_frames(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [[1], None], "b": ["x", "y"]}, schema_overrides={"b": polars.Enum(["y", "x"])})
    packed = pack(frame, open_store(tmp_path), key="a")
    back = unpack(packed, open_store(tmp_path))
    assert packed["$artifact"]["format"] == "parquet-polars"
    assert back.equals(frame)
    assert back.schema == frame.schema
    objects = polars.DataFrame({"a": polars.Series([object], dtype=polars.Object)})
    with pytest.raises(ArtifactError, match="serializing data of type Object is not supported"):
        pack(objects, open_store(tmp_path), key="b")
