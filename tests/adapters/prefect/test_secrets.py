"""Secrets of steps from Prefect's Secret blocks, on a real server."""

from __future__ import annotations

import json

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml_prefect import PrefectOrchestrator
from tests.adapters.prefect.conftest import MakeOrchestrator
from tests.adapters.prefect.samples import save_secret
from tests.engines.prefect import PrefectServer
from tests.security.test_what_a_secret_shows import VALUE, holds
from tests.waiting import wait_until

pytestmark = pytest.mark.prefect


@step(secrets={"password": "Warehouse/pass_word", "TOKEN": "renamed"})
def reads(password: str = "") -> None:
    import os

    print(f"signing in with {password}: {len(password)} and {len(os.environ['TOKEN'])} characters")


@step(secrets={"password": "Warehouse/pass_word"})
def fails(password: str = "") -> None:
    raise ValueError(f"cannot sign in: app:{password}")


@step(secrets={"password": "nowhere/password"})
def lacks(password: str = "") -> None:
    pass


@pytest.fixture(scope="module")
def renaming(prefect: PrefectServer, make_prefect: MakeOrchestrator) -> PrefectOrchestrator:
    save_secret(prefect, "warehouse-pass-word", VALUE)
    save_secret(prefect, "token-in-json", {"token": "t0ken"})
    return make_prefect(secrets={"renamed": "token in json".replace(" ", "/")})


def test_values_reach_the_step_alone(renaming: PrefectOrchestrator) -> None:
    handle = renaming.run_pipeline(Pipeline("secrets").add_step(reads).add_step(fails).add_step(lacks))
    assert handle.wait_for_completion(timeout=1200, poll_interval=0.5).status is ExecutionStatus.FAILED
    wait_until(lambda: all(status.is_terminal for status in handle.step_statuses().values()))
    assert handle.step_statuses()["reads"] is ExecutionStatus.COMPLETED
    lines = "\n".join(line.message for line in handle.logs())
    sizes = f"{len(VALUE)} and {len(json.dumps({'token': 't0ken'}))}"
    assert f"signing in with ***: {sizes} characters" in lines
    assert "ValueError: cannot sign in: app:***" in lines
    assert "There is no secret 'nowhere/password': Prefect has no Secret block 'nowhere-password'" in lines
    assert not [line.message for line in handle.logs() if line.step == "lacks" and "Traceback" in line.message]
    shown = repr([handle.error, *(run.error for run in handle.step_runs())])
    assert not holds(lines + shown)


def test_the_flow_names_them_and_holds_none(renaming: PrefectOrchestrator) -> None:
    text = next(iter(renaming.compile_pipeline(Pipeline("secrets named").add_step(reads)).values())).decode()
    assert '"token/in/json"' in text
    assert '"Warehouse/pass_word"' in text
    assert not holds(text)


def test_check_asks_for_no_value(renaming: PrefectOrchestrator) -> None:
    missing = renaming.missing_secrets(["Warehouse/pass_word", "nowhere/password"])
    assert missing == {
        "nowhere/password": "nowhere/password: Prefect has no Secret block 'nowhere-password'. Create it."
    }
