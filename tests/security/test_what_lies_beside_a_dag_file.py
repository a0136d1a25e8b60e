"""A task on Airflow runs the files that its DAG file names, and no others, whatever lies beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from flowyml.core.errors import EngineError
from flowyml.core.zips import zipped
from flowyml.plan.bundle import build
from flowyml.plan.marks import marked
from flowyml.plan.model import Plan, Step
from flowyml.runtime.loading import load_function
from flowyml_airflow.beside import runtime, unpacked
from flowyml_airflow.compiler import CompiledDag, compile_dag
from flowyml_airflow.dag_file.parts import WORKER
from flowyml_airflow.deployed_dag import facts_of
from tests.unit.commands import flowyml

SCRIPT = """
import sys
from hashlib import sha256
from pathlib import Path
from runpy import run_path
RUNTIME = Path(sys.argv[1])
"""
SOURCE = """
from flowyml import Pipeline, step

@step
def one() -> int:
    return 1

mine = Pipeline("mine").add_step(one)
"""


def compiled(answer: int = 1) -> CompiledDag:
    code = f"def f():\n    return {answer}\n".encode()
    return compile_dag(build(Plan(name="mine", steps=(Step(name="s", function="m:f"),)), files={"m.py": code}))


def put(dag: CompiledDag, folder: Path) -> Path:
    for path, data in dag.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder / dag.filename


def code_of(dag: CompiledDag, folder: Path) -> Path:
    """What the DAG file does when a task runs."""
    runtime_file = folder / "flowyml_bundles" / runtime().name
    return unpacked(folder / dag.filename, runtime_file, dag.bundle.digest, sys.executable)


def answer_of(folder: Path) -> int:
    return int(load_function(folder, "m:f")())


def _change(path: Path) -> None:
    path.write_text("def f():\n    return 'theirs'\n")


def _remove(path: Path) -> None:
    path.unlink()


def _link(path: Path) -> None:
    theirs = path.with_name("theirs.py")
    path.rename(theirs)
    _change(theirs)
    path.symlink_to(theirs)


@pytest.mark.parametrize("name", ["code/m.py", "plan.json", "bundle.json"])
@pytest.mark.parametrize("attack", [_change, _remove, _link])
def test_a_file_that_was_exchanged_does_not_run(tmp_path: Path, name: str, attack: Callable[[Path], None]) -> None:
    dag = compiled()
    put(dag, tmp_path)
    assert answer_of(code_of(dag, tmp_path)) == 1
    attack(tmp_path / "flowyml_bundles/mine" / name)
    with pytest.raises(EngineError, match="one was changed or is missing"):
        code_of(dag, tmp_path)


def test_a_file_that_was_added_does_not_run(tmp_path: Path) -> None:
    dag = compiled()
    put(dag, tmp_path)
    (tmp_path / "flowyml_bundles/mine/code/json.py").write_text("raise SystemExit")
    assert not (code_of(dag, tmp_path) / "code/json.py").exists()


@pytest.mark.parametrize(
    "listed",
    ["flowyml_bundles/mine/../../secret.py", "../secret.py", "/etc/passwd", "secret.py", "flowyml_bundles/secret.py"],
)
def test_a_dag_file_lists_no_file_elsewhere(tmp_path: Path, listed: str) -> None:
    """Even if the digest is right."""
    dag, folder = compiled(), tmp_path / "dags"
    path = put(dag, folder)
    for place in (folder / "secret.py", tmp_path / "secret.py", folder / "flowyml_bundles/secret.py"):
        place.write_text("x = 1\n")
    facts = {key: value for key, value in facts_of(dag.text).items() if key != "digest"}
    text = "\n".join(dag.text.splitlines()[:-1]) + "\n"
    path.write_bytes(marked(text.encode(), "dag.py", {**facts, "files": [*facts["files"], listed]}))
    name = listed.split("/", 2)[-1]
    data = zipped(sorted({**dag.bundle.files, name: (folder / listed).read_bytes()}.items()))
    digest = sha256(data).hexdigest()
    with pytest.raises(EngineError, match="one was changed or is missing"):
        unpacked(path, folder / "flowyml_bundles" / runtime().name, digest, sys.executable)


def test_a_task_that_has_read_the_former_dag_file_runs_the_former_code(tmp_path: Path) -> None:
    former, now = compiled(1), compiled(2)
    put(now, tmp_path)
    with pytest.raises(EngineError):
        code_of(former, tmp_path)
    kept = tmp_path / "flowyml_bundles" / former.bundle.filename
    kept.write_bytes(former.bundle.data)
    assert (answer_of(code_of(former, tmp_path)), answer_of(code_of(now, tmp_path))) == (1, 2)
    kept.write_bytes(now.bundle.data)
    with pytest.raises(EngineError):
        code_of(former, tmp_path)


def test_a_runtime_that_was_exchanged_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / runtime().name
    (tmp_path / "task.py").write_text(f"{SCRIPT}{WORKER}print(worker().__name__)\n")

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", str(tmp_path / "task.py"), str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=2400)

    proof = tmp_path / "proof"
    for data in (zipped([("__main__.py", f"open({str(proof)!r}, 'w')".encode())]), runtime().data[:-1]):
        path.write_bytes(data)
        done = run()
        assert "ImportError" in done.stderr
        assert "was replaced or cut short" in done.stderr
    assert not proof.exists()
    path.write_bytes(runtime().data)
    assert run().stdout == "flowyml_airflow.worker\n"


@pytest.mark.processes
@pytest.mark.parametrize("way", ["listed", "link"])
def test_compile_removes_no_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """It removes files of the version before, which the DAG file there lists."""
    monkeypatch.chdir(tmp_path)
    Path("source.py").write_text(SOURCE)
    again = ("compile", "source.py:mine", "--to", "airflow", "-o", "dags/")
    assert flowyml(*again).code == 0
    ours, victim = Path("dags/flowyml_bundles/mine/code"), Path("victim.py")
    victim.write_text("theirs")
    old = ours / "old.py"
    if way == "link":
        Path("treasure").mkdir()
        victim = Path("treasure/old.py")
        victim.write_text("theirs")
        (ours / "deep").symlink_to(tmp_path / "treasure")
        listed = ["flowyml_bundles/mine/code/deep/old.py"]
    else:
        old.write_text("ours")
        listed = [
            "flowyml_bundles/mine/code/old.py", "flowyml_bundles/mine/../../../victim.py", "../victim.py",
            str(victim.absolute()),
        ]  # fmt: skip
    path = Path("dags/mine.py")
    text, _, line = path.read_text().rpartition("# flowyml: ")
    facts = {key: value for key, value in json.loads(line).items() if key != "digest"}
    path.write_bytes(marked(text.encode(), "dag.py", {**facts, "files": [*facts["files"], *listed]}))
    done = flowyml(*again)
    assert (done.code, done.err) == (0, "")
    assert victim.read_text() == "theirs"
    assert not old.exists()
    assert path.read_text() == text + "# flowyml: " + line


@pytest.mark.processes
def test_what_the_command_line_writes_is_what_a_task_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte: FlowyML's mark would change the code."""
    monkeypatch.chdir(tmp_path)
    Path("source.py").write_text(SOURCE)
    for _ in range(2):
        assert flowyml("compile", "source.py:mine", "--to", "airflow", "-o", "dags/").code == 0
    assert flowyml("compile", "source.py:mine", "--to", "airflow", "-o", "dags/", "--check").code == 0
    dags = Path("dags").absolute()
    runtime_file = dags / "flowyml_bundles" / runtime().name
    digest = facts_of((dags / "mine.py").read_text())["bundle"]
    assert (unpacked(dags / "mine.py", runtime_file, digest, sys.executable) / "code/source.py").read_text() == SOURCE
    assert (dags / "flowyml_bundles/mine/code/source.py").read_text() == SOURCE
