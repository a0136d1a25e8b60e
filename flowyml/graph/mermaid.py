"""A plan as a Mermaid flowchart, which GitHub, GitLab and mkdocs draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowyml.graph.text import title_of
from flowyml.plan.groups import outputs_in
from flowyml.plan.model import Plan, Step

__all__ = ["mermaid"]


def mermaid(plan: Plan) -> str:
    """The text of a flowchart. No name can end its label: what Mermaid could take for syntax becomes a code.

    A dotted arrow is an order without data; an arrow has a label where its step has several outputs.
    """
    ids = {step.name: f"s{index}" for index, step in enumerate(plan)}
    lines = ["flowchart LR", *_boxes(plan, ids, "", "    ")]
    lines += [
        f"    {ids[name]} {_arrow(plan, plan.by_name[name], step)} {ids[step.name]}"
        for step in plan
        for name in plan.structure.upstream(step)
    ]
    return "\n".join(lines) + "\n"


def _boxes(plan: Plan, ids: Mapping[str, str], group: str, indent: str) -> Iterator[str]:
    """The steps of a group, and the groups within it around theirs."""
    for step in plan:
        if step.group == group:
            yield f'{indent}{ids[step.name]}["{_escaped(step.name)}"]'
    for number, inner in enumerate(plan.groups):
        if inner.parent == group and plan.structure.members(inner.name):
            yield f'{indent}subgraph g{number}["{_escaped(title_of(inner))}"]'
            yield from _boxes(plan, ids, inner.name, f"{indent}    ")
            yield f"{indent}end"


def _arrow(plan: Plan, start: Step, end: Step) -> str:
    carried = list(dict.fromkeys(_carried(plan, start, end)))
    if not carried:
        return "-.->"
    return f'-->|"{_escaped(", ".join(carried))}"|' if len(start.outputs) > 1 else "-->"


def _carried(plan: Plan, start: Step, end: Step) -> Iterator[str]:
    return (output.output for output in outputs_in(plan.structure.values(end)) if output.step == start.name)


def _escaped(text: str) -> str:
    """Letters, digits and what stays harmless between them; the rest as ``#decimal;``."""
    return "".join(
        char if char.isalnum() or char == "_" or (char in " -." and _is_within(text, index)) else f"#{ord(char)};"
        for index, char in enumerate(text)
    )


def _is_within(text: str, index: int) -> bool:
    """Between two letters or digits, so that it starts no list, rule or indentation of Markdown."""
    around = text[index - 1 : index] + text[index + 1 : index + 2]
    return len(around) == 2 and all(char.isalnum() or (char == "," and text[index] == " ") for char in around)
