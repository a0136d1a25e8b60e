"""Which code travels with a pipeline."""

from __future__ import annotations

import io
import json
import site
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from flowyml import Pipeline, step
from flowyml.artifacts.pickling import read_pickle
from flowyml.authoring.pickles import pickled
from flowyml.core import modules
from flowyml.core.errors import DefinitionError
from flowyml.core.hooks import PipelineHook
from flowyml.plan.bundle import Bundle
from tests.unit.commands import python

pytestmark = pytest.mark.processes

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


@pytest.mark.parametrize("command", [["train.py"], ["-c", "import train"]])
def test_modules_beside_the_pipeline_come_along(project: Path, command: list[str]) -> None:
    python(project, *command)
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
    python(project, "-m", "package.jobs")
    (path,) = (project / "bundles").iterdir()
    assert [s.function for s in Bundle.read(path).plan] == ["package.jobs:load", "package.jobs:train"]
    assert "package/jobs.py" in own_files(Bundle.read(path))


def test_without_a_file_functions_travel_by_value(project: Path) -> None:
    script = (project / "train.py").read_text()
    python(project, "-c", script)
    (path,) = (project / "bundles").iterdir()
    bundle = Bundle.read(path)
    assert [s.function for s in bundle.plan] == ["pickle:load", "pickle:train"]
    assert "helpers.py" in own_files(bundle)


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
    path = python(project, "-c", code).out.strip()
    assert own_files(Bundle.read(project / path)) == {"package/__init__.py", "package/jobs.py", "package/table.csv"}
    assert python(project, "-I", path, "step", "read").out == '{"read": "7"}\n'


def test_include_takes_what_is_below_the_folder_and_there() -> None:
    for pattern, message in (("../*/*.py", r"include='\.\./\*/\*\.py' leaves "), ("nothing/*", "matches no file")):
        with pytest.raises(DefinitionError, match=message):
            Pipeline("p", include=[pattern]).add_step(step(name="s")(lambda: 1)).bundle()


DEPLOYED = """
import sys
from enum import Enum
from flowyml import Pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators import LocalOrchestrator

class Colour(Enum):
    RED = 1
    GREEN = 2

class Hook(PipelineHook):
    def __init__(self):
        self.words = {"alpha", "beta", "gamma", "delta"}
        self.same_words = self.words
        self.others = {frozenset({"x", "y", "z"}), (1, "one"), None, Colour.RED, Colour.GREEN, int, Hook}

    def on_step_start(self, step_name, inputs):
        assert self.words == {"alpha", "beta", "gamma", "delta"} and self.same_words is self.words
        assert self.others == {frozenset("xyz"), (1, "one"), None, Colour.RED, Colour.GREEN, int, Hook}
        print("checked")

@step
def load():
    return 1

def made(pipeline):
    return pipeline.deploy(on=LocalOrchestrator())

plain = Pipeline("plain", hooks=[Hook()]).add_step(load)
if __name__ == "__main__":
    print(made(plain).digest)
"""


def test_a_script_and_the_command_make_the_same_bundle(tmp_path: Path) -> None:
    """With hooks that hold sets, which come back as they were."""
    (tmp_path / "dep.py").write_text(DEPLOYED)
    home = {"FLOWYML_HOME": str(tmp_path / "home")}
    digests = {python(tmp_path, "dep.py", **home, PYTHONHASHSEED=seed).out.strip() for seed in ("1", "2")}
    words = ("-m", "flowyml", "deploy", "dep.py:plain", "--on", "local", "--json")
    printed = python(tmp_path, *words, **home, PYTHONHASHSEED="3").out
    assert digests == {json.loads(printed)["digest"]}
    (path,) = (tmp_path / "home" / "bundles").iterdir()
    bundle = Bundle.read(path)
    assert json.loads(bundle.files["bundle.json"])["main"] is None
    assert bundle.plan.hooks == ("dep.Hook",)
    assert python(tmp_path, "-I", str(path), "step", "load").out == 'checked\n{"load": 1}\n'


def test_functions_by_value_are_the_same_bytes_whatever_the_hashes(tmp_path: Path) -> None:
    (tmp_path / "nest.py").write_text(
        "from flowyml import Pipeline, step\n"
        "WORDS = {'alpha', 'beta', 'gamma'}\n"
        "def made():\n"
        "    near = frozenset({'u', 'v', 'w'})\n"
        "    @step\n"
        "    def nested(word='a'):\n"
        "        return [word in {'a', 'b', 'c', 'd'}, word in WORDS, word in near]\n"
        "    return Pipeline('nested').add_step(nested)\n"
        "if __name__ == '__main__':\n"
        "    print(made().bundle().write('bundles'))\n"
    )
    paths = {python(tmp_path, "nest.py", PYTHONHASHSEED=seed).out.strip() for seed in ("1", "2")}
    assert len(paths) == 1
    assert python(tmp_path, "-I", paths.pop(), "step", "nested").out == '{"nested": [true, false, false]}\n'


def test_a_set_without_an_order_and_one_inside_a_cycle(tmp_path: Path) -> None:
    class Loop:
        def __init__(self) -> None:
            self.all = {self, 1}

    back = pickle_back(pickled(Loop(), "it", {}), tmp_path)
    assert back in back.all
    assert back.all == {back, 1}


def pickle_back(data: bytes, folder: Path) -> Any:
    (folder / "it.pkl").write_bytes(data)
    return read_pickle(folder / "it.pkl")


def test_a_script_whose_name_is_none_for_a_module(project: Path) -> None:
    """Started from another folder, it still brings what stands beside it."""
    script = (project / "train.py").rename(project / "train-model.py")
    python(Path(script.anchor), str(script), FLOWYML_HOME=str(project / "home"))
    (path,) = (project / "bundles").iterdir()
    assert own_files(Bundle.read(path)) >= {"helpers.py", "package/inner/deep.py", "package/sibling.py", "data/a.csv"}
    assert python(project / "data", "-I", str(path), "step", "load").out == '{"load": 1}\n'


@pytest.mark.parametrize("command", [["jobs.py"], ["-c", "import jobs; jobs.main()"]])
def test_modules_behind_partials_and_decorators_come_along(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "lib.py").write_text("ONE = 1")
    (tmp_path / "deco.py").write_text("def wrapped(f):\n    def other():\n        return f()\n    return other\n")
    (tmp_path / "data.csv").write_text("1")
    (tmp_path / "jobs.py").write_text(
        "from functools import partial\nfrom flowyml import Pipeline, step\nimport deco\n"
        "def add(number):\n    from lib import ONE\n    return number + ONE\n"
        "def add_one():\n    return add(1)\n"
        "functions = [partial(add, number=1), deco.wrapped(lambda: add(1)), deco.wrapped(add_one)]\n"
        "loads = [step(name='load')(function) for function in functions]\n"
        "def main():\n"
        "    for number, load in enumerate(loads):\n"
        "        print(Pipeline(f'p{number}', include=['*.csv']).add_step(load).bundle().write('bundles'))\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    (tmp_path / "elsewhere").mkdir()
    paths = python(tmp_path, *command).out.split()
    assert len(paths) == 3
    for path in paths:
        assert own_files(Bundle.read(tmp_path / path)) >= {"jobs.py", "lib.py", "data.csv"}
        assert python(tmp_path / "elsewhere", "-I", str(tmp_path / path), "step", "load").out == '{"load": 2}\n'


def test_packages_of_the_user_and_of_the_system_are_installed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `pip install --user`, Debian's in dist-packages, and those of an environment that a link leads to."""
    (tmp_path / "user").mkdir()
    (tmp_path / "linked").symlink_to("user")
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "linked"))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "dist-packages")])
    modules._installed_roots.cache_clear()
    try:
        assert modules.is_installed(tmp_path / "user" / "numpy" / "__init__.py")
        assert modules.is_installed(tmp_path / "linked" / "numpy" / "__init__.py")
        assert modules.is_installed(tmp_path / "dist-packages" / "numpy" / "__init__.py")
        assert not modules.is_installed(tmp_path / "train.py")
    finally:
        modules._installed_roots.cache_clear()
