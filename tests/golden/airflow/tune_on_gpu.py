"""Pipeline 'tune-on-gpu' as an Airflow DAG, version 88fd2f2a7c2a, structure 8275d86d8144.

Try learning rates side by side, keep the best fit.

```text
            ╭─────────╮
            │ points  │
            ╰────┬────╯
    ╭────────────┼─────────────╮
╭───▼───╮   ╭────▼────╮   ╭────▼────╮
│ tune  │   │ tune_2  │   │ tune_3  │
╰───┬───╯   ╰────┬────╯   ╰────┬────╯
    ╰──────────╮ │ ╭───────────╯
             ╭─▼─▼─▼─╮
             │ best  │
             ╰───────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `count` | integer | `100` |
| `rounds` | integer | `200` |

| Step | Takes | Gives |
| --- | --- | --- |
| `points` | parameter `count` | `points` |
| `tune` | `points` of `points`, parameter `rounds` | `fit` |
| `tune_2` | `points` of `points`, parameter `rounds` | `fit` |
| `tune_3` | `points` of `points`, parameter `rounds` | `fit` |
| `best` | `fit` of `tune`, `fit` of `tune_2`, `fit` of `tune_3` | `best` |

| Output | XCom | Task |
| --- | --- | --- |
| `best` | `best` | `best` |

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the bundle beside it, in a process of its own.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from runpy import run_path

try:
    from airflow.sdk import DAG, BaseOperator, Param
except ImportError:  # Airflow 2
    from airflow.models import DAG, BaseOperator, Param

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "tune-on-gpu-c08cc470.pyz"
PYTHON = sys.executable  # runs the steps
ARTIFACTS = None  # takes large outputs; None: as FLOWYML_ARTIFACTS says on the workers


def worker():
    """FlowyML's side of a task, from the bundle: unpacked and loaded when a task runs, not when this file is parsed."""
    if "flowyml_airflow" not in sys.modules:
        run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)
    from flowyml_airflow import worker

    return worker


def stop():
    """Stop the step; where its code is still being loaded, the task itself, unless an error ends it anyway."""
    stop_step = getattr(sys.modules.get("flowyml_airflow.worker"), "stop_step", None)
    if stop_step:
        stop_step()
    elif sys.exc_info()[0] is None:
        sys.exit("stopped before the code of its step was loaded")


class Step(BaseOperator):
    """A step of the pipeline. Its inputs are outputs of other steps; parameters of the run reach it by themselves."""

    template_fields = ("inputs",)
    ui_color = "#e3f0ea"

    def __init__(self, *, step, inputs=None, **arguments):
        super().__init__(multiple_outputs=True, **arguments)
        self.step = step
        self.inputs = inputs or {}

    def execute(self, context):
        return worker().run_step(self, context, BUNDLE, PYTHON, ARTIFACTS)

    def on_kill(self):
        stop()


def pod(*, selector=None, limits=None, **requests):
    """What a step asks of its pod, for an executor that makes pods. Others need neither it nor the slow import."""
    from airflow.configuration import conf

    if "kubernetes" not in conf.get("core", "executor").lower():
        return None
    try:
        from kubernetes.client import models as k8s
    except ImportError:  # a worker of another executor
        return None
    resources = k8s.V1ResourceRequirements(requests=requests, limits=limits)
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=resources)], node_selector=selector)
    return {"pod_override": k8s.V1Pod(spec=spec)}


with DAG(
    dag_id="tune-on-gpu",
    description="Try learning rates side by side, keep the best fit.",
    doc_md=__doc__,
    tags=["tuning", "flowyml", "flowyml:88fd2f2a7c2a"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "ml-team", "retries": 0},
    params={"count": Param(100, type="integer"), "rounds": Param(200, type="integer")},
):
    points = Step(
        task_id="points",
        step="points",
        doc_md="On the line y = 3 x + 1.",
        executor_config=pod(cpu="500m", memory="1Gi", limits={"memory": "1Gi"}),
    )
    tune = Step(
        task_id="tune",
        step="tune",
        inputs={"points": points.output["points"]},
        doc_md="Gradient descent; what is left of the error tells how well it went.\n\nTags: gpu",
        retries=1,
        retry_delay=timedelta(seconds=30),
        execution_timeout=timedelta(hours=1),
        pool="gpus",
        priority_weight=10,
        executor_config=pod(
            cpu="2",
            memory="8Gi",
            limits={"memory": "8Gi", "nvidia.com/gpu": "1"},
            selector={"nvidia.com/gpu.product": "nvidia-tesla-t4"},
        ),
    )
    tune_2 = Step(
        task_id="tune_2",
        step="tune_2",
        inputs={"points": points.output["points"]},
        doc_md="Gradient descent; what is left of the error tells how well it went.\n\nTags: gpu",
        retries=1,
        retry_delay=timedelta(seconds=30),
        execution_timeout=timedelta(hours=1),
        pool="gpus",
        priority_weight=10,
        executor_config=pod(
            cpu="2",
            memory="8Gi",
            limits={"memory": "8Gi", "nvidia.com/gpu": "1"},
            selector={"nvidia.com/gpu.product": "nvidia-tesla-t4"},
        ),
    )
    tune_3 = Step(
        task_id="tune_3",
        step="tune_3",
        inputs={"points": points.output["points"]},
        doc_md="Gradient descent; what is left of the error tells how well it went.\n\nTags: gpu",
        retries=1,
        retry_delay=timedelta(seconds=30),
        execution_timeout=timedelta(hours=1),
        pool="gpus",
        priority_weight=10,
        executor_config=pod(
            cpu="2",
            memory="8Gi",
            limits={"memory": "8Gi", "nvidia.com/gpu": "1"},
            selector={"nvidia.com/gpu.product": "nvidia-tesla-t4"},
        ),
    )
    best = Step(
        task_id="best",
        step="best",
        inputs={"rate_0": tune.output["fit"], "rate_1": tune_2.output["fit"], "rate_2": tune_3.output["fit"]},
        doc_md="The fit that is nearest to the points.",
    )

# flowyml: {"pipeline": "tune-on-gpu", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "88fd2f2a7c2a", "structure": "8275d86d8144", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "tune-on-gpu-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["points", "tune", "tune_2", "tune_3", "best"], "timeout": null, "outputs": {"best": ["best", "best"]}, "hooks": false, "schedule": null, "waits": {"tune": ["points"], "tune_2": ["points"], "tune_3": ["points"], "best": ["tune", "tune_2", "tune_3"]}, "digest": "122007bd38443531c14bf72daa854f90ba74f1d9037d8369fde15f858dec5f00"}
