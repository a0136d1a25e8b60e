"""Random nested loops, branches, called pipelines, execution groups, clean-up and failures do on local what a few lines
of plain Python do; and where steps fail by bad luck, two tries together do what one does that goes well."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowyml import pipeline
from flowyml.core.process_identity import this_process
from flowyml.core.runs import PipelineResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.host import Host
from flowyml.orchestrators.local.retrying import choose
from flowyml.orchestrators.local.schema import item_of
from flowyml.testing.pipelines_random import BROKEN, MISSING, Calls, Plain, build, drawn

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


def block(depth: int, loops: int) -> st.SearchStrategy[Any]:
    number = st.integers(0, 9)
    simple = [
        st.tuples(st.sampled_from(["risky", "fallback"]), number),
        st.tuples(st.just("add"), number, number),
        st.tuples(st.just("numbers"), number),
        st.tuples(st.just("total"), number),
        st.tuples(st.just("together"), number, number, st.sampled_from(["square", "risky"]), st.booleans()),
    ]
    if depth:
        inner = st.lists(st.deferred(lambda: block(depth - 1, loops)), min_size=1, max_size=3)
        limit = st.integers(0, 60)
        simple.append(st.tuples(st.just("choice"), number, limit, inner, inner))
        simple.append(st.tuples(st.just("elif_"), number, limit, inner, inner, inner))
        simple.append(st.tuples(st.just("alone"), number, limit, inner))
        simple.append(st.tuples(st.just("called"), number, inner))
        if loops:
            within = st.lists(st.deferred(lambda: block(depth - 1, loops - 1)), min_size=1, max_size=3)
            simple.append(st.tuples(st.just("map_add"), number, number))
            simple.append(st.tuples(st.sampled_from(["each", "going_on"]), number, within))
    return st.one_of(simple)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path_factory.mktemp("random") / "runs.db")


@pytest.mark.slow
@example([("risky", 0), ("together", 0, 1, "square", False)], 3)  # its last step waits for what failed
@settings(max_examples=120)
@given(st.lists(block(3, 2), min_size=1, max_size=5), st.integers(0, 40))
def test_random_control_flow(local: LocalOrchestrator, blocks: list[Any], seed: int) -> None:
    @pipeline(name="random")
    def made(seed: int = 0) -> Any:
        last = build(blocks, CALLS, [seed], [])
        CALLS.tidy(last)
        return {"last": last}

    plan = made.compile()
    assert type(plan).__name__ == "Plan"
    trace.clear()
    result = made.run({"seed": seed}, on=local)
    seen = Counter(trace)
    trace.clear()
    PLAIN.failed = False
    wanted = build(blocks, PLAIN, [seed], [])
    PLAIN.tidy(wanted)
    assert seen == Counter(trace)
    assert result.success is not PLAIN.failed, result.error
    assert result.outputs == ({} if PLAIN.failed or wanted in (MISSING, BROKEN) else {"last": wanted})


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
    chosen = choose(plan, store.steps(row.number), store.kept(row.number), None)
    again, gone = ([(positions[name], item_of(index)) for name, index in turns] for turns in chosen)
    assert store.queue_again(row.number, this_process(), again, gone)
    here = LocalOrchestrator(store=store.path)
    here.host = Host()
    here.host.run_id = run_id
    return here.execute(made, run_id, parameters)
