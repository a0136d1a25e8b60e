"""A process may run other code than its files say: edited, reloaded, replaced. Such results are not cached."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowyml.core.runs import PipelineResult
from tests.unit.projects import Project, project_in
from tests.unit.replacing import NEGATED, NINE, REPLACED, Kind

FLOW = """
from flowyml import pipeline, step
import accessors
import dynamic
import helper
import lazy
import reads
from helper import Kind, Shape, closure, scaled, registered

try:
    from fast import speed
except ImportError:
    speed = 0

@step(cache=True)
def work(x: int):
    from later import late
    with open(__file__.replace("flow.py", "rates.txt")) as file:
        rate = file.read()
    found = [scaled(x), helper.RATE, Kind().factor(), registered["one"](), accessors.library.shown(), speed, late()]
    return f"{found} {rate} {closure()} {Shape()} {lazy.made.made()} {dynamic.names()} {dynamic.loaded()} {reads.all()}"

@pipeline
def flow(x: int = 2):
    return work(x)
"""
HELPER = """
from dataclasses import dataclass

RATE = 1
registered = {}

def register(times):
    def decorate(function):
        registered[function.__name__] = lambda: function() * times
        return function
    return decorate

def scaled(x):
    return x + 1

class Kind:
    SIZE = 1
    def factor(self):
        return self.SIZE * 1

@register(1)
def one():
    return 1

def closing(number):
    def inner(more=3 * 1):
        return number + more
    return inner

closure = closing(10 + 1)

@dataclass
class Shape:
    sides: int = 20 + 1
"""
DYNAMIC = """
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parent / "data"

def names():
    return (FOLDER / "names.txt").read_text()

def loaded():
    return import_module(f"plugins.{'made'}").plugged()
"""
READS = """
import glob
from pathlib import Path

HERE, one = Path(__file__).parent, 1

def read(found):
    paths = [found] if isinstance(found, str | Path) else found
    return sorted((Path(path).name, Path(path).read_text() if Path(path).is_file() else "-") for path in paths)

def all():
    return [{}]
"""
FILES = {
    "flow.py": FLOW,
    "reads.py": READS.format(""),
    "helper.py": HELPER,
    "accessors.py": "import library\n\n@library.register\ndef shown():\n    return 1\n",
    "library.py": "def register(function):\n    global shown\n    shown = function\n    return function\n",
    "dynamic.py": DYNAMIC,
    "data/names.txt": "1",
    "plugins/__init__.py": "",
    "plugins/made.py": "def plugged():\n    return 1\n",
    "lazy/__init__.py": "import importlib\n\ndef __getattr__(name):\n"
    "    if name.startswith('_'):\n        raise AttributeError(name)\n"
    "    return importlib.import_module(f'{__name__}.{name}')\n",
    "lazy/made.py": "def made():\n    return 1\n",
    "later.py": "def late():\n    return 1\n",
    "rates.txt": "1",
}
EDITS = {
    "a constant": ("helper.py", "RATE = {}"),
    "a function": ("helper.py", "return x + {}"),
    "a class's attribute": ("helper.py", "SIZE = {}"),
    "a method": ("helper.py", "self.SIZE * {}"),
    "what a decorator is given": ("helper.py", "@register({})"),
    "what a decorator registers": ("accessors.py", "return {}"),
    "what is imported within": ("later.py", "return {}"),
    "a data file": ("rates.txt", "{}"),
    "a data file in a folder": ("data/names.txt", "{}"),
    "a module that a package imports when asked": ("lazy/made.py", "return {}"),
    "a module whose name is made": ("plugins/made.py", "return {}"),
    "what a closure holds": ("helper.py", "closing(10 + {})"),
    "a default": ("helper.py", "more=3 * {}"),
    "a dataclass's field": ("helper.py", "sides: int = 20 + {}"),
}
GLOBALS = "def register(function):\n    globals()['shown'] = function\n    return function\n"


class Living:
    """This process, which keeps the modules of a project, and fresh ones, forked from one that has none of them."""

    def __init__(self, project: Project, fresh: subprocess.Popen[str], files: Mapping[str, str] = FILES) -> None:
        self.project, self.fresh = project, fresh
        project.write(files)
        sys.path.insert(0, str(project.folder))
        importlib.invalidate_caches()
        self.flow: Any = importlib.import_module("flow")

    def run(self) -> PipelineResult:
        """The result in this process; what was taken from the cache is what the function returns."""
        result: PipelineResult = self.flow.flow.run().raise_for_status()
        assert result["work"] == self.flow.work(2), result.step_results["work"].cached_from
        return result

    def is_cached_afresh(self) -> bool:
        """Whether a fresh process takes the result from the cache, which then is what the function returns."""
        assert self.fresh.stdin
        assert self.fresh.stdout
        self.fresh.stdin.write("run\n")
        self.fresh.stdin.flush()
        found, wanted, is_cached = json.loads(self.fresh.stdout.readline())
        assert found == wanted
        return bool(is_cached)

    def end(self) -> None:
        sys.path.remove(str(self.project.folder))
        self.project.forget()


FRESH = """
import json, os, sys
import flowyml, flowyml.orchestrators.local.orchestrator, flowyml.orchestrators.local.run
sys.path.insert(0, sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if not child:
        import flow
        result = flow.flow.run()
        print(json.dumps([result["work"], flow.work(2), result.step_results["work"].is_cached]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return project_in(tmp_path, monkeypatch, FILES)


@pytest.fixture
def fresh(project: Project) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", FRESH, str(project.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:  # fmt: skip
        yield process


@pytest.fixture
def living(project: Project, fresh: subprocess.Popen[str]) -> Iterator[Living]:
    living = Living(project, fresh)
    try:
        yield living
    finally:
        living.end()


@pytest.mark.parametrize(
    ("edited", "reloads"),
    [("a function", True), ("a method", False), ("a constant", False), ("what a decorator is given", True)],
)
def test_what_was_imported_before_an_edit_is_neither_kept_nor_taken(
    living: Living, caplog: pytest.LogCaptureFixture, edited: str, reloads: bool
) -> None:
    assert not living.run().step_results["work"].is_cached
    assert living.run().step_results["work"].is_cached
    name, text = EDITS[edited]
    living.project.edit(name, text.format(1), text.format(5))
    if reloads:
        importlib.reload(sys.modules["helper"])
    caplog.clear()
    assert not living.run().step_results["work"].is_cached
    (line,) = {record.getMessage() for record in caplog.records}
    assert line.startswith("step 'work' is not cached: ")
    assert not living.is_cached_afresh()
    assert living.is_cached_afresh()
    assert not living.run().step_results["work"].is_cached, "there is one now, of other code"
    importlib.reload(sys.modules["helper"])
    living.flow = importlib.reload(living.flow)
    assert living.run().step_results["work"].is_cached


def test_a_helper_that_was_edited_before_the_step_was_defined_is_another_matter(
    project: Project, fresh: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: the cell of the import, an edit, the cell of the step."""
    monkeypatch.syspath_prepend(project.folder)
    importlib.import_module("helper")
    edited = {**FILES, "helper.py": HELPER.replace("return x + 1", "return x + 5")}
    living = Living(project, fresh, edited)
    try:
        living.run()
        assert not living.is_cached_afresh()
    finally:
        living.end()


def test_what_was_registered_before_an_edit_counts_where_a_step_imports_it(
    project: Project, fresh: subprocess.Popen[str]
) -> None:
    """The code of its functions is the same, and the library has kept the old number."""
    late = "import library\n\n@library.at(1)\ndef late():\n    return library.number\n"
    at = "\ndef at(value):\n    global number\n    number = value\n    return lambda function: function\n"
    living = Living(project, fresh, {**FILES, "later.py": late, "library.py": FILES["library.py"] + at})
    try:
        living.run()
        living.run()  # the first run gave the library its number
        assert living.run().step_results["work"].is_cached
        project.edit("later.py", "at(1)", "at(2)")
        living.run()
        assert not living.is_cached_afresh()
    finally:
        living.end()


def test_what_is_replaced_or_changed_in_this_process_counts(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    living.run()
    helper = sys.modules["helper"]
    for name, value in {"RATE": 7, "scaled": NEGATED, "registered": {"one": NINE}}.items():
        with monkeypatch.context() as patched:
            patched.setattr(helper, name, value)
            patched.setattr(living.flow, name, value, raising=False)
            assert not living.run().step_results["work"].is_cached
        assert living.run().step_results["work"].is_cached

    for name, value in {"SIZE": 8, "factor": Kind.factor, "new": 3}.items():
        with monkeypatch.context() as patched:
            patched.setattr(helper.Kind, name, value, raising=False)
            assert not living.run().step_results["work"].is_cached
        assert living.run().step_results["work"].is_cached


def test_results_with_a_mock_are_neither_kept_nor_taken(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mocks look alike, so not even a later one may find the result of the first."""
    helper = sys.modules["helper"]
    for place, name in ((helper.Kind, "factor"), (helper, "scaled"), (living.flow, "scaled")):
        for value in (5, 7):
            with monkeypatch.context() as patched:
                patched.setattr(place, name, Mock(return_value=value))
                assert not living.run().step_results["work"].is_cached
    assert not living.is_cached_afresh()


REACHING = """
import sys
import helper
from flowyml import pipeline, step

RATE = 1

@step(cache=True)
def work(x: int):
    m, h, rate = sys.modules[__name__], helper, "RA" + "TE"
    return {found}

@pipeline
def flow(x: int = 2):
    return work(x)
"""


def test_what_code_reaches_without_writing_its_name_counts(living: Living) -> None:
    """A value that the ``__main__`` block set was kept under the key of the file, and handed to other processes."""
    for found, changed in {
        "globals()[rate]": "flow.RATE",
        "eval(rate)": "flow.RATE",
        "vars(m)[rate]": "flow.RATE",
        "getattr(h, rate)": "helper.RATE",
        "getattr(h, 'RATE')": "helper.RATE",
        "getattr(m, 'NEW' * (x // 2), 0)": "flow.NEW",
    }.items():
        living.project.write({"flow.py": REACHING.replace("{found}", found)})
        del sys.modules["flow"]
        living.flow = importlib.import_module("flow")
        module, _, name = changed.partition(".")
        for value in (98, 99):
            setattr(sys.modules[module], name, value)
            assert not living.run().step_results["work"].is_cached, found
            assert living.run().step_results["work"].is_cached, found
        assert not living.is_cached_afresh(), found
        assert living.is_cached_afresh(), found


LAZY = """
from pathlib import Path
from flowyml import pipeline, step

@step
def edits(folder: str):
    file = Path(folder) / "edited.py"
    file.write_text(file.read_text().replace("'old'", "'new'"))

@step(cache=True, after=["edits"])
def uses():
    import edited
    return edited.f()

@pipeline
def flow(folder: str):
    edits(folder)
    return uses()
"""


def test_code_that_changes_while_the_run_goes_on_is_not_kept(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.write({"flow.py": LAZY, "edited.py": "def f():\n    return 'old'\n"})
    parameters = {"folder": str(project.folder)}
    assert project.run(parameters)["uses"] == "new"
    assert (
        "step 'uses' is not cached: its code, or a file that it names, has changed since the run began" in caplog.text
    )
    project.write({"edited.py": "def f():\n    return 'old'\n"})
    assert not project.run(parameters).step_results["uses"].is_cached


def test_a_module_that_an_import_did_not_find_counts_when_it_is_there(living: Living) -> None:
    living.is_cached_afresh()
    assert living.is_cached_afresh()
    (living.project.folder / "fast.py").write_text("speed = 9\n")
    assert not living.is_cached_afresh()
    assert not living.run().step_results["work"].is_cached, "this process has not imported it"


FOLDERS = ("d", "../away", "AWAY")
NAMES = (
    "'{}/a.csv'", "f'{}/part-{{one}}'", "'{}/part-' + str(one)", "'{}/part-%d' % one", "'{}/part-{{}}'.format(one)",
    "f'{}/{{one}}/a.csv'", "f'{}/{{one}}.csv'", "glob.glob('{}/*.csv')", "glob.glob('{}/*/a.csv')", "glob.glob('{}/*')",
)  # fmt: skip
PATHS = (
    "Path('d')", "(HERE / 'd')", "Path('../away')", "(Path('..') / 'away')", "(HERE.parent / 'away')",
    "(HERE / '..' / 'away')", "Path('AWAY')", "Path(f'{HERE}/../away')",
)  # fmt: skip
BELOW = (
    " / 'a.csv'", " / f'part-{one}'", " / str(one) / 'a.csv'", ".joinpath('1', 'part')", ".glob('*.csv')",
    ".rglob('*.csv')", ".iterdir()",
)  # fmt: skip
WAYS = [
    *(name.format(folder) for folder in FOLDERS for name in NAMES),
    *(path + below for path in PATHS for below in BELOW),
]
"""Ways in which code leads to data files."""
DATA = ("a.csv", "1.csv", "part-1", "1/a.csv", "1/part", "b")

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(EDITS)), st.integers(1, 3)),
        st.tuples(
            st.just("reload"),
            st.sampled_from(["helper", "accessors", "dynamic", "flow", "later", "lazy", "lazy.made", "plugins.made"]),
        ),
        st.tuples(st.sampled_from(sorted(REPLACED)), st.integers(1, 3)),
        st.just(("find fast", 0)),
        st.tuples(st.just("write"), st.sampled_from(DATA)),
        st.tuples(st.just("remove"), st.sampled_from(DATA)),
    ),
    min_size=2,
    max_size=6,
)


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("FLOWYML_CACHE_EXAMPLES", "10")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(library=st.sampled_from([FILES["library.py"], GLOBALS]), way=st.sampled_from(WAYS), steps=STEPS)
def test_a_hit_is_what_a_fresh_process_computes(
    project: Project, fresh: subprocess.Popen[str], library: str, way: str, steps: list[tuple[str, Any]]
) -> None:
    """However a project was edited, reloaded and patched since, and its data written, here and in fresh processes."""
    (project.folder / "fast.py").unlink(missing_ok=True)
    folders = [project.folder / folder for folder in FOLDERS[:2]]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "1").mkdir(parents=True)
    reads = READS.replace("{}", f"read({way})").replace("AWAY", str(project.folder.parent / "away"))
    living = Living(project, fresh, {**FILES, "library.py": library, "reads.py": reads})
    texts = dict(FILES)
    values = dict.fromkeys(EDITS, 1)
    try:
        for number, (what, value) in enumerate(steps):
            if what in EDITS:
                name, text = EDITS[what]
                texts[name] = texts[name].replace(text.format(values[what]), text.format(value), 1)
                values[what] = value
                (project.folder / name).write_text(texts[name])
            elif what == "reload":
                if value in sys.modules:
                    importlib.reload(sys.modules[value])
            elif what in REPLACED:
                REPLACED[what](sys.modules["helper"], value)
            elif what == "write":
                for folder in folders:
                    (folder / value).write_text(str(number))
            elif what == "remove":
                for folder in folders:
                    (folder / value).unlink(missing_ok=True)
            else:
                (project.folder / "fast.py").write_text("speed = 1\n")
            living.run()
            living.is_cached_afresh()
        assert living.is_cached_afresh(), "nothing has changed since"
    finally:
        living.end()
