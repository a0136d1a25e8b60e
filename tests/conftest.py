"""Fixtures and options of all tests: a data folder of the session, and engines that report nothing home."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.engines.prefect import PrefectServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write the golden files anew; review them like code.")


def pytest_configure(config: pytest.Config) -> None:
    """No test touches the user's data, and none phones home. Child processes inherit it."""
    gc.disable()  # until all tests are collected
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes inherit that it is ignored in a background job
    home = Path(tempfile.mkdtemp(prefix="flowyml-tests-"))
    os.environ["FLOWYML_HOME"] = str(home)
    os.environ["PREFECT_HOME"] = str(home / "prefect-client")
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    os.environ["PREFECT_API_REQUEST_TIMEOUT"] = "600"  # of flows, by default a minute: too little if a machine stalls
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    # How long an example takes is no property of the code: a busy machine makes it ten times as long.
    settings.register_profile("flowyml", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("flowyml")
    for name in ("FLOWYML_ORCHESTRATOR", "FLOWYML_ARTIFACTS", "PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["FLOWYML_HOME"], ignore_errors=True)


def pytest_collection_finish() -> None:
    """Exempt all that is loaded by now from garbage collections, which took a third of the time of some tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Some tests print half of a surrogate pair, which pytest-xdist cannot send from one process to another."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return type(value)(map(_encodable, value)) if isinstance(value, list | tuple) else value


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """True when the golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One real Prefect for all tests; a test that breaks its server starts one of its own.

    It is on PostgreSQL where that is installed. Prefect reads before it writes within one transaction, which SQLite
    refuses if another process wrote in between; where many runs write, a call can be refused for more than a minute.
    """
    from tests.engines.postgres import postgres
    from tests.engines.prefect import prefect_server

    with prefect_server(tmp_path_factory.mktemp("engine"), postgres()) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_url(prefect: PrefectServer) -> str:
    """The URL of that Prefect."""
    return prefect.url


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are for the packages: here, only test modules are tests. The rest is golden files and helpers."""
    return True if collection_path.suffix == ".py" and not collection_path.name.startswith("test_") else None
