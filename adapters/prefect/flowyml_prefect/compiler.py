"""Compile a plan to the text of a Prefect flow: the same text for the same plan, laid out as ruff would.

Every name that a user chose becomes a literal written by ``layout``, or an identifier made by ``FlowNames``. So no name
can end its literal, and no name can hide a name that the flow itself uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowyml.artifacts.plain import parts
from flowyml.orchestrators.base import about_step
from flowyml.orchestrators.options import check_options
from flowyml.plan.bundle import Bundle
from flowyml.plan.layout import Group, Pair, Part, source, text_literal, value
from flowyml.plan.model import FromParameter, FromStep, Parameter, Plan, Step
from flowyml.plan.runtime_files import python_files
from flowyml_prefect.names import FlowNames, flow_name, outputs_key
from flowyml_prefect.outline import outline

__all__ = ["compile_flow", "flow_function", "is_walked", "task_functions", "with_worker"]

_HEAD = '''"""A FlowyML pipeline as a Prefect flow.

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. It can be deployed like any
flow; ``python flow.py`` runs it, ``python flow.py '{{"rows": 5}}'`` with these parameters. The code of the steps is in
the bundle beside it. So a worker needs this folder, Prefect, and what the steps import, but no FlowyML.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from runpy import run_path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State

BUNDLE = Path(__file__).resolve().with_name({file})
DIGEST = {digest}
if sha256(BUNDLE.read_bytes()).hexdigest() != DIGEST:  # a worker fetches it from where others may write
    raise ImportError(f"{{BUNDLE}} is not the code of this flow: it was replaced or cut short. Run it again.")
run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)  # the imports below come from it

{imports}

PIPELINE = FlowPipeline({pipeline}, BUNDLE)
'''
_MAIN = 'if __name__ == "__main__":\n    {}(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{{}}"))\n'
_MOST_DELAYS = 50  # Prefect takes no more, and repeats the last one
_ANNOTATIONS = {
    "integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "list[Any]",
    "object": "dict[str, Any]", "null": "None",
}  # fmt: skip


def with_worker(bundle: Bundle) -> Bundle:
    """Return a bundle with this package, from which compiled flows import what they call."""
    ours = python_files(Path(__file__).parent)
    return bundle.with_files({f"flowyml_prefect/{path}": data for path, data in ours})


def compile_flow(bundle: Bundle, *, walks: bool = False) -> str:
    """Return the text of ``flow.py``, which lies beside the bundle's file. Raises ``DefinitionError``.

    The bundle is one ``with_worker``. With ``walks`` the flow walks over its plan, and so can continue a run, even if
    the plan does not need that.
    """
    plan = bundle.plan
    _refuse_options(plan)
    walks = walks or is_walked(plan)
    names = FlowNames(plan)
    annotations = {parameter.name: _annotation(parameter.schema) for parameter in plan.parameters}
    head = _HEAD.format(
        file=text_literal(bundle.filename),
        digest=text_literal(bundle.digest),
        imports="\n".join(_imports(plan, walks)),
        pipeline=text_literal(plan.name),
    )
    parts = [head, *(_walked_task(step, names) if walks else _task(step, names, annotations) for step in plan)]
    parts += [_flow(plan, names, walks), _MAIN.format(names.flow)]
    return "\n\n".join(parts)


def _imports(plan: Plan, walks: bool) -> Iterator[str]:
    """Yield the imports of what the file calls, and no others."""
    used = {
        "GRACE": any(step.timeout_seconds is not None for step in plan),
        "FlowPipeline": True,
        "Values": bool(plan.steps),
        "exact_parameters": bool(plan.parameters),
        "finish_run": not walks,
        "retry_on": any(_is_retried(step) for step in plan),
        "run_step": bool(plan.steps) and not walks,
    }
    if walks:
        yield "from flowyml_prefect.walker import StepTask, run_all, run_step  # noqa: E402"
    names = ", ".join(name for name, is_used in used.items() if is_used)
    yield f"from flowyml_prefect.worker import {names}  # noqa: E402"


def _is_retried(step: Step) -> bool:
    return step.retry is not None and step.retry.max_attempts > 1


def _refuse_options(plan: Plan) -> None:
    """Refuse ``prefect={…}``, which has no options: pools and job variables belong to targets.

    Raises ``UnknownOptionError``.
    """
    check_options("prefect", f"pipeline {plan.name!r}", plan.options.get("prefect", {}), {})
    for step in plan:
        with about_step(step.name):
            check_options("prefect", f"step {step.name!r}", step.options.get("prefect", {}), {})


def is_walked(plan: Plan) -> bool:
    """Return whether the flow walks over the plan itself: for control flow, and for steps that share a process."""
    return plan.has_control_flow or bool(plan.structure.execution_groups)


def flow_function(plan: Plan) -> str:
    """Return the name of the flow's function in the compiled file."""
    return FlowNames(plan).flow


def task_functions(plan: Plan) -> Mapping[str, str]:
    """Return the name of each step's function in the compiled file."""
    return FlowNames(plan).tasks


def _walked_task(step: Step, names: FlowNames) -> str:
    """Return a decorated function for one step of a flow with control flow."""
    return (
        f"{source(Group('@task(', list(_task_options(step, '{task}')), ')'))}\n"
        f"def {names.tasks[step.name]}(task: StepTask) -> Values | State[Any]:\n"
        "    return run_step(task)\n"
    )


def _task(step: Step, names: FlowNames, annotations: Mapping[str, str]) -> str:
    """Return a decorated function for one step."""
    arguments = [f"{names.tasks[name]}: Values" for name in _sources(step)]
    arguments += [f"{name}: {annotations[name]}" for name in _parameters(step)]
    inputs = Group("{", list(_inputs(step, names)), "}")
    secrets = [Pair("secrets=", value(dict(step.secrets)))] if step.secrets else []
    timeout = [f"timeout={step.timeout_seconds!r}"] if step.timeout_seconds is not None else []
    call = Group("return run_step(", [text_literal(step.name), inputs, *secrets, *timeout], ")")
    return (
        f"{source(Group('@task(', list(_task_options(step)), ')'))}\n"
        f"{source(Group(f'def {names.tasks[step.name]}(', arguments, ') -> Values | State[Any]:'))}\n"
        f"    {source(call, 1)}\n"
    )


def _task_options(step: Step, run_name: str = "") -> Iterator[Part]:
    yield f"name={text_literal(step.name)}"
    yield f"task_run_name={text_literal(run_name or step.name.replace('{', '{{').replace('}', '}}'))}"
    if step.description:
        yield f"description={text_literal(step.description)}"
    if step.tags:
        yield Pair("tags=", value(step.tags))
    if step.retry and _is_retried(step):
        yield f"retries={step.retry.max_attempts - 1}"
        yield Pair("retry_delay_seconds=", value(step.retry.delays[:_MOST_DELAYS]))
        errors = step.retry.retryable_errors
        yield Pair("retry_condition_fn=", Group("retry_on(", [value(errors and [str(e) for e in errors])], ")"))
    if step.timeout_seconds is not None:
        yield f"timeout_seconds={step.timeout_seconds!r} + GRACE"


def _inputs(step: Step, names: FlowNames) -> Iterator[Part]:
    """Yield the inputs that the task passes to the step. Constants are in the plan already."""
    for item in step.inputs:
        lead = f"{text_literal(item.name)}: "
        if isinstance(item.source, FromStep):
            yield Pair(lead, f"{names.tasks[item.source.step]}[{text_literal(item.source.output)}]")
        elif isinstance(item.source, FromParameter):
            yield Pair(lead, item.source.name)


def _sources(step: Step) -> list[str]:
    """Return the steps whose outputs a step takes."""
    return list(dict.fromkeys(item.source.step for item in step.inputs if isinstance(item.source, FromStep)))


def _parameters(step: Step) -> list[str]:
    return list(dict.fromkeys(item.source.name for item in step.inputs if isinstance(item.source, FromParameter)))


def _flow(plan: Plan, names: FlowNames, walks: bool) -> str:
    """Return the flow: its body, in the context of the processes that run its steps."""
    run = Group("with PIPELINE.run_steps(", [f"{name}={name}" for name in names.parameters], "):")
    parameters = sorted(plan.parameters, key=lambda parameter: not parameter.required)  # as Python wants them
    lines = [
        source(Group("@flow(", list(_flow_options(plan)), ")")),
        *(["@exact_parameters"] if plan.parameters else []),
        source(Group(f"def {names.flow}(", list(map(_parameter, parameters)), ") -> State[Any]:")),
        *(line for parameter in plan.parameters if _holds_reference(parameter.default) for line in _late(parameter)),
        f"    {source(run, 1)}",
        *(f"        {line}" for line in (_walked if walks else _submitted)(plan, names)),
    ]
    return "\n".join(lines) + "\n"


def _submitted(plan: Plan, names: FlowNames) -> Iterator[str]:
    """Submit each step's task, in the plan's order, and wait for all."""
    steps = Group("{", [Pair(f"{text_literal(s.name)}: ", names.futures[s.name]) for s in plan], "}")
    outputs = Group("{", [_output(name, source, names) for name, source in plan.step_outputs], "}")
    yield from (source(_submission(step, names), 2) for step in plan)
    yield source(Group("return finish_run(", [steps, outputs, text_literal(outputs_key(plan.name))], ")"), 2)


def _walked(plan: Plan, names: FlowNames) -> Iterator[str]:
    """Yield the body of a flow that walks over the plan: an outline as comments, and the call of the walk."""
    tasks = Group("{", [Pair(f"{text_literal(s.name)}: ", names.tasks[s.name]) for s in plan], "}")
    yield from (f"# {line}" for line in outline(plan))
    yield source(Group("return run_all(", [tasks, text_literal(outputs_key(plan.name))], ")"), 2)


def _flow_options(plan: Plan) -> Iterator[Part]:
    yield f"name={text_literal(flow_name(plan.name))}"
    if plan.description:
        yield f"description={text_literal(plan.description)}"
    if plan.timeout_seconds is not None:
        yield f"timeout_seconds={plan.timeout_seconds!r}"
    if plan.parameters:  # else a dict with "$ref" is taken for a reference to a block; the step process checks types
        yield "validate_parameters=False"
    if plan.hooks:
        yield "on_running=[PIPELINE.on_start]"
        for event in ("completion", "failure", "cancellation", "crashed"):
            yield f"on_{event}=[PIPELINE.on_end]"


def _parameter(parameter: Parameter) -> Part:
    head = f"{parameter.name}: {_annotation(parameter.schema)}"
    if _holds_reference(parameter.default):
        return f"{head} = ..."
    return head if parameter.required else Pair(f"{head} = ", value(parameter.default))


def _late(parameter: Parameter) -> Iterator[str]:
    """Yield a default that is computed when the flow runs."""
    yield f"    if {parameter.name} is ...:"
    yield f"        {source(Pair(f'{parameter.name} = ', value(parameter.default)), 2)}"


def _holds_reference(default: Any) -> bool:
    """Return whether a default has a reference that pydantic, which writes the schema of the flow, would follow."""
    return any(isinstance(part, dict) and "$ref" in part for part in parts(default))


def _annotation(schema: Mapping[str, Any]) -> str:
    choices = schema.get("anyOf")
    if isinstance(choices, list) and choices:
        annotations = list(dict.fromkeys(_annotation(choice) for choice in choices if isinstance(choice, Mapping)))
        return "Any" if "Any" in annotations or not annotations else " | ".join(annotations)
    return _ANNOTATIONS.get(str(schema.get("type")), "Any")


def _output(name: str, origin: FromStep, names: FlowNames) -> Part:
    pair = Group("(", [names.futures[origin.step], text_literal(origin.output)], ")")
    return Pair(f"{text_literal(name)}: ", pair)


def _submission(step: Step, names: FlowNames) -> Part:
    sources = _sources(step)
    arguments: list[Part] = [names.futures[name] for name in sources]
    arguments += _parameters(step)
    if waits := [names.futures[name] for name in step.upstream if name not in sources]:
        arguments.append(Pair("wait_for=", Group("[", waits, "]")))
    return Pair(f"{names.futures[step.name]} = ", Group(f"{names.tasks[step.name]}.submit(", arguments, ")"))
