"""What a DAG file leaves open is said by a code: conditions, loops, calls and ids that are not known here."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.migration.airflow.model import Symbolic
from flowyml.migration.airflow.reader.evaluator import Evaluator
from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read

BEFORE = """
import contextlib, itertools, random, requests
from contextlib import contextmanager
unsure = requests.get("http://example.com").ok
more = requests.get("http://example.com").json()
def found(*of): return requests.get("http://example.com").json()
class Conf: name = "a"
conf, names, known, word = Conf(), ["a"], {"x": "a"}, "a"
def set_word():
    global word
    if unsure: word = "b"
def give(add):
    if unsure: return
    add("b")
def make(*names, **options):
    for name in names: EmptyOperator(task_id=name, **options)
def one(name, other="o"): EmptyOperator(task_id=name)
def stages():
    for name in "ab": yield EmptyOperator(task_id=f"stage_{name}")
@contextmanager
def logged(): yield
"""
AFTER = """
with DAG("flow", schedule=None) as dag:
    for number, name in enumerate([*names, *known.values(), conf.name]):
        EmptyOperator(task_id=f"load_{name}_{number}")
    EmptyOperator(task_id=word)
    made = {n: EmptyOperator(task_id=n) for n in ("made_a", "made_b")}
"""


def said(folder: Path, before: str, within: str = "") -> set[str]:
    """The codes of a file with statements before its DAG and within it."""
    lines = "".join(f"    {line}\n" for line in within.split("\n"))
    return codes(read(folder, f"{HEAD}{BEFORE}{before}\n{AFTER}{lines}"))


@pytest.mark.parametrize(
    "change",
    [
        "if unsure: names.append('b')",
        "if unsure: names += ['b']",
        "if unsure: names.sort()",
        "if unsure: known['x'] = 'b'",
        "if unsure: del known['x']",
        "if unsure: known.update(y='b')",
        "if unsure: conf.name = 'b'",
        "if unsure: setattr(Conf, 'name', 'b')",
        "unsure and names.append('b')",
        "names.append('b') if unsure else None",
        "set_word()",
        "give(names.append)",
        "for one in ['b']:\n    if unsure:\n        word = one\n        break",
        "for one in ['b']:\n    if unsure:\n        word = one\n        continue",
        "for one in requests.get('http://example.com').json(): names.append('b')",
        "try:\n    requests.get('x').raise_for_status()\n    names.append('b')\nexcept Exception: pass",
    ],
)
def test_what_an_unknown_condition_changes_is_said(tmp_path: Path, change: str) -> None:
    assert said(tmp_path, change) & {"unknown-condition", "unknown-loop"}


@pytest.mark.parametrize(
    ("change", "within"),
    [
        ("names.append('b')", ""),
        ("if unsure: print('b')", ""),
        ("", "for name in sorted({'x', 'y'}): EmptyOperator(task_id=name)"),
        ("unsure and print('b')", ""),
        ("found()", "for n in 'ab':\n    if requests.get(n).ok:\n        continue\n    print(n)"),
    ],
)
def test_what_changes_for_certain_or_not_at_all_is_not(tmp_path: Path, change: str, within: str) -> None:
    assert said(tmp_path, change, within) == set()


@pytest.mark.parametrize(
    "change",
    [
        "known.pop(unsure)",
        "names.remove(unsure)",
        "known[unsure] = 'b'",
        "known.setdefault(unsure, 'b')",
        "word = known.get(unsure)",
        "random.shuffle(names)",
        "names.sort(key=lambda name: requests.get(name).text)",
        "match more:\n    case ['c']: word = 'b'",
    ],
)
def test_what_stands_at_a_place_that_is_not_known_is_said(tmp_path: Path, change: str) -> None:
    assert said(tmp_path, change) & {"unknown-call", "unknown-id"}


@pytest.mark.parametrize(
    ("within", "code"),
    [
        ("found() >> found()", "unknown-edge"),
        ("a, b = found()\na << b", "unknown-edge"),
        ("dag.get_task(found()).set_downstream(dag.get_task(found()))", "unknown-edge"),
        ("[t for t in made.values() if found(t.task_id)] >> EmptyOperator(task_id='end')", "unknown-condition"),
        ("next(t for t in made.values() if found(t.task_id)) >> EmptyOperator(task_id='end')", "unknown-condition"),
        ("for n in 'ab':\n    if found(n): continue\n    EmptyOperator(task_id=f'{n}_more')", "unknown-condition"),
        ("for n in 'ab':\n    EmptyOperator(task_id=f'{n}_more')\n    if found(n): break", "unknown-condition"),
        ("def f():\n    if found(): return\n    EmptyOperator(task_id='more')\nf()", "unknown-condition"),
        ("[EmptyOperator(task_id=f'{n}_x') for n in filter(lambda n: found(n), made.values())]", "unknown-condition"),
        ("{n: EmptyOperator(task_id=f'{n}_more') for n in made if found(n)}", "unknown-condition"),
        ("list(map(lambda n: EmptyOperator(task_id=n), found()))", "unknown-loop"),
        ("import hashlib\nh = hashlib.md5()\nh.update(found())\nEmptyOperator(task_id=h.hexdigest())", "unknown-id"),
        ("for pair in zip(*more): EmptyOperator(task_id=f'load_{pair}')", "unknown-loop"),
        ("for name in itertools.chain(*more): EmptyOperator(task_id=name)", "unknown-loop"),
        ("for name in itertools.chain(['a'], *more): EmptyOperator(task_id=f'x{name}')", "unknown-loop"),
        ("for pair in itertools.product(['a'], *more): EmptyOperator(task_id=f'load_{pair}')", "unknown-loop"),
        ("for pair in itertools.product(range(200), range(200)): EmptyOperator(task_id=f'{pair[0]}_{pair[1]}')",
         "unknown-loop"),
        ("for name in dict(x=1, **more): EmptyOperator(task_id=name)", "unknown-loop"),
        ("import collections\nfor name in collections.deque('xyz', maxlen=2): EmptyOperator(task_id=name)",
         "unknown-loop"),
        ("for name in {'x', 'y'}: (end := EmptyOperator(task_id=name)) >> made['made_a']", "unknown-loop"),
        ("last = None\nfor n in found():\n    if last: EmptyOperator(task_id='x')\n    last = n", "unknown-loop"),
        ("list(map(one, *more))", "unknown-loop"),
        ("make('x', *more)", "unknown-call"),
        ("make('x', **more)", "unknown-call"),
        ("next(stages())", "unknown-call"),
        ("x = map(lambda one: one >> made['made_b'], [made['made_a']])", "unknown-call"),
        ("@logged()\ndef fill(): EmptyOperator(task_id='x')\nfill()", "unknown-call"),
        ("from company import add_alerts\nadd_alerts(dag)", "unknown-call"),
        ("import copy\ncopy.replace(made['made_a'], name='b')", "unknown-call"),
        ("TaskGroup('g', prefix_group_id=more['p'])", "unknown-id"),
        ("with contextlib.suppress(OSError):\n    found()\n    EmptyOperator(task_id='x')", "unknown-condition"),
    ],
)  # fmt: skip
def test_tasks_and_edges_that_hang_on_what_is_not_known_are_said(tmp_path: Path, within: str, code: str) -> None:
    assert code in said(tmp_path, "", within)


def test_what_is_handed_a_task_without_adding_to_the_dag_is_not_said(tmp_path: Path) -> None:
    assert said(tmp_path, "import logging", "logging.getLogger('x').info('%s', made)") == set()


@pytest.mark.parametrize(
    ("imported", "certain"),
    [("from settings import debug", False), ("from settings import DEBUG as debug", False),
     ("import debug", True), ("from settings import Debug as debug", True), ("from os import path as debug", True)],
)  # fmt: skip
def test_whether_a_name_of_another_library_is_true_is_known_of_code(
    tmp_path: Path, imported: str, certain: bool
) -> None:
    assert ("unknown-condition" in said(tmp_path, imported, "if debug: EmptyOperator(task_id='x')")) is not certain


@pytest.mark.parametrize(
    ("way", "kept"),
    [
        ("b >> c if requests.get('x').ok else c >> b", {"a>b"}),
        ("last = a if requests.get('x').ok else b; b >> last", {"a>b"}),
    ],
)
def test_a_circle_of_edges_that_are_not_certain_takes_no_dag_along(tmp_path: Path, way: str, kept: set[str]) -> None:
    text = f"""{HEAD}
import requests
with DAG("flow", schedule=None):
    a, b, c = (EmptyOperator(task_id=name) for name in "abc")
    a >> b
    {way}
"""
    file = read(tmp_path, text)
    assert edges(file) == kept
    assert any("are left out" in one.text for one in file.dags[0].warnings)


@pytest.mark.parametrize(
    ("cases", "made"),
    [
        ("case {'x': name}: EmptyOperator(task_id='a')\n        case _: EmptyOperator(task_id='b')", ["a", "b"]),
        ("case ['c', name]: name\n        case _: EmptyOperator(task_id='b')", ["b"]),
        ("case ['c', name]: EmptyOperator(task_id='a'); name", ["a"]),
        ("case []: ...\n        case _ if 0: EmptyOperator(task_id='b')\n        case _: EmptyOperator(task_id='a')",
         ["a"]),
    ],
)  # fmt: skip
def test_each_case_that_may_fit_counts(tmp_path: Path, cases: str, made: list[str]) -> None:
    file = read(tmp_path, f"{HEAD}{BEFORE}\nwith DAG('flow', schedule=None):\n    match more:\n        {cases}\n")
    assert (ids(file), codes(file)) == (made, {"unknown-condition"})


@pytest.mark.parametrize(
    "schedule",
    ["schedule=given(**more)", "schedule=Given(**more).cron", "schedule=given(*more)", "schedule=Model(**more).cron",
     "**more"],
)  # fmt: skip
def test_a_default_is_not_taken_where_unknown_arguments_may_give_another(tmp_path: Path, schedule: str) -> None:
    text = f"""{HEAD}{BEFORE}
import dataclasses
from pydantic import BaseModel
@dataclasses.dataclass
class Given:
    cron: str = "@daily"
class Model(BaseModel):
    cron: str = "@daily"
def given(cron="@daily"): return cron
with DAG("flow", {schedule}): ...
"""
    file = read(tmp_path, text)
    assert "unknown-schedule" in codes(file)
    assert schedule == "**more" or not file.dags[0].schedule_known


def test_what_airflow_alone_knows_is_symbolic_and_its_default_is_said(tmp_path: Path) -> None:
    text = f"""{HEAD}
ENV = os.getenv("DEPLOY_ENV", "dev")
BUCKET = Variable.get("bucket")
KIND = Variable.setdefault("kind", "a", "what is loaded")
with DAG(f"flow_{{ENV}}", schedule="@hourly" if ENV == "prod" else None) as dag:
    a = BashOperator(task_id="a", bash_command=BUCKET, env={{"where": ENV, "kind": KIND}})
    for table in Variable.get("tables", deserialize_json=True):
        a >> EmptyOperator(task_id=f"load_{{table}}")
"""
    file = read(tmp_path, text)
    (dag,) = file.dags
    assert (dag.dag_id, dag.schedule) == ("flow_dev", "None")
    assert {"default-taken", "unknown-loop", "unknown-id"} <= codes(file)
    command, env = dag.tasks[0].argument("bash_command"), dag.tasks[0].argument("env")
    assert command is not None
    assert isinstance(command.value, Symbolic)
    assert command.value.origin == "variable:bucket"
    assert env is not None
    assert (env.value["where"].default, env.value["kind"].default) == ("dev", "a")
    assert (dag.tasks[1].task_id, dag.tasks[1].id_known) == ("load_{table}", False)

    variables = {"tables": '["x", "y"]', "bucket": "b", "kind": "b"}
    given = read(tmp_path, text, env={"DEPLOY_ENV": "prod"}, variables=variables)
    (dag,) = given.dags
    assert (dag.dag_id, dag.schedule) == ("flow_prod", "cron:0 * * * *")
    assert ids(given) == ["a", "load_x", "load_y"]
    assert not codes(given)


def test_a_fault_of_the_reader_costs_one_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Evaluator, "make_super", broken)
    file = read(tmp_path, HEAD + "x = super()\nwith DAG('d', schedule=None):\n    EmptyOperator(task_id='a')\n")
    assert ids(file) == ["a"]
    assert "unread" in codes(file)
