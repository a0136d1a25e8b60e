"""A plan as a Mermaid flowchart, which GitHub, GitLab and mkdocs draw."""

from __future__ import annotations

from collections.abc import Iterator

from flowyml.plan.model import FromStep, Plan, Step

__all__ = ["mermaid"]


def mermaid(plan: Plan) -> str:
    """The text of a flowchart. No name can end its label: what Mermaid could take for syntax becomes a code.

    A dotted arrow is an order without data; an arrow has a label where its step has several outputs.
    """
    ids = {step.name: f"s{index}" for index, step in enumerate(plan)}
    lines = ["flowchart LR", *(f'    {ids[step.name]}["{_escaped(step.name)}"]' for step in plan)]
    lines += [
        f"    {ids[name]} {_arrow(plan.by_name[name], step)} {ids[step.name]}"
        for step in plan
        for name in step.upstream
    ]
    return "\n".join(lines) + "\n"


def _arrow(start: Step, end: Step) -> str:
    carried = list(dict.fromkeys(_carried(start, end)))
    if not carried:
        return "-.->"
    return f'-->|"{_escaped(", ".join(carried))}"|' if len(start.outputs) > 1 else "-->"


def _carried(start: Step, end: Step) -> Iterator[str]:
    for item in end.inputs:
        if isinstance(item.source, FromStep) and item.source.step == start.name:
            yield item.source.output


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
