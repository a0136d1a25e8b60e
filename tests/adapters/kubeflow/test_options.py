"""Native settings of Kubeflow in a compiled file, and the ones that are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowyml import Pipeline, step
from flowyml.core.errors import UnknownOptionError
from flowyml.core.resources import ResourceRequirements
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml_kubeflow.compiler import compile_pipeline
from tests.engines import kubeflow_ir
from tests.engines.kubeflow_compiled import compiled, kubernetes, load


@pytest.mark.kubeflow
def test_the_platform_part_is_what_kfp_kubernetes_writes(tmp_path: Path) -> None:
    """The official library, asked for the same, writes the same: both are read by its own protobuf and compared."""
    from google.protobuf.json_format import ParseDict
    from kfp import compiler, dsl
    from kfp import kubernetes as official

    @dsl.container_component
    def add():  # type: ignore[no-untyped-def]  # kfp reads annotations, and not those that are text
        return dsl.ContainerSpec(image="python:3.12-slim", command=["true"])

    @dsl.pipeline(name="summing")
    def summing():  # type: ignore[no-untyped-def]  # as above
        task = add()
        official.use_secret_as_env(task, secret_name="s", secret_key_to_env={"k": "A"})
        official.mount_pvc(task, pvc_name="c", mount_path="/d")
        official.add_node_selector(task, label_key="x", label_value="y")
        official.add_toleration(task, key="gpu", operator="Exists", effect="NoExecute", toleration_seconds=5)
        official.set_image_pull_policy(task, "Always")
        official.set_image_pull_secrets(task, ["registry"])
        official.add_pod_label(task, "team", "a")
        official.add_pod_annotation(task, "about", "b")
        official.set_timeout(task, 1806)
        official.use_secret_as_volume(task, secret_name="certificates", mount_path="/certificates")
        official.use_config_map_as_env(task, config_map_name="m", config_map_key_to_env={"k": "B"})
        official.use_config_map_as_volume(task, config_map_name="settings", mount_path="/settings")
        official.empty_dir_mount(task, volume_name="flowyml-empty-1", mount_path="/tmp")
        official.empty_dir_mount(
            task, volume_name="flowyml-empty-2", mount_path="/dev/shm", medium="Memory", size_limit="1Gi"
        )
        official.add_node_affinity(task, match_expressions=[{"key": "zone", "operator": "In", "values": ["a", "b"]}])
        official.add_node_affinity(task, match_expressions=[{"key": "fast", "operator": "Exists"}], weight=10)
        official.set_security_context(task, run_as_user=12345, run_as_group=0, run_as_non_root=True)

    compiler.Compiler().compile(summing, str(tmp_path / "official.yaml"))
    (_, platform) = yaml.safe_load_all((tmp_path / "official.yaml").read_text())
    theirs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-add"]
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 5}
    asked: dict[str, Any] = {
        "secrets": {"A": "s/k"}, "pvcs": {"/d": "c"}, "node_selector": {"x": "y"}, "tolerations": [toleration],
        "pull_policy": "Always", "pull_secrets": ["registry"], "labels": {"team": "a"}, "annotations": {"about": "b"},
        "secret_files": {"/certificates": "certificates"}, "config_maps": {"B": "m/k"},
        "config_map_files": {"/settings": "settings"}, "empty_dirs": {"/tmp": "", "/dev/shm": "memory:1Gi"},
        "node_affinity": [
            {"match_expressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
            {"match_expressions": [{"key": "fast", "operator": "Exists"}], "weight": 10},
        ],
        "security_context": {"run_as_user": 12345, "run_as_group": 0, "run_as_non_root": True},
    }  # fmt: skip
    made = compiled(kubeflow=asked, timeout=5)
    assert kubeflow_ir.faults(made.documents) == []
    ours = kubernetes(made)
    for kind in ("secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume"):
        for item in theirs[kind]:
            assert item.pop("optional") is False  # as it is without the word, which KFP 2.14 does not know
    read = [
        ParseDict(one, official.kubernetes_executor_config_pb2.KubernetesExecutorConfig()) for one in (ours, theirs)
    ]
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imge": "x"}, "pipeline 'summing': kubeflow has no option 'imge'. Did you mean 'image'? Known: "),
        ({"image": 3}, "image=3 is not text"),
        ({"pull_secrets": "mine"}, "pull_secrets='mine' is not a list of strings"),
        ({"packages": ["pandas"]}, "no option 'packages': pods install nothing; take an image that has the packages"),
        ({"form": "python"}, "no option 'form': pods install nothing"),
        ({"secrets": {"A": "no-key"}}, "write it as 'name-of-the-secret/key'"),
        ({"tolerations": [{"kee": "x"}]}, "a toleration has no 'kee'"),
        ({"runtime": "wasm"}, "runtime='wasm' is not 'bundle' or 'image'"),
        ({"max_concurrency": 11}, "max_concurrency=11 is not a number"),
        ({"bundle_store": 1}, "bundle_store=1 is not a URL"),
        ({"cpu_request": "2 cores"}, "cpu='2 cores' is not a Kubernetes quantity. Write it like 2 or 500m."),
        ({"empty_dirs": {"/x": "5ki"}}, "'5ki' must be a size such as"),
        ({"tolerations": [{"toleration_seconds": "x"}]}, "toleration_seconds='x' must be a whole number of seconds"),
        ({"pull_policy": "Sometimes"}, "pull_policy='Sometimes' must be one of Always, IfNotPresent, Never"),
        ({"pvcs": {"data": "claim"}}, "mounted at an absolute path without a colon, not at 'data'"),
        ({"env": {"A B": "x"}}, "Kubernetes does not accept the environment variable 'A B'"),
        ({"config_maps": {"A": "no-key"}}, "write it as 'name-of-the-config-map/key'"),
        ({"runtime": "image"}, "runtime='image' needs an image that has FlowyML"),
        ({"node_affinity": [{"weight": 5}]}, "neither match_expressions nor match_fields"),
        ({"node_affinity": [{"weight": 0}]}, "weight=0 must be a number from 1 to 100"),
        ({"node_affinity": [{"match": []}]}, "a node_affinity has no 'match'"),
        ({"node_affinity": [{"match_fields": [{"key": "a", "operator": "Is"}]}]}, "or its operator is not one of In, "),
        (
            {"pod_affinity": []},
            "kubeflow has no option 'pod_affinity': KFP does not read affinity between pods. Known:",
        ),
        ({"security_context": {"privileged": True}}, "a security_context has no 'privileged'"),
        ({"security_context": {"run_as_user": -1}}, "run_as_user=-1 must be the number of a user or group"),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, "of operator 'Exists' takes no value"),
        ({"tolerations": [{"toleration_seconds": 5}]}, "needs effect='NoExecute'"),
        ({"pvcs": {"/a": "x"}, "empty_dirs": {"/a": ""}}, "two volumes are mounted at '/a'"),
        ({"pvcs": {"/a": "x"}, "secret_files": {"/b": "x"}}, "'x' is mounted twice"),
        ({"env": {"A": "x"}, "secrets": {"A": "s/k"}}, "the environment variable 'A' is given by two of env, secrets"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=re.escape(message)):
        compiled(kubeflow=options)


def test_an_option_of_the_pipeline_is_none_of_a_step() -> None:
    with pytest.raises(UnknownOptionError, match=r"'add': kubeflow has no option 'max_concurrency' .an option of the"):
        compile_pipeline(Pipeline("x").add_step(load).add_step(
            step(name="add", kubeflow={"max_concurrency": 2})(lambda rows: 1)).bundle())  # fmt: skip


@pytest.mark.parametrize(("cached", "code"), [(True, True), (None, False)])
def test_the_code_is_cached_where_a_step_is(cached: bool | None, code: bool) -> None:
    """With another artifact for the code in each run, KFP would find no results of an earlier one."""
    options = {} if cached is None else {"kubeflow": {"cache": cached}}
    steps = (Step(name="a", function="m:f", options=options),)
    made = compile_pipeline(build(Plan(name="p", steps=steps, options={"kubeflow": {"cache": False}})))
    assert made.spec["root"]["dag"]["tasks"]["flowyml--bundle"]["cachingOptions"] == {"enableCache": code}


@pytest.mark.parametrize(
    ("pipeline", "own", "memory", "expected"),
    [
        ({"memory_limit": "8Gi"}, {}, "1Gi", ("1Gi", "1Gi")),
        ({"memory_limit": "8Gi"}, {"memory_limit": "4Gi"}, "1Gi", ("1Gi", "4Gi")),
        ({"memory_limit": "8Gi", "memory_request": "2Gi"}, {}, None, ("2Gi", "8Gi")),
    ],
)
def test_what_a_step_says_counts_before_the_pipeline(
    pipeline: dict[str, str], own: dict[str, str], memory: str | None, expected: tuple[str, str]
) -> None:
    """Of a step's own, Kubeflow's option counts before ``resources``."""
    add = Step(
        name="add", function="m:f", options={"kubeflow": own}, resources=ResourceRequirements(cpu="2", memory=memory)
    )
    made = compile_pipeline(build(Plan(name="p", steps=(add,), options={"kubeflow": pipeline})))
    resources = made.spec["deploymentSpec"]["executors"]["exec-add"]["container"]["resources"]
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == expected
    assert resources["resourceCpuLimit"] == "2"


def test_a_pod_of_several_steps_has_what_suffices_for_each() -> None:
    """Alone, the second one would have the memory that its pipeline asks for."""
    steps = tuple(
        Step(name=name, function="m:f", execution_group="g", resources=memory and ResourceRequirements(memory=memory))
        for name, memory in (("a", "1Gi"), ("b", None))
    )
    options = {"kubeflow": {"memory_limit": "8Gi", "memory_request": "6Gi"}}
    made = compile_pipeline(build(Plan(name="p", steps=steps, options=options)))
    resources = made.spec["deploymentSpec"]["executors"]["exec-g--group"]["container"]["resources"]
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == ("8Gi", "8Gi")
