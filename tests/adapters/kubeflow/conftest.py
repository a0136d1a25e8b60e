"""A KFP API for these tests: the one at FLOWYML_TEST_KFP_URL, else a fake of it.

FLOWYML_TEST_KFP_NAMESPACE, FLOWYML_TEST_KFP_TOKEN and FLOWYML_TEST_KFP_IMAGE are the namespace, the token and the image
of steps on a real server. FLOWYML_TEST_KFP_STORE is the URL of a store that this machine and the pods reach; the code
of pipelines is kept there. FLOWYML_TEST_KFP_SHARED is a folder of this machine that every pod of the namespace has too,
at the same path; without it, tests whose steps leave traces in files are skipped.

FLOWYML_TEST_KFP_RELEASE, such as 2.16, is the release that the fake plays, where a test does not choose one.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.base import RunnablePipeline
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow import KubeflowOrchestrator
from tests.waiting import wait_until


def _given(**names: str) -> dict[str, str]:
    """What the environment says, by the options that it is for."""
    given = {option: os.environ.get(f"FLOWYML_TEST_KFP_{name}") for option, name in names.items()}
    return {option: value for option, value in given.items() if value}


class _OnServer(KubeflowOrchestrator):
    """Gives pipelines the image and the store of the environment, where they name none."""

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        plan, given = super().plan(pipeline), _given(image="IMAGE", bundle_store="STORE")
        return replace(plan, options={**plan.options, "kubeflow": {**given, **plan.options.get("kubeflow", {})}})


class Api:
    """Where it is, and how to make trouble when it is the fake."""

    def __init__(self, url: str, state: Any, root: Path | None = None) -> None:
        self.url = url
        self.state = state
        of_server = {} if state else _given(namespace="NAMESPACE", auth="TOKEN", artifacts="STORE")
        self.options: dict[str, Any] = {"url": url, **of_server}
        if root:  # of KFP's own store, which the fake has in a folder
            self.options["artifacts"] = root.as_uri()

    def orchestrator(self, **options: Any) -> KubeflowOrchestrator:
        made = KubeflowOrchestrator if self.state else _OnServer
        return made(**{**self.options, **options})

    def has_scheduled(self) -> None:
        """Wait until all has begun that is due now; skips the test on a real server."""
        if self.state is None:
            pytest.skip("a real server's clock cannot be put forward")
        rounds = self.state.rounds
        wait_until(lambda: self.state.rounds > rounds + 1)

    def let_pass(self, seconds: float) -> None:
        """Time goes on for schedules; on the fake they notice at once."""
        if self.state is None:
            time.sleep(seconds)
            return
        self.state.ahead += timedelta(seconds=seconds)
        self.has_scheduled()
        self.state.ahead -= timedelta(seconds=seconds)

    def fail(self, method: str, *paths: str, **how: Any) -> None:
        """The next call of each path fails; skips the test on a real server."""
        if self.state is None:
            pytest.skip("a real server does not fail on demand")
        from tests.engines.kubeflow_state import Fault

        self.state.faults[:] = [Fault(method, path, **how) for path in paths]


@pytest.fixture(scope="session")
def kfp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    if url := os.environ.get("FLOWYML_TEST_KFP_URL"):
        yield Api(url, None)
        return
    from tests.engines.kubeflow_api import served

    folder = tmp_path_factory.mktemp("kfp")
    with served(folder) as (url, state):
        state.version = os.environ.get("FLOWYML_TEST_KFP_RELEASE", state.version)
        yield Api(url, state, folder)


@pytest.fixture(scope="module")
def kfp_api(kfp_server: Api) -> Iterator[Api]:
    """What the fake remembers of a module's runs goes with it: each list of runs would read all of them."""
    yield kfp_server
    if kfp_server.state:
        kfp_server.state.runs.clear()


@pytest.fixture
def fake(kfp_api: Api) -> Iterator[Any]:
    """The state of the fake, which plays other releases, several users, and what may stand in front of KFP."""
    if kfp_api.state is None:
        pytest.skip("a real server is what it is")
    before = {name: getattr(kfp_api.state, name) for name in _PLAYED}
    yield kfp_api.state
    for name, value in before.items():
        setattr(kfp_api.state, name, value)
    kfp_api.state.users.clear()
    kfp_api.state.cached.clear()
    kfp_api.state.in_drivers.clear()
    kfp_api.state.faults.clear()


_PLAYED = (
    "version", "says_version", "refuses_at_upload", "below", "is_ui", "is_ready", "token", "login", "reports_canceling",
    "page_of_runs", "ahead", "lists_runs",
)  # fmt: skip


@pytest.fixture
def orchestrator(kfp_api: Api) -> KubeflowOrchestrator:
    """One on that API."""
    return kfp_api.orchestrator()


Scheduled = Callable[..., ScheduleInfo]


@pytest.fixture
def scheduled(orchestrator: KubeflowOrchestrator) -> Iterator[Scheduled]:
    """Makes schedules of pipelines and bundles, which go with the test."""
    made: dict[str, None] = {}

    def schedule(what: Any, schedule: Schedule, **options: Any) -> ScheduleInfo:
        create = orchestrator.create_schedule if isinstance(what, Bundle) else orchestrator.schedule_pipeline
        info = create(what, schedule, **options)
        made[info.schedule_id] = None
        return info

    yield schedule
    for schedule_id in made:
        orchestrator.delete_schedule(schedule_id)


@pytest.fixture(scope="session")
def new_shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders that steps and the test see both."""
    if "FLOWYML_TEST_KFP_URL" not in os.environ:
        return lambda: tmp_path_factory.mktemp("shared")
    if not (root := os.environ.get("FLOWYML_TEST_KFP_SHARED")):
        pytest.skip("pods share no folder with this test: mount one into all, and name it in FLOWYML_TEST_KFP_SHARED")

    def new() -> Path:
        folder = Path(tempfile.mkdtemp(dir=root))
        folder.chmod(0o777)  # for the user that pods have
        return folder

    return new


@pytest.fixture
def shared(new_shared: Callable[[], Path]) -> Path:
    """One such folder."""
    return new_shared()
