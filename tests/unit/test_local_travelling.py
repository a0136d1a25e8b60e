"""What step processes find of the code and of the files beside it, and what they say where it is missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.unit.commands import python

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("fork", ["1", "0"])
def test_modules_from_a_path_that_the_script_has_added(tmp_path: Path, fork: str) -> None:
    """And values of a class of the script, from a thread to a process and back."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mylib.py").write_text("ONE = 1")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "script.py").write_text(
        "import sys\nif __name__ == '__main__':\n    sys.path.append('../lib')\nimport mylib\n"
        "from dataclasses import dataclass\n"
        "from flowyml import Pipeline, step\nfrom flowyml.orchestrators import LocalOrchestrator\n"
        "@dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "@step(outputs=['pair'])\ndef make():\n    return Pair(1, 2)\n"
        "@step(outputs=['swapped'], timeout=240)\ndef swap(pair):\n"
        "    assert type(pair) is Pair\n    return Pair(pair.b, pair.a + mylib.ONE)\n"
        "if __name__ == '__main__':\n"
        "    pipeline = Pipeline('p').add_step(make).add_step(swap)\n"
        "    for workers in ('threads', 'processes'):\n"
        "        result = pipeline.run(on=LocalOrchestrator(store='runs.db', workers=workers))\n"
        "        print(result['swapped'] == Pair(2, 2), result.error)\n"
    )
    assert python(tmp_path / "app", "script.py", FLOWYML_FORK=fork).out == "True None\n" * 2


def test_a_worker_imports_little_of_the_orchestrator_that_a_script_names(tmp_path: Path) -> None:
    """Its machinery takes as long to load as all the rest of a worker does."""
    (tmp_path / "names_it.py").write_text(
        "import sys\nfrom flowyml import Pipeline, step\nfrom flowyml.orchestrators import LocalOrchestrator\n"
        "local = LocalOrchestrator(workers='processes')\n"
        "@step\ndef loaded() -> list[str]:\n"
        "    return sorted(name for name in sys.modules if name.startswith('flowyml.orchestrators.local.'))\n"
        "if __name__ == '__main__':\n"
        "    print(*Pipeline('lean').add_step(loaded).run(on=local)['loaded'])\n"
    )
    names = python(tmp_path, "names_it.py", FLOWYML_HOME=str(tmp_path)).out.split()
    loaded = {name.rpartition(".")[2] for name in names}
    assert "orchestrator" in loaded
    assert not {"run", "step_call", "engine", "detached"} & loaded


def test_a_file_that_did_not_come_along_is_named(tmp_path: Path) -> None:
    """In a process of the step, and in a thread of a submitted run."""
    code = """
from pathlib import Path
from flowyml import Pipeline, step
@step
def reads() -> str:
    return (Path(__file__).parent / "data" / "rows.csv").read_text()
if __name__ == "__main__":
    apart = reads.options(timeout=240)
    print(Pipeline("reading", include=[]).add_step(apart).run().error)
    handle = Pipeline("reading").add_step(reads).submit()
    print(handle.wait_for_completion(timeout=2400).error)
    print(handle.step_runs()[0].error)
    print(Pipeline("reading", include=["data/*.csv"]).add_step(apart).run()["reads"])
"""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("1,2")
    (tmp_path / "reading.py").write_text(code)
    *errors, read = python(tmp_path, "reading.py").out.splitlines()
    assert [error[-80:].partition("It is")[2] for error in errors] == [
        " not in the bundle: give the pipeline include=['data/rows.csv']"
    ] * 3
    assert read == "1,2"


def test_in_a_package_it_is_named_as_include_takes_it(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from flowyml import Pipeline, step
@step(timeout=240)
def reads() -> str:
    return (Path(__file__).parent / "rows.csv").read_text()
@step(timeout=240)
def reads_above() -> str:
    return (Path(__file__).parents[1] / "rows.csv").read_text()
if __name__ == "__main__":
    print(Pipeline("reading").add_step(reads).run().error)
    print(Pipeline("reading", include=["rows.csv"]).add_step(reads).run()["reads"])
    print(Pipeline("reading").add_step(reads_above).run().error)
"""
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rows.csv").write_text("1,2")
    (package / "reading.py").write_text(code)
    first, second, third = python(tmp_path, "-m", "pkg.reading").out.splitlines()
    assert first.endswith("It is not in the bundle: give the pipeline include=['rows.csv']")
    assert second == "1,2"
    assert third.endswith("rows.csv is not in the bundle: include=[…] takes only files beside the pipeline's own")


def test_a_module_that_is_imported_by_its_name_is_included_by_it(tmp_path: Path) -> None:
    code = """
from importlib import import_module
from flowyml import Pipeline, step
@step(timeout=240)
def rate(name: str) -> int:
    return import_module(f"pkg.models.{name}").RATE
@step(timeout=240)
def needs(name: str) -> None:
    import not_installed
if __name__ == "__main__":
    one = Pipeline("one", context={"name": "linear"}).add_step(rate)
    print(one.run().error)
    print(Pipeline("one", context={"name": "linear"}, include=["models/*.py"]).add_step(rate).run()["rate"])
    print(Pipeline("two", context={"name": ""}).add_step(needs).run().error)
"""
    models = tmp_path / "pkg" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    (models / "linear.py").write_text("RATE = 3")
    (models.parent / "rating.py").write_text(code)
    missing, rate, other = python(tmp_path, "-m", "pkg.rating").out.splitlines()
    assert missing.endswith(
        "If 'pkg.models.linear' is your own, it is not in the bundle: give the pipeline include=['models/linear.py']"
    )
    assert rate == "3"
    assert other.endswith("No module named 'not_installed'")


def printed_by(folder: Path, name: str, body: str, *arguments: str) -> str:
    """What a script prints that runs in a process of its own: steps, and at the end a line for ``__main__``."""
    *steps, last = body.strip().splitlines()
    code = ["from flowyml import Pipeline, step", *steps, "if __name__ == '__main__':", f"    {last}"]
    (folder / name).write_text("\n".join(code))
    start = folder / "started_by_a_link.py"
    start.symlink_to(name)
    return python(folder, start.name, *arguments).out


def test_a_library_may_use_what_does_not_travel(tmp_path: Path) -> None:
    """A room that stays at home is that of the installed FlowyML."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "drawing.py").write_text("import flowyml.graph.lines\ndrawn = flowyml.graph.lines.__name__\n")
    body = """
import sys; sys.path.append("lib")
import drawing
@step(timeout=240)
def drawn() -> str:
    return drawing.drawn
print(Pipeline("draws").add_step(drawn).run().raise_for_status()["drawn"])
"""
    assert printed_by(tmp_path, "uses_it.py", body) == "flowyml.graph.lines\n"


def test_a_script_that_is_started_by_a_link_finds_its_arguments_in_every_process(tmp_path: Path) -> None:
    body = """
import sys
@step(outputs=["here"])
def here() -> list[str]:
    return sys.argv[1:]
@step(timeout=240)
def apart(here: list[str]) -> list[list[str]]:
    return [here, sys.argv[1:]]
print(Pipeline("counts").add_step(here).add_step(apart).run().raise_for_status()["apart"])
"""
    assert printed_by(tmp_path, "release_7.py", body, "--rows", "7") == "[['--rows', '7'], ['--rows', '7']]\n"


def test_classes_of_a_script_are_found_here_and_on_its_workers(tmp_path: Path) -> None:
    """Packed in the script, read where the script is a module, packed there, and read in the script again."""
    script = tmp_path / "training.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, subprocess, sys
            from dataclasses import dataclass
            from flowyml.artifacts import open_store, pack, unpack
            from flowyml.artifacts.pickling import set_worker_main

            @dataclass
            class Config:
                rate: float

            def other_side(folder, packed):
                sys.path.insert(0, sys.argv[2])
                import training
                set_worker_main("training")
                store = open_store(folder)
                values = [unpack(item, store) for item in packed]
                assert all(type(value[0]) is training.Config for value in values), values
                print(json.dumps([pack(value, store, key=f"back-{n}") for n, value in enumerate(values)]))

            if __name__ == "__main__":
                store = open_store(sys.argv[1])
                # The second holds a lambda, so it goes by value, and Config still by name.
                values = [(Config(0.5), 1), (Config(0.5), lambda: Config(2.0))]
                packed = [pack(value, store, key=f"there-{n}") for n, value in enumerate(values)]
                code = "import sys, json, training; training.other_side(sys.argv[1], json.loads(sys.argv[3]))"
                other = [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[2]); {code}"]
                command = [*other, sys.argv[1], sys.argv[2], json.dumps(packed)]
                out = subprocess.run(command, capture_output=True, check=True).stdout
                back = [unpack(item, store) for item in json.loads(out)]
                assert back[0] == (Config(0.5), 1), back
                assert type(back[1][0]) is Config
                assert type(back[1][1]()) is Config
                assert "training" not in sys.modules
                print("same")
            """
        )
    )
    command = [sys.executable, str(script), str(tmp_path / "store"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr
