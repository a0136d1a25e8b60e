"""What the conformance suite asks an engine for, and what it makes of one that refuses or only says so."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from flowyml.core.capabilities import Capabilities, Feature, no
from flowyml.core.errors import NoFileFormatError, UnsupportedFeatureError
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import RunnablePipeline
from flowyml.orchestrators.needs import first_of_each
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import RUN_IF, Plan
from flowyml.testing import DeploymentConformance, OrchestratorConformance
from flowyml.testing.base import Conformance
from flowyml.testing.pipelines_caching import caches
from flowyml.testing.pipelines_cleanup import RULES
from flowyml.testing.pipelines_loops import item_by_item
from flowyml.testing.samples import Ahead, sample

LOOP = sample(item_by_item, needs=[Feature.FAN_OUT])


class WithoutLoops(LocalOrchestrator):
    capabilities: ClassVar = Capabilities(
        "local", {**LocalOrchestrator.capabilities.support, Feature.FAN_OUT: no("Why.")}
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


def test_a_sample_names_all_that_it_needs(tmp_path: Path) -> None:
    tests = inspect.getmembers(OrchestratorConformance, lambda member: hasattr(member, "sample"))
    for each in {test.sample for _, test in tests}:
        settings = {setting: getattr(OrchestratorConformance, setting) for setting in each.settings}
        plan = each.make(str(tmp_path), **settings).compile().with_retry_policy(each.options.get("retry_policy"))
        assert {*first_of_each(plan)} <= {*each.needs, Feature.PARAMETERS}, plan.name


def test_every_rule_has_a_sample() -> None:
    assert {rule for rule, _, _ in RULES} == set(RUN_IF)


def test_the_cached_sample_can_do_without_all_else(tmp_path: Path) -> None:
    plan = caches(str(tmp_path), together=False, loop=False, hears=False).compile()
    assert {*first_of_each(plan)} == {Feature.CACHING, Feature.PARAMETERS}
