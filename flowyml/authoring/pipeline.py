"""A pipeline: its steps, their common options, and every way to run them."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowyml.authoring.calls import Call, Recorded, Recorder, list_source
from flowyml.authoring.context import Context
from flowyml.authoring.data_files import checked_globs
from flowyml.authoring.grouping import Grouping
from flowyml.authoring.named_conditions import If, named_condition
from flowyml.authoring.notebooks import newest
from flowyml.authoring.options import engine_options, names_unknown_options, takes_a_dict
from flowyml.authoring.origins import defining_file, origin_of
from flowyml.authoring.run_parameters import annotation_of, context_parameter
from flowyml.authoring.source_lines import SourceLine, adds_source_line, errors_at, line_of, put_line, users_line
from flowyml.authoring.step_options import check_names, check_timeout
from flowyml.authoring.steps import Mapped, Step, recorder
from flowyml.core.errors import DefinitionError, OverrideError
from flowyml.core.hooks import PipelineHook, check_hook
from flowyml.core.modules import shipped_name
from flowyml.core.plain_text import storable_text
from flowyml.plan.groups import Groups, Loop
from flowyml.plan.model import (
    FLAT_SCHEMA_VERSION,
    SCHEMA_VERSION,
    FromItem,
    FromParameter,
    Input,
    Parameter,
    Plan,
    Source,
)
from flowyml.plan.names import check_name
from flowyml.plan.parameters import check_values
from flowyml.plan.types import check_restored, is_rich
from flowyml.runtime.code import Code

if TYPE_CHECKING:
    from datetime import datetime

    from flowyml.core.origin import Origin
    from flowyml.core.runs import PipelineResult
    from flowyml.core.schedule import Schedule, ScheduleInfo
    from flowyml.core.submission_result import SubmissionResult
    from flowyml.orchestrators.base import Orchestrator
    from flowyml.orchestrators.deployer import Deployment
    from flowyml.plan.bundle import Bundle

__all__ = ["Pipeline"]


class Pipeline:
    """Steps that are wired by the names of their inputs and outputs.

    ``context`` has the parameters of a run with their defaults. ``outputs`` names the outputs of the pipeline; left
    out, they are those that no step consumes. ``timeout`` is in seconds, for a whole run. ``include`` are globs,
    relative to the folder of the pipeline's file, of data files that the workers need beside the code; names that begin
    with a dot, and FlowyML's settings, must be written out. A single name, tag or glob needs no list.
    ``enable_cache=True`` caches each step that has an output, unless the step has its own setting; False caches none.
    ``schedule`` is the schedule that ``deploy`` gives it on any engine, and that ``flowyml compile`` writes into a DAG
    file; a run ignores it. Options for one engine go under its name: ``airflow={"owner": "ml"}``.

    Compiling it raises ``DefinitionError``, which names the step and the fix.

    >>> from flowyml import Context, Pipeline, step
    >>> @step(outputs=["numbers"])
    ... def load(rows: int) -> list[int]:
    ...     return list(range(rows))
    >>> @step(outputs=["total"])
    ... def add(numbers: list[int]) -> int:
    ...     return sum(numbers)
    >>> adding = Pipeline("adding", context=Context(rows=4)).add_step(load).add_step(add)
    >>> adding.run().outputs
    {'total': 6}
    >>> adding.run({"rows": 5})["total"]
    10
    """

    @names_unknown_options("Pipeline")
    def __init__(
        self,
        name: str,
        *,
        hooks: Iterable[PipelineHook] = (),
        context: Mapping[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        tags: Iterable[str] = (),
        description: str = "",
        include: Iterable[str] = (),
        enable_cache: bool | None = None,
        schedule: Schedule | None = None,
        **engines: Mapping[str, Any],
    ) -> None:
        self.name, subject = check_name(name, "pipeline"), f"Pipeline {name!r}"
        self.hooks = _checked_hooks(hooks, subject)
        self.context = Context({} if context is None else context)
        self.outputs = None if outputs is None else check_names(outputs, "outputs", subject)
        self.timeout = check_timeout(timeout, f"pipeline {name!r}")
        self.tags = check_names(tags, "tags", subject)
        self.description = description
        self.include = checked_globs(include, subject)
        if enable_cache:
            from flowyml.authoring.imported_files import note_modules

            note_modules()
        self.enable_cache = enable_cache
        self._schedule = None if schedule is None else _checked_schedule(schedule, subject)
        self.engines = engine_options(engines, f"pipeline {name!r}")
        self._file = defining_file(self)
        self._line = users_line()
        self._calls: list[Call] = []
        self._grouping = Grouping()
        self._plan: Plan | None = None
        self._planned: list[Step[..., Any]] = []
        self._types: Mapping[str, object] = {}
        self._cached: tuple[Plan, Plan] | None = None  # the plan, and the same with the data for caching
        self._refresh: bool | tuple[str, ...] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "run" in cls.__dict__:
            raise OverrideError(
                f"{cls.__name__} overrides Pipeline.run(), which executes nothing since 1.0. Subclass "
                f"flowyml.orchestrators.LocalOrchestrator, override execute(pipeline, run_id, context), and run with "
                f"pipeline.run(on={cls.__name__}Orchestrator())."
            )

    @adds_source_line
    def add_step(self, step: Step[..., Any] | Mapped | list[Any]) -> Pipeline:
        """Add a step; returns the pipeline, so that calls can be chained.

        ``step.map(config="configs")`` adds a step that runs for each item of a list.
        """
        if isinstance(step, Mapped):
            return self._add_mapped(step)
        if not isinstance(step, Step):
            raise DefinitionError(f"add_step takes a function with @step, not {step!r:.80}.")
        self._add(step, self._grouping.current)
        return self

    def _add(self, step: Step[..., Any], group: str, items: Mapping[str, Source] = {}) -> None:
        self._grouping.note_step()
        line = _line_of(step) or users_line()
        self._calls.append(Call(step, step.name, step.outputs, line=line, group=group, items=items))
        self._plan = None

    def _add_mapped(self, mapped: Mapped) -> Pipeline:
        step = mapped.step
        if mapped.fixed:
            raise DefinitionError(
                f"step {step.name!r}: partial(…) works only in a @pipeline function; here, put what is the same "
                f"for all items into the context."
            )
        lists = tuple(
            Input(name, FromParameter(value) if isinstance(value, str) else list_source(f"map({name}=…)", value))
            for name, value in mapped.over.items()
        )
        options = step.step_options
        loop = Loop(name=step.name, over=lists, max_parallel=options.max_parallel, on_item_error=options.on_item_error)
        with self._grouping.open(loop) as opened:
            self._add(step, opened.name, {item.name: FromItem(opened.name, item.name) for item in lists})
        return self

    @adds_source_line
    def when(self, condition: Callable[[Any], Any], *, name: str | None = None) -> AbstractContextManager[None]:
        """Add the steps of the block to a branch: ``with pipeline.when(lambda it: it.score > 0.9):``.

        The function gets an object with the outputs and parameters of the pipeline, by their names, and returns a
        condition on them, as ``flowyml.when`` takes it. Steps in branches of one choice may have outputs of the same
        name: a step that takes the name gets the output of the step that ran. Raises ``DefinitionError``.
        """
        grouping = self._grouping_for("when")
        return grouping.choice("pipeline.when", named_condition(condition), name, joins=False)

    @adds_source_line
    def elif_(self, condition: Callable[[Any], Any], *, name: str | None = None) -> AbstractContextManager[None]:
        """Add the steps of the block to a branch that is tried if no preceding branch of the choice was taken."""
        grouping = self._grouping_for("elif_")
        return grouping.choice("pipeline.elif_", named_condition(condition), name, joins=True)

    @adds_source_line
    def otherwise(self, *, name: str = "otherwise") -> AbstractContextManager[None]:
        """Add the steps of the block to the branch that is taken if no preceding branch of the choice was taken."""
        return self._grouping_for("otherwise").choice("pipeline.otherwise", None, name, joins=True)

    @adds_source_line
    def cleanup(self, *, name: str = "clean-up") -> AbstractContextManager[Any]:
        """Add the steps of the block to those that run when all others have ended, as ``flowyml.cleanup`` does."""
        return self._grouping_for("cleanup").cleanup("pipeline.cleanup", name)

    @adds_source_line
    def add_control_flow(self, choice: If) -> Pipeline:
        """Add a choice between two steps, as in FlowyML 0.x; for more steps use ``with pipeline.when(…):``."""
        if not isinstance(choice, If):
            raise DefinitionError(f"add_control_flow takes an If(…), not {choice!r:.80}.")
        with self.when(choice.condition):
            self.add_step(choice.then_step)
        if choice.else_step is not None:
            with self.otherwise():
                self.add_step(choice.else_step)
        return self

    def _grouping_for(self, verb: str) -> Grouping:
        return self._grouping

    @property
    def steps(self) -> tuple[Step[..., Any], ...]:
        """The steps in the order in which they were added or called, each with its name in this pipeline.

        Raises ``DefinitionError`` if the pipeline's function is wrong.
        """
        with errors_at(self._line):
            calls = self._record().calls
        return tuple(call.step if call.name == call.step.name else call.step.options(name=call.name) for call in calls)

    def compile(self) -> Plan:
        """Return the plan: the same pipeline gives the same bytes in any process. Raises ``DefinitionError``."""
        with errors_at(self._line):
            steps = [call.step for call in self._record().calls]
            if self._plan is None or steps != self._planned:  # a cell of a notebook redefined one
                self._plan, self._planned = self._compiled(), steps
            return self._with_caching(self._plan)

    def _with_caching(self, plan: Plan) -> Plan:
        """Add caching to the plan: code and its state may change while the pipeline stays the same."""
        calls = self._record().calls
        if self.enable_cache is not False and (self.enable_cache or any(c.step.step_options.cache for c in calls)):
            from flowyml.authoring.caching import included_data, with_caching

            data = included_data(self._included()) if self.include else ()
            before = self._cached[1] if self._cached and self._cached[0] is plan else None
            cached = with_caching(plan, calls, enabled=self.enable_cache, data=data, before=before)
            self._cached, plan = (plan, cached), cached
        return plan.with_refresh(self._refresh)

    def refreshed(self, refresh: bool | str | Iterable[str]) -> Pipeline:
        """Return a copy whose cached steps run again and save their new results: all of them, or the named ones."""
        refreshed = copy.copy(self)
        subject = f"Pipeline {self.name!r}"
        refreshed._refresh = refresh if isinstance(refresh, bool) else check_names(refresh, "refresh", subject)
        return refreshed

    @takes_a_dict
    def run(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        on: str | Orchestrator | None = None,
        run_id: str | None = None,
        force: bool = False,
        refresh: bool | str | Iterable[str] = False,
    ) -> PipelineResult:
        """Run and wait for the end, in this process unless ``on`` names another orchestrator.

        A failed run is a result whose ``success`` is false; ``result.raise_for_status()`` raises it. ``on`` is an
        orchestrator, an engine's name or a configured target; by default FLOWYML_ORCHESTRATOR or ``"local"``.
        ``force`` and ``refresh`` are as in ``submit``.
        """
        if refresh is not False:
            return self.refreshed(refresh).run(parameters, on=on, run_id=run_id, force=force)
        from flowyml.core.notebook import in_notebook
        from flowyml.orchestrators.submission import new_run_id

        self._stop_if_loading("run")
        run_id = new_run_id(self.name) if run_id is None else run_id
        if not self._has_steps():
            from flowyml.authoring.empty_run import run_nothing

            return run_nothing(self.name, self.hooks, self.context, run_id)
        values = self.check_parameters(parameters)
        if self.include:  # a run in this process copies no files, but a glob that matches nothing is an error anyway
            with errors_at(self._line):
                self._included()
        forced = {"force": True} if force else {}  # an execute() that a user overrides need not know it
        result = _resolve(on).execute(self, run_id, values, **forced)
        with suppress(Exception):  # the result is there, whatever becomes of its picture
            return replace(result, graph=self._graph(result.parameters)) if in_notebook() else result
        return result

    @takes_a_dict
    def submit(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        on: str | Orchestrator | None = None,
        run_id: str | None = None,
        force: bool = False,
        refresh: bool | str | Iterable[str] = False,
    ) -> SubmissionResult:
        """Start a run and return its handle at once. Submitting a ``run_id`` again returns the same run.

        On an engine that runs only deployed pipelines, ``force`` replaces another pipeline's deployment of this name;
        without ``force``, that raises ``OwnershipError``. ``refresh=True`` runs all cached steps again and saves the
        new results; a list of names does so for these steps only.
        """
        if refresh is not False:
            return self.refreshed(refresh).submit(parameters, on=on, run_id=run_id, force=force)
        self._stop_if_loading("submit")
        return _resolve(on).run_pipeline(self, run_id, parameters=parameters, force=force)

    def deploy(self, *, on: str | Orchestrator | None = None, force: bool = False) -> Deployment:
        """Deploy the pipeline to an engine without running it, with the schedule that it declares, if any.

        Raises ``OwnershipError`` if another pipeline of this name is deployed there, which ``force`` replaces.
        """
        self._stop_if_loading("deploy")
        return _resolve(on).deploy_pipeline(self, force=force)

    @takes_a_dict
    def schedule(
        self,
        schedule_type: str,
        value: object,
        *,
        on: str | Orchestrator | None = None,
        timezone: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        catch_up: bool = False,
        parameters: Mapping[str, Any] | None = None,
        paused: bool = False,
        force: bool = False,
    ) -> ScheduleInfo:
        """Let the engine's own scheduler run the pipeline; the same call again updates the schedule in place.

        ``schedule_type`` and ``value`` are as in ``Schedule.of``. If the pipeline declares another schedule, its next
        deployment puts that one back. Raises ``ScheduleError``, and ``OwnershipError`` if
        another pipeline of this name has a schedule there, which ``force`` replaces.
        """
        self._stop_if_loading("schedule")
        from flowyml.core.schedule import Schedule

        schedule = Schedule.of(
            schedule_type,
            value,
            timezone=timezone,
            start=start,
            end=end,
            catch_up=catch_up,
            parameters={} if parameters is None else parameters,
            paused=paused,
        )
        return _resolve(on).schedule_pipeline(self, schedule, force=force)

    @property
    def origin(self) -> Origin:
        """The origin of the pipeline: its project and its file."""
        return origin_of(self._file)

    @property
    def revision(self) -> str | None:
        """The git commit of the pipeline's file, with ``-dirty`` at its end if the file was changed since."""
        from flowyml.authoring.git_revisions import revision_of

        return revision_of(self._file)

    def code(self) -> Code:
        """Return the functions and hooks in this process."""
        calls, plan = self._record().calls, self.compile()
        functions = {call.name: call.step.function for call in calls}
        if not any(step.caching for step in plan):
            return Code(functions, self.hooks)
        from flowyml.authoring.caching import live_states

        return Code(functions, self.hooks, live_states(plan, calls))

    def bundle(self, plan: Plan | None = None) -> Bundle:
        """Return code and plan in one file that plain Python runs. ``plan`` replaces the compiled one."""
        from flowyml.authoring.sources import collect

        with errors_at(self._line):
            bundle = collect(
                plan or self.compile(),
                {call.name: call.step for call in self._record().calls},
                self.hooks,
                self._home(),
                self.include,
                self.origin,
            )
        return replace(bundle, revision=self.revision)

    def imports(self) -> set[str]:
        """Return the packages that the modules of the steps import, directly or through other modules of the project.

        They are named by the first parts of their modules' names: ``sklearn``. A notebook's cells are not read: there,
        the modules in its globals count.
        """
        from flowyml.authoring.module_files import imported_files

        modules = {getattr(call.step.function, "__module__", None) or "" for call in self._record().calls}
        if "__main__" in modules and shipped_name("__main__") is None:
            live = vars(sys.modules["__main__"]).values()
            modules |= {value.__name__ for value in live if isinstance(value, ModuleType)}
        return imported_files(modules)[1]

    def check_parameters(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return all parameters of a run, defaults filled in. Raises ``ParameterError``."""
        checked = check_values(self.name, self.compile().parameters, values)
        for name, value in (values or {}).items():
            check_restored(name, self._types[name], value, checked[name])
        return checked

    def locate(self, error: DefinitionError) -> None:
        """Add the file and line of its step, or of the pipeline, to an error that names none."""
        lines = {call.name: call.line for call in self._record().calls}
        put_line(error, lines.get(error.step) or self._line)

    def _included(self) -> Mapping[str, Path]:
        from flowyml.authoring.sources import included_files

        return included_files(self.include, self._home() or self._record().calls[0].step.function, self.name)

    def _stop_if_loading(self, verb: str) -> None:
        from flowyml.runtime.loading import stop_if_loading

        stop_if_loading(self.name, verb)

    # Methods that pipelines by calls override.

    def _record(self) -> Recorded:
        calls = [(call, newest(call.step)) for call in self._calls]
        current = [
            call if step is call.step else call._replace(step=step, outputs=step.outputs, line=_line_of(step))
            for call, step in calls
        ]
        return Recorded(current, self._grouping.groups, None, self._grouping.lines)

    def _own_types(self) -> Mapping[str, object]:
        return {}

    def _own_parameters(self) -> tuple[Parameter, ...]:
        return ()

    def _home(self) -> Callable[..., Any] | None:
        """Return the function whose file is the pipeline's file; None if that is the first step's."""
        return None

    def _has_steps(self) -> bool:
        return bool(self._calls)

    def _compiled(self) -> Plan:
        from flowyml.authoring.annotations import check_annotations, with_dates
        from flowyml.authoring.compiler import compile_outputs, compile_steps, is_flat, with_types
        from flowyml.authoring.constants import as_in_plan
        from flowyml.authoring.scopes import check_loops

        calls, recorded_groups, returned, lines = self._record()
        self._grouping.check_blocks()
        if not calls:
            raise DefinitionError(f"Pipeline {self.name!r} has no steps. Add some with add_step(…).")
        steps, groups = compile_steps(self.name, calls, self.context, recorded_groups)
        wired = {step.name: step.inputs for step in steps}
        takers = [(call.step.function, item) for call in calls for item in wired[call.name]]
        types = {**self._own_types(), **{name: annotation_of(name, takers, it) for name, it in self.context.items()}}
        self._types = types
        structure = Groups(groups, steps)
        by_name = {call.name: call for call in calls}
        check_loops(structure, by_name, types)
        if groups:
            structure = Groups(groups := with_dates(structure, by_name, types), steps)
        if returned is not None and self.outputs is not None:
            raise DefinitionError(f"Pipeline {self.name!r} returns its outputs; drop outputs=[…].")
        context = {name: context_parameter(name, types[name], value) for name, value in self.context.items()}
        parameters = (*self._own_parameters(), *context.values())
        schedule = self._declared_schedule(parameters)
        is_old = not (groups or schedule) and all(map(is_flat, steps))
        plan = Plan(
            name=self.name,
            steps=with_types(steps, calls, {name: kind for name, kind in types.items() if is_rich(kind)}, groups),
            parameters=parameters,
            outputs=compile_outputs(self.name, structure, steps, self.outputs, returned),
            hooks=tuple(_class_name(type(hook)) for hook in self.hooks),
            timeout_seconds=self.timeout,
            tags=self.tags,
            description=storable_text(self.description),
            options=self.engines,
            groups=tuple(map(as_in_plan, groups)),
            schedule=schedule,
            schema_version=FLAT_SCHEMA_VERSION if is_old else SCHEMA_VERSION,
        )
        check_annotations(structure, by_name, types, steps, lines)
        defaults = {parameter.name: parameter.default for parameter in plan.parameters if not parameter.required}
        check_values(self.name, [parameter for parameter in plan.parameters if not parameter.required], defaults)
        return plan

    def _declared_schedule(self, parameters: Sequence[Parameter]) -> dict[str, Any]:
        """Return the schedule as JSON, with the values of its parameters as a run has them."""
        if self._schedule is None:
            return {}
        checked = check_values(self.name, parameters, self._schedule.parameters)
        values = {name: checked[name] for name in self._schedule.parameters}
        return replace(self._schedule, parameters=values).to_dict(declared=True)

    @adds_source_line
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add this pipeline's steps to the pipeline within whose function it is called, as a group with its name.

        Arguments are its parameters; each can be an output of a step. Returns what its function returns; for a pipeline
        by names, its outputs, a dict if there are several. Hooks, a timeout and engine options are for whole runs: a
        pipeline that has some is refused. Raises ``DefinitionError``, also anywhere else.
        """
        recording = recorder.get()
        if not isinstance(recording, Recorder):
            raise DefinitionError(
                f"Pipeline {self.name!r} is called only within the function of another pipeline. Run it with "
                f"{self.name}.run()."
            )
        if mine := [name for name in ("hooks", "timeout", "engines") if getattr(self, name)]:
            raise DefinitionError(
                f"Pipeline {self.name!r} has {' and '.join(mine)}, which are for whole runs. Give them to the pipeline "
                f"that calls it."
            )
        with recording.section(self.name, self.description, self._defaults_in_another(), self._home() or self):
            return self._recorded_in(recording, args, kwargs)

    def _defaults_in_another(self) -> Mapping[str, Any]:
        return {}

    def _recorded_in(self, recording: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        from flowyml.authoring.compiler import record_by_names

        if args:
            raise DefinitionError(f"Pipeline {self.name!r} takes its parameters by name: {self.name}(rows=…).")
        if unknown := sorted(kwargs.keys() - self.context.keys()):
            raise DefinitionError(
                f"Pipeline {self.name!r} has no parameter {unknown[0]!r}. It has {', '.join(self.context) or 'none'}."
            )
        if self._grouping.groups:
            raise DefinitionError(
                f"Pipeline {self.name!r} has branches, loops or clean-up wired by name, which another pipeline "
                f"cannot call. Write it as a function with @pipeline."
            )
        parameters = {**self.context, **kwargs}
        return record_by_names(recording, self.name, self._record().calls, self.context, parameters, self.outputs)

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}>"

    def _repr_html_(self) -> str | None:
        """Return the display in a notebook: the graph, or the plain ``repr`` for a pipeline with errors."""
        try:
            return self._graph({})
        except DefinitionError:
            return None

    def _graph(self, values: Mapping[str, Any]) -> str:
        """Return the graph as an SVG, with these values of parameters in place of their defaults."""
        from flowyml.graph import svg

        plan = self.compile()
        parameters = tuple(
            replace(item, default=values[item.name], required=False) if item.name in values else item
            for item in plan.parameters
        )
        return svg(replace(plan, parameters=parameters))


def _line_of(step: Step[..., Any]) -> SourceLine | None:
    return line_of(inspect.unwrap(step.function))


def _class_name(kind: type) -> str:
    """Return the name of a class on workers: a script and a command that imports it compile to the same plan."""
    return f"{shipped_name(kind.__module__) or kind.__module__}.{kind.__qualname__}"


def _resolve(on: str | Orchestrator | None) -> Orchestrator:
    from flowyml.orchestrators.targets import resolve

    return resolve(on)


def _checked_schedule(schedule: object, subject: str) -> Schedule:
    from flowyml.core.schedule import Schedule

    if isinstance(schedule, Schedule):
        return schedule
    raise DefinitionError(
        f"{subject}: schedule={schedule!r:.80} is not a Schedule. Write schedule=Schedule.of('daily', '03:30'), with "
        f"Schedule from flowyml."
    )


def _checked_hooks(hooks: Iterable[PipelineHook], subject: str) -> tuple[PipelineHook, ...]:
    if not isinstance(hooks, Iterable):
        raise DefinitionError(f"{subject}: hooks={hooks!r:.80} is not a list. Write hooks=[…], even for a single one.")
    return tuple(check_hook(hook, subject) for hook in hooks)
