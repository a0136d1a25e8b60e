"""The reader against Python itself: what expressions and statements of a DAG file give is what Python gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.migration.dag_files import codes, ids, read

PRELUDE = """
import calendar, collections, collections.abc, copy, csv, dataclasses, enum, functools, graphlib, hashlib, io, itertools
import json, math, numbers, operator, re, string, typing
from datetime import date, datetime, timedelta, timezone
from pathlib import PurePosixPath

class Color(enum.Enum):
    RED = 1
    BLUE = "b"
    @property
    def tag(self): return self.name.lower()
    @classmethod
    def tags(cls): return [one.tag for one in cls]

class Level(enum.StrEnum):
    RAW = enum.auto()
    Core = enum.auto()

class Size(enum.Enum):
    SMALL = enum.auto()
    LARGE = 7
    HUGE = enum.auto()

class Named(enum.Enum):
    FIRST = "x"
    OTHER = "y"
    ALIAS = "x"

class Shown:
    def __init__(self, name): self.name = name
    def __repr__(self): return f"<{self.name}>"
class Formatted(Shown):
    def __str__(self): return self.name
    def __format__(self, spec): return f"{spec}{self.name}"
class Owner:
    def __init__(self): self.items = [1]
owner = Owner()
other, whole = copy.copy(owner), copy.deepcopy(owner)
other.items.append(2)
moved = collections.OrderedDict([("a", 1), ("b", 2), ("c", 3)])
moved.move_to_end("a")
tally = collections.Counter("abca")
tally["z"] += 2
tally.update("bb")
turned = collections.deque("abcd")
turned.rotate()
turned.rotate(-3)
filled = collections.defaultdict(list, {"a": [1]}, b=[2])
filled["c"].append(3)

class Flags(enum.Flag):
    A = enum.auto()
    B = enum.auto()
    C = enum.auto()

class Row(typing.NamedTuple):
    name: str
    count: int = 2
    def twice(self): return self.count * 2

@dataclasses.dataclass
class Table:
    name: str
    keys: list = dataclasses.field(default_factory=list)
    def __post_init__(self): self.slug = self.name.upper()

class Base:
    steps = ("a",)
    registry = {}
    def __init__(self, name="base"): self.name = name; self.registry[name] = self
    def label(self): return "-".join([self.name, *self.steps])
    def __getitem__(self, key): return f"{self.name}_{key}"
    def __call__(self, *args, sep="+", **more): return sep.join([*args, *more])
    def __iter__(self): return iter(self.steps)
    def __add__(self, other): return self.name + other.name
    @staticmethod
    def fixed(): return "fixed"

class Loose:
    def __init__(self, data): self.data = data
    def __getattr__(self, name): return self.data[name]
    def __contains__(self, key): return key in self.data
    def __len__(self): return len(self.data)

class Registered:
    found = {}
    def __init_subclass__(cls, tag="none", **kw):
        super().__init_subclass__(**kw)
        Registered.found[cls.__name__] = tag
    @property
    def level(self): return getattr(self, "_level", 0)
    @level.setter
    def level(self, value): self._level = value

class Meta(type):
    found = []
    def __new__(mcls, name, bases, names):
        names["tag"] = name.lower()
        return super().__new__(mcls, name, bases, names)
    def __init__(cls, name, bases, names):
        super().__init__(name, bases, names)
        Meta.found.append(cls.tag)
    def shout(cls): return cls.tag.upper()
class Alone(type):
    made = {}
    def __call__(cls, *args):
        if cls not in cls.made: cls.made[cls] = super().__call__(*args)
        return cls.made[cls]
    def __new__(mcls, name, bases, names): return type.__new__(mcls, name, bases, names)
class Made(metaclass=Meta): pass
class MadeToo(Made): pass
class Settings(metaclass=Alone):
    def __init__(self, name): self.name = name

class First(Registered, tag="one"): pass
class Second(Registered): pass

counted = []
class Kept:
    @functools.cached_property
    def size(self): counted.append(self); return len(counted)

@functools.lru_cache(maxsize=None)
def twice(x): counted.append(x); return len(counted)

class Child(Base):
    steps = Base.steps + ("b",)
    def __init__(self): super().__init__("child")
    def label(self): return super().label() + "!"
    @property
    def upper(self): return self.name.upper()

def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def spread(a, *rest, key="k", **named): return f"{a}{rest}{key}{sorted(named)}"
def gen(n):
    for i in range(n):
        if i % 2: continue
        yield i
    yield from "xy"
def counter():
    total = 0
    def bump(by=1):
        nonlocal total
        total += by
        return total
    return bump
def caught():
    try: {}["x"]
    except (KeyError, IndexError) as error: found = "caught"
    else: found = "not"
    finally: found += "-end"
    return found
def looped():
    found = []
    while True:
        found.append(len(found))
        if len(found) == 2: continue
        if len(found) > 4: break
    else: found = []
    for one in found:
        if one == 9: break
    else: found.append("else")
    return found
def matched(value):
    match value:
        case 1 | 2: return "few"
        case ("cmd", name): return name
        case None: return "none"
        case _: return "other"
def in_order():
    sorter, found = graphlib.TopologicalSorter(), []
    sorter.add("load", "clean"); sorter.add("clean", "fetch")
    sorter.prepare()
    while sorter.is_active():
        for one in sorter.get_ready(): found.append(one); sorter.done(one)
    return found
bump = counter()
data = [{"n": "b", "p": 2}, {"n": "a", "p": 1}]
groups = collections.defaultdict(list)
for one in data: groups[one["n"]].append(one["p"])
"""

EXPRESSIONS = """
f"{3:03d}{2.567:.2f}{'x':>3}{'y'!r}"
"%s-%05.1f-%(a)s" % ("x", 2) if False else "%s-%05.1f" % ("x", 2)
"%(a)s%(b)03d" % {"a": 1, "b": 2}
"{0}{1[k]}{x.real}{:}".format if False else "{0}{1[k]}{x.real}".format("a", {"k": 1}, x=5)
"{}{:>4}".format("a", 7)
"a,b,,c".split(",")
re.compile(r"[^a-z]+", re.I).sub("_", "Some text, 2") + re.compile("x").pattern
[one.group(1) for one in re.finditer(r"^-- (\\w+)", "-- a\\n-- b", re.M)] + re.compile("b.").findall("abbc")
re.findall(r"(\\w+)(?: as (\\w+))?", "a as b, c")
bool(re.compile("^b", flags=re.MULTILINE | re.I).search("a\\nB"))
Meta.found + [MadeToo.tag, Made.shout()]
Settings("a").name + Settings("b").name
[(one.a, one.b, one.c) for one in map(collections.namedtuple("Three", "a b c", defaults=[3, 4]), [1, 2])]
list(graphlib.TopologicalSorter({"c": ["a", "b"], "b": ["a"]}).static_order()) + in_order()
"-".join(str(one) for one in range(3))
"Some Text".lower().replace(" ", "_").title().swapcase()
"abc"[::-1] + "abcdef"[1:5:2]
"x".rjust(3, "0") + "y".zfill(4) + "z".center(5, "*")
"path/to".rpartition("/")[2]
[one["n"] for one in sorted(data, key=lambda one: one["p"])]
sorted(data, key=operator.itemgetter("n"), reverse=True)[0]["n"]
max(data, key=lambda one: one["p"])["n"] + min("b", "a")
sum(one["p"] for one in data)
dict(zip("ab", [1, 2])) | {"c": 3}
{**{"a": 1}, "b": 2}
{key: value for key, value in groups.items()}
dict.fromkeys("banana", 0)
{1, 2} & {2, 3} | {4}
[*range(2), *"ab"]
list(enumerate("ab", start=1))
list(zip(*[[1, 2], [3, 4]]))
list(map(str.upper, "ab"))
list(filter(None, ["", "a", None]))
list(reversed([1, 2]))
[first for first, *rest in [(1, 2, 3)]]
all([1, "a"]) and any([0, 2])
1 < 2 < 3 and not 4 in [5]
None or "default"
(lambda x, y=2: x * y)(3)
[f() for f in [lambda i=i: i for i in range(3)]]
[f() for f in [lambda: j for j in range(3)]]
fib(12)
spread(1, 2, 3, key="q", z=1, y=2)
spread(*[1, 2], **{"key": "w"})
list(gen(5))
[bump(), bump(by=3), bump()]
caught()
looped()
[matched(2), matched(("cmd", "go")), matched(None), matched("x")]
Color.tags()
[[one.value for one in kind] for kind in (Level, Size, Flags)]
"a-b c".translate(str.maketrans("- ", "__", "c")) + "ab".translate({97: "x"})
Color("b").name + Color["RED"].tag + str(Color.BLUE.value)
[one.value for one in Color]
Color.RED is Color(1)
Row("n").twice()
Row("n")._replace(count=5).count
[name for name, count in [Row("x", 3)]]
Table("t").slug + str(Table("t").keys)
dataclasses.asdict(Table("t", [1]))["keys"]
dataclasses.replace(Table("t"), name="u").slug
Child().label()
Child().upper + Child.fixed() + Child()["k"]
Child()("a", "b", sep="/", c=1)
list(Child())
Registered.found
First().level
Loose({"a": 5}).a + len(Loose({"b": 1}))
["a" in Loose({"a": 1}), "b" not in Loose({"a": 1}), bool(Loose({}))]
"full" if Loose({}) else "empty"
Child() + Base()
isinstance(Child(), Base) and isinstance("a", (int, str)) and not isinstance([], dict)
[sorted(["aa", "bb", "c", "d"], key=len, reverse=True), max(["bb", "aa", "c"], key=len), min("dc", key=len)]
sorted([{"a": 1, "b": "z"}, {"a": 1, "b": "y"}], key=operator.itemgetter("a", "b"))[0]["b"]
[operator.itemgetter(1)("xy"), operator.methodcaller("upper")("a"), operator.eq(1, 1), operator.contains([2], 2)]
operator.attrgetter("year", "month")(date(2024, 5, 6)) + (operator.attrgetter("x.real")(Loose({"x": 5})),)
[len(Named), [one.name for one in Named], Named.ALIAS is Named.FIRST, Named["ALIAS"].name]
[f"{Shown('a')}{Shown('b')!s}{Formatted('c')!r}{Formatted('d'):>}"]
[repr(Shown("e")), "{!r}{}".format(*map(Shown, "fg")), str(Shown("h")), "%s" % Shown("i")]
[owner.items, other.items, whole.items]
[list(moved), moved.popitem(last=False)[0]]
[dict(tally), tally.most_common(1)[0][1], tally["none"], copy.deepcopy(tally)["a"]]
list(turned)
[dict(filled), dict(copy.deepcopy(filled)), filled.copy()["new"]]
[isinstance(3, numbers.Number), isinstance({}, collections.abc.MutableMapping), isinstance("", numbers.Number)]
json.loads('{"b": 1, "a": 2}', object_pairs_hook=collections.OrderedDict)["a"]
getattr(Child(), "name") + getattr(Child(), "nothing", "default")
hasattr(Child(), "steps")
sorted(Base.registry)
type("Made", (Base,), {"steps": ("z",)})().label()
(date(2020, 1, 30) + timedelta(days=3)).strftime("%Y%m%d")
(datetime(2020, 3, 1) - datetime(2020, 2, 1)).days
datetime.strptime("2020-05-06", "%Y-%m-%d").month
datetime(2020, 1, 1, tzinfo=timezone.utc).isoformat()
timedelta(hours=1, minutes=30).total_seconds()
math.ceil(2.1) + 7 // 2 + 7 % 3 + 2 ** 5
round(2.567, 1)
int("12") + int("ff", 16) + float("1.5")
re.sub(r"[^a-z]+", "_", "a b  c!").strip("_")
re.match(r"([a-z]+)-([0-9]+)", "job-42").group(2)
re.split(r",\\s*", "a, b,c")
[list(group) for key, group in itertools.groupby("aab")]
list(itertools.product("ab", [1, 2]))
[(one.name, number) for one, number in itertools.product(Color, range(2))]
list(itertools.repeat("ab", 2)) + list(itertools.combinations({"a": 1, "b": 2}, 2))
list(csv.reader(io.StringIO("a;b\\n'c;d';e"), delimiter=";", quotechar="'"))
[row["x"] for row in csv.DictReader(["a|b"], ["x", "y"], delimiter="|")]
list(itertools.chain("a", ["b"]))
list(itertools.zip_longest([1, 2], "a", fillvalue="-"))
list(itertools.chain.from_iterable([[1], [2, 3]]))
functools.reduce(lambda a, b: a * b, range(1, 5))
functools.partial(spread, 1, key="p")(2)
[Kept().size, (kept := Kept()).size, kept.size, twice(1), twice(1), twice(2), len(counted)]
json.loads('{"a": [1, null]}')["a"]
json.dumps({"b": 1, "a": [True]}, sort_keys=True)
hashlib.md5("abc".encode()).hexdigest()
string.Template("$a-${b}").substitute(a=1, b="x")
string.ascii_lowercase[:3]
list(calendar.month_abbr)[1:3]
collections.Counter("aab")["a"]
copy.deepcopy(data)[0]["n"]
str(PurePosixPath("a") / "b" / "c.txt") + PurePosixPath("a/c.txt").stem
[y for x in range(3) for y in range(x) if y]
"yes" if (size := len("abc")) > 2 else "no"
eval("1 + len(data)")
""".strip().splitlines()


@pytest.fixture(scope="module")
def by_python() -> list[Any]:
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    return [eval(line.replace("\\\\", "\\"), names) for line in EXPRESSIONS]


def test_expressions_give_what_python_gives(tmp_path: Path, by_python: list[Any]) -> None:
    body = "".join(
        f"    EmptyOperator(task_id='t{index}', doc={line.replace(chr(92) * 2, chr(92))})\n"
        for index, line in enumerate(EXPRESSIONS)
    )
    head = "from airflow import DAG\nfrom airflow.operators.empty import EmptyOperator\n"
    file = read(tmp_path, head + PRELUDE + "with DAG('python', schedule=None) as dag:\n" + body)
    assert len(ids(file)) == len(EXPRESSIONS)
    found = {task.task_id: task.argument("doc") for task in file.dags[0].tasks}
    wrong = {}
    for index, (line, wanted) in enumerate(zip(EXPRESSIONS, by_python, strict=True)):
        argument = found[f"t{index}"]
        value = argument.value if argument is not None else None
        if isinstance(wanted, set):
            wanted, value = sorted(wanted), sorted(value or ())
        if value != wanted:
            wrong[line] = (value, wanted)
    assert not wrong, "\n".join(f"{line}: {pair}" for line, pair in wrong.items())
    assert not codes(file)


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
    "configuration files": """
import configparser, tomllib
parser = configparser.ConfigParser()
parser.read_string("[main]\\nDays = 3\\nlive = yes\\n[job]\\ncmd = run %(cmd2)s\\ncmd2 = x\\n")
out = [parser.sections(), parser.options("main"), parser.items("job"), parser["main"]["Days"], "job" in parser]
out += [parser.has_option("main", "none"), parser.getint("main", "days"), parser["main"].getboolean("LIVE")]
out += [parser.get("main", "none", fallback="else"), parser["job"].get("none", "else"), dict(parser["main"])]
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
