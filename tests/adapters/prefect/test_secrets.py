"""Secrets of steps from Prefect's Secret blocks, on a real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml_prefect import PrefectOrchestrator
from tests.adapters.prefect.conftest import MakeOrchestrator
from tests.adapters.prefect.samples import save_secret
from tests.engines.prefect import PrefectServer
from tests.security.test_what_a_secret_shows import VALUE, holds

pytestmark = pytest.mark.prefect


@step(secrets={"password": "Warehouse/pass_word", "TOKEN": "renamed"})
def reads(password: str = "") -> list[Any]:
    import os

    print(f"signing in with {password}")
    return [len(password), len(os.environ["TOKEN"])]


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
    read = renaming.run_pipeline(Pipeline("secrets read").add_step(reads))
    failing = renaming.run_pipeline(Pipeline("secrets fail").add_step(fails).add_step(lacks))
    assert read.wait_for_completion(timeout=240, poll_interval=0.5).status is ExecutionStatus.COMPLETED, read.error
    assert read.outputs["reads"] == [len(VALUE), len(json.dumps({"token": "t0ken"}))]
    lines = "\n".join(line.message for line in read.logs())
    assert "signing in with ***" in lines
    assert failing.wait_for_completion(timeout=240, poll_interval=0.5).status is ExecutionStatus.FAILED
    lines += "\n".join(line.message for line in failing.logs())
    assert "ValueError: cannot sign in: app:***" in lines
    assert "There is no secret 'nowhere/password': Prefect has no Secret block 'nowhere-password'" in lines
    assert not [line.message for line in failing.logs() if line.step == "lacks" and "Traceback" in line.message]
    assert not holds(lines)
    shown = repr([failing.error, *(run.error for run in failing.step_runs())])
    assert not holds(shown)


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
