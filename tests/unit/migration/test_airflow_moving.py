"""What moves over with a function of a DAG file: all that it needs of the module around it, and nothing instead."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.migration.airflow.writer.values import Unwritable
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
import json
from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator
"""


def written(folder: Path, text: str, tasks: str = "PythonOperator(task_id='t', python_callable=t)") -> Written:
    """The module of a file with functions, and tasks of them."""
    dag = f"with DAG('d', schedule=None):\n{textwrap.indent(textwrap.dedent(tasks), '    ')}\n"
    file = read(folder, f"{HEAD}{textwrap.dedent(text)}\n{dag}")
    return write_module(file, (folder / "repository/dags/flow.py").read_text(encoding="utf-8"))


def returned(folder: Path, made: Written, *arguments: Any, name: str = "t") -> Any:
    """What the function gives in the module that was written."""
    return getattr(loaded(folder, made, f"moved_{folder.name}"), name)(*arguments)


def refused(made: Written) -> str:
    """Why the only task was not imported."""
    (reason,) = [note.reason for note in made.dags[0].notes if note.kind is Kind.REFUSED]
    return reason


@pytest.mark.parametrize(
    ("state", "value"),
    [
        ("CFG = {'dry_run': False}\nCFG['dry_run'] = True", {"dry_run": True}),
        ("CFG = {'a': 1, 'b': 2}\ndel CFG['b']", {"a": 1}),
        ("CFG = {}\nif not CFG:\n    CFG.update(a=1)", {"a": 1}),
        ("CFG = {}\n_ = CFG.setdefault('a', []).append(1)", {"a": [1]}),
        ("CFG = ['a']\nCFG.append('prod')", ["a", "prod"]),
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
    made = written(tmp_path, f"{state}\ndef t():\n    return CFG")
    assert returned(tmp_path, made) == value


def test_what_a_function_does_not_need_is_not_run(tmp_path: Path) -> None:
    made = written(tmp_path, "CFG = {}\nprint(CFG)\njson.loads('1')\ndef t():\n    return CFG")
    assert "print(" not in made.text
    assert "json" not in made.text


@pytest.mark.parametrize(
    "state",
    [
        "for name in ['a']:\n    CFG[name] = 1",
        "with DAG('e') as other:\n    CFG['dag'] = other",
        "for part in CFG.values():\n    part['x'] = 1",
        "with DAG('e') as other:\n    d = CFG\n    d['x'] = 1",
    ],
)
def test_state_that_is_changed_beside_a_dag_is_said(tmp_path: Path, state: str) -> None:
    made = written(tmp_path, f"CFG = {{}}\n{state}\ndef t():\n    return CFG")
    assert "it uses CFG, which line 7 changes beside the DAG" in {note.reason for d in made.dags for note in d.notes}


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (("class Registry:\n    names = []\n    def register(self, name):\n        self.names.append(name)\n"
         "CFG = Registry()\nwith DAG('e'):\n    CFG.register('a')"), 11),
        ("CFG = {}\ndef note(into, name):\n    into[name] = 1\nwith DAG('e'):\n    note(CFG, 'a')", 9),
        ("CFG = {}\ndef note(name):\n    CFG[name] = 1\nwith DAG('e'):\n    note('a')", 9),
    ],
)  # fmt: skip
def test_state_that_a_call_beside_a_dag_changes_is_said(tmp_path: Path, state: str, line: int) -> None:
    made = written(tmp_path, f"{state}\ndef t():\n    return CFG")
    assert f"it uses CFG, which line {line} changes beside the DAG" in {
        note.reason for dag in made.dags for note in dag.notes
    }


def test_a_function_that_the_module_changes_is_said(tmp_path: Path) -> None:
    made = written(tmp_path, "def t():\n    return t.limit\nt.limit = 3")
    assert refused(made) == "it uses t itself, which line 8 changes"


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
    made = written(tmp_path, f"def open(path):\n    return 'ours'\ndef t(path):\n    {inside}\n    return open(path)",
                   "PythonOperator(task_id='t', python_callable=t, op_args=['/etc/hostname'])")  # fmt: skip
    assert returned(tmp_path, made, "/etc/hostname") == "ours"


def test_a_function_that_sets_a_name_of_the_one_around_it_stays_behind(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def make():
            count = 0
            def t():
                nonlocal count
                count += 1
            return t
        """,
        "PythonOperator(task_id='t', python_callable=make())",
    )
    assert "of the function around it" in refused(made)


def test_a_function_keeps_its_name_before_words_of_flowyml(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "def bash(command):\n    return bash(command[:-1]) if len(command) > 4 else command",
        "PythonOperator(task_id='t', python_callable=bash, op_args=['echo x']) >> BashOperator(task_id='u', "
        "bash_command='echo hi')",
    )
    assert returned(tmp_path, made, "echo more", name="bash") == "echo"
    assert "import bash as bash_\n" in made.text


def test_a_function_keeps_its_name_before_parameters(tmp_path: Path) -> None:
    dag = "with DAG('e', schedule=None, params={'t': 1}):\n    BashOperator(task_id='u', bash_command='{{ params.t }}')"
    made = written(tmp_path, f"def t(n):\n    return t(n - 1) if n else 'done'\n{dag}",
                   "PythonOperator(task_id='t', python_callable=t, op_args=[1])")  # fmt: skip
    assert returned(tmp_path, made, 3) == "done"


def test_a_word_takes_no_name_that_another_module_gives(tmp_path: Path) -> None:
    made = written(tmp_path, "from zeta import *\nfrom alpha import rows\ndef t():\n    return step(rows)")
    star, first, ours = (
        "from zeta import *\n",
        "from alpha import rows\n",
        "from flowyml import pipeline, step as step_\n",
    )
    assert f"{star}{first}{ours}" in made.text


def test_what_an_import_of_all_may_give_moves(tmp_path: Path) -> None:
    made = written(tmp_path, "from json import *\ndef t():\n    return dumps({'a': len([1])})")
    assert returned(tmp_path, made) == '{"a": 1}'
    assert "import *" not in written(tmp_path, "from json import *\ndef t():\n    return len([1])").text


def test_a_function_that_the_module_calls_itself_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="uses rows, the function of a task, while it is imported"):
        written(
            tmp_path,
            "def rows():\n    return [1]\nROWS = rows()\ndef t():\n    return ROWS",
            "PythonOperator(task_id='t', python_callable=t) >> PythonOperator(task_id='r', python_callable=rows)",
        )


def test_functions_of_one_name_stay_apart(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        def first():
            def load():
                return "one"
            return load
        def second():
            def load():
                return "two"
            return load
        """,
        "PythonOperator(task_id='a', python_callable=first()) >> PythonOperator(task_id='b', python_callable=second())",
    )
    assert returned(tmp_path, made, name="load") == "one"
    assert loaded(tmp_path, made, "again").load_() == "two"


@pytest.mark.parametrize(
    "text",
    [
        "def t():\n    return t\nt = print(t) or t",
        "def make():\n    def t():\n        again = lambda t: t\n        return t()\n    return t\nt = make()",
    ],
)
def test_a_function_whose_own_name_means_something_else_stays_behind(tmp_path: Path, text: str) -> None:
    assert " uses t" in refused(written(tmp_path, text))


def test_a_name_of_several_meanings_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="several meanings of check"):
        written(
            tmp_path,
            """
            if json:
                def check():
                    return True
                audit = None
            def t():
                return check(), audit
            """,
            "PythonOperator(task_id='t', python_callable=t) >> PythonOperator(task_id='c', python_callable=check)",
        )


def test_a_builtin_of_the_files_own_that_the_module_says_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="a str of its own"):
        written(tmp_path, "def str(value):\n    return ''\ndef t():\n    return str(1)")


def test_parameters_that_python_reads_as_others_are_said(tmp_path: Path) -> None:
    dag = (
        "with DAG('e', schedule=None, params={'\ufb01': 1, 'fi': 2, 'annotations': 3, 'gr\u00f6\u00dfe': 4}):\n"
        "    BashOperator(task_id='u', bash_command='{{ params.fi }} {{ params.annotations }}')\n"
        "    BashOperator(task_id='v', bash_command=\"{{ params['\ufb01'] }} {{ params['gr\u00f6\u00dfe'] }}\")\n"
    )
    made = written(tmp_path, f"def t():\n    return 1\n{dag}")
    (pipeline,) = [each for each in ast.parse(made.text).body if isinstance(each, ast.FunctionDef) and each.name == "e"]
    assert [each.arg for each in pipeline.args.args] == ["fi", "annotations", "gr\u00f6\u00dfe"]
    assert "parameter \ufb01" in {note.construct for dag in made.dags for note in dag.notes}


def test_only_comments_before_a_function_stand_before_its_decorator(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        '''
        # how it runs
        def t(note="""a
        # first
        # second
        """):
            return note, """
        # third"""
        ''',
    )
    assert '\n# how it runs\n@step\ndef t(note="""a\n# first\n# second\n"""):\n' in made.text
    assert returned(tmp_path, made) == ("a\n# first\n# second\n", "\n# third")


def test_texts_of_statements_that_need_airflow_are_not_indented(tmp_path: Path) -> None:
    limit = '# why\nLIMIT = Variable.get("x"), """\nselect\n"""'
    made = written(tmp_path, f"from airflow.models import Variable\n{limit}\ndef t():\n    return LIMIT")
    assert '    # why\n    LIMIT = Variable.get("x"), """\nselect\n"""\n' in made.text


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
def t(word="a"):
    return word
"""


def test_a_function_keeps_the_files_own_decorators(tmp_path: Path) -> None:
    made = written(tmp_path, LOUD, "PythonOperator(task_id='t', python_callable=t, op_kwargs={'word': 'b'})")
    assert "@step\n@loud\n@twice(2)\ndef t(word" in made.text
    result = loaded(tmp_path, made, "moved_loud").d.run()
    assert result.outputs["t"] == "BB"


def test_what_a_call_makes_of_a_function_is_not_the_function(tmp_path: Path) -> None:
    made = written(tmp_path, f"{LOUD}def plain():\n    return 'a'\n",
                   "PythonOperator(task_id='t', python_callable=loud(plain))")  # fmt: skip
    assert refused(made) == "another function replaces it before the DAG is made"


@pytest.mark.parametrize(
    ("callable_", "words"),
    [
        ("functools.partial(plain, 'b')", "a functools.partial"),
        ("Sender('b').send", "a method"),
        ("Sender.make", "a method"),
        ("Sender.fixed", "a method"),
    ],
)
def test_what_is_called_with_more_than_its_own_arguments_is_not_the_function(
    tmp_path: Path, callable_: str, words: str
) -> None:
    text = """
    import functools
    def plain(word='a'):
        return word
    class Sender:
        def __init__(self, word): self.word = word
        def send(self): return self.word
        @classmethod
        def make(cls): return cls('b').send()
        @staticmethod
        def fixed(): return 'b'
    """
    made = written(tmp_path, text, f"PythonOperator(task_id='t', python_callable={callable_})")
    assert refused(made).startswith(f"its function is {words}: write it with def")


def test_an_argument_that_is_called_with_more_than_its_own_is_not_the_function(tmp_path: Path) -> None:
    tasks = "PythonOperator(task_id='t', python_callable=t, on_failure_callback=functools.partial(t, 'b'))"
    made = written(tmp_path, "import functools\ndef t(word='a'):\n    return word", tasks)
    assert "only Airflow knows 'functools.partial(…)'" in refused(made)


def test_what_a_function_of_another_module_makes_is_not_imported_by_its_name(tmp_path: Path) -> None:
    text = "from helpers import loud, plain\nt = loud(plain)\n"
    tasks = "PythonOperator(task_id='t', python_callable=t)"
    file = read(
        tmp_path,
        f"{HEAD}{text}with DAG('d', schedule=None):\n    {tasks}\n",
        {"dags/helpers.py": f"{LOUD}def plain(): ..."},
    )
    made = write_module(file, (tmp_path / "repository/dags/flow.py").read_text("utf-8"))
    assert refused(made) == "its function is made by another one of helpers: Airflow cannot import it by its name"
