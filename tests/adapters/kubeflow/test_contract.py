"""What the adapter uses of KFP's API, walked through the models of the official client, ``kfp_server_api``.

A release that moves a path, or renames a parameter or a field, fails here with its name. That the lists are complete is
checked against the adapter's source.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest

import flowyml_kubeflow
from flowyml.core.errors import UnknownStateError
from flowyml_kubeflow.client import SERVICES, Client
from flowyml_kubeflow.connection import HEALTHZ, Connection
from flowyml_kubeflow.status import BY_STATE, status_of

pytestmark = pytest.mark.kubeflow

# operation: method, path, arguments by position, keywords, model of the answer
OPERATIONS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...], str]] = {
    "experiment_service_create_experiment": ("POST", "experiments", ("experiment",), (), "V2beta1Experiment"),
    "experiment_service_list_experiments": (
        "GET", "experiments", (), ("filter", "namespace", "page_size", "page_token"), "V2beta1ListExperimentsResponse",
    ),
    "pipeline_service_create_pipeline": ("POST", "pipelines", ("pipeline",), (), "V2beta1Pipeline"),
    "pipeline_service_get_pipeline": ("GET", "pipelines/{pipeline_id}", ("pipeline_id",), (), "V2beta1Pipeline"),
    "pipeline_service_get_pipeline_by_name": (
        "GET", "pipelines/names/{name}", ("name",), ("namespace",), "V2beta1Pipeline",
    ),
    "pipeline_service_get_pipeline_version": (
        "GET", "pipelines/{pipeline_id}/versions/{pipeline_version_id}", ("pipeline_id", "pipeline_version_id"), (),
        "V2beta1PipelineVersion",
    ),
    "pipeline_service_list_pipeline_versions": (
        "GET", "pipelines/{pipeline_id}/versions", ("pipeline_id",), ("filter", "page_size", "page_token", "sort_by"),
        "V2beta1ListPipelineVersionsResponse",
    ),
    "recurring_run_service_create_recurring_run": (
        "POST", "recurringruns", ("recurring_run",), (), "V2beta1RecurringRun",
    ),
    "recurring_run_service_delete_recurring_run": (
        "DELETE", "recurringruns/{recurring_run_id}", ("recurring_run_id",), ("propagation_policy",), "object",
    ),
    "recurring_run_service_disable_recurring_run": (
        "POST", "recurringruns/{recurring_run_id}:disable", ("recurring_run_id",), (), "object",
    ),
    "recurring_run_service_enable_recurring_run": (
        "POST", "recurringruns/{recurring_run_id}:enable", ("recurring_run_id",), (), "object",
    ),
    "recurring_run_service_list_recurring_runs": (
        "GET", "recurringruns", (), ("filter", "namespace", "page_size", "page_token"),
        "V2beta1ListRecurringRunsResponse",
    ),
    "run_service_create_run": ("POST", "runs", ("run",), (), "V2beta1Run"),
    "run_service_delete_run": ("DELETE", "runs/{run_id}", ("run_id",), (), "object"),
    "run_service_get_run": ("GET", "runs/{run_id}", ("run_id",), (), "V2beta1Run"),
    "run_service_list_runs": (
        "GET", "runs", (), ("filter", "namespace", "page_size", "page_token", "sort_by"), "V2beta1ListRunsResponse",
    ),
    "run_service_retry_run": ("POST", "runs/{run_id}:retry", ("run_id",), (), "object"),
    "run_service_terminate_run": ("POST", "runs/{run_id}:terminate", ("run_id",), (), "object"),
    "upload_pipeline_version": (
        "POST", "pipelines/upload_version", ("uploadfile",), ("description", "name", "pipelineid"),
        "V2beta1PipelineVersion",
    ),
}  # fmt: skip
FIELDS: dict[str, dict[str, str]] = {
    "V2beta1Run": {
        "run_id": "str", "display_name": "str", "description": "str", "experiment_id": "str",
        "state": "V2beta1RuntimeState", "pipeline_spec": "object",
        "pipeline_version_reference": "V2beta1PipelineVersionReference",
        "runtime_config": "V2beta1RuntimeConfig", "service_account": "str", "created_at": "datetime",
        "scheduled_at": "datetime", "finished_at": "datetime", "error": "GoogleRpcStatus",
        "run_details": "V2beta1RunDetails", "recurring_run_id": "str", "state_history": "list[V2beta1RuntimeStatus]",
    },
    "V2beta1RunDetails": {"task_details": "list[V2beta1PipelineTaskDetail]"},
    "V2beta1PipelineTaskDetail": {
        "display_name": "str", "state": "V2beta1RuntimeState", "create_time": "datetime", "start_time": "datetime",
        "end_time": "datetime", "child_tasks": "list[PipelineTaskDetailChildTask]",
    },
    "PipelineTaskDetailChildTask": {"pod_name": "str"},
    "V2beta1RuntimeStatus": {"state": "V2beta1RuntimeState", "update_time": "datetime"},
    "V2beta1RuntimeConfig": {"parameters": "dict(str, object)"},
    "V2beta1PipelineVersionReference": {"pipeline_id": "str", "pipeline_version_id": "str"},
    "V2beta1PipelineVersion": {
        "pipeline_id": "str", "pipeline_version_id": "str", "display_name": "str", "name": "str", "description": "str",
        "pipeline_spec": "object",
    },
    "V2beta1Pipeline": {
        "pipeline_id": "str", "display_name": "str", "name": "str", "description": "str", "namespace": "str",
    },
    "V2beta1Experiment": {"experiment_id": "str", "display_name": "str", "namespace": "str"},
    "V2beta1RecurringRun": {
        "recurring_run_id": "str", "display_name": "str", "description": "str", "experiment_id": "str",
        "pipeline_spec": "object", "pipeline_version_reference": "V2beta1PipelineVersionReference",
        "runtime_config": "V2beta1RuntimeConfig", "service_account": "str", "max_concurrency": "str",
        "trigger": "V2beta1Trigger", "mode": "RecurringRunMode", "status": "V2beta1RecurringRunStatus",
        "created_at": "datetime", "no_catchup": "bool",
    },
    "V2beta1Trigger": {"cron_schedule": "V2beta1CronSchedule", "periodic_schedule": "V2beta1PeriodicSchedule"},
    "V2beta1CronSchedule": {"cron": "str", "start_time": "datetime", "end_time": "datetime"},
    "V2beta1PeriodicSchedule": {"interval_second": "str", "start_time": "datetime", "end_time": "datetime"},
    "GoogleRpcStatus": {"message": "str"},
    "V2beta1GetHealthzResponse": {"multi_user": "bool"},
    "V2beta1Filter": {"predicates": "list[V2beta1Predicate]"},
    "V2beta1Predicate": {"key": "str", "operation": "V2beta1PredicateOperation", "string_value": "str"},
    "V2beta1ListExperimentsResponse": {"experiments": "list[V2beta1Experiment]", "next_page_token": "str"},
    "V2beta1ListPipelineVersionsResponse": {
        "pipeline_versions": "list[V2beta1PipelineVersion]", "next_page_token": "str",
    },
    "V2beta1ListRecurringRunsResponse": {"recurring_runs": "list[V2beta1RecurringRun]", "next_page_token": "str"},
    "V2beta1ListRunsResponse": {"runs": "list[V2beta1Run]", "next_page_token": "str"},
}  # fmt: skip
VALUES = {
    "RecurringRunMode": {"DISABLE"},
    "V2beta1RecurringRunStatus": {"DISABLED"},
    "V2beta1DeletePropagationPolicy": {"ORPHAN"},
    "V2beta1PredicateOperation": {"EQUALS"},
}
# What these are called is also a field of some model of KFP's that the adapter does not use.
OWN = {"code", "inputs", "outputs", "pipeline", "pipelines", "source", "type", "value", "values"}


class Recorder(kfp_server_api.ApiClient):  # type: ignore[misc]  # ships no types
    """An official client that notes a call, and makes none."""

    def call_api(
        self,
        resource_path: str,
        method: str,
        path_params: Any = None,
        query_params: Any = None,
        *rest: Any,
        **more: Any,
    ) -> None:
        queries = {name for name, _ in query_params or ()}
        self.seen = (method, resource_path, queries, more["response_type"], more.get("body"), more.get("files"))


def operation_of(name: str, recorder: Recorder) -> Any:
    service = SERVICES["upload" if name.startswith("upload_") else name.partition("_service_")[0]]
    return getattr(getattr(kfp_server_api, service)(recorder), name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_official_client_has_each_operation(name: str, tmp_path: Path) -> None:
    method, path, positional, keywords, model = OPERATIONS[name]
    recorder = Recorder()
    operation = operation_of(name, recorder)
    parameters = [item.name for item in inspect.signature(operation).parameters.values() if item.name != "kwargs"]
    assert len(parameters) == len(positional)
    file = tmp_path / "pipeline.yaml"
    file.touch()
    values = [str(file) if item == "uploadfile" else item for item in positional]
    operation(*values, **{item: 1 if item == "page_size" else item for item in keywords}, _request_timeout=1)
    asked, at, queries, answer, body, files = recorder.seen
    assert (asked, at, answer) == (method, f"/apis/v2beta1/{path}", model)
    assert queries == set(keywords)
    is_upload = positional == ("uploadfile",)
    assert bool(files) is is_upload
    assert (body is not None) is (method == "POST" and not is_upload and "{" not in path)


@pytest.mark.parametrize("model", FIELDS)
def test_the_official_client_has_each_field(model: str) -> None:
    types = getattr(kfp_server_api, model).openapi_types
    assert {field: types.get(field) for field in FIELDS[model]} == FIELDS[model]


@pytest.mark.parametrize("model", VALUES)
def test_the_official_client_has_each_value(model: str) -> None:
    assert set(getattr(kfp_server_api, model).allowable_values) >= VALUES[model]


def test_each_state_of_the_official_client_has_a_status() -> None:
    assert set(kfp_server_api.V2beta1RuntimeState.allowable_values) == set(BY_STATE)
    with pytest.raises(UnknownStateError):
        status_of("NEW_STATE")


def test_the_page_that_needs_no_login_is_where_the_official_client_has_it() -> None:
    recorder = Recorder()
    kfp_server_api.HealthzServiceApi(recorder).healthz_service_get_healthz()
    assert recorder.seen[:2] == ("GET", HEALTHZ)


def test_a_client_has_the_parts_that_are_made_safe() -> None:
    """See ``flowyml_kubeflow.transport``."""
    api = Client(Connection("http://127.0.0.1:9/pipeline")).api
    assert type(api) is kfp_server_api.ApiClient
    assert "pool_manager" in vars(kfp_server_api.ApiClient().rest_client), "which is replaced"
    assert {"header_params", "_preload_content", "_return_http_data_only"} <= set(
        inspect.signature(api.call_api).parameters
    )


def trees() -> Iterator[ast.Module]:
    for path in sorted(Path(flowyml_kubeflow.__file__).parent.rglob("*.py")):
        yield ast.parse(path.read_text("utf-8"))


def test_the_lists_hold_all_that_the_adapter_uses() -> None:
    texts, attributes = set(), set()
    for tree in trees():
        nodes = list(ast.walk(tree))
        texts |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        attributes |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    operations = {text for text in texts if re.fullmatch(r"[a-z_]+_service_[a-z_]+|upload_[a-z_]+", text)}
    assert operations == OPERATIONS.keys()
    assert {text for text in texts if re.fullmatch(r"V2beta1\w+", text)} <= FIELDS.keys() | VALUES.keys()
    models = [item for item in vars(kfp_server_api).values() if hasattr(item, "openapi_types")]
    fields = {field for model in models for field in model.openapi_types}
    listed = {field for found in FIELDS.values() for field in found}
    assert attributes & fields <= listed | OWN


def test_kfps_local_runner_has_the_function_that_is_replaced() -> None:
    """By ``flowyml_kubeflow.local.kfp_process``: the runner finds it among its module's names when it starts a task."""
    from kfp.local import subprocess_task_handler

    parameters = inspect.signature(subprocess_task_handler.replace_python_executable).parameters
    assert len(parameters) == 2
    assert subprocess_task_handler.replace_python_executable(["python3", "x"], "here") == ["here", "x"]
    assert "replace_python_executable" in subprocess_task_handler.SubprocessTaskHandler.run.__code__.co_names
