"""A small pipeline that tests compile for Kubeflow, and the parts of what comes of it."""

from __future__ import annotations

from typing import Any

from flowyml import Pipeline, step
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline


@step(outputs=["rows"])
def load() -> list[int]:
    return [1, 2, 3]


@step(outputs=["total"])
def add(rows: list[int]) -> int:
    return sum(rows)


def compiled(*, kubeflow: dict[str, Any] | None = None, **asked: Any) -> Compiled:
    steps = [step(outputs=["total"], name="add", **asked)(lambda rows: sum(rows)), load]
    pipeline = Pipeline("summing", **({"kubeflow": kubeflow} if kubeflow else {}))
    for item in reversed(steps):
        pipeline.add_step(item)
    made = compile_pipeline(pipeline.bundle())
    assert spec.validate(made)
    return made


def container(made: Compiled, task: str = "add") -> dict[str, Any]:
    found: dict[str, Any] = made.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    return found


def kubernetes(made: Compiled, task: str = "add") -> dict[str, Any]:
    found: dict[str, Any] = made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    return found
