"""Replace ``register_callback`` by a ``PipelineHook`` on the pipeline, if the file shows how."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature

import libcst as cst
from libcst.metadata import ImportAssignment

from flowyml.core.hooks import EVENTS, PipelineHook
from flowyml.migration.legacy.checklist import Item
from flowyml.migration.legacy.kinds import Kinds
from flowyml.migration.legacy.source import Source, always, is_of_flowyml, keyword_of, literal_text, named_argument

_PARAMETERS = {event: list(signature(getattr(PipelineHook, event)).parameters)[1:] for event in EVENTS}


@dataclass
class _Callback:
    """A call of ``register_callback`` that becomes a method of a hook."""

    call: cst.Call
    event: str
    function: str
    arguments: list[str]


def replace_callbacks(source: Source, kinds: Kinds) -> None:
    """Replace the callbacks of each pipeline by hooks, or say for each call why a person has to."""
    by_pipeline: dict[cst.Call, list[_Callback]] = {}
    for call in source.nodes(cst.Call):
        name = call.func.attr.value if isinstance(call.func, cst.Attribute) else source.flowyml_name(call.func)
        if name != "register_callback":
            continue
        made = _callback(source, kinds, call)
        pipeline = made if isinstance(made, str) else _pipeline(source, kinds, call)
        if isinstance(made, str) or isinstance(pipeline, str):
            source.needs_you(Item.CALLBACKS, call, f"{pipeline}: {_skeleton(call)}")
        else:
            by_pipeline.setdefault(pipeline, []).append(made)
    for pipeline, callbacks in by_pipeline.items():
        _put_hook(source, pipeline, callbacks)
    _drop_imports(source)


def _callback(source: Source, kinds: Kinds, call: cst.Call) -> _Callback | str:
    values = [argument.value for argument in call.args if argument.keyword is None and not argument.star]
    if len(values) != 2 or len(call.args) != 2:
        return "the event and the function are not its two arguments"
    text = literal_text(values[0])
    event = text if text is None or text.startswith("on_") else f"on_{text}"
    if event not in EVENTS:
        return f"the event is not one of {', '.join(EVENTS)}"
    binding = kinds.binding(values[1])
    function = binding.node if binding else None
    if not isinstance(function, cst.FunctionDef) or source.parents.get(function) is not source.module:
        return "the callback is not a function of this file"
    takes = [parameter.name.value for parameter in function.params.params]
    plain = len(takes) == len(_all_parameters(function.params)) and function.asynchronous is None
    if not plain or not set(takes) <= set(_PARAMETERS[event]):
        name, own = function.name.value, ", ".join(takes)
        return f"{event} gives {', '.join(_PARAMETERS[event])}, and {name} takes {own or 'none'}"
    return _Callback(call, event, function.name.value, takes)


def _all_parameters(parameters: cst.Parameters) -> list[object]:
    stars = [star for star in (parameters.star_arg, parameters.star_kwarg) if isinstance(star, cst.Param)]
    return [*parameters.params, *parameters.kwonly_params, *parameters.posonly_params, *stars]


def _pipeline(source: Source, kinds: Kinds, call: cst.Call) -> cst.Call | str:
    """Return the call of ``Pipeline(…)`` that creates the object on which the callback is registered."""
    if not isinstance(call.func, cst.Attribute):
        return "it is for all pipelines"
    made = kinds.bound_value(call.func.value)
    if not isinstance(made, cst.Call) or source.flowyml_name(made.func) != "Pipeline":
        return "the Pipeline(…) it is on is not visible here"
    if not _is_a_line_of(source, call) or not _is_a_line_of(source, made):
        return "it or its Pipeline(…) is within a function or a block: give that Pipeline(…) hooks=[…] by hand"
    if any(keyword_of(argument) == "hooks" or argument.star for argument in made.args):
        return "the pipeline has hooks already"
    return made


def _is_a_line_of(source: Source, node: cst.CSTNode) -> bool:
    """Return whether a node, or its assignment, is alone on a line at the top level of the module."""
    parent = source.parents[node]
    line = source.parents.get(parent)
    return (
        isinstance(parent, cst.Expr | cst.Assign)
        and isinstance(line, cst.SimpleStatementLine)
        and len(line.body) == 1
        and source.parents.get(line) is source.module
    )


def _put_hook(source: Source, pipeline: cst.Call, callbacks: list[_Callback]) -> None:
    assign = source.parents[pipeline]
    assert isinstance(assign, cst.Assign)
    target = assign.targets[0].target
    pipeline_name = target.value if isinstance(target, cst.Name) else "pipeline"
    name = _class_name(source, pipeline_name)
    made = cst.parse_module(_class_text(name, callbacks)).body[0]
    assert isinstance(made, cst.ClassDef)
    argument = named_argument("hooks", cst.parse_expression(f"[{name}()]"))
    source.edits.change(pipeline, lambda updated: _with_argument(updated, argument))
    source.edits.change(source.statement(pipeline), lambda updated: _after_class(made, updated))
    source.want_import("flowyml.core.hooks", "PipelineHook")
    for callback in callbacks:
        source.edits.change(source.statement(callback.call), always(cst.RemoveFromParent()))
        source.done(Item.CALLBACKS, callback.call, f"{callback.function} is called by {name}.{callback.event}")


def _class_name(source: Source, pipeline: str) -> str:
    wanted = "".join(part.capitalize() for part in pipeline.split("_")) + "Hook"
    return wanted if wanted not in source.text else f"{wanted}0"


def _class_text(name: str, callbacks: list[_Callback]) -> str:
    lines = [f"class {name}(PipelineHook):"]
    for event in dict.fromkeys(callback.event for callback in callbacks):
        if len(lines) > 1:
            lines.append("")
        lines.append(f"    def {event}(self, {', '.join(_PARAMETERS[event])}):")
        lines += [
            f"        {callback.function}({', '.join(callback.arguments)})"
            for callback in callbacks
            if callback.event == event
        ]
    return "\n".join(lines) + "\n"


def _with_argument(call: cst.Call, argument: cst.Arg) -> cst.Call:
    """Return a call with another argument at its end, formatted like the others."""
    if not call.args:
        return call.with_changes(args=[argument])
    *others, last = call.args
    if isinstance(last.comma, cst.Comma) and isinstance(last.comma.whitespace_after, cst.ParenthesizedWhitespace):
        before = others[-1].comma if others and isinstance(others[-1].comma, cst.Comma) else cst.Comma()
        if not others and isinstance(call.whitespace_before_args, cst.ParenthesizedWhitespace):
            before = cst.Comma(whitespace_after=call.whitespace_before_args)
        return call.with_changes(
            args=[*others, last.with_changes(comma=before), argument.with_changes(comma=last.comma)]
        )
    spaced = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    return call.with_changes(
        args=[*others, last.with_changes(comma=spaced, whitespace_after_arg=cst.SimpleWhitespace("")),
              argument.with_changes(whitespace_after_arg=last.whitespace_after_arg)]
    )  # fmt: skip


def _after_class(made: cst.ClassDef, line: cst.SimpleStatementLine) -> cst.FlattenSentinel[cst.BaseStatement]:
    blank = [cst.EmptyLine(indent=False), cst.EmptyLine(indent=False)]
    comments = [each for each in line.leading_lines if each.comment is not None]
    placed = made.with_changes(leading_lines=blank)
    return cst.FlattenSentinel([placed, line.with_changes(leading_lines=[*blank, *comments])])


def _skeleton(call: cst.Call) -> str:
    event = next((text for argument in call.args if (text := literal_text(argument.value))), "on_step_end")
    event = event if event.startswith("on_") else f"on_{event}"
    taken = ", ".join(_PARAMETERS.get(event, ["…"]))
    return f"write class MyHook(PipelineHook) with def {event}(self, {taken}), and Pipeline(…, hooks=[MyHook()])"


def _drop_imports(source: Source) -> None:
    """Remove imports of the name, which no longer exists, even if nothing calls it."""
    for node in source.nodes(cst.ImportFrom):
        if isinstance(node.names, cst.ImportStar):
            continue
        for alias in node.names:
            if alias.evaluated_name != "register_callback" or not is_of_flowyml(node):
                continue
            scope = source.scope(node)
            used = [
                access
                for assignment in (scope[alias.evaluated_alias or alias.evaluated_name] if scope else ())
                if isinstance(assignment, ImportAssignment)
                for access in assignment.references
            ]
            if not used:
                source.needs_you(Item.CALLBACKS, node, "register_callback has gone: drop its import")
