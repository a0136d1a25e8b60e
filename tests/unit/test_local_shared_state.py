"""Steps in threads that change what all threads share are warned of, once, where another one may run beside them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local import shared_state


def goes() -> None:
    os.chdir(".")


def sets() -> None:
    os.environ["FLOWYML_TEST_SHARED"] = "1"


def seeds() -> None:
    random.seed(7)


def draws() -> float:
    return float(np.random.normal())


def by_a_helper() -> None:
    goes()


def own() -> float:
    own = np.random.default_rng(3)
    return float(own.random()) + random.Random(3).random() + len(os.environ["PATH"])


def other() -> int:
    return 1


@pytest.fixture(autouse=True)
def _nothing_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state, "_warned", set())


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (sets, "os.environ.update"),
        (seeds, "random.seed"),
        (draws, "numpy.random.normal with a seed"),
        (by_a_helper, "os.chdir"),
        (own, None),
    ],
)
def test_what_is_shared(function: Callable[..., Any], what: str | None, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("shared").add_step(step(name="one")(function)).add_step(step(name="two")(other))
    for _ in range(2):
        assert pipeline.run().success
    expected = (
        f"Step 'one' uses {what}, which all threads of a process share, and step 'two' may run at the same time. Run "
        f"it with LocalOrchestrator(workers='processes'), or one after the other (after=…)."
    )
    assert caplog.messages == ([expected] if what else [])


@pytest.mark.processes
def test_steps_that_never_meet_share_nothing(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    first = step(name="one")(goes)
    Pipeline("in turn").add_step(first).add_step(step(name="two", after=["one"])(other)).run().raise_for_status()
    both = Pipeline("apart").add_step(first).add_step(step(name="two")(other))
    both.run(on=LocalOrchestrator(max_workers=1)).raise_for_status()
    both.run(on=LocalOrchestrator(workers="processes")).raise_for_status()
    assert caplog.messages == []


class Lazy:
    """As the settings of Django: it cannot be looked at before it is set up."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("not set up")


lazy: Any = None


def names_it() -> int:
    return 1 if lazy is None else 2


def test_objects_that_cannot_be_looked_at_end_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "lazy", Lazy())
    made = Pipeline("lazy").add_step(step(names_it)).add_step(step(name="other")(lambda: 1))
    assert made.run(on=LocalOrchestrator()).success
