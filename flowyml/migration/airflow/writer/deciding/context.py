"""A task's uses of Airflow's context, by arguments or by templates, as values of the run and parameters.

Airflow's own times are in UTC, whatever the time zone of the schedule. Sources: airflow.sdk.definitions.context and
https://airflow.apache.org/docs/apache-airflow/stable/templates-ref.html.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from unicodedata import normalize

from flowyml.migration.airflow.model import DagModel, Symbolic, TaskModel, ValueEdge, values_in
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.params import default_of
from flowyml.migration.airflow.writer.deciding.schedules import Dated, dated, zone_of
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import is_plain
from flowyml.migration.reach import reached

DATES: Mapping[str, tuple[str, str]] = {
    "ds": ("date", "LOGICAL_DATE"),
    "logical_date": ("datetime", "LOGICAL_DATE"),
    "data_interval_start": ("datetime", "DATA_INTERVAL_START"),
    "data_interval_end": ("datetime", "DATA_INTERVAL_END"),
}
"""Parameters that each run fills: their annotation, and their default."""

_LONGEST = 500
"""The largest number of characters in an expression of a template."""
_MARKS = ("{{", "{%", "{#")
_OF_TEMPLATES = ("user_defined_macros", "user_defined_filters", "jinja_environment_kwargs", "template_undefined",
                 "render_template_as_native_obj")  # fmt: skip
"""Arguments of a DAG that change what its templates mean."""
_PARTS = ("year", "month", "day", "hour", "minute", "second")
_RECORDS = ("dag", "dag_run", "task", "task_instance", "ti")
_TEXT_METHODS = ("lower", "upper", "replace", "strip")
_FORMATS = {"ds": "%Y-%m-%d", "ds_nodash": "%Y%m%d", "ts_nodash": "%Y%m%dT%H%M%S"}
_OF_DATETIME = frozenset({
    *_PARTS, "microsecond", "fold", "ctime", "isocalendar", "isoformat", "isoweekday", "strftime", "timestamp",
    "timetuple", "toordinal", "tzname", "utctimetuple", "weekday",
})  # fmt: skip
_SPANS = ("weeks", "days", "hours", "minutes", "seconds")


@dataclass(frozen=True, slots=True)
class Word:
    """A name of FlowyML's or of the standard library's, independent of its name in the module."""

    name: str


Code = tuple[str | Word | ValueEdge, ...]
"""A Python expression with values of other tasks in it."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with expressions in it, like an f-string."""

    parts: tuple[str | Code, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The value of a function's argument from Airflow's context: an expression, or all parameters as a dict."""

    code: Code = ()
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Made:
    """An expression, and whether it is a ``day``, a ``moment``, a ``text``, a ``span`` of time or something else."""

    code: Code
    kind: str = ""


@dataclass(slots=True)
class Asking:
    """One task's uses of the context. ``dates`` and ``parameters`` are those of the pipeline that its step takes.

    ``conf`` are the parameters for values of a run's conf in Airflow that are not params.
    """

    dag: DagModel
    task: TaskModel
    taken: frozenset[str]
    dates: dict[str, None] = field(default_factory=dict)
    parameters: dict[str, None] = field(default_factory=dict)
    conf: dict[str, None] = field(default_factory=dict)

    # Arguments by name.

    def by_name(self, name: str) -> Asked:
        """Return the value that Airflow passes to a function's argument of this name. Raises ``Unclear``."""
        if name == "params":
            names = tuple(name for name, _ in self.dag.params)
            for each in names:
                self._parameter(each)
            if not names and self.task.argument("params") is not None:
                raise Unclear("it has its own params")
            return Asked(parameters=names)
        made = self._name(name)
        if made is None:
            raise Unclear(f"it takes {name} of Airflow")
        return Asked(("str(", *made.code, ")") if made.kind == "day" else made.code)

    # Templates.

    def rendered(self, value: Any) -> Any:
        """Return a value as Airflow renders it: a text with templates, at any depth. Raises ``Unclear``."""
        if isinstance(value, str):
            return self._text(value) if is_template(value) else value
        if isinstance(value, list | tuple):
            return type(value)(self.rendered(each) for each in value)
        if isinstance(value, dict):
            return {key: self.rendered(each) for key, each in value.items()}
        if isinstance(value, Symbolic) and value.origin.startswith("param:"):
            return Asked(self._parameter(value.origin.removeprefix("param:")).code)
        return value

    def _text(self, text: str) -> Template:
        if found := needed_of_dag(self.dag, text):
            raise Unclear(f"it has a template, and its DAG has {found}")
        parts: list[str | Code] = []
        for number, piece in enumerate(pieces(re.sub(r"\r\n?", "\n", text))):  # as Jinja has it
            if number % 2:
                parts.append(self._expression(piece.strip()).code)
            elif any(mark in piece for mark in _MARKS):
                raise Unclear("it has a template with statements")
            elif piece:
                parts.append(piece)
        if isinstance(parts[-1], str) and parts[-1].endswith("\n"):  # as Jinja does by itself
            parts[-1] = parts[-1][:-1]
        return Template(tuple(parts))

    def _expression(self, text: str) -> _Made:
        made = None
        if len(text) <= _LONGEST:
            with suppress(SyntaxError, ValueError, MemoryError, RecursionError):
                made = self._made(ast.parse(text, mode="eval").body)
        if made is None:
            raise Unclear(f"it has the template {{{{ {' '.join(text.split())[:60]} }}}}")
        return made

    def _made(self, node: ast.expr) -> _Made | None:
        match node:
            case ast.Constant(value=str() as text) if _may_be_quoted(text):
                return _Made((f"'{text}'",), "text")
            case ast.Constant(value=int() as number):
                return _Made((repr(number),))
            case ast.Name(id=name):
                return self._name(name)
            case ast.Subscript(value=inner, slice=ast.Constant(value=str() | int() as key)):
                return self._item(inner, key)
            case ast.Attribute(value=ast.Name(id=of), attr=name) if of in ("params", *_RECORDS):
                return self._of_record(of, name)
            case ast.Attribute(value=inner, attr=name) if name in _PARTS:
                made = self._made(inner)
                return _Made((*made.code, f".{name}")) if made and made.kind == "moment" else None
            case ast.BinOp():
                return self._joined(node)
            case ast.Call(func=ast.Attribute(value=inner, attr=name), args=arguments, keywords=named):
                return self._called(inner, name, arguments, named)
        return None

    def _of_record(self, of: str, name: str) -> _Made | None:
        """Return a field of ``params``, ``dag_run``, ``ti`` and so on."""
        match of, name:
            case "params", _:
                return self._parameter(name)
            case "dag_run", "logical_date" | "execution_date" | "run_id":
                return self._name(name)
            case "task" | "ti" | "task_instance", "task_id":
                return self._constant(self.task.task_id)
            case "dag" | "ti" | "task_instance", "dag_id":
                return self._constant(self.dag.dag_id)
        return None

    def pulled(self, call: ast.Call) -> ValueEdge:
        """Return the value that a function pulls from another task. Raises ``Unclear``."""
        edge = self._pulled(ast.Name("ti"), call.args, call.keywords)
        if edge is None:
            raise Unclear(f"it has {ast.unparse(call)[:60]}")
        return edge

    def _item(self, inner: ast.expr, key: str | int) -> _Made | None:
        """Return a parameter, or a part of another task's return value."""
        match inner:
            case ast.Name(id="params"):
                return self._parameter(key) if isinstance(key, str) else None
            case ast.Attribute(value=ast.Name(id="dag_run"), attr="conf"):
                return self._conf(key, "") if isinstance(key, str) else None
            case ast.Call(func=ast.Attribute(attr="xcom_pull")) if made := self._made(inner):
                quoted = f"'{key}'" if isinstance(key, str) else str(key)
                return _Made((*made.code, f"[{quoted}]")) if _may_be_key(key) else None
        return None

    def _conf(self, name: str, default: Any) -> _Made:
        """Return a value of the run's conf, else a default. Jinja renders a missing value as an empty text."""
        if name in dict(self.dag.params):
            raise Unclear(f"it takes {name!r:.60} of dag_run.conf, which is one of the params too")
        if not may_use(name, self.taken) or name in DATES:
            raise Unclear(f"it takes {name!r:.60} of dag_run.conf, a name that is not free in Python")
        self.parameters[name] = self.conf[name] = None
        return _Made((name,)) if default is None else _Made((f"({default!r} if ", name, " is None else ", name, ")"))

    def _got(self, of: ast.expr, arguments: list[ast.expr], named: list[ast.keyword]) -> _Made | None:
        match of, arguments:
            case ast.Attribute(value=ast.Name(id="dag_run"), attr="conf"), [ast.Constant(str() as key), *others]:
                default = others[0].value if others and isinstance(others[0], ast.Constant) else None
                is_known = not others or (len(others) == 1 and _may_be_key(default))
                return self._conf(key, default) if is_known and not named else None
        return None

    def _pulled(self, of: ast.expr, arguments: list[ast.expr], named: list[ast.keyword]) -> ValueEdge | None:
        """Return the return value of another task, which this one waits for."""
        if not isinstance(of, ast.Name) or of.id not in ("ti", "task_instance"):
            return None
        by_name = dict(zip(("task_ids", "dag_id", "key"), arguments, strict=False))
        by_name |= {each.arg or "**": each.value for each in named}
        if isinstance(own := by_name.get("dag_id"), ast.Constant) and own.value == self.dag.dag_id:
            del by_name["dag_id"]
        match by_name:
            case {"task_ids": ast.Constant(value=str() as name), "key": ast.Constant(value=str() as key), **rest}:
                pass
            case {"task_ids": ast.Constant(value=str() as name), **rest}:
                key = "return_value"
            case _:
                return None
        target = self.dag.task(name)
        if rest or target is None or (key != "return_value" and not target.multiple_outputs):
            return None
        if not self._follows(name):
            raise Unclear(f"it pulls what {name} returned, and may run without it")
        if target.mapped or target.in_mapped_group or target.operator in ("EmptyOperator", "DummyOperator"):
            raise Unclear(f"it pulls what {name} returned, which is not one value")
        return ValueEdge(name, key)

    def _follows(self, name: str) -> bool:
        """Return whether the task waits for another one, itself or through tasks that all have to succeed."""

        def needed(each: str) -> Iterable[str]:
            task = self.dag.task(each)
            return task.upstream if task and task.trigger_rule == "all_success" and not task.teardown else ()

        return name in self.task.upstream or name in reached(needed(self.task.task_id), needed)

    def _joined(self, node: ast.BinOp) -> _Made | None:
        """Return a moment with one of Airflow's filters, or plus or minus a duration."""
        left = self._made(node.left)
        match node.op, node.right:
            case ast.BitOr(), ast.Name(id=name) if left:
                return self._filtered(left, name)
            case ast.Add() | ast.Sub(), right if left and left.kind == "moment":
                by, sign = self._made(right), "+" if isinstance(node.op, ast.Add) else "-"
                if by and by.kind == "span":
                    return _Made(("(", *left.code, f" {sign} ", *by.code, ")"), "moment")
        return None

    def _called(self, inner: ast.expr, name: str, arguments: list[ast.expr], named: list[ast.keyword]) -> _Made | None:
        if name == "get":
            return self._got(inner, arguments, named)
        if name == "xcom_pull":
            edge = self._pulled(inner, arguments, named)
            return _Made((edge,)) if edge else None
        if isinstance(inner, ast.Name) and inner.id == "macros":
            return self._macro(name, arguments, named)
        made = self._made(inner)
        texts = [each.value for each in arguments if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if made is None or len(texts) != len(arguments) or not all(map(_may_be_quoted, texts)):
            return None
        if made.kind == "moment" and name in ("add", "subtract") and not texts and (span := _span(named)):
            return _Made(("(", *made.code, " + " if name == "add" else " - ", *span, ")"), "moment")
        if named:
            return None
        if made.kind == "moment" and name == "to_date_string" and not texts:
            return self._filtered(made, "ds")
        quoted = ", ".join(f"'{text}'" for text in texts)
        if made.kind == "moment" and (name, len(texts)) in (("strftime", 1), ("isoformat", 0)):
            return _Made((*made.code, f".{name}({quoted})"), "text")
        if made.kind == "day":
            made = _Made(("str(", *made.code, ")"), "text")
        if made.kind == "text" and name in _TEXT_METHODS:
            return _Made((*made.code, f".{name}({quoted})"), "text")
        return None

    def _macro(self, name: str, arguments: list[ast.expr], named: list[ast.keyword]) -> _Made | None:
        if name == "timedelta" and not arguments and (span := _span(named)):
            return _Made(span, "span")
        first = self._made(arguments[0]) if arguments and not named else None
        if first is None or first.kind != "day":
            return None
        match name, arguments[1:]:
            case "ds_add", [days] if (number := _number(days)) is not None:
                return _Made(("(", *first.code, " + ", Word("timedelta"), f"(days={number}))"), "day")
            case "ds_format", [ast.Constant(value="%Y-%m-%d"), ast.Constant(value=str() as wanted)]:
                if _may_be_quoted(wanted):
                    return _Made((*first.code, f".strftime('{wanted}')"), "text")
        return None

    def _filtered(self, made: _Made, name: str) -> _Made | None:
        """Apply one of Airflow's filters to a moment."""
        if made.kind != "moment":
            return None
        if name == "ts":
            return _Made((*made.code, ".isoformat()"), "text")
        return _Made((*made.code, f".strftime('{_FORMATS[name]}')"), "text") if name in _FORMATS else None

    # The names of Airflow's context.

    def _name(self, name: str) -> _Made | None:
        match name:
            case "ds":
                return self._day()
            case "ds_nodash":
                return _Made((*self._day().code, ".strftime('%Y%m%d')"), "text")
            case "ts" | "ts_nodash":
                return self._filtered(_Made(self._date("logical_date"), "moment"), name)
            case "logical_date" | "execution_date" | "data_interval_start" | "data_interval_end":
                return _Made(self._date("logical_date" if name == "execution_date" else name), "moment")
            case "run_id":
                return _Made((Word("current_run"), "().run_id"), "text")
            case "task_instance_key_str":
                about = self._constant(f"{self.dag.dag_id}__{self.task.task_id}__")
                return _Made((*about.code, " + ", *self._day().code, ".strftime('%Y%m%d')"))
        return None

    def _day(self) -> _Made:
        if zone_of(self.dag) == "UTC":
            return _Made((self._own("ds"),), "day")
        return _Made((*self._date("logical_date"), ".date()"), "day")

    def _date(self, name: str) -> Code:
        own = self._own(name)
        return (own,) if zone_of(self.dag) == "UTC" else (f"{own}.astimezone(", Word("UTC"), ")")

    def _own(self, name: str) -> str:
        if not may_use(name, self.taken) or name in dict(self.dag.params):
            raise Unclear(f"it takes {name}, and the DAG file has something else of that name")
        self.dates[name] = None
        return name

    def _parameter(self, name: str) -> _Made:
        params = self.task.argument("params")
        if params is not None:
            raise Unclear("it has its own params")
        found = dict(self.dag.params)
        if name not in found:
            raise Unclear(f"it takes the parameter {name!r:.60}, which the DAG does not have")
        if not may_use(name, self.taken):
            raise Unclear(f"it takes the parameter {name!r:.60}, whose name is not free in Python")
        if not is_plain(default_of(found[name])):
            raise Unclear(f"it takes the parameter {name!r:.60}, whose default is not plain JSON")
        self.parameters[name] = None
        return _Made((name,))

    def _constant(self, text: str) -> _Made:
        if not _may_be_quoted(text):
            raise Unclear("it has a template with an id that has quotes")
        return _Made((f"'{text}'",), "text")

    def default(self, name: str) -> str:
        """Return the name of the default of a date parameter."""
        match dated(self.dag):
            case Dated.MOMENT:
                return "LOGICAL_DATE"
            case Dated.START if DATES[name][1] == "LOGICAL_DATE":
                return "DATA_INTERVAL_START"
        return DATES[name][1]


def needed_of_dag(dag: DagModel, value: Any) -> str:
    """Return the argument of a DAG that the templates in a value need: macros and filters by name; "" for none."""
    texts = [text for text in texts_of(value) if is_template(text)]
    for each in dag.arguments:
        if each.name not in _OF_TEMPLATES or not each.value:
            continue
        by_name = each.name.startswith("user_defined_") and isinstance(each.value, dict)
        words = "|".join(re.escape(str(name)) for name in each.value) if by_name else ""
        if any(re.search(rf"\b({words})\b", text) for text in texts):
            return each.name
    return ""


def notes_of_intervals(asking: Asking) -> Iterator[Note]:
    """Yield notes on the differences of the dates that a task uses."""
    task = asking.task
    as_airflow = dated(asking.dag) is Dated.START
    for name in asking.dates:
        if name.startswith("data_interval") and asking.default(name) != "LOGICAL_DATE":
            yield Note(
                Kind.CHANGED, f"{name} of {task.task_id}", task.place,
                "a run by hand has no interval" if as_airflow else
                "its interval goes from the previous scheduled time to this one, where Airflow 3 has one moment "
                "as both for cron; a run by hand has none",
                "Give it to a run by hand as a parameter.",
            )  # fmt: skip


def pieces(text: str) -> Iterator[str]:
    """Yield the texts outside of templates' expressions, and the expressions, alternately."""
    position = 0
    while (start := text.find("{{", position)) >= 0 and (end := text.find("}}", start + 2)) >= 0:
        yield text[position:start]
        yield text[start + 2 : end]
        position = end + 2
    yield text[position:]


def is_template(value: Any) -> bool:
    """Return whether Airflow would render something in a value, at any depth."""
    return any(mark in text for text in texts_of(value) for mark in _MARKS)


def texts_of(value: Any) -> Iterator[str]:
    """Yield the texts in a value, at any depth."""
    for part in values_in(value):
        if isinstance(part, str):
            yield part
        elif isinstance(part, Symbolic):
            yield from texts_of(part.parts)


def may_use(name: str, taken: frozenset[str]) -> bool:
    """Return whether an argument of a function can have this name without hiding another meaning of it."""
    return name.isascii() and may_be_argument(name) and name not in taken and not hasattr(builtins, name)


def may_be_argument(name: str) -> bool:
    """Return whether Python accepts a name for an argument unchanged: it reads ``ﬁ`` as ``fi``."""
    return name.isidentifier() and not keyword.iskeyword(name) and normalize("NFKC", name) == name


def uses_as_datetime(tree: ast.AST, is_it: Callable[[ast.AST], bool]) -> bool:
    """Return whether all uses of Airflow's moment, a pendulum ``DateTime``, mean the same for a ``datetime``.

    Their results must not be moments or days in turn, which could have further uses.
    """
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            if not is_it(child):
                continue
            match parent:
                case ast.Attribute(attr=attribute) if attribute in _OF_DATETIME:
                    continue
                case ast.FormattedValue(conversion=-1 | 115, format_spec=None):
                    continue
                case ast.FormattedValue(conversion=-1, format_spec=ast.JoinedStr([ast.Constant(str() as said)])) if (
                    "%" in said  # any other has pendulum's own letters
                ):
                    continue
                case ast.Compare() | ast.Expr():
                    continue
                case ast.Call(func=ast.Name(id="str" | "print" | "bool")):
                    continue
            return False
    return True


def _may_be_quoted(text: str) -> bool:
    """Return whether a text can be in an expression of an f-string of Python 3.10."""
    return text.isprintable() and not set(text) & {"'", '"', "\\", "{", "}", "#"}


def _may_be_key(key: object) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and _may_be_quoted(key))


def _number(node: ast.expr) -> int | None:
    match node:
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)):
            return -number
    return None


def _span(named: list[ast.keyword]) -> Code:
    numbers = {each.arg: _number(each.value) for each in named}
    if not numbers or None in numbers.values() or not numbers.keys() <= {*_SPANS}:
        return ()
    return (Word("timedelta"), f"({', '.join(f'{name}={number}' for name, number in numbers.items())})")
