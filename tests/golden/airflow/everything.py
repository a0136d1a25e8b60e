"""Pipeline 'Everything, "quoted" and \\'more\\'' as an Airflow DAG, structure ddbb1f9930cf.

A pipeline that asks for all there is. \"\"\"Quotes\"\"\" and a \\ included.

```text
 ╭─────────╮
 │ extract │
 ╰────┬────╯
   ╭──▼──╮
   │ fit │
   ╰──┬──╯
╭─────▼─────╮
│ clean_up  │
╰───────────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `day` | string | `"2026-01-01"` |
| `limit` | integer | `100` |

| Step | Takes | Gives |
| --- | --- | --- |
| `extract` | parameter `day`, parameter `limit` | `rows` |
| `fit` | `rows` of `extract` | `weights` |
| `clean_up` | after `fit` |  |

| Output | XCom | Task |
| --- | --- | --- |
| `weights` | `return_value` | `fit` |

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the files beside it, in a process of its own.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from runpy import run_path

try:
    from airflow.sdk import DAG, BaseOperator, Param
except ImportError:  # Airflow 2
    from airflow.models import DAG, BaseOperator, Param

try:
    from airflow.sdk import CronTriggerTimetable
except ImportError:  # before Airflow 3.2
    from airflow.timetables.trigger import CronTriggerTimetable

RUNTIME = Path(__file__).parent / "flowyml_bundles" / "flowyml-VERSION-DIGEST.pyz"
CODE = "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8"  # of the files of the steps
PYTHON = "/opt/ml/bin/python"  # runs the steps
ARTIFACTS = "s3://bucket/artifacts"  # takes large outputs; None: as FLOWYML_ARTIFACTS says on the workers


def worker(context=None):
    """FlowyML's side of a task: checked, unpacked and loaded when a task runs, not when this file is parsed."""
    try:
        if "flowyml_airflow" not in sys.modules:
            if sha256(RUNTIME.read_bytes()).hexdigest()[:32] != RUNTIME.stem[-32:]:
                raise ImportError(f"{RUNTIME} is not what its name says: it was replaced or cut short")
            run_path(str(RUNTIME), run_name="bundle")["make_importable"](RUNTIME)
        from flowyml_airflow import worker
    except Exception as error:
        if context:  # FlowyML reads the error of a task from this XCom, and needs no log
            said = {"class": type(error).__name__, "said": str(error), "try": context["ti"].try_number}
            context["ti"].xcom_push(key="flowyml.error", value=said)
        raise
    return worker


def bundle():
    """The folder of the steps' code, checked and copied to this machine when a task runs."""
    from flowyml_airflow.beside import unpacked

    return unpacked(Path(__file__), RUNTIME, CODE, PYTHON)


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
        super().__init__(**arguments)
        self.step = step
        self.inputs = inputs or {}

    def execute(self, context):
        return worker(context).run_step(self, context, bundle, PYTHON, ARTIFACTS)

    def on_kill(self):
        stop()


class Start(BaseOperator):
    """Fires ``on_pipeline_start`` of the pipeline's hooks."""

    def execute(self, context):
        worker(context).start_run(self, context, bundle, PYTHON)


def on_end(context):
    """Fire ``on_pipeline_end`` of the pipeline's hooks."""
    worker().finish_run(context, bundle(), PYTHON)


def backoff(factor):
    """Return how the delay grows with every retry. Before Airflow 3.2 it could only double."""
    return factor if type(getattr(BaseOperator, "retry_exponential_backoff", False)) is not bool else True


def pod(*, selector=None, limits=None, **requests):
    """Return a step's pod, for an executor that makes pods. Others need neither it nor the slow import."""
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
    dag_id="everything_quoted_and_more_4e6bde53",
    dag_display_name="Everything, \"quoted\" and 'more'",
    description='A pipeline that asks for all there is. """Quotes""" and a \\ included. (version VERSION)',
    doc_md=__doc__,
    tags=["nightly", "team:ml", "flowyml"],
    schedule=CronTriggerTimetable("0 9 * * 1", timezone="Europe/Berlin"),
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    dagrun_timeout=timedelta(hours=1),
    max_active_runs=1,
    owner_links={"ml-team": "https://example.org/ml"},
    default_args={"owner": "ml-team", "retries": 0},
    params={"day": Param("2026-01-01", type="string"), "limit": Param(100, type="integer")},
    on_success_callback=on_end,
    on_failure_callback=on_end,
):
    extract = Step(
        task_id="extract",
        step="extract",
        doc_md="Reads *all* rows.\n\nTags: io",
        retries=3,
        retry_delay=timedelta(seconds=10),
        retry_exponential_backoff=backoff(3.0),
        max_retry_delay=timedelta(seconds=90),
        execution_timeout=timedelta(minutes=10),
        pool="warehouse",
        pool_slots=2,
        queue="big",
        priority_weight=10,
    )
    fit = Step(
        task_id="fit",
        step="fit",
        inputs={"rows": extract.output},
        doc_md="Fit the weights.",
        retries=2,
        retry_delay=timedelta(seconds=0),
        execution_timeout=timedelta(seconds=0.5),
        executor_config=pod(
            cpu="2",
            memory="4Gi",
            limits={"memory": "4Gi", "nvidia.com/gpu": "1"},
            selector={"nvidia.com/gpu.product": "NVIDIA-A100"},
        ),
    )
    clean_up = Step(task_id="clean_up", step="clean_up")
    start = Start(
        task_id="on_pipeline_start",
        retries=3,
        retry_delay=timedelta(seconds=10),
        retry_exponential_backoff=backoff(3.0),
        max_retry_delay=timedelta(seconds=90),
    )

    start >> extract
    fit >> clean_up

# flowyml: {"pipeline": "Everything, \"quoted\" and 'more'", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "VERSION", "structure": "ddbb1f9930cf", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "everything-quoted-and-more-4e6bde53-c08cc470.pyz", "runtime": "flowyml-VERSION-DIGEST.pyz", "files": ["flowyml_bundles/everything_quoted_and_more_4e6bde53/code/m.py"], "python": "/opt/ml/bin/python", "artifacts": "s3://bucket/artifacts", "steps": ["extract", "fit", "clean_up"], "timeout": 3600, "outputs": {"weights": ["fit", "return_value"]}, "xcoms": {"extract": {"rows": "return_value"}, "fit": {"weights": "return_value"}, "clean_up": {}}, "hooks": true, "schedule": {"timezone": "Europe/Berlin", "cron": "0 9 * * 1"}, "waits": {"extract": ["on_pipeline_start"], "fit": ["extract"], "clean_up": ["fit"]}, "digest": "DIGEST"}
