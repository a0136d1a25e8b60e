"""What a pipeline and its steps say of themselves."""

from __future__ import annotations

from flowyml import Pipeline, pipeline, step
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy


@step(
    inputs={"rows": "table"},
    outputs=["model"],
    after="load",
    retry=2,
    timeout=60,
    resources=ResourceRequirements(cpu=2),
    tags="nightly",
)
def train(rows: list[int], rate: float = 0.1) -> float:
    """Fit it.

    And more.
    """
    return sum(rows) * rate


@step
def double(number: int) -> int:
    return 2 * number


def test_a_step_says_what_it_was_given() -> None:
    assert (train.name, train.inputs, train.outputs) == ("train", {"rows": "table"}, ("model",))
    assert train.retry == OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0)
    assert (train.timeout, train.resources) == (60, ResourceRequirements(cpu=2))
    assert (train.tags, train.description, train.after) == (("nightly",), "Fit it.", ("load",))


def test_a_plain_step_has_the_defaults() -> None:
    assert (double.name, double.inputs, double.outputs) == ("double", {"number": "number"}, ("double",))
    assert (double.retry, double.timeout, double.resources, double.tags, double.description) == (None,) * 3 + ((), "")


def test_a_pipeline_lists_its_steps_under_their_names_there() -> None:
    by_name = Pipeline("shown by name").add_step(train).add_step(double)
    assert by_name.steps == (train, double)

    @pipeline
    def shown_by_calls(number: int = 3):  # type: ignore[no-untyped-def]  # as users write it
        return double(double(number))

    first, second = shown_by_calls.steps
    assert first is double
    assert (second.name, second.outputs, second.function) == ("double_2", ("double_2",), double.function)
    assert [item.name for item in shown_by_calls.steps] == [item.name for item in shown_by_calls.compile()]
    assert Pipeline("shown empty").steps == ()
