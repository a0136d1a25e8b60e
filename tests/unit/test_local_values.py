"""Steps in threads see values as they were returned, at the price of a copy where somebody could see the difference."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from flowyml import Pipeline, pipeline, step
from flowyml.core.errors import DefinitionError
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.local.copies import own

WORKERS: tuple[Literal["threads", "processes"], ...] = ("threads", "processes")


def pipeline_of(make: Any, change: Any, look: Any, **options: Any) -> Pipeline:
    made = Pipeline("values", **options).add_step(step(outputs=["value"], name="make")(make))
    return made.add_step(step(outputs=["changed"], name="change")(change)).add_step(
        step(outputs=["seen"], name="look", after=["change"])(look)
    )


def test_arrays_and_tables_are_copied() -> None:
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")

    def make() -> Any:
        return {"array": np.zeros(3), "table": pd.DataFrame({"price": [1.0, 2.0]}), "object": np.array([[1]], object)}

    def change(value: Any) -> float:
        value["array"] += 1
        value["table"]["price"] *= 1.2
        return float(value["array"].sum() + value["table"]["price"].sum())

    def look(value: Any) -> float:
        return float(value["array"].sum() + value["table"]["price"].sum())

    result = pipeline_of(make, change, look).run(on=LocalOrchestrator())
    assert (result.outputs["changed"], result.outputs["seen"]) == (pytest.approx(6.6), 3.0)
    shared = pipeline_of(make, change, look).run(on=LocalOrchestrator(share=True))
    assert shared.outputs["seen"] == pytest.approx(6.6)


def test_tables_share_what_no_step_changes() -> None:
    """A copy of a table takes no memory until its step changes it, and then one column."""
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas", minversion="3")
    changes: list[Callable[[Any], object]] = [
        lambda table: table.__setitem__("price", 0.0),
        lambda table: table.loc.__setitem__((0, "price"), -1.0),
        lambda table: table["price"].__iadd__(1),
        lambda table: table.pop("price"),
        lambda table: table.attrs["units"].append("EUR"),
        lambda table: setattr(table.index, "name", "row"),
        lambda table: table["name"].__setitem__(0, "z"),
    ]
    table = pd.DataFrame({"price": np.ones(1_000), "name": ["x"] * 1_000})
    table.attrs["units"] = ["USD"]
    for change in changes:
        changed, other = own(table), own(table)
        assert np.shares_memory(changed["price"].to_numpy(), other["price"].to_numpy())
        change(changed)
        for left in (table, other):
            assert (left["price"][0], left["name"][0], left.attrs, left.index.name) == (
                1,
                "x",
                {"units": ["USD"]},
                None,
            )


class Holder:
    def __init__(self, table: Any) -> None:
        self.table = table


@pytest.mark.slow
def test_what_the_cells_of_a_table_hold_is_copied() -> None:
    pd = pytest.importorskip("pandas")

    tables: list[Callable[[], Any]] = [
        lambda: pd.DataFrame({"tags": [["a"]]}),
        lambda: pd.DataFrame({"text": ["x"], "tags": [["a"]]}),
        lambda: pd.Series([["a"]], name="tags").to_frame(),
    ]

    def change(value: Any) -> None:
        table = getattr(value, "table", value)
        table["tags"][0].append("b")

    def look(value: Any) -> list[str]:
        return list(getattr(value, "table", value)["tags"][0])

    for make in (*tables, lambda: Holder(tables[0]())):
        assert pipeline_of(make, change, look).run(on=LocalOrchestrator()).outputs["seen"] == ["a"]


def test_a_single_step_shares_its_outputs() -> None:
    seen: list[list[int]] = []  # which live on, so that no other gets the id of one

    def make() -> list[int]:
        return [1]

    def look(value: list[int]) -> None:
        seen.append(value)

    def run(**options: Any) -> set[int]:
        seen.clear()
        made = Pipeline("sharing").add_step(step(outputs=["value"], name="make", **options)(make))
        for name in ("one", "two", "three"):
            made.add_step(step(outputs=[], name=name)(look))
        assert made.run(on=LocalOrchestrator()).success
        return {id(value) for value in seen}

    assert len(run()) > 1
    assert len(run(local={"share": True})) == 1


def test_options_of_a_step_under_local_are_checked() -> None:
    def fails(**options: Any) -> str:
        made = Pipeline("wrong").add_step(step(name="one", local=options)(lambda: 1))
        with pytest.raises(DefinitionError) as caught:
            made.run(on=LocalOrchestrator())
        return str(caught.value)

    assert "local has no option 'shared'. Did you mean 'share'? Known: reuse_process, share. (" in fails(shared=True)
    assert "step 'one': local share=1 is not True or False. (" in fails(share=1)
    with pytest.raises(DefinitionError, match="is for steps"):
        Pipeline("all", local={"share": True}).add_step(step(name="one")(lambda: 1)).run(on=LocalOrchestrator())


def test_the_only_consumer_gets_the_value_itself_and_the_caller_too() -> None:
    seen: list[int] = []

    @step(outputs=["value"])
    def make() -> list[int]:
        value = [1]
        seen.append(id(value))
        return value

    @step(outputs=["again"])
    def take(value: list[int]) -> list[int]:
        seen.append(id(value))
        return value

    result = Pipeline("one").add_step(make).add_step(take).run()
    assert seen == [id(result.outputs["again"])] * 2


def test_attempts_other_steps_and_the_caller_see_values_as_they_were_returned() -> None:
    """One object in two outputs is two values."""
    tries: list[list[int]] = []

    @step(outputs=["a", "b"])
    def twice() -> tuple[list[int], list[int]]:
        value = [1]
        return value, value

    @step(outputs=["spoiled"], retry=2)
    def spoil(a: list[int]) -> int:
        tries.append(list(a))
        a.append(2)
        if len(tries) < 3:
            raise OSError("not yet")
        return 1

    @step(outputs=["seen"], after=["spoil"])
    def look(b: list[int]) -> list[int]:
        return b

    made = Pipeline("twice", outputs=["a", "seen"]).add_step(twice).add_step(spoil).add_step(look)
    assert made.run().outputs == {"a": [1], "seen": [1]}
    assert tries == [[1]] * 3


def test_what_cannot_be_copied_is_shared() -> None:
    lock = threading.Lock()
    shared = own({"lock": lock, "rows": [1]})
    assert shared["lock"] is lock
    assert own(lock) is lock


def test_keywords_come_in_declared_order() -> None:
    @step(outputs=["b"])
    def make() -> int:
        return 2

    @step(outputs=["names"])
    def order(**values: Any) -> list[str]:
        return list(values)

    @pipeline(name="order")
    def whole(parameter: int = 1) -> Any:
        return order(z=make(), constant=5, b=make(), a=parameter)

    for workers in WORKERS:
        result = whole.run(on=LocalOrchestrator(workers=workers))
        assert result.outputs["names"] == ["z", "constant", "b", "a"]


def test_a_step_may_end_in_a_folder_that_it_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether values may be pickled stands in the settings, which are looked for from the working folder on."""
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()

    def leave() -> set[int]:
        os.chdir(gone)
        gone.rmdir()
        return {1, 2}

    result = Pipeline("leaving").add_step(step(leave)).run(on=LocalOrchestrator(keep_outputs=True))
    assert result.success, result.error
    assert result.outputs["leave"] == {1, 2}


@pytest.mark.parametrize("workers", WORKERS)
def test_an_output_that_is_nested_too_deeply_is_named(workers: Any) -> None:
    @step(outputs=["nest"])
    def make() -> list[Any]:
        nest: list[Any] = []
        for _ in range(100_000):
            nest = [nest]
        return nest

    @step
    def one(nest: list[Any]) -> int:
        return len(nest)

    pipeline = Pipeline("nesting").add_step(make).add_step(one).add_step(step(name="other")(one.function))
    result = pipeline.run(on=LocalOrchestrator(workers=workers))
    assert re.search(r"nested too deeply to be copied|list cannot be pickled: .*recursion", str(result.error))
    assert ".." not in str(result.error)
