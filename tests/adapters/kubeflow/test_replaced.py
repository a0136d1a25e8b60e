"""Texts that KFP, Argo or Kubernetes replace on the way to a pod: each arrives unchanged, or is refused before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import ParameterError
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id

pytestmark = OVER_THE_API

REPLACED = [
    "$(KFP_POD_NAME)", "$(PLANTED)", "a $$ b", "{{$}}", "{{$.inputs.parameters['texts']}}", "{{=1+1}}",
    "{{workflow.name}}", "{{ workflow.uid }}", "{{inputs.parameters.component}}", "{{ inputs.parameters }}",
    "{{tasks.load.outputs.result}}", "{{tasks.name}}", "{{steps.name}}", "{{item.name}}", "{{pod.name}}",
    "{{node.name}}", "{{retries}}", "{{lastRetry.message}}", "{{outputs.parameters.condition.path}}",
    "{{ x {{workflow.name}}",
]  # fmt: skip
OTHERS = ["{{ ds }}", "{{", "}}", "${HOME}", "$(date -u)", "[[RunUUID]]", "$", "{{retries_left}}", "{{ item }}"]


@step
def rate(texts: Any) -> dict[str, float]:
    """The texts as names of metrics, which KFP's UI shows."""
    return dict.fromkeys(texts, 0.5)


@step
def write(texts: Any) -> Path:
    """As the name of a file."""
    path = Path(" ".join(texts[:8]))
    path.write_text("first")
    return path


@step
def write_others(texts: Any) -> Path:
    path = Path(" ".join(texts[8:17]))
    path.write_text("second")
    return path


@step
def check(rate: dict[str, float], write: Path, write_others: Path, texts: Any) -> list[Any]:
    return [texts, [*rate], write.name, write.read_text(), write_others.name, write_others.read_text()]


@step
def give(text: str) -> str:
    return text


@step
def give_all(texts: list[str]) -> list[str]:
    return texts


def test_values_outputs_metrics_and_names_of_files_arrive_unchanged(kfp_api: Any) -> None:
    made = Pipeline("replaced", context=context(texts=None), kubeflow={"env": {"PLANTED": "planted"}})
    for each in (rate, write, write_others, check):
        made.add_step(each)
    texts = [*REPLACED, *OTHERS]
    handle = kfp_api.orchestrator().run_pipeline(made, run_id("replaced"), parameters={"texts": texts})
    names = " ".join(texts[:8]), " ".join(texts[8:17])
    assert handle.wait_for_completion(RUN).outputs["check"] == [
        texts, texts, names[0], "first", names[1], "second"
    ]  # fmt: skip


@pytest.mark.parametrize("text", REPLACED)
def test_one_of_kfps_own_type_is_refused(kfp_api: Any, text: str) -> None:
    made = Pipeline("typed", context=context(text="")).add_step(give)
    with pytest.raises(ParameterError, match=r"Declare it as str \| None"):
        kfp_api.orchestrator().run_pipeline(made, run_id("typed"), parameters={"text": text})


def test_others_of_kfps_own_type_arrive_unchanged(kfp_api: Any) -> None:
    made = Pipeline("typed", context=context(texts=[""])).add_step(give_all)
    handle = kfp_api.orchestrator().run_pipeline(made, run_id("typed"), parameters={"texts": OTHERS})
    assert handle.wait_for_completion(RUN).outputs["give_all"] == OTHERS
