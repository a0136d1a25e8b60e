"""Objects, iterators and equality of a DAG file are those of Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.migration.dag_files import HEAD, codes, ids, read


def test_instances_are_made_and_seen_as_python_does(tmp_path: Path) -> None:
    text = f"""{HEAD}
import collections, dataclasses, itertools
class Shared:
    one = None
    def __new__(cls, *args):
        if cls.one is None:
            cls.one = super().__new__(cls)
            cls.one.names = []
        return cls.one
@dataclasses.dataclass(frozen=True)
class Source:
    name: str
    tables: tuple = ()
    def over(self, *tables):
        return Source(**{{**self.__dict__, "tables": self.tables + tables}})
class Plain:
    def __init__(self, **given): self.__dict__.update(given)
Shared().names.append("shared")
names = [*Shared().names, *Source("a").over("b", "c").tables, Plain(word="plain").word, vars(Plain(x="vars"))["x"]]
queue, numbers, colors = collections.deque(["d"]), itertools.count(1), itertools.cycle("xy")
queue.appendleft("e")
names += [queue.popleft(), queue[-1]]
with DAG("flow", schedule=None):
    for name in names:
        EmptyOperator(task_id=f"{{name}}_{{next(numbers)}}_{{next(colors)}}")
"""
    file = read(tmp_path, text)
    expected = ["shared_1_x", "b_2_y", "c_3_x", "plain_4_y", "vars_5_x", "e_6_y", "d_7_x"]
    assert ids(file) == expected
    assert not codes(file)


def test_a_queue_of_a_largest_length_is_not_known(tmp_path: Path) -> None:
    text = "import collections\nwith DAG('flow', schedule=None):\n"
    text += "    for name in collections.deque('abc', maxlen=2): EmptyOperator(task_id=name)\n"
    assert "unknown-loop" in codes(read(tmp_path, HEAD + text))


def test_an_asset_has_a_name_and_a_uri(tmp_path: Path) -> None:
    text = "from airflow.datasets import Dataset\nwith DAG('flow', schedule=None):\n"
    text += "    EmptyOperator(task_id='load_' + Dataset('s3://bucket/table').uri.rpartition('/')[2])\n"
    assert ids(read(tmp_path, HEAD + text)) == ["load_table"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("Tier.LOW == 'low'", True), ("'low' != Tier.LOW", False), ("Tier.LOW in ['low']", True),
        ("'low' in [Tier.LOW]", True), ("{'low': 1}.get(Tier.LOW, 0) == 1", True), ("Rank.ONE + 1 == 2", True),
        ("'is_' + Tier.LOW == 'is_low'", True), ("Color.RED == 'red'", False), ("Color.RED == Color.RED", True),
        ("Point(1) == Point(1)", True), ("Point(1) != Point(2)", True), ("Own(1) == Own(2)", True),
        ("object_of() == object_of()", False),
    ],
)  # fmt: skip
def test_instances_are_equal_as_in_python(tmp_path: Path, expression: str, value: bool) -> None:
    text = f"""{HEAD}
import dataclasses, enum
class Tier(str, enum.Enum): LOW = "low"
class Rank(enum.IntEnum): ONE = 1
class Color(enum.Enum): RED = "red"
@dataclasses.dataclass
class Point: x: int
class Own:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return True
class Thing: ...
def object_of(): return Thing()
with DAG("flow", schedule=None):
    EmptyOperator(task_id=str({expression}))
"""
    file = read(tmp_path, text)
    assert (ids(file), codes(file)) == ([str(value)], set())


def test_a_property_is_set_by_its_setter(tmp_path: Path) -> None:
    text = f"""{HEAD}
class Base:
    @property
    def name(self): return self._name
    @name.setter
    def name(self, given): self._name = f"load_{{given}}"
class Table(Base): ...
table = Table()
table.name = "a"
with DAG("flow", schedule=None):
    EmptyOperator(task_id=table.name)
"""
    assert ids(read(tmp_path, text)) == ["load_a"]


def test_a_bare_raise_raises_what_was_caught(tmp_path: Path) -> None:
    text = f"""{HEAD}
def find():
    try:
        return {{}}["name"]
    except KeyError:
        print("missing")
        raise
try:
    name = find()
except LookupError:
    name = "caught"
with DAG("flow", schedule=None):
    EmptyOperator(task_id=name)
"""
    assert ids(read(tmp_path, text)) == ["caught"]
