"""Three pipelines that together show each form of what is compiled, as golden files; and every example compiles."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, cleanup, for_each, otherwise, pipeline, step, when
from flowyml.core.hooks import PipelineHook
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml_kubeflow import KubeflowOrchestrator, names, spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from tests.refusals import xfail_if_refused

pytest.importorskip("kfp")
from tests.engines.kubeflow_ir import faults

pytestmark = pytest.mark.kubeflow

GOLDEN = Path(__file__).parents[2] / "golden" / "kubeflow"
EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.py"))
EVERY_OPTION: dict[str, Any] = {
    "env": {"MODE": "fast"}, "cpu_request": "500m", "cpu_limit": "2",
    "memory_request": "1Gi", "memory_limit": "4Gi", "node_selector": {"disk": "ssd"},
    "node_affinity": [
        {"match_expressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
        {"match_expressions": [{"key": "fast", "operator": "Exists"}], "weight": 10},
    ],
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60}],
    "secrets": {"PASSWORD": "database/password"}, "secret_files": {"/certificates": "certificates"},
    "config_maps": {"REGION": "settings/region"}, "config_map_files": {"/settings": "settings"},
    "pvcs": {"/data": "shared-data"}, "empty_dirs": {"/tmp": "1Gi", "/dev/shm": "memory:2Gi"},
    "security_context": {"run_as_user": 12345, "run_as_group": 0, "run_as_non_root": True},
    "pull_policy": "Always", "pull_secrets": ["registry"], "labels": {"team": "a"}, "annotations": {"about": "b"},
}  # fmt: skip
IMAGE = {"kubeflow": {"image": "registry.internal/own:1"}}
RETRY = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=5)


@step(outputs=["numbers"])
def load(rows: int) -> list[int]:
    return list(range(rows))


@step(outputs=["total"])
def add(numbers: list[int]) -> int:
    return sum(numbers)


@step(outputs=["value"])
def same(value: int) -> int:
    return value


@step(
    outputs=["total"], timeout=60, resources=ResourceRequirements(gpu=2, gpu_type="NVIDIA-A100"),
    secrets={"password": "database/password"},
    kubeflow=EVERY_OPTION,
)  # fmt: skip
def ask(numbers: list[int], password: str) -> int:
    return len(numbers)


@step(outputs=["kept"], kubeflow={"cache": True})
def keep(value: list[int]) -> int:
    """KFP may take it from its cache, so that the run ends with a task of FlowyML's."""
    return len(value)


@pipeline(name="plain", description="Options and secrets.", **IMAGE)
def plain(
    named: dict[str, int], rows: int = 3, share: float = 0.5, many: list[int] = [1], name: str = "x", fast: bool = True,
    either: int | None = None,
) -> Any:  # fmt: skip
    """With a parameter of each type."""
    return {"total": ask(load(rows)), "of many": add(many)}


@pipeline(name="flow", **IMAGE)
def flow(rows: int = 3) -> Any:
    with cleanup():
        same.options(name="tidy")(0)
    numbers = load(rows)
    with for_each(numbers, max_parallel=2) as number:
        first = same.options(name="first", execution_group="pair", retry=RETRY)(number)
        second = same.options(name="second", execution_group="pair", timeout=60)(first)
    total = add(second)
    with when(total > 2, name="much"):
        same.options(name="report")(total)
    with otherwise(name="little"):
        same.options(name="excuse", run_if="all_done", after=["report"])(0)
    return {"total": total}


class Hook(PipelineHook):
    """Does nothing."""


@pipeline(name="hooks", hooks=[Hook()], **IMAGE)
def hooks(rows: int = 3) -> Any:
    return {"kept": keep(load.options(retry=RETRY)(rows))}


@pytest.mark.parametrize("made", [plain, flow, hooks], ids=lambda made: made.name)
def test_golden_files(made: Pipeline, update_golden: bool) -> None:
    """The code of the steps is left out: it changes with FlowyML itself."""
    compiled = compile_pipeline(made.bundle(), store="s3://code")
    assert faults(compiled.documents) == []
    text = _without_digests(compiled)
    path = GOLDEN / f"{names.pipeline(made.name)}.yaml"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text()


def test_kfps_own_loader_takes_them() -> None:
    from kfp import components

    for path in sorted(GOLDEN.glob("*.yaml")):
        assert components.load_component_from_file(str(path)).name in path.stem


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_compile(path: Path) -> None:
    made = pipeline_of(path)
    xfail_if_refused(made.compile(), KubeflowOrchestrator)
    compiled = compile_pipeline(made.bundle())
    assert spec.validate(compiled)
    assert faults(compiled.documents) == []
    if path.stem in ("daily_sales", "train_classifier", "tune_on_gpu"):
        assert len(spec.code_containers(compiled.spec)) == 1, "what names engines or brings a DAG along takes more"


def pipeline_of(path: Path) -> Pipeline:
    """The pipeline of a file in ``examples``."""
    found = spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[path.stem] = module_from_spec(found)
    found.loader.exec_module(module)
    (made,) = (item for item in vars(module).values() if isinstance(item, Pipeline))
    return made


def _without_digests(made: Compiled) -> str:
    assert spec.validate(made)
    text = re.sub(r"-[0-9a-f]{8}\.pyz", "-DIGEST.pyz", spec.text(made))
    return re.sub(r'"?[0-9a-f]{64}"?', "DIGEST", text)  # YAML quotes the ones that look like numbers
