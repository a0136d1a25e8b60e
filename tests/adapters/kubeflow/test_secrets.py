"""Secrets of steps in what KFP is given: names of Kubernetes secrets, in the executor of the step that needs them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError, UnsupportedFeatureError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator
from tests.engines.kubeflow_calls import RUN, run_id

pytest.importorskip("kfp")


@step(secrets={"password": "warehouse/password", "AGAIN": "warehouse/password", "token": "api"})
def reads(password: str = "", token: str = "") -> int:
    return 1


@step
def plain() -> int:
    return 1


def executors(names: dict[str, str]) -> dict[str, Any]:
    made = Pipeline("named", kubeflow={"bundle_store": "s3://code"}).add_step(reads).add_step(plain)
    orchestrator = KubeflowOrchestrator("http://127.0.0.1:9", secrets=names)
    text = next(iter(orchestrator.compile_pipeline(made).values())).decode()
    platform = list(yaml.safe_load_all(text))[1]
    found: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return found


def test_each_is_a_variable_of_its_step_alone() -> None:
    found = executors({"api": "tokens/api"})
    assert [each for each in found if "secretAsEnv" in found[each]] == ["exec-reads"]
    assert [
        (each["secretName"], each["keyToEnv"], each["optional"]) for each in found["exec-reads"]["secretAsEnv"]
    ] == [
        ("warehouse", [{"envVar": "FLOWYML_SECRET_WAREHOUSE_PASSWORD", "secretKey": "password"}], True),
        ("tokens", [{"envVar": "FLOWYML_SECRET_TOKENS_API", "secretKey": "api"}], True),
    ]


def test_a_name_of_another_form_is_refused() -> None:
    with pytest.raises(
        DefinitionError, match=r"step 'reads': secret 'api' is not of the form 'name-of-the-secret/key'"
    ):
        executors({})


@pytest.mark.kubeflow
def test_a_missing_one_says_how_to_create_it_without_retries(kfp_api: Any) -> None:
    retry = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0)
    lacks = Pipeline("lacks").add_step(reads.options(secrets={"password": "no-such/password"}, retry=retry))
    handle = kfp_api.orchestrator().run_pipeline(lacks, run_id("lacks")).wait_for_completion(RUN)
    assert "kubectl create secret generic no-such --from-literal=password=…" in str(handle.error)
    assert [item.attempt for item in handle.step_runs()] == [1]


def test_containers_of_the_local_runner_have_none() -> None:
    with pytest.raises(UnsupportedFeatureError, match="step 'reads' names secrets"):
        KubeflowLocalOrchestrator("docker").run_pipeline(Pipeline("docker").add_step(reads))
