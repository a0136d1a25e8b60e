"""Tables as Parquet, if Parquet restores the same table.

Parquet drops some types (a category of integers comes back as integers, seconds as milliseconds), depending on the
versions of the libraries. So a table without rows makes the round trip first, and its types are compared.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

from flowyml.artifacts.optional import require

__all__ = [
    "is_faithful_arrow",
    "is_faithful_pandas",
    "read_arrow",
    "read_pandas",
    "read_polars",
    "write_arrow",
    "write_pandas",
    "write_polars",
]


def write_pandas(frame: Any, file: BinaryIO) -> None:
    """Write a ``pandas.DataFrame``. Needs pyarrow."""
    require("pyarrow")
    frame.to_parquet(file, engine="pyarrow")


def read_pandas(source: Path | BinaryIO) -> Any:
    """Read a ``pandas.DataFrame``."""
    require("pyarrow")
    return require("pandas").read_parquet(source, engine="pyarrow")


def is_faithful_pandas(frame: Any) -> bool:
    """Return False if types would change.

    Checks the rows, too: objects may be anything, and categories are in the rows.
    """
    dtypes = [*frame.dtypes, frame.index.dtype]
    if frame.attrs or any(str(dtype) in ("object", "category") for dtype in dtypes):
        return False
    empty, file = frame.iloc[:0], io.BytesIO()
    write_pandas(empty, file)
    back = read_pandas(file)
    return bool(
        back.dtypes.equals(frame.dtypes)
        and back.columns.identical(frame.columns)
        and back.index.identical(empty.index)
        and getattr(back.index, "freq", None) == getattr(frame.index, "freq", None)
        and back.flags == frame.flags
    )


def write_arrow(table: Any, file: BinaryIO) -> None:
    """Write a ``pyarrow.Table``."""
    require("pyarrow.parquet").write_table(table, file)


def read_arrow(source: Path | BinaryIO) -> Any:
    """Read a ``pyarrow.Table``."""
    return require("pyarrow.parquet").read_table(source)


def is_faithful_arrow(table: Any) -> bool:
    """Return False if types would change."""
    file = io.BytesIO()
    write_arrow(table.schema.empty_table(), file)
    return bool(read_arrow(file).schema.equals(table.schema))


def write_polars(frame: Any, file: BinaryIO) -> None:
    """Write a ``polars.DataFrame``. Polars itself refuses columns that Parquet cannot restore."""
    frame.write_parquet(file)


def read_polars(source: Path | BinaryIO) -> Any:
    """Read a ``polars.DataFrame``."""
    return require("polars").read_parquet(source, memory_map=False)
