"""The Airflow options of a pipeline and its steps: ``Pipeline(…, airflow={…})`` and ``@step(airflow={…})``.

They are Airflow's own arguments of a DAG and of an operator, and a few more. The pipeline's ``owner``, ``pool``,
``queue`` and the like are the defaults of its steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowyml.orchestrators.base import about_step
from flowyml.orchestrators.options import Check, check_options
from flowyml.plan.model import Plan, Step

__all__ = [
    "DAG_ARGUMENTS", "DAG_CALLBACKS", "STEP_ARGUMENTS", "TASK_ARGUMENTS", "TASK_CALLBACKS", "callbacks",
    "pipeline_options", "step_options",
]  # fmt: skip

_THIRTY_TWO_BITS = range(-(2**31), 2**31)  # the columns of Airflow's database for them


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in _THIRTY_TWO_BITS


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 1


_TEXT: Check = ("text", _is_text)
_COUNT: Check = ("a whole number from 1 to 2147483647", _is_count)
_NUMBER: Check = ("a 32-bit integer", _is_number)
_FLAG: Check = ("True or False", lambda value: isinstance(value, bool))
_TEXTS: Check = ("a list of strings", lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)))
_LINKS: Check = (
    "a dict of strings",
    lambda value: isinstance(value, Mapping) and all(_is_text(part) for item in value.items() for part in item),
)
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _is_callback(value: object) -> bool:
    if isinstance(value, Mapping):
        return len(value) == 1 and all(_is_place(name) and isinstance(part, Mapping) for name, part in value.items())
    return _is_place(value)


def _is_place(value: object) -> bool:
    return isinstance(value, str) and _PLACE.fullmatch(value) is not None


_CALLBACKS: Check = (
    "'module.function', {'module.Notifier': {arguments}}, or a list of these",
    lambda value: all(map(_is_callback, value if isinstance(value, list | tuple) else [value])),
)


def _is_asset(value: object) -> bool:
    if not isinstance(value, Mapping):
        return _is_text(value)
    match dict(value):
        case {"all": parts, **rest} | {"any": parts, **rest}:
            return not rest and isinstance(parts, list | tuple) and len(parts) > 0 and all(map(_is_asset, parts))
        case {"alias": name, **rest}:
            return not rest and _is_text(name)
    return value.keys() <= {"name", "uri"} and len(value) > 0 and all(map(_is_text, value.values()))


def _is_schedule(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(_is_asset, value))
    return value in _PRESETS if isinstance(value, str) else isinstance(value, Mapping) and _is_asset(value)


_SCHEDULE: Check = (
    (
        "'@once', '@continuous', a list of assets, {'all': […]} or {'any': […]}; an asset is its name or URI, "
        "{'name': …, 'uri': …} or {'alias': …}"
    ),
    _is_schedule,
)
# The trigger rules of Airflow 2.11 and 3; source: airflow.utils.trigger_rule.
_TRIGGER_RULES = (
    "all_success", "all_failed", "all_done", "all_skipped", "one_success", "one_failed", "one_done", "none_failed",
    "none_failed_min_one_success", "none_skipped", "always",
)  # fmt: skip
_PRESETS = ("@once", "@continuous")
_WEIGHT_RULES = ("downstream", "upstream", "absolute")

# Arguments of an operator: for a step, or as `default_args` for all steps.
TASK_ARGUMENTS: Mapping[str, Check] = {
    "owner": _TEXT,
    "pool": _TEXT,
    "pool_slots": _COUNT,
    "queue": _TEXT,
    "priority_weight": _NUMBER,
    "weight_rule": (f"one of {', '.join(_WEIGHT_RULES)}", lambda value: value in _WEIGHT_RULES),
    "executor": _TEXT,
    "depends_on_past": _FLAG,
    "max_active_tis_per_dag": _COUNT,
    "run_as_user": _TEXT,
}
# Arguments of a step's operator only.
STEP_ARGUMENTS: Mapping[str, Check] = {
    "trigger_rule": (f"one of {', '.join(_TRIGGER_RULES)}", lambda value: value in _TRIGGER_RULES),
}
TASK_CALLBACKS: Mapping[str, Check] = dict.fromkeys(
    ("on_failure_callback", "on_success_callback", "on_retry_callback", "on_execute_callback", "on_skipped_callback"),
    _CALLBACKS,
)
# Callbacks of the DAG: Airflow calls them when a run has ended.
DAG_CALLBACKS: Mapping[str, Check] = dict.fromkeys(("on_success_callback", "on_failure_callback"), _CALLBACKS)
# Arguments of a DAG.
DAG_ARGUMENTS: Mapping[str, Check] = {
    "max_active_runs": _COUNT,
    "max_active_tasks": _COUNT,
    "max_consecutive_failed_dag_runs": _COUNT,
    "is_paused_upon_creation": _FLAG,
    "owner_links": _LINKS,
}
_DOCS: Mapping[str, Check] = {"doc_md": _TEXT}
_PIPELINE: Mapping[str, Check] = {
    **DAG_ARGUMENTS,
    **DAG_CALLBACKS,
    **TASK_ARGUMENTS,
    **_DOCS,
    "description": _TEXT,
    "schedule": _SCHEDULE,
    "tags": _TEXTS,
    "python": _TEXT,
    "artifacts": _TEXT,
    "artifact_links": _TEXT,
}
# Options that `airflow_operator` and `external_dag` write.
_OPERATOR: Mapping[str, Check] = {
    "operator": ("the import path of an operator", _is_place),
    "arguments": ("a dict", lambda value: isinstance(value, Mapping)),
    "external_dag": (
        "a dict with trigger_dag_id, conf and poke_interval",
        lambda value: isinstance(value, Mapping) and value.keys() == {"trigger_dag_id", "conf", "poke_interval"},
    ),
}
_STEP: Mapping[str, Check] = {**TASK_ARGUMENTS, **STEP_ARGUMENTS, **TASK_CALLBACKS, **_DOCS, **_OPERATOR}
_OF_PIPELINES = dict.fromkeys(_PIPELINE, " (an option of the whole pipeline)")
_OF_STEPS = dict.fromkeys(_STEP, " (an option of steps)")


def pipeline_options(plan: Plan) -> Mapping[str, Any]:
    """Return the checked options of the pipeline. Raises ``UnknownOptionError``.

    Beside Airflow's own: ``python`` is the interpreter that runs the steps on the workers; ``artifacts`` is the folder
    or URL of large outputs, ``artifact_links`` their address for a browser. ``schedule`` is a schedule of Airflow's own
    kinds, for a pipeline without a FlowyML schedule.
    """
    options: Mapping[str, Any] = plan.options.get("airflow", {})
    check_options("airflow", f"pipeline {plan.name!r}", options, _PIPELINE, _OF_STEPS)
    return options


def step_options(step: Step) -> Mapping[str, Any]:
    """Return the checked options of a step. Raises ``UnknownOptionError``."""
    options: Mapping[str, Any] = step.options.get("airflow", {})
    with about_step(step.name):
        check_options("airflow", f"step {step.name!r}", options, _STEP, _OF_PIPELINES)
    return options


def callbacks(option: Any) -> list[tuple[str, Mapping[str, Any] | None]]:
    """Return the import paths of callbacks, each with its arguments if it is a notifier.

    >>> callbacks("alerts.page"), callbacks([{"slack.Notifier": {"text": "late"}}]), callbacks(None)
    ([('alerts.page', None)], [('slack.Notifier', {'text': 'late'})], [])
    """
    listed = option if isinstance(option, list | tuple) else [] if option is None else [option]
    return [next(iter(item.items())) if isinstance(item, Mapping) else (item, None) for item in listed]
