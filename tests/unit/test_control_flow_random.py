"""Random nested loops, branches, called pipelines, execution groups, clean-up and failures do on local what a few lines
of plain Python do."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowyml import pipeline
from flowyml.orchestrators import LocalOrchestrator
from flowyml.testing.pipelines_random import BROKEN, MISSING, Calls, Plain, build

trace: list[tuple[Any, ...]] = []
lock = threading.Lock()


def note(*what: Any) -> None:
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
