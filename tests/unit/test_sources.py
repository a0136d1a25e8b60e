"""Which code travels with a pipeline."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError
from flowyml.core.hooks import PipelineHook
from flowyml.plan.bundle import Bundle

TRAIN = """
from flowyml import Pipeline, step
import helpers, json
from package.inner import deep
from flowyml.core.hooks import PipelineHook

class Hook(PipelineHook):
    pass

@step
def load():
    return helpers.one()

@step
def train(load):
    from lazily import late
    return late(load)

training = Pipeline("training", hooks=[Hook()], include=["data/*.csv"]).add_step(load).add_step(train)
training.bundle().write(BUNDLES)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "train.py": TRAIN.replace("BUNDLES", repr(str(tmp_path / "bundles"))),
        "helpers.py": "def one(): return 1\n",
        "lazily.py": "def late(x): return x\n",
        "unrelated.py": "raise SystemExit\n",
        "package/__init__.py": "",
        "package/inner/__init__.py": "",
        "package/inner/deep.py": "from .. import sibling\n",
        "package/sibling.py": "",
        "data/a.csv": "1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def own_files(bundle: Bundle) -> set[str]:
    with ZipFile(io.BytesIO(bundle.data)) as archive:
        return {name.removeprefix("code/") for name in archive.namelist() if name.startswith("code/")}


@pytest.mark.parametrize("command", [["train.py"], ["-m", "train"], ["-c", "import train"]])
def test_modules_beside_the_pipeline_come_along(project: Path, command: list[str]) -> None:
    subprocess.run([sys.executable, *command], cwd=project, check=True)
    (path,) = (project / "bundles").iterdir()
    bundle = Bundle.read(path)
    assert own_files(bundle) == {
        "train.py", "helpers.py", "lazily.py", "package/__init__.py", "package/inner/__init__.py",
        "package/inner/deep.py", "package/sibling.py", "data/a.csv",
    }  # fmt: skip
    assert [s.function for s in bundle.plan] == ["train:load", "train:train"]


def test_a_module_inside_a_package_keeps_its_full_name(project: Path) -> None:
    text = (project / "train.py").read_text().replace("data/*.csv", "*.py")
    (project / "package" / "jobs.py").write_text(text)
    subprocess.run([sys.executable, "-m", "package.jobs"], cwd=project, check=True)
    (path,) = (project / "bundles").iterdir()
    assert [s.function for s in Bundle.read(path).plan] == ["package.jobs:load", "package.jobs:train"]
    assert "package/jobs.py" in own_files(Bundle.read(path))


def test_without_a_file_functions_travel_by_value(project: Path) -> None:
    script = (project / "train.py").read_text()
    subprocess.run([sys.executable, "-c", script], cwd=project, check=True)
    (path,) = (project / "bundles").iterdir()
    bundle = Bundle.read(path)
    assert [s.function for s in bundle.plan] == ["pickle:load", "pickle:train"]
    assert "helpers.py" in own_files(bundle)


def test_a_function_inside_a_function_travels_by_value() -> None:
    @step
    def nested() -> int:
        return 1

    assert Pipeline("p").add_step(nested).compile().by_name["nested"].function == "pickle:nested"


def test_what_cannot_travel_is_named() -> None:
    import threading

    lock = threading.Lock()

    @step
    def locked() -> bool:
        return lock.locked()

    with pytest.raises(DefinitionError, match=r"step 'locked' cannot be sent to another process.*inside the step"):
        Pipeline("p").add_step(locked).bundle()

    class Holding(PipelineHook):
        def __init__(self) -> None:
            self.lock = lock

    with pytest.raises(DefinitionError, match="hooks cannot be sent to another process"):
        Pipeline("p", hooks=[Holding()]).add_step(step(name="s")(lambda: 1)).bundle()


def test_data_beside_a_module_inside_a_package_stays_beside_it(project: Path) -> None:
    (project / "package" / "table.csv").write_text("7")
    (project / "package" / "jobs.py").write_text(
        "from pathlib import Path\nfrom flowyml import Pipeline, step\n"
        "@step\ndef read():\n    return Path(__file__).with_name('table.csv').read_text()\n"
        "jobs = Pipeline('jobs', include=['*.csv']).add_step(read)\n"
    )
    code = "from package.jobs import jobs; print(jobs.bundle().write('bundles'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True, text=True)
    path = done.stdout.strip()
    assert own_files(Bundle.read(project / path)) == {"package/__init__.py", "package/jobs.py", "package/table.csv"}
    ran = subprocess.run([sys.executable, "-I", path, "step", "read"], cwd=project, capture_output=True, text=True)
    assert ran.stdout == '{"read": "7"}\n', ran.stderr


def test_include_does_not_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"include='\.\./\*/\*\.py' leaves "):
        Pipeline("p", include=["../*/*.py"]).add_step(step(name="s")(lambda: 1)).bundle()


def test_include_that_matches_nothing() -> None:
    with pytest.raises(DefinitionError, match=r"include='nothing/\*' matches no file"):
        Pipeline("p", include=["nothing/*"]).add_step(step(name="s")(lambda: 1)).bundle()
