"""Python's operations on plain data, within bounds: no result exceeds ``LARGEST``, and only listed methods are called.

All functions raise the errors of Python, and ``NotKnown`` if a result would exceed the bounds.
"""

from __future__ import annotations

import ast
import collections
import configparser
import datetime
import graphlib
import hashlib
import io
import operator
import re
import string
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from flowyml.migration.airflow.reader.values import NotKnown

LARGEST = 200_000
"""The longest string or list, in characters or items."""

_PLAIN = (str, bytes, int, float, bool, type(None), datetime.date, datetime.timedelta, datetime.time, PurePosixPath)


def checked(value: Any) -> Any:
    """Return the value, unless it is too large."""
    if isinstance(value, (str, bytes, list, tuple, set, dict)) and len(value) > LARGEST:
        raise NotKnown
    if isinstance(value, PurePosixPath) and len(str(value)) > 4096:
        raise NotKnown
    if type(value) is int and value.bit_length() > 4096:
        raise NotKnown
    return value


def _multiply(left: Any, right: Any) -> Any:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, (str, bytes, list, tuple)) and isinstance(other, int) and len(one) * other > LARGEST:
            raise NotKnown
    return left * right


def _power(left: Any, right: Any) -> Any:
    if not isinstance(right, (int, float)) or abs(right) > 512:
        raise NotKnown
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > 4096:
        raise NotKnown
    return left**right


def _shift(left: Any, right: Any) -> Any:
    if not isinstance(right, int) or right > 512:
        raise NotKnown
    return left << right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes)):
        _widths(left if isinstance(left, str) else left.decode("latin-1"))
        _only_plain(right)
        if re.search(r"%[^%a-zA-Z(]*\*", str(left)):
            raise NotKnown
    return left % right


def _only_plain(value: Any, depth: int = 0) -> None:
    """Raise TypeError for data that is not plain: its text would be the evaluator's, not Python's."""
    if isinstance(value, (list, tuple, set)) and depth < 20:
        for one in value:
            _only_plain(one, depth + 1)
    elif isinstance(value, dict) and depth < 20:
        for one in value.values():
            _only_plain(one, depth + 1)
    elif not isinstance(value, _PLAIN):
        raise NotKnown


def _widths(text: str) -> None:
    if any(len(digits) > 4 for digits in re.findall(r"\d+", text)):
        raise NotKnown


class PythonVersion(NamedTuple):
    """``sys.version_info``."""

    major: int
    minor: int
    micro: int


BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.LShift: _shift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def binary(kind: type[ast.operator], left: Any, right: Any) -> Any:
    """Apply a binary operator to ``left`` and ``right``."""
    return checked(BINARY[kind](left, right))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DICT = _names("clear copy get items keys pop popitem setdefault update values")
METHODS: Mapping[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold center count encode endswith expandtabs find index isalnum isalpha isascii isdecimal "
        "isdigit isidentifier islower isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix "
        "removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase "
        "title translate upper zfill"
    ),
    bytes: _names("decode hex startswith endswith strip"),
    int: _names("bit_length"),
    float: _names("is_integer hex"),
    list: _names("append appendleft clear copy count extend extendleft index insert pop popleft remove reverse rotate"),
    tuple: _names("count index"),
    PythonVersion: frozenset(),
    collections.Counter: _names("most_common subtract total") | _DICT,
    collections.OrderedDict: _names("move_to_end") | _DICT,
    configparser.RawConfigParser: _names(
        "__setitem__ add_section defaults get getboolean getfloat getint has_option has_section items keys options "
        "read_dict read_string remove_option remove_section sections set values"
    ),
    configparser.SectionProxy: _names("__setitem__ get getboolean getfloat getint items keys values"),
    dict: _names("__contains__ __getitem__ __setitem__") | _DICT,
    set: _names(
        "add clear copy difference difference_update discard intersection intersection_update isdisjoint issubset "
        "issuperset pop remove symmetric_difference union update"
    ),
    frozenset: _names("difference intersection isdisjoint issubset issuperset symmetric_difference union"),
    datetime.datetime: _names(
        "add astimezone date in_timezone in_tz isoformat isoweekday replace strftime subtract time timestamp timetuple "
        "toordinal weekday"
    ),
    datetime.date: _names("isoformat isoweekday replace strftime toordinal weekday"),
    datetime.time: _names("isoformat replace strftime"),
    datetime.timedelta: _names("total_seconds"),
    datetime.tzinfo: _names("localize datetime"),
    graphlib.TopologicalSorter: _names("add done get_ready is_active prepare static_order"),
    io.StringIO: _names("close read readline readlines seek"),
    string.Template: _names("substitute safe_substitute"),
    type(hashlib.sha256()): _names("copy digest hexdigest update"),
    re.Pattern: frozenset(),
    re.Match: _names("group groups groupdict start end span"),
    PurePosixPath: _names("as_posix is_absolute is_relative_to joinpath relative_to with_name with_suffix with_stem"),
}
FIELDS: Mapping[type, frozenset[str]] = {
    datetime.datetime: _names("year month day hour minute second microsecond tzinfo"),
    datetime.date: _names("year month day"),
    datetime.time: _names("hour minute second microsecond tzinfo"),
    datetime.timedelta: _names("days seconds microseconds"),
    PurePosixPath: _names("name stem suffix suffixes parent parents parts anchor root"),
    int: _names("real imag numerator denominator"),
    re.Pattern: _names("flags groupindex groups pattern"),
    PythonVersion: _names("major minor micro"),
}
CHANGES = _names(
    "__setitem__ add add_section append appendleft clear difference_update discard extend extendleft insert "
    "intersection_update move_to_end pop popitem popleft read_dict read_string remove remove_option remove_section "
    "reverse rotate set setdefault subtract symmetric_difference_update update"
)
"""Methods of containers that change them."""


def changes(value: Any, name: str) -> bool:
    """Return whether a method changes its owner; that of a moment never does."""
    return name in CHANGES and not isinstance(value, datetime.date)


KEYED = frozenset({"count", "discard", "get", "index", "pop", "remove", "setdefault"})
"""Methods of containers whose first argument is a key or an item."""
STRUCTURAL: Mapping[type, frozenset[str]] = {
    list: METHODS[list],
    dict: METHODS[dict],
    collections.OrderedDict: METHODS[collections.OrderedDict],
    set: METHODS[set],
    tuple: METHODS[tuple],
}
"""Methods that only move items: the values of the items do not matter."""


def _in_zone(value: datetime.datetime, zone: Any) -> datetime.datetime:
    return value.astimezone(zoneinfo.ZoneInfo(zone) if isinstance(zone, str) else zone)


_OF_OTHERS: Mapping[str, Callable[..., Any]] = {
    "add": lambda value, **units: value + datetime.timedelta(**units),
    "subtract": lambda value, **units: value - datetime.timedelta(**units),
    "in_timezone": _in_zone,
    "in_tz": _in_zone,
    "localize": lambda zone, moment, **_: moment.replace(tzinfo=zone),
    "datetime": lambda zone, *fields: datetime.datetime(*fields).replace(tzinfo=zone),  # noqa: DTZ001  # it comes next
}
"""Methods of pendulum's dates, and of zones of pytz and pendulum, that Python's lack."""


def _rotate(value: list[Any], by: int = 1) -> None:
    middle = -by % max(len(value), 1)
    value[:] = value[middle:] + value[:middle]


_OF_QUEUES: Mapping[str, Callable[..., Any]] = {
    "appendleft": lambda value, item: value.insert(0, item),
    "extendleft": lambda value, items: value.__setitem__(slice(0, 0), list(items)[::-1]),
    "popleft": lambda value: value.pop(0),
    "rotate": _rotate,
}
"""Methods of a ``deque`` that a list lacks; a ``deque`` is read as a list."""


def kind_of(value: Any) -> type | None:
    """Return the class in `METHODS` with the value's methods."""
    for one in type(value).__mro__:
        if one in METHODS:
            return one
    return None


def method(value: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call a listed method. Raises AttributeError for another."""
    kind = kind_of(value)
    if kind is None or name not in METHODS[kind]:
        raise AttributeError(name)
    if name in _OF_OTHERS and isinstance(value, (datetime.datetime, datetime.tzinfo)):
        return checked(_OF_OTHERS[name](value, *args, **kwargs))
    pads = name in ("center", "ljust", "rjust", "zfill", "expandtabs") and args and isinstance(args[0], int)
    if pads and args[0] > LARGEST:
        raise NotKnown
    if name == "replace" and isinstance(value, str) and len(args) >= 2:
        _growth(value, args)
    if name == "join" and len(args) == 1 and not kwargs:
        return joined(value, args[0])
    grows = name in ("append", "extend", "insert", "update", "add", "setdefault", "union", "extendleft")
    if grows and isinstance(value, (list, dict, set, frozenset)):
        _growing(value, args)
    if name in _OF_QUEUES and isinstance(value, list):
        return _OF_QUEUES[name](value, *args)
    if isinstance(value, string.Template):
        _filled(value.template, [*args, kwargs])
    if name == "strftime":
        _widths(str(args[0]) if args else "")
    if name == "static_order":
        return list(value.static_order())
    if isinstance(value, io.StringIO):
        return getattr(value, name)(*args, **kwargs)  # no larger than the file
    return checked(getattr(value, name)(*args, **kwargs))


def _growing(value: Any, args: list[Any]) -> None:
    more = sum(len(one) for one in args if isinstance(one, (str, list, tuple, dict, set, range)))
    if len(value) + more > LARGEST:
        raise NotKnown


def _growth(value: str, args: list[Any]) -> None:
    old, new = args[0], args[1]
    if isinstance(old, str) and isinstance(new, str) and (value.count(old) + 1) * len(new) > LARGEST:
        raise NotKnown


def _filled(text: str, given: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``NotKnown`` for values that would make a template too long, or that are not plain."""
    _only_plain(list(given))
    longest = max((len(str(one)) for each in given for one in each.values()), default=0)
    if text.count("$") * longest > LARGEST:
        raise NotKnown


def joined(separator: Any, items: Iterable[Any]) -> Any:
    """Return ``separator.join(items)``. Raises ``NotKnown`` before the text is built."""
    parts = list(items)
    size = sum(len(part) for part in parts if isinstance(part, (str, bytes))) + len(separator) * len(parts)
    if size > LARGEST:
        raise NotKnown
    return separator.join(parts)


def effort(value: Any, name: str, args: Sequence[Any]) -> int:
    """Return the number of steps of a method for the items of its owner; its arguments are charged separately."""
    if isinstance(value, configparser.RawConfigParser):  # its pattern for a line takes quadratic time for blanks
        lines = [line for one in args if isinstance(one, str) for line in one.splitlines()]
        return sum(len(line) ** 2 // 2000 + len(line) // 5 for line in lines)
    if not isinstance(value, (str, bytes, list, tuple, set, frozenset, dict)):
        return 0
    if name in _SEARCHES and isinstance(value, (str, bytes)):  # the worst case is a product: "aaa…b" in "aaa…"
        return len(value) * max((len(one) for one in args if isinstance(one, (str, bytes))), default=25) // 2000
    return len(value) // (5000 if name in _QUICK else 50)


_SEARCHES = _names(
    "count find index lstrip partition replace rfind rindex rpartition rsplit rstrip split strip __contains__"
)
_QUICK = _names(
    "__contains__ __getitem__ __setitem__ add append appendleft discard get insert items keys move_to_end pop popitem "
    "popleft setdefault values"
)
"""Methods of containers that do not iterate over the items, or only move them."""


def formatted(value: Any, conversion: str, spec: str) -> str:
    """Return ``f"{value!conversion:spec}"``."""
    _only_plain(value)
    _widths(spec)
    match conversion:
        case "r":
            value = repr(value)
        case "s":
            value = str(value)
        case "a":
            value = ascii(value)
    return str(checked(format(value, spec)))


def pieces(text: str) -> list[tuple[str, str | None, str, str]]:
    """Return the parts of a format string: text, field, spec, conversion."""
    return [
        (literal, name, spec or "", conversion or "")
        for literal, name, spec, conversion in string.Formatter().parse(text)
    ]
