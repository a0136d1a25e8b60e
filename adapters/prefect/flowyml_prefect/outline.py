"""Outline a plan with control flow in a few lines, for readers of its compiled flow."""

from __future__ import annotations

from collections.abc import Iterator

from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section
from flowyml.plan.model import Plan, Step
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source

__all__ = ["outline"]

_LONGEST = 100


def outline(plan: Plan) -> Iterator[str]:
    """Yield a line for each step and each group, in the order of the steps, which says when it runs."""
    children: dict[str, list[Group | Step]] = {"": []}
    for step in plan:
        for name in plan.structure.path(step.group):
            if name not in children:
                group = plan.structure.by_name[name]
                children[name] = []
                children[group.parent].append(group)
        children[step.group].append(step)
    yield from _lines(plan, children, "", 0)


def _lines(plan: Plan, children: dict[str, list[Group | Step]], parent: str, depth: int) -> Iterator[str]:
    for child in children[parent]:
        text = _call(plan, child) if isinstance(child, Step) else _heading(plan, child)
        yield f"{'    ' * depth}{_printable(text)}"
        if not isinstance(child, Step):
            yield from _lines(plan, children, child.name, depth + 1)


def _heading(plan: Plan, group: Group) -> str:
    match group:
        case Loop():
            items = " and ".join(f"each {item.name} of {_format_source(plan, item.source)}" for item in group.over)
            limit = f", {group.max_parallel} at a time" if group.max_parallel else ""
            return f"for {items}{limit}{', and go on after failures' if group.on_item_error == 'continue' else ''}:"
        case Branch(condition=None):
            return "else:"
        case Branch():
            is_first = plan.structure.choices[group.choice][0] is group
            return f"{'if' if is_first else 'elif'} {group.condition}:"
        case Section():
            return f"pipeline {group.pipeline}:"
        case Cleanup():
            return "however all of that ends:"


def _call(plan: Plan, step: Step) -> str:
    arguments = [
        f"{item.name}={_format_source(plan, item.source)}"
        for item in step.inputs
        if not isinstance(item.source, Constant)
    ]
    has_rule = step.run_if != "all_success" and not plan.structure.is_cleanup(step.group)
    rule = f" if {step.run_if}" if has_rule else ""
    after = f" after {', '.join(step.after)}" if step.after else ""
    return f"{step.name}({', '.join(arguments)}){after}{rule}"


def _format_source(plan: Plan, source: Source) -> str:
    match source:
        case FromStep(step, output):
            return step if len(plan.by_name[step].outputs) == 1 else f"{step}.{output}"
        case FromEither(outputs):
            return f"either({', '.join(_format_source(plan, output) for output in outputs)})"
        case FromParameter(name):
            return name
        case FromItem(_, name):
            return name
        case Constant():
            return "a list"


def _printable(text: str) -> str:
    """Remove characters that could end a comment, and shorten to a line."""
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
