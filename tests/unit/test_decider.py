"""The decider, asked at any time with what is known by then, agrees with the walk about every step of random runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count, islice
from random import Random
from typing import Any

import pytest

from flowyml import Pipeline, either, for_each, otherwise, pipeline, step, when
from flowyml.authoring.placeholders import CallOutput
from flowyml.core.errors import DefinitionError, StepError
from flowyml.core.item_names import labelled
from flowyml.plan.groups import Branch, Loop
from flowyml.plan.steps import RUN_IF, Step
from flowyml.plan.values import Constant, FromParameter, Source
from flowyml.runtime.decider import OK, Decider, End, Evaluator, Facts, Index, Outcome, checked_lists, is_taken, listed
from flowyml.runtime.due import due
from flowyml.runtime.nodes import Decision, Node, Opening, Task
from flowyml.runtime.packed_decisions import packed_inputs
from flowyml.runtime.walk import Walk
from flowyml.testing.pipelines_random import Calls, build, drawn

CALLS = Calls(lambda *words: None)


class Recorded(Facts):
    """The ends and outputs of the steps so far."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        self.ends: dict[tuple[str, Index], Outcome] = {}
        self.outputs: dict[tuple[str, Index], Mapping[str, Any]] = {}

    def end(self, step: str, index: Index) -> Outcome | None:
        return self.ends.get((step, index))

    def value(self, step: str, output: str, index: Index) -> Any:
        return self.outputs[step, index][output]

    def parameter(self, name: str) -> Any:
        return self.parameters[name]


class Unpacked(Evaluator):
    """Evaluates values that are as their steps returned them."""

    def is_taken(self, branches: Sequence[Branch], value_of: Callable[[Source], Any], index: Index) -> bool:
        return is_taken(branches, lambda source: listed(value_of(source)))

    def lists(
        self, loop: Loop, values: Mapping[str, Any], plain: Collection[str], index: Index
    ) -> Mapping[str, Sequence[Any]]:  # fmt: skip
        return checked_lists(loop, {name: listed(value) for name, value in values.items()})


class Both:
    """A run by the walk, whose steps end in random order, compared with the decider after each of them."""

    def __init__(self, made: Pipeline, random: Random, **parameters: Any) -> None:
        self.plan = made.compile()
        self.random = random
        self.parameters = {**{each.name: each.default for each in self.plan.parameters}, **parameters}
        self.walk: Walk[Task] = Walk(self.plan, self.parameters, Task)
        self.facts = Recorded(self.parameters)
        self.faults: list[str] = []
        self.compared = 0

    def run(self) -> None:
        self._go_on()
        while self.walk.begin_finale():
            self._go_on()
        decider = self._decider()
        assert self.faults == self.walk.faults
        for output in self.plan.outputs:
            node, key = self.walk.outputs[output.name]
            assert decider.end(output.source, "", ()) == Outcome(node.end, node.cause)  # type: ignore[arg-type]
            if node.end is End.OK:
                assert decider.value(output.source, "", ()) == node.values[key]

    def _decider(self) -> Decider:
        return Decider(self.plan, self.facts, Unpacked())

    def _go_on(self) -> None:
        while self.walk.ready:
            for node in [node for node in self.walk.ready if not isinstance(node, Task)]:
                self.walk.ready.remove(node)
                self._evaluate(node)
                break
            else:
                self._compare()
                at = self.random.randrange(len(self.walk.ready))
                node = self.walk.ready[at]
                del self.walk.ready[at]
                assert isinstance(node, Task)
                self._run(node)
            self._note_decided()
        self._compare()

    def _evaluate(self, node: Node) -> None:
        """Evaluate a branch or a loop for the walk. The decider does so for itself, with the same result."""
        decider, index = self._decider(), node.frame.index
        try:
            if isinstance(node, Opening):
                lists = checked_lists(node.loop, packed_inputs(node))
                self.walk.open(node, lists)
                opened = decider.opened(node.loop.name, index)
                assert opened is not None
                assert (opened.outcome, opened.lists) == (OK, lists)
            else:
                assert isinstance(node, Decision)
                taken = is_taken(node.branches, partial(self._value_of, node))
                self.walk.end(node, End.OK if taken else End.SKIPPED)
                assert decider.taken(node.branches[-1], index) == Outcome(End.OK if taken else End.SKIPPED)
        except StepError as error:
            self.walk.fail(node, str(error))
            if isinstance(node, Opening):
                opened = decider.opened(node.loop.name, index)
                assert opened is not None
                outcome: Outcome | None = opened.outcome
            else:
                assert isinstance(node, Decision)
                outcome = decider.taken(node.branches[-1], index)
            assert outcome == Outcome(End.FAILED, node.cause)
            self.faults += decider.faults

    def _value_of(self, node: Decision, source: Source) -> Any:
        if isinstance(source, Constant):
            return source.value
        if isinstance(source, FromParameter):
            return self.parameters[source.name]
        found, output = node.known[source]
        return listed(found.values[output])

    def _run(self, node: Task) -> None:
        decider = self._decider()
        assert decider.decide(node.step, node.index) == OK, node.label
        inputs = {name: listed(value) for name, value in decider.inputs(node.step, node.index).items()}
        assert inputs == packed_inputs(node), node.label
        outcome, outputs = self.result_of(node.step, node.index, inputs)
        self.facts.ends[node.step.name, node.index] = outcome
        self.facts.outputs[node.step.name, node.index] = outputs
        node.values = dict(outputs)
        self.walk.end(node, *outcome)

    def result_of(self, step: Step, index: Index, inputs: Mapping[str, Any]) -> tuple[Outcome, dict[str, Any]]:
        """Run a step; return its end and its outputs."""
        function = FUNCTIONS[step.name.rpartition(".")[2].partition("_")[0]]
        try:
            returned = function(**{name: listed(value) for name, value in inputs.items()})
        except ValueError:
            return Outcome(End.FAILED, f"step {labelled(step.name, index)!r} ended FAILED"), {}
        return OK, dict(zip(step.outputs, [returned], strict=False))

    def _note_decided(self) -> None:
        """Compare the steps that do not run, each by the ends that were known before it."""
        while self.walk.decided:
            node = self.walk.decided.popleft()
            decider = self._decider()
            assert node.end is not None
            loops = self.plan.structure.loops(node.step.group)
            if len(node.index) < len(loops):  # it stands for all items of a loop that has none
                opened = decider.opened(loops[len(node.index)].name, node.index)
                assert opened is not None
                assert (opened.outcome.end, opened.count) == (node.end, 0), node.label
            else:
                made = Outcome(node.end, node.cause)
                assert decider.decide(node.step, node.index) == made, node.label
                self.facts.ends[node.step.name, node.index] = made
            self.compared += 1

    def _compare(self) -> None:
        """Compare all steps that have not ended: those that may run, and those that have to wait."""
        decider = self._decider()
        for node in self.walk.tasks:
            is_early = self.plan.structure.is_cleanup(node.step.group) and not node.started
            if node.end is None and not is_early:
                assert decider.decide(node.step, node.index) == (OK if node.started else None), node.label
                self.compared += 1


def some_value(*values: Any) -> int:
    """A number for any values; some of them fail."""
    number = zlib.crc32(repr(values).encode()) % 97
    if number % 6 == 0:
        raise ValueError(number)
    return number


@step
def merge(a: Any = None, b: Any = None) -> Any:
    return some_value(a, b)


@step
def many(a: Any = None) -> list[Any]:
    return list(range(some_value(a) % 4))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "merge": merge.function, "many": many.function, **{name: each.function for name, each in CALLS.steps.items()},
}  # fmt: skip


def tangled(random: Random, known: Sequence[Any], depth: int) -> list[Any]:
    """Steps with any rules and inputs in branches and loops; a value may be of a wrong kind, or from inside a loop."""
    values = list(known)
    for _ in range(random.randint(2, 4)):
        a, b = random.choice(values), random.choice(values)
        kind = random.choice(["merge", "merge", "many", "either", *(["when", "for", "pairs"] if depth else [])])
        if kind == "merge":
            later = random.choice(values)
            after = later.source.step if isinstance(later, CallOutput) and random.random() < 0.3 else None
            values.append(merge.options(run_if=random.choice(RUN_IF), after=after)(a, b))
        elif kind == "many":
            values.append(many(a))
        elif kind == "either":
            outputs = [each for each in (a, b) if isinstance(each, CallOutput)]
            if len({each.source for each in outputs}) == 2:
                values.append(either(*outputs))
        elif kind == "when":
            with when(a > random.randint(0, 60)):
                values += tangled(random, values, depth - 1)[-2:]
            with otherwise():
                values += tangled(random, values, depth - 1)[-2:]
        else:
            with for_each(a, on_item_error="continue" if kind == "pairs" else "fail") as item:
                values += [each for each in tangled(random, [*values, item], depth - 1)[-2:] if each is not item]
    return values


def tangles(seeds: Iterable[int]) -> Iterator[tuple[int, Pipeline]]:
    """Pipelines of random seeds, without those that are refused."""
    for seed in seeds:
        with suppress(DefinitionError):
            yield seed, tangle(seed)


def tangle(seed: int) -> Pipeline:
    """The pipeline of a seed. Raises ``DefinitionError`` if it is refused."""

    @pipeline(name="tangled")
    def made(first: int = seed % 97) -> Any:
        return {"last": tangled(Random(seed), [merge(first), many(first)], 3)[-1]}

    made.compile()
    return made


@contextmanager
def naming(seed: int) -> Iterator[None]:
    """Name the seed in what is raised."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


@pytest.mark.parametrize("part", range(6))
def test_decider_and_walk_agree_on_any_rules_and_inputs(part: int) -> None:
    for seed, made in islice(tangles(count(part, 6)), 50):
        with naming(seed):
            Both(made, Random(seed)).run()


def drawn_flow(seed: int) -> Pipeline:
    """The result does not depend on the order in which its steps end."""
    blocks = drawn(Random(seed), fails=seed % 4 > 0)

    @pipeline(name="random")
    def made(first: int = seed % 40) -> Any:
        last = build(blocks, CALLS, [first], [])
        CALLS.tidy(last)
        return {"last": last}

    return made


@pytest.mark.parametrize("part", range(4))
def test_decider_and_walk_agree_and_a_run_that_only_asks_is_the_run_of_the_walk(part: int) -> None:
    for seed in range(part, 200, 4):
        with naming(seed):
            both = Both(drawn_flow(seed), Random(seed))
            both.run()
            assert both.compared > len(both.plan.steps)
            only_asks(both)


def only_asks(both: Both) -> None:
    """An engine without a walk performs what is due, one step after another, and the clean-up when nothing is left.

    Of several failures before a step, it may name another one as the cause: they happen in another order.
    """
    facts = Recorded(both.parameters)
    decider = Decider(both.plan, facts, Unpacked())
    for is_cleanup in (False, True):
        steps = [step.name for step in both.plan if both.plan.structure.is_cleanup(step.group) is is_cleanup]
        is_done = False
        while not is_done:
            is_done = True
            for task, index, outcome in islice(due(decider, steps), both.random.choice([1, None])):
                is_done, end = False, outcome
                if outcome == OK:
                    end, facts.outputs[task.name, index] = both.result_of(task, index, decider.inputs(task, index))
                facts.ends[task.name, index] = end
    depths = {step.name: len(both.plan.structure.loops(step.group)) for step in both.plan}
    ends = {key: outcome.end for key, outcome in facts.ends.items() if len(key[1]) == depths[key[0]]}
    assert ends == {key: outcome.end for key, outcome in both.facts.ends.items()}
    assert facts.outputs == both.facts.outputs
