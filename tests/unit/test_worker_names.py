"""What stands for ``flowyml`` where steps run, and no pipeline is built."""

import pickle

import pytest

import flowyml
from flowyml.core.errors import DefinitionError
from flowyml.core.loading import loading
from flowyml.runtime import worker_names as worker
from flowyml.runtime.definition_parts import Engine
from flowyml.runtime.loading import StopLoading


def test_has_all_public_names():
    assert worker.__all__ == flowyml.__all__


def double(number: int) -> int:
    """Twice."""
    return 2 * number


def test_a_step_is_its_function():
    step = worker.step(double)
    tuned = worker.step(name="tuned", retry=2, airflow={"pool": "gpu"})(double).options(timeout=3)
    assert (step(4), tuned(4), step.__doc__, step.name, tuned.name) == (8, 8, "Twice.", "double", "tuned")
    assert tuned.options(name="other").name == "other"
    assert pickle.loads(pickle.dumps(tuned)).function is double


def test_a_module_wires_whatever_it_likes():
    with loading():

        @worker.pipeline(hooks=[], airflow={"schedule": "@daily"})
        def training(rows: int = 3):
            raise AssertionError("a worker never calls it")

        class Own(worker.Pipeline):
            def __init__(self):
                super().__init__("own", context=worker.Context(rows=1))
                self.add_step(worker.step(double)).add_step(worker.step(double).partial(a=1).map(number="numbers"))

        own = Own()
        with own.when(lambda it: it.score > 0.9, name="good"), own.cleanup():
            own.add_control_flow(worker.If(lambda it: it.score > 1, then_step=double))
        for start in ("run", "submit", "deploy", "schedule"):
            with pytest.raises(StopLoading):
                getattr(training, start)(on="airflow")
    assert (training.name, own.name) == ("training", "own")


@pytest.mark.parametrize("ask", [
    lambda made: made.run(), lambda made: made.compile(), lambda made: made.steps, lambda made: made.when("it"),
])  # fmt: skip
def test_a_running_step_gets_no_answer_from_a_pipeline(ask):
    with pytest.raises(DefinitionError, match="pipeline 'training': a step asks for"):
        ask(worker.Pipeline("training"))


def test_a_context_is_read_as_everywhere():
    shared = worker.context(rows=100) | worker.Context({"rate": 0.1})
    named = worker.Context(items=[1])
    named["items"].append(2)
    assert (named["items"], dict(named.items())) == ([1], {"items": [1]})
    with pytest.raises(TypeError):
        worker.context({"rows": 1})
    assert (shared.rows, shared["rate"], dict(shared)) == (100, 0.1, {"rows": 100, "rate": 0.1})
    with pytest.raises(AttributeError, match="never changes"):
        shared.rows = 5
    with pytest.raises(AttributeError, match="missing"):
        _ = shared.missing


def test_a_module_makes_an_orchestrator_that_no_step_can_ask():
    with loading():

        class Own(Engine):
            def __init__(self):
                super().__init__("http://kfp", token="t")

        own = Own()
        for start in ("run_pipeline", "schedule_pipeline", "deploy_pipeline"):
            with pytest.raises(StopLoading):
                getattr(own, start)(double)
        own.health()
    with pytest.raises(DefinitionError, match=r"asks for \.runs, .* import its orchestrator inside the step's"):
        own.runs()
