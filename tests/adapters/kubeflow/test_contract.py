"""What the adapter takes for granted of KFP's packages, and replaces in them.

Its calls, and the fields that it sends and reads, are those of the official client, of which the fake of the API is
made: the conformance suite fails where one of them is gone.
"""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import pytest

from flowyml.core.errors import UnknownStateError
from flowyml_kubeflow.client import Client
from flowyml_kubeflow.connection import Connection
from flowyml_kubeflow.status import BY_STATE, status_of
from flowyml_kubeflow.transport import model_of

pytestmark = pytest.mark.kubeflow


def test_each_state_of_the_official_client_has_a_status() -> None:
    assert set(kfp_server_api.V2beta1RuntimeState.allowable_values) == set(BY_STATE)
    with pytest.raises(UnknownStateError):
        status_of("NEW_STATE")


def test_a_client_has_the_parts_that_are_made_safe() -> None:
    """See ``flowyml_kubeflow.transport``."""
    api = Client(Connection("http://127.0.0.1:9/pipeline")).api
    assert type(api) is kfp_server_api.ApiClient
    assert "pool_manager" in vars(kfp_server_api.ApiClient().rest_client), "which is replaced"
    assert {"header_params", "_preload_content", "_return_http_data_only"} <= set(
        inspect.signature(api.call_api).parameters
    )


_SAMPLES = {
    "str": "text", "int": 1, "bool": True, "datetime": "2026-01-01T12:00:00.5Z", "object": {"a": [1, None]},
}  # fmt: skip


def sample(kind: str) -> Any:
    """JSON with each field of one of the official client's models."""
    if kind in _SAMPLES:
        return _SAMPLES[kind]
    if kind.startswith("list["):
        return [sample(kind[5:-1])]
    if kind.startswith("dict(str, "):
        return {"key": sample(kind[10:-1])}
    model = getattr(kfp_server_api, kind)
    if states := getattr(model, "allowable_values", ()):
        return states[0]
    return {model.attribute_map[name]: sample(of) for name, of in model.openapi_types.items()}


@pytest.mark.parametrize(
    "kind",
    ["V2beta1Run", "V2beta1ListRunsResponse", "V2beta1ListRecurringRunsResponse", "V2beta1ListPipelineVersionsResponse",
     "V2beta1Pipeline", "V2beta1ListExperimentsResponse", "object"],
)  # fmt: skip
def test_answers_are_read_as_the_official_client_reads_them(kind: str) -> None:
    own = Client(Connection("http://127.0.0.1:9/pipeline")).api
    contents: tuple[Any, ...] = (sample(kind), {})
    for content in contents:
        answer = SimpleNamespace(data=json.dumps(content))
        expected = kfp_server_api.ApiClient().deserialize(answer, kind)
        assert own.deserialize(answer, kind) == expected


@pytest.mark.parametrize("content", ["run", ["run"], {"created_at": "soon"}, {"state_history": 1}, {"error": "x"}])
def test_answers_of_another_form_are_refused(content: Any) -> None:
    with pytest.raises((AttributeError, TypeError, ValueError)):
        model_of(content, "V2beta1Run", kfp_server_api.Configuration())


def test_kfps_local_runner_has_the_function_that_is_replaced() -> None:
    """By ``flowyml_kubeflow.local.kfp_process``: the runner finds it among its module's names when it starts a task."""
    from kfp.local import subprocess_task_handler

    parameters = inspect.signature(subprocess_task_handler.replace_python_executable).parameters
    assert len(parameters) == 2
    assert subprocess_task_handler.replace_python_executable(["python3", "x"], "here") == ["here", "x"]
    assert "replace_python_executable" in subprocess_task_handler.SubprocessTaskHandler.run.__code__.co_names
