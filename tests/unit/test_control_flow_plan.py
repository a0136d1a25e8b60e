"""What a plan holds of control flow, and how records of items fold."""

from __future__ import annotations

from flowyml import pipeline
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun, folded
from flowyml.plan.codec import decode
from flowyml.plan.model import Plan
from tests.unit.control_flow import COMPLETED, add


def test_a_plan_without_control_flow_keeps_its_schema() -> None:
    flat = pipeline(name="flat")(lambda: add(1)).compile()
    looped = pipeline(name="looped")(lambda: add.map(a=[1])).compile()
    assert (flat.schema_version, looped.schema_version) == (1, 2)
    assert b"group" not in flat.canonical
    assert type(decode(looped.canonical)) is Plan


def test_step_runs_fold() -> None:
    runs = [
        StepRun(name="a", status=COMPLETED, raw_status="completed"),
        StepRun(name="b", status=COMPLETED, raw_status="completed", index=(0,)),
        StepRun(name="b", status=ExecutionStatus.QUEUED, raw_status="queued", index=(1,)),
    ]
    a, b = folded(runs)
    assert (a.items, b.items, b.status, b.label) == (None, (1, 2), ExecutionStatus.RUNNING, "b 1 of 2")
