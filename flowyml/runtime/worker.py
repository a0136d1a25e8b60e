"""Work on a run in one process: load the code, read a step's inputs, run the step and pack its outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml.artifacts import Store, artifact_key, open_store, pack, run_place, unpack
from flowyml.artifacts.folders import files_here
from flowyml.artifacts.pickling import decide_on_pickles, pickles_decided
from flowyml.core.dates import RunDates
from flowyml.core.errors import (
    ArtifactError,
    FlowymlError,
    MissingLibraryError,
    NotPicklableError,
    OutputError,
    ParameterError,
    StepError,
)
from flowyml.core.hooks import PipelineHook, fire
from flowyml.core.item_names import labelled
from flowyml.core.logs import log_to_reader
from flowyml.core.modules import first_version
from flowyml.core.plain_text import storable_text
from flowyml.core.retry_policy import error_names
from flowyml.plan.codec import decode
from flowyml.plan.groups import Branch, Loop
from flowyml.plan.model import Constant, FromEither, FromItem, FromStep, Input, Plan, Source, Step
from flowyml.plan.parameters import as_declared, days_of, is_of_type, is_too_deep, too_deep, wanted
from flowyml.runtime.decider import checked_lists, is_taken
from flowyml.runtime.execution import HOST_MASKS, TAKEN_FILE, AttemptOutputs, run_step, step_error
from flowyml.runtime.hooks import fire_plain
from flowyml.runtime.loading import load_hooks, load_step
from flowyml.runtime.parent_env import apply_parent_env
from flowyml.runtime.reporting import reported
from flowyml.runtime.running_step import running
from flowyml.runtime.shutdown import StepStopped
from flowyml.runtime.tracebacks import described, left_behind, traceback_text

if TYPE_CHECKING:
    from flowyml.runtime.taken import Taken

__all__ = ["Worker"]

logger = logging.getLogger("flowyml.runtime")

_ADVICE: Mapping[type[ArtifactError], str] = {
    NotPicklableError: "Return plain data, arrays or tables.",
    MissingLibraryError: "Install it where the steps run.",
    ArtifactError: "Check the artifact store, or set FLOWYML_ARTIFACTS to another one.",
}


class Worker:
    """Runs steps of one run from an unpacked bundle, in this process.

    ``artifacts`` is the store of outputs; inputs may also be in one of ``also``. ``place`` is the run's prefix in that
    store: see ``run_place``. Without it, as in a run by hand, outputs of any run are read. ``dates`` are those of the
    run, as ``RunDates.plain()`` returns them. ``is_read`` is True if another process reads the output of this one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        artifacts: str | None = None,
        also: Sequence[str] = (),
        place: str = "",
        parameters: Mapping[str, Any] = {},
        caller: Mapping[str, Any] = {},
        dates: Mapping[str, str] = {},
        is_read: bool = False,
    ) -> None:
        apply_parent_env(caller)
        self._no_pickles = caller["no_pickles"] if "no_pickles" in caller else decide_on_pickles()
        self._is_read = is_read
        self._levels = caller.get("levels", {})
        self._kept = caller.get("cache")  # the store of cached results, where that is not the run's
        self.folder = folder
        self.run_id = run_id
        self.artifacts = artifacts
        self.also = also
        self.place = place
        self.parameters = parameters
        self.dates = RunDates.of(dates)
        self.plan: Plan = decode((folder / "plan.json").read_bytes())
        self._functions: dict[str, Callable[..., Any]] = {}

    @cached_property
    def store(self) -> Store:
        return open_store(self.artifacts)

    @cached_property
    def hooks(self) -> Sequence[PipelineHook]:
        """The hooks; none, with a line in the log, if they cannot be loaded."""
        try:
            return load_hooks(self.folder)
        except (Exception, SystemExit):
            logger.exception("The hooks of pipeline %r cannot be loaded; the run goes on without them.", self.plan.name)
            return ()

    @cached_property
    def _earlier_outputs(self) -> Taken | None:
        if not (self.folder / TAKEN_FILE).is_file():
            return None
        from flowyml.runtime.taken import Taken

        return Taken.read(self.folder, self.run_id)

    @property
    def _place(self) -> str:
        return self.place or run_place("by-hand", self.plan.name, self.run_id)

    def set_up_logging(self) -> None:
        """Print log messages from now on. Called after loading the user's code, which may set up logging itself."""
        log_to_reader(self._levels, marked=self._is_read)

    def preload(self) -> None:
        """Import the modules of all steps. An import that fails will fail again, visibly, when its step runs."""
        for step in self.plan:
            try:
                self.function(step)
            except Exception:
                logger.debug("step %r cannot be loaded", step.name, exc_info=True)
        _ = self.hooks, self._earlier_outputs  # processes that are forked for steps have them
        for step in self.plan:
            for package in step.caching.packages if step.caching else ():
                first_version(package)  # which is the one that these imports got

    def function(self, step: Step) -> Callable[..., Any]:
        """Return the function of a step. Raises whatever its module raises when it is imported."""
        if step.name not in self._functions:
            self._functions[step.name] = load_step(self.folder, step)
        return self._functions[step.name]

    def perform(
        self,
        step: Step,
        packed: Mapping[str, Any],
        attempt: int = 1,
        index: Sequence[int] = (),
        secrets: Mapping[str, str] = {},
    ) -> AttemptOutputs:
        """Run one attempt: packed inputs to packed outputs. Raises what the step raises, and ``OutputError``."""
        with pickles_decided(self._no_pickles), files_here():
            return self._perform(step, packed, attempt, index, secrets)

    def _perform(
        self, step: Step, packed: Mapping[str, Any], attempt: int, index: Sequence[int], secrets: Mapping[str, str]
    ) -> AttemptOutputs:
        label = labelled(step.name, index)
        if (earlier := self._read_earlier_outputs(step, label, attempt)) is not None:
            return self._reported(step, label, earlier)
        if step.caching is None or not self._is_read:  # people who run a step by hand want to see it run
            return self._run(step, packed, attempt, index, secrets)
        from flowyml.runtime.caching import Depends, StepCache

        compute = partial(self._run, step, packed, attempt, index, secrets)
        try:
            contents = {
                item.name: self._content(step, item, packed) for item in step.inputs if _has_value(step, item, packed)
            }
        except FlowymlError:  # a faulty input is the step's own error
            return compute()
        try:
            cached = open_store(self._kept) if self._kept else self.store
        except ArtifactError as error:
            logger.warning("step %r is not cached: %s", label, error)
            return compute()
        cache = StepCache(
            step, Depends(contents, dates=self.dates.plain()), pipeline=self.plan.name, run_id=self.run_id,
            store=self.store, cached=cached, key_of=partial(artifact_key, self._place, label, attempt),
        )  # fmt: skip
        outputs = cache.outputs(compute)
        return self._reported(step, label, outputs) if outputs.cached_from else outputs

    def _read_earlier_outputs(self, step: Step, label: str, attempt: int) -> AttemptOutputs | None:
        if self._earlier_outputs is None:
            return None
        from flowyml.runtime.taken import not_taken

        try:
            return self._earlier_outputs.outputs(label, self.store, partial(artifact_key, self._place, label, attempt))
        except ArtifactError as error:
            raise step_error(StepError, step, not_taken(label, error)) from error

    def _reported(self, step: Step, label: str, outputs: AttemptOutputs) -> AttemptOutputs:
        """Say that a step was not run, in its log and to the hooks."""
        self.set_up_logging()
        print(outputs.note(label), flush=True)  # in the step's log, whatever levels the user's code has set
        fire(self.hooks, "on_step_cached", step.name, outputs.cached_from)
        return outputs

    def _content(self, step: Step, item: Input, packed: Mapping[str, Any]) -> Any:
        from flowyml.artifacts.content_digest import content_of_value

        origin = self._list_of(item.source) if isinstance(item.source, FromItem) else item.source
        if isinstance(origin, FromStep | FromEither) and item.name in packed:
            return _content(packed[item.name], self._loops_of(step.group, item.source))
        return content_of_value(self._input(step, item, packed))

    def _run(
        self, step: Step, packed: Mapping[str, Any], attempt: int, index: Sequence[int], secrets: Mapping[str, str]
    ) -> AttemptOutputs:
        try:
            function = self.function(step)
            self.set_up_logging()
            inputs = {
                item.name: self._input(step, item, packed) for item in step.inputs if _has_value(step, item, packed)
            }
        except StepStopped:  # the process that stops it fires the hooks
            raise
        except BaseException as error:
            fire(self.hooks, "on_error", step.name, error)
            raise
        with running(self.plan.name, self.run_id, step, self.dates, index):
            keep = partial(self._packed, step, labelled(step.name, index), attempt, secrets)
            return AttemptOutputs(run_step(step, function, inputs, self.hooks, keep=keep, secrets=secrets))

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run a step, call hooks, or evaluate a branch or a loop, for another process: see ``StepProcesses``.

        Return the result as plain JSON, failures included. Raises only ``StepStopped``.
        """
        body, secrets = request["body"], request.get("secrets", {})
        try:
            if request["kind"] == "hook":
                hooks = self.hooks
                self.set_up_logging()
                fire_plain(hooks, request["event"], body)
                return {"outputs": {}}
            if request["kind"] == "look":
                return {"outputs": self.evaluate(request["group"], body, request["index"])}
            step = self.plan.by_name[request["step"]]
            outputs = self.perform(step, body, request["attempt"], request["index"], secrets)
            return {"outputs": outputs, **({"cached": outputs.cached_from} if outputs.cached_from else {})}
        except StepStopped:
            raise
        except BaseException as error:
            return {"failure": self._failure(error, secrets)}

    def evaluate(self, group: str, packed: Mapping[str, Any], index: Sequence[int] = ()) -> dict[str, Any]:
        """Evaluate a branch: whether it is ``taken``; or a loop: its lists by name, each item packed.

        ``packed`` are the values that it depends on: those of a loop by the names of its lists, those of a branch by
        their position among ``Groups.sources``, as a string. ``index`` is that of the group's item. Raises
        ``StepError``.
        """
        with pickles_decided(self._no_pickles):
            scope = self.plan.structure.by_name[group]
            if isinstance(scope, Loop):
                return self._lists(scope, packed, index)
            assert isinstance(scope, Branch)
            sources = list(self.plan.structure.sources(scope))

            def value_of(source: Source) -> Any:
                if isinstance(source, Constant):
                    return source.value
                return self._value(source, scope.parent, packed[str(sources.index(source))])

            branches = self.plan.structure.choices[scope.choice]
            return {"taken": is_taken(branches[: branches.index(scope) + 1], value_of)}

    def _lists(self, loop: Loop, packed: Mapping[str, Any], index: Sequence[int]) -> dict[str, Any]:
        values = {item.name: self._value(item.source, loop.parent, packed[item.name]) for item in loop.over}
        label = labelled(loop.name, index)
        return {
            name: [
                pack(item, self.store, key=partial(artifact_key, self._place, label, 0, f"{name}-{number}"))
                for number, item in enumerate(items)
            ]
            for name, items in checked_lists(loop, values).items()
        }

    def _value(self, source: Source, group: str, packed: Any) -> Any:
        """Return a value for a step or group in ``group``: only values of steps are unpacked."""
        origin = self._list_of(source) if isinstance(source, FromItem) else source
        if isinstance(origin, FromStep | FromEither):
            return self._unpacked(packed, self._loops_of(group, source))
        return packed

    def _failure(self, error: BaseException, secrets: Mapping[str, str] = {}) -> dict[str, Any]:
        masked = _without(secrets)
        message = str(error) if isinstance(error, FlowymlError) else described(error) + left_behind(error, self.folder)
        return {
            "kind": "output" if isinstance(error, OutputError) else "step",
            "message": storable_text(masked(message)),  # it becomes a part of the engine's state of the run
            "names": list(map(masked, error_names(error))),
            "traceback": storable_text(masked(traceback_text(error, self.folder / "code"))),
        }

    def _input(self, step: Step, item: Input, packed: Mapping[str, Any]) -> Any:
        """Return a value of an input.

        Only values of steps are unpacked; parameters and constants are plain, whatever they look like.
        """
        if isinstance(item.source, FromItem):
            return self._item(step, item, item.source, packed)
        if isinstance(item.source, FromStep | FromEither):
            return self._produced(step, item, packed)
        if isinstance(item.source, Constant):
            return packed.get(item.name, item.source.value)
        name = item.source.name
        value = packed[item.name] if item.name in packed else self._parameter(step, name)
        return self.dates.filled({name: self._checked_parameter(name, value)}, days_of(self.plan.parameters))[name]

    def _checked_parameter(self, name: str, value: Any) -> Any:
        """Check a parameter: an engine's form, or a compiled file run by hand, allows values that FlowyML refuses."""
        if is_too_deep(value):
            raise ParameterError(too_deep(f"Parameter {name!r} of the run"))
        for parameter in self.plan.parameters:
            if parameter.name == name:
                if value != parameter.default and not is_of_type(value, parameter.schema):
                    raise ParameterError(
                        f"Parameter {name!r} of the run must be {wanted(parameter.schema)}, not {value!r:.60}."
                    )
                return as_declared(parameter.schema, value)
        return value

    def _item(self, step: Step, item: Input, origin: FromItem, packed: Mapping[str, Any]) -> Any:
        """Return an item, by the origin of its list: from a step, to be unpacked, or plain JSON."""
        if isinstance(self._list_of(origin), FromStep | FromEither):
            return self._produced(step, item, packed)
        if item.name not in packed:
            raise step_error(StepError, step, f"step {step.name!r} did not get {item.name!r}, its item of the loop.")
        if is_too_deep(packed[item.name]):
            raise ParameterError(too_deep(f"An item of loop {origin.loop!r}"))
        return packed[item.name]

    def _list_of(self, origin: FromItem) -> Source:
        """Return the origin of an item's list; an item may itself be the list of an inner loop."""
        loop = self.plan.structure.by_name[origin.loop]
        assert isinstance(loop, Loop)
        source = next(item.source for item in loop.over if item.name == origin.name)
        return self._list_of(source) if isinstance(source, FromItem) else source

    def _produced(self, step: Step, item: Input, packed: Mapping[str, Any]) -> Any:
        source = _described(item.source)
        if item.name in packed:
            try:
                return self._unpacked(packed[item.name], self._loops_of(step.group, item.source))
            except ArtifactError as error:
                raise ArtifactError(f"step {step.name!r} cannot read {item.name!r}, {source}: {error}") from error
        raise step_error(StepError, step, f"step {step.name!r} did not get {item.name!r}, {source}.")

    def _loops_of(self, group: str, source: Source) -> Sequence[Loop]:
        """Return the loops whose items' values reach ``group`` as a list."""
        return self.plan.structure.loops_between(source.step, group) if isinstance(source, FromStep) else ()

    def _unpacked(self, packed: Any, loops: Sequence[Loop]) -> Any:
        if not loops:
            return unpack(packed, self.store, *map(open_store, self.also), place=self.place)
        if loops[0].on_item_error == "continue":
            return [(index, self._unpacked(value, loops[1:])) for index, value in packed]
        return [self._unpacked(value, loops[1:]) for value in packed]

    def _parameter(self, step: Step, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        for parameter in self.plan.parameters:
            if parameter.name == name and not parameter.required:
                return parameter.default
        raise ParameterError(f"step {step.name!r} needs the run parameter {name!r}, which has no value and no default.")

    def _packed(
        self, step: Step, label: str, attempt: int, secrets: Mapping[str, str], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        packed = {}
        for name, value in outputs.items():
            if secrets and _holds(value, secrets):
                raise step_error(
                    OutputError, step,
                    f"step {step.name!r}: output {name!r} contains the value of a secret. Outputs are kept, and "
                    f"engines show them. Let each step that needs it name the secret: secrets=….",
                )  # fmt: skip
            key = partial(artifact_key, self._place, label, attempt, name)
            try:
                packed[name] = pack(value, self.store, key=key, preview=self._preview(step, name, value, key, secrets))
            except ArtifactError as error:
                advice = next(text for kind, text in _ADVICE.items() if isinstance(error, kind))
                raise step_error(
                    OutputError, step,
                    f"step {step.name!r}: output {name!r} cannot be passed to other steps. {error}. {advice}",
                ) from error  # fmt: skip
        return packed

    def _preview(
        self, step: Step, output: str, value: Any, key: Callable[[], str], secrets: Mapping[str, str]
    ) -> dict[str, Any]:
        from flowyml.artifacts.previews import preview_of

        mask = _without(secrets)
        facts, kind = reported(output, mask), step.kinds.get(output, "")
        return preview_of(value, self.store, key, kind=kind, facts=facts, mask=mask)


def _content(packed: Any, loops: Sequence[Loop]) -> list[Any]:
    """Return the content of a packed value of a step, or of a list of those of a loop's items."""
    from flowyml.artifacts.content_digest import content_of

    if not loops:
        return content_of(packed)
    if loops[0].on_item_error == "continue":
        return ["list", *(["list", ["json", index], _content(value, loops[1:])] for index, value in packed)]
    return ["list", *(_content(value, loops[1:]) for value in packed)]


def _without(secrets: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that removes from a text the values of secrets, and what the engine keeps secret here."""
    masks = list(HOST_MASKS)
    if secrets:
        from flowyml.runtime.secrets import Mask

        masks.append(Mask(secrets.values()).text)
    return lambda text: reduce(lambda shown, mask: mask(shown), masks, text)


def _holds(value: Any, secrets: Mapping[str, str]) -> bool:
    from flowyml.runtime.secrets import Mask

    return Mask(secrets.values()).finds(value)


def _has_value(step: Step, item: Input, packed: Mapping[str, Any]) -> bool:
    """Return False for an optional input that is missing: the function's default replaces it."""
    may_be_missing = step.run_if != "all_success" and isinstance(item.source, FromStep | FromEither)
    return not may_be_missing or item.name in packed


def _described(source: Source) -> str:
    match source:
        case FromStep(step, output):
            return f"output {output!r} of step {step!r}"
        case FromEither(outputs):
            return f"either of {' or '.join(map(_described, outputs))}"
        case FromItem(loop, _):
            return f"an item of loop {loop!r}"
        case _:
            return repr(source)
