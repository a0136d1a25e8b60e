"""Tasks that stay on Airflow: each gets a DAG of its own, which a step in the pipeline of the others runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from flowyml.migration.airflow.model import Argument, DagModel, Reference, TaskModel, values_in
from flowyml.migration.airflow.writer.deciding import context
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.commands import may_skip
from flowyml.migration.airflow.writer.deciding.decision import Decision, Hole, edges_in, named, rule_of
from flowyml.migration.airflow.writer.deciding.mapping import loop_of
from flowyml.migration.airflow.writer.deciding.options import CALLBACKS, default_arguments, inherited
from flowyml.migration.airflow.writer.deciding.step_options import step_options
from flowyml.migration.airflow.writer.deciding.tasks import decide
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.plan.model import RUN_IF
from flowyml.plan.names import MAX_NAME_LENGTH

Staying = Mapping[str, Collection[str]]
"""The ids of tasks that stay on Airflow, by the id of their DAG."""

_SAME_IN_EACH_RUN = frozenset({"var", "conn", "macros"})
# Files that operators render, by their suffixes. Source: template_ext of the operators of Airflow's providers.
_RENDERED = (".bash", ".hql", ".html", ".j2", ".json", ".py", ".sh", ".sql", ".txt", ".yaml", ".yml")
_BY_THE_RUN = frozenset({
    "ExternalTaskMarker", "ExternalTaskSensor", "LatestOnlyOperator", "TimeDeltaSensor", "TimeDeltaSensorAsync",
    "WaitSensor",
})  # fmt: skip
"""Operators that depend on the dates of their own run."""
_SKIPS = ("skip_on_exit_code", "skip_policy", "soft_fail")
# Arguments in which Airflow renders nothing, or only with the run that they are about.
_AS_IT_IS = frozenset({"doc", "doc_json", "doc_md", "doc_rst", "doc_yaml", "params", *CALLBACKS})
# A name with such an end gets another end in the id of its DAG. Source: flowyml_airflow.names.
ENDS_AS_OURS = re.compile(r"(^|[_-])[0-9a-f]{8}$|__dev$")


def set_apart(
    dag: DagModel, moving: Moving, names: Collection[str], taken: Collection[str]
) -> tuple[dict[str, Decision], list[DagModel]]:
    """Return the steps of a DAG's tasks that stay on Airflow, by task id, and the DAGs that the steps run.

    ``taken`` are the ids of all DAGs. A task that does not become an operator, or that a DAG of its own cannot run, is
    decided as if it were not in ``names``; a note says so.
    """
    steps: dict[str, Decision] = {}
    apart: list[DagModel] = []
    for task in dag.tasks:
        if task.task_id not in names:
            continue
        made = decide(dag, task, moving, {})
        if made.kind == "hole":
            continue  # the report says why
        if made.kind != "operator":
            made.notes.append(
                Note(Kind.CHANGED, f"staying of {task.task_id}", task.place,
                     "only operators of Airflow can; this task is a step that its pipeline takes along",
                     "Take it out of the list.")
            )  # fmt: skip
            steps[task.task_id] = made
            continue
        try:
            step, model = _apart(dag, task, made, moving, {*taken, dag.dag_id, *(each.dag_id for each in apart)})
        except (Hole, Unclear) as error:
            made.notes.append(
                Note(Kind.CHANGED, f"staying of {task.task_id}", task.place, f"{error}, so no step can run it there",
                     "Write it by hand: an operator in a separate pipeline, and external_dag(…) in its place.")
            )  # fmt: skip
            steps[task.task_id] = made
            continue
        steps[task.task_id] = step
        apart.append(model)
    return steps, apart


def _apart(
    dag: DagModel, task: TaskModel, made: Decision, moving: Moving, taken: Collection[str]
) -> tuple[Decision, DagModel]:
    """Return the step that runs a task's own DAG, and that DAG. Raises ``Unclear`` and ``Hole``."""
    _check(dag, task, made)
    own = task.argument("params")  # which files that it renders may name
    asking = context.Asking(dag, task, moving.names.union(own.value if own and isinstance(own.value, dict) else ()))
    conf: dict[str, Any] = {}
    arguments = tuple(
        replace(each, value=_by_conf(asking, each.value, each.name, conf))
        if context.is_template(each.value) and each.name not in _AS_IT_IS else each
        for each in task.arguments
    )  # fmt: skip
    dag_id = _dag_id(dag, task, taken)
    step = Decision(task, "call", arguments=conf, asking=asking, starts=dag_id)
    step.may_be_missing = any(step.whole) and task.trigger_rule != "all_success"
    step.options = {name: value for name, value in step_options(dag, task).items() if name == "run_if"}
    step.notes = [*_notes(task, dag_id), *context.notes_of_intervals(asking)]
    alone = replace(task, arguments=arguments, upstream=(), group=None, trigger_rule="all_success",
                    setup=False, teardown=False, edge_labels=())  # fmt: skip
    return step, _dag_of(dag, alone, dag_id, conf)


def _check(dag: DagModel, task: TaskModel, made: Decision) -> None:
    """Raise ``Unclear`` for an operator that would do something else in a DAG of its own."""
    if task.mapped or loop_of(dag, task):
        raise Unclear("it is mapped")
    if task.trigger_rule not in RUN_IF:
        raise Unclear(rule_of(task))
    if made.choice:
        raise Unclear("it chooses")
    if any(edges_in(list(made.arguments.values()))):
        raise Unclear("it takes the value of another task as an argument")
    if task.function or made.others or task.operator in _BY_THE_RUN:
        raise Unclear("it depends on its own DAG run on Airflow")
    if not all(map(_is_same_in_each_run, context.texts_of(list(default_arguments(dag, task).values())))):
        raise Unclear("a default argument has a template")
    for each in task.arguments:
        inner = [argument.value for found in _objects(each.value) for argument in found.arguments]
        if each.name not in CALLBACKS and not all(map(_is_same_in_each_run, context.texts_of(inner))):
            raise Unclear(f"an object in its {each.name} has a template")
    command = [inherited(dag, task, name) for name in ("bash_command", "env")]
    if any(inherited(dag, task, name) for name in _SKIPS) or (task.operator == "BashOperator" and may_skip(command)):
        raise Unclear("it may skip, which the run of a DAG does not say")


def _objects(value: Any) -> Iterator[Reference]:
    """Yield the calls of other libraries in a value, at any depth."""
    for part in values_in(value):
        if isinstance(part, Reference):
            yield part
            yield from _objects([each.value for each in part.arguments])


def _dag_id(dag: DagModel, task: TaskModel, taken: Collection[str]) -> str:
    """Return an id for a task's own DAG that is valid as a pipeline's name, and in Airflow unchanged."""
    wanted = re.sub(r"\W+", "_", f"{dag.dag_id}_{task.task_id}", flags=re.ASCII)
    found = _free(f"{wanted}_task" if ENDS_AS_OURS.search(wanted) else wanted, taken)
    if len(found) > MAX_NAME_LENGTH:
        raise Unclear(f"the id of its DAG would have {len(found)} characters")
    return found


def _dag_of(dag: DagModel, task: TaskModel, dag_id: str, conf: Mapping[str, Any]) -> DagModel:
    """Return a DAG of one task, which only its step runs. Its parameters are the step's arguments."""
    awake = Argument("is_paused_upon_creation", "False", task.place, False)
    return replace(
        dag, dag_id=dag_id, place=task.place, tasks=(task,), groups=(), params=tuple((each, "") for each in conf),
        schedule="None", schedule_known=True, schedule_omitted=False, schedule_argument=None, schedule_value=None,
        catchup=False, callbacks=(), arguments=(awake,), warnings=(), description=None, function=None,
        call_arguments=(), doc=f"The task {task.task_id} of {dag.dag_id}, which stays on Airflow.",
    )  # fmt: skip


def _notes(task: TaskModel, dag_id: str) -> Iterator[Note]:
    yield Note(
        Kind.KEPT, named(task), task.place, f"it stays on Airflow, in its own DAG, {dag_id}, which its step runs",
        "Deploy the pipeline of that name to Airflow first.",
    )  # fmt: skip
    for each in task.arguments:
        for text in context.texts_of(each.value):
            if not context.is_template(text) and text.endswith(_RENDERED) and " " not in text:
                yield Note(
                    Kind.CHANGED, f"{each.name} of {task.task_id}", each.place,
                    f"what Airflow renders in {text:.60} are the dates and parameters of the other DAG's own run",
                    "Take them from params there, and give them in the step's conf.",
                )  # fmt: skip


def _by_conf(asking: context.Asking, value: Any, name: str, conf: dict[str, Any]) -> Any:
    """Replace the templates in a value by values that the step computes, which go into ``conf``. Raises ``Unclear``."""
    if isinstance(value, list | tuple):
        return type(value)(_by_conf(asking, each, name, conf) for each in value)
    if isinstance(value, dict):
        inner = {key: key if isinstance(key, str) and context.may_be_argument(key) else name for key in value}
        return {key: _by_conf(asking, each, inner[key], conf) for key, each in value.items()}
    if not context.is_template(value):
        return value
    if not isinstance(value, str):
        raise Unclear(f"only Airflow knows what is in its {name}")
    try:
        made = asking.rendered(value)
    except Unclear:
        if _is_same_in_each_run(value):
            return value
        raise
    wanted = name if context.may_use(name, asking.taken) else f"{name}_value"
    free = _free(wanted if context.may_be_argument(wanted) else "value", {*conf, *asking.taken})
    conf[free] = made
    return f"{{{{ params.{free} }}}}"


def _is_same_in_each_run(text: str) -> bool:
    """Return whether a template uses only Variables, Connections and macros."""
    found = list(context.pieces(text))
    if any(mark in piece for piece in found[::2] for mark in ("{%", "{#", "{{")):
        return False
    names: set[str] = set()
    for piece in found[1::2]:
        tree = None
        with suppress(SyntaxError, ValueError, MemoryError, RecursionError):
            tree = ast.parse(piece.strip(), mode="eval")
        if tree is None:
            return False
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names <= _SAME_IN_EACH_RUN


def _free(name: str, taken: Collection[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
