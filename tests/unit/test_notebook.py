"""Pipelines of a real notebook: their functions have no file, so they travel by value, and their graphs are drawn."""

from __future__ import annotations

import pytest

from flowyml import Pipeline, step
from tests.engines.notebook import run_notebook

pytestmark = pytest.mark.slow  # for the kernel

SUBMITS = [
    "import helpers\nfrom flowyml import Pipeline, context, step\nfrom flowyml.core.hooks import PipelineHook",
    """
class Hook(PipelineHook):
    def on_step_end(self, step_name, outputs, duration):
        print("hook saw", step_name)

@step(outputs=["rows"])
def load(count: int):
    return helpers.rows(count)

@step(outputs=["total"], timeout=600)
def add(rows):
    return sum(rows)

pipeline = Pipeline("in a notebook", hooks=[Hook()], context=context(count=4)).add_step(load).add_step(add)
""",
    "result = pipeline.run()\nprint('here', result['total'])\nhtml = result._repr_html_()",
    "print('drawn', '<svg' in html, 'COMPLETED' in html, html.count('<table'))",
    (
        "handle = pipeline.submit({'count': 5}).wait_for_completion(2400, progress=False)\n"
        "print('submitted', handle.status, handle.outputs, handle.error)"
    ),
]


DEFINED = """
from flowyml import Pipeline, pipeline, step

@step(outputs=["rows"])
def load() -> list[int]:
    return [1, 2]

@step(outputs=["total"])
def add(rows: list[int]) -> int:
    return sum(rows)

@step(outputs=["more"])
def extra(total: int) -> int:
    return total + 1000

wide = load.options(name="wide", outputs=["wide"])
kept = [add]

def both():
    return add(load())

@pipeline
def by_calls():
    return {"result": both(), "held": kept[0](wide())}

by_names = Pipeline("by names").add_step(load).add_step(add).add_step(wide)

def results(**options):
    one, other = by_names.run(**options), by_calls.run(**options)
    return [*one.raise_for_status().outputs.values(), *other.raise_for_status().outputs.values()]
"""
EDITED = """
@step(outputs=["rows"], timeout=600, description="edited")
def load() -> list[int]:
    return [10, 20]
"""
HELPER = """
def both():
    return extra(add(load()))
"""


EDITS = [
    DEFINED, "print('first', results())", EDITED, "print('then', results())",
    "submitted = by_names.submit().wait_for_completion(2400, progress=False)\nprint('submitted', submitted.outputs)",
    "bundle = by_names.bundle()\nprint('planned', [s.description for s in bundle.plan], bundle.plan.steps[0].name)",
    HELPER, "print('helped', results())",
    "print('kept', by_names.compile() is by_names.compile(), by_calls.compile() is by_calls.compile())",
]  # fmt: skip
LOOPS = [
    "looped = Pipeline('looped')",
    """
for number in range(3):
    @step(name=f"load_{number}")
    def load(number=number):
        return number
    looped.add_step(load)
""",
    "print(looped.run().outputs)",
]


WATCHED = [
    """
import threading
import IPython.display
from flowyml.orchestrators import LocalOrchestrator

drawn, display = threading.Event(), IPython.display.display

def noting(*args, **options):
    drawn.set()
    return display(*args, **options)

IPython.display.display = noting

@step
def patient(rows: int) -> bool:
    return drawn.wait(2400)

watched = Pipeline("watched", context=context(rows=7)).add_step(patient)
""",
    (
        "result = watched.run({'rows': 8}, on=LocalOrchestrator(workers='threads'))\n"
        "print('watched', result['patient'], 'rows = 8' in result._repr_html_(), 'rows = 7' in watched._repr_html_())"
    ),
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one notebook prints that does all of it."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "helpers.py").write_text("def rows(count):\n    return list(range(count))\n")
    return run_notebook(folder, [*SUBMITS, *EDITS, *LOOPS, *WATCHED])


def test_a_notebook_runs_and_submits_its_pipeline(printed: str) -> None:
    assert "here 6" in printed
    assert "submitted COMPLETED {'total': 10} None" in printed
    assert "hook saw add" in printed


def test_only_a_notebook_draws(printed: str) -> None:
    assert "drawn True True 2" in printed
    assert Pipeline("plain").add_step(step(name="one")(lambda: 1)).run().graph is None


def test_the_running_cell_shows_the_steps_and_the_picture_has_the_parameters_of_the_run(printed: str) -> None:
    assert "watched True True True" in printed
    (left,) = (line for line in printed.splitlines() if line.startswith("displayed") and "<b>watched</b>" in line)
    assert "COMPLETED" in left


def test_a_cell_that_is_edited_and_run_again_counts_wherever_the_pipeline_runs(printed: str) -> None:
    assert "first [[1, 2], 3, 3, 3]" in printed
    assert "then [[10, 20], 30, 30, 30]" in printed
    assert "submitted {'wide': [10, 20], 'total': 30}" in printed
    assert "planned ['edited', 'edited', ''] load" in printed
    assert "helped [[10, 20], 30, 1030, 30]" in printed
    assert "kept True True" in printed


def test_steps_that_a_loop_defines_under_one_name_stay_as_they_are(printed: str) -> None:
    assert "{'load_0': 0, 'load_1': 1, 'load_2': 2}" in printed
