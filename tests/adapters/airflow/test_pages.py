"""The pages that FlowyML links to on Airflow 3 and 2.11, in a browser: a run with its state, a DAG with its docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import PASSWORD, USERNAME, Airflow
from tests.engines.browser import browser_page

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def two_steps() -> Pipeline:
    @step(outputs=["rows"])
    def first() -> int:
        return 1

    @step(outputs=["answer"])
    def then(rows: int) -> int:
        return rows + 1

    return Pipeline("looked-at").add_step(first).add_step(then)


@pytest.mark.parametrize("engine", ["airflow3", "airflow2"])
def test_the_page_of_a_run_shows_its_state_and_that_of_a_dag_its_docs(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    airflow: Airflow = request.getfixturevalue(engine)
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(two_steps(), "seen-in-a-browser")
    assert handle.wait_for_completion(timeout=240, poll_interval=0.5).status is ExecutionStatus.COMPLETED, handle.error
    assert handle.url is not None
    with browser_page(tmp_path) as page:
        page.goto(handle.url)
        page.locator("input[name=username]").fill(USERNAME)
        page.locator("input[name=password]").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "login" not in url)
        page.goto(handle.url)
        page.get_by_text("seen-in-a-browser").first.wait_for()
        page.get_by_text(re.compile("^success$", re.IGNORECASE)).first.wait_for()
        page.goto(orchestrator.client.dag_url("looked-at"))
        docs = page.get_by_role("button", name="Dag Docs") if airflow.major == 3 else page.get_by_text("DAG Docs")
        docs.first.click()
        for line in ("│ first │", "╭───▼───╮"):  # each is an element of its own on Airflow 3
            page.get_by_text(line).first.wait_for()
        page.get_by_role("cell", name="rows of first").first.wait_for()
