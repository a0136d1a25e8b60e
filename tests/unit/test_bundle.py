"""Bundles: the same bytes anywhere, nothing outside their folder, and a bare Python is enough."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml.core.errors import DefinitionError, PlanError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.model import Plan, Step

PLAN = Plan(name="training", steps=(Step(name="load", function="steps:load", outputs=("rows",)),))
FILES = {"steps.py": b"def load(): return 3\n", "data/numbers.csv": b"1,2\n"}


def names(bundle: Bundle) -> list[str]:
    with ZipFile(io.BytesIO(bundle.data)) as archive:
        return archive.namelist()


def test_what_a_bundle_holds() -> None:
    bundle = build(PLAN, files=FILES, objects={"load": b"pickled"})
    held = names(bundle)
    assert {"__main__.py", "plan.json", "code/steps.py", "code/data/numbers.csv", "objects/load.pkl"} < set(held)
    rooms = {name.split("/")[1] for name in held if name.startswith("flowyml/") and name.count("/") > 1}
    assert rooms == {"artifacts", "authoring", "core", "orchestrators", "plan", "runtime"}
    assert not [name for name in held if name.startswith("cloudpickle/")]
    assert bundle.filename == f"training-{bundle.digest[:8]}.pyz"


def test_cloudpickle_comes_along_when_an_object_needs_it() -> None:
    assert "cloudpickle/cloudpickle.py" in names(build(PLAN, objects={"load": cloudpickle.dumps(lambda: 3)}))


def test_packages_and_modules_come_along() -> None:
    held = names(build(PLAN, packages=["flowyml_prefect", "typing_extensions", "of_nothing"]))
    assert {"flowyml_prefect/orchestrator.py", "typing_extensions.py"} <= set(held)
    assert not [name for name in held if name.startswith("of_nothing")]
    assert not [name for name in names(build(PLAN)) if name.startswith("flowyml_")]


@pytest.mark.parametrize(
    "code",
    [
        "from flowyml.graph import svg", "import flowyml.graph", "from flowyml import graph, step, testing",
        "from flowyml import (step,  # (as always)\n    graph)", "from flowyml import step, \\\n    graph",
    ],
)  # fmt: skip
def test_a_room_that_stays_at_home_comes_along_when_the_code_imports_it(code: str) -> None:
    held = names(build(PLAN, files={"a.py": code.encode()}))
    assert "flowyml/graph/svg.py" in held
    assert [name for name in held if name.startswith("flowyml/testing/")] or "testing" not in code
    assert not [name for name in held if name.startswith("flowyml/cli/")]


def test_what_an_object_names_comes_along_whatever_byte_is_before_its_name() -> None:
    """In a pickle it is the length of the text, which may be that of a letter."""
    held = names(build(PLAN, objects={"load": pickle.dumps("flowyml.testing" + "." * 50)}))
    assert [name for name in held if name.startswith("flowyml/testing/")]


def test_each_part_changes_the_digest() -> None:
    digests = {
        build(PLAN).digest,
        build(replace(PLAN, description="another")).digest,
        build(PLAN, files=FILES).digest,
        build(PLAN, objects={"load": b"x"}).digest,
        build(PLAN, main="steps").digest,
    }
    assert len(digests) == 5


def test_write_and_read(tmp_path: Path) -> None:
    bundle = build(PLAN, files=FILES)
    path = bundle.write(tmp_path / "new" / "folder")
    assert path.name == bundle.filename
    back = Bundle.read(path)
    assert (back.plan, back.digest) == (PLAN, bundle.digest)
    assert os.access(path, os.X_OK)


def test_a_dag_file_makes_it_importable_without_flowyml(tmp_path: Path) -> None:
    """As the DAG files of Airflow do. Modules are compiled once, also where Python is set to write no bytecode."""
    bundle = build(PLAN).write(tmp_path)
    code = (
        "import pathlib, runpy, sys\n"
        "runpy.run_path(sys.argv[1], run_name='bundle')['make_importable'](pathlib.Path(sys.argv[1]))\n"
        "print(sys.modules.keys() & {'flowyml'})\n"
        "import flowyml\n"
        "print(flowyml.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-S", "-c", code, str(bundle)], capture_output=True, text=True, check=True,
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    before, file = done.stdout.splitlines()
    assert (before, Path(file).is_relative_to(tmp_path / "cache")) == ("set()", True)
    assert list(Path(file).parent.glob("__pycache__/__init__.*.pyc"))


def test_writing_again_leaves_the_file_alone_and_mends_a_torn_one(tmp_path: Path) -> None:
    bundle = build(PLAN)
    path = bundle.write(tmp_path)
    os.utime(path, (1, 1))
    assert bundle.write(tmp_path).stat().st_mtime == 1
    path.write_bytes(b"torn")
    assert Bundle.read(bundle.write(tmp_path)).digest == bundle.digest
    assert [entry.name for entry in tmp_path.iterdir()] == [bundle.filename]


def test_many_writers_at_once(tmp_path: Path) -> None:
    bundle = build(PLAN)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: bundle.write(tmp_path), range(16)))
    assert Bundle.read(tmp_path / bundle.filename).digest == bundle.digest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", r"x\.pyz is not a FlowyML bundle"),
        (lambda data: b"PK\x05\x06" + b"\0" * 18, r"x\.pyz is not a FlowyML bundle"),
        (lambda data: data[:-100], "or it is damaged"),
        (lambda data: data.replace(b'"training"', b'"trainang"'), "damaged"),
    ],
    ids=["empty", "no bundle", "truncated", "changed"],
)
def test_an_invalid_bundle_raises_an_error_that_says_so(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "x.pyz"
    path.write_bytes(damage(build(PLAN).data))
    with pytest.raises(PlanError, match=said):
        Bundle.read(path)


def test_another_plan_for_the_same_code() -> None:
    bundle = build(PLAN, files=FILES, objects={"load": b"x"}, main="steps")
    patient = PLAN.with_retry_policy(OrchestratorRetryPolicy(max_attempts=5))
    assert bundle.with_plan(PLAN) is bundle
    assert bundle.with_plan(patient).data == build(patient, files=FILES, objects={"load": b"x"}, main="steps").data


def test_files_and_objects_stay_inside() -> None:
    for path in ("/etc/x", "../x", "a/../../x", "", ".", "a//b", "a\\b", "a\nb", "./a", "a/"):
        with pytest.raises(DefinitionError, match="cannot have the path"):
            build(PLAN, files={path: b""})
    for key in ("", "../x", "a/b", ".x", "a\n"):
        with pytest.raises(DefinitionError, match="cannot have the key"):
            build(PLAN, objects={key: b""})


@given(st.dictionaries(st.text(min_size=1, max_size=30), st.binary(max_size=100), max_size=3))
@settings(max_examples=30)
def test_whatever_is_accepted_unpacks_where_it_says(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    try:
        bundle = build(PLAN, files=files)
    except DefinitionError:
        return
    folder = tmp_path_factory.mktemp("unpacked")
    with ZipFile(io.BytesIO(bundle.data)) as archive:
        archive.extractall(folder)
    for path, data in files.items():
        assert (folder / "code" / path).read_bytes() == data
