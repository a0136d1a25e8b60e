"""Plain values: those that every engine and its database carry unchanged as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from flowyml.plan.parameters import DEEPEST

__all__ = ["INLINE_LIMIT", "is_exact_in_postgresql", "is_plain", "parts", "with_floats", "without_floats"]

_AS_INTEGER = 1e16  # from here on, Python writes floats with an exponent
INLINE_LIMIT = 65536
"""The largest size of a value that is passed inline, in bytes of JSON."""


def is_plain(value: Any, depth: int = 0, *, in_file: bool = False) -> bool:
    """Return True for a value that any engine carries unchanged.

    That excludes tuples, NaN and keys that are not strings, which JSON changes; integers beyond 64 bits, NUL characters
    and lone surrogates, which some engines and databases refuse; and values nested more than a hundred levels deep.
    In a file of FlowyML's own, all floats and texts count as plain.
    """
    kind = type(value)
    if value is None or kind is bool:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**63)
    if kind is float:
        return in_file or math.isfinite(value)
    if kind is str:
        return in_file or _is_plain_text(value)
    if depth == DEEPEST:
        return False
    if kind is list:
        return all(is_plain(item, depth + 1, in_file=in_file) for item in value)
    return kind is dict and all(
        type(key) is str and (in_file or _is_plain_text(key)) and is_plain(item, depth + 1, in_file=in_file)
        for key, item in value.items()
    )


def is_exact_in_postgresql(value: Any, *, in_any_order: bool = False) -> bool:
    """Return whether ``jsonb`` of PostgreSQL returns JSON data as it is, with the names of a dict in their order.

    Its numbers have neither -0.0 nor exponents, so that 1e16 comes back as an integer; NUL and half a surrogate it
    refuses; names it sorts by their length and then their bytes.
    Source: https://www.postgresql.org/docs/current/datatype-json.html

    >>> is_exact_in_postgresql({"b": 0.5, "aa": [3]}), is_exact_in_postgresql([1e16]), is_exact_in_postgresql(-0.0)
    (True, False, False)
    >>> is_exact_in_postgresql({"aa": 1, "b": 2}), is_exact_in_postgresql({"aa": 1, "b": 2}, in_any_order=True)
    (False, True)
    """
    return all(
        (not isinstance(part, float) or (abs(part) < _AS_INTEGER and (part != 0 or math.copysign(1, part) > 0)))
        and (not isinstance(part, str) or _is_plain_text(part))
        and (not isinstance(part, dict) or in_any_order or _is_in_order_of_postgresql(part))
        for part in parts(value)
    )


def _is_in_order_of_postgresql(names: Iterable[str]) -> bool:
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    return encoded == sorted(encoded, key=lambda name: (len(name), name))


def parts(value: Any) -> Iterator[Any]:
    """Yield JSON data and all that is within it, names too."""
    yield value
    for part in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


def without_floats(value: Any) -> Any:
    """Replace NaN in plain data by ``{"$type": "float", "$repr": "nan"}``, and infinities likewise: JSON lacks them.

    Raises ``ValueError`` if a dict of the value itself has a key ``$type``.
    """
    if type(value) is list:
        return [without_floats(item) for item in value]
    if type(value) is dict:
        if "$type" in value:
            raise ValueError("the key '$type' is reserved for values that JSON cannot hold")
        return {key: without_floats(item) for key, item in value.items()}
    return {"$type": "float", "$repr": repr(value)} if type(value) is float and not math.isfinite(value) else value


def with_floats(read: dict[str, Any]) -> Any:
    """Return the number for such a dict; any other dict is unchanged. For ``object_hook`` of ``json``."""
    return float(read["$repr"]) if read.keys() == {"$type", "$repr"} and read["$type"] == "float" else read


def _is_plain_text(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
