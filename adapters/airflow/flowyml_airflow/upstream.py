"""Read the tasks before a task, in a run with loops and branches: their ends and their values.

This file travels in the bundle. It asks Airflow 3 through the task's line to its supervisor, Airflow 2 in its database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flowyml.plan.groups import Loop
from flowyml.plan.model import Constant, FromEither, FromItem, FromParameter, FromStep, Source
from flowyml.plan.parameters import as_declared
from flowyml.runtime.decider import End, apply_rule
from flowyml_airflow.flow import Flow, Task
from flowyml_airflow.names import STEPS_KEY, xcom_key
from flowyml_airflow.task_exceptions import no_output
from flowyml_airflow.xcoms import restored

__all__ = ["TAKEN", "Upstream", "item_key"]

TAKEN = "taken"
"""The XCom key of the branch that a task chose."""

_REMOVED = "removed"  # as an item beyond the end of a list that has become shorter since the run was cleared
_ENDS = {
    "success": End.OK,
    "skipped": End.SKIPPED,
    "failed": End.FAILED,
    "upstream_failed": End.FAILED,
    _REMOVED: End.FAILED,
}
_UNMAPPED = -1


def item_key(name: str, index: int) -> str:
    """Return the XCom key of one item of a list that is stored elsewhere, item by item."""
    return f"{xcom_key(name)}.{index}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """A step of a loop for a reader outside of the loop: its end, and the completed items."""

    end: End | None
    indexes: Sequence[int] = ()


class Upstream:
    """The tasks before the task of this ``context``."""

    def __init__(
        self,
        flow: Flow,
        context: Mapping[str, Any],
        parameters: Mapping[str, Any],
        pack: Callable[[FromStep, Any, int], Any] = lambda output, value, index: value,
    ) -> None:
        self.flow = flow
        self.index = int(getattr(context["ti"], "map_index", _UNMAPPED))
        self._context = context
        self._parameters = parameters
        self._pack = pack
        self._states: dict[str, Mapping[int, str | None]] = {}
        self._parts: dict[str, _Parts] = {}

    def decide(self, task: Task) -> End | None:
        """Decide by its branch and the ends before it whether a task runs (OK); None while that is undecided."""
        branch, gate = self.flow.branch(task), self.flow.gate(task)
        if branch and gate:
            end = self.end_of_task(gate, self._index_of(gate))
            if end is not End.OK:
                return end
            if self.taken(gate) != branch.name:
                return End.SKIPPED
        if task.kind == "choice":  # it may be made before a missing value is needed
            return End.OK
        ends = self._ends(task)
        run_if = self.flow.step(task).run_if if task.kind == "step" else "all_success"
        return apply_rule(run_if, [ends.count(end) for end in End], ends.count(None))

    def taken(self, gate: Task) -> str:
        """Return the name of the branch that a task chose; empty for none.

        Raises ``StepError`` if it has not chosen.
        """
        index = self._index_of(gate)
        chosen: str = self._required(self.flow.id(gate), self.flow.id(gate), TAKEN, index)
        return chosen

    def _ends(self, task: Task) -> list[End | None]:
        """Return the ends of the tasks that a task waits for, without duplicates."""
        group = self.flow.group(task)
        ends: dict[object, End | None] = {}
        for number, source in enumerate(self.flow.sources(task)):
            if isinstance(source, FromStep):
                ends["step", source.step] = self.end(source, group)
            elif isinstance(source, FromEither):
                ends["either", number] = self.end(source, group)
            elif isinstance(source, FromItem):
                ends["item", source.loop] = End.OK
        for name in self.flow.after(task):
            ends["step", name] = self.end(FromStep(name, ""), group)
        return list(ends.values())

    def end(self, source: Source, group: str) -> End | None:
        """Return the end of the source of a value, for a reader in ``group``; None if it has not ended."""
        if isinstance(source, FromEither):
            ends = [self.end(output, group) for output in source.outputs]
            if End.OK in ends:
                return End.OK
            return None if None in ends else End.FAILED if End.FAILED in ends else End.SKIPPED
        if not isinstance(source, FromStep):
            return End.OK
        if loop := self._collected_over(source, group):
            return self._all_items(source.step, loop).end
        return self._end_of_step(source.step, self._index_of(self.flow.steps[source.step]))

    def value(self, source: Source, group: str) -> Any:
        """Return a packed value of a source that ended OK; for a parameter or a constant the value itself.

        Raises ``StepError`` if a task that ended OK left no value, such as one that a person marked as success.
        """
        match source:
            case Constant(value):
                return value
            case FromParameter(name):
                return self.parameter(name)
            case FromItem():
                return self._item(source)
            case FromEither(outputs):
                return next(self.value(each, group) for each in outputs if self.end(each, group) is End.OK)
        if loop := self._collected_over(source, group):
            return self._collected(source, loop)
        return self._output(source, self._index_of(self.flow.steps[source.step]))

    def _output(self, output: FromStep, index: int) -> Any:
        """Return an output of a step.

        The output of an operator of Airflow's own can be any value, and is packed here.
        """
        task, key = self.flow.id(self.flow.steps[output.step]), self.flow.key(output)
        if output.step not in self.flow.operators:
            return self._required(output.step, task, key, index)
        return self._pack(output, self._carried(task, key, index), index)

    def parameter(self, name: str) -> Any:
        """Return a parameter of the run."""
        found = next(each for each in self.flow.plan.parameters if each.name == name)
        value = self._parameters.get(name, found.default)
        return value if value == found.default else as_declared(found.schema, value)

    def pull(self, task: str, key: str, index: int = _UNMAPPED) -> Any:
        """Return the value of an XCom of a task; None if it does not exist."""
        return restored(self._carried(task, key, index))

    def _carried(self, task: str, key: str, index: int) -> Any:
        """Return the value of an XCom as ``xcoms`` encodes it; None if it does not exist."""
        return self._context["ti"].xcom_pull(task_ids=task, key=key, map_indexes=index)

    def _required(self, name: str, task: str, key: str, index: int) -> Any:
        """Return the value of an XCom of a task.

        Raises ``StepError``, with the ``name`` of the step, if it does not exist.
        """
        value = self._carried(task, key, index)
        if value is None:
            raise no_output(name, [index])
        return restored(value)

    def end_of_task(self, task: Task, index: int = _UNMAPPED) -> End | None:
        """Return the end of a task for an item; of the whole task if it was never expanded."""
        states = self.states(self.flow.id(task))
        state = states.get(index, states.get(_UNMAPPED))
        return None if state is None else _ENDS.get(state)

    def _end_of_step(self, step: str, index: int) -> End | None:
        """Return the end of a step.

        A step of an execution group may have ended either way when the whole task failed.
        """
        task = self.flow.steps[step]
        end = self.end_of_task(task, index)
        if task.kind == "step" or end in (None, End.OK):
            return end
        written = (self.pull(self.flow.id(task), STEPS_KEY, index) or {}).get("steps", {})
        return _ENDS.get(written[step]["state"], end) if step in written else end

    def states(self, task: str) -> Mapping[int, str | None]:
        """Return the states of a task by map index."""
        if task not in self._states:
            ask = _states_of_3 if hasattr(self._context["ti"], "get_task_states") else _states_of_2
            self._states[task] = ask(self._context, task)
        return self._states[task]

    # Loops.

    def _collected_over(self, source: FromStep, group: str) -> Loop | None:
        return next(iter(self.flow.structure.loops_between(source.step, group)), None)

    def _index_of(self, task: Task) -> int:
        """Return the map index at which to read another task: this task's own if that one is in a loop."""
        return self.index if self.flow.loop(task) else _UNMAPPED

    def _all_items(self, step: str, loop: Loop) -> _Parts:
        if step not in self._parts:
            self._parts[step] = self._seen(step, loop)
        return self._parts[step]

    def _seen(self, step: str, loop: Loop) -> _Parts:
        """Return the end of a step of a loop for a reader outside, by the same rules as ``flowyml.runtime.walk``."""
        is_listed = True
        if self.flow.has_items_task(loop):
            listed = self.end_of_task(Task("items", loop.name))
            if listed is not End.OK:
                return _Parts(listed)
            labels = self.pull(self.flow.ids.items[loop.name], "return_value")
            is_listed = labels is not None  # else it was marked as success by hand, and nothing was mapped
            if is_listed and not labels:
                return _Parts(End.OK)
        states = self.states(self.flow.id(self.flow.steps[step]))
        there = [index for index, state in states.items() if index == _UNMAPPED or state != _REMOVED]
        ends = {index: self._end_of_step(step, index) for index in sorted(there)}
        if None in ends.values():
            return _Parts(None)
        tolerates_failures = loop.on_item_error == "continue" and is_listed
        ok = [index for index, end in ends.items() if end is End.OK]
        if End.FAILED in ends.values():
            return _Parts(End.OK, ok) if tolerates_failures else _Parts(End.FAILED)
        return _Parts(End.OK, ok) if ok else _Parts(End.SKIPPED)

    def _collected(self, output: FromStep, loop: Loop) -> list[Any]:
        """Return the values of all items, in order; with ``on_item_error="continue"`` pairs with their indexes."""
        indexes = self._all_items(output.step, loop).indexes
        if output.step in self.flow.operators:
            values = [self._output(output, index) for index in indexes]
        else:
            values = self._outputs(output, indexes)
        with_indexes = loop.on_item_error == "continue"
        return [list(pair) for pair in zip(indexes, values, strict=True)] if with_indexes else values

    def _outputs(self, output: FromStep, indexes: Sequence[int]) -> list[Any]:
        """The output of a step for these items. Raises ``StepError`` if an item left none."""
        task, key = self.flow.id(self.flow.steps[output.step]), self.flow.key(output)
        # Read all items in one call. Its list has no indexes: an item that did not complete may have left an XCom, and
        # one that completed none. Then each item is read in a call of its own.
        found = list(self._context["ti"].xcom_pull(task_ids=[task], key=key)) if indexes else []
        others = self.states(task).keys() - set(indexes)
        if len(found) != len(indexes) or any(self._carried(task, key, index) is not None for index in others):
            found = [self._carried(task, key, index) for index in indexes]
        if missing := [index for index, value in zip(indexes, found, strict=True) if value is None]:
            raise no_output(output.step, missing)
        return [restored(value) for value in found]

    def _item(self, source: FromItem) -> Any:
        """Return the item of this task: its map index is the position in the list."""
        around = self.flow.structure.by_name[source.loop]
        items = self.value(self.flow.list_of(source), around.parent)
        if isinstance(items, list | tuple) and not self.is_apart(self.flow.list_of(source), around.parent):
            return items[self.index]
        task = self.flow.ids.items[source.loop]
        return self._required(task, task, item_key(source.name, self.index), _UNMAPPED)

    def is_apart(self, source: Source, group: str) -> bool:
        """Return whether the items of a list are stored one by one: as pairs with an index, they may be references."""
        outputs = source.outputs if isinstance(source, FromEither) else (source,)
        loops = [self._collected_over(each, group) for each in outputs if isinstance(each, FromStep)]
        return any(loop.on_item_error == "continue" for loop in loops if loop)


def _states_of_3(context: Mapping[str, Any], task: str) -> Mapping[int, str | None]:
    """Return the states by map index. Airflow's keys are task ids, with ``_`` and the map index.

    Source: ``execution_api``.
    """
    ti = context["ti"]
    found = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task], run_ids=[ti.run_id]).get(ti.run_id, {})
    states = {}
    for key, state in found.items():
        index = key.removeprefix(task).removeprefix("_")
        states[int(index) if index else _UNMAPPED] = None if state is None else str(getattr(state, "value", state))
    return states


def _states_of_2(context: Mapping[str, Any], task: str) -> Mapping[int, str | None]:
    run = context["ti"].get_dagrun()
    with import_module("airflow.utils.session").create_session() as session:
        found = [each for each in run.get_task_instances(session=session) if each.task_id == task]
        return {each.map_index: None if each.state is None else str(each.state) for each in found}
