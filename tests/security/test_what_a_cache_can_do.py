"""A forged record of a cached result leads to no other file, stands for no other step, and costs a run of the step."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.artifacts import open_store
from flowyml.artifacts.store import LocalStore
from flowyml.cli import main
from flowyml.core.errors import ArtifactError
from flowyml.plan.names import slug
from flowyml.runtime.caching import entries_in, read_entry


@step(cache=True, outputs=["made"])
def make(n: int) -> tuple[int, str]:
    return n, "honest"


class Planted:
    """What runs its writer's code when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (Path(os.environ["PLANTED"]), "read")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLANTED", str(tmp_path / "planted"))
    pipeline = Pipeline("cached", context=context(n=1)).add_step(make)
    pipeline.run().raise_for_status()
    return pipeline


def entry_of(tmp_path: Path) -> Path:
    (record,) = (tmp_path / "home").rglob("record.json")
    return record


def forge(record: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    plain = json.loads(record.read_bytes())
    changed = change(plain)
    record.write_text(json.dumps(plain if changed is None else changed))


def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "artifacts" / "other" / "run" / "1" / "made.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(Planted()))
    return path


def reference(path: Path) -> dict[str, Any]:
    import hashlib

    data = path.read_bytes()
    about = {"url": path.as_uri(), "format": "pickle", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return {"$artifact": about}


def test_a_record_leads_to_no_file_beside_it(tmp_path: Path, made: Pipeline) -> None:
    record, other = entry_of(tmp_path), elsewhere(tmp_path)
    honest = record.read_text()
    up = os.path.relpath(other, record.parent)
    about = reference(other)["$artifact"]
    outputs = [
        {"reference": reference(other), "files": [up]},
        {"reference": reference(other), "files": [str(other)]},
        {"reference": reference(other), "files": ["record.json"]},
        {"reference": reference(other), "files": [".."]},
        {"reference": reference(other), "files": [5]},
        {"reference": reference(other)},
        {"value": reference(other)},
        {"reference": {"$artifact": {"format": "pickle"}}, "files": ["made.pkl"]},
        {"reference": {}, "files": []},
        {"reference": "pickle", "files": ["made.pkl"]},
        {"reference": {"$artifact": {**about, "size": float("inf")}}, "files": ["made.pkl"]},
        {"reference": {"$artifact": {**about, "picture": {**about, "size": float("inf")}}}, "files": ["made.pkl"]},
        {"reference": {"$artifact": {**about, "picture": "made.pkl"}}, "files": ["made.pkl"]},
        reference(other),
    ]
    for output in outputs:
        record.write_text(honest)
        forge(record, lambda plain, output=output: plain["outputs"].update(made=output))
        assert main(["cache", "list"]) == 0, output
        result = made.run()
        assert (result["made"], result.step_results["make"].is_cached) == ((1, "honest"), False), output
    assert not (tmp_path / "planted").exists()


def test_a_link_in_the_folder_of_an_entry_is_not_followed(tmp_path: Path, made: Pipeline) -> None:
    record, other = entry_of(tmp_path), elsewhere(tmp_path)
    (record.parent / "made-link.pkl").symlink_to(other)
    forge(
        record, lambda plain: plain["outputs"].update(made={"reference": reference(other), "files": ["made-link.pkl"]})
    )
    assert made.run()["made"] == (1, "honest")
    assert not (tmp_path / "planted").exists()


def test_a_file_that_is_not_what_was_written_is_not_read(tmp_path: Path, made: Pipeline) -> None:
    (stored,) = entry_of(tmp_path).parent.glob("*.pkl")
    stored.unlink()
    stored.write_bytes(pickle.dumps(Planted()))
    result = made.run()
    assert not (tmp_path / "planted").exists()
    assert result["made"] == (1, "honest")


def test_a_damaged_file_of_the_same_size_costs_a_run_of_the_step(
    tmp_path: Path, made: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    (stored,) = entry_of(tmp_path).parent.glob("*.pkl")
    data = stored.read_bytes()
    stored.unlink()
    stored.write_bytes(data[:-1] + b"x")
    for is_cached in (False, True):
        result = made.run()
        assert (result["made"], result.step_results["make"].is_cached) == ((1, "honest"), is_cached)
    assert caplog.text.count("ignored a cached result") == 1


def test_a_record_stands_for_its_own_result_alone(tmp_path: Path, made: Pipeline) -> None:
    record = entry_of(tmp_path)
    store = open_store()
    folder = record.parent.relative_to(store.root).as_posix() if isinstance(store, LocalStore) else ""
    for change in (
        lambda plain: plain.update(step="another"),
        lambda plain: plain.update(pipeline="another"),
        lambda plain: plain["depends"].update(code="0" * 64),
        lambda plain: plain.update(outputs=[]),
        lambda plain: plain.update(created="yesterday"),
        lambda plain: plain.update(created=1e300),
        lambda plain: plain.update(seconds=float("nan")),
        lambda plain: plain.update(run_id=["x"]),
        lambda plain: [plain],
    ):
        honest = record.read_text()
        forge(record, change)
        with pytest.raises(ArtifactError):
            read_entry(store, folder)
        record.write_text(honest)
    forge(record, lambda plain: plain["outputs"].update(more={"value": 1}))
    assert not made.run().step_results["make"].is_cached


def test_a_record_of_another_step_is_not_taken_for_this_one(tmp_path: Path, made: Pipeline) -> None:
    """Names that look alike as folders are told apart, and so is a folder that was copied."""
    record = entry_of(tmp_path)
    there = record.parent.parent.parent / slug("other step") / record.parent.name
    there.mkdir(parents=True)
    (there / "record.json").write_text(record.read_text())
    assert [entry for folder, entry in entries_in(open_store()) if "other" in folder] == [None]


def test_where_pickles_are_forbidden_a_result_that_is_one_does_not_count(
    tmp_path: Path, made: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made.run().step_results["make"].is_cached
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    result = made.run()
    assert result["made"] == (1, "honest")
    assert not result.step_results["make"].is_cached


def test_names_of_steps_and_values_lead_nowhere(tmp_path: Path, made: Pipeline) -> None:
    names = ["../../up", "..", "a/b", "CON", "ü '\"", "record.json", "$(id)"]
    for name in names:
        hostile = Pipeline(name, context=context(n=1)).add_step(make.options(name=name))
        hostile.run().raise_for_status()
        assert hostile.run().step_results[name].is_cached
    root = (tmp_path / "home" / "artifacts").resolve()
    assert not (tmp_path / "up").exists()
    assert all(path.resolve().is_relative_to(root / "cache") for path in (tmp_path / "home").rglob("record.json"))


def test_what_is_listed_and_deleted_stays_in_the_store(
    tmp_path: Path, made: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    record = entry_of(tmp_path)
    forge(record, lambda plain: plain.update(run_id="\x1b[31mred\x1b]0;title\x07"))
    assert main(["cache", "list"]) == 0
    assert "\x1b" not in capfd.readouterr().out
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("mine")
    (record.parent.parent / ("f" * 64)).symlink_to(kept)
    assert main(["cache", "clear", "--all"]) == 0
    assert (kept / "file").read_text() == "mine"
    assert not record.exists()


def test_nothing_that_is_kept_holds_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "planted-as/secret+18&more"
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLOWYML_SECRET_WAREHOUSE_PASSWORD", value)

    @step(secrets={"password": "warehouse/password"}, cache=True)
    def signs_in(password: str = "") -> int:
        print(f"as {password}")
        return len(password)

    @step(secrets={"password": "warehouse/password"}, cache=True)
    def gives(signs_in: int, password: str = "") -> str:
        return f"://app:{password}@host"

    pipeline = Pipeline("secretive").add_step(signs_in).add_step(gives)
    for _ in range(2):
        result = pipeline.run()
        assert "output 'gives' contains the value of a secret" in str(result.error)
    assert result.step_results["signs_in"].is_cached
    kept = [
        path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.suffix != ".pyz"
    ]  # has this file
    assert not [path for path in kept if value.encode() in path.read_bytes()]


def test_a_record_holds_no_value_of_a_parameter(tmp_path: Path, made: Pipeline) -> None:
    @step(cache=True)
    def given(word: str) -> int:
        return len(word)

    Pipeline("words", context=context(word="planted-parameter")).add_step(given).run().raise_for_status()
    records = [path.read_text() for path in (tmp_path / "home").rglob("record.json")]
    assert len(records) == 2
    assert not any("planted-parameter" in text for text in records)
