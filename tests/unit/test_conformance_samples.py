"""The conformance kit asks an engine only for what it says that it asks for, whatever else the engine lacks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowyml.core.capabilities import Feature
from flowyml.orchestrators.needs import first_of_each
from flowyml.plan.model import RUN_IF
from flowyml.testing import OrchestratorConformance
from flowyml.testing.pipelines_caching import caches
from flowyml.testing.pipelines_cleanup import RULES

# What no engine lacks, or what no engine refuses.
_ALWAYS = {Feature.PARAMETERS}


def _samples() -> Iterator[Any]:
    """Each once, by the first test that looks at its run."""
    tests = inspect.getmembers(OrchestratorConformance, lambda member: hasattr(member, "sample"))
    firsts = {test.sample: name for name, test in reversed(tests)}
    return (pytest.param(sample, id=name) for sample, name in firsts.items())


@pytest.mark.parametrize("sample", [*_samples()])
def test_a_sample_names_all_that_it_needs(sample: Any, tmp_path: Path) -> None:
    settings = {setting: getattr(OrchestratorConformance, setting) for setting in sample.settings}
    plan = sample.make(str(tmp_path), **settings).compile().with_retry_policy(sample.options.get("retry_policy"))
    assert {*first_of_each(plan)} <= {*sample.needs, *_ALWAYS}


def test_every_rule_has_a_sample() -> None:
    assert {rule for rule, _, _ in RULES} == set(RUN_IF)


def test_the_cached_sample_can_do_without_all_else(tmp_path: Path) -> None:
    plan = caches(str(tmp_path), together=False, loop=False, hears=False).compile()
    assert {*first_of_each(plan)} == {Feature.CACHING, Feature.PARAMETERS}
