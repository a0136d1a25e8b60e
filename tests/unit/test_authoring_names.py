"""Pipelines wired by the names of inputs and outputs, and what pipelines and steps say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml import Context, Pipeline, context, pipeline, step
from flowyml.core.errors import (
    CycleError,
    DefinitionError,
    ParameterError,
    UnknownOptionError,
)
from flowyml.core.hooks import PipelineHook
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.codec import decode
from flowyml.plan.model import FromParameter, FromStep, Input, PipelineOutput


@step(outputs=["dataset"])
def load(rows: int) -> list[int]:
    """Load the rows.

    More about it.
    """
    return list(range(rows))


@step(inputs=["dataset"], outputs=["model"])
def train(dataset: list[int], rate: float = 0.5) -> float:
    return sum(dataset) * rate


@step(inputs=["dataset"], outputs=["low", "high"])
def bounds(dataset: list[int]) -> tuple[int, int]:
    return min(dataset), max(dataset)


def training() -> Pipeline:
    return Pipeline("training", context=context(rows=4)).add_step(load).add_step(train)


def test_steps_are_wired_by_name_and_the_context_fills_parameters() -> None:
    plan = training().compile()
    assert [s.name for s in plan] == ["load", "train"]
    assert plan.by_name["load"].inputs == (Input("rows", FromParameter("rows")),)
    assert plan.by_name["train"].inputs == (Input("dataset", FromStep("load", "dataset")),)
    assert plan.outputs == (PipelineOutput("model", FromStep("train", "model")),)


def test_outputs_are_those_that_nothing_consumes_unless_they_are_chosen() -> None:
    assert [output.name for output in training().add_step(bounds).compile().outputs] == ["model", "low", "high"]
    plan = Pipeline("t", context=context(rows=4), outputs=["dataset"]).add_step(load).add_step(train).compile()
    assert plan.outputs == (PipelineOutput("dataset", FromStep("load", "dataset")),)
    with pytest.raises(DefinitionError, match=r"no step produces 'dataste'. Did you mean 'dataset'"):
        Pipeline("t", context=context(rows=4), outputs=["dataste"]).add_step(load).compile()


def test_inputs_can_be_mapped_to_other_names() -> None:
    @step(inputs={"data": "dataset"})
    def count(data: list[int]) -> int:
        return len(data)

    plan = training().add_step(count).compile()
    assert plan.by_name["count"].inputs == (Input("data", FromStep("load", "dataset")),)
    assert plan.by_name["count"].outputs == ("count",)


def test_a_list_of_outputs_can_be_mapped() -> None:
    @step(inputs={"parts": ["dataset", "rows"]})
    def collect(parts: list[object]) -> list[object]:
        return parts

    assert training().add_step(collect).run()["collect"] == [list(range(4)), 4]
    wrong: list[tuple[Any, str]] = [(3, r"inputs\['parts'\]=3 must be a list of names"), ([], "names no output")]
    for inputs, message in wrong:
        with pytest.raises(DefinitionError, match=message):
            step(inputs={"parts": inputs})(collect.function)


def test_a_step_that_returns_none_has_no_output_and_can_come_first() -> None:
    @step
    def prepare() -> None: ...

    @step(after="prepare")
    def late() -> int:
        return 1

    plan = Pipeline("p").add_step(late).add_step(prepare).compile()
    assert [s.name for s in plan] == ["prepare", "late"]
    assert plan.by_name["prepare"].outputs == ()


def test_step_options_reach_the_plan() -> None:
    policy = OrchestratorRetryPolicy(max_attempts=4, retryable_errors=[TimeoutError, "OOM"])

    @step(retry=policy, timeout=60, resources=ResourceRequirements(cpu="2", memory="4Gi", gpu=1), tags=["a", "b"])
    def heavy() -> int:
        return 1

    pipeline = Pipeline("p", timeout=3600, tags=["nightly"], description="d").add_step(heavy)
    pipeline.add_step(heavy.options(name="light", retry=2))
    plan = decode(pipeline.compile().canonical)
    assert plan == pipeline.compile()
    assert plan.by_name["heavy"].retry == policy
    assert plan.by_name["heavy"].timeout_seconds == 60
    assert plan.by_name["light"].retry == OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0)
    assert plan.timeout_seconds == 3600


def test_dict_resources_still_work_and_warn() -> None:
    """In `options`, too. In `@step`: the guide's blocks."""
    plain = step(name="plain")(lambda: 1)
    with pytest.warns(DeprecationWarning, match=r"Dict-style resources will be removed in 2\.0.*cpu='4'") as seen:
        larger = plain.options(resources={"cpu": "4"})  # type: ignore[arg-type]  # as 0.x wrote it
    assert seen[0].filename == __file__
    assert larger.step_options.resources == ResourceRequirements(cpu="4")
    with pytest.raises(DefinitionError, match="use ResourceRequirements"):
        plain.options(resources=4)  # type: ignore[arg-type]  # the point of the test


def test_a_parameter_has_the_type_of_who_takes_it() -> None:
    @step(outputs=["dataset"])
    def load() -> list[int]:
        return [1, 2]

    @step(inputs={"rows": "dataset"}, outputs=["size"])
    def measure(rows: list[int]) -> int:
        return len(rows)

    @step(inputs={"count": "rows"}, outputs=["counted"])
    def use(count: float) -> float:
        return count

    plan = Pipeline("typed", context=context(rows=5)).add_step(load).add_step(measure).add_step(use).compile()
    assert [dict(parameter.schema) for parameter in plan.parameters] == [{"type": "number"}]


def test_a_cycle_is_shown() -> None:
    @step(inputs=["b"], outputs=["a"])
    def first(b: int) -> int:
        return b

    @step(inputs=["a"], outputs=["b"])
    def second(a: int) -> int:
        return a

    with pytest.raises(CycleError, match=r"'loop': steps wait for one another: first -> second -> first"):
        Pipeline("loop").add_step(first).add_step(second).compile()


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (
            lambda: Pipeline("p").add_step(train),
            r"step 'train' needs 'dataset', which no step produces and the context",
        ),
        (lambda: training().add_step(load), r"two steps named 'load'"),
        (
            lambda: step(inputs=["data"])(train.function),
            r"inputs names 'data', but the function takes \(dataset, rate\)",
        ),
        (
            lambda: training().add_step(bounds.options(after=["lod"])),
            r"comes after 'lod', which is not a step. Did you mean 'load'",
        ),
        (lambda: Pipeline("p"), r"Pipeline 'p' has no steps. Add some with add_step"),
        (lambda: Pipeline("p").add_step(step(outputs=["a"], name="own")(lambda a: a)), r"own -> own"),
        (lambda: Pipeline("p").add_step(len), r"takes a function with @step"),  # type: ignore[arg-type]
        (
            lambda: Pipeline("p").add_step(step(dict)),
            r"step 'dict': <class 'dict'> has no signature that .* Wrap it in a function",
        ),
    ],
)
def test_mistakes_are_named(define: Callable[[], Pipeline], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define().compile()


def test_two_producers_of_one_name() -> None:
    with pytest.raises(DefinitionError, match=r"'dataset' has two producers, step 'load' and step 'again'"):
        training().add_step(load.options(name="again")).compile()
    with pytest.raises(DefinitionError, match=r"'dataset' has two producers, step 'load' and the context"):
        Pipeline("p", context=context(rows=1, dataset=[])).add_step(load).compile()


def test_unknown_keywords_are_answered() -> None:
    with pytest.raises(UnknownOptionError, match=r"Pipeline has no option 'hook'. Did you mean 'hooks'"):
        Pipeline("p", hook=[])  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(TypeError, match=r"step has no option 'output'. Did you mean 'outputs'"):
        step(output=["a"])  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(
        UnknownOptionError, match=r"'share'\. It is one of the local engine: @step\(local=\{\"share\": True"
    ):
        step(share=True)  # type: ignore[call-overload]  # wrong on purpose


def test_an_empty_pipeline_runs_and_warns_at_the_line_of_the_call() -> None:
    with pytest.warns(UserWarning, match=r"Pipeline 'p' has no steps, so nothing runs.*add_step") as seen:
        result = Pipeline("p").run()
    assert result.success
    assert seen[0].filename == __file__


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\x00", "x" * 201, "\ud800", None])
def test_names_that_nothing_could_show(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"name"):
        Pipeline(name)
    with pytest.raises(DefinitionError, match=r"name"):
        step(name=name or "\t")(train.function)


def test_a_single_name_needs_no_list() -> None:
    pipeline = Pipeline("p", tags="nightly", outputs="model", include="data/*.csv")
    assert (pipeline.tags, pipeline.outputs, pipeline.include) == (("nightly",), ("model",), ("data/*.csv",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": 5}, r"Pipeline 'p': tags=5 must be a list of names"),
        ({"outputs": ["model", "model"]}, r"Pipeline 'p': outputs repeats a name: 'model', 'model'"),
        ({"include": ["/abs/*"]}, r"include='/abs/\*' is absolute. Globs are relative to the folder"),
        ({"hooks": PipelineHook()}, r"Pipeline 'p': hooks=.* is not a list. Write hooks=\[…\]"),
        ({"hooks": [5]}, r"Pipeline 'p': 5 is not a PipelineHook"),
        ({"context": {"rows"}}, r"context=\{'rows'\} is not a mapping. Write Context\(rows=100\)"),
        ({"context": ["rows"]}, r"context=\['rows'\] is not a mapping"),
    ],
)
def test_options_of_a_wrong_kind(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Pipeline("p", **options)


def test_an_output_that_the_steps_own_inputs_leave_out() -> None:
    schema = step(name="schema", outputs=["schema"])(lambda: {"a": "int"})

    @step(inputs=["dataset"])
    def fit(dataset: list[int], schema: dict[str, str]) -> int:
        return len(dataset)

    pipeline = Pipeline("p", context=context(rows=4)).add_step(load).add_step(schema).add_step(fit)
    message = (
        r"step 'fit' needs 'schema', which step 'schema' produces and its own inputs=\[…\] leaves out. Add it there"
    )
    with pytest.raises(DefinitionError, match=message):
        pipeline.compile()


def test_outputs_can_be_renamed() -> None:
    twice = Pipeline("p", context=context(rows=4)).add_step(load).add_step(load.options(name="again"))
    with pytest.raises(DefinitionError, match=r"two producers.* add_step\(step.options\(outputs=\[…\]\)\)"):
        twice.compile()
    renamed = load.options(name="again", outputs="more")
    plan = Pipeline("p", context=context(rows=4)).add_step(load).add_step(renamed).compile()
    assert [output.name for output in plan.outputs] == ["dataset", "more"]


def test_an_int_for_a_float_becomes_one() -> None:
    @step
    def scale(rate: float, limit: float | None, count: int, either: int | float) -> list[Any]:  # noqa: PYI041
        return [rate, limit, count, either]

    pipeline = Pipeline("p", context=context(rate=1, limit=2, count=3, either=4)).add_step(scale)
    defaults = [parameter.default for parameter in pipeline.compile().parameters]
    assert list(map(repr, defaults)) == ["1.0", "2.0", "3", "4"]
    given = pipeline.check_parameters({"rate": 5, "limit": None, "either": 6})
    assert repr(given) == "{'rate': 5.0, 'limit': None, 'count': 3, 'either': 6}"
    assert repr(pipeline.run({"rate": 5})["scale"]) == "[5.0, 2.0, 3, 4]"


def test_contexts_hold_json_and_never_change() -> None:
    with pytest.raises(DefinitionError, match=r"'data' is a set"):
        Context(data={1, 2})
    with pytest.raises(AttributeError, match=r"never changes"):
        Context(a=1).a = 2
    rows = Context(rows=[1])
    rows.rows.append(2)
    rows["rows"].append(3)
    assert dict(rows) == {"rows": [1]}
    with pytest.raises(AttributeError, match=r"has no 'b'; it has a"):
        _ = Context(a=1).b


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": "many"}, "'rows' must be of type integer, not 'many'"),
        ({"rows": True}, "'rows' must be of type integer, not True"),
        ({"row": 1}, "it has no parameter 'row'; did you mean 'rows'"),
        ({"rows": {1}}, "not plain JSON"),
    ],
)
def test_parameters_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        training().check_parameters(values)
    with pytest.raises(ParameterError, match=r"'rows' must be of type integer"):
        Pipeline("p", context=context(rows="four")).add_step(load).compile()


@pytest.mark.parametrize("value", ["caf\udce9.csv", ["\ud83d\ude00"], {"\ud800": 1}])
def test_half_a_surrogate_pair_is_refused(value: object) -> None:
    """Python makes it of a file name that is not UTF-8. Some databases refuse it, others give back something else."""

    @step
    def read(source: Any = "ä", other: Any = "\U0001f600") -> None: ...

    pipeline = Pipeline("reading", context=context(source="ä", other="\U0001f600")).add_step(read)
    assert pipeline.check_parameters({"source": ["\U0001f600"]})
    with pytest.raises(ParameterError, match=r"'source' contains '\\ud\w+', a lone surrogate"):
        pipeline.check_parameters({"source": value})


def test_options_for_one_engine_reach_the_plan() -> None:
    special = step(name="special", prefect={"queue": "gpu"})(lambda: 1)
    plan = Pipeline("p", prefect={"owner": "ml"}).add_step(special).compile()
    assert plan.options == {"prefect": {"owner": "ml"}}
    assert decode(plan.canonical).by_name["special"].options == {"prefect": {"queue": "gpu"}}
    with pytest.raises(DefinitionError, match=r"step 'special': prefect=.* must be a dict of plain JSON"):
        step(name="special", prefect={"queue": {1}})(lambda: 1)


@step(
    inputs={"rows": "table"},
    outputs=["model"],
    after="load",
    retry=2,
    timeout=60,
    resources=ResourceRequirements(cpu=2),
    tags="nightly",
)
def fit(rows: list[int], rate: float = 0.1) -> float:
    """Fit it.

    And more.
    """
    return sum(rows) * rate


@step
def double(number: int) -> int:
    return 2 * number


def test_a_step_says_what_it_was_given_or_has_by_default() -> None:
    assert (fit.name, fit.inputs, fit.outputs) == ("fit", {"rows": "table"}, ("model",))
    assert fit.retry == OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0)
    assert (fit.timeout, fit.resources) == (60, ResourceRequirements(cpu=2))
    assert (fit.tags, fit.description, fit.after) == (("nightly",), "Fit it.", ("load",))
    assert (double.name, double.inputs, double.outputs) == ("double", {"number": "number"}, ("double",))
    assert (double.retry, double.timeout, double.resources, double.tags, double.description) == (None,) * 3 + ((), "")


def test_a_pipeline_lists_its_steps_under_their_names_there() -> None:
    assert Pipeline("shown by name").add_step(fit).add_step(double).steps == (fit, double)

    @pipeline
    def shown_by_calls(number: int = 3):  # type: ignore[no-untyped-def]  # as users write it
        return double(double(number))

    first, second = shown_by_calls.steps
    assert first is double
    assert (second.name, second.outputs, second.function) == ("double_2", ("double_2",), double.function)
    assert [item.name for item in shown_by_calls.steps] == [item.name for item in shown_by_calls.compile()]
    assert Pipeline("shown empty").steps == ()
