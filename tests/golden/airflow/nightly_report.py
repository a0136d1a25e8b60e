"""Pipeline 'nightly-report' as an Airflow DAG, version db4c49c9f70e, structure 49d9d02e9dc7.

Yesterday's visits.

```text
╭───────────────╮
│ count_visits  │
╰───────┬───────╯
   ╭────▼────╮
   │ report  │
   ╰─────────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `night` | string or date | the run's logical date |

| Step | Takes | Gives |
| --- | --- | --- |
| `count_visits` | parameter `night` | `visits` |
| `report` | `visits` of `count_visits` | `report` |

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

try:
    from airflow.sdk import CronTriggerTimetable
except ImportError:  # before Airflow 3.2
    from airflow.timetables.trigger import CronTriggerTimetable

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "nightly-report-c08cc470.pyz"
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


with DAG(
    dag_id="nightly-report",
    description="Yesterday's visits.",
    doc_md=__doc__,
    tags=["nightly", "flowyml", "flowyml:db4c49c9f70e"],
    schedule=CronTriggerTimetable("30 2 * * *", timezone="Europe/Berlin"),
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={
        "night": Param(
            None,
            anyOf=[
                {"type": "null"},
                {"type": "string", "const": "<logical_date>"},
                {"format": "date", "type": "string"},
            ],
            type=["null", "string"],
            description="Leave it empty for the run's logical date.",
        ),
    },
):
    count_visits = Step(
        task_id="count_visits",
        step="count_visits",
        doc_md="Visits of the day before. A real one would query a database.",
        retries=3,
        retry_delay=timedelta(seconds=0),
        execution_timeout=timedelta(minutes=10),
    )
    report = Step(
        task_id="report",
        step="report",
        inputs={"visits": count_visits.output["visits"]},
        doc_md="One line a day.",
    )

# flowyml: {"pipeline": "nightly-report", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "db4c49c9f70e", "structure": "49d9d02e9dc7", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "nightly-report-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["count_visits", "report"], "timeout": null, "outputs": {"report": ["report", "report"]}, "hooks": false, "schedule": {"timezone": "Europe/Berlin", "cron": "30 2 * * *"}, "waits": {"report": ["count_visits"]}, "digest": "95ed5cebed734cd126509e7a430c118415c6c787400dd29270501921ec48bb8b"}
