"""Where cached results stand, and the commands that list, show, clear and refresh them."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, pipeline, step
from flowyml.artifacts import open_store
from flowyml.cli import main
from flowyml.core.errors import ArtifactError
from flowyml.core.pruning import Bounds
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.cache_pruning import store_of
from flowyml.orchestrators.targets import resolve
from flowyml.runtime.caching import entries_in
from tests.unit.cached import chain, note, ran
from tests.unit.commands import flowyml
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("own_home")


def test_the_commands_list_show_and_clear(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chain.run({"path": str(tmp_path / "lines")})
    assert main(["cache", "list", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)
    assert {each["step"] for each in listed} == {"make", "use"}
    assert all(each["bytes"] for each in listed)
    assert main(["cache", "show", listed[0]["key"][:8], "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert set(shown["depends"]) >= {"code", "inputs"}
    assert "lines" not in json.dumps(shown), "values are digests"
    assert main(["cache", "list"]) == 0
    table = capfd.readouterr().out
    assert "make" in table
    assert table.splitlines()[1].endswith(" B"), "a size as in other tables"
    assert main(["cache", "show", "0" * 64]) == 4
    assert main(["cache", "clear"]) == 2
    assert main(["cache", "clear", "--older-than", "1h"]) == 0
    assert main(["cache", "clear", "--older-than", "soon", "--step", "make"]) == 2
    assert main(["cache", "clear", "--older-than", "0s", "--step", "make"]) == 0
    store = open_store()
    assert [entry.step for _, entry in entries_in(store) if entry] == ["use"]
    capfd.readouterr()
    assert main(["cache", "clear", "--all", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"removed": 1}
    assert not list(entries_in(store))


def test_a_file_that_was_cut_short_is_not_copied_within_its_store() -> None:
    """The store copies it itself, so nothing of it is read here."""
    import fsspec

    store = open_store("memory://cut/short")
    written = store.write("cache/x.bin", lambda file: file.write(b"12345") and None)
    assert store.take(store, written, "runs/x.bin").url == "memory://cut/short/runs/x.bin"
    fsspec.filesystem("memory").pipe("/cut/short/cache/x.bin", b"123")
    with pytest.raises(ArtifactError, match="it has 3 bytes, and 5 were written"):
        store.take(store, written, "runs/y.bin")


@step(cache=True)
def held(path: str) -> int:
    note(path)
    while not Path(f"{path}-go").exists():
        time.sleep(0.02)
    return 1


@pipeline
def held_up(path: str) -> int:
    return held(path)


def test_a_step_that_waits_for_another_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowyml.runtime.caching._SAY_SECONDS", 0)  # not after ten seconds
    path = tmp_path / "lines"
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(held_up.run, {"path": str(path)}) for _ in range(2)]
        wait_until(lambda: "waiting for another run that is computing cache/held" in caplog.text)
        Path(f"{path}-go").touch()
        results = [run.result() for run in runs]
    assert sorted(result.step_results["held"].is_cached for result in results) == [False, True]
    assert ran(path) == 1


FORKS = """
import os, sys, time
from flowyml import pipeline, step
from flowyml.runtime import caching

caching._SAY_SECONDS = 0  # not after ten

@step(cache=True)
def forks() -> int:
    if "HANGS" in os.environ:
        child = os.fork()
        if not child:
            time.sleep(3600)
        print(child, flush=True)
        time.sleep(3600)
    return 1

@pipeline
def forking():
    return forks()

if __name__ == "__main__":
    print(forking.run()["forks"])
"""


def test_a_killed_run_whose_children_live_holds_up_no_other(tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(FORKS)
    command = [sys.executable, "forking.py"]
    killed = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "HANGS": "1"}, stdout=subprocess.PIPE)
    assert killed.stdout
    child = int(next(line for line in killed.stdout if line.strip().isdigit()))
    killed.kill()
    killed.wait()
    killed.stdout.close()
    try:
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip() == "1"
    finally:
        os.kill(child, signal.SIGKILL)


def test_results_that_cannot_be_read_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chain.run({"path": str(tmp_path / "lines")})
    store = open_store()
    for folder, entry in entries_in(store):
        (record,) = (Path(store.url.removeprefix("file://")) / folder).glob("*.json")
        assert entry
        if entry.step == "make":
            record.write_text("[]")
    capfd.readouterr()
    assert main(["cache", "list"]) == 0
    out, err = capfd.readouterr()
    assert " use " in out
    assert " make " not in out
    assert "1 result in " in err
    assert "cannot be read here" in err


def test_a_step_that_failed_is_no_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor is one that is running: both have a folder, with the file by which other runs wait."""

    @step(cache=True)
    def fail() -> int:
        raise ValueError("no")

    Pipeline("failing").add_step(fail).run()
    assert [entry for _, entry in entries_in(open_store())] == [None]
    capfd.readouterr()
    assert main(["cache", "list"]) == 0
    out, err = capfd.readouterr()
    assert (out, "nothing is cached" in err, "cannot be read" in err) == ("", True, False)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("client", "settings"),
    [
        ("kfp", 'engine = "kubeflow"\nurl = "http://127.0.0.1:1"'),
        ("prefect", 'engine = "prefect"\nurl = "http://prefect.example:1"\nwork_pool = "there"'),
        ("httpx", 'engine = "airflow"\nurl = "http://airflow.example:1"'),
    ],
)
def test_an_engine_elsewhere_without_a_store_is_not_taken_for_this_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, client: str, settings: str
) -> None:
    pytest.importorskip(client)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowyml.toml").write_text(f"[orchestrators.prod]\n{settings}\n")
    chain.run({"path": str(tmp_path / "lines")})
    for command in (["clear", "--all"], ["list"], ["show", "0" * 64]):
        assert main(["cache", *command, "--on", "prod"]) == 2
        assert "Steps on prod may run on other machines" in (said := capfd.readouterr().err)
        assert "--artifacts URL" in said
    (item,) = Orchestrator.prunable(resolve("prod"), Bounds(older_than=0))  # without what Airflow or Prefect adds
    assert (item.kind, item.name) == ("cache", "prod")
    assert "set the target's `artifacts`" in item.kept
    store = open_store()
    assert len(list(entries_in(store))) == 2
    assert main(["cache", "clear", "--all", "--on", "prod", "--artifacts", store.url]) == 0
    assert not list(entries_in(store))


@pytest.mark.parametrize(
    ("client", "settings", "here"),
    [
        ("prefect", 'engine = "prefect"\nurl = "http://prefect.example:1"', True),  # without a work pool
        ("prefect", 'engine = "prefect"\nurl = "http://localhost:1"\nwork_pool = "here"', True),
        ("prefect", 'engine = "prefect"\nurl = "http://elsewhere.example:1"\nwork_pool = "there"', False),
        ("httpx", 'engine = "airflow"\nurl = "http://127.0.0.1:1"', True),
        ("httpx", 'engine = "airflow"\nurl = "http://elsewhere.example:1"', False),
    ],
)
def test_steps_that_run_here_have_this_machines_store_and_others_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, settings: str, here: bool
) -> None:
    pytest.importorskip(client)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowyml.toml").write_text(f"[orchestrators.prod]\n{settings}\n")

    def store() -> str | None:
        target = resolve("prod")
        found = store_of(target.artifact_place, has_default=target.has_default_store)
        return found and found.url

    assert store() == (open_store().url if here else None)
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "shared"))
    assert store() == f"file://{tmp_path}/shared"


COMMANDS = """
from flowyml import pipeline, step

@step(cache=True)
def one() -> int:
    return 1

@step(cache=True)
def two(one: int) -> int:
    return one + 1

@pipeline
def commands():
    return two(one())
"""


def test_the_command_refreshes_all_steps_or_some(tmp_path: Path) -> None:
    script = str(tmp_path / "cached_commands.py")
    Path(script).write_text(COMMANDS)

    def cached(*options: str) -> list[bool]:
        return [bool(step["cached_from"]) for step in flowyml("run", script, "--json", *options).json["steps"]]

    assert [cached(), cached()] == [[False, False], [True, True]]
    assert cached("--refresh") == [False, False]
    assert cached("--refresh-step", "two") == [True, False]


def test_a_remote_store_keeps_results_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ARTIFACTS", "memory://cache-of-tests")
    path = tmp_path / "lines"
    assert chain.run({"path": str(path)})["found"] == chain.run({"path": str(path)})["found"]
    assert ran(path) == 2
    store = open_store()
    for folder, _ in list(entries_in(store)):
        store.remove(folder)
    assert not list(entries_in(store))


def test_the_command_explains_what_differs_from_the_run_before(tmp_path: Path) -> None:
    script = tmp_path / "explained.py"
    script.write_text(EXPLAINED)

    def explained(*options: str) -> dict[str, Any]:
        flowyml("run", str(script), "--json", *options)
        (found,) = flowyml("cache", "explain", "double", "--json").json
        return {**found, "changed": [(each["part"], each["name"], each["how"]) for each in found["changed"]]}

    first = explained("-p", "n=2")
    assert (first["outcome"], first["run_id"], first["changed"]) == ("miss", None, [])
    again = explained("-p", "n=2")
    assert (again["outcome"], again["changed"]) == ("hit", [])
    other = explained("-p", "n=3")
    assert (other["run_id"], other["changed"]) == (again["run_id"], [("inputs", "n", "changed")])
    script.write_text(EXPLAINED.replace("2 * n", "n + n"))
    edited = explained("-p", "n=3")
    assert edited["changed"] == [("code", "code", "changed")]
    assert edited["why"] == f"it ran, because this has changed since run {other['explained_run_id']}"
    assert "  its code changed: explained.py" in flowyml("cache", "explain", "double").out.splitlines()
    refreshed = explained("-p", "n=3", "--refresh")
    assert (refreshed["why"], refreshed["changed"]) == ("it ran because of --refresh", [])
    assert explained("-p", "n=3")["run_id"] == refreshed["explained_run_id"]
    script.write_text(EXPLAINED)
    assert explained("-p", "n=2")["outcome"] == "hit"
    script.write_text(EXPLAINED.replace("2 * n", "n * 2"))
    since_last = explained("-p", "n=3")  # the result that the last run had, not the most similar of all
    assert since_last["run_id"] == first["explained_run_id"]
    assert [part for part, *_ in since_last["changed"]] == ["code", "inputs"]
    assert flowyml("cache", "explain", "single").code == 4


EXPLAINED = """
from flowyml import pipeline, step

@step(cache=True)
def double(n: int) -> int:
    return 2 * n

@pipeline
def explained(n: int):
    return double(n)
"""


_WRITES_MEANWHILE = """
import sys
from pathlib import Path
from flowyml.artifacts import open_store

root, folder, late = sys.argv[1], Path(sys.argv[1], "cache/made/step/key"), ["late.bin"]

def write(event, arguments):
    if event == "os.rmdir" and arguments[0] == "key" and late:  # all else in it is gone by now
        (folder / late.pop()).touch()

folder.mkdir(parents=True)
sys.addaudithook(write)
open_store(root).remove("cache/made/step/key")
assert not late and not folder.exists()
"""


def test_a_result_into_which_another_process_writes_is_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _WRITES_MEANWHILE, str(tmp_path)], check=True)
