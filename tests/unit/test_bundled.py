"""A pipeline read back from its bundle is a pipeline like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.core.errors import ParameterError, PlanError
from flowyml.orchestrators.base import RunnablePipeline
from flowyml.orchestrators.bundled import BundledPipeline
from flowyml.plan.bundle import build
from flowyml.plan.model import FromParameter, Input, Parameter, PipelineOutput, Plan, Step
from flowyml.plan.model import FromStep as Output

PLAN = Plan(
    name="doubling",
    steps=(
        Step(name="double", function="doubling:double", inputs=(Input("rows", FromParameter("rows")),), outputs=("n",)),
    ),
    parameters=(
        Parameter(name="rows", schema={"type": "integer"}, default=4),
        Parameter(name="level", schema={"enum": ["low", "high"]}, required=True),
    ),
    outputs=(PipelineOutput("n", Output("double", "n")),),
)


@pytest.fixture
def pipeline(tmp_path: Path) -> BundledPipeline:
    bundle = build(PLAN, files={"doubling.py": b"def double(rows): return 2 * rows"})
    return BundledPipeline(bundle.write(tmp_path))


def test_it_offers_what_orchestrators_ask_for(pipeline: BundledPipeline) -> None:
    runnable: RunnablePipeline = pipeline
    assert (runnable.name, runnable.compile()) == ("doubling", PLAN)
    assert runnable.code().functions["double"](rows=3) == 6
    assert runnable.bundle().filename == pipeline.path.name


def test_parameters_get_defaults_and_are_checked(pipeline: BundledPipeline) -> None:
    assert pipeline.check_parameters({"level": "low"}) == {"rows": 4, "level": "low"}
    with pytest.raises(ParameterError, match="'level' is missing and has no default"):
        pipeline.check_parameters(None)
    with pytest.raises(ParameterError, match="'rows' must be of type integer"):
        pipeline.check_parameters({"rows": "many", "level": "low"})
    with pytest.raises(ParameterError, match="'middle' is not one of"):
        pipeline.check_parameters({"level": "middle"})


def test_a_file_that_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.pyz").write_bytes(b"?")
    with pytest.raises(PlanError, match="is not a FlowyML bundle"):
        BundledPipeline(tmp_path / "x.pyz")
