"""Pipelines in kfp's own DSL, for the second opinion on compiled pipelines: it has to accept what kfp compiles."""

# kfp reads annotations itself.
# mypy: ignore-errors

from functools import partial
from typing import List, NamedTuple  # noqa: UP035  # kfp knows them by these names

from kfp import dsl, kubernetes

__all__ = ["PIPELINES"]

component = partial(dsl.component, base_image="python:3.12-slim")


@component
def add(left: int, right: int) -> int:
    return left + right


@component
def words() -> List[str]:  # noqa: UP006  # as above
    return ["a", "b"]


@component
def shout(word: str = "hm") -> str:
    return word.upper()


@component
def total(numbers: List[int]) -> int:  # noqa: UP006  # as above
    return sum(numbers)


@component
def train(rows: int, model: dsl.Output[dsl.Model], metrics: dsl.Output[dsl.Metrics]):
    metrics.log_metric("rows", rows)


@component
def evaluate(model: dsl.Input[dsl.Model]) -> bool:
    return True


@component
def compare(models: dsl.Input[List[dsl.Model]]) -> int:  # noqa: UP006  # as above
    return len(models)


@component
def split(whole: str) -> NamedTuple("Parts", [("head", str), ("rest", dict)]):
    return whole[:1], {}


@component
def report(status: dsl.PipelineTaskFinalStatus):
    print(status.state)


@dsl.container_component
def container(text: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c"], args=["echo", text, out])


@dsl.pipeline(name="straight")
def straight(start: int = 1):
    add(left=add(left=start, right=2).output, right=3)


@dsl.pipeline(name="artifacts")
def artifacts(rows: int) -> bool:
    return evaluate(model=train(rows=rows).outputs["model"]).output


@dsl.pipeline(name="several-outputs")
def several_outputs(whole: str = "abc"):
    parts = split(whole=whole)
    shout(word=parts.outputs["head"])


@dsl.pipeline(name="loop")
def loop(start: int = 0):
    with dsl.ParallelFor([1, 2, 3], parallelism=2) as item:
        add(left=item, right=start)


@dsl.pipeline(name="loop-over-output")
def loop_over_output():
    with dsl.ParallelFor(words().output) as word:
        shout(word=word)


@dsl.pipeline(name="loop-in-a-loop")
def loop_in_a_loop():
    with dsl.ParallelFor(words().output) as word:
        one = shout(word=word)
        with dsl.ParallelFor([{"a": "x", "b": 2}]) as item:
            shout(word=item.a).after(one)


@dsl.pipeline(name="collected")
def collected() -> int:
    with dsl.ParallelFor([1, 2]) as item:
        one = add(left=item, right=1)
    return total(numbers=dsl.Collected(one.output)).output


@dsl.pipeline(name="collected-artifacts")
def collected_artifacts():
    with dsl.ParallelFor([1, 2]) as item:
        one = train(rows=item)
    compare(models=dsl.Collected(one.outputs["model"]))


@dsl.pipeline(name="condition")
def condition(text: str = "yes"):
    one = shout(word=text)
    with dsl.If(one.output == "YES"):
        shout(word=one.output)


@dsl.pipeline(name="one-of")
def one_of(text: str = "yes") -> str:
    with dsl.If(text == "yes"):
        yes = shout(word="y")
    with dsl.Elif(text == "no"):
        no = shout(word="n")
    with dsl.Else():
        other = shout(word="o")
    return dsl.OneOf(yes.output, no.output, other.output)


@dsl.pipeline(name="at-exit")
def at_exit(text: str = "x"):
    end = report()
    with dsl.ExitHandler(end, name="all of it"):
        shout(word=text)


@dsl.pipeline(name="inner")
def inner(start: int) -> int:
    return add(left=start, right=1).output


@dsl.pipeline(name="nested")
def nested(start: int = 1) -> int:
    return add(left=inner(start=start).output, right=1).output


@dsl.pipeline(name="imported")
def imported():
    one = dsl.importer(artifact_uri="gs://bucket/model", artifact_class=dsl.Model, metadata={"a": "b"})
    evaluate(model=one.output)


@dsl.pipeline(name="although-it-failed")
def although_it_failed():
    one = shout(word="a")
    container(text="end").ignore_upstream_failure().after(one)


@dsl.pipeline(name="settings")
def settings():
    task = container(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    task.set_retry(3, backoff_duration="10s", backoff_factor=2, backoff_max_duration="600s")
    task.set_cpu_limit("500m").set_memory_limit("1Gi").set_env_variable("A", "b").set_caching_options(False)
    kubernetes.use_secret_as_env(task, secret_name="s", secret_key_to_env={"k": "S"})
    kubernetes.use_config_map_as_volume(task, config_map_name="settings", mount_path="/settings")
    kubernetes.mount_pvc(task, pvc_name="data", mount_path="/data")
    kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path="/scratch")
    kubernetes.add_toleration(task, key="gpu", operator="Exists", effect="NoExecute", toleration_seconds=5)
    kubernetes.add_node_selector(task, "disk", "ssd")
    kubernetes.add_pod_label(task, "team", "a")


PIPELINES = (
    straight, artifacts, several_outputs, loop, loop_over_output, loop_in_a_loop, collected, collected_artifacts,
    condition, one_of, at_exit, nested, imported, although_it_failed, settings,
)  # fmt: skip
