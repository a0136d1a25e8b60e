"""The reader against Python itself: what expressions of a DAG file give is what Python gives."""

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
hashlib.new("SHA256", b"abc").copy().hexdigest()
string.Template("$a-$b").safe_substitute({"a": 1})
list(itertools.starmap(lambda a, b: a + b, [(1, 2), "ab"]))
list(zip("ab", itertools.count(5, 2), itertools.cycle("xyz")))
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
