"""Models of pydantic, and calls whose arguments are not all known."""

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


@pytest.mark.parametrize(("returned", "said"), [("value.lower()", True), ("value", False)])
def test_a_validator_that_may_change_values_is_said(tmp_path: Path, returned: str, said: bool) -> None:
    text = f"""{HEAD}{MODELS}
class Named(BaseModel):
    name: str
    @validator("name")
    def check(cls, value): return {returned}
with DAG("flow", schedule=None):
    EmptyOperator(task_id=Named(name="A").name)
"""
    assert ("unknown-call" in codes(read(tmp_path, text))) is said


@pytest.mark.parametrize("made", ["made(**unknown)", "Made(**unknown).cron", "made(*unknown)"])
def test_a_default_is_not_taken_where_unknown_arguments_may_give_another(tmp_path: Path, made: str) -> None:
    text = f"""{HEAD}
import dataclasses, requests
unknown = requests.get("http://example.com").json()
@dataclasses.dataclass
class Made:
    cron: str = "@daily"
def made(cron="@daily"): return cron
with DAG("flow", schedule={made}): ...
"""
    file = read(tmp_path, text)
    assert not file.dags[0].schedule_known
    assert "unknown-schedule" in codes(file)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("base.model_copy(update={'name': 'b'}).name", ["b"]),
        ("base.copy(update={'name': 'b'}, deep=True).name", ["b"]),
        ("base.model_copy().name", ["a"]),
        ("base.model_dump(mode='json')['name']", ["a"]),
    ],
)
def test_a_copy_of_a_model_has_the_fields_that_it_is_given(tmp_path: Path, given: str, wanted: list[str]) -> None:
    text = f"""{HEAD}{MODELS}
class Named(BaseModel):
    name: str
base = Named(name="a")
with DAG("flow", schedule=None): EmptyOperator(task_id={given})
"""
    assert ids(read(tmp_path, text)) == wanted


def test_a_dictionary_that_may_lack_fields_is_not_known(tmp_path: Path) -> None:
    text = f"""{HEAD}{MODELS}
class Named(BaseModel):
    name: str = "a"
with DAG("flow", schedule=None):
    for name in Named().model_dump(exclude_unset=True): EmptyOperator(task_id=name)
"""
    assert "unknown-loop" in codes(read(tmp_path, text))


def test_a_base_behind_a_mixin_hears_of_its_subclasses(tmp_path: Path) -> None:
    text = f"""{HEAD}
found = []
class Base:
    def __init_subclass__(cls, **options): found.append(cls.__name__)
class Mixin: ...
class Load(Mixin, Base): ...
with DAG("flow", schedule=None):
    for name in found: EmptyOperator(task_id=name)
"""
    assert ids(read(tmp_path, text)) == ["Load"]


def test_the_default_of_a_variable_that_is_set_may_have_a_description(tmp_path: Path) -> None:
    text = f"""{HEAD}
kind = Variable.setdefault("kind", "a", "what is loaded")
with DAG("flow", schedule=None): EmptyOperator(task_id=kind)
"""
    assert ids(read(tmp_path, text, variables={"kind": "b"})) == ["b"]
    assert ids(read(tmp_path, text)) == ["a"]
