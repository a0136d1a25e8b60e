"""What the adapter takes for granted of KFP's packages, and replaces in them.

Its calls, and the fields that it sends and reads, are those of the official client, of which the fake of the API is
made: the conformance suite fails where one of them is gone.
"""

from __future__ import annotations

import inspect

import kfp_server_api
import pytest

from flowyml.core.errors import UnknownStateError
from flowyml_kubeflow.client import Client
from flowyml_kubeflow.connection import Connection
from flowyml_kubeflow.status import BY_STATE, status_of

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


def test_kfps_local_runner_has_the_function_that_is_replaced() -> None:
    """By ``flowyml_kubeflow.local.kfp_process``: the runner finds it among its module's names when it starts a task."""
    from kfp.local import subprocess_task_handler

    parameters = inspect.signature(subprocess_task_handler.replace_python_executable).parameters
    assert len(parameters) == 2
    assert subprocess_task_handler.replace_python_executable(["python3", "x"], "here") == ["here", "x"]
    assert "replace_python_executable" in subprocess_task_handler.SubprocessTaskHandler.run.__code__.co_names
