"""The user's code, brought to life from an unpacked bundle."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from flowyml.core.errors import PlanError
from flowyml.core.hooks import PipelineHook
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.runtime.code import Code
from flowyml.runtime.loading import StopLoading, is_loading, load_code, loading, stop_if_loading
from flowyml.runtime.unpacking import unpack_bundle


@pytest.fixture(autouse=True)
def _imports() -> Iterator[None]:
    """Each test loads into this process; leave it as it was."""
    path, meta_path, modules = sys.path[:], sys.meta_path[:], set(sys.modules)
    yield
    sys.path[:], sys.meta_path[:] = path, meta_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def load(
    tmp_path: Path, function: str, files: dict[str, str], objects: dict[str, bytes] = {}, main: str | None = None
) -> Code:
    plan = Plan(name="p", steps=(Step(name="s", function=function, outputs=("x",)),))
    sources = {path: textwrap.dedent(source).encode() for path, source in files.items()}
    bundle = build(plan, files=sources, objects=objects, main=main)
    return load_code(unpack_bundle(bundle.write(tmp_path)), plan)


def call(code: Code, *args: Any) -> Any:
    return code.functions["s"](*args)


SCRIPT = """
from flowyml import Pipeline, step
import helper_a

@step(outputs=["x"])
def one():
    return helper_a.ONE

pipeline = Pipeline("p").add_step(one)
result = pipeline.run()
raise AssertionError("not reached")
"""
INNER = """
from flowyml import Pipeline, step

@step(outputs=["y"])
def inner():
    return 2

@step(outputs=["x"])
def outer():
    return Pipeline("inner").add_step(inner).run().outputs["y"]
"""
RUNS = "from flowyml import Pipeline\nONE = 1\nPipeline('other').submit()\nraise AssertionError('not reached')"
CODE: dict[str, tuple[str, dict[str, str], Any]] = {
    "in a class of a package": (
        "pack.deep.steps:Steps.two",
        {
            "pack/__init__.py": "",
            "pack/deep/__init__.py": "from .other import BASE",
            "pack/deep/other.py": "BASE = 40",
            "pack/deep/steps.py": "from . import BASE\nclass Steps:\n    @staticmethod\n    def two(): return BASE + 2",
        },
        42,
    ),
    "in a namespace package": (
        "space.steps:f",
        {"space/steps.py": "from space.sub.more import ONE\ndef f(): return ONE", "space/sub/more.py": "ONE = 1"},
        1,
    ),
    "in a script and a module that run pipelines": ("train_b:one", {"train_b.py": SCRIPT, "helper_a.py": RUNS}, 1),
    "that imports a module which runs a pipeline": (
        "steps_d:f",
        {"steps_d.py": "def f():\n    import late_a\n    return late_a.ONE", "late_a.py": RUNS},
        1,
    ),
    "that runs a pipeline of its own": ("steps_e:outer", {"steps_e.py": INNER}, 2),
    "in a module of the name of an installed one": ("iniconfig:f", {"iniconfig.py": "def f(): return 'mine'"}, "mine"),
    "with a data file beside it": (
        "steps_c:f",
        {
            "steps_c.py": "from pathlib import Path\n"
            "def f(): return (Path(__file__).parent / 'd' / 'x.txt').read_text()",
            "d/x.txt": "hello",
        },
        "hello",
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", CODE)
def test_a_function(tmp_path: Path, where: str) -> None:
    function, files, result = CODE[where]
    sys.modules.pop("iniconfig", None)
    assert call(load(tmp_path, function, files)) == result


def test_a_pickled_function_and_pickled_hooks(tmp_path: Path) -> None:
    base = 3
    objects = {"s": cloudpickle.dumps(lambda x: x + base), "hooks": cloudpickle.dumps((PipelineHook(),))}
    code = load(tmp_path, "pickle:s", {}, objects)
    assert call(code, 4) == 7
    assert [type(hook) for hook in code.hooks] == [PipelineHook]


def test_pickles_that_name_main_mean_the_script(tmp_path: Path) -> None:
    pickled = b"\x80\x04c__main__\nmake\n."
    assert call(load(tmp_path, "pickle:s", {"train_a.py": "def make(): return 5"}, {"s": pickled}, main="train_a")) == 5


@pytest.mark.parametrize(
    "source", ["", "from flowyml import Pipeline\nPipeline('x').run()\ndef f(): ...", "if 0:\n def f(): ..."]
)
def test_a_function_that_is_not_there_when_imported(tmp_path: Path, source: str) -> None:
    with pytest.raises(PlanError, match=r"has no 'f' when it is imported\. Define steps above the line that runs"):
        load(tmp_path, "steps_f:f", {"steps_f.py": source})


def test_two_bundles_with_modules_of_the_same_name(tmp_path: Path) -> None:
    before = set(sys.path)
    first = load(tmp_path, "steps_i:f", {"steps_i.py": "def f(): return 1"})
    second = load(tmp_path, "steps_i:f", {"steps_i.py": "def f(): return 2"})
    assert (call(first), call(second)) == (1, 2)
    assert sum(entry.endswith("/code") for entry in sys.path if entry not in before) == 1


def test_loading_is_of_this_thread_only() -> None:
    import threading

    seen: list[bool] = []
    with loading():
        assert is_loading()
        thread = threading.Thread(target=lambda: seen.append(is_loading()))
        thread.start()
        thread.join()
        with pytest.raises(StopLoading, match=r"'p': run\(\) while its module is loaded"):
            stop_if_loading("p", "run")
    assert seen == [False]
    stop_if_loading("p", "run")


def test_the_cache_is_private_and_drops_what_is_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plan = Plan(name="p", steps=(Step(name="s", function="m:f"),))
    bundle = build(plan).write(tmp_path)
    unpack = "import sys; from flowyml.runtime.unpacking import unpack_bundle; print(unpack_bundle(sys.argv[1]))"
    once, again = (
        subprocess.run([sys.executable, "-c", unpack, str(bundle)], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )  # in processes that have ended: what one uses stays
    assert once == again
    old = Path(once.strip())
    assert (tmp_path / "cache" / "flowyml").stat().st_mode & 0o777 == 0o700
    (tmp_path / "cache" / "flowyml").chmod(0o775)
    os.utime(old, (1, 1))
    new = unpack_bundle(build(plan, files={"a.py": b""}).write(tmp_path))
    assert (tmp_path / "cache" / "flowyml").stat().st_mode & 0o777 == 0o700
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_that_lost_files_is_filled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tidies caches deletes files that were not read for long, and leaves folders."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = build(Plan(name="p", steps=(Step(name="s", function="m:f"),)), files={"m.py": b""}).write(tmp_path)
    folder = unpack_bundle(path)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    assert folder / "code" / "m.py" in files
    for lost in ([folder / "code" / "m.py"], [folder / "plan.json", *folder.glob("*.txt")], files):
        for file in lost:
            file.unlink()
        assert unpack_bundle(path) == folder
        assert sorted(file for file in folder.rglob("*") if file.is_file()) == files
    assert list((tmp_path / "cache" / "flowyml").iterdir()) == [folder]


def test_without_a_cache_folder_a_bundle_is_unpacked_for_this_process(tmp_path: Path) -> None:
    """Neither the home nor the shared temporary folder will do: files stand where the folders would be."""
    import os

    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / f"flowyml-{os.getuid()}").write_text("in the way")
    (tmp_path / "cache").write_text("in the way")
    plan = Plan(name="p", steps=(Step(name="s", function="m:where", outputs=("x",)),))
    path = build(plan, files={"m.py": b"def where(): return __file__"}).write(tmp_path)
    env = {"TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "FLOWYML_HOME": str(tmp_path)}
    command = [sys.executable, "-I", str(path), "step", "s"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert f'{{"x": "{tmp_path}/tmp/flowyml-' in done.stdout
    assert [entry.name for entry in (tmp_path / "tmp").iterdir()] == [f"flowyml-{os.getuid()}"]


@pytest.mark.processes
def test_many_first_starts_at_once(tmp_path: Path) -> None:
    import os

    plan = Plan(name="p", steps=(Step(name="s", function="m:f", outputs=("x",)),))
    path = build(plan, files={"m.py": b"def f(): return 1"}).write(tmp_path)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-I", "-S", str(path), "step", "s"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env) for _ in range(6)]
    assert [process.communicate()[0] for process in running] == [b'{"x": 1}\n'] * 6
    assert len(list((tmp_path / "cache" / "flowyml").iterdir())) == 1
