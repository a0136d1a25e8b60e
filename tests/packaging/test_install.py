"""Every way to install FlowyML, each in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "bin" / "uv"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRY_POINTS = PROJECT["entry-points"]["flowyml.orchestrators"]
ADAPTERS = sorted(path.name for path in ROOT.glob("adapters/*/flowyml_*"))

pytestmark = pytest.mark.slow

_CHECK = """
import sys
before = set(sys.modules)
import flowyml
loaded = set(sys.modules) - before
foreign = sorted({name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"flowyml"})

import importlib, json, importlib.util
for adapter in sys.argv[1:]:
    importlib.import_module(adapter)
by_adapters = sorted({"airflow_client", "kfp", "prefect"} & set(sys.modules))
from importlib.metadata import entry_points, version
points = {point.name: point.load().__name__ for point in entry_points(group="flowyml.orchestrators")}
try:
    import prefect
    engine = prefect.__version__
except ModuleNotFoundError:
    engine = None
print(json.dumps({
    "version": version("flowyml"), "foreign": foreign, "modules": len(loaded), "by_adapters": by_adapters,
    "entry_points": points, "prefect": engine, "file": flowyml.__file__,
    "adapters": importlib.util.find_spec("adapters") is not None,
    "tests": importlib.util.find_spec("tests") is not None,
}))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    # Neither the environment that runs the tests nor its coverage is any business of the new one.
    mine = ("VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "COVERAGE_PROCESS_CONFIG", "XDG_CACHE_HOME")
    clean = {name: value for name, value in os.environ.items() if name not in mine}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that no lock file and no build is left in it."""
    if not UV.exists():
        raise FileNotFoundError("there is no uv in .tools: `make test` puts it there")
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "build", "uv.lock", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=skipped)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """Built from the source distribution, which must therefore be complete."""
    _run(UV, "build", "--quiet", "--python", sys.executable, "--out-dir", "dist", cwd=source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def libraries(source: Path) -> Path:
    """An environment with what FlowyML and its Prefect adapter need, and without FlowyML."""
    venv = source.parent / "libraries"
    _environment(source, venv, "-r", "pyproject.toml", "--extra", "prefect")
    return venv


def _environment(source: Path, venv: Path, *what: str | Path) -> Path:
    """Make an environment with pip, and install this into it by uv; gives its Python."""
    python = venv / "bin" / "python"
    _run(UV, "venv", "--quiet", "--seed", "--python", sys.executable, venv, cwd=source)
    if what:
        _run(UV, "pip", "install", "--quiet", "--python", python, "-c", "constraints.txt", *what, cwd=source)
    return python


def _the_wheel(source: Path, wheel: Path, libraries: Path) -> Path:
    venv = source.parent / "venv"
    _environment(source, venv, f"{wheel}[prefect]")
    return venv


def _by_pip(*what: str) -> Callable[[Path, Path, Path], Path]:
    """By pip itself, as the docs say it: other code than uv's builds the package and makes it editable.

    The libraries come from another environment: pip takes 15 s of processor time for them, twice.
    """

    def install(source: Path, wheel: Path, libraries: Path) -> Path:
        venv = source.parent / "venv"
        python = _environment(source, venv)
        (site,) = venv.glob("lib/*/site-packages")
        (theirs,) = libraries.glob("lib/*/site-packages")
        (site / "libraries.pth").write_text(f"{theirs}\n")
        _run(
            python, *["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"], *what, cwd=source
        )
        return venv

    return install


def _by_uv_sync(source: Path, wheel: Path, libraries: Path) -> Path:
    project = source.parent / "synced"
    shutil.copytree(source, project, ignore=shutil.ignore_patterns("dist"))
    _run(UV, "sync", "--quiet", "--extra", "prefect", "--python", sys.executable, cwd=project)
    return project / ".venv"


INSTALLS = {
    "wheel": _the_wheel,
    "pip install .[prefect]": _by_pip(".[prefect]"),
    "pip install -e .[prefect]": _by_pip("-e", ".[prefect]"),
    "uv sync --extra prefect": _by_uv_sync,
}


@pytest.fixture(scope="module", params=INSTALLS)
def installed(request: pytest.FixtureRequest, source: Path, wheel: Path, libraries: Path) -> Iterator[tuple[str, Path]]:
    venv = INSTALLS[request.param](source, wheel, libraries)
    yield request.param, venv
    shutil.rmtree(venv)


def test_each_way_to_install_gives_a_working_package_and_the_command(
    installed: tuple[str, Path], tmp_path: Path
) -> None:
    how, venv = installed
    found = json.loads(_run(venv / "bin/python", "-I", "-c", _CHECK, *ADAPTERS, cwd=tmp_path))
    assert found["foreign"] == [], "import flowyml loads the standard library only"
    assert found["modules"] < 200
    assert found["by_adapters"] == [], "an adapter loads its engine where it uses it"
    assert found["entry_points"] == {name: value.partition(":")[2] for name, value in ENTRY_POINTS.items()}
    assert found["prefect"], "the real Prefect is installed and nothing shadows it"
    if how not in ("pip install -e .[prefect]", "uv sync --extra prefect"):  # these put the checkout on the path
        assert not found["adapters"]
        assert not found["tests"]
        assert str(venv) in found["file"]
    assert "Usage: flowyml" in _run(venv / "bin/flowyml", "--help", cwd=tmp_path)


_PIPELINE = """
from flowyml import pipeline, step

@step(timeout=600)
def double(number: int) -> int:
    return 2 * number

@pipeline
def doubling(number: int = 2):
    return double(number)

if __name__ == "__main__":
    run = doubling.submit({"number": 4}).wait_for_completion(2400)
    print(doubling.run()["double"], run.outputs["double"], run.error)
"""


def test_each_way_to_install_runs_a_pipeline(installed: tuple[str, Path], tmp_path: Path) -> None:
    _, venv = installed
    (tmp_path / "doubling.py").write_text(_PIPELINE)
    assert _run(venv / "bin/python", "doubling.py", cwd=tmp_path) == "4 8 None\n"
    flow = _run(venv / "bin/flowyml", "compile", "doubling.py", "--to", "prefect", cwd=tmp_path)
    assert "from prefect import " in flow


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"flowyml", *ADAPTERS}
    assert {f"{package}/py.typed" for package in ("flowyml", *ADAPTERS)} <= set(names)
    assert [name for name in names if "/test" in name and not name.startswith("flowyml/testing/")] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_without_the_extra_the_error_holds_the_command_that_helps(source: Path, wheel: Path, tmp_path: Path) -> None:
    python = _environment(source, tmp_path / "venv", wheel)
    ask = (
        "from flowyml.core.errors import MissingExtraError\n"
        "from flowyml.orchestrators.targets import resolve\n"
        "try: print(resolve('prefect'))\n"
        "except MissingExtraError as error: print(error)\n"
    )
    message = _run(python, "-I", "-c", ask, cwd=tmp_path)
    assert "'prefect'" in message
    command = message[message.index("pip install") :].strip()
    assert command == "pip install 'flowyml[prefect]'"

    # The public index has another project of this name: the command must keep to the flowyml that is installed.
    plan = _run("sh", "-c", f"{python} -m {command} --dry-run", cwd=tmp_path)
    would = plan[plan.index("Would install") :]
    assert " prefect-" in would
    assert " flowyml-" not in would
