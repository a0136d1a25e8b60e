"""The content of an Airflow DAG file as data: the interface between reading DAG files and writing pipelines.

The model is independent of how a file was read. Every argument has its source text and line beside its value, since a
written pipeline reuses the text, and its report shows the line. A value that is only known when Airflow parses the file
(Variables, the environment) is a `Symbolic`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "OF_CLASS",
    "Argument",
    "AssetRef",
    "DagModel",
    "DagWarning",
    "FileModel",
    "FunctionModel",
    "GroupModel",
    "Mapping",
    "Place",
    "Reference",
    "Symbolic",
    "TaskModel",
    "Value",
    "ValueEdge",
    "values_in",
]

Value = Any
"""Plain data (None, bool, int, float, str, bytes, list, tuple, dict, set, datetime's classes), or, at any depth of
it, a `Symbolic`, `ValueEdge`, `AssetRef`, `Reference` or `FunctionModel`."""


def values_in(value: Value) -> Iterator[Value]:
    """Yield a value, and what is in it at any depth of lists, tuples, sets and dicts."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    for each in inner:
        yield from values_in(each)


OF_CLASS = "class"
"""The origin of an argument that an operator's class sets in its own ``__init__``: see `Argument`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A source location: ``path`` relative to the root that was read, ``line`` from 1."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Symbolic:
    """A value that is not in the file: ``source`` is its expression.

    ``origin`` says where it comes from: ``variable:NAME``, ``variable-json:NAME`` for a Variable that is read as JSON,
    ``env:NAME``, ``connection:NAME``, ``clock``, or "" if it could not be evaluated. ``default`` is the file's default
    for it (``has_default``); then the graph was read with that default. ``derived``: the file computes the value from
    that of ``origin``, and only its whole expression computes it again; a text is the concatenation of ``parts``, if
    there are any.
    """

    source: str
    place: Place
    origin: str = ""
    default: Value = None
    has_default: bool = False
    derived: bool = False
    parts: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """A class, an instance or a function of another library: ``import_path`` is its full name.

    ``call`` is True if it is called with ``arguments``, as in ``CronTriggerTimetable("0 3 * * *", timezone="UTC")``.
    """

    import_path: str
    source: str
    place: Place
    call: bool = False
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class AssetRef:
    """An asset (dataset). ``kind`` is ``asset``, ``alias``, ``name``, ``uri``, or ``all`` / ``any`` of ``parts``.

    ``more`` are the names of its other arguments, such as ``extra``.

    >>> str(AssetRef("all", parts=(AssetRef("asset", "b"), AssetRef("asset", uri="s3://a"))))
    'all(b,s3://a)'
    """

    kind: str
    name: str = ""
    uri: str = ""
    parts: tuple[AssetRef, ...] = ()
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.kind:
            case "all" | "any":
                return f"{self.kind}({','.join(sorted(str(part) for part in self.parts))})"
            case "alias":
                return f"AssetAlias:{self.name}"
            case "name":
                return f"AssetNameRef:{self.name}"
            case "uri":
                return f"AssetUriRef:{self.uri}"
        return self.name or self.uri


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call. A positional one has its index as name: "0".

    ``source`` is its expression in the file. ``inherited`` says where it was written if not in the call itself:
    ``default_args`` of the DAG or of a group, ``class`` (an operator's own ``__init__``, which sets it again wherever
    the class is used), ``override``.
    """

    name: str
    source: str
    place: Place
    value: Value = None
    inherited: str = ""


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """A function of the repository: ``place`` spans its whole text, decorators included.

    ``module`` is its dotted name for imports in files of the root ("" for the DAG file itself); ``name`` is
    ``<lambda>`` for one without a name. ``closure`` has the names that its body uses of functions around it, ``around``
    those that its decorators and defaults use. ``defaults`` are those with names in them, with their values when the
    DAG is created, if the function is not a statement of the module itself. ``bound`` says what is called instead of
    the function: ``a method`` or ``a functools.partial``. ``returns`` is the source of its annotation. With
    ``is_task``, a decorator of Airflow's has made its name in the module one of a task, whose ``function`` it is.
    """

    name: str
    place: Place
    module: str = ""
    parameters: tuple[str, ...] = ()
    nested: bool = False
    closure: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    defaults: tuple[tuple[str, Value], ...] = field(default=(), hash=False)
    bound: str = ""
    returns: str = ""
    is_task: bool = False

    @property
    def returns_dict(self) -> bool:
        """True if its annotation says that it returns a dict."""
        return self.returns.strip("'\"").partition("[")[0].rpartition(".")[2] in ("dict", "Dict", "Mapping")

    @property
    def import_path(self) -> str:
        """The path by which Airflow imports the function from its module."""
        return f"{self.module}:{self.name}.function" if self.is_task else f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class ValueEdge:
    """The return value or XCom of a task, used as a value: ``task_id``'s XCom under ``key``.

    ``path`` has the operations on it: ``("map", FunctionModel)``, ``("zip", [ValueEdge…])``, ``("concat", […])``.
    """

    task_id: str
    key: str = "return_value"
    path: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Mapping:
    """The source of a mapped task's or group's items: ``kind`` is ``expand`` or ``expand_kwargs``."""

    kind: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class DagWarning:
    """A fact that a reader is not sure of, or could not find. ``code`` is stable; ``text`` is for people.

    The codes: ``unknown-loop``, ``unknown-condition``, ``unknown-id``, ``default-taken``, ``unknown-schedule``,
    ``unknown-call``, ``unknown-context``, ``unknown-edge``, ``duplicate``, ``steps``, ``raises``, ``unread``.
    """

    code: str
    text: str
    place: Place

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskModel:
    """A task, as Airflow's DagBag would have it.

    ``task_id`` has the prefix of its groups; if ``id_known`` is false it has ``{…}`` in it and is not an id that
    Airflow would know. ``import_path`` is that of the operator class as the file imports it; ``decorator`` is
    ``@task``, ``@task.branch`` and so on for a TaskFlow task. ``arguments`` are the operator's (the decorator's, with
    those of ``.override``; ``run_if`` and ``skip_if`` are the conditions of decorators around it), ``call_arguments``
    those of the function. Times are in seconds. A ``retries`` or time that is unknown is a `Symbolic`. ``defaults`` are
    the arguments from the ``default_args`` of its groups and its own, which override the DAG's. ``own_class`` is the
    operator's class if the repository has it. ``callers`` are the calls of functions within which it was made, the
    outermost first.
    """

    task_id: str
    label: str
    operator: str
    import_path: str
    place: Place
    id_known: bool = True
    decorator: str | None = None
    arguments: tuple[Argument, ...] = ()
    call_arguments: tuple[Argument, ...] = ()
    defaults: tuple[Argument, ...] = ()
    function: FunctionModel | None = None
    upstream: tuple[str, ...] = ()
    edge_labels: tuple[tuple[str, str], ...] = ()
    trigger_rule: Value = "all_success"
    retries: Value = 0
    retry_delay: Value = 300.0
    execution_timeout: Value = None
    mapping: Mapping | None = None
    in_mapped_group: bool = False
    group: str | None = None
    setup: bool = False
    teardown: bool = False
    own_class: FunctionModel | None = None
    callers: tuple[Place, ...] = ()

    def __hash__(self) -> int:
        return hash(self.task_id)  # arguments may have dicts in them

    @property
    def mapped(self) -> bool:
        """True if the task has an ``expand`` of its own."""
        return self.mapping is not None

    @property
    def multiple_outputs(self) -> bool:
        """True if each key of the dict that it returns is an XCom of its own, as TaskFlow decides by annotation."""
        if (argument := self.argument("multiple_outputs")) is not None:
            return argument.value is True
        return self.decorator is not None and self.function is not None and self.function.returns_dict

    def argument(self, name: str) -> Argument | None:
        """Return the operator's argument of this name; None if it was not given."""
        return next((one for one in self.arguments if one.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupModel:
    """A TaskGroup: ``group_id`` has the prefix of the groups around it, ``parent`` is theirs."""

    group_id: str
    place: Place
    parent: str | None = None
    tooltip: str = ""
    arguments: tuple[Argument, ...] = ()
    function: FunctionModel | None = None
    call_arguments: tuple[Argument, ...] = ()
    mapping: Mapping | None = None
    prefix_group_id: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DagModel:
    """A DAG: tasks in the order in which the file creates them.

    ``schedule`` is one of the words ``None``, ``@once``, ``@continuous``, ``cron:0 3 * * *``, ``delta:SECONDS``,
    ``dataset:all(…)``, ``timetable:CLASS``, or None if it is unknown (``schedule_known``). ``schedule_omitted``: the
    file has none, which Airflow 2 takes as a day and Airflow 3 as no schedule.
    """

    dag_id: str
    path: str
    place: Place
    id_known: bool = True
    schedule: str | None = "None"
    schedule_known: bool = True
    schedule_omitted: bool = False
    schedule_argument: Argument | None = None
    schedule_value: Value = None
    timezone: str = "UTC"
    start_date: Value = None
    catchup: bool | None = None
    tags: tuple[str, ...] = ()
    description: str | None = None
    doc: str | None = None
    params: tuple[tuple[str, Value], ...] = ()
    default_args: tuple[Argument, ...] = ()
    callbacks: tuple[Argument, ...] = ()
    arguments: tuple[Argument, ...] = ()
    function: FunctionModel | None = None
    call_arguments: tuple[Argument, ...] = ()
    tasks: tuple[TaskModel, ...] = ()
    groups: tuple[GroupModel, ...] = ()
    warnings: tuple[DagWarning, ...] = ()

    def task(self, task_id: str) -> TaskModel | None:
        """Return the task of this id."""
        return next((one for one in self.tasks if one.task_id == task_id), None)

    def edges(self) -> Iterator[tuple[str, str]]:
        """Yield each pair of a task and a task that waits for it."""
        return ((upstream, task.task_id) for task in self.tasks for upstream in task.upstream)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileModel:
    """A file that was read: its DAGs, or the ``reason`` why it has none.

    ``is_other``: the file is valid, but defines no DAG. ``path`` is relative to ``root``, with slashes. ``added``
    lists the folders below ``root`` that the file adds to Python's path.
    """

    path: str
    root: str
    dags: tuple[DagModel, ...] = ()
    reason: str | None = None
    is_other: bool = False
    warnings: tuple[DagWarning, ...] = ()
    added: tuple[str, ...] = ()
    steps: int = 0
