"""Compiling to KFP's format: FlowyML beside KFP's own compiler, in the same run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import Row, side_by_side

OURS = """
import json, sys, time
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, Input, Plan, Step
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import compile_pipeline

def plan(count):
    steps = [Step(name="work-0", function="m:f", outputs=("value",))]
    for number in range(1, count):
        inputs = (Input("value", FromStep(f"work-{number - 1}", "value")),)
        steps.append(Step(name=f"work-{number}", function="m:f", inputs=inputs, outputs=("value",)))
    return Plan(name="big", steps=tuple(steps))

measured = {}
bundle = build(plan(10))
spec.validate(compile_pipeline(bundle))  # imports protobuf
for count in (1000, 5000):
    bundle = build(plan(count))
    started = time.process_time()
    compiled = compile_pipeline(bundle)
    made = time.process_time()
    spec.validate(compiled)
    checked = time.process_time()
    text = spec.compact(compiled)
    done = time.process_time()
    measured[f"seconds_{count}"] = done - started
    measured[f"spec_{count}"], measured[f"validate_{count}"] = made - started, checked - made
    measured[f"megabytes_{count}"] = len(text) / 1e6
    measured[f"block_{count}"] = len(spec.text(compiled)) / 1e6
assert "kfp" not in sys.modules
print(json.dumps(measured))
"""

THEIRS = """
import json, tempfile, time
from kfp import compiler, dsl

@dsl.component(base_image="python:3.12", install_kfp_package=False)
def work(value: int) -> int:
    return value

def build(count):
    @dsl.pipeline(name="big")
    def big():
        last = work(value=0)
        for _ in range(count - 1):
            last = work(value=last.output)
    return big

measured = {}
started = time.process_time()
big = build(1000)
with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
    compiler.Compiler().compile(big, file.name)
    measured["seconds_1000"] = time.process_time() - started
    measured["megabytes_1000"] = len(open(file.name).read()) / 1e6
print(json.dumps(measured))
"""


def rows() -> Iterator[Row]:
    """CPU seconds of compiling, checking and writing, and the size of the file."""
    taken = side_by_side({"ours": OURS, "theirs": THEIRS})
    ours, theirs = taken["ours"].values, taken["theirs"].values
    kfp = "kfp's compiler, 1,000"
    yield Row("compile to KFP, 1,000 steps: CPU", ours["seconds_1000"], "s", kfp, theirs["seconds_1000"], "0.15 s")
    yield Row("compile to KFP, 5,000 steps: CPU", ours["seconds_5000"], "s", kfp, theirs["seconds_1000"], "0.75 s")
    yield Row(
        "compile to KFP, 5,000 beside 1,000", ours["seconds_5000"], "s", "1,000", ours["seconds_1000"], "5 x: linear"
    )
    size = theirs["megabytes_1000"]
    yield Row("size of an upload, 1,000 steps", ours["megabytes_1000"], "MB", kfp, size, "JSON")
    yield Row("size of the file, 1,000 steps", ours["block_1000"], "MB", kfp, size, "block style, for review")
