"""Steps that the tests of control flow share."""

from __future__ import annotations

from typing import Any

from flowyml import step
from flowyml.core.execution_status import ExecutionStatus

COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def double(n: int) -> int:
    return 2 * n


@step
def add(a: int, b: int = 0) -> int:
    return a + b


@step
def total(values: list[int]) -> int:
    return sum(values)


@step
def fail_on(n: int, bad: int = 1) -> int:
    if n == bad:
        raise ValueError(f"no {n}")
    return n


@step
def same(value: Any = None) -> Any:
    return value
