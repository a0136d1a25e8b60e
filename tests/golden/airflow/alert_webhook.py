"""Pipeline 'alert-webhook' as an Airflow DAG, version 365a21d2bf74, structure b5a4ecddccf5.

Fails without readings.

| Parameter | Type | Default |
| --- | --- | --- |
| `readings` | array | `[]` |

| Step | Takes | Gives |
| --- | --- | --- |
| `mean` | parameter `readings` | `mean` |

| Output | XCom | Task |
| --- | --- | --- |
| `mean` | `mean` | `mean` |

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the bundle beside it, in a process of its own.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from runpy import run_path

try:
    from airflow.sdk import DAG, BaseOperator, Param
except ImportError:  # Airflow 2
    from airflow.models import DAG, BaseOperator, Param

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "alert-webhook-c08cc470.pyz"
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


class Start(BaseOperator):
    """Fires ``on_pipeline_start`` of the pipeline's hooks."""

    def execute(self, context):
        worker().start_run(context, BUNDLE, PYTHON)


def on_end(context):
    """Fire ``on_pipeline_end`` of the pipeline's hooks."""
    worker().finish_run(context, BUNDLE, PYTHON)


with DAG(
    dag_id="alert-webhook",
    description="Fails without readings.",
    doc_md=__doc__,
    tags=["flowyml", "flowyml:365a21d2bf74"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"readings": Param([], items={"type": "number"}, type="array")},
    on_success_callback=on_end,
    on_failure_callback=on_end,
):
    mean = Step(task_id="mean", step="mean", doc_md="Of the sensor's readings. None at all is an error.")
    start = Start(task_id="on_pipeline_start")

    start >> mean

# flowyml: {"pipeline": "alert-webhook", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "365a21d2bf74", "structure": "b5a4ecddccf5", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "alert-webhook-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["mean"], "timeout": null, "outputs": {"mean": ["mean", "mean"]}, "hooks": true, "schedule": null, "waits": {"mean": ["on_pipeline_start"]}, "digest": "6d2ec67f0dfbfe15f135304897ba77360d19a739020481e00b1a1947a63df04c"}
