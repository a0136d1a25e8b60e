"""An orchestrator of your own: local runs that take turns, however many processes start them.

    python examples/custom_orchestrator.py
    flowyml run examples/custom_orchestrator.py --on prefect     # the pipeline does not depend on it

`execute` is the whole life of a blocking run: put what you need before and after it. For an engine of your own, see
docs/reference/write-an-adapter.md.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowyml import pipeline, step
from flowyml.core.runs import PipelineResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import RunnablePipeline


class OneAtATime(LocalOrchestrator):
    """Runs of one pipeline wait for each other."""

    def execute(
        self, pipeline: RunnablePipeline, run_id: str, context: Mapping[str, Any], **more: Any
    ) -> PipelineResult:
        """Hold a lock while the run lasts."""
        with (Path(tempfile.gettempdir()) / f"flowyml-{pipeline.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            print(f"{pipeline.name}: my turn, with {dict(context)}")
            return super().execute(pipeline, run_id, context, **more)


@step(outputs=["rows"])
def read(rows: int) -> list[int]:
    return list(range(rows))


@step(outputs=["total"])
def add_up(rows: list[int]) -> int:
    return sum(rows)


@pipeline(name="migrate-table")
def migrate_table(rows: int = 5) -> int:
    """Something that two processes had better not do at once."""
    return add_up(read(rows))


if __name__ == "__main__":
    print("total:", migrate_table.run(on=OneAtATime())["total"])
