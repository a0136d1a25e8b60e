"""Files that FlowyML wrote are recognized by a mark that is parsed; what people wrote or edited is never replaced."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml import Pipeline, step
from flowyml.orchestrators.targets import resolve
from flowyml.plan.marks import mark_of, marked, objection

FACTS = {"pipeline": "a -- b --> # flowyml: {} ü", "schedule": None, "steps": [1, "x\n"]}


@step(outputs=["n"])
def one() -> int:
    return 1


PIPELINE = Pipeline("marks").add_step(one)


@pytest.mark.parametrize(
    "name", ["flow.py", "flow.yaml", "flow.yml", "graph.mmd", "graph.svg", ".airflowignore", "a.txt"]
)
def test_a_marked_file_is_recognized_until_it_is_edited(name: str) -> None:
    data = marked(b"<svg/>", name, FACTS)
    mark = mark_of(data)
    assert mark is not None
    assert (mark.is_untouched, mark.facts) == (True, FACTS)
    assert marked(data, name) == data, "no second mark"
    assert objection(data, b"new") == ""
    for edited in (
        data + b"# reviewed by Ada\n",
        b"x" + data,
        b"\n".join(data.split(b"\n")[-2::-1]),
        data.replace(b"svg", b"SVG"),
        data.replace(b"null", b"true"),
    ):
        assert mark_of(edited) is not None
        assert "was edited after FlowyML wrote it" in objection(edited, b"new")
        assert objection(edited, b"new", force=True) == ""
        assert objection(edited, edited) == "", "nothing would be lost"


def test_an_svg_with_a_mark_is_still_one() -> None:
    ET.fromstring(marked(b"<svg/>", "a.svg", FACTS))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"# flowyml: TODO\n", b"# flowyml: {}\n", b'# flowyml: {"digest": 1}\n', b'# flowyml: {"digest": "x"}\n',
        b"# flowyml: " + b'{"a":' * 100_000, b"[" * 100_000, b'{"steps":' * 100_000,
        b'x = "# flowyml: {}"',
        b"{}", b'{"schema_version": 1}', b"[1]", b"#!/bin/sh\necho\n", b"\xff\xfe\x00",
    ],
)  # fmt: skip
def test_what_people_wrote_is_theirs(text: bytes) -> None:
    assert mark_of(text) is None
    for force in (False, True):
        assert "was not written by FlowyML" in objection(text, b"new", force=force)


@pytest.mark.parametrize("name", ["flow.py", "graph.mmd", "graph.svg"])
def test_line_endings_that_git_changes_do_not_count_as_an_edit(name: str) -> None:
    data = marked(b"one\ntwo\n", name, FACTS).replace(b"\n", b"\r\n")
    mark = mark_of(data)
    assert mark is not None
    assert (mark.is_untouched, mark.facts) == (True, FACTS)


def test_a_zip_application_of_somebody_else_is_theirs() -> None:
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        archive.writestr("plan.json", "{}" * 1000)
    whole = buffer.getvalue()
    start = whole.index(b"plan.json") + len("plan.json")
    local, central = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    for changes in ({start: 255, start + 1: 255}, {local + 6: 1, central + 8: 1}, {local + 8: 97, central + 10: 97}):
        data = bytearray(whole)  # damaged, encrypted, compressed in an unknown way
        for place, byte in changes.items():
            data[place] = byte
        assert mark_of(bytes(data)) is None
    assert mark_of(whole) is None


def test_a_mark_in_a_text_of_the_users_is_not_taken_for_the_files(tmp_path: Path) -> None:
    """Airflow shows a pipeline's description, so its lines stand in the DAG file as they are."""
    forged = marked(b"", "dag.py", {"origin": {"project": "another", "module": "theirs.py"}}).decode()
    described = Pipeline("marks", description=f"about\n{forged}").add_step(one)
    files = resolve("airflow", dags_folder=str(tmp_path)).compile_pipeline(described)
    data = next(iter(files.values()))
    assert forged.strip().encode() in data.splitlines()
    mark = mark_of(data)
    assert mark is not None
    assert mark.is_untouched
    assert mark.facts["origin"] == described.origin.to_dict()


def test_plans_and_bundles_are_recognized_by_reading_them() -> None:
    plan = PIPELINE.compile().canonical + b"\n"
    for data in (plan, PIPELINE.bundle().data):
        mark = mark_of(data)
        assert mark is not None
        assert mark.is_untouched
        assert marked(data, "plan.json") == data
    edited = json.dumps(json.loads(plan), indent=2).encode()
    assert "was edited" in objection(edited, plan)


@given(st.text(), st.dictionaries(st.text().filter(lambda key: key != "digest"), st.text()))
def test_facts_come_back_as_they_were(text: str, facts: dict[str, str]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    if mark_of(data) is None:
        mark = mark_of(marked(data, "a.py", facts))
        assert mark is not None
        assert (mark.is_untouched, mark.facts) == (True, facts)
