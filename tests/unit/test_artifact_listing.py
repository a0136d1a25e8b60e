"""What a run has stored, as it is listed, downloaded and shown."""

from __future__ import annotations

import json
import math
import pickle
import shlex
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import pytest

from flowyml import LOGICAL_DATE, for_each, pipeline, report, step
from flowyml.artifacts import artifact_key, open_store, pack, unpack
from flowyml.artifacts.files import place_folder
from flowyml.artifacts.folders import files_here
from flowyml.artifacts.listing import artifact_of, artifacts_of
from flowyml.artifacts.markdown import artifacts_in, escaped, markdown_of
from flowyml.artifacts.previews import preview_of
from flowyml.artifacts.store import Store
from flowyml.cli.records import format_value, plain_outputs, plain_run
from flowyml.core.errors import ArtifactError, ConfigurationError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Artifact, Outputs, Run
from flowyml.orchestrators.downloading import download
from flowyml.orchestrators.local import LocalOrchestrator
from flowyml.orchestrators.local.store import RunStore
from tests.unit.commands import flowyml


@step
def count() -> int:
    return 3


@step(outputs=["rows", "scores"])
def look(number: int) -> tuple[Annotated[list[dict[str, Any]], "table"], dict[str, float]]:
    report("rows", source="made up")
    return [{"n": n} for n in range(number)], {"auc": 0.5}


@step
def write(rows: list[dict[str, Any]]) -> Path:
    path = Path("written.txt").absolute()
    path.write_text(f"{len(rows)} rows")
    return path


@step
def each(number: int) -> dict[str, int]:
    return {"n": number}


@pipeline(name="listing")
def listing() -> Any:
    rows, scores = look(count())
    with for_each([1, 2]) as item:
        each(item)
    return {"text": write(rows), "scores": scores}


def by_label(found: list[Artifact]) -> dict[str, Artifact]:
    return {artifact.label: artifact for artifact in found}


@step
def big() -> bytes:
    return b"y" * 100_000


@pipeline(name="plain and large")
def plain_and_large() -> Any:
    return {"b": big()}


def test_a_large_output_without_a_kind_is_listed_and_downloaded(tmp_path: Path) -> None:
    """It was stored, but listed only where the run had given something with facts as well."""
    local = LocalOrchestrator(keep_outputs=True)
    run = local.attach(plain_and_large.run(on=local).run_id)
    (found,) = run.artifacts()
    assert (found.label, found.type) == ("big.big", "data")
    (made,) = download([found], local.artifact_stores(run.job_id), tmp_path / "out")
    assert made.stat().st_size == found.size
    assert found.url


@step
def fail(rows: Any, large: bytes, items: list[bytes]) -> None:
    raise ValueError("a bug")


@step
def part(number: int) -> bytes:
    return b"z" * (100_000 + number)


@step(outputs=["share", "word"])
def facts() -> tuple[float, str]:
    return 0.5, "yes"


@pipeline(name="half done")
def half_done() -> None:
    rows, _ = look(2)
    with for_each([1, 2]) as item:
        parts = part(item)
    facts()
    fail(rows, big(), parts)


def test_a_partial_download_of_a_failed_run_writes_what_completed_steps_returned(tmp_path: Path) -> None:
    run_id = half_done.run(on=LocalOrchestrator(keep_outputs=True)).run_id
    alone = flowyml("outputs", run_id, "--download", str(tmp_path / "listed"))
    assert "no stored file: " in alone.err
    assert "--partial" in alone.err
    advised = shlex.split(flowyml("outputs", run_id).err.rpartition(": ")[2])
    assert advised[0] == "flowyml"
    assert "  facts.share = 0.5" in flowyml(*advised[1:]).out
    out = tmp_path / "out"
    made = flowyml("outputs", run_id, "--partial", "--download", str(out))
    assert (made.code, made.err) == (0, "")
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    assert sorted(files) == [
        "big/big.bin", "facts/share.json", "facts/word.txt", "look/rows.json", "look/scores.json",
        "part[0]/part.bin", "part[1]/part.bin",
    ]  # fmt: skip
    assert json.loads(files["look/rows.json"].read_bytes()) == [{"n": 0}, {"n": 1}]
    assert files["part[1]/part.bin"].read_bytes() == b"z" * 100_002
    assert (files["facts/share.json"].read_text(), files["facts/word.txt"].read_text()) == ("0.5", "yes")
    one = flowyml("outputs", run_id, "look.rows", "--partial", "--download", str(tmp_path / "one"), "--json").json
    assert one == [str(tmp_path / "one/look/rows.json")]


def test_an_output_that_could_not_be_stored_is_shown_wherever_the_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps have completed, and so has the run; the output is lost all the same."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "file/store"))
    run_id = plain_and_large.run(on=LocalOrchestrator(keep_outputs=True)).run_id
    assert "output b: Output 'b' of run " in (text := flowyml("status", run_id).out)
    assert "could not be kept" in text
    reason = flowyml("status", run_id, "--json").json["not_kept"]["b"]
    watched = flowyml("watch", run_id)
    assert watched.code == 0
    assert f"  b: {reason}" in watched.out
    assert flowyml("watch", run_id, "--json").json["outputs"] == {"b": {"$not_kept": reason}}


def test_a_list_of_artifacts_that_cannot_be_written_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise ConfigurationError("The record is full.")

    monkeypatch.setattr(RunStore, "keep", full)
    result = plain_and_large.run(on=LocalOrchestrator(keep_outputs=True))
    assert (result.success, len(result["b"])) == (True, 100_000)
    assert f"Artifacts of run {result.run_id!r} could not be listed. The record is full." in caplog.text


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file among the outputs is shown by its URL, since its copy is gone when the command ends."""
    monkeypatch.chdir(tmp_path)
    run_id = listing.run(on=LocalOrchestrator(keep_outputs=True)).run_id
    plain = flowyml("artifacts", run_id, "--json").json
    assert [(each["step"], each["name"], each["type"]) for each in plain][2:] == [
        ("look", "rows", "table"), ("look", "scores", "metrics"), ("write", "write", "file"),
    ]  # fmt: skip
    assert "no stored file, rows=3" in flowyml("artifacts", run_id).out
    got = flowyml("outputs", run_id, "write", "--download", "out", "--json").json
    assert [Path(path).read_text() for path in got] == ["3 rows"]
    (tmp_path / "out/write/written.txt").write_text("mine")
    failed = flowyml("outputs", run_id, "--download", "out")
    assert (failed.code != 0, "already exists with different content" in failed.err) == (True, True)
    assert (tmp_path / "out/write/written.txt").read_text() == "mine"
    missing = flowyml("outputs", run_id, "no", "--download", "out").err
    assert missing == flowyml("outputs", run_id, "no").err
    assert "This run has no output 'no'. It has these, of the pipeline: " in missing
    assert "text" in missing
    assert "write.write" in missing
    for name in ("text", "write.write"):  # the same file has both names, here and there
        got = flowyml("outputs", run_id, name, "--download", f"out {name}", "--json").json
        assert [Path(path).read_text() for path in got] == ["3 rows"]
        assert flowyml("outputs", run_id, name, "--json").json[name]["$url"].endswith(".file")
    url = {each["name"]: each["url"] for each in plain}["write"]
    whole = flowyml("outputs", run_id)
    assert f"  text = {url}\n" in whole.out
    assert f"to write the files to a folder: flowyml outputs {run_id} --download DIR\n" in whole.err
    assert flowyml("outputs", run_id, "text").out == f"{url}\n"
    text = flowyml("outputs", run_id, "--json").json["text"]
    assert (text["$url"], text["$repr"], text["$type"].endswith("Path")) == (url, url, True)
    assert f"  text = {url}\n" in flowyml("watch", run_id).out


def test_a_download_goes_on_after_an_artifact_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local = LocalOrchestrator(keep_outputs=True)
    run_id = listing.run(on=local).run_id
    text = by_label(local.attach(run_id).artifacts())["write.write"]
    Path(urlsplit(str(text.url)).path).unlink()
    out = tmp_path / "out"
    (out / "look").mkdir(parents=True)
    (out / "look/scores.json").write_text("mine")
    done = flowyml("outputs", run_id, "--download", str(out))
    assert (done.code, done.out.splitlines()) == (1, [str(out / f"each[{n}]/each.json") for n in (0, 1)])
    notes, mine, gone = done.err.splitlines()[0], *done.err.splitlines()[-2:]
    assert notes == "no stored file: look.rows"
    assert mine.startswith("error: look.scores: ")
    assert "already exists with different content" in mine
    assert gone.startswith("error: write.write: ")
    assert str(text.url) in gone
    (out / "look/scores.json").unlink()
    again = flowyml("outputs", run_id, "--download", str(out), "--json")
    assert (again.code, len(again.json), again.err.count("error: ")) == (1, 3, 1)


def test_copies_of_files_within_other_values_are_shown_by_their_urls(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    (tmp_path / "a.txt").write_text("a")
    packed = pack(tmp_path / "a.txt", store, key="a/b")
    copy, url = unpack(packed, store), packed["$artifact"]["url"]
    assert copy.read_text() == "a"
    plain = plain_outputs(Outputs({"files": [{"first": copy}, Path("/x")]}))["files"]
    assert plain[0]["first"]["$url"] == url
    assert "/x" in plain[1]["$repr"]
    assert format_value([copy]).startswith(f"[{url}"[:150])
    assert format_value({"first": (copy,)}).startswith(f"{{'first': ({url}"[:150])
    with files_here():
        assert format_value(unpack(packed, store)) != url, "within a step it is a file as any other"


def test_a_dict_that_is_like_what_json_lacks_is_told_apart() -> None:
    alike = {"$type": "float", "$repr": "nan"}
    outputs = Outputs({"nan": math.nan, "alike": alike, "kept": [{"$not_kept": "no"}], "deep": {"a": {"$ref": 1}}})
    assert plain_outputs(outputs) == {
        "nan": alike, "alike": {"$type": "dict", "$value": alike},
        "kept": [{"$type": "dict", "$value": {"$not_kept": "no"}}], "deep": {"a": {"$ref": 1}},
    }  # fmt: skip
    run = Run(
        job_id="1", run_id="1", pipeline="p", status=ExecutionStatus.COMPLETED, raw_status="COMPLETED",
        parameters={"day": LOGICAL_DATE, "alike": {"$filled": "x"}},
    )  # fmt: skip
    filled, told_apart = plain_run(run, "local")["parameters"].values()
    assert set(filled) == {"$filled"}
    assert told_apart == {"$type": "dict", "$value": {"$filled": "x"}}


def test_files_of_one_name_and_folders_that_are_there(tmp_path: Path) -> None:
    store, folder = open_store(tmp_path / "store"), tmp_path / "model"
    files = []
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.csv").write_text(name)
        key = artifact_key("here/listing/run", "split", 1, name)
        files += artifacts_of("split", {name: pack(tmp_path / name / "data.csv", store, key=key)})
    folder.mkdir()
    (folder / "weights").write_text("1")
    found = [*files, stored(folder, store)]
    (alone,) = download(found, [store], tmp_path / "out", wanted=lambda each: each.name == "test")
    assert alone == tmp_path / "out/split/test/data.csv", "it keeps its name when the others come"
    for _ in range(2):
        made = download(found, [store], tmp_path / "out")
        assert [path.relative_to(tmp_path / "out").as_posix() for path in made] == [
            "split/data.csv", "split/test/data.csv", "step/model",
        ]  # fmt: skip
        assert [path.read_text() for path in made[:2]] == ["train", "test"]
    for change in (lambda path: path.write_text("2"), lambda path: path.symlink_to(folder / "weights")):
        (made[2] / "weights").unlink()
        change(made[2] / "weights")
        with pytest.raises(ArtifactError, match="already exists with different content"):
            download(found, [store], tmp_path / "out")


def test_half_a_folder_does_not_stay(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as file:
        file.addfile(tarfile.TarInfo("whole"))
        file.addfile(tarfile.TarInfo("../out"))
    with pytest.raises(ArtifactError, match="neither a file in it nor a folder"):
        place_folder(archive, "half", tmp_path)
    assert not (tmp_path / "half").exists()


KILLED = """
import os, pickle, signal, sys
from flowyml.orchestrators.downloading import download

def kill(event, arguments):
    if event == "os.link" or (event == "open" and str(arguments[0]).endswith("second")):
        os.kill(os.getpid(), signal.SIGKILL)

found, store, folder = pickle.loads(bytes.fromhex(sys.argv[1]))
sys.addaudithook(kill)
download([found], [store], folder)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_download_that_is_killed_leaves_nothing_under_the_name(tmp_path: Path, kind: str) -> None:
    store, value = open_store(tmp_path / "store"), tmp_path / "value"
    if kind == "folder":
        value.mkdir()
        (value / "first").write_text("1")
        (value / "second").write_text("2")
    else:
        value.write_text("1")
    found = stored(value, store)
    given = pickle.dumps((found, store, tmp_path / "out")).hex()
    assert subprocess.run([sys.executable, "-c", KILLED, given], check=False).returncode == -signal.SIGKILL
    assert [path.name[:5] for path in (tmp_path / "out/step").iterdir()] == [".new-"]
    assert [path.name for path in download([found], [store], tmp_path / "out")] == ["value"]


def stored(value: Any, store: Store, **about: Any) -> Artifact:
    key = artifact_key("here/listing/run", "step", 1, "out")
    preview = preview_of(value, store, lambda: key, **about)
    (found,) = artifacts_of("step", {"out": pack(value, store, key=key, preview=preview)})
    return found


def test_what_is_hidden_in_markdown_is_found_again_and_nothing_that_others_wrote(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    found = stored([{"a": 1}], store, kind="table", facts={"note": "<!-- flowyml:e30= -->"})
    assert artifacts_in(markdown_of([found])) == [found]
    for text in (None, 3, "", "<!-- flowyml:e30= -->", "<!-- flowyml:!! -->", "<!-- flowyml:W1sxXV0= -->"):
        assert artifacts_in(text) == []
    assert escaped("a  \n b") == "a b"


@pytest.mark.parametrize("line", ["===", "---", "***", "___", "# x", "> x", "- x", "+ x", "1. x", "1) x", "```", "~~~"])
def test_no_quoted_line_is_more_than_a_line(line: str, tmp_path: Path) -> None:
    """Under a line of text, some of them would make a heading of it."""
    parser = pytest.importorskip("markdown_it").MarkdownIt()
    found = stored(f"text\n{line}", open_store(tmp_path / "store"), kind="text", facts={"n": 1})
    tokens = [token.type for token in parser.parse(markdown_of([found]))]
    quoted = tokens[tokens.index("blockquote_open") : tokens.index("blockquote_close")]
    assert quoted == ["blockquote_open", "paragraph_open", "inline", "paragraph_close"]
    assert tokens.count("heading_open") == 1


def test_a_small_picture_stands_in_the_text(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2])
    store = open_store(tmp_path / "store")
    found = stored(figure, store)
    assert "](data:image/png;base64,iVBOR" in markdown_of([found], store.url)
    elsewhere = markdown_of([found], str(tmp_path / "other"))
    assert "data:image" not in elsewhere
    assert "picture is at" in elsewhere


@pytest.mark.parametrize(
    "packed",
    [
        {"$artifact": 3},
        {"$artifact": {}},
        {"$artifact": {"size": "x", "metadata": [], "picture": 1, "url": 5}},
        [],
        None,
    ],
)
def test_what_an_engine_garbled_is_listed_as_far_as_it_can_be(packed: Any) -> None:
    found = artifact_of("step", "out", packed)
    assert found is None or (found.size, found.url, found.metadata, found.picture) == (None, None, {}, None)
