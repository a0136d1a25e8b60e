"""Draw a plan as a Mermaid flowchart, which GitHub, GitLab and mkdocs show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowyml.graph.arrows import Arrow, arrows, framed
from flowyml.graph.closing import PlanToDraw, plan_to_draw
from flowyml.graph.text import title_of
from flowyml.plan.model import Plan

__all__ = ["mermaid"]


def mermaid(plan: Plan, *, expand: bool = False) -> str:
    """Return the text of a flowchart. No name can end its label: characters of Mermaid's syntax become codes.

    A dotted arrow is an order without data; an arrow has a label if its step has several outputs. Loops, branches,
    clean-up and execution groups are subgraphs; so are sub-pipelines with ``expand``, else each is one node.
    """
    picture = plan_to_draw(plan, expand=expand)
    ids = {step.name: f"s{index}" for index, step in enumerate(picture.plan)}
    groups = {group.name: f"g{index}" for index, group in enumerate(picture.plan.groups)}
    lines = ["flowchart LR", *_boxes(picture, ids, groups, "", "    ")]
    lines += [
        f"    {ids[arrow.start]} {_shape(picture.plan, arrow)} {(groups if arrow.is_group else ids)[arrow.end]}"
        for arrow in arrows(picture.plan, framed(picture.plan))
    ]
    return "\n".join(lines) + "\n"


def _boxes(
    picture: PlanToDraw, ids: Mapping[str, str], groups: Mapping[str, str], around: str, indent: str
) -> Iterator[str]:
    """Yield the steps of a group, and the groups within it around theirs."""
    for step in picture.plan:
        if step.group == around:
            label = f'["{_escaped(step.name)}"]'
            yield f"{indent}{ids[step.name]}{f'[{label}]' if step.name in picture.closed else label}"
    for inner in picture.plan.groups:
        if inner.parent == around and picture.plan.structure.members(inner.name):
            yield f'{indent}subgraph {groups[inner.name]}["{_escaped(title_of(inner))}"]'
            yield from _boxes(picture, ids, groups, inner.name, f"{indent}    ")
            yield f"{indent}end"


def _shape(plan: Plan, arrow: Arrow) -> str:
    if not arrow.outputs:
        return "-.->"
    has_several = len(plan.by_name[arrow.start].outputs) > 1
    return f'-->|"{_escaped(", ".join(arrow.outputs))}"|' if has_several else "-->"


def _escaped(text: str) -> str:
    """Keep letters, digits and characters that are harmless between them; write the rest as ``#decimal;``."""
    return "".join(
        char if char.isalnum() or char == "_" or (char in " -." and _is_within(text, index)) else f"#{ord(char)};"
        for index, char in enumerate(text)
    )


def _is_within(text: str, index: int) -> bool:
    """Return whether a character is between two letters or digits, so that it starts no list, rule or indentation."""
    around = text[index - 1 : index] + text[index + 1 : index + 2]
    return len(around) == 2 and all(char.isalnum() or (char == "," and text[index] == " ") for char in around)
