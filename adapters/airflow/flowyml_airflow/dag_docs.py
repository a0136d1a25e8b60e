"""What Airflow's UI shows about a compiled DAG and its tasks: text, graph, parameters and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flowyml.plan.model import Parameter, Plan, Step
from flowyml_airflow.dag_parts import NOTE
from flowyml_airflow.names import task_id, xcom_key

__all__ = ["dag_docs", "docstring", "step_docs"]

_MOST_LISTED = 50  # steps, say: a longer list helps no reader


def dag_docs(plan: Plan, options: Mapping[str, Any], version: str) -> str:
    """The docs of the DAG, in Markdown."""
    about = options.get("doc_md") or plan.description
    outputs = [
        f"{out.name}: XCom {xcom_key(out.source.output)} of task {task_id(out.source.step)}" for out in plan.outputs
    ]
    parts = [
        f"Pipeline {plan.name!r} as an Airflow DAG, version {version}.",
        about.strip(),
        _listed("Parameters", [_parameter(parameter) for parameter in plan.parameters]),
        _listed("Steps", [_step(step) for step in plan]),
        _listed("Outputs", outputs),
        NOTE,
    ]
    return "\n\n".join(part for part in parts if part)


def step_docs(step: Step, options: Mapping[str, Any]) -> str:
    """The docs of a task. Airflow's tasks have no tags, so they stand here."""
    tags = f"Tags: {', '.join(step.tags)}" if step.tags else ""
    return "\n\n".join(part for part in (options.get("doc_md") or step.description, tags) if part)


def _listed(title: str, items: list[str]) -> str:
    more = [f"… and {len(items) - _MOST_LISTED} more"] if len(items) > _MOST_LISTED else []
    lines = [f"- {item}" for item in (*items[:_MOST_LISTED], *more)]
    return "\n".join([f"{title}:", "", *lines]) if items else ""


def _parameter(parameter: Parameter) -> str:
    kinds = [str(part["type"]) for part in parameter.schema.get("anyOf", (parameter.schema,)) if "type" in part]
    default = "required" if parameter.required else f"default {json.dumps(parameter.default, ensure_ascii=False)}"
    return f"{parameter.name}: {', '.join([*([' or '.join(kinds)] if kinds else []), default])}"


def _step(step: Step) -> str:
    return f"{step.name}, after {', '.join(step.upstream)}" if step.upstream else step.name


def docstring(text: str) -> str:
    """A docstring that nothing in it can end."""
    lines = [line.rstrip() for line in text.expandtabs().splitlines()]
    body = "\n".join(lines).strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{"".join(map(_printable, body))}\n"""\n'


def _printable(character: str) -> str:
    return character if character == "\n" or character.isprintable() else repr(character)[1:-1]
