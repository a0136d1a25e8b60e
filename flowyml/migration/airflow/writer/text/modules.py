"""The text of a module: the functions of a DAG file, its operators, and a pipeline for each of its DAGs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from flowyml.core.errors import DefinitionError
from flowyml.migration.airflow.model import FileModel, Place
from flowyml.migration.airflow.writer.deciding.dags import DecidedDag, decided
from flowyml.migration.airflow.writer.deciding.decision import Decision, Function, Key, key_of, named
from flowyml.migration.airflow.writer.deciding.params import declared
from flowyml.migration.airflow.writer.deciding.sections import groups_in
from flowyml.migration.airflow.writer.deciding.staying import Staying
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import MARK, DagResult, Kind, Note
from flowyml.migration.airflow.writer.repository import Repository
from flowyml.migration.airflow.writer.text.names import HOMES, STANDARD, Names
from flowyml.migration.airflow.writer.text.pipelines import annotation, nested_pipelines, pipeline
from flowyml.migration.airflow.writer.text.steps import decorator, hole, operator, retry, wrapper
from flowyml.plan.layout import Group, Pair, Part, docstring, source, value
from flowyml.plan.names import check_name


@dataclass(frozen=True, slots=True)
class Written:
    """A module, and the result for each DAG."""

    text: str
    dags: Sequence[DagResult]


def write_module(file: FileModel, text: str, repository: Repository | None = None, staying: Staying = {}) -> Written:
    """Return the module of a file that has DAGs.

    ``text`` is the file's own; ``repository`` has the modules that it imports. ``staying`` names tasks that stay on
    Airflow, each in a pipeline of its own.

    A DAG without tasks, or with a name that FlowyML refuses, has no pipeline in it; if there is no pipeline, the text
    is empty. Pure: the same files, the same module.
    """
    whole = _Module(file, text, repository, staying)
    refused: dict[int, list[Note]] = {id(dag): [] for dag in file.dags}
    for dag in whole.dags:
        refused[id(dag.source)] += without_tasks(dag) or refused_names(dag)
    if not any(refused.values()):
        return whole.written()
    written = tuple(dag for dag in file.dags if not refused[id(dag)])
    made = _Module(replace(file, dags=written), text, repository, staying).written() if written else Written("", [])
    usable = iter(made.dags)
    dags: list[DagResult] = []
    for dag in whole.dags:
        if not (notes := refused[id(dag.source)]):
            dags.append(next(usable))
        elif dag.model is dag.source:
            dags.append(DagResult(dag.model.dag_id, "", dag.model.place, notes))
    return Written(made.text, dags)


class _Module:
    def __init__(self, file: FileModel, text: str, repository: Repository | None, staying: Staying) -> None:
        self.file = file
        self.moving = Moving(text, repository)
        self.dags, self.moved = decided(file, self.moving, staying)
        self.path = repository.start if repository else file.path
        self.names = Names(self.dags, self.moved, self.moving, self.path)
        self.uses = Counter(key_of(each) for each in self._decisions() if each.kind == "function")

    def written(self) -> Written:
        """Return the text, written from the bottom up, since the imports are known last."""
        named = list(zip(self.names.pipelines, self.dags, strict=True))
        pipelines = [text for name, dag in named for text in self._of_dag(name, dag)]
        body = [*self._functions(), *pipelines]
        constants = list(self._constants())
        parts = [self._docstring(), self._imports(), *constants, *(part.strip("\n") + "\n" for part in body if part)]
        text = "\n\n".join(part for part in parts if part)
        return Written(text, [_result(name, dag) for name, dag in named])

    def _decisions(self) -> Iterator[Decision]:
        return (each for dag in self.dags for each in dag.decisions)

    def _docstring(self) -> str:
        about = self.moving.docstring.strip()
        made = f"{MARK} from {' '.join(self.path.split())}."
        return docstring(f"{about}\n\n{made}" if about else made)

    # Copied code.

    def _imports(self) -> str:
        own = [
            line
            for number in self.moved.statements
            if self._is_import(number)
            for line in self.moving.import_lines(number, {*self.moved.needed, "*"} - self.moving.guarded(number))
            if not line.startswith("from __future__")
        ]
        imported: dict[str, list[str]] = {}
        for key, function in self._imported():
            name, alias = function.model.name, self.names.functions[key]
            imported.setdefault(function.model.module, []).append(f"{name} as {alias}" if alias != name else name)
        own += [f"from {module} import {', '.join(sorted(names))}" for module, names in imported.items()]
        standard = [line for line in own if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
        others = [line for line in own if line not in standard]
        for lines, homes in ((standard, STANDARD), (others, HOMES)):
            for module, words in homes:
                if used := [self.names.imported(word) for word in words if word in self.names.used]:
                    lines.append(f"from {module} import {', '.join(used)}")
        blocks = [["from __future__ import annotations"], _sorted(standard), _sorted(others)]
        return "\n".join("\n".join(block) + "\n" for block in blocks if block)

    def _is_import(self, number: int) -> bool:
        node = self.moving.statements[number].node
        return isinstance(node, cst.SimpleStatementLine) and all(
            isinstance(each, cst.Import | cst.ImportFrom) for each in node.body
        )

    def _constants(self) -> Iterator[str]:
        if guarded := list(self._guarded()):
            head = f"with {self.names.word('suppress')}(ImportError):  # Airflow's workers have it\n"
            yield self.moving.block(head, guarded) + "\n"
        functions = set(self.names.functions.values())
        if "Field" in self.names.used:
            head = f"with {self.names.word('suppress')}(ImportError):  # what checks parameters has it\n"
            yield f"{head}    from pydantic import {self.names.imported('Field')}\n"
        simple: list[str] = []
        for number in sorted({*self.moved.statements, *self.moving.definitions(self.names.constants)}):
            statement = self.moving.statements[number]
            if self.moving.guarded(number) or self._is_import(number) or statement.defines & functions:
                continue
            text = self.moving.code(statement.node)
            if isinstance(statement.node, cst.SimpleStatementLine):
                simple.append(text)
                continue
            if simple:
                yield "\n".join(simple) + "\n"
                simple = []
            yield f"{text}\n"
        simple += [source(Pair(f"{name} = ", retry(self.names, each))) for each, name in self.names.policies.items()]
        simple += [source(Pair(f"{name} = ", each)) for name, each in self.names.objects.items()]
        options = {repr(found): found for each in self._decisions() if (found := each.options.get("airflow"))}
        simple += [source(Pair(f"{name} = ", value(options[each]))) for each, name in self.names.engine.items()]
        if simple:
            yield "\n".join(simple) + "\n"

    def _guarded(self) -> Iterator[cst.CSTNode]:
        """Yield statements that can only be imported together with Airflow."""
        for number in self.moved.statements:
            if guarded := self.moving.guarded(number):
                if self._is_import(number):
                    names = {*self.moved.needed, "*"} & guarded
                    yield from map(cst.parse_statement, self.moving.import_lines(number, names))
                else:
                    yield self.moving.statements[number].node

    # Steps.

    def _functions(self) -> Iterator[str]:
        names = self.names
        steps: list[str] = []
        for key, function in self._imported():
            if self.uses[key]:
                head = f"{names.steps[key]} = {source(self._decorator(key, function.model.name))}("
                steps.append(source(Group(head, [names.functions[key]], ")")))
        yield "\n".join(steps)
        for key, function in self.moved.functions.items():
            if function.is_imported:
                continue
            node = function.node
            name = names.functions[key]
            if name != node.name.value:
                node = node.with_changes(name=cst.Name(name))
            comments = [line.comment.value for line in node.leading_lines if line.comment is not None]
            node = node.with_changes(leading_lines=[], lines_after_decorators=[])
            text = self.moving.function_code(node, self.moving.column(function.original))
            decorators = [f"@{source(self._decorator(key, names.functions[key]))}"] if self.uses[key] else []
            yield "\n".join([*comments, *decorators, text]) + "\n"
        if "nothing" in names.used:
            yield (
                f"@{names.word('step')}(outputs=[])\ndef {names.alias('nothing')}() -> None:\n"
                f'    """A task that does nothing, to which others can be tied."""\n'
            )
        if "item_of" in names.used:
            yield (
                f"@{names.word('step')}\ndef {names.alias('item_of')}(values: dict, key: str) -> {names.word('Any')}:\n"
                f'    """One value of a dict that a task returned."""\n    return values[key]\n'
            )
        for dag in self.dags:
            declarations = {name: declared(each) for name, each in dag.model.params} | dag.declared
            parameters = {name: each.base for name, each in declarations.items()}
            parameters |= {name: annotation(dag, name) for name in dag.parameters}
            for decision in dag.decisions:
                if decision.kind == "hole":
                    model = decision.task.function
                    found = self.moving.find(model) if model and model.module in ("", "__main__") else None
                    yield hole(names, decision, self.moving.code(found) if found is not None else "")
                elif decision.kind == "call" and decision.has_step:
                    yield wrapper(names, decision, parameters)

    def _imported(self) -> Iterator[tuple[Key, Function]]:
        return ((key, each) for key, each in self.moved.functions.items() if each.is_imported)

    def _decorator(self, key: Key, named: str) -> Part:
        """Return the decorator of a function of one task, with all options; bare for a function of several tasks.

        ``named`` is the function's own name, which its step has by default.
        """
        if self.uses[key] > 1:
            return self.names.word("step")
        every = (each for each in self._decisions() if each.kind == "function")
        return decorator(self.names, next(each for each in every if key_of(each) == key), named)

    # Pipelines.

    def _of_dag(self, name: str, dag: DecidedDag) -> Iterator[str]:
        own = pipeline(self.names, dag, name, self.uses)  # first: its loops have the pipelines of their groups
        texts = [*nested_pipelines(self.names, dag, self.uses), own]
        yield "".join(
            "".join(f"{comment}\n" for comment in self.names.comments_at(each.task.place))
            + f"{source(Pair(f'{self.names.variable(each)} = ', operator(self.names, each)))}\n"
            for each in dag.decisions
            if each.kind == "operator" and id(each) not in self.names.in_loops
        )
        yield from texts


def _result(name: str, dag: DecidedDag) -> DagResult:
    model = dag.model
    within = {decision.task.task_id: decision.within for decision in dag.decisions}
    added = frozenset(
        within[task] + f"{edge.task_id}.{edge.key}".removeprefix(within[task])
        for task, edges in dag.picked.items()
        for edge in edges
    )
    return DagResult(model.dag_id, name, model.place, dag.notes, added)


def _sorted(lines: Iterable[str]) -> list[str]:
    """Sort imports as isort does: modules first, then by module; ``*`` before all others, so that it hides nothing."""

    def key(line: str) -> tuple[bool, bool, str, str]:
        return not line.endswith(" import *"), line.startswith("from"), line.split()[1].lower(), line

    return sorted(dict.fromkeys(lines), key=key)


def without_tasks(dag: DecidedDag) -> list[Note]:
    """Say why a DAG without tasks cannot be a pipeline; empty for any other DAG."""
    if dag.decisions:
        return []
    to_do = "Write its pipeline by hand, or leave the DAG out."
    return [Note(Kind.REFUSED, "the DAG", dag.model.place, "no tasks of it are known, and a pipeline has steps", to_do)]


def refused_names(dag: DecidedDag) -> list[Note]:
    """Say why a DAG cannot be a pipeline, for each of its names that FlowyML refuses."""
    found: list[Note] = []
    for construct, place, what, name in _names(dag):
        try:
            check_name(name, what)
        except DefinitionError as error:
            to_do = "Change it in the DAG file, and import it again. No pipeline is written until then."
            found.append(Note(Kind.REFUSED, construct, place, str(error), to_do))
    return found


def _names(dag: DecidedDag) -> Iterator[tuple[str, Place, str, str]]:
    """Yield the named parts of a DAG: the part, its location, the kind of its new name, and the name."""
    model = dag.model
    yield "dag_id", model.place, "pipeline", model.dag_id
    yield from (("tag of the DAG", model.place, "tag", tag) for tag in model.tags)
    for group in groups_in(dag.order):
        yield f"task group {group.group.group_id}", group.group.place, "pipeline", group.label
    for each in dag.decisions:
        yield named(each.task), each.task.place, "step", each.name
        for edge in dag.picked.get(each.task.task_id, ()):
            name = f"{edge.task_id}.{edge.key}".removeprefix(each.within)
            yield f"value {edge.key} of {edge.task_id}", each.task.place, "step", name
