"""Iterators of a DAG file give each item once, and a loop over a generator stands within what that has opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.migration.airflow.model import FileModel
from tests.unit.migration.dag_files import codes, edges, ids, read

HEAD = """
import itertools
from contextlib import contextmanager
from airflow.sdk import DAG, TaskGroup, chain, task
from airflow.providers.standard.operators.empty import EmptyOperator

def made(name): return EmptyOperator(task_id=name)
def several(*names): return [made(name) for name in names]
def stages(n):
    for i in range(n):
        yield made(f"s{i}")
def sections(*names):
    for name in names:
        with TaskGroup(name) as group:
            yield group
def both():
    yield from sections("a")
    yield from sections("b")
class Sections:
    def __iter__(self):
        for name in "ab":
            with TaskGroup(name): yield name
def risky():
    try: yield "a"
    except KeyError: made("never")
    finally: made("closed")
def first_of(names):
    for group in sections(*names):
        here = made("t")
        if group.group_id == "b": return here
def pairwise(items):
    one, other = itertools.tee(items)
    next(other, None)
    return zip(one, other)
def chunks(items, size):
    left = iter(items)
    while chunk := list(itertools.islice(left, size)):
        yield chunk
@contextmanager
def stage(name):
    with TaskGroup(name) as group:
        yield group
    group >> made(f"{name}_end")
def staged(names):
    for name in names:
        with stage(name):
            here = made("t")
            if name == "b": return here
def staged_items():
    for name in "ab":
        with stage(name):
            yield made("one")

with DAG("flow"):
"""


def _read(folder: Path, body: str) -> FileModel:
    return read(folder, HEAD + "".join(f"    {line}\n" for line in body.strip("\n").split("\n")))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("for a, b in zip(*[iter(several('a', 'b', 'c', 'd'))] * 2): a >> b", "a>b c>d"),
        ("x = iter(several('a', 'b', 'c', 'd'))\nfor a in x:\n    b = next(x, None)\n    if b: a >> b", "a>b c>d"),
        ("x = iter(several('a', 'b', 'c'))\nhead = list(itertools.islice(x, 2))\nhead >> list(x)[0]", "a>c b>c"),
        ("x = iter(several('a', 'b', 'c'))\nfor a, b in itertools.zip_longest(x, x):\n    if b: a >> b", "a>b"),
        ("x = map(made, 'ab')\nlist(x)\nfor one in x: one >> made('never')", ""),
        ("x = zip(several('a'), several('b'))\nfor a, b in x: a >> b\nfor a, b in x: b >> made('never')", "a>b"),
        ("x = (made(n) for n in 'abc')\na = next(x)\na >> list(x)", "a>b a>c"),
        ("e = enumerate(several('a', 'b'))\nnext(e)\nfor i, one in e: made(f'e{i}') >> one", "e1>b"),
        ("x = reversed(several('a', 'b'))\nnext(x) >> next(x)", "b>a"),
        ("for a, b in pairwise(several('a', 'b', 'c')): a >> b", "a>b b>c"),
        ("chain(*chunks(several('a', 'b', 'c', 'd'), 2))", "a>c b>d"),
        ("list(itertools.accumulate(several('a', 'b', 'c'), lambda a, b: a >> b))", "a>b b>c"),
        ("x = iter([])\ntry: next(x)\nexcept StopIteration: made('a') >> made('b')", "a>b"),
        ("if filter(None, []): made('a') >> made('b')", "a>b"),
        ("x = map(str, [1])\nif not isinstance(x, list): made('a') >> made('_'.join(x) + '_'.join(x))", "a>1"),
        ("for one in stages(9):\n    if one.task_id == 's1': break\n    one >> made('x')", "s0>x"),
        ("for group in sections('a', 'b'): made('x') >> made('y')", "a.x>a.y b.x>b.y"),
        ("for group in both(): made('x') >> made('y')", "a.x>a.y b.x>b.y"),
        ("for name in Sections(): made('x') >> made('y')", "a.x>a.y b.x>b.y"),
        ("first_of('abc') >> made('z')", "b.t>z"),
        ("staged('abc') >> made('z')", "a.t>a_end b.t>b_end b.t>z"),
        ("for one in staged_items(): one >> made('two')", "a.one>a.two b.one>b.two a.two>a_end b.two>b_end"),
        ("if any(x.task_id == 'b' for x in several('a', 'b')): made('c') >> made('d')", "c>d"),
    ],
)  # fmt: skip
def test_each_item_is_taken_once(tmp_path: Path, body: str, wanted: str) -> None:
    file = _read(tmp_path, body)
    assert file.reason is None
    assert edges(file) == set(wanted.split())
    assert codes(file) == set()
    assert not [one for one in ids(file) if "never" in one or one.startswith("s2")]


def test_what_a_loop_raises_is_not_raised_in_the_generator(tmp_path: Path) -> None:
    file = _read(tmp_path, "try:\n    for one in risky(): {}[made(one)]\nexcept KeyError: made('caught')")
    assert ids(file) == ["a", "closed", "caught"]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("x = stages(3)\nnext(x)", "unknown-call", "`stages(3)` is not gone through to its end"),
        ("a, b = several('a', 'b')\nx = map(lambda one: one >> b, [a])", "unknown-call", "is not gone through to its"),
        ("x = (made(n) for n in 'ab')\nwith TaskGroup('g'): list(x)", "unknown-context", "belong to where it was made"),
        ("for i, one in enumerate(sections('a')): made('x')", "unknown-context", "`yield group` is within a DAG or"),
        ("a, b = several('a', 'b')\nb.upstream_task_ids.add('a')", "unknown-edge", "changes one side of edges"),
        ("a, b = several('a', 'b')\na.downstream_task_ids |= {'b'}", "unknown-edge", "changes one side of edges"),
        ("made('a').dag.task_dict.pop('a')", "unknown-call", "changes what Airflow holds"),
        ("x = made('a')\nx.dag.task_dict['b'] = x", "unknown-call", "is what Airflow holds"),
        ("x = made('a')\ndel x.dag.task_dict['a']", "unknown-call", "is what Airflow holds"),
        ("last = None\nfor n in task.unknown():\n    if last: made('x')\n    last = n", "unknown-loop", "read once"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_said(tmp_path: Path, body: str, code: str, words: str) -> None:
    file = _read(tmp_path, body)
    assert [one for one in file.dags[0].warnings if one.code == code and words in one.text]


def test_what_is_asked_of_the_ids_next_to_a_task_is_known(tmp_path: Path) -> None:
    file = _read(tmp_path, "a, b = several('a', 'b')\na >> b\nif a.downstream_task_ids - {'c'} == {'b'}: made('c')")
    assert (ids(file), codes(file)) == (["a", "b", "c"], set())
