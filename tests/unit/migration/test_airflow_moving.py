"""What moves over with a function of a DAG file: all that it needs of the module around it, and nothing instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind
from flowyml.migration.airflow.writer.text.modules import Written
from flowyml.migration.airflow.writer.values import Unwritable
from tests.unit.migration.modules import dag, loaded, of_kind, ran
from tests.unit.migration.modules import written as written_text

TASK = "PythonOperator(task_id='t', python_callable=t)"
CHANGED = "def t():\n    return CFG"


def written(folder: Path, functions: str, tasks: str = TASK, files: dict[str, str] | None = None) -> Written:
    return written_text(folder, dag(tasks, before=functions), files)


def refused(made: Written) -> str:
    """Why the only task was not imported."""
    (reason,) = of_kind(made, Kind.REFUSED).values()
    return reason


@pytest.mark.parametrize(
    ("state", "value"),
    [
        ("CFG = {'dry_run': False}\nCFG['dry_run'] = True", {"dry_run": True}),
        ("CFG = {'a': 1, 'b': 2}\ndel CFG['b']", {"a": 1}),
        ("CFG = {}\nif not CFG:\n    CFG.update(a=1)", {"a": 1}),
        ("CFG = {}\n_ = CFG.setdefault('a', []).append(1)", {"a": [1]}),
        ("class CFG:\n    pass\nCFG.limit = 3\nCFG = CFG.limit", 3),
        ("CFG = {}\ndef fill(what):\n    what['a'] = 1\nfill(CFG)", {"a": 1}),
        ("CFG = ['a']\ndef deny(name):\n    CFG.append(name)\ndeny('prod')", ["a", "prod"]),
        ("CFG = 1\ndef configure():\n    global CFG\n    CFG = 2\nconfigure()", 2),
        ("match ['a', 'b', 'c']:\n    case [first, *CFG]:\n        pass", ["b", "c"]),
        ("match {'a': 1, 'b': 2}:\n    case {'a': 1, **CFG}:\n        pass", {"b": 2}),
        ("CFG = {'a': {}}\nd = CFG\ninner = d.get('a')\ninner['b'] = 1", {"a": {"b": 1}}),
        ("CFG = {}\nboth = [CFG, 1]\nboth[0]['a'] = 1", {"a": 1}),
        ("CFG = {}\ndef fill(what):\n    what['a'] = 1\n    return what\n_ = fill(CFG)", {"a": 1}),
        ("match 5:\n    case CFG:\n        pass", 5),
    ],
)
def test_what_changes_the_modules_state_moves_with_it(tmp_path: Path, state: str, value: Any) -> None:
    assert loaded(tmp_path, written(tmp_path, f"{state}\n{CHANGED}")).t() == value


def test_what_a_function_does_not_need_is_not_run(tmp_path: Path) -> None:
    made = written(tmp_path, f"import json\nCFG = {{}}\nprint(CFG)\njson.loads('1')\n{CHANGED}")
    assert "print(" not in made.text
    assert "json" not in made.text


@pytest.mark.parametrize(
    "state",
    [
        "CFG = {}\nfor name in ['a']:\n    CFG[name] = 1",
        "CFG = {}\nwith DAG('e') as other:\n    CFG['dag'] = other",
        "CFG = {}\nfor part in CFG.values():\n    part['x'] = 1",
        "CFG = {}\nwith DAG('e') as other:\n    d = CFG\n    d['x'] = 1",
        """class Registry:
    names = []
    def register(self, name):
        self.names.append(name)
CFG = Registry()
with DAG('e'):
    CFG.register('a')""",
        "CFG = {}\ndef note(into, name):\n    into[name] = 1\nwith DAG('e'):\n    note(CFG, 'a')",
        "CFG = {}\ndef note(name):\n    CFG[name] = 1\nwith DAG('e'):\n    note('a')",
    ],
)
def test_state_that_is_changed_beside_a_dag_is_said(tmp_path: Path, state: str) -> None:
    made = written(tmp_path, f"{state}\n{CHANGED}")
    lines = (tmp_path / "repository/dags/flow.py").read_text().splitlines()
    beside = [number for number, line in enumerate(lines, 1) if line.startswith(("for ", "with "))]
    line = beside[0]  # the last is the DAG of the task
    reasons = {note.reason for dag in made.dags for note in dag.notes}
    assert f"it uses CFG, which line {line} changes beside the DAG" in reasons


@pytest.mark.parametrize(
    "inside",
    [
        "def helper():\n        open = 1\n        return open\n    helper()",
        "[open for open in [1]]",
        "class Inner:\n        open = 1",
        "(lambda open: open)(1)",
    ],
)
def test_a_name_of_an_inner_scope_hides_nothing_outside_it(tmp_path: Path, inside: str) -> None:
    functions = f"def open(path):\n    return 'ours'\ndef t(path):\n    {inside}\n    return open(path)"
    made = written(tmp_path, functions, "PythonOperator(task_id='t', python_callable=t, op_args=['/etc/hostname'])")
    assert loaded(tmp_path, made).t("/etc/hostname") == "ours"


def test_a_function_keeps_its_name_before_words_of_flowyml(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "def bash(command):\n    return bash(command[:-1]) if len(command) > 4 else command",
        "PythonOperator(task_id='t', python_callable=bash, op_args=['echo x']) >> BashOperator(task_id='u', "
        "bash_command='echo hi')",
    )
    assert loaded(tmp_path, made).bash("echo more") == "echo"


def test_a_function_keeps_its_name_before_parameters(tmp_path: Path) -> None:
    other = "with DAG('e', params={'t': 1}):\n    BashOperator(task_id='u', bash_command='{{ params.t }}')"
    functions = f"def t(n):\n    return t(n - 1) if n else 'done'\n{other}"
    made = written(tmp_path, functions, "PythonOperator(task_id='t', python_callable=t, op_args=[1])")
    assert loaded(tmp_path, made).t(3) == "done"


def test_a_word_takes_no_name_that_another_module_gives(tmp_path: Path) -> None:
    made = written(tmp_path, "from zeta import *\nfrom alpha import rows\ndef t():\n    return step(rows)")
    assert made.text.index("from zeta import *\n") < made.text.index("from alpha import rows\n")
    assert "from flowyml import pipeline, step as step_\n" in made.text


def test_what_an_import_of_all_may_give_moves(tmp_path: Path) -> None:
    made = written(tmp_path, "from json import *\ndef t():\n    return dumps({'a': len([1])})")
    assert loaded(tmp_path, made).t() == '{"a": 1}'
    assert "import *" not in written(tmp_path, "from json import *\ndef t():\n    return len([1])").text


@pytest.mark.parametrize(
    ("functions", "tasks", "why"),
    [
        ("def rows():\n    return [1]\nROWS = rows()\ndef t():\n    return ROWS",
         f"{TASK} >> PythonOperator(task_id='r', python_callable=rows)",
         "uses rows, the function of a task, while it is imported"),
        ("if os:\n    def check():\n        return True\n    audit = None\ndef t():\n    return check(), audit",
         f"{TASK} >> PythonOperator(task_id='c', python_callable=check)", "several meanings of check"),
        ("def str(value):\n    return ''\ndef t():\n    return str(1)", TASK, "a str of its own"),
    ],
)  # fmt: skip
def test_what_refuses_the_file(tmp_path: Path, functions: str, tasks: str, why: str) -> None:
    with pytest.raises(Unwritable, match=why):
        written(tmp_path, functions, tasks)


def test_functions_of_one_name_stay_apart(tmp_path: Path) -> None:
    first, second = (
        f"def {name}():\n    def load():\n        return '{name}'\n    return load\n" for name in ("first", "second")
    )
    tasks = """
    PythonOperator(task_id='a', python_callable=first()) >> PythonOperator(task_id='b', python_callable=second())
    """
    assert ran(tmp_path, written(tmp_path, first + second, tasks))[0] == {"a": "first", "b": "second"}


@pytest.mark.parametrize(
    ("functions", "callable_", "why"),
    [
        ("def t():\n    return t.limit\nt.limit = 3", "t", "it uses t itself, which line "),
        ("def make():\n    count = 0\n    def t():\n        nonlocal count\n        count += 1\n    return t", "make()",
         "of the function around it"),
        ("def t():\n    return t\nt = print(t) or t", "t", " uses t"),
        ("def make():\n    def t():\n        again = lambda t: t\n        return t()\n    return t\nt = make()", "t",
         " uses t"),
        ("", "loud(plain)", "another function replaces it before the DAG is made"),
        ("", "functools.partial(plain, 'b')", "its function is a functools.partial: write it with def"),
        ("", "Sender('b').send", "its function is a method: write it with def"),
        ("", "Sender.make", "its function is a method: write it with def"),
        ("", "Sender.fixed", "its function is a method: write it with def"),
        ("from helpers import loud, plain", "loud(plain)",
         "its function is made by another one of helpers: Airflow cannot import it by its name"),
        ("", "plain, on_failure_callback=functools.partial(plain, 'b')",
         "only Airflow knows 'functools.partial(…)'"),
    ],
)  # fmt: skip
def test_a_function_that_stays_behind(tmp_path: Path, functions: str, callable_: str, why: str) -> None:
    files = {"dags/helpers.py": f"{LOUD}def plain(): ..."}
    made = written(tmp_path, f"{LOUD}{functions}", f"PythonOperator(task_id='t', python_callable={callable_})", files)
    assert why in refused(made)


LOUD = """
import functools
def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **named):
        return function(*args, **named).upper()
    return wrapper
def twice(count):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **named):
            return function(*args, **named) * count
        return wrapper
    return decorate
@loud
@twice(2)
def shout(word="a"):
    return word
def plain(word="a"):
    return word
class Sender:
    def __init__(self, word): self.word = word
    def send(self): return self.word
    @classmethod
    def make(cls): return cls("b").send()
    @staticmethod
    def fixed(): return "b"
"""


def test_a_function_keeps_the_files_own_decorators(tmp_path: Path) -> None:
    made = written(tmp_path, LOUD, "PythonOperator(task_id='t', python_callable=shout, op_kwargs={'word': 'b'})")
    assert ran(tmp_path, made)[0] == {"t": "BB"}


def test_only_comments_before_a_function_stand_before_its_decorator(tmp_path: Path) -> None:
    """And lines of texts that look like comments stay in the texts."""
    functions = '''
# how it runs
def t(note="""a
# first
# second
"""):
    return note, """
# third"""
'''
    made = written(tmp_path, functions)
    assert made.text.index("# how it runs\n") < made.text.index("@step\n")
    assert loaded(tmp_path, made).t() == ("a\n# first\n# second\n", "\n# third")


def test_texts_of_statements_that_need_airflow_are_not_indented(tmp_path: Path) -> None:
    limit = '# why\nLIMIT = Variable.get("x"), """\nselect\n"""'
    made = written(tmp_path, f"{limit}\ndef t():\n    return LIMIT")
    assert '    # why\n    LIMIT = Variable.get("x"), """\nselect\n"""\n' in made.text


def test_what_only_a_type_checker_imports_needs_no_airflow(tmp_path: Path) -> None:
    text = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from airflow.sdk import Context

def size(context: "Context") -> int:
    return len(context)

def t() -> int:
    return size({1: 2})
"""
    made = written(tmp_path, text)
    assert of_kind(made, Kind.KEPT)["task t"] == ""
    assert "suppress" not in made.text
    assert ran(tmp_path, made)[0] == {"t": 1}


def test_an_operator_that_would_take_an_argument_of_the_dags_function_says_so(tmp_path: Path) -> None:
    task = "PythonOperator(task_id='t', python_callable=t, op_args=[name], outlets=[Asset('a')])"
    dag_function = f"@dag(schedule=None)\ndef flow(name: str = 'a'):\n    {task}\nflow()\n"
    made = written_text(tmp_path, f"from airflow.sdk import Asset\ndef t(n): return n\n{dag_function}")
    assert "it takes the argument 'name' of the DAG's function" in refused(made)
