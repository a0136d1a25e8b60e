"""The names in a module: copied functions, steps, pipelines, and imported words."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flowyml.migration.airflow.model import Argument, FunctionModel, Place, Reference, Symbolic, TaskModel
from flowyml.migration.airflow.writer.constants import TIMES
from flowyml.migration.airflow.writer.deciding.context import DATES, may_be_argument
from flowyml.migration.airflow.writer.deciding.dags import DecidedDag
from flowyml.migration.airflow.writer.deciding.decision import Decision, Function, Key, Moved
from flowyml.migration.airflow.writer.deciding.sections import groups_in
from flowyml.migration.airflow.writer.moving import LAMBDA, Moving
from flowyml.migration.airflow.writer.text.loops import trimmed
from flowyml.migration.airflow.writer.text.sharing import share
from flowyml.migration.airflow.writer.text.sources import Source
from flowyml.migration.airflow.writer.values import Unwritable, Words, in_f_string, variable_of
from flowyml.plan.layout import FreeNames, Group, Pair, Part

_FLOW = (
    "DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "OrchestratorRetryPolicy", "Schedule", "any_of",
    "current_run", "elif_", "for_each", "is_in", "otherwise", "pipeline", "step", "when",
)  # fmt: skip
HOMES = (
    ("flowyml", _FLOW),
    ("flowyml.steps", ("bash",)),
    ("flowyml_airflow", ("airflow_operator", "imported", "run_dag", "xcom")),
)
"""FlowyML's words, by the module that they are imported from."""
_WORDS = (*(word for _, words in HOMES for word in words), "nothing", "item_of", "Field")
STANDARD = (
    ("contextlib", ("suppress",)), ("datetime", ("UTC", "date", "datetime", "timedelta")),
    ("typing", ("Annotated", "Any", "Literal")),
)  # fmt: skip
"""Words of the standard library, by module."""


Policy = tuple[tuple[str, float], ...]
"""The options of a step that are one retry policy."""


def policy_of(decision: Decision) -> Policy:
    """Return the retry policy of a decision's step; empty for none."""
    names = ("retries", "retry_delay", "backoff", "max_delay") if "retries" in decision.options else ()
    return tuple((name, decision.options[name]) for name in names if name in decision.options)


class Names(FreeNames):
    """The names of one module.

    ``policies`` and ``engine`` are constants for retry policies and options of Airflow that several steps have, the
    latter by their ``repr``; ``constants`` and ``objects`` are those of the DAG file. ``calls`` are the tasks that are
    calls of one step, by the ``id`` of the first. ``locals`` are the variables of pipelines, ``used`` the words in its
    text so far, which it then imports; ``items`` are arguments of mapped task groups whose names are otherwise unused
    in it.
    """

    def __init__(self, dags: Sequence[DecidedDag], moved: Moved, moving: Moving, path: str) -> None:
        self._moving = moving
        self._path = path
        self._needed = moved.needed
        self.used: set[str] = set()
        self.in_loops: set[int] = set()
        self.source = Source(moving.text)
        self.constants: set[str] = set()
        self.objects: dict[str, Part] = {}
        self.locals: set[str] = set()
        self._commented: set[int] = set()
        self.words = Words(self._function_name, self.word)
        decisions = [each for dag in dags for each in dag.decisions]
        reserved = {name for each in decisions if each.asking for name in (*each.asking.dates, *each.over)}
        parameters = {name for dag in dags for name, _ in dag.model.params if may_be_argument(name)}
        parameters |= {name for dag in dags for name in dag.parameters}
        elsewhere = {*moved.taken, *parameters, *moved.looked, *DATES, "annotations"}
        self.items = {item for each in decisions for item in each.items} - elsewhere
        super().__init__({*elsewhere, *reserved, *self.items})
        self.functions = dict(moved.kept)
        for key, function in moved.functions.items():
            if function.is_imported:
                self.functions[key] = self._word_from(function.model.module, function.model.name)
            elif key not in self.functions:
                self.functions[key] = self._function_named(function, decisions)
        self.steps = {key: self._step_named(key, decisions) for key, each in moved.functions.items()
                      if each.is_imported}  # fmt: skip
        self._aliases = {word: self.fresh(word) for word in _WORDS}
        self._aliases |= {word: self._word_from(home, word) for home, words in STANDARD for word in words}
        self.pipelines = [self.fresh(variable_of(dag.model.dag_id)) for dag in dags]
        self.nested = {id(each): self.fresh(variable_of(each.label), "_group") for dag in dags for each in
                       groups_in(dag.order)}  # fmt: skip
        self.calls = share(decisions, self._loop_of, self.taken)
        steps = [each for each in decisions if each.kind not in ("hole", "operator")]
        policies = Counter(policy_of(each) for each in steps)
        self.policies = {each: self.fresh("RETRY") for each, count in policies.items() if each and count > 1}
        engine = Counter(repr(each.options.get("airflow")) for each in steps if each.has_step and each.kind != "empty")
        self.engine = {each: self.fresh("AIRFLOW") for each, count in engine.items() if each != "None" and count > 1}
        self._variables: dict[int, str] = {}
        self._steps: dict[int, str] = {}
        for dag in dags:
            for decision in dag.decisions:
                if decision.kind in ("hole", "call", "operator") and decision.has_step:
                    self._name_step(decision, self.calls.get(id(decision), ()), dag.source.dag_id)

    def _name_step(self, decision: Decision, group: Sequence[Decision], dag_id: str) -> None:
        """Choose a variable and a default name for the step of a task, or of a ``group`` of tasks that are calls."""
        names = list(dict.fromkeys(each.name for each in group))
        if len(names) > 1:
            first = trimmed(tuple(names)).parts[0]
            common = first.strip("_-.") if isinstance(first, str) else ""
            of_all = decision.function.model.name if decision.function else common
            name = self.fresh(variable_of(of_all or "command"), "_step")
            self._variables[id(decision)] = self._steps[id(decision)] = name
        else:
            self._variables[id(decision)] = self._task_named(names[0] if names else decision.task.task_id, dag_id)

    def step_name(self, decision: Decision) -> str:
        """Return the name that the step of a task has if a call gives it none."""
        return self._steps.get(id(decision.like), decision.name)

    def _loop_of(self, group: Sequence[Decision]) -> Mapping[str, tuple[Any, ...]]:
        """Return the variables of the loop in the DAG file that makes some tasks, with their values."""
        loops = self.source.loops
        found = [next((loops[line] for line in self.lines_of(each.task) if line in loops), None) for each in group]
        if found[0] is None or any(each is not found[0] for each in found):
            return {}
        return dict(zip(*self.columns(found[0], len(group)), strict=True))

    def word(self, name: str) -> str:
        """Return the name in the module of a word of FlowyML's or of the standard library, which is then imported."""
        self.used.add(name)
        return self._aliases[name]

    def columns(self, loop: ast.For, count: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the variables of a loop of the DAG file and their values; none unless ``count`` of each are known."""
        targets = loop.target.elts if isinstance(loop.target, ast.Tuple) else [loop.target]
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        rows = self._items(loop.iter)
        if isinstance(loop.target, ast.Name):
            rows = [(each,) for each in rows]
        is_known = len(rows) == count and all(isinstance(row, tuple | list) and len(row) == len(names) for row in rows)
        return (names, list(zip(*rows, strict=True))) if is_known and len(names) == len(targets) else ([], [])

    def lines_of(self, task: TaskModel) -> tuple[int, ...]:
        """Return the lines of the DAG file that make a task: of calls of functions, outermost first, and its own."""
        return tuple(each.line for each in (*task.callers, task.place) if each.path == self._path)

    def comments_at(self, place: Place, *, again: bool = False) -> list[str]:
        """Return the comments above and in a statement of the DAG file itself: once, unless ``again``."""
        if place.path != self._path or (place.line in self._commented and not again):
            return []
        self._commented.update([] if again else self.source.lines_at(place.line))
        return self.source.comments_at(place.line)

    def argument(self, said: Argument | ast.expr | None, value: Any, plain: Callable[[Any], Part]) -> Part:
        """Return an argument with the constants that the DAG file has in it, which the module then has too.

        ``said`` is the argument or its expression in the DAG file; ``plain`` returns a value without constants.
        """
        if isinstance(said, Argument):
            try:
                said = ast.parse(said.source, mode="eval").body
            except (SyntaxError, ValueError, RecursionError):
                return plain(value)
        match said, value:
            case ast.List(elts=parts), list() if len(parts) == len(value):
                return Group("[", [self.argument(*each, plain) for each in zip(parts, value, strict=True)], "]")
            case ast.Dict(keys=keys, values=parts), dict() if [
                key.value if isinstance(key, ast.Constant) else None for key in keys
            ] == [*value]:
                found = zip(value.items(), parts, strict=True)
                pairs = [
                    Pair(f"{self.words.key(key)}: ", self.argument(part, one, plain)) for (key, one), part in found
                ]
                return Group("{", pairs, "}")
            case ((ast.Name() | ast.JoinedStr()), _) if text := self._constant(said, value):
                return text
            case ast.Name(id=name), Reference() | Symbolic() if self._moving.constant(name) is not None and (
                name in self.objects or name not in {*self.taken, *self.locals}
            ):
                self.objects.setdefault(name, plain(value))
                self.taken.add(name)
                return name
        return plain(value)

    def _constant(self, node: ast.Name | ast.JoinedStr, value: Any) -> str:
        """Return a constant of the DAG file, or a text with some in it, if it has this value; else ""."""
        known, names = self._moving.constants.known(node), _names_in(node)
        needed = {each for name in names for each in self._moving.constants.needed_by(name)}
        if value is None or repr(known) != repr(value) or not all(map(self._is_free, needed)):
            return ""
        text = node.id if isinstance(node, ast.Name) else _f_string(node)
        self.keep(names if text else ())
        return text

    def keep(self, constants: Iterable[str]) -> None:
        """Let the module have some constants of the DAG file, with what their definitions need."""
        needed = {name for each in constants for name in self._moving.constants.needed_by(each)}
        for each in sorted(needed & TIMES.keys()):
            self.word(each)
        self.constants |= needed - TIMES.keys()
        self.taken |= needed - TIMES.keys()

    def _is_free(self, name: str) -> bool:
        """Return whether a name can mean in the module what it means in the DAG file."""
        if name in TIMES:
            return self._aliases[name] == name
        is_taken = name in self.taken and name not in self.constants and name not in self._needed
        return not is_taken and name not in self.locals

    def _literal(self, node: ast.expr) -> Any:
        """Return the value of an expression if the module can have the constants in it; None for others."""
        if (value := self._moving.constants.known(node)) is None:
            return None
        needed = {each for name in _names_in(node) for each in self._moving.constants.needed_by(name)}
        return value if all(map(self._is_free, needed)) else None

    def source_of(self, node: ast.expr) -> str:
        """Return the text of an expression of the DAG file, in one line."""
        text = ast.get_source_segment(self._moving.text, node) or ""
        return text if text and "\n" not in text else ast.unparse(node)

    def _items(self, node: ast.expr) -> list[Any]:
        """Return what a loop goes over: a literal, a constant of the file that the module can have too, numbers."""
        match node:
            case ast.Call(func=ast.Name(id="enumerate"), args=[inner], keywords=[]):
                return list(enumerate(self._items(inner)))
            case ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int() as end)], keywords=[]):
                return list(range(min(end, 10_000)))
        items = self._literal(node)
        return list(items) if isinstance(items, list | tuple) else []

    def alias(self, name: str) -> str:
        """Return the same for a function that the module itself has."""
        return self._aliases[name]

    def imported(self, word: str) -> str:
        """Return a word in its import."""
        alias = self._aliases[word]
        return word if alias == word else f"{word} as {alias}"

    def variable(self, decision: Decision) -> str:
        """Return the variable of a task that is more than a call of its function."""
        return self._variables[id(decision.like or decision)]

    def value_of(self, task: str) -> str:
        """Return the argument for the value of another task, in a step that calls a function."""
        wanted = f"{variable_of(task)}_value"
        while wanted in self.taken:
            wanted += "_"
        return wanted

    def _step_named(self, key: Key, decisions: Sequence[Decision]) -> str:
        """Return a name for the step of an imported function: its task's, unless several tasks share it."""
        tasks = [each.task.task_id for each in decisions if each.function and each.function.key == key]
        return self.fresh(variable_of(tasks[0] if len(tasks) == 1 else self.functions[key]), "_step")

    def _word_from(self, home: str, word: str) -> str:
        """Return a name for what is imported from a module, as the file may do under its own name."""
        if not self._moving.is_from(home, word):
            return self.fresh(word)
        self.taken.add(word)
        return word

    def _task_named(self, task_id: str, dag_id: str) -> str:
        """Return a name for a task, with that of its DAG only if other DAGs have a task of this name."""
        wanted = variable_of(task_id)
        if {wanted, f"{wanted}_task"} <= self.taken:
            wanted = variable_of(f"{task_id}_of_{dag_id}")
        return self.fresh(wanted, "_task")

    def _function_named(self, function: Function, decisions: Sequence[Decision]) -> str:
        """Return a name for a function that is not looked up by name: its own, if no other has it."""
        name = function.node.name.value
        if name == "_" and function.model.name == LAMBDA:
            users = (each for each in decisions if function in (each.function, *each.others))
            name = variable_of(next(users).task.task_id)
        return self.fresh(name)

    def _function_name(self, function: FunctionModel) -> str:
        key = (function.name, function.place.line, "")
        if key not in self.functions:
            raise Unwritable(f"the function {function.name} does not move over")
        return self.functions[key]


def _names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _f_string(node: ast.JoinedStr) -> str:
    """Return an f-string of texts and names as source; "" for any other, and for one without names."""
    made = ""
    for part in node.values:
        match part:
            case ast.Constant(value=str() as text):
                made += in_f_string(text)
            case ast.FormattedValue(value=ast.Name(id=name), conversion=-1, format_spec=None):
                made += f"{{{name}}}"
            case _:
                return ""
    return f'f"{made}"' if _names_in(node) else ""
