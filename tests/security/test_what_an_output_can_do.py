"""Outputs of a hostile step, or of someone who writes to the store: what is shown, unpacked and downloaded."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from flowyml.artifacts import artifact_key, open_store, pack, unpack
from flowyml.artifacts.files import safe_name
from flowyml.artifacts.folders import files_here
from flowyml.artifacts.listing import artifact_of, artifacts_of
from flowyml.artifacts.markdown import artifacts_in, markdown_of
from flowyml.artifacts.previews import preview_of
from flowyml.artifacts.store import Store
from flowyml.core.errors import ArtifactError
from flowyml.core.runs import Artifact
from flowyml.orchestrators.downloading import download


def stored(value: Any, store: Store, **about: Any) -> Artifact:
    key = artifact_key("here/listing/run", "step", 1, "out")
    preview = preview_of(value, store, lambda: key, **about)
    (found,) = artifacts_of("step", {"out": pack(value, store, key=key, preview=preview)})
    return found


EVIL = [
    "<script>alert(1)</script>", "![x](javascript:alert(1))", "[x](http://evil)", "|", "`", "\n# head", "<!-- -->",
    "-->", "&lt;b&gt;", "**b**", "\x1b[31m", "\u202e", "a\r\n\r\n<b>", "https://evil.example", "~~~\n", "$x$",
    "\\", "\\|", "\\\\|", "a\n===\n---", "1. x", "- x", "www.evil.example", "a@evil.example", "&#60;b&#62;",
    "| a |\n| --- |",
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_what_users_data_says_is_text_in_markdown(tmp_path: Path, text: str) -> None:
    store = open_store(tmp_path / "store")
    rows = [{text: text}]
    for found in (
        stored(rows, store, kind="table", facts={text: text}),
        stored(text, store, kind="markdown", facts={"a": text}),
        Artifact(step=text, name=text, type=text, url=text, picture=None, head=text, metadata={text: text}),
    ):
        shown = markdown_of([found], store.url)
        body, _, note = shown.rpartition("<!-- flowyml:")
        lines = [line.removeprefix("### ").removeprefix("> ").strip() for line in body.splitlines()]
        for line in lines:
            bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", line.replace("| --- | --- |", "").replace("| --- |", ""))
            cells = [cell.strip() for cell in bare.split("|")]
            assert not any(char in cell for cell in cells for char in "<>[]()`*_#!\\~$\x1b\u202e"), line
            assert "&" not in bare, line
        assert len([line for line in lines if line.startswith("|")]) in (0, 3, 4, 5, 6, 7, 8)
        assert note.endswith(" -->")
        assert_is_text(shown, str(found.metadata.get("a", found.metadata.get(text[:40]))))
    assert artifacts_in(markdown_of([stored(rows, store, kind="table")]))[0].head == {
        "columns": [text[:40]],
        "rows": [[text]],
    }


def assert_is_text(markdown: str, text: str) -> None:
    """As a program reads it that shows Markdown: headings, tables and quotes of text, and the text as it was."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(markdown)
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert {child.type for child in inline} <= {"text", "hardbreak"}
    frame = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens if token.type != "inline"}
    assert frame <= {"heading", "paragraph", "table", "thead", "tbody", "tr", "th", "td", "blockquote", "html_block"}
    assert [token.content.startswith("<!-- flowyml:") for token in tokens if token.type == "html_block"] == [True]
    if text.isprintable():
        said = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
        assert " ".join(text.split()) in said


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", "a/../../b"])
def test_downloads_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path / "store")
    (tmp_path / "f").write_text("x")
    found = stored(tmp_path / "f", store)
    packed = {"$artifact": found.packed["$artifact"] | {"name": name}}
    evil = artifact_of(name, name, packed)
    assert evil is not None
    (made,) = download([evil], [store], tmp_path / "out")
    assert (tmp_path / "out") in made.resolve().parents
    assert made.read_text() == "x"


def test_a_download_reads_no_other_place_and_follows_no_link(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    (tmp_path / "f").write_text("x")
    found = stored(tmp_path / "f", store)
    with pytest.raises(ArtifactError, match="name the store of the steps"):
        download([found], [open_store(tmp_path / "other")], tmp_path / "out")
    (tmp_path / "out/step").mkdir(parents=True, exist_ok=True)
    (tmp_path / "out/step/f").symlink_to(tmp_path / "victim")
    with pytest.raises(ArtifactError, match="is kept"):
        download([found], [store], tmp_path / "out")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("link", ["step", "step/out"], ids=["of a step", "of an output"])
@pytest.mark.parametrize("there", [True, False], ids=["to a folder", "to nothing"])
def test_a_download_goes_through_no_linked_folder(tmp_path: Path, link: str, there: bool) -> None:
    store = open_store(tmp_path / "store")
    (tmp_path / "f").write_text("x")
    found = stored(tmp_path / "f", store)
    if there:
        (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "out"
    (folder / link).parent.mkdir(parents=True)
    (folder / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"is a link to .*elsewhere: nothing is written there"):
        download([found, found], [store], folder)  # the second one has a folder of its own
    assert not (tmp_path / "elsewhere").exists() or not any((tmp_path / "elsewhere").iterdir())
    linked = tmp_path / "mine"
    linked.symlink_to(tmp_path / "chosen")
    (tmp_path / "chosen").mkdir()
    assert [path.read_text() for path in download([found], [store], linked)] == ["x"], "the folder itself may be one"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def back(reference: dict[str, Any], store: Store) -> Any:
    return unpack({"$artifact": reference}, store)


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for entry, data in entries:
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    "entries",
    [
        [(entry("../outside"), b"x")],
        [(entry("/tmp/outside"), b"x")],
        [(entry("a/../../outside"), b"x")],
        [(entry("C:\\outside"), b"x")],
        [(entry("link", tarfile.SYMTYPE, "/etc"), b""), (entry("link/passwd"), b"x")],
        [(entry("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(entry("pipe", tarfile.FIFOTYPE), b"")],
        [(entry("twice"), b"x"), (entry("twice"), b"y")],
        [(entry("missing/parent"), b"x")],
    ],
)
def test_an_archive_that_was_not_written_here_leads_nowhere(
    store: Store, tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    data = archive(*entries)
    written = store.write("run/step/1/out.tar", lambda file: _written(file, data))
    reference = {"url": written.url, "sha256": written.sha256, "size": written.size, "format": "folder", "name": "out"}
    with files_here(), pytest.raises(ArtifactError, match="archive of a folder"):
        back(reference, store)
    assert not list(tmp_path.rglob("outside"))


def _written(file: Any, data: bytes) -> None:
    file.write(data)


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/x", "/etc/passwd", "..", "", "a\0b", "x" * 5000, "\x1b[31m.txt", "a\\b"]
)
def test_names_of_files_lead_nowhere(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    reference = stored(tmp_path / "file", store).packed["$artifact"] | {"name": name}
    with files_here():
        found = back(reference, store)
        assert found.read_text() == "x"
        assert found.name == safe_name(name)
        assert "/" not in found.name
        assert len(found.name.encode()) <= 200
        assert "\x1b" not in found.name
