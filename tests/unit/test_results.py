"""A notebook shows a result as tables with the graph; nothing in them is HTML of a user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, cast

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import EngineUnreachableError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import (
    Artifact,
    Artifacts,
    Outputs,
    PipelineResult,
    Run,
    Runs,
    StepResult,
    StepRun,
    StepRuns,
    folded,
)
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import LocalOrchestrator

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


class Broken:
    def __repr__(self) -> str:
        raise ValueError(EVIL)


class Evil:
    def __repr__(self) -> str:
        return EVIL


def test_every_text_is_escaped() -> None:
    now = datetime.now(UTC)
    failed = StepResult(
        name=EVIL, status=ExecutionStatus.FAILED, raw_status=EVIL, attempt=2, started_at=now, ended_at=now, error=EVIL
    )
    result = PipelineResult(
        run_id=EVIL, pipeline=EVIL, status=ExecutionStatus.FAILED, step_results={EVIL: failed}, duration_seconds=1.5,
        outputs=Outputs({EVIL: Evil(), "broken": Broken(), "long": "x" * 10_000}, not_kept={EVIL + "2": EVIL}),
        error=EVIL, parameters={EVIL: EVIL},
    )  # fmt: skip
    html = result._repr_html_()
    seen = Tags(html)
    assert seen.tags <= {"div", "b", "span", "pre", "table", "thead", "tbody", "tr", "th", "td"}
    assert seen.attributes == {"style"}
    assert seen.text.count(EVIL) == 10
    assert "a Broken whose repr raises ValueError" in seen.text
    assert len(html) < 6_000


class Engine:
    """What a handle asks of an engine, which may be away."""

    name = EVIL
    target = None

    def __init__(self, run: Run) -> None:
        self.run = run
        self.is_away = False

    def get_run(self, job_id: str) -> Run:
        if self.is_away:
            raise EngineUnreachableError("away")
        return self.run

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return (StepRun(name=EVIL, status=ExecutionStatus.RUNNING, raw_status=EVIL, started_at=datetime.now(UTC)),)


def test_the_handle_of_a_run_shows_how_it_stands() -> None:
    run = Run(
        job_id=EVIL, run_id=EVIL, pipeline=EVIL, status=ExecutionStatus.RUNNING, raw_status=EVIL,
        url="http://127.0.0.1:4200/runs/1",
    )  # fmt: skip
    engine = Engine(run)
    handle = SubmissionResult(cast(Any, engine), EVIL, run=run)
    html = handle._repr_html_()
    assert html is not None
    seen = Tags(html)
    assert seen.tags <= {"a", "b", "code", "div", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert 'href="http://127.0.0.1:4200/runs/1"' in html
    assert "RUNNING" in seen.text
    assert "flowyml watch" in seen.text
    engine.run = replace(run, url="javascript:alert(1)", status=ExecutionStatus.FAILED, error=EVIL)
    ended = handle._repr_html_()
    assert ended is not None
    assert "href" not in ended
    assert "flowyml watch" not in ended
    assert EVIL in Tags(ended).text


def test_the_result_of_a_submitted_run_says_which_steps_were_cached() -> None:
    run = Run(job_id="j", run_id="r", pipeline="p", status=ExecutionStatus.COMPLETED, raw_status="Done")
    seen = StepRun(name="s", status=ExecutionStatus.COMPLETED, raw_status="Done", cached_from="earlier")
    kept = StepResult.of(seen, {"total": 3})
    assert (kept.is_cached, kept.outputs) == (True, {"total": 3})

    class Ended(Engine):
        def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
            return (seen,)

        def outputs(self, job_id: str) -> Outputs:
            return Outputs()

    result = SubmissionResult(cast(Any, Ended(run)), "j", run=run).result()
    assert result.step_results["s"].is_cached


def test_a_loop_took_the_time_in_which_an_item_ran() -> None:
    """Not the night until its run was retried."""
    start, done = datetime(2026, 1, 31, 12, tzinfo=UTC), ExecutionStatus.COMPLETED
    times = [(0, 10), (5, 15), (6, 7), (36_000, 36_020), (None, None)]
    items = [
        StepRun(
            name="fit", status=done, raw_status="", index=(number,),
            started_at=None if begun is None else start + timedelta(seconds=begun),
            ended_at=None if ended is None else start + timedelta(seconds=ended),
        )
        for number, (begun, ended) in enumerate(times)
    ]  # fmt: skip
    (loop,) = folded(items)
    assert loop.duration_seconds == 35
    assert (loop.ended_at, loop.items) == (start + timedelta(seconds=36_020), (5, 5))


def test_the_handle_of_a_run_with_a_loop_shows_one_row_for_it_and_those_that_failed() -> None:
    engine = Engine(Run(job_id="1", run_id="1", pipeline="p", status=ExecutionStatus.RUNNING, raw_status="r"))
    states = [ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, *[ExecutionStatus.RUNNING] * 98]
    items = [StepRun(name="fit", status=s, raw_status="", index=(n,), error=EVIL if n == 1 else None)
             for n, s in enumerate(states)]  # fmt: skip
    handle = SubmissionResult(cast(Any, engine), "1")
    engine.step_runs = lambda job_id: tuple(items)  # type: ignore[method-assign]  # as a test may
    html = handle._repr_html_()
    assert html is not None
    assert html.count("<tr>") == 3
    assert "fit 2 of 100" in html
    assert "fit[1]" in html
    assert "1 failed" in html
    assert EVIL in Tags(html).text


def test_the_handle_of_an_engine_that_is_away_shows_its_text() -> None:
    engine = Engine(Run(job_id="1", run_id="1", pipeline="p", status=ExecutionStatus.RUNNING, raw_status="r"))
    handle = SubmissionResult(cast(Any, engine), "1")
    engine.is_away = True
    assert handle._repr_html_() is None


EVIL_RUN = Run(
    job_id=EVIL, run_id=EVIL + "1", pipeline=EVIL, status=ExecutionStatus.FAILED, raw_status=EVIL, error=EVIL,
    url="javascript:alert(1)", started_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
)  # fmt: skip
EVIL_STEP = StepRun(name=EVIL, status=ExecutionStatus.FAILED, raw_status=EVIL, error=EVIL)
EVIL_ARTIFACT = Artifact(step=EVIL, name=EVIL, type=EVIL, size=12_345, url=EVIL, metadata={EVIL: EVIL})


@pytest.mark.parametrize(
    ("listed", "texts"),
    [(Runs([EVIL_RUN]), 4), (StepRuns((EVIL_STEP,)), 2), (Artifacts([EVIL_ARTIFACT]), 6)],
    ids=["runs", "steps", "artifacts"],
)
def test_lists_show_themselves_as_tables_in_which_every_text_is_escaped(listed: Any, texts: int) -> None:
    html = listed._repr_html_()
    seen = Tags(html)
    assert seen.tags <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert seen.attributes == {"style"}
    assert seen.text.count(EVIL) == texts
    assert type(listed)()._repr_html_() is None
    many = type(listed)([listed[0]] * 1_000)._repr_html_()
    assert (many.count("<tr>"), "and 800 more" in many) == (201, True)


def test_runs_link_to_their_pages_and_say_the_zone_of_their_times(local_zone: Callable[[str], None]) -> None:
    local_zone("Europe/Berlin")
    run = replace(EVIL_RUN, run_id="r", job_id="r", url="http://127.0.0.1:4200/runs/1", error=None)
    winter = Tags(cast(str, Runs([run])._repr_html_()))
    assert "started (CET)" in winter.text
    assert "2026-01-31 13:00:00" in winter.text
    assert "href" in winter.attributes
    assert "job" not in winter.text, "the same id again"
    both = Runs([replace(run, started_at=run.started_at + timedelta(days=180) if run.started_at else None), run])
    assert "started (CET/CEST)" in Tags(cast(str, both._repr_html_())).text
    assert "started" in Tags(cast(str, Runs([replace(run, started_at=None)])._repr_html_())).text


@pytest.mark.processes
def test_what_a_local_run_lists_are_lists_that_show_themselves() -> None:
    @step(outputs=["scores"])
    def score() -> dict[str, float]:
        return {"accuracy": 0.5}

    local = LocalOrchestrator()
    handle = local.run_pipeline(Pipeline("listed").add_step(score))
    handle.wait_for_completion(2400, progress=False)
    runs, artifacts, steps = local.runs("listed"), handle.artifacts(), handle.step_runs()
    assert (runs, artifacts, steps) == ([handle.run], list(artifacts), tuple(steps))
    for each, text in ((runs, "listed"), (artifacts, "accuracy=0.5"), (steps, "score")):
        assert text in (each._repr_html_() or "")


def test_a_pipeline_shows_its_graph_and_an_unfinished_one_itself() -> None:
    @step(name=EVIL)
    def evil() -> int:
        return 1

    shown = Pipeline("drawn").add_step(evil)._repr_html_()
    assert shown is not None
    assert shown.startswith("<svg")
    assert not Tags(shown).tags & {"script", "img"}
    assert Pipeline("empty")._repr_html_() is None


def test_the_columns_of_a_table_stay_in_line() -> None:
    class Table:
        def __repr__(self) -> str:
            return "  region  total\n0  north   10.5"

    @step
    def table() -> Table:
        return Table()

    page = Pipeline("tables").add_step(table).run()._repr_html_()
    assert '<span style="font-family:monospace">  region  total\n0  north   10.5</span>' in page
