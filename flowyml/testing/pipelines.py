"""Sample pipelines, one for each requirement of the suite.

Each is defined inside a function, so that its steps are pickled by value: a worker without ``flowyml.testing`` runs
them, too. Steps write traces to files of ``folder``, since engines have nothing else in common.
"""

from __future__ import annotations

import builtins
import time
from collections import Counter, deque
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from flowyml import LOGICAL_DATE, Pipeline, Schedule, context, get_logger, pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.core.retry_policy import OrchestratorRetryPolicy

__all__ = [
    "beating", "counting", "dated", "failing", "flaky", "gathering", "greeting", "hooked", "hostile",
    "journal", "large", "meeting", "mutating", "talking", "timed", "values",
]  # fmt: skip

VALUES: dict[str, Any] = {
    "none": None,
    "yes": True,
    "big": 2**70,
    "small": 1e-300,
    "text": "ü 🚀 \"quoted\" 'too' {x} $(y) \n",
    "list": [1, [2.5, None]],
    "dict": {"a b": {"": []}},
    "separators": "a\u2028b\u2029c\x85d\x0ce\rf",
}


def greeting(first: str = "hello", *, name: str = "conformance greeting", schedule: Schedule | None = None) -> Pipeline:
    """Two steps, a parameter, a line of output. Another first word is other code."""

    @step(outputs=["words"])
    def gather(name: str) -> list[str]:
        print(f"gathering words for {name}")
        get_logger().warning("%s has few words", name)
        return [first, name]

    @step(outputs=["greeting"])
    async def join(words: list[str]) -> str:
        return " ".join(words)

    return Pipeline(name, context=context(name="world"), schedule=schedule).add_step(gather).add_step(join)


def on_time() -> Pipeline:
    """A step that returns the parameters and the dates of its run."""

    @step(outputs=["seen"])
    def look(name: str, day: str) -> list[Any]:
        from flowyml import current_run

        run = current_run()
        times = (run.logical_date, run.data_interval_start, run.data_interval_end)
        return [name, day, *(moment and moment.isoformat() for moment in times)]

    return Pipeline("conformance on time", context=context(name="default", day=LOGICAL_DATE)).add_step(look)


def timed() -> Pipeline:
    """Two steps that return the dates of their run, and parameters filled with them: text, a time and a day."""

    @step(outputs=["first"])
    def tell(day: str, moment: datetime, today: date) -> list[Any]:
        from flowyml import current_run

        run = current_run()
        typed = [moment == run.logical_date, type(today) is date and today == run.logical_date.date()]
        return [day, run.logical_date.isoformat(), run.data_interval_start, run.data_interval_end, run.step, typed]

    @step(outputs=["second"])
    def again(first: list[Any]) -> str:
        from flowyml import current_run

        return current_run().logical_date.isoformat()

    filled = context(day=LOGICAL_DATE, moment=LOGICAL_DATE, today=LOGICAL_DATE)
    made = Pipeline("conformance timed", context=filled, outputs=["first", "second"])
    return made.add_step(tell).add_step(again)


def values() -> Pipeline:
    """Outputs of every JSON type, which must come back unchanged."""
    wanted = VALUES

    @step(outputs=["value"])
    def make() -> dict[str, Any]:
        return wanted

    @step(outputs=["same", "value_again"])
    def check(value: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        return value == wanted, value

    return Pipeline("conformance values").add_step(make).add_step(check)


def mutating() -> Pipeline:
    """Ten values that one step changes in place; another step takes them afterwards, by ``**kwargs``."""
    names = ["appended", "sorted", "nested", "updated", "popped", "added", "bytes", "in_tuple", "rotated", "counted"]

    @step(outputs=names)
    def make() -> dict[str, Any]:
        values = (
            [1],
            [3, 1, 2],
            {"a": [1]},
            {"a": 1},
            {"a": 1},
            {1},
            bytearray(b"a"),
            ([1],),
            deque("ab"),
            Counter("a"),
        )
        return dict(zip(names, values, strict=True))

    @step(outputs=["changed"], inputs=names)
    def change(**values: Any) -> list[str]:
        values["appended"].append(2)
        values["sorted"].sort()
        values["nested"]["a"].append(2)
        values["updated"].update(b=2)
        values["popped"].pop("a")
        values["added"].add(2)
        values["bytes"].extend(b"b")
        values["in_tuple"][0].append(2)
        values["rotated"].rotate()
        values["counted"].update("b")
        return [f"{name}={value}" for name, value in values.items()]

    @step(outputs=["seen"], inputs=names, after=["change"])
    def look(**values: Any) -> list[str]:
        return [f"{name}={value}" for name, value in values.items()]

    return Pipeline("conformance mutating", outputs=["changed", "seen"]).add_step(make).add_step(change).add_step(look)


def large() -> Pipeline:
    """An output that is too large to be passed inline, and one that is not JSON."""

    @step(outputs=["blob"])
    def make() -> bytes:
        return bytes(range(256)) * 4096

    @step(outputs=["size", "letters"])
    def measure(blob: bytes) -> tuple[int, set[str]]:
        return len(blob), {"a", "b"}

    return Pipeline("conformance large").add_step(make).add_step(measure)


def gathering() -> Pipeline:
    """Outputs of several steps in one list, with a parameter and a constant, small ones and one by reference."""

    @step(outputs=["low", "high"])
    def bounds(limit: int) -> tuple[int, int]:
        return 1, limit

    @step
    def blob() -> bytes:
        return b"x" * (1 << 20)

    @step
    def sizes(parts: list[Any], end: str) -> list[Any]:
        return [len(part) if isinstance(part, bytes) else part for part in parts] + [end]

    @pipeline(name="conformance gathering")
    def gather(limit: int = 9) -> Any:
        low, high = bounds(limit)
        return sizes([high, blob(), low, limit, "and"], end="end")

    return gather


def dated() -> Pipeline:
    """Parameters and constants that JSON lacks: a step gets values of the types in the pipeline."""

    @step
    def week(day: date, at: datetime, folder: Path, more: list[date | None]) -> list[str]:
        return [f"{day:%A}", f"{at:%H:%M %Z}", folder.name, repr(more)]

    @pipeline(name="conformance dated")
    def weekdays(
        day: date = date(2026, 1, 31),
        at: datetime = datetime(2026, 1, 31, 9, tzinfo=UTC),
        folder: Path = Path("data/rows"),
        last: date | None = None,
    ) -> Any:
        fixed = week(date(2026, 2, 2), datetime(2026, 2, 2, 8, tzinfo=UTC), Path("data/fixed"), [date(2026, 2, 3)])
        return {"week": week(day, at, folder, [day, last]), "fixed": fixed}

    return weekdays


def talking(folder: str) -> Pipeline:
    """A step that prints a line, and another line when the file ``go`` exists; it waits four minutes for that."""

    @step
    def talk(folder: str) -> None:
        print("the first line")
        for _ in range(2400):
            if (Path(folder) / "go").exists():
                return print("the last line")
            time.sleep(0.1)
        raise TimeoutError("for four minutes, the first line was not read")

    return Pipeline("conformance talking", context=context(folder=folder)).add_step(talk)


def meeting(folder: str, patience: int = 60) -> Pipeline:
    """Two steps that each wait for the other, for ``patience`` seconds: they complete only at the same time."""

    def meet(folder: str, mine: str, other: str) -> str:
        (Path(folder) / mine).touch()
        for _ in range(20 * patience):
            if (Path(folder) / other).exists():
                return mine
            time.sleep(0.05)
        raise TimeoutError(f"{mine} waited {patience} s for {other}")

    @step
    def left(folder: str) -> str:
        return meet(folder, "left", "right")

    @step
    def right(folder: str) -> str:
        return meet(folder, "right", "left")

    return Pipeline("conformance meeting", context=context(folder=folder)).add_step(left).add_step(right)


def failing(folder: str) -> Pipeline:
    """One branch fails, its successors never run, the other branch completes; and another step fails."""

    @step
    def broken(folder: str) -> int:
        (Path(folder) / "broken").touch()
        raise ValueError("the number 13 is not lucky")

    @step
    def unlucky() -> int:
        raise KeyError("nor is this one")

    @step
    def after_broken(broken: int) -> int:
        return broken

    @step
    def healthy(folder: str) -> str:
        """Completes once the other branch fails, or after half a minute, where steps run one by one and it is first."""
        for _ in range(600):
            if (Path(folder) / "broken").exists():
                break
            time.sleep(0.05)
        return "fine"

    @step
    def after_healthy(healthy: str) -> str:
        return healthy

    pipeline = Pipeline("conformance failing", context=context(folder=folder))
    for item in (broken, after_broken, unlucky, healthy, after_healthy):
        pipeline.add_step(item)
    return pipeline


def flaky(
    folder: str, policy: OrchestratorRetryPolicy | None, *, failures: int, error: str = "ConnectionError"
) -> Pipeline:
    """A step that fails a number of times before it succeeds; each attempt writes a mark."""

    @step(retry=policy)
    def attempt(folder: str, failures: int, error: str) -> int:
        marks = Path(folder) / "attempts"
        with marks.open("a") as file:
            file.write("x")
        count = len(marks.read_text())
        if count <= failures:
            raise getattr(builtins, error)(f"attempt {count} fails")
        return count

    parameters = context(folder=folder, failures=failures, error=error)
    return Pipeline(f"conformance flaky {failures}", context=parameters).add_step(attempt)


def beating(
    folder: str,
    *,
    name: str = "conformance beating",
    step_timeout: float | None = None,
    timeout: float | None = None,
) -> Pipeline:
    """A step that shows for up to two minutes that it is running, and cleans up when it is stopped."""

    @step(timeout=step_timeout)
    def beat(folder: str) -> int:
        try:
            for _ in range(1200):
                with (Path(folder) / "beats").open("a") as file:
                    file.write("x")
                time.sleep(0.1)
        finally:
            (Path(folder) / "tidied").touch()
        return 1200

    return Pipeline(name, context=context(folder=folder), timeout=timeout).add_step(beat)


def counting(folder: str) -> Pipeline:
    """A step that writes one mark for each execution."""

    @step
    def mark(folder: str) -> str:
        with (Path(folder) / "executions").open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return "marked"

    return Pipeline("conformance counting", context=context(folder=folder)).add_step(mark)


def hooked(folder: str, *, fails: bool = False) -> Pipeline:
    """A pipeline that records all events of its hooks; one of its hooks is broken."""

    @step
    def work(fails: bool) -> int:
        if fails:
            raise KeyError("lost")
        return 7

    name = "conformance hooks of a failure" if fails else "conformance hooks"
    pipeline = Pipeline(name, hooks=[_broken(), journal(folder)], context=context(fails=fails))
    return pipeline.add_step(work)


def journal(folder: str) -> PipelineHook:
    """A hook that writes its events to the file ``journal``, a line for each."""

    class Journal(PipelineHook):
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def write(self, *words: object) -> None:
            with (Path(self.folder) / "journal").open("a") as file:
                print(*words, file=file)

        def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
            self.write("pipeline_start", run_id, context["fails"])

        def on_step_start(self, step_name: str, inputs: Any) -> None:
            self.write("step_start", step_name, sorted(inputs))

        def on_step_end(self, step_name: str, outputs: Any, duration: float) -> None:
            self.write("step_end", step_name, dict(outputs), duration >= 0)

        def on_error(self, step_name: str, error: BaseException) -> None:
            self.write("error", step_name, error)

        def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration: float) -> None:
            self.write("pipeline_end", run_id, status, duration > 0)

    return Journal(folder)


def _broken() -> PipelineHook:
    class Broken(PipelineHook):
        def on_step_start(self, *_: Any) -> None:
            raise RuntimeError("this hook always fails")

        on_pipeline_start = on_pipeline_end = on_step_end = on_step_start  # type: ignore[assignment]  # all broken

    return Broken()


def hostile() -> Pipeline:
    """Names that break out of careless code."""
    odd = '../a \'b\' """ ${c}'

    @step(name="-x", outputs=["--"])
    def dashed() -> str:
        return "ü"

    @step(name="{{$.pipeline_job_name}} {{ ds }}", inputs={"value": "--"}, outputs=["{{ ds }}"])
    def templated(value: str) -> str:
        return value

    @step(name='it\'s "1" {x} \\', inputs={"value": "{{ ds }}"}, outputs=[odd])
    def one(value: str) -> str:
        return value

    @step(name="class/../.. on python3.12", inputs={"value": odd}, outputs=["größe 🚀"])
    def two(value: str) -> str:
        return value * 2

    pipeline = Pipeline('confor\'mance """{}%/ ü python3', description='"""\n\\')
    return pipeline.add_step(dashed).add_step(templated).add_step(one).add_step(two)
