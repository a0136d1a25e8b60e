"""Orchestrators by name: entry points, what a program registers, and everything that can be wrong with a plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.errors import ConfigurationError, MissingExtraError, OrchestratorNotFoundError, PluginError
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.targets import resolve
from tests.unit.conftest import InstallPlugin


class Toy(Orchestrator):
    name = "toy"

    def __init__(self, url: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.url = url


Toy.__abstractmethods__ = frozenset()


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


GOOD = """
from flowyml.orchestrators.base import Orchestrator
class Made(Orchestrator):
    name = "good"
Made.__abstractmethods__ = frozenset()
"""


def test_what_a_program_registers_and_objects_resolve() -> None:
    toy = Toy()
    assert resolve(toy) is toy
    registry.register("toy", Toy)
    orchestrator = resolve("toy", url="http://here")
    assert isinstance(orchestrator, Toy)
    assert orchestrator.url == "http://here"
    registry.register("mine", lambda: Toy("http://fixed"))
    assert resolve("mine").name == "toy"
    assert repr(resolve("http://127.0.0.1:1")) == "<RemoteOrchestrator http://127.0.0.1:1>"  # without any network


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (Toy, r"on=Toy is a class. Give an object of it: on=Toy\(…\)"),
        (5, "on=5 is not an orchestrator. Give one, the name of an engine or target"),
    ],
)
def test_invalid_orchestrators(on: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(on)


def test_the_default_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWYML_ORCHESTRATOR", raising=False)
    assert registry.default() == "local"
    monkeypatch.setenv("FLOWYML_ORCHESTRATOR", "toy")
    registry.register("toy", Toy)
    assert resolve().name == "toy"


def test_an_unknown_name_lists_the_known_and_those_that_look_alike() -> None:
    with pytest.raises(
        OrchestratorNotFoundError, match=r"No orchestrator is called 'locall'. Did you mean 'local'\?"
    ) as e:
        resolve("locall")
    assert f"Known: {', '.join(registry.declared())}." in str(e.value)
    with pytest.raises(OrchestratorNotFoundError, match=r"No orchestrator is called ''\. Known: "):
        resolve("")


def test_declared_imports_nothing(install_plugin: InstallPlugin) -> None:
    install_plugin("loud", "raise SystemExit('imported')")
    assert "loud" in registry.declared()


def test_a_broken_plugin_tells_whose_it_is_and_keeps_its_traceback(install_plugin: InstallPlugin) -> None:
    install_plugin("broken", "1 / 0", dist="acme-orchestra")
    install_plugin("good", GOOD)
    with pytest.raises(PluginError, match=r"'broken' of acme-orchestra cannot be loaded .*ZeroDivisionError") as caught:
        resolve("broken")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.__cause__.__traceback__ is not None
    assert resolve("good").name == "good"


@pytest.mark.parametrize(
    ("source", "attribute", "message"), [("", "Nothing", "Nothing"), ("Made = 3", "Made", "is not callable")]
)
def test_a_plugin_without_a_class_is_broken(
    install_plugin: InstallPlugin, source: str, attribute: str, message: str
) -> None:
    install_plugin("broken", source, attribute=attribute)
    with pytest.raises(PluginError, match=message):
        registry.load("broken")


def test_a_stray_folder_is_not_an_installed_engine(install_plugin: InstallPlugin, tmp_path: Path) -> None:
    install_plugin("conductor", GOOD + "Made.engine_package = 'conductor_client'\nMade.extra = 'conductor'\n")
    (tmp_path / "conductor_client").mkdir()
    with pytest.raises(MissingExtraError, match=r"pip install 'flowyml\[conductor\]'"):
        resolve("conductor")
    assert registry.missing(registry.load("conductor")) == "pip install 'flowyml[conductor]'"
    (tmp_path / "conductor_client" / "__init__.py").touch()
    import importlib

    importlib.invalidate_caches()
    assert resolve("conductor").name == "good"


def test_a_plugin_that_imports_its_missing_engine_is_a_missing_extra(install_plugin: InstallPlugin) -> None:
    install_plugin(
        "argo", "import argo_client", dist="acme-argo",
        requires="Provides-Extra: argo\nRequires-Dist: argo-client>=1 ; extra == 'argo'",
    )  # fmt: skip
    with pytest.raises(
        MissingExtraError, match=r"needs the package 'argo_client'.*pip install 'acme-argo\[argo\]'"
    ) as e:
        registry.load("argo")
    assert isinstance(e.value.__cause__, ModuleNotFoundError)


def test_a_plugin_that_lacks_a_module_of_its_own_is_broken(install_plugin: InstallPlugin) -> None:
    install_plugin(
        "argo", "import argo_internals.missing", dist="acme-argo",
        requires="Provides-Extra: test\nRequires-Dist: something-else ; extra == 'test'",
    )  # fmt: skip
    with pytest.raises(PluginError, match="argo_internals"):
        registry.load("argo")


def test_two_packages_with_one_name_are_distinguished(install_plugin: InstallPlugin) -> None:
    install_plugin("twin", GOOD, dist="first-twin")
    install_plugin("twin", GOOD, dist="second-twin")
    with pytest.raises(PluginError, match="first-twin and second-twin both declare an orchestrator 'twin'"):
        registry.load("twin")
    registry.register("twin", Toy)
    assert registry.load("twin") is Toy


def test_resolving_local_loads_nothing_heavy() -> None:
    code = (
        "import sys; from flowyml.orchestrators import registry, targets; targets.target('local'); registry.declared();"
        "print([name for name in ('pydantic', 'click', 'rich', 'prefect') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
