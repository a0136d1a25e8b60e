"""What the tests of the local orchestrator share."""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowyml.orchestrators import LocalOrchestrator, registry
from tests.unit.commands import PIPELINE


@pytest.fixture(autouse=True)
def nothing_stays_imported(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test, or a command in its process, imports from its files goes again: others have a ``flow`` of theirs."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    finders, modules = list(sys.meta_path), set(sys.modules)
    yield
    # Those of libraries that this test was the first to import have to stay.
    sys.meta_path[:] = [each for each in sys.meta_path if each in finders or not each.__module__.startswith("flowyml")]
    files = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - modules:
        module = sys.modules[name]
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        if any(str(place).startswith(files) for place in places):
            del sys.modules[name]


@pytest.fixture
def local(tmp_path: Path) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path / "runs.db")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FlowyML's data folder of this test alone, and a cache of its own."""
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


InstallPlugin = Callable[..., None]


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstallPlugin]:
    """Puts a distribution with an orchestrator on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(
        name: str, source: str, *, dist: str | None = None, attribute: str = "Made", requires: str = ""
    ) -> None:
        dist = dist or f"flowyml-{name}"
        module = f"plugin_{dist.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{dist.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n{requires}\n")
        (metadata / "entry_points.txt").write_text(f"[flowyml.orchestrators]\n{name} = {module}:{attribute}\n")
        registry._entry_points.cache_clear()

    yield install
    registry._entry_points.cache_clear()


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    """No thread outlives a run, and the streams are the very ones that were there before."""
    threads, streams, factory = threading.enumerate(), (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    yield
    for thread in {*threading.enumerate()} - {*threads}:
        thread.join(240)  # rich asks its thread to stop, and does not wait until it has
    assert not {*threading.enumerate()} - {*threads}
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogRecordFactory() is factory


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is the test's own and holds ``train.py``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    (tmp_path / "train.py").write_text(PIPELINE)


@pytest.fixture
def local_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the time zone of this process, until the test ends."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()
