"""The facts of a run that a task knows: the states and XComs of the tasks before it. This file travels in the bundle.

It asks Airflow 3 through the task's line to its supervisor, Airflow 2 in its database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from flowyml.plan.groups import Branch, Loop
from flowyml.plan.model import FromItem, FromStep, Source
from flowyml.plan.parameters import as_declared
from flowyml.runtime.decider import OK, Decider, End, Facts, Index, Opened, Outcome, has_packed_items, is_plain, listed
from flowyml.runtime.packed_decisions import PackedEvaluator
from flowyml_airflow.graph import Task, TaskGraph
from flowyml_airflow.names import RETURNED, STEPS_KEY, xcom_key
from flowyml_airflow.task_exceptions import no_output
from flowyml_airflow.xcoms import restored

__all__ = ["TAKEN", "TaskDecider", "TaskFacts", "item_key"]

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


class TaskFacts(Facts):
    """The tasks of a run, as the task of this ``context`` sees them.

    Raises ``StepError`` for a task that ended OK and left no value, such as one that a person marked as success.
    ``pack`` packs the return value of an operator of Airflow's own.

    The task of an execution group adds the ``results`` of its steps. With ``all_before_succeeded``, as by its trigger
    rule, the ends of the tasks before it are not asked for.
    """

    def __init__(
        self, graph: TaskGraph, context: Mapping[str, Any], parameters: Mapping[str, Any],
        pack: Callable[[FromStep, Any, int], Any],
    ) -> None:  # fmt: skip
        self.graph = graph
        self.map_index = int(getattr(context["ti"], "map_index", _UNMAPPED))
        self._context = context
        self._parameters = parameters
        self._pack = pack
        self._states: dict[tuple[str, int | None], Mapping[int, str | None]] = {}
        self.results: dict[str, tuple[Outcome, Mapping[str, Any]]] = {}
        self.all_before_succeeded = False

    def end(self, step: str, index: Index) -> Outcome | None:
        """Return the end of a step; one of an execution group may have ended either way when its task failed."""
        if step in self.results:
            return self.results[step][0]
        if self.all_before_succeeded:
            return OK
        task = self.graph.steps[step]
        end = self.end_of_task(task, index)
        if end in (None, End.OK) or task.kind == "step":
            return None if end is None else Outcome(end)
        written = (self.pull(self.graph.id(task), STEPS_KEY, _map_index(index)) or {}).get("steps", {})
        return Outcome(_ENDS.get(written[step]["state"], end) if step in written else end)

    def value(self, step: str, output: str, index: Index) -> Any:
        """Return an output of a step. That of an operator of Airflow's own can be any value, and is packed here."""
        if step in self.results:
            return self.results[step][1][output]
        source = FromStep(step, output)
        task, key = self.graph.id(self.graph.steps[step]), self.graph.key(source)
        if step not in self.graph.operators:
            return self.required(step, task, key, _map_index(index))
        return self._pack(source, self._carried(task, key, _map_index(index)), _map_index(index))

    def values(self, step: str, output: str, indexes: Sequence[Index]) -> Sequence[Any]:
        """Return an output for these items, read in one call if possible.

        The list of that call has no indexes: an item that did not complete may have left an XCom, and one that
        completed none. Then each item is read in a call of its own.
        """
        if step in self.graph.operators:
            return super().values(step, output, indexes)
        task, key = self.graph.id(self.graph.steps[step]), self.graph.key(FromStep(step, output))
        items = [_map_index(index) for index in indexes]
        values = list(self._context["ti"].xcom_pull(task_ids=[task], key=key)) if items else []
        others = self.states(task).keys() - set(items)
        if len(values) != len(items) or any(self._carried(task, key, index) is not None for index in others):
            values = [self._carried(task, key, index) for index in items]
        if missing := [index for index, value in zip(items, values, strict=True) if value is None]:
            raise no_output(step, missing)
        return [restored(value) for value in values]

    def parameter(self, name: str) -> Any:
        declared = next(parameter for parameter in self.graph.plan.parameters if parameter.name == name)
        value = self._parameters.get(name, declared.default)
        return value if value == declared.default else as_declared(declared.schema, value)

    def opened(self, loop: str, index: Index) -> Opened | None:  # Airflow has no loops in loops
        """Return the number of items that the loop's task has listed, or else that Airflow has mapped."""
        around = self.graph.structure.by_name[loop]
        assert isinstance(around, Loop)
        if not self.graph.has_items_task(around):
            return self._opened_by_mapping(around)
        end = self.end_of_task(Task("items", loop))
        if end is not End.OK:
            return None if end is None else Opened(Outcome(end))
        labels = self.pull(self.graph.ids.items[loop], RETURNED)
        # Without labels it was marked as success by hand, and nothing was mapped.
        return Opened(Outcome(End.FAILED)) if labels is None else Opened(OK, len(labels))

    def _opened_by_mapping(self, loop: Loop) -> Opened | None:
        if labels := self.graph.written_labels(loop):
            return Opened(OK, len(labels))
        task = self.graph.steps[self.graph.structure.members(loop.name)[0]]
        states = self.states(self.graph.id(task))
        if count := sum(index != _UNMAPPED and state != _REMOVED for index, state in states.items()):
            return Opened(OK, count)
        end = self.end_of_task(task)
        return None if end is None else Opened(Outcome(end))

    def taken(self, branch: str, index: Index) -> Outcome | None:
        if self.all_before_succeeded:
            return OK
        around = self.graph.structure.by_name[branch]
        assert isinstance(around, Branch)
        choice = Task("choice", around.choice)
        end = self.end_of_task(choice, index)
        if end is not End.OK:
            return None if end is None else Outcome(end)
        task = self.graph.id(choice)
        return OK if self.required(task, task, TAKEN, _map_index(index)) == branch else Outcome(End.SKIPPED)

    # Tasks and XComs.

    def end_of_task(self, task: Task, index: Index = ()) -> End | None:
        """Return the end of a task for an item; of the whole task if it was never expanded."""
        name, item = self.graph.id(task), _map_index(index)
        # A task for an item reads the states of that item alone: there may be 10,000 others.
        states = self.states(name, item) if item != _UNMAPPED and item == self.map_index else {}
        if item not in states:
            states = self.states(name)
        state = states.get(item, states.get(_UNMAPPED))
        return None if state is None else _ENDS.get(state)

    def states(self, task: str, item: int | None = None) -> Mapping[int, str | None]:
        """Return the states of a task by map index; of one item or of all."""
        if (task, item) not in self._states:
            ask = _states_of_3 if hasattr(self._context["ti"], "get_task_states") else _states_of_2
            self._states[task, item] = ask(self._context, task, item)
        return self._states[task, item]

    def pull(self, task: str, key: str, index: int = _UNMAPPED) -> Any:
        """Return the value of an XCom of a task; None if it does not exist."""
        return restored(self._carried(task, key, index))

    def required(self, name: str, task: str, key: str, index: int) -> Any:
        """Return the value of an XCom; raises ``StepError``, with the ``name`` of the step, if it does not exist."""
        value = self._carried(task, key, index)
        if value is None:
            raise no_output(name, [index])
        return restored(value)

    def _carried(self, task: str, key: str, index: int) -> Any:
        """Return the value of an XCom as ``xcoms`` encodes it; None if it does not exist."""
        return self._context["ti"].xcom_pull(task_ids=task, key=key, map_indexes=index)


class TaskDecider(Decider):
    """Decides for one ``task``, in its ``context``. ``evaluate`` evaluates in a process that has the user's code."""

    facts: TaskFacts

    def __init__(
        self,
        graph: TaskGraph,
        task: Task,
        context: Mapping[str, Any],
        parameters: Mapping[str, Any] = {},
        pack: Callable[[FromStep, Any, int], Any] = lambda output, value, index: value,
        evaluate: Callable[..., Any] = lambda group, packed, index: {},
    ) -> None:
        self.graph = graph
        loop = graph.loop(task)
        facts = TaskFacts(graph, context, parameters, pack)
        super().__init__(graph.plan, facts, PackedEvaluator(evaluate), loop.name if loop else "")
        self.index: Index = (facts.map_index,) if loop else ()

    def has_items(self, source: Source, group: str) -> bool:
        """Return whether the items of a list can be taken from it; else they are stored one by one."""
        return is_plain(source, self.structure) or has_packed_items(self.value(source, group, ()))

    def item(self, source: FromItem, index: Index) -> Any:
        """Return an item, without evaluating the loop once more."""
        items, group = self.graph.list_of(source), self.structure.by_name[source.loop].parent
        value = self.value(items, group, ())
        if is_plain(items, self.structure) or has_packed_items(value):
            return listed(value)[index[0]]
        task = self.graph.ids.items[source.loop]
        return self.facts.required(task, task, item_key(source.name, index[0]), _UNMAPPED)


def _map_index(index: Index) -> int:
    return index[0] if index else _UNMAPPED


def _states_of_3(context: Mapping[str, Any], task: str, item: int | None) -> Mapping[int, str | None]:
    """Return the states by map index. Airflow's keys are task ids, with ``_`` and the map index.

    Source: ``execution_api``.
    """
    ti = context["ti"]
    query = {"dag_id": ti.dag_id, "task_ids": [task], "run_ids": [ti.run_id], "map_index": item}
    found = ti.get_task_states(**query).get(ti.run_id, {})
    states = {}
    for key, state in found.items():
        index = key.removeprefix(task).removeprefix("_")
        states[int(index) if index else _UNMAPPED] = None if state is None else str(getattr(state, "value", state))
    return states


def _states_of_2(context: Mapping[str, Any], task: str, item: int | None) -> Mapping[int, str | None]:
    run = context["ti"].get_dagrun()
    with import_module("airflow.utils.session").create_session() as session:
        if item is not None:
            instances = [run.get_task_instance(task, session=session, map_index=item)]
        else:
            instances = [task_run for task_run in run.get_task_instances(session=session) if task_run.task_id == task]
        return {
            task_run.map_index: None if task_run.state is None else str(task_run.state)
            for task_run in instances
            if task_run
        }
