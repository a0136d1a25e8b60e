"""The docs of a compiled DAG and its tasks in Airflow's UI: text, graph, parameters and outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flowyml.core.markdown import code, table
from flowyml.plan.groups import outputs_in
from flowyml.plan.model import Constant, FromEither, FromItem, FromParameter, FromStep, Parameter, Plan, Source, Step
from flowyml.plan.parameters import in_words
from flowyml_airflow.dag_file.parts import NOTE, TOGETHER_NOTE
from flowyml_airflow.graph import TaskGraph

__all__ = ["dag_docs", "graph_docs", "step_docs", "together_docs"]

T = TypeVar("T")
_MOST_LISTED = 50  # steps, for example: a longer list is not readable
_LONGEST = 80  # characters of a name or a default in a table


def dag_docs(graph: TaskGraph, options: Mapping[str, Any], structure: str, drawing: str) -> str:
    """Return the docs of the DAG, in Markdown. ``drawing`` is from ``graph_docs``.

    ``Deployed.shows`` reads the first line back.
    """
    plan = graph.plan
    about = options.get("doc_md") or plan.description
    parts = [
        f"Pipeline {plan.name!r} as an Airflow DAG, structure {structure}.",
        about.strip(),
        drawing,
        _table(("Parameter", "Type", "Default"), plan.parameters, _parameter),
        _table(("Step", "Takes", "Gives"), plan.steps, _step),
        _table(("Output", "XCom", "Task"), plan.outputs, lambda item: _output(graph, item.name, item.source)),
        NOTE + TOGETHER_NOTE if plan.structure.execution_groups else NOTE,
    ]
    return "\n\n".join(part for part in parts if part)


def step_docs(step: Step, options: Mapping[str, Any]) -> str:
    """Return the docs of a task. They include the step's tags, since Airflow's tasks have none."""
    tags = f"Tags: {', '.join(step.tags)}" if step.tags else ""
    return "\n\n".join(part for part in (options.get("doc_md") or step.description, tags) if part)


def together_docs(steps: Sequence[Step], options: Mapping[str, Any]) -> str:
    """Return the docs of an execution group's task: a line for each step."""
    lines = [
        f"- {code(step.name)}{': ' if step.description else ''}{step.description.partition(chr(10))[0]}"
        for step in steps
    ]
    tags = dict.fromkeys(tag for step in steps for tag in step.tags)
    said = [options.get("doc_md"), "\n".join(lines), f"Tags: {', '.join(tags)}" if tags else ""]
    return "\n\n".join(filter(None, said))


def graph_docs(plan: Plan) -> str:
    """Return the graph as text in a block of code: Airflow's UI draws no Mermaid and shows no SVG from within docs."""
    from flowyml.graph import terminal  # stays at home: no worker draws

    if len(plan.steps) < 2:
        return ""
    drawing = terminal(plan)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", drawing)), default=0))
    return f"{fence}text\n{drawing}{fence}"


def _table(titles: Sequence[str], items: Sequence[T], row: Callable[[T], Sequence[str]]) -> str:
    if not items:
        return ""
    more = [("…", f"{len(items) - _MOST_LISTED} more", "")] if len(items) > _MOST_LISTED else []
    return table(titles, [*map(row, items[:_MOST_LISTED]), *more])


def _parameter(parameter: Parameter) -> Sequence[str]:
    schema = parameter.schema
    kinds = [part.get("format", part["type"]) for part in schema.get("anyOf", (schema,)) if "type" in part]
    default = in_words(parameter.default) or _code(json.dumps(parameter.default, ensure_ascii=False))
    return (
        _code(parameter.name),
        " or ".join(dict.fromkeys(map(str, kinds))),
        "required" if parameter.required else default,
    )


def _step(step: Step) -> Sequence[str]:
    inputs = [_describe_source(item.source) for item in step.inputs if not isinstance(item.source, Constant)]
    from_steps = {output.step for output in outputs_in(item.source for item in step.inputs)}
    waits = [f"after {_code(name)}" for name in step.after if name not in from_steps]
    return _code(step.name), ", ".join(dict.fromkeys([*inputs, *waits])), ", ".join(map(_code, step.outputs))


def _describe_source(source: Source) -> str:
    match source:
        case FromStep(step, output):
            return f"{_code(output)} of {_code(step)}"
        case FromEither(outputs):
            return " or ".join(map(_describe_source, outputs))
        case FromItem(loop, _):
            return f"an item of {_code(loop)}"
        case FromParameter(name):
            return f"parameter {_code(name)}"
        case _:
            return ""


def _output(graph: TaskGraph, name: str, source: FromStep | FromEither) -> Sequence[str]:
    outputs = list(outputs_in([source]))
    keys, tasks = [graph.key(origin) for origin in outputs], [graph.id(graph.steps[origin.step]) for origin in outputs]
    return _code(name), " or ".join(map(_code, dict.fromkeys(keys))), " or ".join(map(_code, dict.fromkeys(tasks)))


def _code(text: str) -> str:
    """Return a name as code in a cell of a table."""
    return code(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…", in_cell=True)
