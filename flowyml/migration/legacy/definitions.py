"""Options of steps, pipelines and runs, dict resources, and subclasses of ``Pipeline``."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import libcst as cst
import libcst.matchers as m

from flowyml.authoring.pipeline import Pipeline
from flowyml.authoring.steps import step
from flowyml.core.errors import DefinitionError
from flowyml.core.resources import ResourceRequirements
from flowyml.migration.legacy.checklist import Item
from flowyml.migration.legacy.kinds import Kinds, method_of
from flowyml.migration.legacy.source import Source, keyword_of, literal_text, named_argument
from flowyml.migration.legacy.source import always as _to
from flowyml.orchestrators.registry import declared

_RESOURCES = ("cpu", "memory", "gpu", "gpu_type")
#: The message for an option that 1.0 lacks.
_PIPELINE = {
    "cache_dir": "1.0 keeps its data in one folder, FLOWYML_HOME",
    "executor": "an orchestrator runs a pipeline: pipeline.run(on=…)",
    "stack": "a target in flowyml.toml takes its place: pipeline.run(on=\"NAME\"), or FLOWYML_ORCHESTRATOR",
    "enable_checkpointing": "a run that failed goes on with submission.retry()",
    "enable_experiment_tracking": "log to the tracker from a step or a hook",
    "project": "use tags=[…]",
    "project_name": "use tags=[…]",
    "version": "the run records the git commit; use tags=[…] for your own number",
}  # fmt: skip
_STEP = {
    "condition": "write with pipeline.when(lambda it: …): around add_step(…)",
}
_RUN = {
    "stack": "name a target of flowyml.toml: run(on=\"NAME\")",
    "inputs": "values come from steps and parameters: run({\"name\": value})",
    "debug": "set the level of logging instead",
    "resources": "ask for them step by step: @step(resources=ResourceRequirements(…))",
    "docker_config": "the image belongs to the target in flowyml.toml",
    "auto_start_ui": "runs are shown by flowyml runs, and by the engine's own UI",
}  # fmt: skip
#: Values with which an option of 0.x that has gone had no effect; None for all others.
_WITHOUT_EFFECT = {
    "enable_checkpointing": ("False", "None"),
    "enable_experiment_tracking": ("False",),
    "debug": ("False",),
    "auto_start_ui": ("False",),
}
_RENAMED = {("run", "orchestrator"): "on", ("run", "context"): "parameters"}
_RESULT = {"pipeline_name": "pipeline"}
_RESULT_GONE = {
    "summary": "print(result.status, result.outputs, result.step_results)",
    "to_dict": "take the fields that you need",
    "start_time": "result.duration_seconds is there; times are in submission.run",
    "end_time": "result.duration_seconds is there; times are in submission.run",
    "remote_job_id": "pipeline.submit(on=…) returns a handle with .job_id",
}


def replace_resources(source: Source, kinds: Kinds) -> None:
    """Replace ``resources={…}`` of a step by ``ResourceRequirements(…)``."""
    seen: set[cst.CSTNode] = set()
    for call in source.nodes(cst.Call):
        if source.flowyml_name(call.func) != "step":
            continue
        for argument in call.args:
            if keyword_of(argument) == "resources":
                _resources(source, kinds, argument.value, seen)


def _resources(source: Source, kinds: Kinds, value: cst.BaseExpression, seen: set[cst.CSTNode]) -> None:
    made: cst.BaseExpression | None = value
    if isinstance(value, cst.Name):
        made = _constant(source, kinds, value)
        if made is None:
            if isinstance(kinds.bound_value(value), cst.Dict):
                message = f"{value.value} is a dict with other uses: write ResourceRequirements(…) here"
                source.needs_you(Item.RESOURCES, value, message)
            return
    if made is None or made in seen:
        return
    seen.add(made)
    pairs = _pairs(made)
    if pairs is None:
        return
    if isinstance(pairs, str):
        message = f"{pairs}: write ResourceRequirements(cpu=…, memory=…, gpu=…, gpu_type=…)"
        source.needs_you(Item.RESOURCES, made, message)
        return
    if not source.can_import("ResourceRequirements"):
        source.needs_you(Item.RESOURCES, made, "ResourceRequirements is another thing in this file")
        return
    if isinstance(made, cst.Dict):
        source.edits.change(made, _requirements)
    else:
        assert isinstance(made, cst.Call)
        source.edits.change(made.func, _to(cst.Name("ResourceRequirements")))
    source.want_import("flowyml.core.resources", "ResourceRequirements")
    source.done(Item.RESOURCES, made, "a dict of resources is ResourceRequirements now")


def _constant(source: Source, kinds: Kinds, name: cst.Name) -> cst.BaseExpression | None:
    """Return the dict that a name refers to, if it is only used for resources of steps."""
    found = kinds.binding(name)
    for access in found.references if found else ():
        argument = source.parents.get(access.node)
        call = source.parents.get(argument) if isinstance(argument, cst.Arg) else None
        is_given = isinstance(argument, cst.Arg) and keyword_of(argument) == "resources"
        if not (is_given and isinstance(call, cst.Call) and source.flowyml_name(call.func) == "step"):
            return None
    return kinds.bound_value(name)


def _pairs(value: cst.BaseExpression) -> dict[str, cst.BaseExpression] | str | None:
    """Return the resources of a dict; a message if they are unknown; None for another expression."""
    pairs: dict[str, cst.BaseExpression] = {}
    if isinstance(value, cst.Dict):
        for element in value.elements:
            key = literal_text(element.key) if isinstance(element, cst.DictElement) else None
            if key is None:
                return "not all its keys are seen here"
            pairs[key] = element.value
    elif isinstance(value, cst.Call) and isinstance(value.func, cst.Name) and value.func.value == "dict":
        for argument in value.args:
            if argument.keyword is None:
                return "not all its keys are seen here"
            pairs[argument.keyword.value] = argument.value
    else:
        return None
    if unknown := [key for key in pairs if key not in _RESOURCES]:
        return f"1.0 has no resource {unknown[0]!r}"
    try:
        ResourceRequirements(**{key: _literal(key, item) for key, item in pairs.items() if isinstance(item, _LITERALS)})
    except DefinitionError as error:
        return str(error).rstrip(".")
    return pairs


_LITERALS = cst.SimpleString | cst.Integer | cst.Float | cst.Dict | cst.List


def _literal(key: str, value: cst.BaseExpression) -> Any:
    if isinstance(value, cst.Integer | cst.Float):
        return value.evaluated_value
    text = literal_text(value)
    return int(text) if key == "gpu" and text is not None and text.isdecimal() else text if text is not None else {}


def _requirements(value: cst.Dict) -> cst.Call:
    """Write ``{"cpu": "2"}`` as ``ResourceRequirements(cpu="2")``, with the same lines and comments."""
    arguments = []
    for element in value.elements:
        assert isinstance(element, cst.DictElement)
        key = literal_text(element.key)
        item = element.value
        text = literal_text(item)
        if key == "gpu" and text is not None and text.isdecimal():
            item = cst.Integer(str(int(text)))
        arguments.append(named_argument(str(key), item).with_changes(comma=element.comma))
    if arguments:
        arguments[-1] = arguments[-1].with_changes(whitespace_after_arg=value.rbrace.whitespace_before)
    return cst.Call(
        cst.Name("ResourceRequirements"),
        arguments,
        lpar=value.lpar,
        rpar=value.rpar,
        whitespace_before_args=value.lbrace.whitespace_after if arguments else cst.SimpleWhitespace(""),
    )


def replace_options(source: Source, kinds: Kinds) -> None:
    """Rename options that have new names; drop removed options that had no effect."""
    known = {
        "Pipeline": set(signature(Pipeline.__init__).parameters),
        "step": set(signature(step).parameters),
        "run": set(signature(Pipeline.run).parameters),
    }
    advice = {"Pipeline": _PIPELINE, "step": _STEP, "run": _RUN}
    for call in source.nodes(cst.Call):
        what = _callee(source, kinds, call)
        if what:
            if what == "Pipeline":
                _second_argument(source, call)
            _options(source, call, what, known[what], advice[what])
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "add_control_flow":
            _condition(source, call)
    for attribute in source.nodes(cst.Attribute):
        if kinds.of(attribute.value) == "result":
            _of_result(source, attribute)


def _callee(source: Source, kinds: Kinds, call: cst.Call) -> str:
    name = source.flowyml_name(call.func)
    if name in ("Pipeline", "step"):
        return name
    if kinds.makes_pipeline(call.func):
        return "Pipeline"
    is_run = m.matches(call.func, m.Attribute(attr=m.Name("run")))
    return "run" if is_run and kinds.of(cst.ensure_type(call.func, cst.Attribute).value) == "pipeline" else ""


def _options(source: Source, call: cst.Call, what: str, known: set[str], advice: Mapping[str, str]) -> None:
    dropped: set[int] = set()
    for index, argument in enumerate(call.args):
        name = keyword_of(argument)
        if not name or name in known or (what != "run" and name in declared()):
            if what == "step" and name == "cache":
                _cache(source, argument)
            if what == "step" and name == "tags" and isinstance(argument.value, cst.Dict):
                source.needs_you(Item.OPTIONS, argument, 'tags of a step are names in 1.0: tags=["team:ml"]')
        elif (new := _RENAMED.get((what, name))) and new in known:
            assert argument.keyword is not None
            source.edits.change(argument.keyword, _to(cst.Name(new)))
            source.done(Item.OPTIONS, argument, f"{name}= is called {new}= now")
        elif name in advice and _written(argument.value) in _WITHOUT_EFFECT.get(name, ("None",)):
            source.done(Item.OPTIONS, argument, f"{name}={_written(argument.value)} has gone: 1.0 does so anyway")
            dropped.add(index)
        else:
            said = advice.get(name, "see the options of 1.0")
            source.needs_you(Item.OPTIONS, argument, f"{what} has no option {name}= in 1.0: {said}")
    if dropped:
        source.edits.change(call, lambda updated: _without_arguments(updated, dropped))


def _cache(source: Source, argument: cst.Arg) -> None:
    """Replace a caching strategy of 0.x: the key of 1.0 includes code and inputs, so it covers each strategy."""
    if literal_text(argument.value) in ("code_hash", "input_hash"):
        source.edits.change(argument.value, _to(cst.Name("True")))
        source.done(Item.OPTIONS, argument, "cache=True depends on the code and the inputs")
    elif literal_text(argument.value) is not None or isinstance(argument.value, cst.Lambda):
        source.needs_you(Item.OPTIONS, argument, "cache takes True, False or Cache(key=…, ttl=…)")


def _without_arguments(call: cst.Call, dropped: set[int]) -> cst.Call:
    arguments = [argument for index, argument in enumerate(call.args) if index not in dropped]
    if not arguments:
        return call.with_changes(args=[], whitespace_before_args=cst.SimpleWhitespace(""))
    last, before = call.args[-1], arguments[-1]
    return call.with_changes(
        args=[*arguments[:-1], before.with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)]
    )


def _second_argument(source: Source, call: cst.Call) -> None:
    """Name the arguments after the first in ``Pipeline("name", context)``, as 1.0 requires."""
    plain = [argument for argument in call.args if argument.keyword is None and not argument.star]
    if len(plain) == 2:
        named = named_argument("context", plain[1].value)
        source.edits.change(plain[1], lambda updated: updated.with_changes(keyword=named.keyword, equal=named.equal))
        source.done(Item.OPTIONS, plain[1], "the context of a pipeline is passed by name: context=…")
    elif len(plain) > 2:
        source.needs_you(Item.OPTIONS, call, "only the name of a pipeline goes without one: context=…, hooks=[…]")


_CHAIN = m.Comparison(comparisons=[m.DoNotCare(), m.AtLeastN(n=1)])
_IN = m.Comparison(comparisons=[m.ComparisonTarget(operator=m.In() | m.NotIn()), m.ZeroOrMore()])
_LOGIC = m.BooleanOperation() | m.Not() | m.IfExp() | _CHAIN | _IN


def _condition(source: Source, call: cst.Call) -> None:
    """Check a condition: 0.x called it with values; 1.0 records it, so it cannot use Python's ``and`` and ``not``."""
    parts = [part for argument in call.args if isinstance(argument.value, cst.Call) for part in argument.value.args]
    for part in parts:
        if isinstance(part.value, cst.Lambda) and m.findall(part.value.body, _LOGIC):
            message = "write all_of(…), any_of(…), not_(…) and is_in(…) for and, or, not and in"
            source.needs_you(Item.OPTIONS, part, message)


def _of_result(source: Source, attribute: cst.Attribute) -> None:
    name = attribute.attr.value
    if new := _RESULT.get(name):
        source.edits.change(attribute.attr, _to(cst.Name(new)))
        source.done(Item.OPTIONS, attribute, f".{name} of a result is called .{new} now")
    elif name in _RESULT_GONE:
        source.needs_you(Item.OPTIONS, attribute, f"a result has no .{name} in 1.0: {_RESULT_GONE[name]}")


def _written(value: cst.BaseExpression) -> str:
    return value.value if isinstance(value, cst.Name) else ""


def check_subclasses(source: Source, kinds: Kinds) -> None:
    """Report each subclass of ``Pipeline`` that has its own ``run``, and each ``run`` that is replaced."""
    for node in source.nodes(cst.ClassDef):
        if kinds.class_kind(node) != "pipeline":
            continue
        if (run := method_of(node, "run")) is not None:
            name = node.name.value
            message = f"{name} overrides run(), which 1.0 refuses: move it to execute(pipeline, run_id, context) of a "
            message += f"subclass of LocalOrchestrator, and run with pipeline.run(on={name}Orchestrator())"
            source.needs_you(Item.SUBCLASSES, run, message)
    for target in source.nodes(cst.AssignTarget):
        replaced = target.target
        if isinstance(replaced, cst.Attribute) and replaced.attr.value == "run" and (
            source.flowyml_name(replaced.value) == "Pipeline" or kinds.of(replaced.value) == "pipeline"
        ):  # fmt: skip
            message = "run is replaced, and 1.0 does not call it: write an orchestrator"
            source.needs_you(Item.SUBCLASSES, target, message)
