"""What changes the result of a step makes its cached results count no more, and what does not leaves them."""

import ast
import hashlib
import importlib
import os
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from flowyml.authoring.module_files import found_module
from flowyml.authoring.source_units import text_of
from flowyml.core.modules import is_installed
from tests.unit.projects import APART, Project, project_in

FILES = {
    "flow.py": """
        import os
        from functools import wraps

        import helpers
        import naming
        import pkg.part
        from flowyml import Cache, pipeline, step
        from models import Scaler
        from registry import plugins

        # how many
        LIMIT = 5
        FACTORS = {"a": 1, "b": [2, 3]}
        COMPUTED = sum([1, 2])


        class Shape:
            SIDES = 4

            def area(self, side):
                return side * self.SIDES


        def times(number):
            def decorate(function):
                @wraps(function)
                def inner(*args, **kwargs):
                    return [function(*args, **kwargs)] * number
                return inner
            return decorate


        def made(plus):
            def add(value):
                return value + plus
            return add


        add_plus = made(10)


        def other(rows):
            return rows


        @step
        def source(rows: int) -> list[int]:
            return list(range(rows))


        @step(cache=Cache(environment=["FLOW_REGION"], version=1))
        @times(2)
        def work(values: list[int], rate: float, extra=3, more=LIMIT):
            from lazily import late
            total = sum(values) * rate + extra + more + LIMIT + FACTORS["a"] + COMPUTED
            return [
                total, helpers.clean(values), pkg.part.part(), Shape().area(2), add_plus(1), late(),
                Scaler(2).scaled(1), sorted(plugins), os.environ.get("FLOW_REGION"), 0xFF, 'text',
                naming.named(),
            ]


        @step
        def later(found):
            return found


        @pipeline(include=["*.csv"])
        def flow(rows: int = 4, rate: float = 0.5):
            return later(work(source(rows), rate))


        if __name__ == "__main__":
            flow.run()
    """,
    "helpers.py": """
        from deep import *
        import patches


        def clean(values):
            return [deeper(value) for value in values]


        def unused():
            return 1
    """,
    "deep.py": "DEEP = 1\n\n\ndef deeper(value):\n    return value + DEEP\n\n\ndef not_used():\n    return 2\n",
    "patches.py": "import deep\n\ndeep.LEVEL = 1\n",
    "lazily.py": "def late():\n    return 'late'\n",
    "models.py": """
        class Base:
            def scaled(self, value):
                return value * self.factor


        class Scaler(Base):
            def __init__(self, factor: float) -> None:
                self.factor = factor
    """,
    "registry.py": """
        plugins = {}


        def plugin(function):
            plugins[function.__name__] = function
            return function


        @plugin
        def one():
            return 1
    """,
    "pkg/__init__.py": "",
    "pkg/part.py": "from .inner import VALUE\n\n\ndef part():\n    return VALUE\n",
    "pkg/inner.py": "VALUE = 1\n",
    "naming.py": """
        import importlib


        def named():
            return importlib.import_module("plugged").plug()
    """,
    "plugged.py": "def plug():\n    return 1\n",
    "table.csv": "a,b\n",
}  # fmt: skip

CHANGES = {
    "the function": ("flow.py", "+ extra +", "- extra +"),
    "a default argument": ("flow.py", "extra=3", "extra=4"),
    "a global constant": ("flow.py", "LIMIT = 5", "LIMIT = 6"),
    "a part of a global dict": ("flow.py", '"b": [2, 3]', '"b": [2, 4]'),
    "a global that is computed": ("flow.py", "sum([1, 2])", "sum([1, 3])"),
    "a class attribute": ("flow.py", "SIDES = 4", "SIDES = 3"),
    "a method": ("flow.py", "side * self.SIDES", "side + self.SIDES"),
    "what a decorator is given": ("flow.py", "@times(2)", "@times(3)"),
    "a decorator": ("flow.py", "[function(*args, **kwargs)] * number", "[function(*args, **kwargs)] + [number]"),
    "what a closure holds": ("flow.py", "made(10)", "made(11)"),
    "the function with the closure": ("flow.py", "value + plus", "value - plus"),
    "an annotation": ("flow.py", "rate: float, extra", "rate: int, extra"),
    "a number in the text": ("flow.py", "0xFF", "0xFE"),
    "a text": ("flow.py", "'text'", "'Text'"),
    "the version": ("flow.py", "version=1", "version=2"),
    "a helper": ("helpers.py", "for value in values]", "for value in values[1:]]"),
    "a helper of a helper, by a star": ("deep.py", "value + DEEP", "value - DEEP"),
    "a constant of a helper of a helper": ("deep.py", "DEEP = 1", "DEEP = 2"),
    "a module that changes another": ("patches.py", "LEVEL = 1", "LEVEL = 2"),
    "what is imported within": ("lazily.py", "'late'", "'later'"),
    "a base class": ("models.py", "value * self.factor", "value + self.factor"),
    "an imported class": ("models.py", "self.factor = factor", "self.factor = -factor"),
    "a function that a registry collects": ("registry.py", "return 1", "return 2"),
    "one more in a registry": ("registry.py", "def one():", "def two():\n    return 2\n\n\n@plugin\ndef one():"),
    "a relative import": ("pkg/inner.py", "VALUE = 1", "VALUE = 2"),
    "a package": ("pkg/__init__.py", "", "import os\nos.environ.setdefault('FLOW_X', '1')\n"),
    "a module that a text names": ("plugged.py", "return 1", "return 2"),
    "a data file": ("table.csv", "a,b", "a,c"),
    "another function": ("flow.py", "def other(rows):\n    return rows", "def other(rows):\n    return rows + 1"),
    "a function of a helper that is not used": ("helpers.py", "return 1", "return 3"),
    "the order of definitions": (
        "deep.py",
        "DEEP = 1\n\n\ndef deeper(value):\n    return value + DEEP\n",
        "def deeper(value):\n    return value + DEEP\n\n\nDEEP = 1\n",
    ),
    "the output's name": ("flow.py", "version=1))", 'version=1), outputs=["found"])'),
}  # fmt: skip

SAME = {
    "a comment": ("flow.py", "# how many", "# how many there are"),
    "white space": ("flow.py", "sum(values) * rate + extra", "sum( values )  *  rate+extra"),
    "lines": ("flow.py", "\n\ndef other(rows):", "\n\n\n\n# more\n\ndef other(rows):"),
    "parentheses and quotes": ("flow.py", "total, helpers.clean(values)", "(total), (helpers.clean(values))"),
    "how a text is quoted": ("flow.py", "'text'", '"text"'),
    "how a number is written": ("flow.py", "0xFF", "255"),
    "a trailing comma": ("flow.py", "@times(2)", "@times(2,)"),
    "another step": ("flow.py", "    return found", "    return [found]"),
    "the pipeline": ("flow.py", "def flow(rows: int = 4,", "def flow(rows: int = 2 + 2,"),
    "the main block": ("flow.py", "    flow.run()", "    print(flow.run())"),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("FLOW_REGION", "eu")
    return project_in(tmp_path, monkeypatch, FILES)


@pytest.mark.slow
def test_every_change_of_what_a_step_depends_on_makes_it_run(project: Project) -> None:
    assert not project.is_cached()
    assert project.is_cached()
    wrong = []
    for what, (name, old, new) in CHANGES.items():
        project.edit(name, old, new)
        if project.is_cached():
            wrong.append(what)
        project.restore(name)
    assert not wrong
    assert project.is_cached()


def test_what_changes_nothing_leaves_it_cached(project: Project) -> None:
    project.run()
    wrong = []
    for what, (name, old, new) in SAME.items():
        project.edit(name, old, new)
        if not project.is_cached():
            wrong.append(what)
        project.restore(name)
    assert not wrong


def test_parameters_inputs_and_the_environment_count(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.run()
    assert not project.is_cached({"rate": 0.25})
    assert not project.is_cached({"rows": 5})
    assert project.is_cached({"rows": 5})
    monkeypatch.setenv("FLOW_REGION", "us")
    assert not project.is_cached()
    monkeypatch.setenv("FLOW_REGION", "eu")
    assert project.is_cached()


def test_an_input_counts_by_its_content(project: Project) -> None:
    project.run()
    project.edit("flow.py", "return list(range(rows))", "return [*range(rows)]")
    assert project.is_cached(), "the step before gave the same"
    project.edit("flow.py", "return list(range(rows))", "return [1, *range(rows)]")
    assert not project.is_cached()


def test_the_dates_of_a_run_count_under_any_name(project: Project) -> None:
    used = "from flowyml import current_run as now\n" + APART["used.py"].replace("repr(found)", "str(now().run_id)")
    project.write({**APART, "used.py": used})
    project.run()
    assert not project.is_cached()


@pytest.mark.filterwarnings("ignore:registration of accessor")
def test_code_that_an_installed_library_registers_counts(project: Project) -> None:
    accessor = (
        "import pandas as pd\n\n@pd.api.extensions.register_series_accessor('shown')\nclass Shown:\n"
        "    def __init__(self, series):\n        self.series = series\n\n"
        "    def text(self):\n        return f'old {len(self.series)}'\n"
    )
    used = "import accessor\nimport pandas as pd\n" + APART["used.py"]
    project.write({
        **APART, "accessor.py": accessor, "used.py": used.replace("repr(found)", "pd.Series(found).shown.text()"),
    })  # fmt: skip
    assert project.run()["work"] == "old 3"
    assert project.is_cached()
    project.edit("accessor.py", "'old", "'new")
    assert project.run()["work"] == "new 3"


@pytest.mark.parametrize(
    "imports",
    [
        "import os\nimport pytest\n\ntry:\n    import yaml, nowhere\nexcept ImportError:\n    yaml = None\n",
        "from importlib import import_module\ngo = lambda: [*map(import_module, ['yaml', 'pytest.x', 'no', 'data'])]\n",
        "from importlib import metadata, util\nutil.find_spec('yaml')\nmetadata.version('pytest')\n",
        "__import__('yaml', __import__('pytest').__name__)\n",
    ],
)
def test_the_distributions_that_the_code_imports_count(project: Project, imports: str) -> None:
    project.write({
        **APART, "used.py": imports + APART["used.py"], "data/rows.csv": "",
        "mine.egg-info/PKG-INFO": "Name: mine\nVersion: 1\n", "mine.egg-info/top_level.txt": "data\n",
    })  # fmt: skip
    sys.path.insert(0, str(project.folder))
    try:
        plan = importlib.import_module("flow").flow.compile()
    finally:
        sys.path.remove(str(project.folder))
        project.forget()
    assert [name.lower() for name in plan.by_name["work"].caching.packages] == ["pyyaml", "pytest"]


def test_a_package_in_a_zip_file_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Spark and Glue have them."""
    with ZipFile(project.folder / "libs.zip", "w") as archive:
        archive.writestr("zipped_lib.py", "")
        archive.writestr("zip_lib-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zip-lib\nVersion: 1.0\n")
        archive.writestr("zip_lib-1.0.dist-info/top_level.txt", "zipped_lib\n")
    monkeypatch.syspath_prepend(project.folder / "libs.zip")
    project.write({**APART, "used.py": "import zipped_lib\n" + APART["used.py"]})
    monkeypatch.syspath_prepend(project.folder)
    try:
        plan = importlib.import_module("flow").flow.compile()
    finally:
        project.forget()
    assert "zip-lib" in plan.by_name["work"].caching.packages


def test_the_name_of_a_folder_does_not_count(project: Project, tmp_path: Path) -> None:
    project.run()
    project.folder = project.folder.rename(tmp_path / "elsewhere")
    assert project.is_cached()


def test_a_file_that_was_saved_after_its_import_is_another_matter(project: Project) -> None:
    """This process runs the old code, whatever the file says by now: that is not the result of the new code."""
    sys.path.insert(0, str(project.folder))
    try:
        flow = importlib.import_module("flow")
        project.edit("deep.py", "value + DEEP", "value - DEEP")
        assert not flow.flow.run().step_results["work"].is_cached
        project.forget()
    finally:
        sys.path.remove(str(project.folder))
    assert not project.is_cached()
    os.utime(project.folder / "deep.py", (1, 1))
    assert project.is_cached()


def test_the_text_of_code_is_the_same_in_every_python() -> None:
    """A key that is made by one Python is found by another. Their syntax trees differ in details."""
    source = """
@decorated(1, key=[*values])
def work(value: "int" = 0x10, *, more: T | None = None) -> f"{x!r:>{width}}" : ...
"""
    text = text_of(ast.parse(source).body[0])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9a980bbd7a848b6e"


def test_an_engine_that_is_installed_from_a_checkout_counts_by_its_version() -> None:
    import flowyml_prefect

    assert not is_installed(Path(str(flowyml_prefect.__file__)))
    assert found_module("flowyml_prefect", None) is None
    assert found_module("tests.unit.test_cache_changes", None) is not None
