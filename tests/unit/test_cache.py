"""Cached steps on the local engine: what is a hit, how it shows, and what is kept where."""

import datetime
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flowyml import Cache, Pipeline, context, current_run, pipeline, step
from flowyml.core.errors import DefinitionError
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.cached import chain, make, note, ran

pytestmark = pytest.mark.usefixtures("own_home")


def test_threads_and_processes_share_results(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    chain.run({"path": str(path)}, on=LocalOrchestrator(workers="processes")).raise_for_status()
    assert chain.run({"path": str(path)})["found"] == (3, 3)
    assert ran(path) == 2
    handle = chain.submit({"path": str(path)}).wait_for_completion(timeout=2400)
    assert handle.outputs["found"] == (3, 3)
    assert ran(path) == 2
    assert all(each.is_cached for each in handle.step_runs())


def test_refresh_runs_all_or_some(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    chain.run({"path": str(path)})
    assert not chain.run({"path": str(path)}, refresh=True).step_results["use"].is_cached
    assert ran(path) == 4
    some = chain.run({"path": str(path)}, refresh="use")
    assert some.step_results["make"].is_cached
    assert not some.step_results["use"].is_cached
    assert chain.run({"path": str(path)}).step_results["use"].cached_from == some.run_id, "the newer result stands"
    with pytest.raises(DefinitionError, match="'nowhere', which is not a cached step"):
        chain.run({"path": str(path)}, refresh=["nowhere"])


def test_a_result_counts_as_long_as_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    brief = make.options(cache=Cache(ttl=datetime.timedelta(hours=1)))
    made = Pipeline("brief", context=context(path=str(path), x=1)).add_step(brief)
    made.run()
    assert made.run().step_results["make"].is_cached
    (record,) = (tmp_path / "home").rglob("record.json")
    plain = json.loads(record.read_bytes())
    record.write_text(json.dumps({**plain, "created": plain["created"] - 3601}))
    assert not made.run().step_results["make"].is_cached
    for wrong in ("7x", 0, True, "", -1, float("inf")):
        with pytest.raises(DefinitionError, match="seconds above 0"):
            Cache(ttl=wrong)


def test_only_the_arguments_that_are_named_count(tmp_path: Path) -> None:
    by_x = make.options(cache=Cache(key=["x"]))
    made = Pipeline("by_x", context=context(path=str(tmp_path / "a"), x=1)).add_step(by_x)
    made.run()
    assert made.run({"path": str(tmp_path / "b")}).step_results["make"].is_cached
    assert not made.run({"x": 2}).step_results["make"].is_cached
    with pytest.raises(DefinitionError, match=r"Cache\(key=…\) names 'y', which is not a parameter"):
        make.options(cache=Cache(key="y"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": ["REGION", "A B"]}, r"Cache\(environment=…\): 'A B' is not the name of a variable"),
        ({"packages": "a/b"}, r"Cache\(packages=…\): 'a/b' is not the name of a package"),
        ({"key": [1]}, r"Cache\(key=…\): 1 is not the name of a parameter"),
        ({"key": 1}, r"Cache\(key=1\) must be a list of names"),
    ],
)
def test_names_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Cache(**options)


def test_a_pipeline_may_cache_its_steps_and_may_not(tmp_path: Path) -> None:
    @step
    def plain(path: str) -> int:
        note(path)
        return 1

    @step(cache=False)
    def never(path: str) -> int:
        return 1

    @step
    def effect(path: str) -> None:
        note(path)

    for enabled, hits in ((True, {"plain", "make"}), (None, {"make"}), (False, set())):
        made = Pipeline("maybe", context=context(path=str(tmp_path / "x"), x=1), enable_cache=enabled)
        for each in (plain, never, effect, make):
            made.add_step(each)
        assert {each.name for each in made.compile() if each.caching} == hits


def test_the_dates_of_a_run_count_where_the_code_asks_for_them() -> None:
    @step(cache=True)
    def dated() -> str:
        return f"{current_run().logical_date}"

    made = Pipeline("dated").add_step(dated)
    made.run()
    assert made.compile().by_name["dated"].caching.dates  # type: ignore[union-attr]  # a cached step has it
    assert not made.run().step_results["dated"].is_cached


@pytest.mark.parametrize("later", ["2.0", ""])
def test_a_package_that_is_changed_in_a_running_process_is_another_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, later: str
) -> None:
    """The process runs the old code, whatever version is installed by now: that is not a result of the new one."""
    name = f"flowyml-test-{later or 'gone'}"

    def install(version: str) -> None:
        site = Path(os.environ["SITE"])  # not a folder that the code names: what is there would count
        for folder in site.glob("*.dist-info"):
            shutil.rmtree(folder)
        if version:
            folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    @step(cache=Cache(packages=[name]))
    def versioned(installs: str = "") -> int:
        if installs:
            install(installs)
        return 1

    monkeypatch.setenv("SITE", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    made = Pipeline("versioned", context=context(installs="")).add_step(versioned)
    install("1.0")
    made.run().raise_for_status()
    assert made.run().step_results["versioned"].is_cached
    install(later)
    for _ in range(2):
        caplog.clear()
        assert not made.run().step_results["versioned"].is_cached
        assert f"package {name} was changed from 1.0 to {later or 'nothing'} while this process ran" in caplog.text
    install("1.0")
    assert made.run().step_results["versioned"].is_cached
    made.run({"installs": "3.0"}).raise_for_status()
    assert "was changed from 1.0 to 3.0" in caplog.text
    install("1.0")
    assert not made.run({"installs": "3.0"}).step_results["versioned"].is_cached


MIDNIGHT = datetime.datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001  # twice that night, where clocks change
DATES = {
    "a time zone of another class": (MIDNIGHT.replace(tzinfo=datetime.UTC), MIDNIGHT.replace(tzinfo=ZoneInfo("UTC"))),
    "the second of two": (MIDNIGHT, MIDNIGHT.replace(fold=1)),
}


@pytest.mark.parametrize("case", DATES)
def test_dates_that_look_alike_are_different_inputs(case: str) -> None:
    @step
    def date(number: int) -> Any:
        return DATES[case][number]

    @step(cache=True)
    def shown(date: Any) -> str:
        return repr(date)

    made = Pipeline(f"dates {case}", context=context(number=0)).add_step(date).add_step(shown)
    assert [made.run({"number": number})["shown"] for number in (0, 1)] == [repr(each) for each in DATES[case]]
    assert made.run({"number": 1}).step_results["shown"].is_cached


def test_a_file_counts_by_its_name_too(tmp_path: Path) -> None:
    @step
    def file(name: str) -> Path:
        path = tmp_path / name
        path.write_text("same")
        return path

    @step(cache=True)
    def named(file: Path) -> str:
        return file.name

    made = Pipeline("files", context=context(name="a.txt")).add_step(file).add_step(named)
    local = LocalOrchestrator(workers="processes")
    assert made.run(on=local)["named"] == "a.txt"
    assert made.run({"name": "b.txt"}, on=local)["named"] == "b.txt"


@pytest.mark.processes
def test_a_run_that_is_retried_goes_on_with_cached_results(tmp_path: Path) -> None:
    @step(cache=True)
    def first(path: str) -> list[int]:
        note(path)
        return [1, 2]

    @step
    def flaky(first: list[int], path: str) -> int:
        if not Path(f"{path}.ready").exists():
            raise ValueError("not yet")
        return sum(first)

    path, local = tmp_path / "lines", LocalOrchestrator(keep_outputs=True)
    made = Pipeline("retried", context=context(path=str(path))).add_step(first).add_step(flaky)
    assert not made.run(on=local).success
    handle = made.submit(on=local).wait_for_completion(timeout=2400)
    assert not handle.status.is_successful
    Path(f"{path}.ready").touch()
    assert handle.retry().wait_for_completion(timeout=2400).outputs["flaky"] == 3
    assert ran(path) == 1


def test_items_of_a_loop_are_cached_by_their_content(tmp_path: Path) -> None:
    @step(cache=True)
    def double(n: int, path: str) -> int:
        note(path)
        return 2 * n

    @pipeline
    def looped(path: str, numbers: list[int] = [1, 2, 2]):  # type: ignore[no-untyped-def]  # as users write it
        return {"doubled": double.partial(path=path).map(n=numbers)}

    path = tmp_path / "lines"
    assert looped.run({"path": str(path)})["doubled"] == [2, 4, 4]
    assert ran(path) == 2, "equal items are computed once"
    again = looped.run({"path": str(path), "numbers": [2, 5, 1]})
    assert again["doubled"] == [4, 10, 2]
    assert ran(path) == 3


def test_what_runs_at_the_same_time_computes_once(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    threads = [threading.Thread(target=chain.run, args=({"path": str(path)},)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert ran(path) == 2


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    @step(cache=True)
    def fails(path: str) -> int:
        note(path)
        raise ValueError("no")

    made = Pipeline("failing", context=context(path=str(tmp_path / "lines"))).add_step(fails)
    assert [made.run().success, made.run().success] == [False, False]
    assert ran(tmp_path / "lines") == 2


def test_a_value_that_cannot_be_written_is_handed_on_and_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @step(cache=True)
    def lock() -> Any:
        return threading.Lock()

    @step(cache=True)
    def held(lock: Any) -> bool:
        return bool(lock.acquire(blocking=False))

    made = Pipeline("locks").add_step(lock).add_step(held)
    with caplog.at_level("WARNING", "flowyml.local"):
        assert made.run()["held"] is True
    assert any("step 'lock' is not cached: " in record.getMessage() for record in caplog.records)
    result = made.run().raise_for_status()
    assert not any(step.is_cached for step in result.step_results.values())


def test_a_store_that_cannot_be_used_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = {"path": str(tmp_path / "lines")}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "file" / "below"))
    assert chain.run(path, on=LocalOrchestrator())["found"] == (3, 3)
    monkeypatch.setenv("FLOWYML_ARTIFACTS", "nosuch://bucket")
    local = LocalOrchestrator(workers="processes")
    result = chain.run(path, on=local)
    assert result["found"] == (3, 3)
    said = [line.message for line in local.logs(result.run_id)]
    assert any(text.startswith("step 'make' is not cached: Artifacts at nosuch://bucket cannot be") for text in said)


def test_closures_and_state_of_this_process_count(tmp_path: Path) -> None:
    def pipeline_of(plus: int) -> Pipeline:
        @step(cache=True)
        def added(x: int) -> int:
            return x + plus

        return Pipeline("closures", context=context(x=1)).add_step(added)

    assert [pipeline_of(1).run()["added"], pipeline_of(2).run()["added"], pipeline_of(1).run()["added"]] == [2, 3, 2]
    assert pipeline_of(2).run().step_results["added"].is_cached


STATE = {"factor": 1}


@step(cache=True)
def scaled(x: int) -> int:
    return x * STATE["factor"]


def test_a_global_that_changed_since_counts_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Pipeline("globals", context=context(x=5)).add_step(scaled)
    assert made.run()["scaled"] == 5
    monkeypatch.setitem(STATE, "factor", 3)
    assert made.run()["scaled"] == 15
    monkeypatch.undo()


CELLS = """
from flowyml import step, pipeline
FACTOR = 3
class Point:
    def __init__(self, x): self.x = x
    def double(self): return Point(self.x * 2)
def helper(v):
    return v * FACTOR
@step(cache=True)
def make(n: int):
    return Point(n)
@step(cache=True)
def work(p):
    return helper(p.double().x)
@pipeline
def cells(n: int = 2):
    return work(make(n))
def show():
    result = cells.run()
    print(result["work"], *(int(step.is_cached) for step in result.step_results.values()))
show()
show()
FACTOR = 4
show()
def helper(v):
    return v * FACTOR + 1
show()
class Point:
    def __init__(self, x): self.x = x
    def double(self): return Point(self.x * 20)
show()
show()
"""


def test_what_is_typed_at_a_prompt_is_cached_and_its_changes_count() -> None:
    """Such code stands in no file, as in a notebook: what it names in its globals counts."""
    done = subprocess.run([sys.executable, "-"], input=CELLS, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["12 0 0", "12 1 1", "16 1 0", "17 1 0", "161 0 0", "161 1 1"]


def test_a_step_that_is_run_by_hand_runs(tmp_path: Path) -> None:
    """From its bundle, as the log of a failed one says."""
    path = tmp_path / "lines"
    bundle = chain.bundle().write(tmp_path / "dist")
    parameters = json.dumps({"path": str(path)})
    for count in (1, 2):
        command = [sys.executable, "-I", str(bundle), "step", "make", "--parameters", parameters]
        subprocess.run(command, check=True, capture_output=True)
        assert ran(path) == count


def test_steps_that_clean_up_or_have_secrets() -> None:
    made = Pipeline("secret", enable_cache=True)
    made.add_step(step(secrets={"TOKEN": "a/token"}, name="quiet")(lambda: 1))
    made.add_step(step(secrets={"TOKEN": "a/token"}, name="asks", cache=True)(lambda: 1))
    assert [each.caching is not None for each in made.compile()] == [False, True]


@step(outputs=[], cache=True)
def leaves_a_line(path: str) -> None:
    note(path)


def test_a_step_that_gives_nothing_is_cached_too(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    made = Pipeline("silent", context=context(path=str(path))).add_step(leaves_a_line)
    first, again = made.run(), made.run()
    assert again.step_results["leaves_a_line"].cached_from == first.run_id
    assert ran(path) == 1
