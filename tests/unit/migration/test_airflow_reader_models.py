"""Models of pydantic in a DAG file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read

MODELS = """
from typing import Dict, List, Optional
from pydantic import BaseModel, Field, validator
class Step(BaseModel):
    name: str
    needs: List[str] = []
class Flow(BaseModel):
    id: str
    cron: Optional[str] = None
    steps: List[Step] = Field(default_factory=list)
    last: Optional[Step] = None
    more: "Dict[str, Step]" = {}
class Named(BaseModel):
    name: str = "n"
base = Named(name="a")
"""
GIVEN = {
    "id": "flow",
    "cron": "5 5 * * *",
    "steps": [{"name": "a"}, {"name": "b", "needs": ["a"]}],
    "last": {"name": "c", "needs": ["b"]},
    "more": {"x": {"name": "d", "needs": ["c"]}},
}


@pytest.mark.parametrize("made", ["Flow(**GIVEN)", "Flow.parse_obj(GIVEN)", "Flow.model_validate(GIVEN)"])
def test_models_are_made_of_dictionaries(tmp_path: Path, made: str) -> None:
    text = f"""{HEAD}{MODELS}
GIVEN = {GIVEN!r}
flow = {made}
with DAG(flow.id, schedule=flow.cron):
    steps = [*flow.steps, flow.last, *flow.more.values()]
    made = {{step.name: EmptyOperator(task_id=step.name) for step in steps}}
    for step in steps:
        for need in step.needs:
            made[need] >> made[step.name]
"""
    file = read(tmp_path, text)
    assert (file.dags[0].schedule, edges(file), codes(file)) == ("cron:5 5 * * *", {"a>b", "b>c", "c>d"}, set())


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("base.model_copy(update={'name': 'b'}).name", "b"),
        ("base.copy(update={'name': 'b'}, deep=True).name", "b"),
        ("base.model_copy().name", "a"),
        ("base.model_dump(mode='json')['name']", "a"),
    ],
)
def test_a_copy_of_a_model_has_the_fields_that_it_is_given(tmp_path: Path, given: str, name: str) -> None:
    text = f"{HEAD}{MODELS}\nwith DAG('flow', schedule=None): EmptyOperator(task_id={given})\n"
    assert ids(read(tmp_path, text)) == [name]


@pytest.mark.parametrize(
    ("more", "tasks", "said"),
    [
        ("", "for name in Named().model_dump(exclude_unset=True): EmptyOperator(task_id=name)",
         {"unknown-loop", "unknown-id"}),
        ("    @validator('name')\n    def check(cls, value): return value.lower()",
         "EmptyOperator(task_id=Checked(name='A').name)", {"unknown-call"}),
        ("    @validator('name')\n    def check(cls, value): return value",
         "EmptyOperator(task_id=Checked(name='A').name)", set()),
    ],
)  # fmt: skip
def test_what_may_change_or_leave_out_fields_is_said(tmp_path: Path, more: str, tasks: str, said: set[str]) -> None:
    checked = f"class Checked(BaseModel):\n    name: str\n{more}\n"
    assert codes(read(tmp_path, f"{HEAD}{MODELS}\n{checked}with DAG('flow', schedule=None):\n    {tasks}\n")) == said
