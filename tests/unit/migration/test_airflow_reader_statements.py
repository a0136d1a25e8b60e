"""The reader against Python itself: what statements of a DAG file leave is what Python leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.migration.dag_files import codes, ids, read

DAG = """
from airflow import DAG
from airflow.operators.empty import EmptyOperator
with DAG('python', schedule=None) as dag:
    EmptyOperator(task_id='only', doc=out)
"""
CASES = {
    "hashes that are given bytes one after the other": """
import hashlib
one = hashlib.md5()
one.update(b"ab")
one.update("c".encode("utf-8"))
out = [one.hexdigest(), hashlib.new("sha1", b"x").hexdigest(), hashlib.sha512(b"a").hexdigest()[:5]]
""",
    "fields that the constructor does not take, or by name only": """
from dataclasses import KW_ONLY, InitVar, astuple, dataclass, field, fields
from typing import ClassVar
@dataclass
class Table:
    kind: ClassVar[str] = "x"
    key: str = field(init=False)
    name: str = "n"
    prefix: InitVar[str] = "p"
    _: KW_ONLY
    size: int = 2
    def __post_init__(self, prefix): self.key = f"{prefix}_{self.name}"
out = [Table("a").key, Table("b", "q", size=3).key, Table("b", size=3).size, Table.kind]
@dataclass(order=True)
class Step:
    rank: int
    name: str
out += [astuple(min(Step(2, "a"), Step(1, "b"))), [one.name for one in fields(Step)], Step(1, "a") in [Step(1, "a")]]
""",
    "enumerations with aliases, constructors, and their texts": """
from enum import Enum, IntEnum
class Level(Enum):
    RAW = "raw"
    SAME = "raw"
    CORE = "core"
class Size(Enum):
    SMALL = ("s", 1)
    LARGE = ("l", 2)
    def __init__(self, short, number): self.short, self.number = short, number
class Rank(IntEnum):
    LOW = 1
    HIGH = 2
class Zone(str, Enum):
    A = "a"
    B = "b"
out = [[one.name for one in Level], Level.SAME.name, str(Level.RAW), f"{Level.CORE}", Level.RAW in Level]
out += [[one.short for one in Size], max(Rank).name, Rank.LOW < Rank.HIGH, f"{Rank.LOW}", "_".join([Zone.A, Zone.B])]
out += [Zone.A.upper(), "%s-%s" % (Level.RAW, 1)]
""",
    "what is changed in place is changed for all": """
one = {1}; other = one; other |= {2}; other -= {1}
config = {"a": 1}; same = config; same |= {"b": 2}
out = [sorted(one), config]
""",
    "bytes and texts": """
out = [bytes("ab", "utf-8").decode(), str(b"ab", "utf-8"), "{a}-{b}".format_map({"a": 1, "b": 2})]
""",
    "kinds": """
from pathlib import Path
class A: pass
class B(A): name = "b"
class C(A): name = "c"
out = [isinstance(None, type(None)), isinstance(Path("a"), Path), isinstance(1, (str, (list, int))), issubclass(B, A)]
out += [issubclass(A, B), [one.name for one in A.__subclasses__()], type(1).__name__, isinstance({}, str)]
""",
    "ends of an ExitStack": """
from contextlib import ExitStack
out = []
with ExitStack() as stack:
    stack.callback(out.append, "last")
    out.append("first")
""",
    "comprehensions in the body of a class": """
class Config:
    names = ["a", "b"]
    ids = [name + "_1" for name in names]
    sizes = {name: len(name) for name in names}
out = [Config.ids, Config.sizes]
""",
    "typed dictionaries and named tuples": """
from typing import NamedTuple, TypedDict
class Options(TypedDict, total=False):
    a: int
    b: str
class Row(NamedTuple):
    a: int
    b: str = "x"
out = [list(Options(a=1, b="x")), Options(a=1)["a"], Row(1)[0], Row(1)[-1], Row(1) == (1, "x"), Row._fields]
out += [Row._make([2, "y"]).b, sorted([Row(2), Row(1)])[0].a]
""",
    "substitutions by a function": """
import re
out = [re.sub("_(.)", lambda found: found.group(1).upper(), "a_bc_d"), re.sub("[^a-z]+", lambda _: "-", "a b  c!")]
""",
    "patterns of classes": """
from dataclasses import dataclass
@dataclass
class Copy:
    source: str
    target: str = "lake"
class Check: pass
def label(step):
    match step:
        case Copy("a", target): return "a to " + target
        case Copy(source=source): return source
        case Check(): return "check"
out = [label(Copy("a")), label(Copy("b")), label(Check())]
""",
    "attributes of functions": """
def load(): pass
load.table = "users"
out = [load.table, hasattr(load, "key"), getattr(load, "key", "id")]
""",
    "dictionaries of a class": """
import copy, json
from types import SimpleNamespace
class Settings(dict):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for key, value in self.items():
            if isinstance(value, dict): self[key] = Settings(value)
    def __getattr__(self, name):
        if name not in self: raise AttributeError(name)
        return self[name]
class Short(dict):
    __getattr__ = dict.get
    __setattr__ = dict.__setitem__
class Own(dict):
    def __init__(self, **kwargs): super().__init__(**kwargs); self.__dict__ = self
class Named(dict):
    def __missing__(self, key): return "no " + key
found, short = Settings({"a": {"b": 1}}, c=2), Short(x=1)
other = copy.deepcopy(found)
other["a"]["b"] = 3
short.y = 2
out = [found.a.b, other.a.b, dict(found), {**short}, short.z, getattr(found, "none", "default"), len(found)]
out += [bool(Own()), Own(k=1).k, Named()["q"], "c" in found, [key for key in short], isinstance(found, dict)]
out += [json.loads('{"a": {"b": [{"c": 5}]}}', object_hook=lambda one: SimpleNamespace(**one)).a.b[0].c]
""",
    "files are read once, and patterns take a text from its beginning": """
import csv, io, itertools, re
file = io.StringIO("a,b\\n1,2\\n3,4\\n")
out = [next(file), file.readline(), file.read(), file.read(), list(file), next(file, "end"), file.seek(0)]
out += [[*csv.reader(file)], [*itertools.islice("abcdef", 1, None, 2)]]
taken = iter("abcdef")
out += [[*itertools.islice(taken, 2)], next(taken)]
words = re.compile("b(.)", re.I)
out += [words.sub(lambda found: found[1] * 2, "b1 B2 b3", 2), re.sub(words, "", "b1 b2"), words.split("b1-b2-b3", 1)]
out += [words.pattern, words.groups, words.flags & re.IGNORECASE, [one.start() for one in words.finditer("b1 b2")]]
""",
    "configuration files": """
import configparser, tomllib
parser = configparser.ConfigParser()
parser.read_string("[main]\\nDays = 3\\nlive = yes\\n[job]\\ncmd = run %(cmd2)s\\ncmd2 = x\\n")
out = [parser.sections(), parser.options("main"), parser.items("job"), parser["main"]["Days"], "job" in parser]
out += [parser.has_option("main", "none"), parser.getint("main", "days"), parser["main"].getboolean("LIVE")]
out += [parser.get("main", "none", fallback="else"), parser["job"].get("none", "else"), dict(parser["main"])]
parser["new"] = {"a": "%(b)s", "b": "c"}
parser["new"]["d"] = "e"
out += [{**parser["new"]}, "{a}".format(**parser["new"]), len(parser), isinstance(parser["new"], dict)]
try:
    out.append(parser.get("new", "none"))
except configparser.Error:
    out.append([*parser["new"].items()])
out += [tomllib.loads('[[dag]]\\nid = "a"\\ntasks = ["x"]')["dag"][0]["tasks"]]
""",
    "versions, and fields in the width of a field": """
import sys
out = [sys.version_info.major, sys.version_info >= (3, 8), "{:{width}}|".format("a", width=4), bin(5), oct(8)]
out += [callable("x".upper), callable([].append), callable(1)]
class Step:
    def run(self): pass
out += [callable(Step().run), callable(Step()), Step().run.__name__]
""",
    "places are evaluated once, and given up": """
asked = []
def key():
    asked.append(1)
    return "a"
counts = {"a": 1}
counts[key()] += 1
class Box:
    def __init__(self): self.items, self.x = [], 1
    def __iadd__(self, item): self.items.append(item); return self
    def __delitem__(self, at): del self.items[at]
box = Box(); box += 1; box += 2
del box[0], box.x
other = Box(); delattr(other, "x")
out = [counts, len(asked), box.items, hasattr(box, "x"), hasattr(other, "x")]
""",
    "iterators of a class": """
class Down:
    def __init__(self, left): self.left = left
    def __iter__(self): return self
    def __next__(self):
        if self.left == 0: raise StopIteration
        self.left -= 1
        return self.left
class Rows:
    def __init__(self, rows): self.rows = rows
    def __getitem__(self, at): return self.rows[at]
class Of(type):
    def __iter__(cls): return iter(cls.names)
    def __getitem__(cls, name): return cls.names.index(name)
class Names(metaclass=Of): names = ["a", "b"]
class Typed:
    def __class_getitem__(cls, kind): return "of " + kind
out = [list(Down(3)), [one for one in Rows([5, 6])], list(Names), Names["b"], Typed["x"]]
for one in Down(2): out.append(one)
""",
    "descriptors, attributes that are asked for, and values that an enumeration has not": """
from enum import Enum
class Field:
    def __set_name__(self, owner, name): self.name = name
    def __get__(self, instance, owner): return f"{self.name} of {instance.table}"
class Row:
    key = Field()
    def __init__(self, table): self.table = table
class Asked:
    def __getattr__(self, name):
        if name == "no": raise AttributeError(name)
        return name
class Level(Enum):
    RAW = "raw"
    @classmethod
    def _missing_(cls, value): return cls.RAW
out = [Row("t").key, hasattr(Asked(), "x"), hasattr(Asked(), "no"), getattr(Asked(), "no", 1), Level("none").value]
""",
    "classes of exceptions that a name holds": """
FAULTS = (KeyError, IndexError)
try: [][1]
except FAULTS: out = "caught"
""",
    "kinds of values as keys": """
kinds = {str: "text", int: "number", type(None): "none"}
out = [kinds.get(type(one), "other") for one in ("a", 1, None, 1.5)]
""",
    "super of a class that is named": """
class A:
    def steps(self): return ["a"]
class B(A):
    def steps(self): return super(B, self).steps() + ["b"]
class C(B):
    def steps(self): return super(B, self).steps() + ["c"]
def made(number):
    def __init__(self, **given): super(cls, self).__init__(**{"number": number, **given})
    cls = type("Made", (Numbered,), {"__init__": __init__})
    return cls
class Numbered:
    def __init__(self, number=0): self.number = number
out = [C().steps(), made(1)().number, made(1)(number=2).number]
""",
    "what objects are asked for": """
import inspect
from collections.abc import Iterable
class Jobs:
    size = 1
    def task_b(self, x, *, y=2): return "b"
    def task_a(self): return "a"
def load(a, b=1): return a + b
jobs, given = Jobs(), {"a": 1, "b": 2, "z": 3}
out = [[getattr(jobs, name)(1) if name == "task_b" else 0 for name in dir(jobs) if name.startswith("task_")]]
out += [[name for name, _ in inspect.getmembers(jobs, predicate=inspect.ismethod)], inspect.isclass(Jobs)]
out += [list(inspect.signature(jobs.task_b).parameters), inspect.signature(load).parameters["b"].default]
out += [load(**{name: one for name, one in given.items() if name in inspect.signature(load).parameters})]
out += [inspect.isfunction(load), inspect.isclass(load), isinstance(1, int | str), isinstance([], int | str)]
out += [isinstance(range(2), Iterable), isinstance({}.keys(), Iterable), isinstance(1, Iterable), format(3, "03d")]
""",
    "private names": """
class Base:
    __kind = "base"
    def __init__(self, name): self.__name = name; self.__parts = [name]; self.__parts += ["x"]
    def __shout(self): return self.__name.upper() + self.__kind
    def label(self): return [self.__shout(), self.__parts, (lambda: self.__name)()]
class Child(Base):
    __kind = "child"
    def __init__(self): super().__init__("a"); self.__name = "b"
    def own(self): return self.__name + self.__kind
out = [Child().label(), Child().own(), Base("c")._Base__name, getattr(Child(), "_Base__kind")]
""",
    "paths that are not there": """
import os
from pathlib import Path
here = os.path.dirname(os.path.abspath(__file__))
out = [os.path.exists(os.path.join(here, "none.yaml")), (Path(here) / "none").exists(), os.path.exists(__file__)]
""",
    "instances, and what they are made by": """
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
    def over(self, *tables): return Source(**{**self.__dict__, "tables": self.tables + tables})
class Plain:
    def __init__(self, **given): self.__dict__.update(given)
Shared().names.append("shared")
queue, numbers, colors = collections.deque(["d"]), itertools.count(1), itertools.cycle("xy")
queue.appendleft("e")
out = [*Shared().names, *Source("a").over("b", "c").tables, Plain(word="plain").word, vars(Plain(x="vars"))["x"]]
out += [queue.popleft(), queue[-1], next(numbers), next(numbers), next(colors), next(colors), next(colors)]
""",
    "equality": """
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
out = [Tier.LOW == "low", "low" != Tier.LOW, Tier.LOW in ["low"], "low" in [Tier.LOW], {"low": 1}.get(Tier.LOW, 0)]
out += [Rank.ONE + 1, "is_" + Tier.LOW, Color.RED == "red", Color.RED == Color.RED, Point(1) == Point(1)]
out += [Point(1) != Point(2), Own(1) == Own(2), Thing() == Thing()]
""",
    "a property that is set, and an exception that is raised again": """
class Base:
    @property
    def name(self): return self._name
    @name.setter
    def name(self, given): self._name = f"load_{given}"
class Table(Base): ...
table = Table()
table.name = "a"
def find():
    try: return {}["name"]
    except KeyError: raise
try: out = find()
except LookupError: out = [table.name, "caught"]
""",
    "the order of methods, and bases that hear of their subclasses": """
import abc
class Flow(abc.ABC):
    known = []
    def __init_subclass__(cls, **options):
        super().__init_subclass__()
        if not getattr(cls, "hidden", False): Flow.known.append(cls.__name__)
    def names(self): return ["base"]
class Left(Flow):
    def names(self): return ["left", *super().names()]
class Right(Flow):
    def names(self): return ["right", *super().names()]
class Mixin: ...
class Both(Mixin, Left, Right): ...
class Hidden(Flow): hidden = True
out = [Flow.known, Both().names()]
""",
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES.keys())
def test_statements_leave_what_python_leaves(tmp_path: Path, body: str) -> None:
    names: dict[str, Any] = {"__file__": str(tmp_path / "repository/dags/flow.py")}
    file = read(tmp_path, body + DAG)
    exec(compile(body, "flow.py", "exec", dont_inherit=True), names)
    assert ids(file) == ["only"]
    assert (argument := file.dags[0].tasks[0].argument("doc")) is not None
    assert argument.value == names["out"]
    assert not codes(file)
