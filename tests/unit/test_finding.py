"""Which run is meant by what is typed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flowyml.cli.failures import UsageError
from flowyml.cli.finding import find_run
from flowyml.core.errors import RunNotFoundError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Run
from flowyml.orchestrators import Orchestrator


class Listed:
    """An engine that knows runs by their whole job ids, as all do."""

    def __init__(self, *ids: tuple[str, str]) -> None:
        facts: Any = {"pipeline": "p", "status": ExecutionStatus.RUNNING, "raw_status": "r"}
        self.found = [Run(job_id=job_id, run_id=run_id, **facts) for job_id, run_id in ids]

    def get_run(self, job_id: str) -> Run:
        for run in self.found:
            if run.job_id == job_id:
                return run
        raise RunNotFoundError(job_id)

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return self.found[:limit]


ONE, OTHER = "0af1c2d3-0000-4000-8000-000000000001", "0af1c2d3-1111-4000-8000-000000000002"
LOCAL = "training-20260131-120000-1f3a9c2e"


def job_of(engine: Listed, given: str) -> str:
    return find_run(cast(Orchestrator, engine), given).job_id


@pytest.mark.parametrize("given", [ONE, ONE[:8], ONE[:13], LOCAL, "1f3a9c2e"])
def test_the_beginning_of_a_uuid_stands_for_its_run(given: str) -> None:
    assert job_of(Listed((ONE, LOCAL)), given) == ONE


@pytest.mark.parametrize("given", [ONE[:7], ONE[1:], "training-20260131"])
def test_what_is_no_id_and_not_the_beginning_of_a_uuid_stands_for_none(given: str) -> None:
    with pytest.raises(RunNotFoundError):
        job_of(Listed((ONE, LOCAL), (LOCAL, LOCAL)), given)


def test_a_beginning_that_two_runs_share_is_refused() -> None:
    with pytest.raises(UsageError, match=f"matches 2 runs. Give the job id of one: {ONE}, {OTHER}"):
        job_of(Listed((ONE, "a"), (OTHER, "b")), ONE[:8])
    assert job_of(Listed((ONE, "a"), (OTHER, "b")), ONE[:10]) == ONE
