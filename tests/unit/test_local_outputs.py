"""Outputs of a blocking run: which are kept, and what the disk and a value may do to them."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import pytest

from flowyml import Pipeline, either, for_each, otherwise, pipeline, report, step, when
from flowyml.core.errors import OutputNotKeptError, StepError
from flowyml.core.runs import Outputs
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.downloading import download
from flowyml.orchestrators.local import run
from flowyml.orchestrators.local.outputs import Returned, read, record
from flowyml.orchestrators.local.store import RunStore
from flowyml.runtime.nodes import Frame, Task
from tests.unit.local_runs import COMPLETED, FAILED, chain

pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


def test_outputs_that_are_kept_and_those_that_are_not(
    local: LocalOrchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Small:
        pass

    @step(outputs=["plain", "big_integer", "pair", "large", "lock", "small"])
    def make() -> tuple[Any, ...]:
        return {"a": [1, None]}, 2**70, (1, 2), "x" * 100_000, threading.Lock(), Small()

    pipeline = Pipeline("outputs not kept").add_step(make)
    result = pipeline.run(on=local)
    assert len(result["large"]) == 100_000
    kept = local.outputs(result.run_id)
    assert kept == {"plain": {"a": [1, None]}, "big_integer": 2**70, "pair": (1, 2)} | {"small": kept["small"]}
    with pytest.raises(
        OutputNotKeptError,
        match=r"keeps only small values, and this is a large str\. .*`flowyml run`, .*keep_outputs=True",
    ):
        kept["large"]
    with pytest.raises(OutputNotKeptError, match=r"_thread\.lock"):
        kept["lock"]
    with pytest.raises(OutputNotKeptError, match=r"_thread\.lock"):
        kept.get("lock")
    assert ("lock" in kept, kept.get("pair"), kept.get("no such", 3)) == (True, (1, 2), 3)
    assert (len(kept), len(dict(kept))) == (6, 4)
    copied = pickle.loads(pickle.dumps(Outputs({"a": 1}, not_kept={"b": "no"})))
    assert (dict(copied), copied.not_kept, len(copied)) == ({"a": 1}, {"b": "no"}, 2)
    assert local.get_run(result.run_id).not_kept == kept.not_kept
    said = f"Only this process has 'large', 'lock' of run '{result.run_id}', since run() keeps only small values"
    pipeline.run(on=local)
    assert [record.getMessage()[: len(said)] for record in caplog.records] == [said], "once"


def test_an_output_that_a_failed_run_lacks_is_the_failure(local: LocalOrchestrator) -> None:
    @step
    def good() -> int:
        return 1

    @step
    def bad() -> int:
        raise ZeroDivisionError("by nothing")

    @pipeline
    def made() -> Any:
        return {"one": good(), "two": bad()}

    result = made.run(on=local)
    assert result.step_results["good"].outputs == {"good": 1}
    with pytest.raises(StepError, match=r"has no output 'two': it ended FAILED: step 'bad': .*by nothing") as caught:
        result["two"]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    handle = local.attach(result.run_id)
    for outputs in (result.outputs, handle.outputs, handle.result().outputs):
        with pytest.raises(StepError, match=r"has no output 'two': it ended FAILED: step 'bad': .*by nothing"):
            outputs["two"]
        assert (outputs.get("two", 5), "two" in outputs, len(outputs), dict(outputs)) == (5, False, 0, {})


@pytest.mark.parametrize("keep", [True, False])
def test_outputs_that_json_cannot_carry_end_no_run(tmp_path: Path, keep: bool) -> None:
    class Hostile(list[int]):
        def __len__(self) -> int:
            raise ZeroDivisionError

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise ZeroDivisionError

    @step(outputs=["huge", "deep", "hostile", "plain"])
    def make() -> tuple[Any, ...]:
        deep: list[Any] = []
        for _ in range(100_000):  # Python 3.12 has raised the limit of pickle from about 1,000 to 10,000
            deep = [deep]
        return math.factorial(2000), deep, Hostile(), 1

    local = LocalOrchestrator(store=tmp_path / "runs.db", keep_outputs=keep)
    result = Pipeline("odd").add_step(make).run(on=local)
    assert result["huge"] == math.factorial(2000)
    assert local.get_run(result.run_id).status is COMPLETED
    kept = local.outputs(result.run_id)
    assert (kept["huge"], kept["plain"]) == (math.factorial(2000), 1)
    for name in ("deep", "hostile"):
        with pytest.raises(OutputNotKeptError, match=f"Output '{name}' .* kept"):
            kept[name]


def test_an_end_is_recorded_whatever_goes_wrong_with_the_outputs(
    local: LocalOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chain(1).run(on=local, run_id="a")
    assert local.get_run("a").status is COMPLETED


def test_a_result_outlives_a_full_disk(tmp_path: Path) -> None:
    """The limit on the size of files is to SQLite what a full disk is: the transaction is over when it fails."""
    code = """
import resource, sys, time
from flowyml import Pipeline, report, step
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.downloading import download

def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    print("a line to record")
    time.sleep(1)  # the recorder tries many times meanwhile
    return 42

local = LocalOrchestrator(store=sys.argv[1])
print(Pipeline("full").add_step(step(name="a", outputs=["x"])(fill)).run(on=local, run_id="r")["x"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(local.get_run("r").status)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "runs.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2400)
    assert done.stdout == "a line to record\n42\nRUNNING\n", done.stderr
    assert done.stderr.count("trying again until the run ends") == 1
    assert "Run 'r' ended COMPLETED; that could not be recorded. The record of local runs, " in done.stderr
    assert "cannot rollback" not in done.stderr


def test_a_run_in_the_background_that_could_not_record_its_outputs_has_not_completed(local: LocalOrchestrator) -> None:
    with local.store.session() as db:
        fails = "BEGIN SELECT RAISE(ABORT, 'no space'); END"
        db.execute(f"CREATE TRIGGER full BEFORE UPDATE ON runs WHEN NEW.status = 'COMPLETED' {fails}")
    handle = chain(1).submit(on=local)
    handle.wait_for_completion(2400, progress=False)
    assert (handle.status, handle.raw_status) == (FAILED, "crashed")
    assert "its outputs and steps could not be recorded" in (handle.error or "")


@pytest.mark.processes
def test_large_outputs_keep_their_kind_facts_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "artifacts"))
    pytest.importorskip("matplotlib")
    figures = pytest.importorskip("matplotlib.figure")

    @step(outputs=["model"])
    def train() -> Annotated[Any, "model"]:
        report(rows=7)
        return set(range(100_000))

    @step(outputs=["figure"])
    def draw() -> Any:
        figure = figures.Figure()
        figure.subplots().plot(range(20_000))
        return figure

    local = LocalOrchestrator(store=tmp_path / "runs.db", keep_outputs=True, workers="processes")
    done = Pipeline("seen").add_step(train).add_step(draw).run(on=local)
    assert done.success, done.error
    found = {each.name: each for each in local.attach(done.run_id).artifacts()}
    assert found["model"].type == "model"
    assert found["model"].metadata["rows"] == 7
    assert found["figure"].type == "figure"
    assert found["figure"].picture
    assert found["figure"].url
    local.prune(older_than=0)
    assert not [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]


@pytest.mark.parametrize("value", [b"x" * 300_000, "x" * 300_000, (1, "x" * 300_000), list(range(100_000))])
def test_an_output_beyond_the_limit_is_not_kept_and_leaves_nothing(tmp_path: Path, value: object) -> None:
    outputs = {"v0": Returned(value, [(Task(Frame(), step, 0), "v0") for step in chain(1).compile()])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "artifacts"))
        entry, stored = record(RunStore(tmp_path / "runs.db"), "p", "limited", outputs, [], max_bytes=200_000)
        assert "of more than 0.0002 GB. Run it with LocalOrchestrator(keep_outputs=True)" in entry["v0"]["not_kept"]
        assert not stored
        assert not [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
        entry, stored = record(RunStore(tmp_path / "runs.db"), "p", "limited", outputs, [], max_bytes=1e6)
        assert len(stored) == 1
        assert read("limited", json.dumps(entry)) == {"v0": value}


def test_cached_outputs_keep_their_kind_facts_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "artifacts"))

    @step(outputs=["model", "small", "figure"], cache=True)
    def train() -> tuple[Annotated[Any, "model"], list[int], Any]:
        report("model", rows=7)
        report("small", n=1)
        figure = figures.Figure()
        figure.subplots().plot([1, 3, 2])
        return set(range(1_000)), [1], figure

    local = LocalOrchestrator(store=tmp_path / "runs.db", keep_outputs=True)
    for cached in (False, True):
        done = Pipeline("cached").add_step(train).run(on=local).raise_for_status()
        assert done.step_results["train"].is_cached is cached
        found = {each.name: each for each in local.attach(done.run_id).artifacts()}
        assert (found["model"].type, found["model"].metadata["rows"]) == ("model", 7)
        assert found["small"].metadata["n"] == 1
        assert found["figure"].picture is not None
        assert isinstance(done["figure"], figures.Figure)


def test_small_outputs_that_are_not_plain_are_files_too(tmp_path: Path) -> None:
    """As on an engine: a model, a figure, a table."""

    @step(outputs=["plain", "pair", "data"])
    def make() -> tuple[Any, ...]:
        return {"a": "text"}, (1, 2), b"123"

    keeping = LocalOrchestrator(keep_outputs=True)
    result = Pipeline("small outputs").add_step(make).run(on=keeping)
    handle = keeping.attach(result.run_id)
    written = download(handle.artifacts(), keeping.artifact_stores(handle.job_id), tmp_path / "files")
    assert {path.relative_to(tmp_path / "files").as_posix() for path in written} == {"make/pair.pkl", "make/data.bin"}
    assert handle.outputs == {"plain": {"a": "text"}, "pair": (1, 2), "data": b"123"}


@step
def fit(fold: int) -> Annotated[Any, "model"]:
    if fold == 7:
        raise ValueError("of this fold alone")
    return {fold}


@step
def note(fold: int) -> Path:
    made = Path(tempfile.mkdtemp()) / "note.txt"
    made.write_text(f"of {fold}")
    return made


@step
def rows(fold: int, part: int) -> tuple[int, int]:
    return fold, part


@step
def score(fold: int) -> int:
    return fold


@pipeline
def folds() -> dict[str, Any]:
    with for_each([5, 7, 9], on_item_error="continue") as fold:
        models, scores = fit(fold), score(fold)
    with for_each([1, 2]) as fold:
        notes = note(fold)
        with for_each([3, 4]) as part:
            pairs = rows(fold, part)
    with when(score.options(name="decide")(1) > 0):
        one = fit.options(name="one")(1)
    with otherwise():
        other = fit.options(name="other")(2)
    return {"models": models, "scores": scores, "notes": notes, "pairs": pairs, "either": either(one, other)}


@pytest.mark.parametrize("workers", ["threads", pytest.param("processes", marks=pytest.mark.processes)])
def test_outputs_of_items_and_branches_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: Any
) -> None:  # fmt: skip
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLOWYML_ARTIFACTS", raising=False)
    local = LocalOrchestrator(keep_outputs=True, workers=workers)
    result = folds.run(on=local).raise_for_status()
    run = local.attach(result.run_id)
    written = download(run.artifacts(), local.artifact_stores(run.job_id), tmp_path / "files")
    pairs = [f"rows[{i}][{j}]/rows.pkl" for i in (0, 1) for j in (0, 1)] if workers == "processes" else []
    assert [path.relative_to(tmp_path / "files").as_posix() for path in written] == [
        "fit[0]/fit.pkl", "fit[2]/fit.pkl", "note[0]/note.txt", "note[1]/note.txt", *pairs, "one/one.pkl",
    ]  # fmt: skip
    assert {each.type for each in run.artifacts() if each.step in ("fit", "one")} == {"model"}
    outputs = run.outputs
    assert [path.read_text() for path in outputs.pop("notes")] == ["of 1", "of 2"]
    assert outputs == {name: value for name, value in result.outputs.items() if name != "notes"}
    assert outputs["models"] == [(0, {5}), (2, {9})]
    files = [path for path in (tmp_path / "home/artifacts").rglob("*") if path.is_file()]
    assert len(files) == len(written)
    assert local.prune(older_than=0)
    assert not [path for path in files if path.exists()]


def test_a_list_of_which_an_item_cannot_be_stored_keeps_the_files_of_the_others(tmp_path: Path) -> None:
    @step
    def make(number: int) -> Any:
        return threading.Lock() if number == 2 else complex(number)

    @pipeline
    def some() -> Any:
        with for_each([1, 2, 3]) as number:
            return make(number)

    local = LocalOrchestrator(keep_outputs=True)
    run = local.attach(some.run(on=local).raise_for_status().run_id)
    with pytest.raises(OutputNotKeptError, match=r"Output 'make' of run .* could not be kept: .*lock"):
        run.outputs["make"]
    assert [each.label for each in run.artifacts()] == ["make[0].make", "make[2].make"]
