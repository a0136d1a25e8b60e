"""What a retry with new code takes: the retried run's own results, for one run alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from flowyml.artifacts import artifact_key, open_store, pack, run_place
from flowyml.artifacts.store import Store
from flowyml.core.errors import ArtifactError
from flowyml.runtime.execution import TAKEN_FILE
from flowyml.runtime.kept_outputs import KeptOutputs
from flowyml.runtime.taken import Taken

MINE = run_place("prefect 1", "training", "old")
NEW = run_place("prefect 2", "training", "new")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "artifacts"))


def stored(store: Store, place: str) -> object:
    return pack((1, 2), store, key=artifact_key(place, "load", 1, "rows"))


def test_a_result_is_copied_from_the_retried_run(store: Store) -> None:
    taken = Taken(MINE, {"load": ("older", {"rows": stored(store, MINE)})})
    outputs = taken.outputs("load", store, partial(artifact_key, NEW, "load", 1))
    assert outputs is not None
    assert outputs.cached_from == "older"
    assert f"{store.url}/{NEW}/load/1/rows-" in json.dumps(outputs["rows"])
    assert taken.outputs("train", store, partial(artifact_key, NEW, "train", 1)) is None


@pytest.mark.parametrize("place", [run_place("prefect 1", "training", "another"), "cache/training/load", NEW])
def test_a_record_that_names_another_run_s_artifact_is_refused(store: Store, place: str) -> None:
    taken = Taken(MINE, {"load": ("old", {"rows": stored(store, place)})})
    with pytest.raises(ArtifactError, match="does not belong to the run whose results are taken"):
        taken.outputs("load", store, partial(artifact_key, NEW, "load", 1))


def test_a_record_that_names_a_file_outside_of_the_store_is_refused(store: Store, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    taken = Taken(MINE, {"load": ("old", {"rows": stored(other, MINE)})})
    with pytest.raises(ArtifactError, match="does not belong"):
        taken.outputs("load", store, partial(artifact_key, NEW, "load", 1))


def test_a_link_in_the_place_of_an_artifact_is_not_copied(store: Store, tmp_path: Path) -> None:
    packed = stored(store, MINE)
    (path,) = (file for file in (tmp_path / "artifacts").rglob("*") if file.is_file())
    secret = tmp_path / "secret"
    secret.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(secret)
    taken = Taken(MINE, {"load": ("old", {"rows": packed})})
    with pytest.raises(ArtifactError):
        taken.outputs("load", store, partial(artifact_key, NEW, "load", 1))


def test_saved_outputs_are_those_of_their_step_and_run(tmp_path: Path) -> None:
    """An object in a store may be exchanged with another one, be cut short, or be of another shape: the step runs."""
    first, other = (KeptOutputs(str(tmp_path), place) for place in (MINE, NEW))
    for kept, label, value in ((first, "train[0]", 1), (first, "train[1]", 2), (other, "train[0]", 3)):
        kept.keep(label, {"model": value})
    here, beside, elsewhere = sorted(tmp_path.rglob("outputs.json"))
    assert first.read("train[0]") == {"model": 1}
    whole = here.read_bytes()
    for data in (beside.read_bytes(), elsewhere.read_bytes(), whole.replace(b"1", b"7", 1), whole[:-1], b"[]", b"{}"):
        here.unlink()
        here.write_bytes(data)
        assert first.read("train[0]") is None
    here.write_bytes(whole)
    assert first.read("train[0]") == {"model": 1}


def test_another_run_of_the_same_bundle_takes_nothing(tmp_path: Path) -> None:
    """Such as one by the schedule of a DAG that was deployed for the retry."""
    taken = Taken(MINE, {"load": ("old", {"rows": 1})})
    (tmp_path / TAKEN_FILE).write_bytes(taken.written("new"))
    assert Taken.read(tmp_path, "new").results == {"load": ["old", {"rows": 1}]}
    assert Taken.read(tmp_path, "scheduled") == Taken()
