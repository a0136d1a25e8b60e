"""All that FlowyML uses of Prefect is there: each call is held against the OpenAPI document of the real server.

A release that renames a path, a parameter or a field fails here, with its name, before it fails a run. What compiled
flows use of Prefect's Python is in ``test_contract_of_flows``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator

import flowyml_prefect
from flowyml import Pipeline, step
from flowyml.core.schedule import Schedule
from flowyml_prefect.automations import AUTOMATIONS, HEARTBEAT
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.engine_process import ENGINE_MODULE, ControlChannel, run_variables
from tests.engines.prefect import PrefectServer
from tests.waiting import wait_until

pytestmark = pytest.mark.prefect

HERE = Path(str(flowyml_prefect.__file__)).parent
Operation = tuple[str, str]


def operations() -> list[Operation]:
    """The method and the path of each call in the client's code, with ``{}`` for what varies."""
    methods = {
        "get": "GET", "_record_at": "GET", "ask": "POST", "query": "POST", "_pages": "POST", "_all": "POST",
        "write": "POST", "_delete": "DELETE",
    }  # fmt: skip
    found = set()
    for node in ast.walk(ast.parse((HERE / "client.py").read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=attr), args=args, keywords=options):
                paths = [arg for arg in args if template(arg).startswith("/")]
                if attr in methods and paths:
                    given = [option.value for option in options if option.arg == "method"]
                    method = ast.literal_eval(given[0]) if given else methods[attr]
                    found.add((method, template(paths[0])))
    return sorted(found)


def template(path: ast.expr) -> str:
    parts = path.values if isinstance(path, ast.JoinedStr) else [path]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)


class Watched(dict[str, Any]):
    """An answer that notes which of its fields are read."""

    def __init__(self, plain: Mapping[str, Any], read: set[tuple[str, ...]], where: tuple[str, ...] = ()) -> None:
        super().__init__({key: watched(value, read, (*where, key)) for key, value in plain.items()})
        self.read, self.where = read, where

    def __getitem__(self, key: str) -> Any:
        self.read.add((*self.where, key))
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add((*self.where, key))
        return super().get(key, default)


def watched(value: Any, read: set[tuple[str, ...]], where: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict):
        return Watched(value, read, where)
    return [watched(item, read, where) for item in value] if isinstance(value, list) else value


@dataclass
class Api:
    """The document of the server, and what was asked of it."""

    document: dict[str, Any]
    sent: dict[Operation, list[Any]] = field(default_factory=dict)
    read: dict[Operation, set[tuple[str, ...]]] = field(default_factory=dict)

    def described(self, operation: Operation) -> dict[str, Any]:
        method, path = operation
        for known, methods in self.document["paths"].items():
            if re.sub(r"\{[^}]*\}", "{}", known.removeprefix("/api")) == path and method.lower() in methods:
                return dict(methods[method.lower()])
        raise AssertionError(f"This Prefect has no {method} {path} any more.")

    def of(self, method: str, path: str) -> Operation:
        """The operation that a call is one of."""
        fits = (
            o for o in operations() if o[0] == method and re.fullmatch(re.escape(o[1]).replace(r"\{\}", "[^/]+"), path)
        )
        return max(fits, key=lambda operation: -operation[1].count("{}"))

    def body(self, operation: Operation) -> dict[str, Any]:
        content: dict[str, Any] = self.described(operation).get("requestBody", {}).get("content", {})
        return dict(content.get("application/json", {}).get("schema", {}))

    def answer(self, operation: Operation) -> dict[str, Any]:
        for status, response in self.described(operation)["responses"].items():
            if status.startswith("2"):
                return dict(response.get("content", {}).get("application/json", {}).get("schema", {}))
        return {}

    def choices(self, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """A schema and what it stands for."""
        if "$ref" in schema:
            yield from self.choices(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        for kind in ("anyOf", "oneOf", "allOf"):
            for choice in schema.get(kind, ()):
                yield from self.choices(choice)
        if "items" in schema:
            yield from self.choices(schema["items"])
        yield schema

    def below(self, schema: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
        """The schema of a field; an empty one where anything may stand; None for no such field."""
        found = [choice["properties"][name] for choice in self.choices(schema) if name in choice.get("properties", {})]
        if found:
            return {"anyOf": found}
        free = (
            c
            for c in self.choices(schema)
            if "properties" not in c
            and c.get("type", "object") == "object"
            and not {"$ref", "anyOf", "oneOf", "allOf"} & c.keys()
        )
        return {} if any(True for _ in free) else None

    def unknown(self, schema: Mapping[str, Any], value: Any, where: str = "") -> Iterator[str]:
        """The fields of what was sent that the server would pass over."""
        if isinstance(value, list):
            for item in value:
                yield from self.unknown(schema, item, where)
        if isinstance(value, dict):
            for name, item in value.items():
                known = self.below(schema, name)
                if known is None:
                    yield f"{where}.{name}"
                elif known:
                    yield from self.unknown(known, item, f"{where}.{name}")

    def lacks(self, schema: Mapping[str, Any], names: tuple[str, ...]) -> bool:
        for name in names:
            known = self.below(schema, name)
            if known is None:
                return True
            if not known:
                return False
            schema = known
        return False


@pytest.fixture(scope="module")
def api(prefect: PrefectServer, make_prefect: Callable[..., Any]) -> Api:
    """Each call of the client, made once and noted down."""
    with urllib.request.urlopen(f"{prefect.url}/openapi.json", timeout=240) as answer:
        api = Api(json.load(answer))
    call = PrefectClient.call

    def noted(
        self: PrefectClient, method: str, path: str, *, params: Any = {}, json: Any = None, **options: Any
    ) -> Any:
        assert not params, "parameters of the query would have to be checked too"
        operation = api.of(method, path)
        api.sent.setdefault(operation, []).append(deepcopy(json))
        found = call(self, method, path, params=params, json=json, **options)
        return watched(found, api.read.setdefault(operation, set()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefectClient, "call", noted)
        use_all(make_prefect)
    return api


def use_all(make_prefect: Callable[..., Any]) -> None:
    @step(outputs=["sum"])
    def add(number: int) -> int:
        print("adding")
        return number + 1

    def pipeline(version: int = 1) -> Pipeline:
        return Pipeline("in the contract", context={"number": version}).add_step(add)

    here = make_prefect()
    handle = here.run_pipeline(pipeline())
    assert here.client.is_healthy()
    assert here.health().reachable
    assert not here.client.has_secret_block("of-the-contract")
    assert handle.wait_for_completion(1200, 0.5).outputs == {"sum": 2}
    assert list(handle.logs())
    assert here.step_runs(handle.job_id)
    assert here.runs("in the contract")
    assert here.client.flow_name(here.client.run(handle.job_id).flow_id)

    # Those of FlowyML may have been made by an earlier test of this server.
    automation = {**AUTOMATIONS[0], "name": f"of the contract, {uuid4()}", "enabled": False}
    here.client.ensure_automation(automation)
    here.client.ensure_automation({**automation, "actions": [{**automation["actions"][0], "name": "Other"}]})

    pooled = make_prefect(work_pool="contract")
    pooled.client.ensure_process_pool("contract")
    pooled.deploy_pipeline(pipeline())
    pooled.deploy_pipeline(pipeline(2))
    pooled.diff(pipeline(3).bundle())
    made = pooled.schedule_pipeline(pipeline(2), Schedule.of("daily", 3))
    pooled.schedule_pipeline(pipeline(2), Schedule.of("daily", 4))
    assert pooled.schedules()
    pooled.delete_schedule(made.schedule_id)
    waiting = pooled.run_pipeline(pipeline(2), "in the contract, waiting")
    assert pooled.client.claim(waiting.job_id, str(uuid4()))
    pooled.client.record_process(waiting.job_id, "here:1")
    pooled.client.label_run(waiting.job_id, {"flowyml.retry": "null", "flowyml.task_runs": 0})
    assert waiting.cancel()
    assert not pooled.client.has_event(HEARTBEAT, waiting.job_id, datetime.now(UTC))
    pooled.client.set_state(waiting.job_id, {"type": "CANCELLED", "name": "Cancelled", "message": "x"}, force=True)
    assert {run.id for run in here.client.begun_runs("in the contract")} == {handle.job_id, waiting.job_id}
    (task,) = here.client.task_runs(handle.job_id)
    here.client.set_task_state(task.id, {"type": "CANCELLED", "name": "Cancelled", "message": "x"})
    here.client.delete_run(handle.job_id)
    assert {run.id for run in here.client.begun_runs("in the contract")} == {waiting.job_id}
    (pooled_deployment,) = (each for each in here.client.deployments("in the contract") if each["work_pool_name"])
    assert not here.client.has_unfinished_runs(pooled_deployment["id"])
    here.client.delete_deployment(pooled_deployment["id"])


def test_all_calls_are_in_the_document(api: Api) -> None:
    unused = set(operations()) - api.sent.keys()
    assert not unused, "the client has calls that use_all() does not make"
    faults = [f"{' '.join(operation)}: {fault}" for operation in operations() for fault in faults_of(api, operation)]
    assert not faults, "\n".join(faults)


def faults_of(api: Api, operation: Operation) -> Iterator[str]:
    body, components = api.body(operation), {"components": api.document["components"]}
    for sent in api.sent[operation]:
        if sent is not None:
            wrong = Draft202012Validator({**body, **components}).iter_errors(sent)
            yield from (f"Prefect takes no such body any more: {error.message}" for error in wrong)
            yield from (f"Prefect passes over the field {name}" for name in api.unknown(body, sent))
    for names in sorted(api.read.get(operation, ())):
        if api.lacks(api.answer(operation), names):
            yield f"Prefect's answer has no field {'.'.join(names)} any more"


def test_all_settings_are_there() -> None:
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    code = "".join(path.read_text("utf-8") for path in HERE.glob("*.py"))
    names = set(re.findall(r"\bPREFECT_[A-Z]\w*[A-Z]\b", code))
    assert len(names) > 10
    assert names <= {*_get_settings_fields(Settings), "PREFECT_PROFILE"}


def test_the_variables_of_prefects_own_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prefect import runtime
    from prefect.flow_engine import load_flow

    (tmp_path / "flow.py").write_text("from prefect import flow\n\n@flow(name='of the contract')\ndef run(): ...\n")
    for name, value in run_variables("the id", f"{tmp_path / 'flow.py'}:run").items():
        monkeypatch.setenv(name, value)
    assert runtime.flow_run.id == "the id"
    assert load_flow(None).name == "of the contract"  # without them it asks the run, and then the server
    assert find_spec(ENGINE_MODULE)


ENGINE = """
import sys, time
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm
from prefect._internal.control_listener import get_intent
try:
    with capture_sigterm():
        print("listening", flush=True)
        time.sleep(3600)
except TerminationSignal:
    print(get_intent())
"""


def test_the_control_channel_of_prefects_own_engine() -> None:
    """An engine that is asked to cancel takes a SIGTERM for the end of a cancelled run; another, for a crash."""
    with ControlChannel() as channel:
        engine = subprocess.Popen(
            [sys.executable, "-c", ENGINE], env={**os.environ, **channel.environment}, stdout=subprocess.PIPE, text=True
        )
        with engine:
            assert engine.stdout is not None
            assert engine.stdout.readline() == "listening\n"
            wait_until(channel.say_cancelled)
            engine.send_signal(signal.SIGTERM)
            assert engine.stdout.read() == "cancel\n"


def test_an_engine_that_knows_no_channel_is_not_waited_for() -> None:
    with ControlChannel() as channel:
        assert not channel.say_cancelled()
