"""The same job has the same place in each adapter, so that a reader of one knows the next."""

from __future__ import annotations

from importlib import import_module

import pytest

from flowyml.core.capabilities import Feature
from flowyml.orchestrators import Orchestrator, registry
from flowyml.orchestrators.deployer import Deployer
from flowyml.orchestrators.reader import RunReader
from flowyml.orchestrators.scheduler import Scheduler

ENGINES = ["airflow", "kubeflow", "prefect"]
ROOMS = [
    "capabilities", "client", "compiler", "connection", "deployer", "names", "orchestrator", "parameters", "reader",
    "schedule", "scheduler", "status", "step_runs",
]  # fmt: skip
PARTS = {"reader": RunReader, "deployer": Deployer, "scheduler": Scheduler}


@pytest.mark.parametrize("engine", ENGINES)
def test_each_adapter_has_the_same_files(engine: str) -> None:
    for room in ROOMS:
        assert import_module(f"flowyml_{engine}.{room}").__doc__
    for part, protocol in PARTS.items():
        kind = getattr(import_module(f"flowyml_{engine}.{part}"), f"{engine.title()}{part.title()}")
        assert protocol in kind.__mro__


@pytest.mark.parametrize("engine", ["local", *ENGINES, "kubeflow-local"])
def test_what_a_part_does_stands_in_the_part_alone(engine: str) -> None:
    factory = registry.load(engine)
    assert isinstance(factory, type)
    assert issubclass(factory, Orchestrator)
    done_by_parts = {name for protocol in PARTS.values() for name in vars(protocol) if not name.startswith("_")}
    assert done_by_parts >= {"get_run", "deploy", "pause_schedule"}
    assert not done_by_parts & vars(factory).keys()


@pytest.mark.parametrize("engine", ["local", *ENGINES, "kubeflow-local"])
def test_each_table_of_capabilities_names_all_features(engine: str) -> None:
    factory = registry.load(engine)
    assert isinstance(factory, type)
    assert issubclass(factory, Orchestrator)
    assert factory.capabilities.support.keys() == set(Feature)
