"""Secrets of steps from Prefect's Secret blocks, on a real server."""

from __future__ import annotations

import json

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml_prefect import PrefectOrchestrator
from tests.adapters.prefect.conftest import MakeOrchestrator
from tests.adapters.prefect.samples import save_secret
from tests.security.test_what_a_secret_shows import VALUE, holds

pytestmark = pytest.mark.prefect


@step(secrets={"password": "Warehouse/pass_word", "TOKEN": "renamed"})
def reads(password: str = "") -> None:
    import os

    print(f"signing in with {password}: {len(password)} and {len(os.environ['TOKEN'])} characters")


@pytest.fixture(scope="module")
def renaming(make_prefect: MakeOrchestrator) -> PrefectOrchestrator:
    orchestrator = make_prefect(secrets={"renamed": "token/in/json"})
    save_secret(orchestrator.client, "warehouse-pass-word", VALUE)
    save_secret(orchestrator.client, "token-in-json", {"token": "t0ken"})
    return orchestrator


def test_blocks_with_other_names_and_of_json_reach_the_step(renaming: PrefectOrchestrator) -> None:
    handle = renaming.run_pipeline(Pipeline("secrets").add_step(reads))
    assert handle.wait_for_completion(timeout=1200, poll_interval=0.5).status is ExecutionStatus.COMPLETED, handle.error
    sizes = f"{len(VALUE)} and {len(json.dumps({'token': 't0ken'}))}"
    assert f"signing in with ***: {sizes} characters" in [line.message for line in handle.logs()]


def test_a_step_with_a_missing_one_is_not_retried(renaming: PrefectOrchestrator) -> None:
    retry = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0)
    lacks = reads.options(secrets={"password": "nowhere/password"}, retry=retry)
    handle = renaming.run_pipeline(Pipeline("secrets lacking").add_step(lacks))
    assert handle.wait_for_completion(timeout=1200, poll_interval=0.5).status is ExecutionStatus.FAILED
    assert [item.attempt for item in handle.step_runs()] == [1]
    assert "Secret 'nowhere/password' is missing" in str(handle.error)


def test_the_flow_names_them_and_holds_none(renaming: PrefectOrchestrator) -> None:
    text = next(iter(renaming.compile_pipeline(Pipeline("secrets named").add_step(reads)).values())).decode()
    assert '"token/in/json"' in text
    assert '"Warehouse/pass_word"' in text
    assert not holds(text)
    missing = renaming.missing_secrets(["Warehouse/pass_word", "nowhere/password"])
    assert missing == {
        "nowhere/password": "nowhere/password: Prefect has no Secret block 'nowhere-password'. "
        "Create it in Prefect's UI, under Blocks."
    }
