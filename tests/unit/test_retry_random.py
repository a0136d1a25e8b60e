"""Random pipelines in which steps fail by bad luck: two tries together do what one does that goes well."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from random import Random
from typing import Any

import pytest

from flowyml import pipeline
from flowyml.core.process_identity import this_process
from flowyml.core.runs import PipelineResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.host import Host
from flowyml.orchestrators.local.retrying import to_run_again
from flowyml.orchestrators.local.schema import item_of
from flowyml.testing.pipelines_random import MISSING, Calls, Plain, build, drawn

trace: list[tuple[Any, ...]] = []
lock = threading.Lock()
unlucky: list[int] = []
"""While there is a number in it, one step of six fails."""


def note(*what: Any) -> None:
    if unlucky and zlib.crc32(repr((unlucky, what)).encode()) % 6 == 0:
        raise ValueError("bad luck")
    with lock:
        trace.append(what)


CALLS, PLAIN = Calls(note), Plain(note)

NOT_TAKEN = [
    ("numbers", 0),
    ("choice", 0, 38, [("numbers", 0)], [("map_add", 0, 0), ("choice", 0, 0, [("add", 0, 0)], [("total", 1)])]),
]
"""What takes the list of a loop that failed stands in a branch that is not taken, and needs no values."""


@pytest.mark.parametrize("number", range(12))
def test_nothing_runs_twice_and_nothing_with_other_values(tmp_path: Any, number: int) -> None:
    blocks = drawn(Random(number)) if number else NOT_TAKEN  # nothing here is secret
    seed = number or 38

    @pipeline(name="retried")
    def made(seed: int = 0) -> Any:
        return {"last": build(blocks, CALLS, [seed], [])}

    local = LocalOrchestrator(store=tmp_path / "runs.db")
    trace.clear()
    unlucky.append(670 + number)
    try:
        result = made.run({"seed": seed}, on=local)
    finally:
        unlucky.clear()
    if not result.success:
        result = tried_again(local, made, result.run_id, {"seed": seed})
    seen = Counter(trace)
    trace.clear()
    wanted = build(blocks, PLAIN, [seed], [])
    assert result.success, result.error
    assert seen == Counter(trace)
    assert local.outputs(result.run_id) == ({} if wanted is MISSING else {"last": wanted})


def tried_again(local: LocalOrchestrator, made: Any, run_id: str, parameters: dict[str, Any]) -> PipelineResult:
    """What `retry` does, in this process."""
    store, plan = local.store, made.compile()
    row = store.get(run_id)
    positions = {step.name: position for position, step in enumerate(plan)}
    chosen = to_run_again(plan, store.steps(row.number), store.kept(row.number), None)
    again, gone = ([(positions[name], item_of(index)) for name, index in turns] for turns in chosen)
    assert store.queue_again(row.number, this_process(), again, gone)
    here = LocalOrchestrator(store=store.path)
    here.host = Host()
    here.host.run_id = run_id
    return here.execute(made, run_id, parameters)
