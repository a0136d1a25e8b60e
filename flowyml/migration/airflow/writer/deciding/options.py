"""Arguments of DAGs and their ``default_args``: as options, as arguments of operators, or as notes."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from flowyml.migration.airflow.model import Argument, DagModel, FunctionModel, Reference, Symbolic, TaskModel, values_in
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import is_plain, path_of

CALLBACKS = (
    "on_failure_callback", "on_success_callback", "on_retry_callback", "on_execute_callback", "on_skipped_callback",
)  # fmt: skip
_OF_DAG = ("on_success_callback", "on_failure_callback")
_OPTIONS = ("max_active_runs", "max_active_tasks", "max_consecutive_failed_dag_runs", "is_paused_upon_creation",
            "owner_links")  # fmt: skip
_DEFAULTS = ("owner", "pool", "queue", "priority_weight", "weight_rule", "depends_on_past")
# Arguments that the model has in words of its own, or that steps have.
_SAID = frozenset({
    "dag_id", "description", "schedule", "schedule_interval", "timetable", "start_date", "end_date", "catchup", "tags",
    "params", "default_args", "doc_md", "dagrun_timeout", "dag", *_OPTIONS, *CALLBACKS, "sla_miss_callback", "deadline",
})  # fmt: skip
_OF_STEPS = frozenset({
    "start_date", "retries", "retry_delay", "execution_timeout", "trigger_rule", "dag", "params",
    "retry_exponential_backoff", "max_retry_delay", *_DEFAULTS,
})  # fmt: skip
BY_DEFAULT = "only Airflow knows it when it reads the file; this is the file's own default"
TAKEN = ("retries", "retry_delay", "execution_timeout", "trigger_rule")
"""Arguments of tasks that are read with the file's default for a value that only Airflow knows."""
_TAKEN_OF_DAG = ("schedule", "schedule_interval", "timetable", "start_date", "catchup", "tags", "description", "doc_md")
# Airflow's behaviour unless an argument is False; email needs an address.
_ON = ("do_xcom_push", "ignore_first_depends_on_past", "allow_nested_operators", "show_return_value_in_logs")
OF_BASH = ("env", "cwd", "append_env")
"""Arguments of Bash, also from the DAG's default arguments."""
OF_PYTHON = ("op_args", "op_kwargs", "templates_dict")
"""Arguments of a function, likewise."""
# Arguments that change the display of a DAG in Airflow, and no run.
_LOOKS = frozenset({"default_view", "orientation"})


def pipeline_options(dag: DagModel, kinds: Collection[str]) -> tuple[Mapping[str, Any], list[Note]]:
    """Return ``timeout`` in seconds, ``tags`` and ``airflow`` of a pipeline, and notes on arguments without an option.

    ``kinds`` are those of the DAG's steps.
    """
    options: dict[str, Any] = {}
    by_name = {each.name: each for each in dag.arguments}
    limit = by_name.get("dagrun_timeout")
    notes: list[Note] = []
    if limit is not None and isinstance(limit.value, timedelta) and limit.value > timedelta():
        options["timeout"] = limit.value.total_seconds()
        notes.append(Note(Kind.KEPT, "dagrun_timeout", limit.place, "it is the pipeline's timeout; Kubeflow has none"))
    elif limit is not None and limit.value is not None:
        notes.append(_left_out("dagrun_timeout", limit, "only Airflow knows it", "Set timeout= on the pipeline."))
    if dag.tags:
        options["tags"] = list(dict.fromkeys(dag.tags))
    engine: dict[str, Any] = {"description": dag.description} if dag.description else {}
    wanted = [each for each in dag.arguments if each.name in _OPTIONS and each.value is not None]
    to_do = "Set it in airflow={…} of the pipeline."
    notes += [
        _left_out(f"{each.name} of the DAG", each, unfit(each.value), to_do)
        for each in wanted
        if not is_plain(each.value)
    ]
    wanted += [each for each in dag.default_args if each.name in _DEFAULTS and fits(each.name, each.value)]
    engine |= {each.name: each.value for each in wanted if is_plain(each.value)}
    engine |= {
        each.name: found for each in dag.callbacks if each.name in _OF_DAG and (found := callback_of(each.value))
    }
    notes += [*_callbacks(dag, engine), *_other_arguments(dag)]
    notes += [*lost_defaults(dag.default_args, kinds, _DEFAULTS), *_file_defaults(dag)]
    if engine:
        options["airflow"] = engine
    return options, notes


def _callbacks(dag: DagModel, kept: Mapping[str, Any]) -> Iterator[Note]:
    for each in dag.callbacks:
        if each.name in kept or each.value is None:
            continue
        if each.name not in _OF_DAG:
            yield _left_out(f"{each.name} of the DAG", each, "a pipeline has no such option",
                            "Set timeout= on the pipeline or its steps, or monitor it where it runs.")  # fmt: skip
        else:
            to_do = "Make a hook of it, or name it: airflow={'on_failure_callback': 'module.name'}."
            yield _left_out(f"{each.name} of the DAG", each, "a callback is a function of Airflow's", to_do)


def _other_arguments(dag: DagModel) -> Iterator[Note]:
    for each in dag.arguments:
        if each.name in _SAID or each.name in _LOOKS or each.name.isdigit() or each.value in (None, [], {}, False):
            continue
        yield _left_out(f"{each.name} of the DAG", each, "a pipeline has no such option",
                        "Set it up where the pipeline runs, or leave it out.")  # fmt: skip


def lost_defaults(
    defaults: Iterable[Argument], kinds: Collection[str], options: Collection[str], about: str = ""
) -> Iterator[Note]:
    """Yield notes on default arguments that no step has.

    ``kinds`` are those of the steps for the tasks that get the arguments, ``options`` the names of options of the
    pipeline or, if ``about`` names a step, of a step.
    """
    only_operators = all(kind == "operator" for kind in kinds)
    of_steps = _OF_STEPS - {"start_date", "params"} if about else _OF_STEPS
    for each in defaults:
        kept = fits(each.name, each.value) if each.name in options else each.name in of_steps
        if kept or each.name == "provide_context" or each.value in (None, ""):
            continue
        if each.value is False and each.name not in _ON:
            continue
        if each.name in CALLBACKS and callback_of(each.value) is not None:
            continue
        if each.name in (*OF_BASH, *OF_PYTHON) and _is_sure(each.value):
            continue  # each task that has it takes it
        is_option = each.name in (*options, *CALLBACKS)
        if only_operators and _is_sure(each.value) and not is_option:
            continue
        why = unfit(each.value) if is_option else "a step has no such option"
        to_do = "Keep the tasks that need it with airflow_operator(…), or leave it out."
        if each.name in CALLBACKS:
            to_do = f"Move it into a module, and name it: airflow={{'{each.name}': 'module.name'}}."
        elif is_option:
            to_do = "Set it in airflow={…} of the steps that need it, or leave it out."
        yield _left_out(f"default argument {each.name}{about}", each,
                        f"{why}; operators keep it" if _is_sure(each.value) else why, to_do)  # fmt: skip


def _file_defaults(dag: DagModel) -> Iterator[Note]:
    """Yield notes on values that the file has as defaults for a Variable or the environment."""
    named_arguments = [(f"{each.name} of the DAG", each) for each in dag.arguments if each.name in _TAKEN_OF_DAG]
    named_arguments += [(f"default argument {each.name}", each) for each in dag.default_args if each.name in TAKEN]
    for construct, each in named_arguments:
        if is_by_default(each.value):
            yield _left_out(construct, each, BY_DEFAULT, "Set it in the pipeline.")


def is_by_default(value: Any) -> bool:
    """Return whether a value contains the file's default for a value that Airflow knows when it reads the file."""
    return any(
        part.has_default if isinstance(part, Symbolic)
        else isinstance(part, Reference) and any(is_by_default(each.value) for each in part.arguments)
        for part in values_in(value)
    )  # fmt: skip


def _left_out(construct: str, argument: Argument, reason: str, to_do: str) -> Note:
    return Note(Kind.CHANGED, construct, argument.place, reason, to_do)


def fits(name: str, value: Any) -> bool:
    """Return whether an option of a step or of all steps can have a value. Source: flowyml_airflow.options."""
    match name:
        case "weight_rule":
            return value in ("downstream", "upstream", "absolute")
        case "depends_on_past":
            return isinstance(value, bool)
        case "priority_weight":
            return isinstance(value, int) and not isinstance(value, bool)
        case "pool_slots" | "max_active_tis_per_dag":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return isinstance(value, str) and value != ""


def unfit(value: Any) -> str:
    """Say why an existing option cannot have a value."""
    if isinstance(value, FunctionModel):
        return "its function is in the DAG file, from which Airflow cannot import it"
    known = "a step cannot have this value of it"
    return known if _is_sure(value) else "only Airflow knows it when it reads the file"


def inherited(dag: DagModel, task: TaskModel, name: str) -> Any:
    """Return an argument of a task: its own, or the default."""
    argument = task.argument(name) or defaults_of(dag, task).get(name)
    return None if argument is None else argument.value


def defaults_of(dag: DagModel, task: TaskModel) -> Mapping[str, Argument]:
    """Return the default arguments of a task: its own, then those of its groups, then the DAG's."""
    return {each.name: each for each in (*dag.default_args, *task.defaults)}


def default_arguments(dag: DagModel, task: TaskModel) -> Mapping[str, Any]:
    """Return the default arguments for an operator, if it has arguments of these names."""
    by_pipeline = _OF_STEPS - {"retry_exponential_backoff", "max_retry_delay"}
    arguments = [each for each in dag.default_args if each.name not in by_pipeline]
    arguments += [each for each in task.defaults if each.name not in TAKEN]
    found = {each.name: each.value for each in arguments if task.argument(each.name) is None}
    return {name: value for name, value in found.items() if _is_sure(value)}


def constant_defaults(dag: DagModel, task: TaskModel, moving: Moving) -> Argument | None:
    """Return the DAG's ``default_args`` if they are a constant of its file, which an operator can take as it is."""
    argument = next((each for each in dag.arguments if each.name == "default_args"), None)
    if argument is None or task.defaults or not isinstance(argument.value, dict) or not argument.source.isidentifier():
        return None
    return argument if repr(moving.constants.known(ast.Name(argument.source))) == repr(argument.value) else None


def _is_sure(value: Any) -> bool:
    """Return whether a value can certainly be written."""
    return is_plain(value) or isinstance(value, timedelta | datetime) or callback_of(value) is not None


def callback_of(value: Any) -> Any:
    """Return a callback in the form of ``airflow={…}``, if Airflow can import it; None for any other.

    Source of the forms: flowyml_airflow.options.
    """
    match value:
        case FunctionModel(module=module) if module not in ("", "__main__") and not value.nested:
            return value.import_path if not value.is_task and path_of(value.import_path) else None
        case Reference(call=False):
            return value.import_path if path_of(value.import_path) else None
        case Reference():
            arguments = {each.name: each.value for each in value.arguments}
            if path_of(value.import_path) is None or any(map(str.isdigit, arguments)) or not is_plain(arguments):
                return None
            return {value.import_path: arguments}
        case list() | tuple():
            found = [callback_of(each) for each in value]
            return found if found and None not in found else None
    return None
