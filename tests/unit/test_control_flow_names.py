"""Control flow in pipelines that are wired by names."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import Pipeline, any_of, for_each, pipeline, step
from flowyml.core.errors import DefinitionError
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.control_flow import add, same, total


@step(outputs=["configs"])
def make_configs(count: int) -> list[int]:
    return list(range(count))


@step(outputs=["score"])
def train(config: int, rate: int) -> int:
    return config * rate


@step(outputs=["best"])
def best(score: list[int]) -> int:
    return max(score)


@step(outputs=["text"])
def publish(best: int) -> str:
    return f"published {best}"


def by_names() -> Pipeline:
    made = Pipeline("by names", context={"count": 3, "rate": 10, "limit": 15})
    return made.add_step(make_configs).add_step(train.map(config="configs")).add_step(best)


@step
def drop(best: int | None = None) -> str:
    return f"dropped {best}"


@pytest.mark.slow
def test_steps_of_a_clean_up_by_names(local: LocalOrchestrator) -> None:
    made = by_names()
    with made.when(lambda it: it.best > it.limit):
        made.add_step(publish)
    with made.cleanup(name="tidy"):
        made.add_step(drop)
    for count, raw in ((3, "completed"), (0, "failed")):
        result = made.run({"count": count}, on=local)
        seen = {run.label: run.raw_status for run in local.step_runs(result.run_id)}
        assert (seen["drop"], seen["best"]) == ("completed", raw)
    plan = made.compile()
    assert (plan.by_name["drop"].group, plan.by_name["drop"].run_if) == ("tidy", "all_done")


def test_the_place_of_a_wrong_block_by_names() -> None:
    made, here = by_names(), r"test_control_flow_names\.py, line \d+\)$"
    with (
        pytest.raises(DefinitionError, match=rf"^otherwise\(\) has no when\(…\) right before it.*{here}"),
        made.otherwise(),
    ):
        pass
    with (
        pytest.raises(DefinitionError, match=rf"^cleanup\(\) cannot be in another block.*{here}"),
        made.when(lambda it: it.best > 1),
        made.cleanup(),
    ):
        pass
    made = by_names()
    made.when(lambda it: it.best > 1)
    made.add_step(publish)
    with pytest.raises(DefinitionError, match=rf"write `with pipeline\.when\(…\):` and its steps below\. .*{here}"):
        made.compile()


def test_a_branch_has_its_condition_as_a_name_of_limited_length() -> None:
    """By names, as by calls. Engines have names of their own for it, which may not be longer."""
    made = by_names()
    with made.when(lambda it: any_of(*(it.best == number for number in range(50)))):
        made.add_step(publish)
    (branch,) = [group for group in made.compile().groups if group.name.startswith("best == 0 or best == 1")]
    assert (len(branch.name), branch.name[-1]) == (200, "…")


def test_clean_up_by_names_does_not_go_into_another_pipeline() -> None:
    inner = by_names()
    with inner.cleanup():
        inner.add_step(drop)

    @pipeline(name="outer")
    def outer() -> Any:
        return inner()

    with pytest.raises(
        DefinitionError, match="'by names' has branches, loops or clean-up wired by name, which another"
    ):
        outer.compile()


def test_a_function_that_puts_a_pipeline_together_has_all_of_its_blocks() -> None:
    @pipeline(name="by calls")
    def made() -> Any:
        return make_configs(3)

    for verb, block in (
        ("when", lambda: made.when(lambda it: it.count > 1)),
        ("elif_", lambda: made.elif_(lambda it: it.count > 1)),
        ("otherwise", made.otherwise),
        ("cleanup", made.cleanup),
    ):
        with pytest.raises(DefinitionError, match=rf"by its function: use flowyml\.{verb} there"):
            block()


def test_mistakes_by_names() -> None:
    made = by_names()
    with pytest.raises(DefinitionError, match="The condition raised TypeError: 'ParameterValue' object"):
        made.when(lambda it: it.best() > 1)
    with pytest.raises(DefinitionError, match="A condition by names must be a function"):
        made.when("best > 1")  # type: ignore[arg-type]  # wrong on purpose
    with made.when(lambda it: it.bets > 1):
        made.add_step(publish)
    with pytest.raises(DefinitionError, match=r"needs 'bets', which no step produces .* Did you mean 'best'"):
        made.compile()
    with pytest.raises(DefinitionError, match="needs 'config_list', which no step produces"):
        Pipeline("p", context={"rate": 1}).add_step(train.map(config="config_list")).compile()


def test_a_pipeline_by_names_in_a_pipeline(local: LocalOrchestrator) -> None:
    by_names = Pipeline("by_names", context={"count": 3})
    by_names.add_step(step(name="values", outputs=["values"])(lambda count: list(range(count)))).add_step(total)

    @pipeline(name="outer")
    def made() -> Any:
        with for_each([2, 4]) as count:
            found = by_names(count=count)
        return {"totals": found, "default": by_names()}

    assert made.run(on=local).outputs == {"totals": [1, 6], "default": 3}


def test_after_names_a_step_of_the_same_pipeline_first(local: LocalOrchestrator) -> None:
    @pipeline
    def part() -> Any:
        add(1)
        return same.options(after=["add"])(5)

    @pipeline
    def whole() -> Any:
        add(2)
        return part()

    assert whole.compile().by_name["part.same"].after == ("part.add",)
