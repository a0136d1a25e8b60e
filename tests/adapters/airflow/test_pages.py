"""The pages that FlowyML links to on Airflow 3 and 2.11, in a browser: a run with its state, a DAG with its docs, and
what leads from the page of a task to its outputs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import pytest

from flowyml import Pipeline, pipeline, report, step
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


def sign_in(page: Any, url: str) -> None:
    """And go to where the URL leads."""
    page.goto(url)
    page.locator("input[name=username]").fill(USERNAME)
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda at: "login" not in at)
    page.goto(url)


def test_the_page_of_a_run_shows_its_state_and_that_of_a_dag_its_docs(airflow: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(two_steps(), "seen-in-a-browser")
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED, handle.error
    assert handle.url is not None
    with browser_page(tmp_path) as page:
        sign_in(page, handle.url)
        page.get_by_text("seen-in-a-browser").first.wait_for()
        page.get_by_text(re.compile("^success$", re.IGNORECASE)).first.wait_for()
        page.goto(orchestrator.client.dag_url("looked-at"))
        docs = page.get_by_role("button", name="Dag Docs") if airflow.major == 3 else page.get_by_text("DAG Docs")
        docs.first.click()
        for line in ("│ first │", "╭───▼───╮"):  # each is an element of its own on Airflow 3
            page.get_by_text(line).first.wait_for()
        page.get_by_role("cell", name="rows of first").first.wait_for()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the files in a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def linked() -> Any:
    """Outputs of a step, of a step in a loop, and of a step in an execution group."""

    @step(outputs=["summary", "count"])
    def summarize() -> tuple[Annotated[str, "text"], int]:
        report("summary", words=4)
        return "as a browser shows", 4

    @step
    def spell(letter: str, text: str) -> Annotated[str, "text"]:
        report(letter=letter)
        return f"{letter} of {text}"

    @step(execution_group="both")
    def begin() -> Annotated[str, "text"]:
        report(of=2)
        return "one of both"

    @step(execution_group="both")
    def end(begin: str) -> str:
        return begin

    @pipeline(name="linked outputs")
    def made() -> Any:
        summary, _ = summarize()
        return spell.partial(text=summary).map(letter=["a", "b"]), end(begin())

    return made


def test_the_page_of_a_task_leads_to_its_outputs(airflow3: Airflow, tmp_path: Path) -> None:
    """Airflow 2 takes links from plugins alone."""
    store = tmp_path / "store"
    store.mkdir()
    with served(store) as address:
        orchestrator = orchestrator_of(airflow3, artifacts=str(store), artifact_links=f"{address}/{{key}}")
        handle = orchestrator.run_pipeline(linked(), "led-to")
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.COMPLETED, (
            handle.error
        )
        assert handle.outputs["spell"] == ["a of as a browser shows", "b of as a browser shows"]
        with browser_page(tmp_path / "browser") as page:
            sign_in(page, f"{handle.url}/tasks/summarize/details")
            assert look(page, "summary") == "as a browser shows"
            assert page.get_by_role("link", name="count", exact=True).count() == 0
            page.goto(f"{handle.url}/tasks/spell/mapped/1/details")
            assert look(page, "spell") == "b of as a browser shows"
            page.goto(f"{handle.url}/tasks/both/details")
            assert look(page, "begin.begin") == "one of both"


def look(page: Any, link: str) -> str:
    """What a link of the page leads to. Not by a click, which is lost while Airflow draws the page anew."""
    outside = page.locator("a[href^=http]")  # Airflow's own links to its pages say the names of steps, too
    address = page.get_by_role("link", name=link, exact=True).and_(outside).get_attribute("href")
    shown = page.context.new_page()
    shown.goto(address)
    text: str = shown.locator("body").inner_text()
    shown.close()
    return text
