"""What compiled flows use of Prefect is there: their imports, the calls that they make, and the fields that they read.

The calls and fields are found in the code of the flows, so a new one is checked without an edit here; what a variable
holds is in ``HELD``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument, DeploymentSchedule, FlowRun, State, TaskRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

import flowyml_prefect

pytestmark = pytest.mark.prefect

HERE = Path(str(flowyml_prefect.__file__)).parent
PARTS = ("worker.py", "walker.py")

# What of Prefect's these hold or give, wherever they stand in the code of the flows.
HELD: dict[str, tuple[Any, ...]] = {
    "client": (SyncPrefectClient,),
    "client.read_block_document_by_name": (BlockDocument,),
    "client.read_deployment": (DeploymentResponse,),
    "client.read_flow_run": (FlowRun,),
    "flow_run": (FlowRun,),
    "future": (PrefectFuture,),
    "item": (DeploymentSchedule,),
    "ours[0]": (DeploymentSchedule,),
    "rule": (CronSchedule, IntervalSchedule),
    "run": (runtime.flow_run,),
    "runtime.flow_run": (runtime.flow_run,),
    "runtime.task_run": (runtime.task_run,),
    "self._runner": (ThreadPoolTaskRunner,),
    "state": (State,),
    "task_run": (TaskRun,),
    "task_run.state": (State,),
    "task.state": (State,),
}


def nodes() -> Iterator[ast.AST]:
    for name in PARTS:
        yield from ast.walk(ast.parse((HERE / name).read_text("utf-8")))


@cache
def imported() -> dict[str, str]:
    """What the flows import from Prefect, by its place; modules that they load by name too."""
    found = {}
    for node in nodes():
        match node:
            case ast.ImportFrom(module=str(source), names=names) if source.partition(".")[0] == "prefect":
                found.update({f"{source}:{item.name}": item.name for item in names})
            case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(source))]):
                found[f"{source}:{source.rpartition('.')[2]}"] = source
    return found


def read_by_name(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def calls() -> list[ast.Call]:
    """The calls of what is imported from Prefect, and of methods of what is held."""
    names, found = set(imported().values()), {}
    for node in nodes():
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in names:
                found[ast.unparse(node)] = node
            case ast.Call(func=ast.Attribute(value=held)) if ast.unparse(held) in HELD:
                found[ast.unparse(node)] = node
    return list(found.values())


def called(function: ast.expr) -> list[Any]:
    """What is called, and one argument for the object whose method it is."""
    if isinstance(function, ast.Attribute):
        return [getattr(kind, function.attr, None) for kind in HELD[ast.unparse(function.value)]]
    return [read_by_name(place) for place, name in imported().items() if name == ast.unparse(function)]


def fields() -> list[tuple[str, str]]:
    """The fields that are read of what is held, and of what a call of the client gives."""
    found = set()
    for node in nodes():
        match node:
            case ast.Attribute(value=held, attr=name) if ast.unparse(held) in HELD:
                found.add((ast.unparse(held), name))
            case ast.Attribute(value=ast.Call(func=ast.Attribute(value=ast.Name(id="client"), attr=method)), attr=name):
                found.add((f"client.{method}", name))
            case ast.Attribute(value=ast.Call(func=ast.Name(id="_deployment")), attr=name):
                found.add(("client.read_deployment", name))
    return sorted(found)


def has(kind: Any, name: str) -> bool:
    if isinstance(kind, ModuleType):
        return name in kind.__all__
    return name in getattr(kind, "model_fields", {}) or hasattr(kind, name)


def test_all_imports_are_there() -> None:
    assert len(imported()) > 10
    gone = []
    for place in imported():
        try:
            read_by_name(place)
        except (ImportError, AttributeError):
            gone.append(place)
    assert not gone, f"Prefect has these no more: {gone}"


def test_all_calls_fit() -> None:
    """Their arguments do, whatever their values."""
    methods = {call.func.attr for call in calls() if isinstance(call.func, ast.Attribute)}
    assert methods >= {"read_block_document_by_name", "read_deployment", "update_flow_run_labels", "submit"}
    faults = [f"{ast.unparse(call)[:80]}: {fault}" for call in calls() for fault in faults_of(call)]
    assert not faults, "\n".join(faults)


def faults_of(call: ast.Call) -> Iterator[str]:
    given = [None, *call.args] if isinstance(call.func, ast.Attribute) else call.args
    for function in called(call.func):
        if function is None:
            yield "Prefect has it no more"
            continue
        try:
            inspect.signature(function).bind(*given, **{str(item.arg): None for item in call.keywords})
        except TypeError as error:
            yield str(error)


def test_all_fields_are_there() -> None:
    gone = [f"{held}.{name}" for held, name in fields() if not any(has(kind, name) for kind in HELD[held])]
    assert not gone, f"Prefect has these no more: {gone}"
