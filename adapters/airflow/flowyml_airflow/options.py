"""What a pipeline and its steps may ask of Airflow: ``Pipeline(…, airflow={…})`` and ``@step(airflow={…})``.

They are Airflow's own arguments of a DAG and of an operator, and few more. What a pipeline says of ``owner``, ``pool``,
``queue`` and the like holds for those of its steps that say nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowyml.core.errors import UnknownOptionError
from flowyml.plan.model import Plan, Step

__all__ = ["DAG_ARGUMENTS", "TASK_ARGUMENTS", "pipeline_options", "step_options"]

Check = tuple[str, Callable[[Any], bool]]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_TEXT: Check = ("text", _is_text)
_COUNT: Check = ("a whole number from 1", _is_count)
_NUMBER: Check = ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
_FLAG: Check = ("True or False", lambda value: isinstance(value, bool))
_TEXTS: Check = ("a list of texts", lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)))
_LINKS: Check = (
    "a dict of texts",
    lambda value: isinstance(value, Mapping) and all(_is_text(part) for item in value.items() for part in item),
)
_WEIGHT_RULES = ("downstream", "upstream", "absolute")

# Arguments of an operator: of a step, or as `default_args` of all steps.
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
    **TASK_ARGUMENTS,
    **_DOCS,
    "description": _TEXT,
    "tags": _TEXTS,
    "python": _TEXT,
    "artifacts": _TEXT,
}
_STEP: Mapping[str, Check] = {**TASK_ARGUMENTS, **_DOCS}


def pipeline_options(plan: Plan) -> Mapping[str, Any]:
    """The options of the pipeline, checked. Raises ``UnknownOptionError``.

    Beside Airflow's own: ``python`` is the interpreter that runs the steps, on the workers; ``artifacts`` is the folder
    or URL that large outputs go to.
    """
    return _checked(plan.options.get("airflow", {}), f"pipeline {plan.name!r}", _PIPELINE)


def step_options(step: Step) -> Mapping[str, Any]:
    """The options of a step, checked. Raises ``UnknownOptionError``."""
    return _checked(step.options.get("airflow", {}), f"step {step.name!r}", _STEP)


def _checked(given: Mapping[str, Any], who: str, known: Mapping[str, Check]) -> Mapping[str, Any]:
    if unknown := sorted(given.keys() - known.keys()):
        hint = " (an option of the whole pipeline)" if unknown[0] in _PIPELINE else ""
        raise UnknownOptionError(
            f"{who}: airflow has no option {', '.join(map(repr, unknown))}{hint}. Known: {', '.join(sorted(known))}."
        )
    for name, value in given.items():
        expected, fits = known[name]
        if not fits(value):
            raise UnknownOptionError(f"{who}: airflow {name}={value!r:.80} is not {expected}.")
    return given
