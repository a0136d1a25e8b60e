"""In a notebook, the state of the process counts, and so do the files that cells name."""

import json
from pathlib import Path

from tests.engines.notebook import run_notebook

ACCESSOR = """
@pd.api.extensions.register_series_accessor("shown")
class Shown:
    def __init__(self, data): pass
    def value(self): return 1
"""
CELLS = [
    """
import logging
import json, numpy as np, pandas as pd
from flowyml import pipeline, step
logging.disable()
RATES = "rates"

@step(cache=True)
def work(x: int) -> list:
    return [pd.Series([x]).shown.value(), np.level, pd.get_option("display.max_rows")]

@step(cache=True)
def reaches(x: int) -> int:
    return globals()["RATE"]

@step(cache=True)
def reads(x: int) -> str:
    return open(RATES + ".txt").read() + open("names.txt").read()

@pipeline
def flow(x: int = 1):
    return {"work": work(x), "reaches": reaches(x), "reads": reads(x)}

def show():
    run = flow.run()
    print("is", json.dumps([run["work"], run["reaches"], run.step_results["work"].is_cached, run["reads"]]))

open("rates.txt", "w").write("1")
open("names.txt", "w").write("1")
""",
    ACCESSOR, "np.level = 1", "pd.set_option('display.max_rows', 11)", "RATE = 1", "show()", "show()",
    ACCESSOR.replace("return 1", "return 2"), "show()", "np.level = 3", "show()",
    "pd.set_option('display.max_rows', 12)", "show()", "RATE = 2", "show()",
    "pd.set_option('display.max_rows', 11)", "show()", "open('names.txt', 'w').write('2')", "show()",
]  # fmt: skip


def test_what_cells_change_in_libraries_and_files_counts_in_a_notebook(tmp_path: Path) -> None:
    """And what a step reaches by ``globals()`` is never cached there."""
    printed = run_notebook(tmp_path, CELLS).splitlines()
    assert [json.loads(line[3:]) for line in printed if line.startswith("is ")] == [
        [[1, 1, 11], 1, False, "11"],
        [[1, 1, 11], 1, True, "11"],
        [[2, 1, 11], 1, False, "11"],
        [[2, 3, 11], 1, False, "11"],
        [[2, 3, 12], 1, False, "11"],
        [[2, 3, 12], 2, True, "11"],
        [[2, 3, 11], 2, False, "11"],
        [[2, 3, 11], 2, True, "12"],
    ]
