"""Compile calls and names to a plan; every connection between steps is checked here."""

from __future__ import annotations

import graphlib
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from flowyml.authoring.calls import Call, Recorder, Sources
from flowyml.authoring.constants import RichConstant
from flowyml.authoring.execution_groups import check_execution_groups
from flowyml.authoring.scopes import around, check_scopes, check_seen
from flowyml.authoring.source_lines import errors_at
from flowyml.authoring.sources import function_reference
from flowyml.core.errors import CycleError, DefinitionError, ParameterError
from flowyml.core.near_names import did_you_mean
from flowyml.core.plain_text import storable_text
from flowyml.plan.conditions import with_sources
from flowyml.plan.groups import Branch, Cleanup, Group, Groups, Loop, Section, outputs_in
from flowyml.plan.kinds import kinds_annotated
from flowyml.plan.model import FromEither, FromItem, FromParameter, FromStep, Input, PipelineOutput, Source, Step
from flowyml.plan.steps import FLAT_FIELDS
from flowyml.plan.types import check_restored, is_rich, plain, returned_type, spell_out, type_text, wanted
from flowyml.plan.values import Constant

__all__ = ["compile_outputs", "compile_steps", "is_flat", "record_by_names", "with_types"]

_REQUIRED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def compile_steps(
    pipeline: str, calls: Sequence[Call], injected: Iterable[str], groups: Sequence[Group] = ()
) -> tuple[tuple[Step, ...], tuple[Group, ...]]:
    """Return the steps in a topological order, otherwise in the order in which they were added; clean-ups come last.

    Also returns the groups, with their names resolved.

    ``injected`` are the run parameters that fill parameters of the same name. Raises ``DefinitionError``.
    """
    wiring = _Wiring(pipeline, calls, frozenset(injected), groups)
    steps = [wiring.step(call) for call in calls]
    groups = tuple(wiring.group(group) for group in groups)
    structure = Groups(groups, steps)
    if structure.by_name or any(map(has_control_flow, steps)):
        check_scopes(structure, {call.name: call for call in calls}, steps)
    check_execution_groups(structure, {call.name: call for call in calls}, steps)
    return _in_order(pipeline, structure, steps), groups


def has_control_flow(step: Step) -> bool:
    """Return whether other steps decide if, when and how often a step runs."""
    return step.run_if != "all_success" or bool(step.group)


def is_flat(step: Step) -> bool:
    """Return whether a FlowyML that knows only ``FLAT_FIELDS`` reads a step right: all other fields are defaults."""
    return Step(**{name: getattr(step, name) for name in FLAT_FIELDS}) == step


def with_types(
    steps: Sequence[Step], calls: Sequence[Call], types: Mapping[str, object], groups: Sequence[Group] = ()
) -> tuple[Step, ...]:
    """Mark the inputs from parameters of these ``types``, and from constants, whose values workers restore from JSON.

    Raises ``DefinitionError`` for a step whose annotation does not allow such a value.
    """
    by_name = {call.name: call for call in calls}
    lists: dict[FromItem, Source] = {
        FromItem(loop.name, item.name): item.source for loop in groups if isinstance(loop, Loop) for item in loop.over
    }
    return tuple(_with_types(step, by_name[step.name], types, lists) for step in steps)


def _with_types(step: Step, call: Call, types: Mapping[str, object], lists: Mapping[FromItem, Source]) -> Step:
    hint_of = wanted(call.step.function)
    inputs = []
    for item in step.inputs:
        source, depth = item.source, 0
        while isinstance(source, FromItem):  # an item is of its list's type
            source, depth = lists[source], depth + 1
        kind, values, typed_input = None, [], item
        if isinstance(source, FromParameter):
            kind = types.get(source.name)
        elif isinstance(source, RichConstant):
            kind, values = source.kind, [source.original]
            typed_input = typed_input if depth else replace(item, source=Constant(source.value))
        if kind is None:
            inputs.append(item)
            continue
        for _ in range(depth):  # the type, and the values, of an item of lists within lists; a run refuses other items
            kind = (get_args(kind) or (kind,))[0]
            values = [value for inner in values if isinstance(inner, list | tuple) for value in inner]
        with errors_at(call.line):
            _check_annotation(f"step {step.name!r}", item.into or item.name, hint_of(item), kind, values)
        inputs.append(replace(typed_input, typed=True))
    if any(item.typed for item in inputs) and step.function.startswith("pickle:"):
        spell_out(call.step.function)
    return replace(step, inputs=tuple(inputs))


def _check_annotation(subject: str, name: str, hint: object, kind: object, constants: Iterable[object]) -> None:
    """Raise ``DefinitionError`` if a step cannot restore values of a ``kind``, or one of these constants, from JSON."""
    if not is_rich(hint):
        shown = type_text(kind)
        raise DefinitionError(
            f"{subject} takes {name!r}, which the pipeline gives as {shown}, but the step's function does not. "
            f"Annotate the argument of the step: {name}: {shown}."
        )
    for value in constants:
        try:
            check_restored(name, hint, value, plain(value), has_schema=False)
        except ParameterError as error:
            raise DefinitionError(f"{subject}: {error}") from error


def compile_outputs(
    pipeline: str,
    structure: Groups,
    steps: Sequence[Step],
    names: Sequence[str] | None,
    returned: Sequence[PipelineOutput] | None,
) -> tuple[PipelineOutput, ...]:
    """Return the outputs of the pipeline: those ``returned`` or ``wanted``, else every output that no step consumes.

    An output that may be missing, in a branch or a clean-up, is not included by default.
    """
    if returned:
        for output in returned:
            check_seen(structure, output.source, "", f"Pipeline {pipeline!r} returns {output.name!r}, which")
        return tuple(returned)
    certain = [
        step for step in steps if not any(isinstance(group, Branch | Cleanup) for group in around(structure, step))
    ]
    if names is not None:
        found = {output: FromStep(step.name, output) for step in certain for output in step.outputs}
        if unknown := [name for name in names if name not in found]:
            raise DefinitionError(
                f"Pipeline {pipeline!r}: no step produces {', '.join(map(repr, unknown))}.{_hint(unknown[0], found)}"
            )
        return tuple(PipelineOutput(name, found[name]) for name in names)
    used = [item.source for step in steps for item in step.inputs]
    consumed = set(outputs_in([*used, *(source for group in structure for source in structure.sources(group))]))
    sources = [FromStep(step.name, output) for step in certain for output in step.outputs]
    unused = [source for source in sources if source not in consumed]
    times = Counter(source.output for source in unused)
    return tuple(PipelineOutput(s.output if times[s.output] == 1 else f"{s.step}.{s.output}", s) for s in unused)


def record_by_names(
    recording: Recorder, name: str, calls: Sequence[Call], context: Mapping[str, Any], parameters: Mapping[str, Any],
    outputs: Sequence[str] | None,
) -> Any:  # fmt: skip
    """Record the steps of a pipeline by names as calls within another pipeline.

    ``parameters`` has the value of each parameter in ``context``, or the call that produces it. Returns the pipeline's
    outputs, a dict if there are several.
    """
    by_name = {call.name: call for call in calls}
    steps, _ = compile_steps(name, calls, context)
    made: dict[Source, Any] = {FromParameter(parameter): value for parameter, value in parameters.items()}
    for step in steps:
        made |= recording.record_wired(by_name[step.name], step, made.__getitem__)
    returned = compile_outputs(name, Groups((), steps), steps, outputs, None)
    values = {output.name: made[output.source] for output in returned}
    return next(iter(values.values())) if len(values) == 1 else values


class _Wiring:
    """Finds the producer of each value."""

    def __init__(
        self, pipeline: str, calls: Sequence[Call], injected: frozenset[str], groups: Sequence[Group]
    ) -> None:  # fmt: skip
        self.pipeline = pipeline
        self.structure = Groups(groups, ())
        self.injected = injected
        self.names = {call.name for call in calls}
        self.by_names = any(call.bound is None for call in calls)
        self.producers: dict[str, list[tuple[FromStep, str]]] = {}
        if twice := next((name for name, times in Counter(call.name for call in calls).items() if times > 1), None):
            raise DefinitionError(
                f"Pipeline {self.pipeline!r} has two steps named {twice!r}. Rename one: add_step(step.options(name=…))."
            )
        for call in calls:
            if call.bound is None:
                with errors_at(call.line):
                    for output in call.outputs:
                        self._claim(output, call)

    def step(self, call: Call) -> Step:
        with errors_at(call.line):
            return self._step(call)

    def _step(self, call: Call) -> Step:
        options, is_cleanup = call.step.step_options, self.structure.is_cleanup(call.group)
        return Step(
            name=call.name,
            function=function_reference(call.step, call.name),
            inputs=tuple(self._inputs(call)),
            outputs=call.outputs,
            after=tuple(self._earlier(call, name) for name in options.after),
            retry=options.retry,
            timeout_seconds=options.timeout,
            resources=options.resources,
            tags=options.tags,
            description=storable_text(options.description),
            options=options.engines,
            group=call.group,
            secrets=options.secrets,
            execution_group=self._execution_group(call),
            kinds=kinds_annotated(returned_type(call.step.function), call.outputs),
            run_if="all_done" if is_cleanup and options.run_if == "all_success" else options.run_if,
        )

    def group(self, group: Group) -> Group:
        """Return the group itself; in a pipeline by names, with its names resolved."""
        if not self.by_names:
            return group
        if isinstance(group, Loop):
            over = tuple(replace(item, source=self._named(item.source, group)) for item in group.over)
            return replace(group, over=over)
        if isinstance(group, Branch) and group.condition is not None:
            return replace(group, condition=with_sources(group.condition, lambda source: self._named(source, group)))
        return group

    def _named(self, source: Source, group: Group) -> Source:
        if not isinstance(source, FromParameter):
            return source
        wired = self._found(source.name, group.parent)
        if wired is None and source.name not in self.injected:
            known = {*self.producers, *self.injected}
            raise DefinitionError(
                f"Pipeline {self.pipeline!r}: {group.name!r} needs {source.name!r}, which no step produces and the "
                f"context does not hold.{_hint(source.name, known)}"
            )
        return wired or source

    def _found(self, name: str, group: str) -> FromStep | FromEither | None:
        """Return the producer of an output, as seen from a group: a step, or one of several in exclusive branches."""
        producers = self.producers.get(name, [])
        for source, inside in producers:
            if not any(isinstance(scope, Branch) for scope in self.structure.beyond(inside, group)):
                return source
        sources = tuple(source for source, _ in producers)
        return FromEither(sources) if len(sources) > 1 else sources[0] if sources else None

    def _execution_group(self, call: Call) -> str:
        """Return the name of a call's execution group: each call of a pipeline has its own groups."""
        name = call.step.step_options.execution_group
        around = [
            scope for scope in self.structure.path(call.group) if isinstance(self.structure.by_name[scope], Section)
        ]
        return f"{around[-1]}.{name}" if name and around else name

    def _earlier(self, call: Call, name: str) -> str:
        """Return the step that ``after`` names: in a called pipeline, its own steps come first."""
        sections = [group for group in self.structure.path(call.group) if f"{group}.{name}" in self.names]
        earlier = f"{sections[-1]}.{name}" if sections else name
        if earlier not in self.names:
            raise DefinitionError(
                f"step {call.name!r} comes after {name!r}, which is not a step.{_hint(name, self.names)}"
            )
        return earlier

    def _inputs(self, call: Call) -> Iterable[Input]:
        parameters = call.step.signature.parameters
        bound = call.bound if call.bound is not None else self._by_name(call)
        by_secrets = call.step.step_options.secrets
        if both := by_secrets.keys() & bound.keys():
            raise DefinitionError(f"step {call.name!r}: {min(both)!r} is filled by a secret, and cannot be given.")
        for name, parameter in parameters.items():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise DefinitionError(f"step {call.name!r}: wiring is by name, so {name!r} cannot be positional-only.")
            if name in bound:
                yield from _filled(name, bound[name])
            elif name in by_secrets or parameter.kind not in _REQUIRED:
                continue
            elif name in self.injected:
                yield Input(name, FromParameter(name))
            elif parameter.default is parameter.empty:
                raise self._missing(call, name)
        for name, source in bound.items():
            if name not in parameters:
                yield from _filled(name, source)

    def _by_name(self, call: Call) -> Mapping[str, Sources]:
        declared = call.step.step_options.inputs
        if declared is not None:
            return {
                **{name: self._sources(call, name, wanted) for name, wanted in declared.items()},
                **call.items,
            }
        filled = {*call.items, *call.step.step_options.secrets}
        names = [name for name in call.step.signature.parameters if name not in filled]
        pairs = ((name, self._found(name, call.group)) for name in names)
        return {**{name: source for name, source in pairs if source is not None}, **call.items}

    def _sources(self, call: Call, name: str, source_names: str | Sequence[str]) -> Sources:
        if isinstance(source_names, str):
            return self._source(call, name, source_names)
        return [self._source(call, name, source_name) for source_name in source_names]

    def _source(self, call: Call, name: str, source_name: str) -> Source:
        if source := self._found(source_name, call.group):
            return source
        if source_name in self.injected:
            return FromParameter(source_name)
        raise self._missing(call, name, source_name)

    def _claim(self, output: str, call: Call) -> None:
        step = call.name
        for earlier, group in self.producers.get(output, ()):
            if not self.structure.exclude(group, call.group):
                raise DefinitionError(
                    f"Pipeline {self.pipeline!r}: {output!r} has two producers, step {earlier.step!r} and step "
                    f"{step!r}. Rename one: @step(outputs=[…]), or add_step(step.options(outputs=[…]))."
                )
        if output in self.injected:
            raise DefinitionError(
                f"Pipeline {self.pipeline!r}: {output!r} has two producers, step {step!r} and the context. Rename one."
            )
        self.producers.setdefault(output, []).append((FromStep(step, output), call.group))

    def _missing(self, call: Call, name: str, wanted: str | None = None) -> DefinitionError:
        wanted = wanted or name
        if call.bound is not None:
            return DefinitionError(f"step {call.name!r} was called without {name!r}, which has no default.")
        if producers := self.producers.get(wanted):
            return DefinitionError(
                f"Pipeline {self.pipeline!r}: step {call.name!r} needs {wanted!r}, which step "
                f"{producers[0][0].step!r} produces and its own inputs=[…] leaves out. Add it there, or drop "
                f"inputs=[…]: then every parameter is looked up by its name."
            )
        return DefinitionError(
            f"Pipeline {self.pipeline!r}: step {call.name!r} needs {wanted!r}, which no step produces and the context "
            f"does not hold.{_hint(wanted, {*self.producers, *self.injected})}"
        )


def _filled(name: str, sources: Sources) -> Iterable[Input]:
    """Yield one input, or one for each part of a list, as engines pass them one by one."""
    if isinstance(sources, Sequence):
        yield from (Input(f"{name}[{number}]", source, into=name) for number, source in enumerate(sources))
    else:
        yield Input(name, sources)


def _in_order(pipeline: str, structure: Groups, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Sort steps topologically; stable."""
    by_name = {step.name: step for step in steps}
    order = graphlib.TopologicalSorter(dict.fromkeys(by_name, ()))  # which has the order of the steps
    for step in steps:
        order.add(step.name, *structure.upstream(step))
    try:
        ordered = [by_name[name] for name in order.static_order()]
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise CycleError(f"Pipeline {pipeline!r}: steps wait for one another: {circle}.") from None
    return tuple(sorted(ordered, key=lambda step: structure.is_cleanup(step.group)))


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    if near := did_you_mean(name, known):
        return near
    return f" Known: {', '.join(map(repr, known[:12]))}{' …' if len(known) > 12 else ''}." if known else ""
