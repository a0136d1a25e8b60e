"""Code and files that a cached step depends on count wherever they are, and whatever leads to them."""

import ast
import py_compile
from pathlib import Path

import pytest

from flowyml.authoring import code_data
from flowyml.authoring.source_units import Unit
from flowyml.core.errors import StepError
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.projects import APART, Project, project_in


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return project_in(tmp_path, monkeypatch, APART)


F = "def f():\n    return 'old'\n"
MISLEADING = {
    "two imports of one name": (
        {"a.py": F, "b.py": F},
        "try:\n    from gone import f\nexcept ImportError:\n    from b import f\n", "f()", "b.py",
    ),
    "either of two imports": (
        {"a.py": F, "b.py": F},
        "import sys\nif sys.path:\n    import a as m\nelse:\n    import b as m\n", "m.f()", "a.py",
    ),
    "a name that is assigned beside its import": (
        {"a.py": F},
        "def g():\n    try:\n        from a import f\n    except ImportError:\n        f = None\n    return f()\n",
        "g()", "a.py",
    ),
    "a package that binds the name of its module": (
        {"pk/__init__.py": "from pk.impl import f\n", "pk/impl.py": F, "pk/f.py": ""},
        "import pk\nfrom pk import f\n", "f()", "pk/impl.py",
    ),
    "another name for import_module": (
        {"pk/__init__.py": "", "pk/impl.py": F},
        "from importlib import import_module as load\n", "load('.impl', 'pk').f()", "pk/impl.py",
    ),
    "the last of two stars": (
        {"a.py": F, "b.py": F}, "from a import *\nfrom b import *\n", "f()", "b.py",
    ),
    "a package that imports its modules when asked": (
        {"pk/__init__.py": "import importlib\n\ndef __getattr__(name):\n"
         "    return importlib.import_module(f'{__name__}.{name}')\n", "pk/impl.py": F},
        "import pk\n", "pk.impl.f()", "pk/impl.py",
    ),
    "a package whose modules a library's function makes": (
        {"pk/__init__.py": "from attaching import attach\n__getattr__, __dir__ = attach(__name__)\n", "pk/impl.py": F,
         "lib/attaching.py": "import sys\n\ndef attach(package):\n    def get(name):\n"
         "        return __import__(f'{package}.{name}', fromlist=['f'])\n    return get, dir\n"},
        "import pk\n", "pk.impl.f()", "pk/impl.py",
    ),
    "modules that a package lists": (
        {"pk/__init__.py": "import importlib, pkgutil\n\ndef f():\n    return ''.join(\n        "
         "importlib.import_module(f'pk.{found.name}').f() for found in pkgutil.iter_modules(__path__))\n",
         "pk/impl.py": F},
        "import pk\n", "pk.f()", "pk/impl.py",
    ),
    "a module whose name is made, of a package that a text names": (
        {"pk/__init__.py": "", "pk/impl.py": "from pk.deep import f\n", "pk/deep.py": F},
        "import importlib\n", "importlib.import_module(f\"pk.{'impl'}\").f()", "pk/deep.py",
    ),
    "a module whose name is in another module": (
        {"loader.py": "import importlib\n\ndef load(name):\n    return importlib.import_module(name).f()\n",
         "pk/__init__.py": "", "pk/impl.py": F},
        "from loader import load\n", "load('pk.impl')", "pk/impl.py",
    ),
    "a module whose name is made, of a package that is imported by its text": (
        {"pk/__init__.py": "", "pk/impl.py": F}, "", "__import__('pk', fromlist=['im' + 'pl']).impl.f()", "pk/impl.py",
    ),
    "a class whose name is in a pickle": (
        {"kinds.py": "class Kind:\n    def __repr__(self):\n        return 'old'\n"},
        "import pickle\n", "repr(pickle.loads(b'\\x80\\x04ckinds\\nKind\\n)R.'))", "kinds.py",
    ),
    "an import within, from another folder of sys.path": (
        {"lib/late.py": F}, "", "__import__('late').f()", "lib/late.py",
    ),
    "an import within, which imports from there": (
        {"lib/late.py": "from later import f\n", "lib/later.py": F}, "", "__import__('late').f()", "lib/later.py",
    ),
    "an import within, from a package that is a link": (
        {"lib/late.py": "", "lib/real/__init__.py": "", "lib/real/late.py": "from . import deep\n",
         "lib/real/deep.py": F},
        "", "__import__('link.late').late.deep.f()", "lib/real/deep.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISLEADING)
def test_code_counts_wherever_its_name_leads(project: Project, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, imports, call, edited = MISLEADING[case]
    monkeypatch.syspath_prepend(project.folder / "lib")
    (project.folder / "link").symlink_to("lib/real")
    project.write({**files, "used.py": imports + APART["used.py"].replace("repr(found)", call)})
    assert project.run()["work"] == "old"
    assert project.is_cached()
    project.edit(edited, "'old'", "'new'")
    assert project.run()["work"] == "new"


READ = "from pathlib import Path\n\nHERE = Path(__file__).parent\n\ndef read():\n    return {}.read_text()\n"
DATA = {
    "in a folder": ("data/d.txt", "(HERE / 'data' / 'd.txt')"),
    "in a folder, by one text": ("data/d.txt", "(HERE / 'data/d.txt')"),
    "in a folder whose name is in another module": ("data/d.txt", "(conf.DATA / 'd.txt')"),
    "with spaces": ("d of us.txt", "(HERE / 'd of us.txt')"),
    "beside a package": ("d.txt", "(inner.HERE.parent / 'd.txt')"),
    "in the working folder": ("cwd/d.txt", "Path('d.txt')"),
    "by a name that is made": ("data/d.txt", "(HERE / 'data' / ('d' + '.txt'))"),
    "by a name that begins in the text": ("data/d-1.txt", "Path(HERE, f'data/d-{HERE.exists():d}.txt')"),
    "joined to a folder by a slash": ("data/d.txt", "Path(f'{HERE}/data/d.txt')"),
    "by a name that is filled in": ("data/d-1.txt", "Path(HERE, 'data/d-{}.txt'.format(1))"),
    "by a name that is filled in by percent": ("d-1.txt", "Path(HERE, '%s-%1d.txt' % ('d', 1))"),
    "outside, by a name that is filled in": ("../away/d-1.txt", "Path('OUTSIDE/away/d-{}.txt'.format(1))"),
    "outside, by the beginning of a name": ("../away/d-1.txt", "Path('OUTSIDE/away/d-' + str(1) + '.txt')"),
    "outside, by a pattern": ("../away/d.txt", "next(Path('/').glob('OUTSIDE/away/*.txt'[1:]))"),
    "above the working folder, by percent": ("../away/d-1.txt", "Path('../../away/d-%d.txt' % 1)"),
    "above, by its parent": ("../away/d.txt", "(HERE.parent / 'away' / 'd.txt')"),
    "in a folder whose name is made": ("data/1/d.txt", "(HERE / 'data' / str(1) / 'd.txt')"),
    "by the beginning of a name alone": ("data/d-1", "Path(HERE, 'data', 'd-' + str(1))"),
    "outside, by the beginning in an f-string": ("../away/d1", "Path(f'OUTSIDE/away/d{HERE.exists():d}')"),
    "outside, in a list of folders": ("../away/1/d", "next(Path('OUTSIDE/away').glob('*/*'))"),
    "within a text": ("data/d.txt", "Path(HERE, 'from \"data/d.txt\"'.split('\"')[1])"),
    "by bytes": ("d.txt", "(HERE / b'd.txt'.decode())"),
    "by a pattern": ("d.txt", "next(HERE.glob('d*.txt'))"),
    "by a pattern of folders": ("data/b/d.txt", "next(HERE.glob('data/**/*.txt'))"),
    "in a list of a folder": ("data/b/d", "next(path for path in (HERE / 'data').rglob('*') if path.is_file())"),
    "in a list of a hidden folder": (".data/d", "next((HERE / '.data').iterdir())"),
    "hidden in a list of a folder": ("data/.d", "next((HERE / 'data').iterdir())"),
    "hidden, by a pattern": (".d.txt", "next(HERE.glob('*.txt'))"),
    "hidden folders in a list of a folder": ("data/.b/d", "next((HERE / 'data').glob('*/*'))"),
    "hidden, by its suffix in a walk": ("data/.b.txt", "next(HERE.rglob('*.txt'))"),
    "in a walk by descriptors": ("data/d", "(HERE / 'data' / next(__import__('os').fwalk(HERE / 'data'))[2][0])"),
    "of a package": ("pk/d.txt", "__import__('importlib.resources').resources.files('pk').joinpath('d.txt')"),
}  # fmt: skip


def test_a_long_sum_is_no_trouble_and_a_url_names_no_file_here() -> None:
    long = " + ".join(["'data/'", *(["part"] * 1200), "'.csv'"])
    assert Unit(ast.parse(long).body[0], ()).texts == {"data/", ".csv"}
    assert Unit(ast.parse("'data/' + part + '.csv'").body[0], ()).texts == {"data/", ".csv", "data/*.csv"}
    assert not Unit(ast.parse("url = 'https://example.org/x.csv'").body[0], ()).texts & {"//example.org/x.csv"}


@pytest.mark.parametrize("case", DATA)
def test_a_data_file_counts_wherever_it_is(project: Project, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, expression = DATA[case]
    expression = expression.replace("OUTSIDE", str(project.folder.parent))
    place = "pk/inner.py" if "inner" in expression else "reads.py"
    project.write({
        name: "old", "pk/__init__.py": "",
        "conf.py": "from pathlib import Path\nDATA = Path(__file__).parent / 'data'\n",
        "used.py": f"from {'pk.inner' if 'inner' in expression else 'reads'} import read\n"
        + APART["used.py"].replace("repr(found)", "read()"),
        place: ("import conf\n" if "conf" in expression else "") + READ.format(expression.replace("inner.", "")),
        "cwd/README": "",
    })  # fmt: skip
    monkeypatch.chdir(project.folder / "cwd")
    assert project.run()["work"] == "old"
    assert project.is_cached()
    project.write({"cwd/other": "a file that nothing names"})
    assert project.is_cached()
    project.write({name: "new"})
    assert project.run()["work"] == "new"
    (project.folder / name).unlink()
    with pytest.raises(StepError):
        project.run()


def test_a_compiled_module_counts_by_its_bytes(project: Project) -> None:
    def compiled(word: str) -> None:
        (project.folder / "given.py").write_text(F.replace("old", word))
        py_compile.compile(str(project.folder / "given.py"), str(project.folder / "given.pyc"), doraise=True)
        (project.folder / "given.py").unlink()

    used = APART["used.py"].replace("return repr(found)", "from given import f\n    return f()")
    project.write({**APART, "used.py": used})
    compiled("old")
    assert project.run()["work"] == "old"
    assert project.is_cached()
    compiled("new")
    assert project.run()["work"] == "new"


def test_a_pickle_reads_no_strangers_code(project: Project) -> None:
    """All modules beside count then: by their bytes, whether they are Python or not, with none of what they say."""
    strange = "from flowyml import current_run\nvars()\nNAMES = ['/', 'd.txt']\n"
    project.write({**APART, "used.py": "import pickle\n" + APART["used.py"], "a b/x.py": "no package", ".hid.py": ""})
    project.write({"broken.py": "def (", "strange.py": strange, "pk/__init__.py": "", "pk/deep/x.py": "("})
    (project.folder / "gone.py").symlink_to("nowhere.py")
    (project.folder / "d.txt").write_text("old")
    project.run()
    assert project.is_cached()
    project.write({"d.txt": "new", "a b/x.py": "still no package", ".hid.py": "1"})
    assert project.is_cached()
    for name in ("broken.py", "strange.py", "pk/deep/x.py", "pk/deep/more.py"):
        project.write({name: "def ["})
        assert not project.is_cached()
        assert project.is_cached()


def test_a_list_of_a_folder_stays_within(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is git's or behind a link does not count, nor more files than can be looked at."""
    away, behind = tmp_path_factory.mktemp("away"), tmp_path_factory.mktemp("behind")
    used = f"import glob\nLIST = glob.glob\nNAMES = ['data', '.git', '{away}', '/proc']\n"
    project.write({**APART, "used.py": used + APART["used.py"], "data/a": "1", ".git/a": "1", "data/.git/a": "1"})
    (project.folder / "data" / "link").symlink_to(behind)
    project.run()
    assert project.is_cached()
    project.write({".git/b": "2", "data/.git/b": "2", "data/__pycache__/b": "2"})
    (behind / "b").write_text("2")
    assert project.is_cached()
    for folder in (project.folder / "data", away):
        (folder / "b").mkdir()
        assert [project.is_cached(), project.is_cached()] == [False, True]
        (folder / "b" / "c").write_text("2")
        assert [project.is_cached(), project.is_cached()] == [False, True]
    monkeypatch.setattr(code_data, "_MOST_FILES", 2)
    code_data._searches.clear()
    project.run()
    project.write({"data/c": "2"})
    assert project.is_cached()


def test_what_stands_in_proc_or_cannot_be_read_is_no_trouble(project: Project) -> None:
    used = "NAMES = ['/proc/self/mem', '/proc/1/cwd', '/etc/shadow', '/', '..', '/dev/zero']\n"
    project.write({"used.py": used + APART["used.py"]})
    assert [project.is_cached(), project.is_cached()] == [False, True]


def test_files_that_a_dict_of_an_uncached_step_names_count(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    made = "[Path('t.csv').write_text(Path('ext' + 'ern').read_text()), {'train': [Path('t.csv')]}][1]"
    project.write({
        "rows.py": "from pathlib import Path\n" + APART["rows.py"].replace("list(range(3))", made),
        "used.py": APART["used.py"].replace("repr(found)", "found['train'][0].read_text()"),
    })  # fmt: skip
    for workers in ("threads", "processes"):
        for text in ("old", "new"):
            (tmp_path / "extern").write_text(text)
            assert project.run(on=LocalOrchestrator(workers=workers))["work"] == text


PICKLED = "import pickle\nfrom base64 import b64encode\nfrom kinds import Kind\n"
KIND = "class Kind:\n    def __repr__(self):\n        return 'old'\n"


@pytest.mark.parametrize(
    ("made", "used"),
    [
        ("Kind()", "repr(found)"),
        ("pickle.dumps(Kind())", "repr(pickle.loads(found))"),
        ("(Path('model.pkl').write_bytes(pickle.dumps(Kind())), Path('model.pkl'))[1]",
         "repr(pickle.loads(found.read_bytes()))"),
        ("b64encode(pickle.dumps(Kind())).decode()", "repr(pickle.loads(b64decode(found)))"),
        ("{'model': [b64encode(pickle.dumps(Kind())).decode()]}", "repr(pickle.loads(b64decode(found['model'][0])))"),
    ],
    ids=["object", "bytes", "file", "base64", "base64 in JSON"],
)  # fmt: skip
def test_code_that_comes_with_an_input_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: str, used: str
) -> None:
    """The step before pickles the same bytes, whatever the methods of the class are by now."""
    monkeypatch.chdir(tmp_path)
    rows = APART["rows.py"].replace("list(range(3))", made)
    project.write({
        "kinds.py": KIND, "rows.py": PICKLED + "from pathlib import Path\n" + rows,
        "used.py": "import pickle\nfrom base64 import b64decode\n" + APART["used.py"].replace("repr(found)", used),
    })  # fmt: skip
    assert project.run()["work"] == "old"
    assert project.is_cached()
    project.edit("kinds.py", "'old'", "'new'")
    assert project.run()["work"] == "new"


PATHS = {
    "flow.py": """
        from pathlib import Path
        from flowyml import pipeline, step

        @step(cache=True)
        def work(rows: Path, more: list[Path]) -> str:
            return "".join(file.read_text() for file in [*sorted(rows.glob("*.csv")), *more])

        @pipeline
        def flow(rows: Path, more: list[Path]):
            return work(rows, more)
    """,
}


def test_the_files_that_a_parameter_names_count_by_their_content(project: Project, tmp_path: Path) -> None:
    project.write(PATHS)
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.csv").write_text("a")
    (tmp_path / "more").write_text("more")
    given = {"rows": str(rows), "more": [str(tmp_path / "more")]}
    assert [project.is_cached(given), project.is_cached(given)] == [False, True]
    for file, text in {rows / "a.csv": "b", rows / "b.csv": "c", tmp_path / "more": "less"}.items():
        file.write_text(text)
        assert [project.is_cached(given), project.is_cached(given)] == [False, True]
    assert project.run(given)["work"] == "bcless"
    (rows / "b.csv").unlink()
    assert not project.is_cached(given)
    (rows / "empty").mkdir()
    assert not project.is_cached(given)


def test_the_file_that_a_value_of_a_typed_dict_names_counts(project: Project, tmp_path: Path) -> None:
    used = "from pathlib import Path\nfrom typing import TypedDict\n\nclass Where(TypedDict):\n    rows: Path\n\n"
    flow = APART["flow.py"].replace("flow():", "flow(where: dict[str, str]):").replace("source()", "where")
    work = APART["used.py"].replace("def work(found)", "def work(found: Where)")
    used += work.replace("repr(found)", "Path(found['rows']).read_text()")
    project.write({"flow.py": flow, "used.py": used})
    (tmp_path / "rows").write_text("old")
    assert project.run({"where": {"rows": str(tmp_path / "rows")}})["work"] == "old"
    (tmp_path / "rows").write_text("new")
    assert project.run({"where": {"rows": str(tmp_path / "rows")}})["work"] == "new"


def test_the_file_that_a_constant_names_counts(project: Project, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    rows, more = (f"Path({str(tmp_path / name)!r})" for name in ("rows", "more"))
    text = PATHS["flow.py"].replace("flow(rows: Path, more: list[Path])", "flow()")
    project.write({"flow.py": text.replace("work(rows, more)", f"work({rows}, [{more}])")})
    for content in ("one", "two"):
        (tmp_path / "more").write_text(content)
        assert [project.is_cached(), project.is_cached()] == [False, True]
    assert project.run()["work"] == "two"
