"""Pipeline 'daily-sales' as an Airflow DAG, version 3f6b23f73a40, structure d0556015a84d.

Revenue and the best shop of one day.

```text
            ╭───────╮
            │ fetch │
            ╰───┬───╯
            ╭───▼───╮
            │ check │
            ╰───┬───╯
     ╭──────────┼─────────╮
╭────▼────╮   ╭─▼─────╮   │
│ add_up  │   │ rank  │   │
╰────┬────╯   ╰──────┬╯   │
     ╰───────────╮   │   ╭╯
                ╭▼───▼───▼╮
                │ report  │
                ╰─────────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `day` | string | `"2026-01-31"` |
| `shops` | integer | `4` |

| Step | Takes | Gives |
| --- | --- | --- |
| `fetch` | parameter `day`, parameter `shops` | `orders` |
| `check` | `orders` of `fetch` | `good`, `rejected` |
| `add_up` | `good` of `check` | `revenue` |
| `rank` | `good` of `check` | `best_shop` |
| `report` | `revenue` of `add_up`, `best_shop` of `rank`, `rejected` of `check`, parameter `day` | `report` |

| Output | XCom | Task |
| --- | --- | --- |
| `report` | `report` | `report` |

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

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "daily-sales-c08cc470.pyz"
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


def backoff(factor):
    """How the delay grows with every retry. Before Airflow 3.2 it could only double."""
    return factor if type(getattr(BaseOperator, "retry_exponential_backoff", False)) is not bool else True


with DAG(
    dag_id="daily-sales",
    description="Revenue and the best shop of one day.",
    doc_md=__doc__,
    tags=["sales", "flowyml", "flowyml:3f6b23f73a40"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"day": Param("2026-01-31", type="string"), "shops": Param(4, type="integer")},
    on_success_callback=on_end,
    on_failure_callback=on_end,
):
    fetch = Step(
        task_id="fetch",
        step="fetch",
        doc_md="The day's orders, some of which are broken.",
        retries=2,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=backoff(2.0),
        max_retry_delay=timedelta(hours=1),
        execution_timeout=timedelta(minutes=5),
    )
    check = Step(
        task_id="check",
        step="check",
        inputs={"orders": fetch.output["orders"]},
        doc_md="Orders of things that are sold; the others are counted.",
    )
    add_up = Step(
        task_id="add_up",
        step="add_up",
        inputs={"good": check.output["good"]},
        doc_md="Revenue of each item.",
    )
    rank = Step(
        task_id="rank",
        step="rank",
        inputs={"good": check.output["good"]},
        doc_md="The shop that sold the most pieces; runs beside ``add_up``.",
    )
    report = Step(
        task_id="report",
        step="report",
        inputs={
            "revenue": add_up.output["revenue"],
            "best_shop": rank.output["best_shop"],
            "rejected": check.output["rejected"],
        },
        doc_md="The words for people.",
    )
    start = Start(
        task_id="on_pipeline_start",
        retries=2,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=backoff(2.0),
        max_retry_delay=timedelta(hours=1),
    )

    start >> fetch

# flowyml: {"pipeline": "daily-sales", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "3f6b23f73a40", "structure": "d0556015a84d", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "daily-sales-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["fetch", "check", "add_up", "rank", "report"], "timeout": null, "outputs": {"report": ["report", "report"]}, "hooks": true, "schedule": null, "waits": {"fetch": ["on_pipeline_start"], "check": ["fetch"], "add_up": ["check"], "rank": ["check"], "report": ["add_up", "rank", "check"]}, "digest": "d62273a36392774792f1ccfcf7b694d4673c84d9a0d83f53ffc2fbe32c4507db"}
