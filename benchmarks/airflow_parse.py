"""Compiling DAG files, and how long Airflow takes to parse them beside what one would write by hand, in one process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, side_by_side
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, Input, Plan, Step
from flowyml_airflow.compiler import compile_dag
from tests.engines.airflow import bare_airflow

STEPS = 1000

COMPILING = """
import json, time
from benchmarks.airflow_parse import plan
from flowyml.plan.bundle import build
from flowyml_airflow.compiler import compile_dag

measured = {}
compile_dag(build(plan(10)))
for count in (1000, 5000):
    bundle = build(plan(count))
    bundle.plan.canonical
    started = time.process_time()
    text = compile_dag(bundle).text
    measured[f"seconds_{count}"] = time.process_time() - started
    started = time.process_time()
    json.dumps(json.loads(bundle.plan.canonical))
    measured[f"json_{count}"] = time.process_time() - started
print(json.dumps(measured))
"""

PARSING = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from airflow.dag_processing.dagbag import DagBag

files = sys.argv[1:]
best = {}
for turn in range(7):
    for file in files:
        bag = DagBag("/dev/null")
        started = time.process_time()
        bag.process_file(file)
        seconds = time.process_time() - started
        assert not bag.import_errors, bag.import_errors
        best[file] = min(seconds, best.get(file, seconds))
print("@@@" + json.dumps([best[file] for file in files]))
"""

BY_HAND = """\
from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task


def work(value=None):
    return value


with DAG(dag_id="big", schedule=None, start_date=datetime(2020, 1, 1), catchup=False):
"""


def plan(count: int) -> Plan:
    """A chain that hands a value on."""
    steps = [Step(name="s0", function="m:f", outputs=("value",))]
    for number in range(1, count):
        inputs = (Input("value", FromStep(f"s{number - 1}", "value")),)
        steps.append(Step(name=f"s{number}", function="m:f", inputs=inputs, outputs=("value",)))
    return Plan(name="compiled", steps=tuple(steps))


def rows() -> Iterator[Row]:
    """CPU seconds."""
    taken = side_by_side({"ours": COMPILING})["ours"].values
    for count in (1000, 5000):
        beside = "the plan's JSON, read and written"
        yield Row(
            f"Airflow, compile {count:,} steps: CPU", taken[f"seconds_{count}"], "s", beside, taken[f"json_{count}"]
        )
    parsed = _parsed()
    for name, beside in (("bash", "BashOperators"), ("empty", "EmptyOperators"), ("taskflow", "@task, automatic ids")):
        aim = "1.1 times" if name == "bash" else ""
        yield Row("Airflow, parse 1,000 tasks: CPU", parsed["compiled"], "s", f"{beside}, by hand", parsed[name], aim)


def _parsed() -> dict[str, float]:
    chains = {
        "bash": lambda n: f'    t{n} = BashOperator(task_id="t{n}", bash_command="python step.py {n}")',
        "empty": lambda n: f'    t{n} = EmptyOperator(task_id="t{n}")',
    }
    with tempfile.TemporaryDirectory() as folder:
        airflow = bare_airflow(3, Path(folder))
        files = {"compiled": Path(folder, "compiled.py")}
        files["compiled"].write_text(compile_dag(build(plan(STEPS))).text)
        for name, line in chains.items():
            body = [line(n) + (f"\n    t{n - 1} >> t{n}" if n else "") for n in range(STEPS)]
            files[name] = _written(Path(folder, f"{name}.py"), body)
        calls = [f"    t{n} = task(work)({f't{n - 1}' if n else ''})" for n in range(STEPS)]
        files["taskflow"] = _written(Path(folder, "taskflow.py"), calls)
        done = airflow.execute(str(airflow.python), "-c", PARSING, *map(str, files.values()))
    return dict(zip(files, json.loads(done.stdout.rpartition("@@@")[2]), strict=True))


def _written(path: Path, body: list[str]) -> Path:
    path.write_text(BY_HAND + "\n".join(body) + "\n")
    return path
