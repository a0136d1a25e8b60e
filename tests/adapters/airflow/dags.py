"""Pipelines that the compiled DAGs of these tests are made from. Workers import this module: FlowyML only."""

from __future__ import annotations

import sys
from typing import Any

from flowyml import Pipeline, cleanup, either, for_each, otherwise, pipeline, step, when
from flowyml.core.hooks import PipelineHook
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy


class Telling(PipelineHook):
    """Prints what it is given."""

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
        print(f"HOOK start {pipeline_name} {dict(context)}")

    def on_step_end(self, step_name: str, outputs: Any, duration: float) -> None:
        print(f"HOOK end of {step_name}: {sorted(outputs)}")

    def on_error(self, step_name: str, error: BaseException) -> None:
        print(f"HOOK error in {step_name}: {type(error).__name__}")

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration: float) -> None:
        print(f"HOOK end {pipeline_name} {status.name} {duration > 0}")


@step
def nothing(rows: int) -> Any:
    print(f"hello on stdout, rows={rows}")
    print("hello on stderr", file=sys.stderr)
    return None


@step(outputs=["plain", "large"])
def values(nothing: None) -> tuple[Any, str]:
    assert nothing is None
    return {"a": [1, 2.5, None, "x"]}, "x" * 100_000


@step(name="Prüfung/3 '\"")
def check(plain: Any, large: str) -> str:
    assert plain == {"a": [1, 2.5, None, "x"]}
    return f"{len(large)} characters"


@pipeline(name="kleine Strecke/1", hooks=[Telling()], tags=["tests"])
def small(rows: int = 3) -> Any:
    """Values of all kinds, and hooks."""
    plain, large = values(nothing(rows))
    return check(plain, large)


@step(retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=1, retryable_errors=["ConnectionError"]))
def final_error() -> int:
    raise ValueError("no use in trying again")


@step
def independent() -> str:
    return "done all the same"


@step
def never(final_error: int) -> int:
    return final_error


@pipeline(name="failing", hooks=[Telling()])
def failing() -> Any:
    return never(final_error()), independent()


@step(timeout=2)
def sleeping() -> None:
    import time

    time.sleep(60)


@pipeline(name="late", hooks=[Telling()])
def late() -> Any:
    return sleeping()


@step
def described(rows: int | None, mode: str | int, names: list[str] | None) -> str:
    return f"{rows} {mode} {names}"


@pipeline(name="optional")
def optional(rows: int | None = None, mode: str | int = "all", names: list[str] | None = None) -> Any:
    return described(rows, mode, names)


@step(
    outputs=["rows"],
    retry=OrchestratorRetryPolicy(
        max_attempts=4, initial_delay_seconds=10, backoff_multiplier=3.0, max_delay_seconds=90
    ),
    timeout=600,
    tags=["io"],
    airflow={
        "pool": "warehouse",
        "pool_slots": 2,
        "queue": "big",
        "priority_weight": 10,
        "doc_md": "Reads *all* rows.",
    },
)
def extract(day: str, limit: int) -> int:
    return limit


@step(
    outputs=["weights"],
    retry=2,
    timeout=0.5,
    resources=ResourceRequirements(cpu="2", memory="4Gi", gpu=1, gpu_type="NVIDIA-A100"),
)
def fit(rows: int) -> int:
    """Fit the weights.

    It has a docstring of several lines, with "quotes", a back\\slash and an uncommonly long line that goes on and on.
    """
    return rows


@step(outputs=[], after=["fit"])
def clean_up() -> None: ...


everything = (
    Pipeline(
        "Everything, \"quoted\" and 'more'",
        hooks=[Telling()],
        outputs=["weights"],
        context={"day": "2026-01-01", "limit": 100},
        timeout=3600,
        tags=["nightly"],
        description='A pipeline that asks for all there is. """Quotes""" and a \\ included.',
        airflow={
            "owner": "ml-team",
            "max_active_runs": 1,
            "tags": ["team:ml"],
            "python": "/opt/ml/bin/python",
            "artifacts": "s3://bucket/artifacts",
            "owner_links": {"ml-team": "https://example.org/ml"},
        },
    )
    .add_step(extract)
    .add_step(fit)
    .add_step(clean_up)
)


@step
def cities(count: int) -> list[str]:
    return ["Graz", "Linz", "Wien"][:count]


@step
def measure(city: str, scale: int = 1) -> int:
    print(f"measure {city}")
    return len(city) * scale


@step(retry=2)
def refine(value: int) -> int:
    return value + 1


@step
def sum_of(values: list[int]) -> int:
    print(f"sum of {values}")
    return sum(values)


@step
def tell(what: str, value: int = 0) -> str:
    print(f"tell {what}")
    return f"{what} {value}"


@step(run_if="one_failed")
def page(value: int = 0) -> None:
    print("page somebody")


@step
def drop(name: str, value: int | None = None) -> None:
    print(f"drop {name} {value}")


@step(execution_group="prepare", resources=ResourceRequirements(cpu="500m", memory="2Gi"), timeout=30, retry=1)
def read(rows: int) -> list[int]:
    """Reads rows."""
    return list(range(rows))


@step(
    execution_group="prepare",
    resources=ResourceRequirements(cpu=1),
    timeout=10,
    tags=["quick"],
    airflow={"pool": "small"},
)
def clean(read: list[int]) -> list[int]:
    return [row for row in read if row % 2]


@step(execution_group="each")
def half(row: int, all_rows: list[int]) -> float:
    return row / 2


@step(execution_group="each")
def shown(half: float) -> str:
    return str(half)


@step
def page_of(shown: list[str]) -> str:
    return " ".join(shown)


@step(run_if="one_failed")
def alarm(clean: list[int] | None = None) -> None: ...


@pipeline(name="grouped")
def grouped(rows: int = 10) -> Any:
    """Several steps in one task, and in one for each item."""
    everything = read(rows)
    odd = clean(everything)
    with for_each(odd, name="rows") as row:
        text = shown(half(row, everything))
    alarm(odd)
    return {"page": page_of(text), "texts": text}


@pipeline
def survey(count: int = 2) -> Any:
    """Measures cities."""
    found = cities(count)
    return sum_of(measure.options(max_parallel=2).partial(scale=10).map(city=found))


@pipeline(name="flow", hooks=[Telling()])
def flow(count: int = 3, limit: int = 100) -> Any:
    """Loops, branches, a handler of failures, a pipeline in the pipeline, and clean-up."""
    total = survey(count)
    with for_each(["a", "{{ 1/0 }}"], name="letters", max_parallel=1) as letter:
        raw = measure(letter)
        with when(raw > 1, name="long"):
            long = refine(raw)
        with otherwise(name="short"):
            short = tell.options(name="tell_short")(letter, raw)
        either_way = tell.options(name="tell_either")("either", either(long, short))
    with when(total > limit, name="many"):
        many = tell.options(name="tell_many")("many", total)
    with otherwise(name="few"):
        few = tell.options(name="tell_few")("few", total)
    said = tell.options(name="tell_all")(either(many, few))
    page(total)
    tolerant = measure.options(name="tolerant", on_item_error="continue").map(city=["x", "y"])
    with cleanup():
        drop("tables", total)
        drop.options(name="drop_each").map(name=["one", "two"])
    return {"said": said, "letters": either_way, "tolerant": tolerant}


@step
def pair() -> tuple[Any, ...]:
    """Nothing that JSON holds."""
    return (1, 2.5), {1: "one"}, float("nan")


@step(outputs=["text"])
def as_text(pair: tuple[Any, ...]) -> str:
    return repr(pair)


@pipeline
def pickled() -> str:
    return as_text(pair())
