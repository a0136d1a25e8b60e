"""Pipelines written as a function that calls steps."""

from __future__ import annotations

import pickle

import pytest

from flowyml import Pipeline, context, pipeline, step
from flowyml.core.errors import DefinitionError
from flowyml.plan.codec import decode
from flowyml.plan.model import Constant, FromStep, Input, PipelineOutput, Plan


@step(outputs=["dataset"])
def load(rows: int) -> list[int]:
    return list(range(rows))


@step(inputs=["dataset"], outputs=["model"])
def train(dataset: list[int], rate: float = 0.5) -> float:
    return sum(dataset) * rate


@step(outputs=["low", "high"])
def bounds(dataset: list[int]) -> tuple[int, int]:
    return min(dataset), max(dataset)


@pipeline
def training(rows: int = 4) -> float:
    """Train a model."""
    return train(load(rows))


def test_both_ways_of_writing_give_the_same_plan() -> None:
    by_names = Pipeline("training", context=context(rows=4), description="Train a model.")
    by_names.add_step(load).add_step(train)
    assert training.compile().canonical == by_names.compile().canonical


def test_a_step_called_twice_gets_a_name_of_its_own() -> None:
    @pipeline(name="twice")
    def made() -> object:
        data = load(3)
        return {"slow": train(data, rate=0.1), "fast": train(data, rate=0.9)}

    plan = made.compile()
    assert [s.name for s in plan] == ["load", "train", "train_2"]
    assert plan.by_name["train_2"].inputs[1] == Input("rate", Constant(0.9))
    assert plan.outputs[1] == PipelineOutput("fast", FromStep("train_2", "model"))


def test_several_outputs_are_unpacked() -> None:
    @pipeline
    def split() -> object:
        low, high = bounds(load(3))
        return train.options(name="low")(load.options(name="l")(low)), high

    assert [output.name for output in split.compile().outputs] == ["model", "high"]


def test_outputs_of_one_name_get_their_steps_names_when_none_is_returned() -> None:
    @pipeline
    def loose() -> None:
        train(load(1))
        train(load(2))

    assert [output.name for output in loose.compile().outputs] == ["train.model", "train_2.model"]


def test_the_context_fills_what_a_call_leaves_out() -> None:
    @pipeline(context=context(rate=0.25))
    def tuned() -> object:
        return train(load(8))

    assert [p.name for p in tuned.compile().parameters] == ["rate"]
    assert tuned.run().outputs["model"] == 7.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda rows: load(), "step 'load' was called without 'rows'"),
        (lambda rows: load(rows, 5), "too many positional arguments"),
        (lambda rows: load(rows={1}), "parameter 'rows' was given a set, which JSON cannot hold"),
        (lambda rows: train((load(rows),)), r"a tuple with outputs of steps in it\. Give them in a plain list"),
        (lambda rows: train({"a": [load(rows)]}), "a dict with outputs of steps in it"),
        (lambda rows: 1 if load(rows) else 2, "has no value while the pipeline is compiled"),
        (lambda rows: [row for row in load(rows) if row], "To work on each of its items, use for_each"),
        (lambda rows: dict(zip("ab", load(rows), strict=True)), r"'load' returns one output, 'dataset'; to unpack it"),
        (
            lambda rows: load(1 if rows == 4 else 2),
            "rows == 4 has no value while the pipeline is compiled",
        ),
        (lambda rows: load(1 if load(rows) in ([], [1]) else 2), r"dataset == \[\] has no value while"),
        (lambda rows: train(f"{rows}.csv"), "has no value while the pipeline is compiled"),
        (lambda rows: load(rows + 1), "has no value while the pipeline is compiled"),
        (lambda rows: [load(n) for n in range(rows)], "has no value while the pipeline is compiled"),
        (lambda rows: load(rows > 2), "parameter 'rows' was given the condition rows > 2"),
        (lambda rows: 1 / 0, r"raised ZeroDivisionError: division by zero\. .*test_authoring_calls\.py, line \d+\)"),
        (lambda rows: training(nope=rows), "Pipeline 'training': got an unexpected keyword argument 'nope'"),
        (lambda rows: "nothing", "returns 'nothing'. Return outputs of steps"),
        (lambda rows: {"x": None}, "returns None as 'x'. Return outputs of steps, or a dict of them. A call of a step"),
        (lambda rows: (load(rows), load(rows)), "returns two outputs named 'dataset'"),
    ],
)
def test_mistakes_are_named(body: object, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        pipeline(name="mistake")(body).compile()  # type: ignore[arg-type]  # wrong on purpose


def test_several_outputs_become_one_list() -> None:
    @step
    def total(parts: list[float], **more: list[float]) -> float:
        return sum(parts) + sum(sum(values) for values in more.values())

    @pipeline
    def totals(rows: int = 3) -> object:
        low, high = bounds(load(rows))
        return total([high, low, rows, 10], extra=[train([2]), 0.5])

    step_ = totals.compile().by_name["total"]
    assert step_.inputs[0] == Input("parts[0]", FromStep("bounds", "high"), into="parts")
    assert step_.upstream == ("bounds", "train")
    assert Plan.__eq__(totals.compile(), decode(totals.compile().canonical))
    assert totals.run({"rows": 5})["total"] == 4 + 0 + 5 + 10 + 1.0 + 0.5


def test_add_step_is_for_pipelines_by_names() -> None:
    with pytest.raises(DefinitionError, match=r"defined by its function"):
        training.add_step(load)


def test_what_a_step_does_to_its_arguments_is_its_own_business() -> None:
    @step
    def append(numbers: list[int], more: list[int]) -> list[int]:
        numbers.append(1)
        more.append(2)
        return [*numbers, *more]

    given = [0]

    @pipeline(context=context(more=given))
    def appending(numbers: list[int] = []):
        return {"first": append(numbers), "second": append(numbers), "third": append([], [])}

    before = appending.compile().canonical
    given.append(99)
    for _ in range(2):
        assert appending.run().outputs == {"first": [1, 0, 2], "second": [1, 0, 2], "third": [1, 2]}
    values = {"numbers": [5]}
    assert appending.run(values)["first"] == [5, 1, 0, 2]
    assert values == {"numbers": [5]}
    appending._plan = None
    assert appending.compile().canonical == before


@step
def doubled(rows: list[int]) -> list[int]:
    return [2 * row for row in rows]


def test_a_step_of_a_module_is_pickled_by_its_name() -> None:
    """As a function is, so that a process pool can call it."""
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    renamed = pickle.loads(pickle.dumps(doubled.options(name="zz")))
    assert (renamed.name, renamed.function) == ("zz", doubled.function)
