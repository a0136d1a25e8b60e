"""The text of a module: the functions of a DAG file, its operators, and a pipeline for each of its DAGs."""

from __future__ import annotations

import builtins
import keyword
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import libcst as cst

from flowyml.migration.airflow.model import DagModel, FileModel, FunctionModel, Reference, TaskModel, ValueEdge
from flowyml.migration.airflow.writer.deciding.blocks import Block, Chain, Conflict, Path, arranged, paths_of
from flowyml.migration.airflow.writer.deciding.choices import Choice
from flowyml.migration.airflow.writer.deciding.context import (
    DATES,
    Asking,
    default_of,
    is_template,
    may_be_argument,
    texts_of,
)
from flowyml.migration.airflow.writer.deciding.dates import asks_for_dates, notes_of_dates, zone_of
from flowyml.migration.airflow.writer.deciding.options import pipeline_options
from flowyml.migration.airflow.writer.deciding.tasks import Decision, Function, decide
from flowyml.migration.airflow.writer.moving import LAMBDA, Moving
from flowyml.migration.airflow.writer.notes import MARK, DagResult, Kind, Note
from flowyml.migration.airflow.writer.text.wrappers import wrapper, wrapper_arguments
from flowyml.migration.airflow.writer.values import Unwritable, Words, as_number, is_plain
from flowyml.plan.layout import Group, Pair, Part, Text, source, text_literal, value
from flowyml.plan.names import identifier

__all__ = ["Written", "write_module"]

_FLOW = (
    "DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "any_of", "current_run", "elif_", "is_in", "otherwise",
    "pipeline", "step", "when",
)  # fmt: skip
_WORDS = (*_FLOW, "airflow_operator", "bash", "imported", "xcom")
_HOMES = (
    ("flowyml", _FLOW),
    ("flowyml.core.retry_policy", ("OrchestratorRetryPolicy",)),
    ("flowyml.steps", ("bash",)),
    ("flowyml_airflow", ("airflow_operator", "imported", "xcom")),
)
_STANDARD = (
    ("contextlib", ("suppress",)), ("datetime", ("UTC", "date", "datetime", "timedelta")), ("typing", ("Any",)),
)  # fmt: skip
# What a module that is written may say beside FlowyML's words.
_BUILTINS = frozenset({"NotImplementedError", "bool", "dict", "float", "int", "list", "set", "str", "tuple"})
_TYPES = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}


@dataclass(frozen=True, slots=True)
class Written:
    """A module, and what became of each DAG."""

    text: str
    dags: Sequence[DagResult]


def write_module(file: FileModel, text: str) -> Written:
    """The module of a file that has DAGs. ``text`` is the file's own. Pure: the same file, the same module."""
    return _Module(file, text).written()


@dataclass(slots=True)
class _Dag:
    model: DagModel
    decisions: list[Decision]
    order: Sequence[TaskModel | Chain]
    paths: Mapping[str, Path]
    name: str = ""
    notes: list[Note] = field(default_factory=list)
    schedule: str = "None"


@dataclass(slots=True)
class _Body:
    """The function of a pipeline as it is written: the variables that are taken, and those that hold outputs."""

    dag: _Dag
    taken: set[str]
    local: set[str]
    outputs: dict[tuple[str, str], str] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(init=False)

    def __post_init__(self) -> None:
        self.decisions = {each.task.task_id: each for each in self.dag.decisions}

    def fresh(self, wanted: str) -> str:
        while wanted in self.local:
            wanted += "_"
        self.local.add(wanted)
        return wanted


class _Module:
    def __init__(self, file: FileModel, text: str) -> None:
        self.file = file
        self.moving = Moving(text)
        self.dags = [_decided(dag, self.moving) for dag in file.dags]
        _wrap_options(self.dags)
        self.words = Words(self._function_name, self.word)
        self.used: set[str] = set()
        decisions = [each for dag in self.dags for each in dag.decisions]
        functions = [one for each in decisions for one in (each.function, *each.others) if one]
        self.functions: dict[int, Function] = {id(each.node): each for each in functions}
        self._by_place: dict[tuple[str, int], Function] = {}
        for each in functions:
            self._by_place.setdefault((each.model.name, each.model.place.line), each)
        self.statements = sorted({number for each in functions for number in each.needed.statements})
        moved = {name for number in self.statements for name in self.moving.statements[number].defines}
        looked = {name for each in functions for name in each.needed.looked}
        self._names = {key: key[0] for key, each in self._by_place.items() if _keeps_its_name(each, looked)}
        self._check_meanings(moved)
        self._taken = {*moved, *self._names.values(), *keyword.kwlist, *dir(builtins)}
        self._free = {name for dag in self.dags for name, _ in dag.model.params if may_be_argument(name)} - self._taken
        asked = {name for each in decisions if each.asking for name in (*each.asking.dates, *each.over)}
        self._taken |= {*self._free, *asked, *looked, "annotations"}
        others = {key: each for key, each in self._by_place.items() if key not in self._names}
        self._names |= {key: self._function_named(each) for key, each in others.items()}
        self._aliases = {word: self._fresh(word) for word in (*_WORDS, "OrchestratorRetryPolicy", "nothing", "item_of")}
        self._aliases |= {word: self._word_from(home, word) for home, words in _STANDARD for word in words}
        self._uses = Counter(_key(each) for dag in self.dags for each in dag.decisions if each.kind == "function")
        for dag in self.dags:
            dag.name = self._fresh(_variable_of(dag.model.dag_id))
        self._variables: dict[int, str] = {}
        for decision in decisions:
            if decision.kind in ("hole", "call", "operator"):
                self._variable(decision)

    # Names.

    def _fresh(self, wanted: str, suffix: str = "_") -> str:
        while wanted in self._taken:
            wanted += suffix
        self._taken.add(wanted)
        return wanted

    def _word_from(self, home: str, word: str) -> str:
        """A name of the standard library, which may be what the file has under that name too."""
        if not self.moving.is_from(home, word):
            return self._fresh(word)
        self._taken.add(word)
        return word

    def _check_meanings(self, moved: AbstractSet[str]) -> None:
        """Raise ``Unwritable`` where a name of the file would mean one thing there, and another in the module."""
        names = Counter(self._names.values())
        for number in self.statements:
            node = self.moving.statements[number].node
            if early := sorted(self.moving.statements[number].runs & names.keys()):
                raise Unwritable(f"the file uses {early[0]}, the function of a task, while it is imported")
            for name in self.moving.statements[number].defines & names.keys():
                own = (each.original for key, each in self._by_place.items() if self._names.get(key) == name)
                names[name] += all(each is not node for each in own)
        if doubtful := [name for name, count in names.items() if count > 1]:
            raise Unwritable(f"the file has several meanings of {doubtful[0]}, which is the function of a task")
        if hidden := sorted(moved & _BUILTINS):
            raise Unwritable(f"the file has a {hidden[0]} of its own, which the module needs as Python has it")

    def _function_named(self, function: Function) -> str:
        """A name for a function that nothing looks up: its own, if no other has that."""
        name = function.node.name.value
        if name == "_" and function.model.name == LAMBDA:
            users = (each for dag in self.dags for each in dag.decisions if function in (each.function, *each.others))
            name = _variable_of(next(users).task.task_id)
        return self._fresh(name)

    def _function_name(self, function: FunctionModel) -> str:
        key = (function.name, function.place.line)
        if function.module in ("", "__main__"):
            if key not in self._names:
                raise Unwritable(f"the function {function.name} does not move over")
            return self._names[key]
        path = f"{function.module}.{function.name}"
        return str(self.words.reference(Reference(path, function.name, function.place)))

    def word(self, name: str) -> str:
        """A word of FlowyML's or of the standard library, which is then imported, as the module has it."""
        self.used.add(name)
        return self._aliases[name]

    # The module.

    def written(self) -> Written:
        """The text, from the bottom up: what is imported is known last."""
        pipelines = [text for dag in self.dags for text in self._of_dag(dag)]
        functions = list(self._functions())
        mains = [line for dag in self.dags for line in self._schedule(dag)]
        body = [*functions, *pipelines]
        if mains:
            body.append('if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in mains))
        parts = [self._docstring(), self._imports(), *self._constants(), *(part.strip("\n") + "\n" for part in body)]
        text = "\n\n".join(part for part in parts if part)
        return Written(text, [DagResult(d.model.dag_id, d.name, d.model.place, d.notes, d.schedule) for d in self.dags])

    def _docstring(self) -> str:
        about = self.moving.docstring.strip()
        lines = [about, "", ""] if about else []
        made = f"{MARK} from {' '.join(self._shown_path().split())}."
        body = "\n".join(line.rstrip() for line in "\n".join([*lines[:2], made]).split("\n"))
        body = body.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        body = "".join(each if each == "\n" or each.isprintable() else repr(each)[1:-1] for each in body)
        return f'"""{body}\n"""' if "\n" in body else f'"""{body}"""'

    def _shown_path(self) -> str:
        return self.dags[0].model.place.path if self.dags else self.file.path

    def _imports(self) -> str:
        names = {name for each in self.functions.values() for name in each.needed.names}
        guarded = [n for n in self.statements if self.moving.is_guarded(n)]
        own = [
            line
            for n in self.statements
            if self._is_import(n) and n not in guarded
            for line in self.moving.import_lines(n, names)
            if not line.startswith("from __future__")
        ]
        standard = [line for line in own if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
        others = [line for line in own if line not in standard]
        if guarded:
            self.word("suppress")
        for lines, homes in ((standard, _STANDARD), (others, _HOMES)):
            for module, words in homes:
                if used := [self._imported(word) for word in words if word in self.used]:
                    lines.append(f"from {module} import {', '.join(used)}")
        blocks = [["from __future__ import annotations"], _sorted(standard), _sorted(others)]
        return "\n".join("\n".join(block) + "\n" for block in blocks if block)

    def _imported(self, word: str) -> str:
        alias = self._aliases[word]
        return word if alias == word else f"{word} as {alias}"

    def _is_import(self, number: int) -> bool:
        node = self.moving.statements[number].node
        return isinstance(node, cst.SimpleStatementLine) and all(
            isinstance(each, cst.Import | cst.ImportFrom) for each in node.body
        )

    def _statement_text(self, number: int) -> str:
        return self.moving.code(self.moving.statements[number].node)

    def _constants(self) -> Iterator[str]:
        names = {name for each in self.functions.values() for name in each.needed.names}
        guarded = [number for number in self.statements if self.moving.is_guarded(number)]
        if guarded:
            nodes = [
                node
                for number in guarded
                for node in (
                    map(cst.parse_statement, self.moving.import_lines(number, names))
                    if self._is_import(number)
                    else [self.moving.statements[number].node]
                )
            ]
            if nodes:
                head = f"with {self.word('suppress')}(ImportError):  # Airflow's workers have it\n"
                yield self.moving.block(head, nodes) + "\n"
        taken = set(self._names.values())
        simple: list[str] = []
        for number in self.statements:
            statement = self.moving.statements[number]
            if number in guarded or self._is_import(number) or statement.defines & taken:
                continue
            if isinstance(statement.node, cst.SimpleStatementLine):
                simple.append(self._statement_text(number))
                continue
            if simple:
                yield "\n".join(simple) + "\n"
                simple = []
            yield f"{self._statement_text(number)}\n"
        if simple:
            yield "\n".join(simple) + "\n"

    def _functions(self) -> Iterator[str]:
        for key, function in self._by_place.items():
            node = function.node
            name = self._names[key]
            if name != node.name.value:
                node = node.with_changes(name=cst.Name(name))
            comments = [line.comment.value for line in node.leading_lines if line.comment is not None]
            node = node.with_changes(leading_lines=[], lines_after_decorators=[])
            text = self.moving.function_code(node, self.moving.column(function.original))
            decorators = [f"@{source(self._decorator(key))}"] if self._uses[key] else []
            yield "\n".join([*comments, *decorators, text]) + "\n"
        if "nothing" in self.used:
            yield (
                f"@{self.word('step')}(outputs=[])\ndef {self._aliases['nothing']}() -> None:\n"
                f'    """A task that does nothing, to which others can be tied."""\n'
            )
        if "item_of" in self.used:
            yield (
                f"@{self.word('step')}\ndef {self._aliases['item_of']}(values: dict, key: str) -> {self.word('Any')}:\n"
                f'    """One value of a dict that a task returned."""\n    return values[key]\n'
            )
        for dag in self.dags:
            for decision in dag.decisions:
                if decision.kind == "hole":
                    yield self._hole(decision)
                elif decision.kind == "call":
                    yield self._wrapper(decision, dag.model)

    def _decorator(self, key: tuple[str, int]) -> Part:
        """Of a function that one task is made of, with all that is said of it; bare where several are."""
        step = self.word("step")
        if self._uses[key] > 1:
            return step
        decision = next(
            each for dag in self.dags for each in dag.decisions if each.kind == "function" and _key(each) == key
        )
        options = list(self._options(decision, named=self._names[key]))
        return Group(f"{step}(", options, ")") if options else step

    def _hole(self, decision: Decision) -> str:
        name = self._variable(decision)
        task = decision.task
        why = f"Task {task.task_id!r} is {task.operator}, and was not imported: {decision.notes[0].reason}."
        literal = source(Text(why), 1, lead=26)
        options = source(Group(f"{self.word('step')}(", [f"name={text_literal(task.task_id)}"], ")"))
        return f"@{options}\ndef {name}() -> {self.word('Any')}:\n    raise NotImplementedError({literal})\n"

    def _wrapper(self, decision: Decision, dag: DagModel) -> str:
        """A step that calls a function that moved, or ``bash``."""
        name = self._variable(decision)
        options = list(self._options(decision, named=name))
        decorator = Group(f"{self.word('step')}(", options, ")") if options else self.word("step")
        annotations = {each: _kind_of(default_of(given)) for each, given in dag.params}
        returns = decision.function.node.returns if decision.function else None
        function = self._names[_key(decision)] if decision.function else self.word("bash")
        said = cst.Module([]).code_for_node(returns.annotation) if returns else ""
        if decision.function is None or decision.through_bash is not None:
            said = "str"
        return wrapper(
            decision, name, function, decorator, annotations, said, self.word, self.words.keyword, self._value_of
        )  # fmt: skip

    def _value_of(self, task: str) -> str:
        """What a wrapper calls the value of another task."""
        wanted = f"{_variable_of(task)}_value"
        while wanted in self._taken:
            wanted += "_"
        return wanted

    # A DAG.

    def _of_dag(self, dag: _Dag) -> Iterator[str]:
        operators: list[str] = []
        for decision in dag.decisions:
            if decision.kind == "operator":
                try:
                    operators.append(self._operator(decision))
                except Unwritable as error:
                    decision.kind = "hole"
                    decision.function = None
                    decision.notes[:] = [
                        Note(Kind.REFUSED, f"task {decision.task.task_id}", decision.task.place,
                             f"of its operator {decision.task.operator}: {error}",
                             "Write the operator with airflow_operator(…), or a step of its own.")
                    ]  # fmt: skip
        if operators:
            yield "".join(operators)
        dag.notes += [note for decision in dag.decisions for note in decision.notes]
        dag.notes += self._warnings(dag.model)
        yield self._pipeline(dag)

    def _variable(self, decision: Decision) -> str:
        key = id(decision)
        if key not in self._variables:
            self._variables[key] = self._fresh(_variable_of(decision.task.task_id), "_task")
        return self._variables[key]

    def _operator(self, decision: Decision) -> str:
        task = decision.task
        arguments: list[Part] = [text_literal(decision.operator), f"task_id={text_literal(task.task_id)}"]
        for name, given in decision.arguments.items():
            arguments.append(Pair(f"{self.words.keyword(name)}=", self.words.part(given)))
        rule = decision.options.get("run_if") or decision.options.get("trigger_rule")
        if rule:
            arguments.append(f"trigger_rule={text_literal(rule)}")
        made = Group(f"{self.word('airflow_operator')}(", arguments, ")")
        return source(Pair(f"{self._variable(decision)} = ", made)) + "\n"

    def _options(self, decision: Decision, named: str = "") -> Iterator[Part]:
        """What is said of a step beside its function."""
        task, options = decision.task, decision.options
        if named != task.task_id:
            yield f"name={text_literal(task.task_id)}"
        if "retries" in options:
            policy = self.word("OrchestratorRetryPolicy")
            given: list[Part] = [f"max_attempts={options['retries'] + 1}"]
            given.append(f"initial_delay_seconds={as_number(options['retry_delay'])}")
            given.append(f"backoff_multiplier={options.get('backoff', 1.0)}")
            given += [f"max_delay_seconds={as_number(options['max_delay'])}"] if "max_delay" in options else []
            yield Pair("retry=", Group(f"{policy}(", given, ")"))
        if "timeout" in options:
            yield f"timeout={as_number(options['timeout'])}"
        if "run_if" in options:
            yield f"run_if={text_literal(options['run_if'])}"
        if named and "airflow" in options:
            yield Pair("airflow=", value(options["airflow"]))

    def _pipeline(self, dag: _Dag) -> str:
        model = dag.model
        parameters = list(self._parameters(dag))
        options, notes = pipeline_options(model, dag.name, [each.kind for each in dag.decisions])
        dag.notes += notes
        decorator = self.word("pipeline")
        shown = source(Group(f"{decorator}(", options, ")")) if options else decorator
        lines = [f"@{shown}", source(Group(f"def {dag.name}(", parameters, ")")) + " -> None:"]
        if model.doc and model.doc.strip():
            lines.append(_indented_docstring(model.doc))
        taken = {edge.task_id for each in dag.decisions for edge in each.edges}
        local = set(self._taken)
        taken |= {block.by for path in dag.paths.values() for block in path}
        body = list(self._body(_Body(dag, taken, local), dag.order, 1))
        return "\n".join([*lines, *(body or ["    pass"])]) + "\n"

    def _body(self, body: _Body, order: Sequence[TaskModel | Chain], depth: int) -> Iterator[str]:
        """The calls of some tasks, and branches with those in them."""
        for unit in order:
            if isinstance(unit, TaskModel):
                yield from self._statements(body, body.decisions[unit.task_id], depth)
                continue
            last = list(unit.blocks)[-1]
            choice = body.decisions[last.by].choice  # all branches of a chain are of one choice
            assert choice is not None
            left = set(choice.values or ())
            for number, (block, tasks) in enumerate(unit.blocks.items()):
                ends = block == last and number > 0 and bool(left) and left <= set(block.values)
                ends = ends and not choice.may_be_none
                left -= set(block.values)
                yield f"{'    ' * depth}with {source(self._opening(body, block, number, ends), depth)}:"
                yield from self._body(body, tasks, depth + 1)

    def _opening(self, body: _Body, block: Block, number: int, ends: bool) -> Part:
        if ends:
            return f"{self.word('otherwise')}()"
        choice = body.decisions[block.by].choice
        value_of = body.outputs[block.by, "return_value"]
        word = self.word("elif_" if number else "when")
        if choice is None or choice.values is None:
            return f"{word}({value_of})"
        if choice.listed:
            found = [f"{self.word('is_in')}({text_literal(each)}, {value_of})" for each in block.values]
            return Group(f"{word}(", [Group(f"{self.word('any_of')}(", found, ")") if found[1:] else found[0]], ")")
        if len(block.values) > 1:
            return Group(f"{word}(", [Group(f"{self.word('is_in')}(", [value_of, value(list(block.values))], ")")], ")")
        return f"{word}({value_of} == {text_literal(block.values[0])})"

    def _statements(self, body: _Body, decision: Decision, depth: int) -> Iterator[str]:
        for edge in decision.edges:
            yield from self._pick(edge, body, depth)
        call = self._call(decision, body)
        if decision.task.task_id in body.taken:
            wanted = body.fresh(f"{_variable_of(decision.task.task_id)}_value")
            body.outputs[decision.task.task_id, "return_value"] = wanted
            call = Pair(f"{wanted} = ", call)
        yield f"{'    ' * depth}{source(call, depth)}"

    def _pick(self, edge: ValueEdge, body: _Body, depth: int) -> Iterator[str]:
        """A step for one value of the dict that a task returned."""
        outputs, dag = body.outputs, body.dag
        if (edge.task_id, edge.key) in outputs or (edge.task_id, "return_value") not in outputs:
            return
        wanted = body.fresh(f"{_variable_of(edge.task_id)}_{_variable_of(edge.key)}")
        name = f"{edge.task_id}.{edge.key}"
        whole = outputs[edge.task_id, "return_value"]
        call = Group(
            f"{self.word('item_of')}.options(name={text_literal(name)})(", [whole, text_literal(edge.key)], ")"
        )
        yield f"{'    ' * depth}{source(Pair(f'{wanted} = ', call), depth)}"
        outputs[edge.task_id, edge.key] = wanted
        place = next(each.task.place for each in dag.decisions if each.task.task_id == edge.task_id)
        dag.notes.append(
            Note(Kind.CHANGED, f"value {edge.key} of {edge.task_id}", place, "a step takes it out of the dict",
                 "Return several outputs by @step(outputs=[…]) instead.")
        )  # fmt: skip

    def _call(self, decision: Decision, body: _Body) -> Part:
        task, outputs = decision.task, body.outputs
        handed = {edge.task_id for edge in decision.edges if (edge.task_id, edge.key) in outputs}
        if task.trigger_rule == "all_success":  # by any other, the choice counts among those that it waits for
            handed |= {block.by for block in body.dag.paths[task.task_id]}
        after = [name for name in task.upstream if name not in handed]
        options: list[Part] = []
        match decision.kind:
            case "function":
                base = self._names[_key(decision)]
                options = list(self._options(decision)) if self._uses[_key(decision)] > 1 else []
            case "empty":
                base, options = self.word("nothing"), list(self._options(decision))
            case "bash":
                base, options = self.word("bash"), list(self._options(decision))
            case _:
                base = self._variable(decision)
        if after:
            options.append(Pair("after=", value(after)))
        if options:
            base = source(Group(f"{base}.options(", options, ")"), 1)
        if decision.over:
            fixed = [] if decision.kind == "operator" else list(self._arguments(decision, outputs))
            over = [
                Pair(f"{self.words.keyword(name)}=", self._given(each, outputs)) for name, each in decision.over.items()
            ]
            partial = source(Group(f"{base}.partial(", fixed, ")"), 1) if fixed else base
            return Group(f"{partial}.map(", over, ")")
        called = self._arguments(decision, outputs) if decision.kind in ("function", "call", "bash") else ()
        return Group(f"{base}(", list(called), ")")

    def _arguments(self, decision: Decision, outputs: dict[tuple[str, str], str]) -> Iterator[Part]:
        if decision.asking:
            names, values = wrapper_arguments(decision, self._value_of)
            yield from (Pair(f"{name}=", name) for name in names if name not in decision.over)
            yield from (Pair(f"{own}=", outputs.get(edge, "None")) for edge, own in values.items())
            return
        for name, given in decision.arguments.items():
            part = self._given(given, outputs)
            yield part if name.isdigit() else Pair(f"{self.words.keyword(name)}=", part)

    def _given(self, given: Any, outputs: dict[tuple[str, str], str]) -> Part:
        if isinstance(given, ValueEdge):
            return outputs.get((given.task_id, given.key), "None")
        if isinstance(given, list) and any(isinstance(each, ValueEdge) for each in given):
            return Group("[", [self._given(each, outputs) for each in given], "]")
        return value(given)

    def _parameters(self, dag: _Dag) -> Iterator[Part]:
        for name, given in dag.model.params:
            default = default_of(given)
            if name not in self._free or not is_plain(default):
                dag.notes.append(
                    Note(Kind.CHANGED, f"parameter {name}", dag.model.place, "it has no plain default, or no name of a "
                         "Python argument that is free", "Add it to the pipeline's function under another name.")
                )  # fmt: skip
                continue
            yield Pair(f"{name}: {_kind_of(default)} = ", value(default))
        asked = [each.asking for each in dag.decisions if each.asking]
        names = list(dict.fromkeys(name for asking in asked for name in asking.dates))
        logical = [name for name in names if DATES[name][1] == "LOGICAL_DATE"]
        dag.notes += notes_of_dates(dag.model, logical, any(map(self._asks_for_dates, dag.decisions)))
        for name in names:
            yield f"{name}: {self.word(DATES[name][0])} = {self.word(asked[0].default(name))}"

    def _asks_for_dates(self, decision: Decision) -> bool:
        """Whether an operator is rendered with dates, or its functions ask for them."""
        functions = [one for one in (decision.function, *decision.others) if one]
        texts = [each for each in texts_of(list(decision.arguments.values())) if is_template(each)]
        texts += [self.moving.code(each.node) for each in functions]
        return decision.kind == "operator" and any(map(asks_for_dates, texts))

    def _warnings(self, model: DagModel) -> Iterator[Note]:
        for each in model.warnings:
            if each.code == "unknown-schedule":
                continue
            yield Note(
                Kind.CHANGED if each.code in ("default-taken", "unknown-import") else Kind.REFUSED,
                "reading", each.place, each.text, "Compare the pipeline with the DAG.",
            )  # fmt: skip
        if not model.id_known:
            yield Note(Kind.REFUSED, "dag_id", model.place, "it is only known when Airflow reads the file", "Name it.")
        for group in model.groups:
            yield Note(
                Kind.CHANGED, f"task group {group.group_id}", group.place,
                "its tasks keep its name before theirs, without the box" if group.prefix_group_id else
                "its tasks are steps, without the box", "Call a pipeline within the pipeline.",
            )  # fmt: skip

    def _schedule(self, dag: _Dag) -> Iterator[str]:
        model = dag.model
        said = model.schedule if model.schedule_known else None
        kind, _, rest = (said or "").partition(":")
        given: list[Part] = []
        if said == "None":
            return
        zone = zone_of(model)
        if kind == "cron" and len(rest.split()) == 5 and zone:
            given = ['"cron"', text_literal(rest)]
            dag.schedule = f"cron:{rest} {zone}"
        elif kind == "delta":
            given = ['"interval"', as_number(float(rest))]
            dag.schedule = f"delta:{float(rest)}"
        place = model.schedule_argument.place if model.schedule_argument else model.place
        if not given:
            shown = said or "one that is not known"
            shown += "" if zone else " in a time zone that is not known"
            dag.notes.append(
                Note(Kind.CHANGED, "schedule", place, f"FlowyML has no schedule like {shown}",
                     "Schedule the pipeline by hand, or run it by a hook or an API call.")
            )  # fmt: skip
            return
        given.append('on="airflow"')
        if zone and zone != "UTC":
            given.append(f"timezone={text_literal(zone)}")
        if isinstance(model.start_date, datetime):
            start = text_literal(model.start_date.isoformat())
            given.append(f"start={self.word('datetime')}.fromisoformat({start})")
        if model.catchup:
            given.append("catch_up=True")
        dag.notes.append(
            Note(
                Kind.KEPT, "schedule", place, "the module schedules the pipeline on Airflow when it is run as a script"
            )
        )
        yield source(Group(f"{dag.name}.schedule(", given, ")"), 1)


def _decided(dag: DagModel, moving: Moving) -> _Dag:
    """What each task becomes, and the branches around it. A choice that branches cannot say stays with its operator."""
    tasks = list(_in_order(dag))
    held: dict[str, str] = {}
    decisions = [decide(dag, task, moving, held) for task in tasks]
    numbers = {task.task_id: number for number, task in enumerate(tasks)}
    while True:
        choices = {each.task.task_id: each.choice for each in decisions if each.choice}
        taken = {each.task.task_id: [edge.task_id for edge in each.edges] for each in decisions}

        def exclusive(by: str, blocks: Sequence[Block], choices: Mapping[str, Choice] = choices) -> bool:
            values = [each for block in blocks for each in block.values]
            return not choices[by].listed and len(values) == len(set(values))

        try:
            paths = paths_of(dag, tasks, choices, taken)
            order = arranged(tasks, paths, exclusive) if choices else tasks
        except Conflict as conflict:
            held[conflict.by] = str(conflict)
            number = numbers[conflict.by]
            decisions[number] = decide(dag, tasks[number], moving, held)
            continue
        return _Dag(dag, decisions, order, paths)


def _keeps_its_name(function: Function, looked: AbstractSet[str]) -> bool:
    """Whether what moves looks a function up by its name."""
    return not function.model.nested and function.model.name in looked


def _key(decision: Decision) -> tuple[str, int]:
    assert decision.function
    return decision.function.model.name, decision.function.model.place.line


def _wrap_options(dags: Sequence[_Dag]) -> None:
    """Make a step of its own of what calls ``bash`` or a shared function with options for one engine.

    So does a step whose function an operator takes too, since that function stays plain.
    """
    every = [(dag, each) for dag in dags for each in dag.decisions]
    uses = Counter(_key(each) for _, each in every if each.kind == "function")
    plain = {
        (one.model.name, one.model.place.line)
        for _, each in every if each.kind == "operator"
        for one in (each.function, *each.others) if one
    }  # fmt: skip
    for dag, each in every:
        of_engine = "airflow" in each.options
        shared = each.kind == "function" and ((of_engine and uses[_key(each)] > 1) or _key(each) in plain)
        if shared or (of_engine and each.kind == "bash"):
            each.kind, each.asking = "call", Asking(dag.model, each.task, frozenset())


def _sorted(lines: Iterable[str]) -> list[str]:
    """Imports as isort has them: modules first, each kind by its module; before all ``*``, which hides nothing then."""

    def key(line: str) -> tuple[bool, bool, str, str]:
        return not line.endswith(" import *"), line.startswith("from"), line.split()[1].lower(), line

    return sorted(dict.fromkeys(lines), key=key)


def _variable_of(name: str) -> str:
    """A variable's name that reads like a name, in ASCII."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else identifier(name)


def _kind_of(default: Any) -> str:
    return _TYPES.get(type(default), "str | None")


def _in_order(dag: DagModel) -> Iterable[TaskModel]:
    """The tasks, each after those that it waits for, else as they stand in the file."""
    done: dict[str, TaskModel] = {}
    by_id = {task.task_id: task for task in dag.tasks}
    stack = [(task, iter(task.upstream)) for task in reversed(dag.tasks)]
    seen: set[str] = set()
    while stack:
        task, upstream = stack[-1]
        if task.task_id in done:
            stack.pop()
            continue
        seen.add(task.task_id)
        following = next((by_id[name] for name in upstream if name in by_id and name not in seen), None)
        if following is None:
            done[task.task_id] = task
            stack.pop()
        else:
            stack.append((following, iter(following.upstream)))
    return done.values()


def _indented_docstring(text: str) -> str:
    from inspect import cleandoc

    lines = [line.rstrip() for line in cleandoc(text.expandtabs()).split("\n")]
    body = re.sub(r'"(?="|\Z)', r'\\"', "\n".join(lines).strip().replace("\\", "\\\\"))
    body = "".join(each if each == "\n" or each.isprintable() else repr(each)[1:-1] for each in body)
    indented = "\n".join(f"    {line}" if line else "" for line in body.split("\n")).strip()
    return f'    """{indented}\n    """' if "\n" in body else f'    """{indented}"""'
