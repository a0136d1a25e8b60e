"""Options of steps: a task's arguments beside its function, and notes on those that no step has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

from flowyml.migration.airflow.model import Argument, DagModel, TaskModel
from flowyml.migration.airflow.writer.deciding import options
from flowyml.migration.airflow.writer.deciding.decision import Decision
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.plan.model import RUN_IF

ALL_SKIPPED = "ignore_downstream_trigger_rules"
# In seconds; Airflow's longest wait. Source: airflow.models.taskinstance.
_LONGEST = 24 * 60 * 60
# Arguments that FlowyML has in its own words, or not at all.
OURS = frozenset({"task_id", "trigger_rule", "python_callable", "op_args", "op_kwargs", "multiple_outputs",
                   "retries", "retry_delay", "execution_timeout", "retry_exponential_backoff",
                   "max_retry_delay", "provide_context",
                   "doc_md", "doc", "on_failure_fail_dagrun", "task_display_name"})  # fmt: skip
_LOOKS = ("doc_md", "doc", "task_display_name", "map_index_template")
# Those of them that an unchanged operator still takes.
OF_OPERATORS = frozenset({"retries", "retry_delay", "execution_timeout", "retry_exponential_backoff", "max_retry_delay",
                           "show_return_value_in_logs", "doc_md", "doc"})  # fmt: skip
# Options of a step under `airflow={…}`; source: flowyml_airflow.options.
OPTIONS = ("owner", "pool", "pool_slots", "queue", "priority_weight", "weight_rule", "executor", "depends_on_past",
            "max_active_tis_per_dag", "run_as_user")  # fmt: skip


def step_options(dag: DagModel, task: TaskModel) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(task.retries, int) and task.retries > 0:
        found["retries"] = task.retries
        found["retry_delay"] = task.retry_delay if is_time(task.retry_delay) else 300.0
        if (growth := options.inherited(dag, task, "retry_exponential_backoff")) and _may_grow_by(growth):
            limit = options.inherited(dag, task, "max_retry_delay")
            limit = limit.total_seconds() if isinstance(limit, timedelta) else limit
            found["backoff"] = 2.0 if growth is True else float(growth)
            is_known = isinstance(limit, int | float) and 0 <= limit <= timedelta.max.total_seconds()
            found["max_delay"] = float(limit) if is_known else float(_LONGEST)
    if is_time(task.execution_timeout) and task.execution_timeout > 0:
        found["timeout"] = task.execution_timeout
    if task.trigger_rule in RUN_IF and task.trigger_rule != "all_success":
        found["run_if"] = task.trigger_rule
    elif task.teardown:
        found["run_if"] = "all_done"
    elif isinstance(task.trigger_rule, str) and task.trigger_rule != "all_success":
        found["trigger_rule"] = task.trigger_rule
    arguments = {each.name: each.value for each in (*task.defaults, *task.arguments)}
    engine = {name: value for name, value in arguments.items() if name in OPTIONS and options.fits(name, value)}
    for name in options.CALLBACKS:
        if (callback := options.callback_of(options.inherited(dag, task, name))) is not None:
            engine[name] = callback
    if engine:
        found["airflow"] = engine
    return found


def is_time(seconds: Any) -> bool:
    """Return whether a number of seconds is a time that a step can wait."""
    return isinstance(seconds, float) and 0 <= seconds <= timedelta.max.total_seconds()


def _may_grow_by(growth: Any) -> bool:
    return isinstance(growth, int | float) and 1 <= growth <= _LONGEST


def left_out(dag: DagModel, task: TaskModel, made: Decision) -> Iterator[Note]:
    """Yield notes on parts of a task that are not in its step."""
    if task.setup or task.teardown:
        word = "teardown" if task.teardown else "setup"
        yield Note(
            Kind.CHANGED, f"{word} of {task.task_id}", task.place, "it runs by the ends of the tasks before it",
            "with cleanup(): runs a step when all others have ended.",
        )  # fmt: skip
    yield from _unknown_options(task, made)
    yield from _looks(task, made)
    if made.kind in ("operator", "hole"):
        return
    unknown = "only Airflow knows it when it reads the file"
    growth = options.inherited(dag, task, "retry_exponential_backoff")
    if growth and not _may_grow_by(growth):
        is_known = isinstance(growth, int | float)
        yield Note(
            Kind.CHANGED, f"retry_exponential_backoff of {task.task_id}", task.place,
            "a retry policy cannot grow by this factor" if is_known else unknown, "Set retry= on the step.",
        )  # fmt: skip
    limit = options.inherited(dag, task, "max_retry_delay")
    if growth and limit is not None and not isinstance(limit, int | float | timedelta):
        yield Note(Kind.CHANGED, f"max_retry_delay of {task.task_id}", task.place, unknown, "Set retry= on the step.")
    if made.kind == "empty" and "airflow" in made.options:
        yield Note(
            Kind.CHANGED, f"{', '.join(made.options['airflow'])} of {task.task_id}", task.place,
            "a step that does nothing has no options", "Leave it out.",
        )  # fmt: skip
    yield from lost_of(task.argument("default_args"), [made.kind], f" of {task.task_id}")
    for each in others(task):
        why = options.unfit(each.value) if each.name in (*OPTIONS, *options.CALLBACKS) else "a step has no such option"
        yield Note(
            Kind.CHANGED, f"{each.name} of {task.task_id}", each.place, why,
            "Leave it out, or keep the operator with airflow_operator(…).",
        )  # fmt: skip


def lost_of(argument: Argument | None, kinds: Collection[str], about: str) -> Iterator[Note]:
    """Yield notes on ``default_args`` of a group or task that no step has; ``kinds`` are those of its steps."""
    if argument is None or argument.value is None:
        return
    if not isinstance(argument.value, dict):
        yield Note(
            Kind.CHANGED, f"default_args{about}", argument.place, "only Airflow knows them when it reads the file",
            "Set them on the tasks in the DAG file, or on their steps.",
        )  # fmt: skip
        return
    each = [Argument(str(name), "", argument.place, value) for name, value in argument.value.items()]
    yield from options.lost_defaults(each, kinds, OPTIONS, about)


def _unknown_options(task: TaskModel, made: Decision) -> Iterator[Note]:
    """Yield notes on numbers, times and rules that are unknown, or only the file's default."""
    to_do = "Set it in the pipeline."
    for name in options.TAKEN:
        value = getattr(task, name)
        of_groups = (each for each in task.defaults if each.name == name)  # and of its own ``default_args``
        own = task.argument(name) or next(of_groups, None)
        construct = f"{name} of {task.task_id}"
        if own is not None and made.kind == "operator" and made.arguments.get(name) is own.value:
            continue  # it is in the operator
        if own is not None and options.is_by_default(own.value):
            yield Note(Kind.CHANGED, construct, own.place, options.BY_DEFAULT, to_do)
        if name == "trigger_rule" or value is None:
            continue
        if not isinstance(value, int | float):
            unknown = "only Airflow knows it when it reads the file"
            yield Note(Kind.CHANGED, construct, task.place, unknown, to_do)
        elif name != "retries" and not is_time(value):
            yield Note(Kind.CHANGED, construct, task.place, "it is not 0 seconds or more", to_do)


def _looks(task: TaskModel, made: Decision) -> Iterator[Note]:
    """Yield notes on arguments for the display of a task in Airflow, most of which an operator keeps."""
    for each in task.arguments:
        if made.kind != "hole" and each.name in _LOOKS and each.value and each.name not in made.arguments:
            yield Note(Kind.CHANGED, f"{each.name} of {task.task_id}", each.place, "it changes what Airflow shows of a "
                       "task, and no run", "Put it into the docstring of the step, or leave it out.")  # fmt: skip


def is_called_back(task: TaskModel) -> bool:
    """Return whether Airflow calls a callback when the task ends, apart from those in the DAG's defaults."""
    return any(each.name in options.CALLBACKS and each.value for each in (*task.defaults, *task.arguments))


def others(task: TaskModel) -> Sequence[Argument]:
    """Return arguments of an operator that steps do not have."""
    known = {*OURS, *_LOOKS, "default_args", "bash_command", "env", "cwd", "append_env", ALL_SKIPPED}
    found = [each for each in task.arguments if each.name not in known and not each.name.isdigit()]
    found = [
        each
        for each in found
        if each.name not in OPTIONS or not (each.value is None or options.fits(each.name, each.value))
    ]
    return [each for each in found if options.callback_of(each.value) is None or each.name not in options.CALLBACKS]


def held_by(task: TaskModel) -> list[str]:
    return [each.name for each in task.arguments if each.value and _holds(each)]


def _holds(argument: Argument) -> bool:
    """Return whether an argument requires Airflow to run the task."""
    if argument.name.endswith("_callback"):
        return argument.name not in options.CALLBACKS or options.callback_of(argument.value) is None
    return argument.name in ("inlets", "outlets")
