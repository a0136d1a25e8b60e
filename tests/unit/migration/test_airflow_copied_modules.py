"""The modules of a repository that imported pipelines still import come along, where these find them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from tests.unit.commands import flowyml

FLOW = """
from airflow.sdk import DAG, task
from {module} import {name}

with DAG("{dag}", schedule=None):
    @task
    def shout() -> str:
        return {name}("a")
    shout()
"""


UP = "def up(text): return text.upper()\n"


def repository(folder: Path, files: dict[str, str]) -> Path:
    root = folder / "repository"
    (root / ".git").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content), encoding="utf-8")
    return root


def flow(dag: str, module: str, name: str) -> str:
    return FLOW.format(dag=dag, module=module, name=name)


def imported(root: Path, *more: str) -> Any:
    return flowyml(
        "import", "airflow", str(root / "dags"), "-o", str(root / "out"), "--report", str(root / "report"), *more
    )


def report(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "report/report.json").read_text())
    return found


def copies(root: Path) -> dict[str, str]:
    return {each["name"]: each["copy"] for file in report(root)["files"] for each in file["modules"]}


def written(root: Path) -> Path:
    """Where the module of ``dags/flow.py`` is."""
    (path,) = (root / "out").rglob("flow.py")
    return path


def test_what_moved_code_imports_comes_along_unchanged(tmp_path: Path) -> None:
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "lib.words", "up"),
        "dags/lib/words.py": "# ours\r\nfrom .deep import louder\n\ndef up(text):\n    return louder(text)\n",
        "dags/lib/deep.py": "def louder(text):\n    from common import MARK\n    return text.upper() + MARK\n",
        "dags/lib/unused.py": "",
        "common/__init__.py": "MARK = '!'\n",
    })  # fmt: skip
    done = imported(root)
    assert "3 modules of the repository that pipelines import copied below" in done.out
    beside = written(root).parent
    assert (beside / "lib/words.py").read_bytes() == (root / "dags/lib/words.py").read_bytes()
    assert not (beside / "lib/unused.py").exists()
    assert "'A!'" in flowyml("run", str(written(root))).out
    assert copies(root).keys() == {"lib.words", "lib.deep", "common"}
    assert "it is copied, since pipelines import it" in (root / "report/report.md").read_text()
    assert imported(root).code == 0, "its own copies are not in its way"


def test_what_only_the_import_evaluates_stays_behind(tmp_path: Path) -> None:
    text = """
    from airflow.sdk import DAG
    from airflow.operators.bash import BashOperator
    from lib.tables import TABLES
    with DAG("d", schedule=None):
        for table in TABLES:
            BashOperator(task_id=table, bash_command="true")
    """
    root = repository(tmp_path, {"dags/flow.py": text, "dags/lib/tables.py": "TABLES = ['a', 'b']\n"})
    assert "copied" not in imported(root).out
    assert [path.name for path in written(root).parent.iterdir()] == ["flow.py"]


def test_what_airflow_imports_by_its_name_is_said(tmp_path: Path) -> None:
    text = """
    from airflow.sdk import DAG, task
    from common.alerts import page
    with DAG("d", schedule=None):
        @task(on_failure_callback=page)
        def a(): ...
        a()
    """
    root = repository(tmp_path, {"dags/flow.py": text, "common/alerts.py": "def page(context): ...\n"})
    imported(root)
    (module,) = [each for file in report(root)["files"] for each in file["modules"]]
    assert (module["name"], module["path"], module["line"]) == ("common.alerts", "dags/flow.py", 3)
    assert module["reason"] == "Airflow imports it by its name, and not from the bundle"
    assert (written(root).parent / "common/alerts.py").exists()


@pytest.mark.parametrize("words", ["from airflow.models import Variable", "from lib import inner"])
def test_a_step_needs_airflow_if_a_module_that_it_uses_does(tmp_path: Path, words: str) -> None:
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "lib.words", "up"),
        "dags/lib/words.py": f"{words}\ndef up(text): return text\n",
        "dags/lib/inner.py": "import airflow\n",
    })  # fmt: skip
    assert "0 of 1 DAG run on any engine, 1 on Airflow only" in imported(root).out
    (dag,) = report(root)["files"][0]["dags"]
    assert "which imports airflow" in dag["notes"][0]["reason"]
    assert flowyml("compile", str(written(root)), "--to", "airflow").code == 0, "it loads without Airflow"


def test_what_needs_airflow_when_it_is_loaded_takes_nothing_else_along(tmp_path: Path) -> None:
    text = """
    from airflow.sdk import DAG, Variable, task
    from lib import other, pure
    with DAG("d", schedule=None):
        @task
        @other.logged
        def decorated(): ...
        @task
        def default(x=Variable.get("x", default_var=1)): ...
        decorated(), default()
    with DAG("e", schedule=None):
        @task
        def plain() -> int:
            return pure.ONE
        plain()
    """
    root = repository(tmp_path, {
        "dags/flow.py": text, "dags/lib/other.py": "import airflow\ndef logged(f): return f\n",
        "dags/lib/pure.py": "ONE = 1\n",
    })  # fmt: skip
    done = imported(root)
    assert "1 of 2 DAGs runs on any engine, 0 on Airflow only, 1 needs a hand" in done.out
    for name in ("other", "Variable"):
        assert f"its decorators or defaults use {name}, which needs Airflow when the module is loaded" in done.out
    assert flowyml("run", f"{written(root)}:e").code == 0


def test_types_and_what_may_be_missing_need_nothing(tmp_path: Path) -> None:
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "lib", "up"),
        "dags/lib.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from airflow.sdk import Context
        try:
            import orjson
        except ImportError:
            orjson = None
        def up(text): return text
        """,
    })  # fmt: skip
    done = imported(root)
    assert "1 of 1 DAG runs on any engine" in done.out
    assert "orjson" not in done.err
    assert copies(root) == {"lib": copies(root)["lib"]}


def test_what_is_not_there_is_said_by_its_line(tmp_path: Path) -> None:
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "lib.words", "up"),
        "dags/lib/__init__.py": "",
        "dags/lib/words.py": "import pandas\nimport lib.gone\ndef up(text): return text\n",
    })  # fmt: skip
    done = imported(root)
    assert "pandas (dags/lib/words.py:1): not below the root that was read" in " ".join(done.err.split())
    assert "dags/lib/words.py:2: module lib.gone: it is not in the repository" in done.out
    assert "1 needs a hand" in done.out


def test_a_copy_replaces_no_other_file(tmp_path: Path) -> None:
    root = repository(tmp_path, {"dags/flow.py": flow("d", "lib", "up"), "dags/lib.py": UP})
    imported(root)
    copy = written(root).parent / "lib.py"
    copy.write_text("mine = 1\n")
    refused = imported(root)
    assert "lib.py is there, and differs from the module whose copy goes there" in " ".join(refused.err.split())
    assert copy.read_text() == "mine = 1\n"
    assert imported(root, "--force").code == 0
    assert "def up" in copy.read_text()


def test_a_module_of_pipelines_stays_where_another_imports_from_it(tmp_path: Path) -> None:
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "other", "up"),
        "dags/other.py": flow("e", "string", "capwords") + "\ndef up(text): return text\n",
    })  # fmt: skip
    done = imported(root)
    assert "dags/flow.py:3: module other: pipelines are written from it to dags/other.py, without up" in done.out
    assert "Written by" in (written(root).parent / "other.py").read_text()


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(UP)
    root = repository(tmp_path, {"dags/flow.py": flow("d", "lib", "up")})
    (root / "dags/lib.py").symlink_to(tmp_path / "secret.py")
    assert "lib (dags/flow.py:3): not below the root" in " ".join(imported(root).err.split())
    assert not (written(root).parent / "lib.py").exists()


def test_a_copy_that_makes_a_package_of_a_folder_moves_what_is_beside_its_pipelines(tmp_path: Path) -> None:
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "team.words", "up"),
        "dags/team/__init__.py": "",
        "dags/team/words.py": UP,
        "dags/team/second.py": flow("e", "low", "down"),
        "dags/low.py": "def down(text): return text.lower()\n",
    })  # fmt: skip
    imported(root)
    for name in ("flow.py", "second.py"):
        (path,) = (root / "out").rglob(name)
        assert flowyml("run", str(path)).code == 0


@pytest.mark.parametrize("guard", ["with suppress(ImportError):", "with contextlib.suppress(ImportError, OSError):"])
def test_what_a_module_can_do_without_is_not_named_as_missing(tmp_path: Path, guard: str) -> None:
    """The file's own, and pydantic, which the written module asks for on behalf of FlowyML."""
    root = repository(tmp_path, {"dags/flow.py": f"""
        import contextlib
        from contextlib import suppress
        from airflow.sdk import DAG, Param, task

        {guard}
            import fast_lane

        with DAG("d", schedule=None, params={{"limit": Param(1, type="integer", minimum=1)}}):
            @task
            def shout() -> str:
                return str(fast_lane)
            shout()
    """})  # fmt: skip
    done = imported(root)
    assert "pydantic" in written(root).read_text()
    assert "not copied" not in done.err


def test_a_dag_file_of_windows_becomes_a_module(tmp_path: Path) -> None:
    root = repository(tmp_path, {"dags/flow.py": "", "dags/words.py": UP})
    text = "# -*- coding: cp1252 -*-\n# für Köln\n" + flow("d", "words", "up").replace('"a"', '"ä"')
    (root / "dags/flow.py").write_bytes(text.replace("\n", "\r\n").encode("cp1252"))
    (root / "dags/marked.py").write_bytes(b"\xef\xbb\xbf" + flow("e", "words", "up").encode())
    done = imported(root)
    assert "not written" not in done.err
    assert "2 of 2 DAGs run on any engine" in done.out
    assert flowyml("run", str(written(root))).out.splitlines()[-1].strip() == "shout = 'Ä'"


def test_a_module_of_a_package_is_not_the_package_of_its_name(tmp_path: Path) -> None:
    """``utils/requests.py`` is ``utils.requests``; ``import requests`` in it or beside it is another project's."""
    root = repository(tmp_path, {
        "dags/flow.py": flow("d", "utils.web", "get"),
        "dags/utils/__init__.py": "",
        "dags/utils/web.py": "import requests\nfrom utils import requests as ours\ndef get(text): return text\n",
        "dags/utils/requests.py": "def fetch(text): return text\n",
    })  # fmt: skip
    imported(root)
    assert {name for name, copy in copies(root).items() if copy} == {"utils", "utils.web", "utils.requests"}
    assert not (written(root).parent / "requests.py").exists()


JOBS = """
import json
from contextlib import suppress

LIMIT = 3
def load(table: str, limit: int = LIMIT) -> str: return f"{table} {limit}"
def day(ds, **kwargs): return ds
def pick(rows): return "load" if rows else "day"
def asks(ti): return ti.hostname
def later():
    from airflow.models import Variable
    return Variable.get("x")
def double(x): return x * 2
def changed(): return 1
changed = json.dumps
if LIMIT:
    def conditional(): return 2
class Jobs:
    @staticmethod
    def method(): return 3
"""
USES = """
from airflow import DAG
from airflow.decorators import task
from airflow.operators.python import BranchPythonOperator, PythonOperator
from airflow.operators.bash import BashOperator
from common.jobs import load, pick, conditional
from common import jobs, tasks

with DAG("uses", schedule=None, default_args={"retries": 1}):
    rows = task(load)("orders", limit=2)
    day = PythonOperator(task_id="day", python_callable=jobs.day)
    choice = BranchPythonOperator(task_id="choice", python_callable=pick, op_kwargs={"rows": 1})
    more = PythonOperator(task_id="more", python_callable=jobs.load, op_args=["sales"])
    PythonOperator.partial(task_id="twice", python_callable=jobs.double).expand(op_args=[[1], [2]])
    choice >> [rows, day]
"""
STAY = """
with DAG("stays", schedule=None):
    PythonOperator(task_id="asks", python_callable=jobs.asks)
    PythonOperator(task_id="changed", python_callable=jobs.changed)
    PythonOperator(task_id="conditional", python_callable=conditional)
    PythonOperator(task_id="method", python_callable=jobs.Jobs.method)
    PythonOperator(task_id="of_airflow", python_callable=tasks.plain)
"""


def test_functions_of_other_modules_are_steps(tmp_path: Path) -> None:
    files = {"dags/common/__init__.py": "", "dags/common/jobs.py": JOBS, "dags/flow.py": USES,
             "dags/common/tasks.py": "from airflow.decorators import task\ndef plain(): return 1\n"}  # fmt: skip
    root = repository(tmp_path, files)
    done = imported(root)
    assert done.code == 0, done.err
    ((dag,),) = (file["dags"] for file in report(root)["files"] if file["dags"])
    assert dag["verdict"] == "any engine", dag["notes"]
    text = written(root).read_text()
    assert "from common.jobs import day, double, load, pick\n" in text
    assert 'load_step.options(name="more"' in text
    done = flowyml("run", str(written(root)), "--json", "--parameter", "ds=2024-03-01")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["outputs"] == {"more": "sales 3", "twice": [2, 4]}
    assert {each["name"]: each["raw_status"] for each in found["steps"]}["day"] == "skipped"


def test_functions_that_a_step_cannot_import_stay_with_their_operator(tmp_path: Path) -> None:
    """Those that ask for Airflow, whose name is another object's, and of a module that needs Airflow."""
    files = {"dags/common/__init__.py": "", "dags/common/jobs.py": JOBS,
             "dags/flow.py": USES.partition("with DAG")[0] + STAY,
             "dags/common/tasks.py": "from airflow.decorators import task\ndef plain(): return 1\n"}  # fmt: skip
    root = repository(tmp_path, files)
    assert imported(root).code == 0
    text = written(root).read_text()
    assert "import asks" not in text
    for name in ("jobs.asks", "jobs.conditional", "tasks.plain"):
        assert f'imported("common.{name}")' in text


def test_a_function_of_another_module_that_needs_airflow_later_runs_on_airflow(tmp_path: Path) -> None:
    later = 'with DAG("later", schedule=None):\n    PythonOperator(task_id="later", python_callable=jobs.later)\n'
    text = USES.partition("with DAG")[0].replace("import jobs, tasks", "import jobs") + later
    root = repository(tmp_path, {"dags/common/__init__.py": "", "dags/common/jobs.py": JOBS, "dags/flow.py": text})
    assert imported(root).code == 0
    ((dag,),) = (file["dags"] for file in report(root)["files"] if file["dags"])
    assert dag["verdict"] == "Airflow only"
    assert "later_step = step(later)" in written(root).read_text()


@pytest.mark.parametrize("above", ["", "# of the file\n\n\n\n\n\n\n\n\n# of another line\n"])
def test_a_dag_that_another_module_makes_has_the_comments_of_its_own_file_alone(tmp_path: Path, above: str) -> None:
    files = {
        "dags/common/__init__.py": "",
        "dags/common/factory.py": """
            from airflow.sdk import DAG, TaskGroup
            from airflow.providers.standard.operators.bash import BashOperator

            def build(name):
                with DAG(name, schedule=None) as dag:
                    # of the factory
                    with TaskGroup("all"):
                        for table in ("a", "b", "c"):
                            BashOperator(task_id=f"load_{table}", bash_command=f"echo {table}")
                return dag
        """,
        "dags/flow.py": f"{above}from common.factory import build\nfeed = build('feed')  # airflow: a DAG\n",
    }
    root = repository(tmp_path, files)
    imported(root)
    text = written(root).read_text()
    assert text.startswith('"""Written by `flowyml import airflow` from dags/flow.py."""')
    assert "# of" not in text
    assert text.count("load_") >= 3
