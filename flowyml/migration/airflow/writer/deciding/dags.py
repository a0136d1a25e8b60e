"""The pipeline of each DAG: its steps, the branches around them, its parameters, options and schedule."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from flowyml.core.schedule import Schedule
from flowyml.migration.airflow.model import OF_CLASS, DagModel, FileModel, FunctionModel, TaskModel, ValueEdge
from flowyml.migration.airflow.reader.files import Files
from flowyml.migration.airflow.writer.deciding import blocks, context, schedules
from flowyml.migration.airflow.writer.deciding.choices import Choice
from flowyml.migration.airflow.writer.deciding.decision import Decision, Moved, edges_in, key_of, refused, what_moves
from flowyml.migration.airflow.writer.deciding.functions import returns_dict
from flowyml.migration.airflow.writer.deciding.options import OF_PYTHON, pipeline_options
from flowyml.migration.airflow.writer.deciding.params import Declared, declared, default_of
from flowyml.migration.airflow.writer.deciding.sections import Nested, Unit, nested
from flowyml.migration.airflow.writer.deciding.staying import ENDS_AS_OURS, Staying, set_apart
from flowyml.migration.airflow.writer.deciding.step_options import OURS, lost_of
from flowyml.migration.airflow.writer.deciding.tasks import decide
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import Unwritable, Words, is_plain

# Endings of the files from which operators read templates; the second kind is also of other files.
_TEMPLATES = (".bash", ".hql", ".sh", ".sql")
_MAY_BE_TEMPLATES = (".html", ".json", ".txt", ".yaml", ".yml")
# Trigger rules by which a task runs although one before it failed.
_HANDLING = ("all_done", "all_failed", "always", "none_skipped", "one_done", "one_failed", "one_success")
_PULL = re.compile(r"xcom_pull\(([^()]*)")
_QUOTED = re.compile(r"""['"]([^'"]*)['"]""")


@dataclass(slots=True)
class DecidedDag:
    """A DAG: its tasks in the order of their calls, and ``paths``, the branches around each.

    Task groups that are pipelines contain their own tasks. ``source`` is the same DAG or, for the DAG of a task that
    stays on Airflow, the DAG that the task is from.

    ``parameters`` have their defaults, and in ``declared`` their annotations; ``dates`` are those that each run fills,
    with the name of their default. ``picked`` are the values that separate steps take out of return values, by the task
    before which they are; ``taken`` are the tasks whose outputs are used.
    """

    model: DagModel
    source: DagModel
    decisions: list[Decision]
    order: Sequence[Unit]
    paths: Mapping[str, blocks.Path]
    parameters: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Declared] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    picked: Mapping[str, Sequence[ValueEdge]] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    schedule: Schedule | None = None
    notes: list[Note] = field(default_factory=list)

    @property
    def is_apart(self) -> bool:
        """True for the DAG of a task that stays on Airflow: its step gives each run all parameters."""
        return self.model is not self.source


def decided(file: FileModel, moving: Moving, staying: Staying = {}) -> tuple[Sequence[DecidedDag], Moved]:
    """Return the pipelines of a file, and the code of it to copy. Raises ``Unwritable``.

    Each task that stays on Airflow gets a DAG of its own, after its DAG, where a step runs it.
    """
    dags: list[DecidedDag] = []
    files = Files(FilePath(file.root), FilePath(file.root, file.path))
    ids = {dag.dag_id for dag in file.dags}
    for model in file.dags:
        steps, apart = set_apart(model, moving, staying.get(model.dag_id, ()), ids)
        ids.update(each.dag_id for each in apart)
        whole = _branched(model, model, moving, steps)
        _hold_takers(whole, steps, moving)
        started = {each.starts for each in whole.decisions}
        dags += [whole, *(_branched(each, model, moving, {}) for each in apart if each.dag_id in started)]
    _wrap_options(dags)
    for dag in dags:
        _hold_mapped(dag)
    moved = what_moves((each for dag in dags for each in dag.decisions), moving)
    for dag in dags:
        for each in dag.decisions:
            if each.kind == "operator":
                _check_operator(each, moved)
        _complete(dag, moving, moved)
        dag.notes += _template_files(dag, files)
    return dags, moved


def _branched(dag: DagModel, source: DagModel, moving: Moving, steps: Mapping[str, Decision]) -> DecidedDag:
    """Decide each task, and the branches around it. If branches cannot express a choice, its operator stays.

    ``steps`` are decided already.
    """
    tasks = list(_in_order(dag))
    held: dict[str, str] = {}
    decisions = [steps.get(task.task_id) or decide(dag, task, moving, held) for task in tasks]
    numbers = {task.task_id: number for number, task in enumerate(tasks)}
    while True:
        if keyed := _taken_by_key(dag, decisions, moving) - held.keys():
            for name in keyed:
                held[name] = "an operator takes its value under a key"
                decisions[numbers[name]] = decide(dag, tasks[numbers[name]], moving, held)
            continue
        choices = {each.task.task_id: each.choice for each in decisions if each.choice}
        taken = {each.task.task_id: [edge.task_id for edge in each.edges] for each in decisions}

        def exclusive(by: str, found: Sequence[blocks.Block], choices: Mapping[str, Choice] = choices) -> bool:
            values = [each for block in found for each in block.values]
            return not choices[by].listed and len(values) == len(set(values))

        try:
            paths = blocks.paths_of(dag, tasks, choices, taken)
            order: Sequence[Unit] = blocks.arranged(tasks, paths, exclusive) if choices else tasks
        except blocks.Conflict as conflict:
            held[conflict.by] = str(conflict)
            number = numbers[conflict.by]
            decisions[number] = decide(dag, tasks[number], moving, held)
            continue
        return DecidedDag(dag, source, decisions, order, paths)


def _taken_by_key(dag: DagModel, decisions: Sequence[Decision], moving: Moving) -> set[str]:
    """Return the tasks whose dicts operators take apart by XComs: those of a step are not under the dict's keys."""
    names: set[str] = set()
    for each in decisions:
        if each.kind != "operator":
            continue
        names |= {edge.task_id for edge in edges_in(each.arguments.values()) if edge.key != "return_value"}
        for call in (call for text in _rendered(each, moving) for call in _PULL.findall(text) if "key" in call):
            named = {*_QUOTED.findall(call)} & {task.task_id for task in dag.tasks}
            names |= named or {*each.task.upstream}
    return {
        each.task.task_id for each in decisions
        if each.task.task_id in names and each.kind in ("function", "call") and each.task.multiple_outputs
    }  # fmt: skip


def _in_order(dag: DagModel) -> Iterable[TaskModel]:
    """Return the tasks, each after those that it waits for, otherwise in the order of the file."""
    by_id = {task.task_id: task for task in dag.tasks}
    found = blocks.sorted_units([*by_id], {name: {*task.upstream} & by_id.keys() for name, task in by_id.items()})
    return dag.tasks if found is None else [by_id[name] for name in found]


def _wrap_options(dags: Sequence[DecidedDag]) -> None:
    """Write a separate step for a call of ``bash`` or of a shared function with options for one engine.

    That also applies to a step whose function is also an operator's argument, since that function stays plain.
    """
    every = [(dag, each) for dag in dags for each in dag.decisions]
    uses = Counter(key_of(each) for _, each in every if each.kind == "function")
    plain = {one.key for _, each in every if each.kind == "operator" for one in (each.function, *each.others) if one}
    for dag, each in every:
        of_engine = "airflow" in each.options
        shared = each.kind == "function" and ((of_engine and uses[key_of(each)] > 1) or key_of(each) in plain)
        if shared or (of_engine and each.kind == "bash"):
            each.kind, each.asking = "call", context.Asking(dag.model, each.task, frozenset())


def _hold_mapped(dag: DecidedDag) -> None:
    """Turn tasks into holes if their mapped groups get no pipeline, or if they take a part of many values."""
    by_id = {each.task.task_id: each for each in dag.decisions}
    loops = [each for each in dag.decisions if each.loop]
    apart = nested(dag.model, dag.order, dag.decisions)[1] if loops else {}
    for each in loops:
        if each.loop and (why := apart.get(each.loop.group)):
            each.loop = None
            _hold(each, f"its task group is mapped, and {why}")
    for each in dag.decisions:
        for edge in each.edges:
            loop = by_id[edge.task_id].loop if edge.task_id in by_id else None
            if loop and edge.key != "return_value" and each.loop != loop:
                _hold(each, f"it takes {edge.key} of each item of {edge.task_id}")


def _hold(decision: Decision, why: str) -> None:
    decision.kind, decision.arguments, decision.over = "hole", {}, {}
    decision.asking = decision.function = None
    decision.starts = ""
    decision.notes[:] = [refused(decision.task, why)]


def _hold_takers(dag: DecidedDag, steps: Mapping[str, Decision], moving: Moving) -> None:
    """Turn tasks into holes that take the value of a task that stays on Airflow: the run of a DAG returns none."""
    running = {name for name, each in steps.items() if each.starts}
    for each in dag.decisions:
        taken = {edge.task_id for edge in (*each.edges, *each.sources)}
        if each.kind == "operator":
            taken |= {edge.task_id for edge in edges_in(list(each.arguments.values()))}
            taken |= {name for text in _rendered(each, moving) for call in _PULL.findall(text)
                      for name in _QUOTED.findall(call)}  # fmt: skip
        if found := sorted(taken & running):
            _hold(each, f"it takes what {found[0]} returns, which stays on Airflow")


def _check_operator(decision: Decision, moved: Moved) -> None:
    """Turn an operator into a hole if its arguments cannot be written."""

    def function(model: FunctionModel) -> str:
        if model.module in ("", "__main__") and (model.name, model.place.line, "") not in moved.functions:
            raise Unwritable(f"the function {model.name} does not move over")
        return model.name

    words = Words(function, str)
    try:
        for name, value in decision.arguments.items():
            words.keyword(name)
            words.part(value)
    except Unwritable as error:
        decision.kind = "hole"
        to_do = "Write the operator with airflow_operator(…), or write a step."
        decision.notes[:] = [refused(decision.task, f"of its operator {decision.task.operator}: {error}", to_do)]


def _complete(dag: DecidedDag, moving: Moving, moved: Moved) -> None:
    """Decide all that concerns several tasks, and collect the result for each construct."""
    model = dag.model
    dag.order, apart = nested(model, dag.order, dag.decisions)
    dag.notes += [note for decision in dag.decisions for note in decision.notes]
    dag.notes += _mapped_over_dicts(dag, moving)
    dag.notes += _warnings(model)
    dag.notes += _groups(dag, apart)
    dag.notes += _parameters(dag, moved)
    dag.notes += _outcome(model)
    dag.notes += _of_failed_choices(dag)
    dag.notes += _labels(model)
    dag.notes += _renamed(model)
    askings = [each.asking for each in dag.decisions if each.asking]
    for name in dict.fromkeys(name for asking in askings for name in asking.conf):
        dag.parameters[name] = None
        dag.notes.append(
            Note(Kind.CHANGED, f"dag_run.conf of {name}", model.place, "it is a parameter of the pipeline",
                 "Give it to a run as a parameter, and its type in the pipeline's function.")
        )  # fmt: skip
    dag.dates = {name: askings[0].default(name) for asking in askings for name in asking.dates}
    logical = [name for name in dag.dates if context.DATES[name][1] == "LOGICAL_DATE"]
    operators = [each for each in dag.decisions if each.kind == "operator"]
    by_operators = any(schedules.asks_for_dates(text) for each in operators for text in _rendered(each, moving))
    dag.notes += schedules.notes_of_dates(model, logical, by_operators)
    dag.options, notes = pipeline_options(model, [each.kind for each in dag.decisions])
    dag.notes += notes
    edges = {edge.task_id for each in dag.decisions for edge in (*each.edges, *each.sources)}
    dag.taken = frozenset({*edges, *(block.by for path in dag.paths.values() for block in path)})
    dag.picked = _picked(dag)
    dag.schedule, own, notes = schedules.schedule_of(model)
    notes += schedules.lost_of_schedule(model, dag.schedule)
    if own is not None:
        dag.options = {**dag.options, "airflow": {**dag.options.get("airflow", {}), "schedule": own}}
    dag.notes += notes


def _mapped_over_dicts(dag: DecidedDag, moving: Moving) -> Iterator[Note]:
    by_id = {each.task.task_id: each for each in dag.decisions}
    for decision in dag.decisions:
        for edge in (*edges_in(decision.over.values()), *decision.sources):
            source = by_id.get(edge.task_id)
            if source and source.function and returns_dict(source.task, source.function):
                yield Note(
                    Kind.CHANGED, f"mapping of {decision.task.task_id}", decision.task.place,
                    f"{edge.task_id} returns a dict: Airflow maps over its pairs of key and value, FlowyML over lists",
                    f"Return [list(pair) for pair in found.items()] from {edge.task_id}.",
                )  # fmt: skip


def _warnings(model: DagModel) -> Iterator[Note]:
    for each in model.warnings:
        if each.code == "unknown-schedule":
            continue
        yield Note(
            Kind.CHANGED if each.code in ("default-taken", "unknown-import") else Kind.REFUSED,
            "reading", each.place, each.text, "Compare the pipeline with the DAG.",
        )  # fmt: skip
    if not model.id_known:
        yield Note(Kind.REFUSED, "dag_id", model.place, "it is only known when Airflow reads the file", "Name it.")


def _outcome(model: DagModel) -> Iterator[Note]:
    """Note that a failure which a later task handles fails the run: see docs/decisions/016-who-decides-a-run.md."""
    handling = [each for each in model.tasks if each.trigger_rule in _HANDLING and each.upstream and not each.teardown]
    if handling:
        names = ", ".join(each.task_id for each in handling)
        yield Note(
            Kind.CHANGED, "outcome of the run", handling[0].place, f"a run in which a task fails is a failed run; on "
            f"Airflow the last tasks decide, so {names:.200} could end it well",
            "Let a step that may fail return what happened instead of raising.",
        )  # fmt: skip


def _of_failed_choices(dag: DecidedDag) -> Iterator[Note]:
    """Note the tasks of a branch that Airflow runs even if the choice has failed; FlowyML then runs no branch."""
    for each in dag.decisions:
        if (path := dag.paths.get(each.task.task_id)) and each.task.trigger_rule in _HANDLING:
            yield Note(
                Kind.CHANGED, f"state of {each.task.task_id}", each.task.place, f"if {path[-1].by} fails, it does not "
                "run, and on Airflow it does", "Use cleanup() for what has to run in any case.",
            )  # fmt: skip


def _labels(model: DagModel) -> Iterator[Note]:
    labels = [(before, task, label) for task in model.tasks for before, label in task.edge_labels]
    if labels:
        shown = ", ".join(f"{label} ({before} → {task.task_id})" for before, task, label in labels)
        yield Note(
            Kind.CHANGED, "labels of edges", labels[0][1].place, f"Airflow shows them on edges, and a pipeline has "
            f"none: {shown:.200}", "Say it by the names of the steps, or leave it out.",
        )  # fmt: skip


def _template_files(dag: DecidedDag, files: Files) -> Iterator[Note]:
    """Note the arguments by which operators read templates from files. Source: ``Templater.resolve_template_files``."""
    for each in dag.decisions:
        if each.kind != "operator":
            continue
        of_class = {one.name: one.value for one in each.task.arguments if one.inherited == OF_CLASS}
        defaults = each.arguments.get("default_args")
        arguments = of_class | (defaults if isinstance(defaults, dict) else {}) | each.arguments | each.over
        others = {*OURS, "default_args", *(() if "templates_exts" in arguments else OF_PYTHON)}
        for name, value in arguments.items():
            found = [
                text for text in context.texts_of(value)
                if text.endswith(_TEMPLATES) or (text.endswith(_MAY_BE_TEMPLATES) and files.resolve(text))
            ]  # fmt: skip
            if found and name not in others:
                argument = each.task.argument(name)
                yield Note(
                    Kind.CHANGED, f"{name} of {each.task.task_id}", argument.place if argument else each.task.place,
                    f"Airflow reads the template {found[0]!r:.100} from the folder of the DAG file, and the compiled "
                    "DAG is in another", "Put the file below the compiled DAG's folder, or write its text here.",
                )  # fmt: skip


def _renamed(model: DagModel) -> Iterator[Note]:
    """Note the ids that Airflow gets in another form, since they end as ids that FlowyML makes."""
    ids = {"dag_id": (model.dag_id, model.place)}
    ids |= {f"task_id {each.task_id}": (each.task_id, each.place) for each in model.tasks}
    for construct, (name, place) in ids.items():
        if ENDS_AS_OURS.search(name):
            yield Note(
                Kind.CHANGED, construct, place, "on Airflow the id gets another end, and the name is shown: it ends as "
                "an id that FlowyML makes of a name", "Give other DAGs, sensors and links the new id.",
            )  # fmt: skip


def _groups(dag: DecidedDag, apart: Mapping[str, str]) -> Iterator[Note]:
    parents = {each.group_id: each.parent for each in dag.model.groups}
    for group in dag.model.groups:
        about = f"task group {group.group_id}"
        defaults = next((each for each in group.arguments if each.name == "default_args"), None)
        kinds = [
            each.kind for each in dag.decisions if group.group_id in blocks.groups_around(each.task.group, parents)
        ]
        yield from lost_of(defaults, kinds, f" of {about}")
        if group.group_id not in apart:
            how = "for_each calls it for each item" if group.mapping else "it is a pipeline within the pipeline"
            yield Note(Kind.KEPT, about, group.place, how)
            continue
        how = "its tasks keep its name before theirs" if group.prefix_group_id else "its tasks are steps"
        yield Note(
            Kind.CHANGED, about, group.place, f"{how}, without the box: {apart[group.group_id]}",
            "Call a pipeline within the pipeline.",
        )  # fmt: skip


def _parameters(dag: DecidedDag, moved: Moved) -> Iterator[Note]:
    """Fill in the parameters that the pipeline can have, and note the others."""
    for name, param in dag.model.params:
        default = default_of(param)
        if context.may_be_argument(name) and name not in moved.taken and is_plain(default):
            dag.parameters[name] = default
            dag.declared[name] = declared(param)
            for what, why in dag.declared[name].unsaid:
                yield Note(Kind.CHANGED, f"{what} of parameter {name}", dag.model.place, why,
                           "Check it in a step, or in the parameter's annotation.")  # fmt: skip
            continue
        yield Note(Kind.CHANGED, f"parameter {name}", dag.model.place, "it has no plain default, or no name of a "
                   "Python argument that is free", "Add it to the pipeline's function under another name.")  # fmt: skip


def _rendered(decision: Decision, moving: Moving) -> Iterator[str]:
    """Yield the templates of an operator, and the code of its functions."""
    yield from (each for each in context.texts_of(list(decision.arguments.values())) if context.is_template(each))
    yield from (each.home.code(each.node) for each in (decision.function, *decision.others) if each)


def _picked(dag: DecidedDag) -> Mapping[str, Sequence[ValueEdge]]:
    """Return the single values of dicts that tasks returned, each at the first use in a pipeline."""
    by_id = {each.task.task_id: each for each in dag.decisions}
    found: dict[str, list[ValueEdge]] = {}
    _pick(dag, dag.order, set(), by_id, found)
    for edge in dict.fromkeys(edge for edges in found.values() for edge in edges):
        dag.notes.append(
            Note(Kind.CHANGED, f"value {edge.key} of {edge.task_id}", by_id[edge.task_id].task.place,
                 "a step takes it out of the dict", "Return several outputs by @step(outputs=[…]) instead.")
        )  # fmt: skip
    return found


def _pick(
    dag: DecidedDag, order: Iterable[Unit], there: set[tuple[str, str]], by_id: Mapping[str, Decision],
    found: dict[str, list[ValueEdge]],
) -> None:  # fmt: skip
    """Find them in a part of the pipeline; ``there`` are the values that are available before it."""
    for unit in order:
        if isinstance(unit, blocks.Chain):
            for inner in unit.blocks.values():
                _pick(dag, inner, there, by_id, found)
        elif isinstance(unit, Nested):
            _pick(dag, unit.order, {(name, "return_value") for name in unit.needs}, by_id, found)
            there |= {(name, "return_value") for name in unit.gives}
        else:
            for edge in by_id[unit.task_id].edges:
                if (edge.task_id, edge.key) not in there and (edge.task_id, "return_value") in there:
                    there.add((edge.task_id, edge.key))
                    found.setdefault(unit.task_id, []).append(edge)
            if unit.task_id in dag.taken:
                there.add((unit.task_id, "return_value"))
