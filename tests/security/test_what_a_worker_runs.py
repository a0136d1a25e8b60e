"""What a worker runs: the code of its bundle. What comes with a run as a parameter is data, whatever it looks like."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from flowyml import Pipeline, either, for_each, otherwise, pipeline, step, when
from flowyml.artifacts import open_store, pack, unpack
from flowyml.core.errors import ArtifactError, FlowymlError
from flowyml.orchestrators import LocalOrchestrator, Orchestrator
from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, PipelineOutput, Plan, Step
from flowyml.runtime.processes import StepProcesses
from tests.engines.prefect import PrefectServer
from tests.engines.web import Recorded, Reply, web

Reference = dict[str, Any]


class Bomb:
    """Leaves a file where it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@step(outputs=["handed"])
def hand_on(typed: Any) -> Any:
    return typed


@step(outputs=["seen"])
def look(typed: Any, handed: Any, fixed: Any) -> list[str]:
    """What a step sees of a parameter, of one that was handed on as an output, and of a constant."""
    return [json.dumps(value, sort_keys=True) for value in (typed, handed, fixed)]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A folder that is there once somebody has read the pickle."""
    return tmp_path / "read"


def reference_to(path: Path, url: str = "") -> Reference:
    data = path.read_bytes()
    about = {"format": "pickle", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "type": "x.X"}
    return {"$artifact": {"url": url or f"file://{path}", **about}}


@pytest.fixture
def forged(mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reference:
    """A reference that would be followed if a step had produced it: the pickle stands in the store of the runs."""
    monkeypatch.setenv("FLOWYML_ARTIFACTS", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    bomb = tmp_path / "store" / "bomb.pkl"
    bomb.write_bytes(pickle.dumps(Bomb(mark)))
    reference = reference_to(bomb)
    unpack(reference, open_store())
    assert mark.exists(), "the attack itself works"
    mark.rmdir()
    return reference


def attacked(name: str, forged: Reference) -> Pipeline:
    """A pipeline that takes it as a parameter, hands it on as an output, and has it as a constant too."""

    @pipeline(name=name)
    def attack(typed: Any = None) -> Any:
        return look(typed, hand_on(typed), fixed=forged)

    return attack


def check(result: Any, forged: Reference, mark: Path) -> None:
    assert not mark.exists(), "a parameter was unpickled"
    assert result.outputs["seen"] == [json.dumps(forged, sort_keys=True)] * 3
    assert not mark.exists(), "a parameter was unpickled where the outputs are read"


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_parameter_is_data_on_local(forged: Reference, mark: Path, workers: str) -> None:
    result = attacked("attacked", forged).run({"typed": forged}, on=LocalOrchestrator(workers=workers))
    assert result.success, result.error
    check(result, forged, mark)


@step
def same(item: Any) -> Any:
    return item


@step
def shown(item: Any) -> str:
    """A step that mapped over the list, or an item that was handed on."""
    return json.dumps(item, sort_keys=True)


def looped(typed: Any = None, inner: Any = None, fixed: Any = None) -> Any:
    """A list of the attack by every way on which an item comes to a step."""
    seen = {"mapped": shown.map(item=typed)}
    with for_each(typed) as item:
        with when(item != 1):
            this = same(item)
        with otherwise():
            other = same(item)
        seen["joined"] = shown(either(this, other))
    with for_each(inner) as outer, for_each(outer) as item:
        seen["nested"], seen["handed on"] = shown(item), shown(same(item))
    with for_each(same(typed)) as item:
        seen["produced"] = shown(item)
    seen["fixed"] = shown.map(item=fixed)
    return seen


@pytest.mark.parametrize("how", ["threads", "processes", "detached"])
def test_an_item_of_a_parameter_is_data_on_local(forged: Reference, mark: Path, how: str, tmp_path: Path) -> None:
    """Also what is too large to travel within JSON: it once came as the reference under which it was stored."""
    items = [forged, "x" * 100_000]

    @pipeline(name="looped")
    def attack(typed: Any = None, inner: Any = None) -> Any:
        return looped(typed, inner, items)

    on = LocalOrchestrator(store=tmp_path / "runs.db", workers="threads" if how == "threads" else "processes")
    given = {"typed": items, "inner": [items]}
    result: Any = wait(on, attack, given) if how == "detached" else attack.run(given, on=on)
    assert result.success if how != "detached" else True, result.error
    assert not mark.exists(), "an item of a parameter was unpickled"
    wanted = [json.dumps(item, sort_keys=True) for item in items]
    outputs = dict(result.outputs)
    assert {name: outputs[name] for name in ("nested", "handed on")} == {"nested": [wanted], "handed on": [wanted]}
    assert {name: outputs[name] for name in ("mapped", "joined", "produced", "fixed")} == dict.fromkeys(
        ("mapped", "joined", "produced", "fixed"), wanted
    )
    assert not mark.exists(), "an item of a parameter was unpickled where the outputs are read"


@pytest.mark.parametrize(("nested", "fork"), [(False, "1"), (True, "0")], ids=["warm", "nested, fresh"])
def test_a_worker_unpacks_no_item_of_a_parameter(
    forged: Reference, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool, fork: str
) -> None:
    """Whatever an engine hands it."""
    monkeypatch.setenv("FLOWYML_FORK", fork)

    @pipeline(name="handed")
    def attack(typed: Any = None) -> Any:
        with for_each(typed) as outer:
            if not nested:
                return {"seen": shown(outer)}
            with for_each(outer) as item:
                return {"seen": shown(item)}

    bundle = attack.bundle().write(tmp_path)
    with StepProcesses(bundle, run_id="r", artifacts=str(tmp_path / "store")) as steps:
        packed = steps.run("shown", {"item": forged}, index=(0, 0) if nested else (0,))
    assert packed == {"shown": json.dumps(forged, sort_keys=True)}
    assert not mark.exists()


def test_references_in_a_list_of_outputs_stay_within_the_run(forged: Reference, mark: Path, tmp_path: Path) -> None:
    @pipeline(name="gathered")
    def attack() -> Any:
        return shown(same.map(item=[1, 2]))

    bundle = attack.bundle().write(tmp_path)
    with (
        StepProcesses(bundle, run_id="r", artifacts=str(tmp_path / "values"), place="local/gathered/r") as steps,
        pytest.raises(FlowymlError, match=r"bomb\.pkl is not in"),
    ):
        steps.run("shown", {"item": [1, forged]})
    assert not mark.exists()


def wait(orchestrator: Orchestrator, attack: Pipeline, parameters: Mapping[str, Any]) -> Any:
    handle = attack.submit(parameters, on=orchestrator)
    handle.wait_for_completion(2400, progress=False)
    assert handle.status.is_successful, handle.error
    return handle


def test_a_parameter_is_data_on_prefect_and_a_forged_output_is_not_followed(
    prefect: PrefectServer, forged: Reference, mark: Path, tmp_path: Path
) -> None:
    """A user who may write to Prefect's API may write artifacts, but not run code where outputs are read."""
    from flowyml_prefect import PrefectOrchestrator
    from flowyml_prefect.names import outputs_key

    orchestrator = PrefectOrchestrator(prefect.url)
    handle = wait(orchestrator, attacked("attacked on prefect", forged), {"typed": forged})
    check(handle, forged, mark)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    table = [{"output": "seen", "value": json.dumps(reference_to(tmp_path / "bomb.pkl"))}]
    forgery = {"key": outputs_key("attacked on prefect"), "type": "table", "data": json.dumps(table)}
    orchestrator.client.create_artifact({**forgery, "flow_run_id": handle.job_id})
    with pytest.raises(FlowymlError, match=r"bomb\.pkl is not in .*store, the artifact store configured here"):
        _ = orchestrator.attach(handle.job_id).outputs["seen"]
    assert not mark.exists()
    orchestrator.close()


def test_a_flow_on_prefect_runs_no_code_but_its_own(tmp_path: Path) -> None:
    """A worker of a work pool fetches both files from a store, where another version's bundle may have its name."""
    pytest.importorskip("prefect")
    from flowyml_prefect.compiler import compile_flow

    ours, others = build(Plan(name="p", steps=(Step(name="s", function="m:f"),))), attacked("other", {}).bundle()
    (tmp_path / "flow.py").write_text(compile_flow(ours), "utf-8")
    for data in (others.data, ours.data[:-1]):
        (tmp_path / ours.filename).write_bytes(data)
        with pytest.raises(ImportError, match="is not the code of this flow: it was replaced or cut short"):
            run_path(str(tmp_path / "flow.py"))


def test_a_parameter_is_data_on_kubeflow(forged: Reference, mark: Path) -> None:
    pytest.importorskip("kfp")
    from flowyml_kubeflow import KubeflowLocalOrchestrator

    orchestrator = KubeflowLocalOrchestrator(runner="subprocess")
    handle = wait(orchestrator, attacked("attacked on kubeflow", forged), {"typed": forged})
    check(handle, forged, mark)


@pytest.mark.parametrize("kind", ["steps", "hooks", "control flow"])
def test_a_pod_runs_no_code_but_that_of_its_pipeline(kind: str, tmp_path: Path) -> None:
    """On Kubeflow, the code lies in the store between the task that provides it and the pods that take it."""
    pytest.importorskip("kfp")
    from flowyml.testing import pipelines, pipelines_loops
    from flowyml_kubeflow import spec
    from flowyml_kubeflow.compiler import compile_pipeline

    made = {
        "steps": pipelines.greeting,
        "hooks": lambda: pipelines.hooked(str(tmp_path)),
        "control flow": lambda: pipelines_loops.rows(str(tmp_path)),
    }[kind]()
    compiled = compile_pipeline(made.bundle()).spec
    giving = spec.code_containers(compiled)
    evil = tmp_path / "evil.py"
    evil.write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    taking = [each["container"] for each in compiled["deploymentSpec"]["executors"].values()]
    taking = [each for each in taking if each not in giving]
    assert taking
    for each in taking:
        words = [re.sub(r"\{\{\$.inputs.artifacts.*path\}\}", str(evil), word) for word in each["args"]]
        assert str(evil) in words
        done = subprocess.run(
            [sys.executable, *each["command"][1:], *words], capture_output=True, text=True, check=False
        )  # fmt: skip
        assert not (tmp_path / "ran").exists()
        assert "is not the one that was compiled: its SHA-256 differs" in done.stderr


def test_a_parameter_is_data_on_airflow(forged: Reference, mark: Path, tmp_path: Path) -> None:
    """The worker that Airflow's tasks call, with the conf of a run that a person typed in."""
    from flowyml_airflow import worker
    from flowyml_airflow.compiler import compile_dag
    from flowyml_airflow.xcoms import restored

    dag = compile_dag(attacked("attacked on airflow", forged).bundle(), artifacts=str(tmp_path / "store"))
    bundle = tmp_path / dag.bundle.filename
    bundle.write_bytes(dag.bundle.data)
    run = SimpleNamespace(conf={"typed": forged})
    context = {"run_id": "r", "params": {"typed": None}, "dag_run": run, "ti": SimpleNamespace(try_number=1)}

    def task(name: str, **inputs: Any) -> Any:
        operator = SimpleNamespace(step=name, inputs=inputs)
        return worker.run_step(operator, context, lambda: bundle, sys.executable, str(tmp_path / "store"))

    seen = unpack(restored(task("look", handed=task("hand_on"))), open_store())
    check(SimpleNamespace(outputs={"seen": seen}), forged, mark)


@pytest.mark.parametrize("fork", ["1", "0"], ids=["warm", "fresh"])
def test_a_parameter_is_data_in_a_step_process(
    forged: Reference, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: str
) -> None:
    """However the parameter comes: with the run, or among the inputs, as Prefect and Kubeflow give it."""
    monkeypatch.setenv("FLOWYML_FORK", fork)
    bundle = attacked("attacked in a process", forged).bundle().write(tmp_path)
    with StepProcesses(bundle, run_id="r", artifacts=str(tmp_path / "store"), parameters={"typed": forged}) as steps:
        for inputs in ({}, {"typed": forged}):
            handed = steps.run("hand_on", inputs)["handed"]
            again = {**inputs, "fixed": forged} if inputs else {}
            seen = steps.run("look", {"handed": handed, **again})["seen"]
            check(SimpleNamespace(outputs={"seen": seen}), forged, mark)


# Where a reference may lead.


@pytest.fixture
def bomb(mark: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    yield path
    assert not mark.exists(), "a reference was followed out of the store"


@pytest.mark.parametrize(
    "place", ["file://{out}/bomb.pkl", "file://{out}/store/../bomb.pkl", "file://{out}/store//../bomb.pkl",
              "file://{out}/store", "file://{out}/store/.", "{out}/bomb.pkl", "{out}/store/../bomb.pkl",
              "memory://elsewhere/bomb.pkl", "simplecache::file://{out}/bomb.pkl", "file://{out}/store-2/bomb.pkl",
              "file://{out}/store/..\\bomb.pkl", "local://{out}/bomb.pkl"],
)  # fmt: skip
def test_a_reference_leads_nowhere_but_below_the_store(bomb: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "store-2").mkdir()
    (tmp_path / "store-2" / "bomb.pkl").write_bytes(bomb.read_bytes())
    reference = reference_to(bomb, place.format(out=tmp_path))
    with pytest.raises(ArtifactError, match="is not in"):
        unpack(reference, open_store(tmp_path / "store"))


@pytest.mark.parametrize("place", ["memory://elsewhere/bomb.pkl", "memory://store/../elsewhere/bomb.pkl"])
def test_nor_does_one_leave_a_bucket(bomb: Path, place: str) -> None:
    pack({1: 2}, open_store("memory://elsewhere"), key="bomb")
    with pytest.raises(ArtifactError, match="is not in"):
        unpack(reference_to(bomb, place), open_store("memory://store"))


def test_no_reference_makes_a_worker_ask_a_server(bomb: Path, tmp_path: Path) -> None:
    def reply(request: Recorded) -> Reply:
        return Reply(body=bomb.read_bytes())

    with web(reply) as server:
        for url in (f"{server.url}/bomb.pkl", f"simplecache::{server.url}/bomb.pkl"):
            with pytest.raises(ArtifactError, match="is not in"):
                unpack(reference_to(bomb, url), open_store(tmp_path))
        assert server.requests == []


def test_what_a_step_returned_that_looks_like_a_reference_comes_back_as_it_was(forged: Reference, mark: Path) -> None:
    packed = pack(forged, open_store(), key="a")
    assert packed["$artifact"]["format"] == "json"
    assert unpack(packed, open_store()) == forged
    assert not mark.exists()


# Where pickles are not allowed.


@step(outputs=["odd"])
def odd(typed: Any) -> Any:
    return {1, 2} if typed == "set" else [Path(typed)]


@step(outputs=["count"])
def count(odd: Any) -> int:
    return len(odd)


def odd_pipeline(name: str) -> Pipeline:
    return Pipeline(name, context={"typed": "set"}).add_step(odd).add_step(count)


def test_without_pickles_a_step_that_needs_one_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    result = odd_pipeline("no pickles").run(on=LocalOrchestrator(workers="processes"))
    assert not result.success
    for words in (
        "'odd'",
        "output 'odd'",
        "set can only be pickled",
        "FLOWYML_ALLOW_PICKLE=0",
        "Return plain data, arrays or tables.",
    ):
        assert words in str(result.error)


@pytest.mark.parametrize("fork", ["1", "0"], ids=["warm", "fresh"])
def test_without_pickles_a_worker_reads_none(
    forged: Reference, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: str
) -> None:
    """Not even one that the store of the run holds, and that a step may have produced."""
    monkeypatch.setenv("FLOWYML_FORK", fork)
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "off")
    bundle = odd_pipeline("reads none").bundle().write(tmp_path)
    steps = StepProcesses(bundle, run_id="r", artifacts=str(tmp_path / "store"))
    with steps, pytest.raises(FlowymlError) as caught:
        steps.run("count", {"odd": forged})
    for words in (
        "'count'",
        "output 'odd' of step 'odd'",
        "a pickle of a x.X",
        "FLOWYML_ALLOW_PICKLE=off",
        "allow pick",
    ):
        assert words in str(caught.value)
    assert not mark.exists()


def test_without_pickles_the_record_of_local_runs_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The setting of a project counts for all that is started in its folder, the command too."""
    local = LocalOrchestrator()
    assert odd_pipeline("kept before").run({"typed": "x"}, on=local, run_id="kept-before").success
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.flowyml]\nallow_pickle = false\n")
    whole = Pipeline("odd outputs", context={"typed": "set"}).add_step(odd)
    result = whole.run(on=local, run_id="no-pickles-here")
    assert result.success
    with pytest.raises(ArtifactError, match=r"'odd' .*a set as a pickle, .* allow_pickle = false in .*pyproject"):
        _ = local.outputs("no-pickles-here")["odd"]
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "1")
    assert whole.run(on=local, run_id="pickles-here").success
    assert local.outputs("pickles-here")["odd"] == {1, 2}
    monkeypatch.delenv("FLOWYML_ALLOW_PICKLE")
    with pytest.raises(ArtifactError, match=r"'odd' .* pickles are not read here: allow_pickle = false in"):
        _ = local.outputs("pickles-here")["odd"]


WANDERER = """
import os

os.chdir({elsewhere!r})

def odd():
    return {{1, 2}}
"""
IN_THREADS = """
import sys
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.bundled import BundledPipeline

local = LocalOrchestrator()
assert local.execute(BundledPipeline(sys.argv[1]), sys.argv[2], {}).success
try:
    print(local.outputs(sys.argv[2])["odd"])
except Exception as error:
    print(error)
"""


@pytest.fixture
def wanderer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose module changes the working folder; where it is started, pickles are forbidden."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "flowyml.toml").write_text("allow_pickle = false\n")
    monkeypatch.chdir(tmp_path / "here")
    source = WANDERER.format(elsewhere=str(tmp_path / "elsewhere"))
    plan = Plan(
        name="wanders", steps=(Step(name="odd", function="wanders:odd", outputs=("odd",)),),
        outputs=(PipelineOutput("odd", FromStep("odd", "odd")),),
    )  # fmt: skip
    return build(plan, files={"wanders.py": source.encode()}).write(tmp_path)


FORBIDDEN = r"pickles are not written here: allow_pickle = false in .*here/flowyml.toml"


@pytest.mark.parametrize("kind", ["forked", "spawned", "forked here"])
def test_a_module_that_changes_the_folder_does_not_allow_pickles_in_step_processes(
    wanderer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As a worker of Prefect or Airflow runs its steps."""
    monkeypatch.setenv("FLOWYML_FORK", str(int(kind != "spawned")))
    with StepProcesses(
        wanderer, run_id="r", artifacts=str(tmp_path / "store"), fork_here=kind == "forked here"
    ) as steps:
        (tmp_path / "here" / "flowyml.toml").rename(tmp_path / "later")  # it was decided when the run began
        with pytest.raises(FlowymlError, match=FORBIDDEN):
            steps.run("odd", {})


def test_nor_in_threads(wanderer: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IN_THREADS, str(wanderer), "wanders-in-threads"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(FORBIDDEN, done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_nor_in_a_submitted_local_run(wanderer: Path, workers: Literal["threads", "processes"]) -> None:
    local = LocalOrchestrator(workers=workers)
    handle = local.run_pipeline(BundledPipeline(wanderer))
    if workers == "processes":
        assert re.search(FORBIDDEN, str(handle.wait_for_completion(timeout=2400).error))
        return
    assert handle.wait_for_completion(timeout=2400).status.name == "COMPLETED"
    with pytest.raises(ArtifactError, match=FORBIDDEN):
        _ = local.outputs(handle.job_id)["odd"]


def test_nor_by_hand(wanderer: Path) -> None:
    done = subprocess.run([sys.executable, str(wanderer), "step", "odd"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(FORBIDDEN, done.stderr), done.stderr


def test_a_word_that_is_neither_yes_nor_no_allows_nothing(forged: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "nope")
    with pytest.raises(FlowymlError, match=r"FLOWYML_ALLOW_PICKLE is 'nope'. Write true or false"):
        unpack(forged, open_store())


def test_without_pickles_what_needs_none_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    monkeypatch.setenv("FLOWYML_ALLOW_PICKLE", "0")
    store = open_store(tmp_path)
    for value in (b"x", "x" * 100_000, [1] * 100_000, np.arange(3), pd.DataFrame({"a": [1.5]})):
        assert type(unpack(pack(value, store, key="a"), store)) is type(value)
    with pytest.raises(ArtifactError, match="can only be pickled"):
        pack(np.array([object()]), store, key="a")
