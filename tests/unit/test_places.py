"""Errors in a pipeline say in which line they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from flowyml import Context, Pipeline, pipeline, step
from flowyml.core.errors import DefinitionError, ParameterError, UnknownOptionError
from flowyml.orchestrators import LocalOrchestrator

HERE = Path(__file__).resolve()


@step
def two() -> tuple[int, int]:
    return 1, 2


@step
def needs(dataset: int) -> int:
    return dataset


@pipeline
def counting(n: int = 1) -> object:
    return needs(n)


def unpacks() -> object:
    a, _ = two()  # here: unpacks
    return a


def unpacks_three() -> object:
    a, _ = step(outputs=["a", "b", "c"])(two.function)()  # here: unpacks_three
    return a


def asks_numpy() -> object:
    import numpy

    return needs(numpy.asarray(range(two())))  # type: ignore[arg-type]  # here: asks_numpy


def decorates() -> None:
    step(timeout=-1)(two.function)  # here: decorates


def decorates_a_method() -> None:
    class Model:
        @step  # here: decorates_a_method
        def fit(self, rows: int) -> int:
            return rows


def makes() -> None:
    Pipeline("p", timeout=-1)  # here: makes


def misspells() -> None:
    Pipeline("p", timeot=1)  # type: ignore[call-arg]  # here: misspells


def contexts() -> None:
    Context(a={1})  # here: contexts


def adds() -> None:
    Pipeline("p").add_step(print)  # type: ignore[arg-type]  # here: adds


def globs() -> None:
    made = Pipeline("p", include="no-such/*.csv").add_step(two)  # here: globs
    made.bundle()


def runs() -> None:
    counting.run(n=3)  # type: ignore[call-arg]  # here: runs


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: pipeline(unpacks).compile(), r"'two' returns one output, 'two'; .*@step\(outputs=\['a', 'b'\]\)"),
        (lambda: pipeline(unpacks_three).compile(), "raised ValueError: too many values to unpack"),
        (lambda: pipeline(asks_numpy).compile(), "has no value"),
        (decorates, "timeout=-1 must be"),
        (decorates_a_method, "@step does not work on methods, and 'fit' is one of 'Model'"),
        (makes, "timeout=-1 must be"),
        (misspells, "Did you mean 'timeout'"),
        (contexts, "is a set"),
        (adds, "add_step takes a function with @step"),
        (globs, "matches no file"),
        (runs, r"Parameters of the run go into a dict: run\(\{'n': 3\}\)"),
    ],
)
def test_the_line_is_named(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as seen:
        mistake()
    lines = HERE.read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if "# here: " in line]
    found = re.search(r"test_places\.py, line (\d+)\)$", str(seen.value))
    assert found, str(seen.value)
    assert int(found[1]) in numbers
    if mistake.__name__ != "<lambda>":
        assert lines[int(found[1]) - 1].endswith(f"# here: {mistake.__name__}")
    assert seen.value.place.endswith(f"line {found[1]}")


def test_a_wire_that_is_missing_is_in_the_line_of_the_function() -> None:
    made = Pipeline("p").add_step(needs)
    with pytest.raises(DefinitionError, match=rf"needs 'dataset'.*line {needs.function.__code__.co_firstlineno}\)$"):
        made.compile()


def test_parameters_are_a_dict() -> None:
    with pytest.raises(ParameterError, match=r"must be a dict by name, such as \{'n': …\}, not 3"):
        counting.run(3)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UnknownOptionError, match=r"schedule\(parameters=\{'n': 3\}\)"):
        counting.schedule("daily", 3, n=3)  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(UnknownOptionError, match="Did you mean 'run_id'"):
        counting.submit(runid="a")  # type: ignore[call-arg]  # wrong on purpose


def test_the_method_of_an_object_can_be_a_step() -> None:
    class Model:
        def fit(self, rows: int = 2) -> int:
            return rows

    assert Pipeline("p").add_step(step(Model().fit)).run().outputs == {"fit": 2}
    assert Pipeline("p").add_step(step(name="part")(partial(Model().fit, 3))).run().outputs == {"part": 3}


def test_without_a_file_the_line_is_that_of_the_input(tmp_path: Path) -> None:
    code = compile("\n\nstep(timeout=-1)(print)", "<prompt>", "exec")
    with pytest.raises(DefinitionError, match=r"\(line 3 of <prompt>\)$"):
        exec(code, {"step": step, "__name__": "__main__"})


def test_a_glob_that_matches_nothing_is_wrong_for_a_run_in_threads_too(tmp_path: Path) -> None:
    made = Pipeline("p", include="no-such/*.csv").add_step(two)  # here: local
    with pytest.raises(DefinitionError, match=r"include='no-such/\*\.csv' matches no file in .*line"):
        made.run(on=LocalOrchestrator(store=tmp_path / "runs.db"))
