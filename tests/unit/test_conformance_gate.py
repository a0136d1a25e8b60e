"""What the conformance suite makes of an engine that refuses, of one that only says so, and of shared runs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowyml import Pipeline, current_run, pipeline, step
from flowyml.core.capabilities import Capabilities, Feature, no
from flowyml.core.errors import NoFileFormatError, UnsupportedFeatureError
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import RunnablePipeline
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml.testing import DeploymentConformance, pipelines
from flowyml.testing.base import Conformance
from flowyml.testing.pipelines_loops import item_by_item
from flowyml.testing.samples import Ahead, sample

LOOP = sample(item_by_item, needs=[Feature.FAN_OUT])


class WithoutLoops(LocalOrchestrator):
    capabilities: ClassVar = Capabilities(
        "local", {**LocalOrchestrator.capabilities.support, Feature.FAN_OUT: no("Why.")}
    )


class WithoutCalls(LocalOrchestrator):
    capabilities: ClassVar = Capabilities(
        "local", {**LocalOrchestrator.capabilities.support, Feature.SUB_PIPELINES: no("Why.")}
    )


class SaysSo(WithoutLoops):
    """It denies loops, and runs them."""

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        return pipeline.compile()


class Partly(LocalOrchestrator):
    """Its compiler refuses some loops."""

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        if pipeline.name == "conformance item by item":
            raise UnsupportedFeatureError("two steps an item are beyond it")
        return super().plan(pipeline)


class Unsorted(LocalOrchestrator):
    """What it compiles to depends on the order of a set."""

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        return {"flow.txt": " ".join({bundle.plan.name, *map(str, range(20)), bundle.digest}).encode()}


class CompilesNothing(DeploymentConformance):
    compiles_files = False


def ahead(kind: type[LocalOrchestrator], folder: Path, *samples: sample, refused: Mapping[str, str] = {}) -> Ahead:
    suite = type("Suite", (Conformance,), {"refused": refused})
    return Ahead(
        samples,
        suite,
        lambda **options: kind(store=folder / "runs.db", **options),
        partial(tempfile.mkdtemp, dir=folder),
    )


def test_a_case_that_the_engine_lacks_is_an_expected_refusal(tmp_path: Path) -> None:
    with pytest.raises(pytest.xfail.Exception, match=r"local refuses, as it says: fan-out .*'local' cannot: Why\."):
        ahead(WithoutLoops, tmp_path, LOOP).take(LOOP)
    assert WithoutLoops(store=tmp_path / "runs.db").runs() == []


def test_an_engine_that_can_do_what_it_denies_fails(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        ahead(SaysSo, tmp_path, LOOP).take(LOOP)


def test_an_engine_that_refuses_what_it_says_it_can_fails(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeatureError, match="beyond it"):
        ahead(Partly, tmp_path, LOOP).take(LOOP)


@pytest.mark.parametrize(
    ("kind", "words", "outcome"),
    [
        (Partly, "two steps an item", pytest.xfail.Exception),
        (Partly, "three steps an item", AssertionError),
        (LocalOrchestrator, "two steps an item", pytest.fail.Exception),
    ],
)
def test_what_is_beyond_an_engines_limits_is_refused_in_these_words(
    tmp_path: Path, kind: type[LocalOrchestrator], words: str, outcome: type[BaseException]
) -> None:
    taken = ahead(kind, tmp_path, LOOP, refused={"conformance item by item": words})
    with pytest.raises(outcome):
        taken.take(LOOP)


@pytest.mark.processes
def test_samples_share_a_run_in_which_each_has_its_own_names(tmp_path: Path) -> None:
    first, second, alone = (
        sample(lambda folder, name=name: naming(folder, name), shares_run=shares, parameters={"times": times})
        for name, shares, times in (
            ("conformance a b", True, 1),
            ("conformance c", True, 2),
            ("conformance d", False, 3),
        )
    )
    taken = ahead(LocalOrchestrator, tmp_path, first, alone, second)
    runs = [taken.take(one) for one in (first, second, alone)]
    assert runs[0].run.run_id == runs[1].run.run_id != runs[2].run.run_id
    assert [done.outputs for done in runs] == [{"named": ["named", times]} for times in (1, 2, 3)]
    assert [list(done.steps) for done in runs] == [["named"]] * 3
    assert [done.trace for done in runs] == [["named here"]] * 3
    assert [[(line.step, line.message) for line in done.log] for done in runs] == [
        [("named", f"printed {times} times")] for times in (1, 2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "kind", "wanted"),
    [
        (2, LocalOrchestrator, [2, 1]),
        (3, LocalOrchestrator, [3]),
        (0, LocalOrchestrator, [1, 1, 1]),
        (3, WithoutCalls, [1, 1, 1]),
    ],
)
def test_samples_share_runs_up_to_a_limit_and_where_the_engine_can(
    tmp_path: Path, limit: int, kind: type[LocalOrchestrator], wanted: list[int]
) -> None:
    samples = [sample(lambda folder, name=name: naming(folder, name), shares_run=True) for name in "abc"]
    taken = ahead(kind, tmp_path, *samples)
    taken.suite.steps_per_run = limit
    assert [len(group) for group in taken.groups] == wanted


def naming(folder: str, name: str) -> Pipeline:
    """A step that says what it is called."""

    @step
    def named(times: int) -> list[Any]:
        run = current_run()
        with (Path(folder) / "trace").open("a") as file:
            print(run.step, "here", file=file)
        print(f"printed {times} times")
        return ["named", times]

    @pipeline(name=name)
    def made(times: int = 0) -> Any:
        return named(times)

    return made


def test_an_engine_that_refuses_what_the_test_class_does_not_name_fails() -> None:
    with pytest.raises(NoFileFormatError):
        DeploymentConformance().test_the_same_pipeline_compiles_to_the_same_files(LocalOrchestrator())
    with pytest.raises(pytest.xfail.Exception, match="refused, as compiles_files = False says: 'local' has no file"):
        CompilesNothing().test_the_same_pipeline_compiles_to_the_same_files(LocalOrchestrator())
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        CompilesNothing().test_the_same_pipeline_compiles_to_the_same_files(Unsorted())


@pytest.mark.processes
def test_files_that_differ_from_process_to_process_fail() -> None:
    conformance = DeploymentConformance()
    conformance.test_the_same_pipeline_compiles_to_the_same_files(Unsorted())
    with pytest.raises(AssertionError):
        conformance.test_another_process_compiles_to_the_same_files(Unsorted())


def test_settings_of_the_suite_reach_the_pipeline(tmp_path: Path) -> None:
    seen: list[Any] = []
    asking = sample(lambda folder, patience: seen.append(patience) or pipelines.greeting(), settings=["patience"])
    ahead(LocalOrchestrator, tmp_path, asking).take(asking)
    assert set(seen) == {Conformance.patience}
