"""What a condition that is unknown changes, without making a task in its arms, is said."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read

BEFORE = """
import requests
unsure = requests.get("http://example.com").ok
class Conf: name = "a"
conf, names, known, word = Conf(), ["a"], {"x": "a"}, "a"
def set_word():
    global word
    if unsure: word = "b"
def give(add):
    if unsure: return
    add("b")
"""
AFTER = """
with DAG("flow", schedule=None):
    for number, name in enumerate([*names, *known.values(), conf.name]):
        EmptyOperator(task_id=f"load_{name}_{number}")
    EmptyOperator(task_id=word)
"""


def flow(change: str) -> str:
    return f"{HEAD}{BEFORE}{change}{AFTER}"


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
    assert codes(read(tmp_path, flow(change))) & {"unknown-condition", "unknown-loop"}


@pytest.mark.parametrize("change", ["names.append('b')", "if unsure: print('b')", "unsure and print('b')"])
def test_what_changes_for_certain_or_not_at_all_is_not(tmp_path: Path, change: str) -> None:
    assert not codes(read(tmp_path, flow(change)))


@pytest.mark.parametrize(
    ("imported", "certain"),
    [("from settings import debug", False), ("from settings import DEBUG as debug", False),
     ("import debug", True), ("from settings import Debug as debug", True), ("from os import path as debug", True)],
)  # fmt: skip
def test_whether_a_name_of_another_library_is_true_is_known_of_code(
    tmp_path: Path, imported: str, certain: bool
) -> None:
    text = f"{HEAD}\n{imported}\nwith DAG('flow', schedule=None):\n    if debug: EmptyOperator(task_id='a')\n"
    file = read(tmp_path, text)
    assert ids(file) == ["a"]
    assert ("unknown-condition" in codes(file)) is not certain


@pytest.mark.parametrize(("names", "certain"), [("{'a', 'b'}", False), ("sorted({'a', 'b'})", True)])
def test_the_order_of_a_set_is_not_known(tmp_path: Path, names: str, certain: bool) -> None:
    text = f"""{HEAD}
with DAG("flow", schedule=None):
    last = EmptyOperator(task_id="first")
    for name in {names}:
        last = last >> EmptyOperator(task_id=name)
"""
    assert ("unknown-loop" in codes(read(tmp_path, text))) is not certain


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
    "change",
    [
        "known.pop(unsure)",
        "names.remove(unsure)",
        "known[unsure] = 'b'",
        "known.setdefault(unsure, 'b')",
        "word = known.get(unsure)",
        "import random; random.shuffle(names)",
        "names.sort(key=lambda name: requests.get(name).text)",
    ],
)
def test_what_stands_at_a_place_that_is_not_known_is_said(tmp_path: Path, change: str) -> None:
    assert codes(read(tmp_path, flow(change))) & {"unknown-call", "unknown-id"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("with DAG('flow', **options): ...", "unknown-schedule"),
        ("with DAG('flow', schedule=None): TaskGroup('g', prefix_group_id=options['p'])", "unknown-id"),
    ],
)
def test_options_that_are_not_known_are_said(tmp_path: Path, text: str, code: str) -> None:
    text = f"{HEAD}\nimport requests\noptions = requests.get('http://example.com').json()\n{text}\n"
    assert code in codes(read(tmp_path, text))


MORE = """
import itertools
import requests
more = requests.get("http://example.com").json()
def make(*names, **options):
    for name in names:
        EmptyOperator(task_id=name, **options)
def one(name, other="o"):
    EmptyOperator(task_id=name)
"""


@pytest.mark.parametrize(
    "body",
    [
        "for pair in zip(*more): EmptyOperator(task_id=f'load_{pair}')",
        "for name in itertools.chain(*more): EmptyOperator(task_id=name)",
        "for name in itertools.chain(['a'], *more): EmptyOperator(task_id=name)",
        "for pair in itertools.product(['a'], *more): EmptyOperator(task_id=f'load_{pair}')",
        "for name in dict(a=1, **more): EmptyOperator(task_id=name)",
        "list(map(one, *more))",
        "make('a', *more)",
        "make('a', **more)",
        "for pair in itertools.product(range(200), range(200)): EmptyOperator(task_id=f'{pair[0]}_{pair[1]}')",
    ],
)
def test_what_is_given_by_a_list_that_is_not_known_is_said(tmp_path: Path, body: str) -> None:
    text = f"{HEAD}{MORE}\nwith DAG('flow', schedule=None):\n    {body}\n"
    assert codes(read(tmp_path, text)) & {"unknown-loop", "unknown-call", "unknown-id"}


@pytest.mark.parametrize(
    ("cases", "found"),
    [
        ("case {'x': name}: EmptyOperator(task_id='a')\n        case _: EmptyOperator(task_id='b')", ["a", "b"]),
        ("case ['c', name]: name\n        case _: EmptyOperator(task_id='b')", ["b"]),
        ("case ['c', name]: EmptyOperator(task_id='a'); name", ["a"]),
        (
            "case []: ...\n        case _ if 0: EmptyOperator(task_id='b')\n        case _: EmptyOperator(task_id='a')",
            ["a"],
        ),
    ],
)
def test_each_case_that_may_fit_counts(tmp_path: Path, cases: str, found: list[str]) -> None:
    text = f"{HEAD}{MORE}\nwith DAG('flow', schedule=None):\n    match more:\n        {cases}\n"
    file = read(tmp_path, text)
    assert (ids(file), codes(file)) == (found, {"unknown-condition"})


def test_names_keep_their_values_where_no_case_may_fit(tmp_path: Path) -> None:
    text = f"{HEAD}{MORE}\nname = 'a'\nmatch more:\n    case ['c']: name = 'b'\n"
    file = read(tmp_path, f"{text}with DAG('flow', schedule=None): EmptyOperator(task_id=name)\n")
    assert "unknown-id" in codes(file), "either a or b"


def test_an_object_as_a_decorator_is_said(tmp_path: Path) -> None:
    text = """
    from contextlib import contextmanager
    @contextmanager
    def logged(): yield
    @logged()
    def fill():
        BashOperator(task_id="one", bash_command="true")
    with DAG("flow", schedule=None): fill()
    """
    assert "unknown-call" in codes(read(tmp_path, HEAD + textwrap.dedent(text)))
