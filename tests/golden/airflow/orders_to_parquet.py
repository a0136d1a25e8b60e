"""Pipeline 'orders-to-parquet' as an Airflow DAG, version bc77081cbe7f, structure f4ca908d51a5.

One day's orders into the warehouse.

```text
 ╭─────────╮
 │ extract │
 ╰────┬────╯
╭─────▼─────╮
│ transform │
╰─────┬─────╯
  ╭───▼───╮
  │ load  │
  ╰───────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `day` | string | `"2026-01-31"` |
| `warehouse` | string | `"warehouse"` |

| Step | Takes | Gives |
| --- | --- | --- |
| `extract` | parameter `day` | `orders` |
| `transform` | `orders` of `extract` | `sales` |
| `load` | `sales` of `transform`, parameter `day`, parameter `warehouse` | `written` |

| Output | XCom | Task |
| --- | --- | --- |
| `written` | `written` | `load` |

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

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "orders-to-parquet-c08cc470.pyz"
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
    dag_id="orders-to-parquet",
    description="One day's orders into the warehouse.",
    doc_md=__doc__,
    tags=["etl", "flowyml", "flowyml:bc77081cbe7f"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"day": Param("2026-01-31", type="string"), "warehouse": Param("warehouse", type="string")},
):
    extract = Step(task_id="extract", step="extract", doc_md="All orders of one day.")
    transform = Step(
        task_id="transform",
        step="transform",
        inputs={"orders": extract.output["orders"]},
        doc_md="Pieces and revenue of each item; orders without a price are left out.",
    )
    load = Step(
        task_id="load",
        step="load",
        inputs={"sales": transform.output["sales"]},
        doc_md="Write the day's file.",
        retries=2,
        retry_delay=timedelta(seconds=0),
    )

# flowyml: {"pipeline": "orders-to-parquet", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "bc77081cbe7f", "structure": "f4ca908d51a5", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "orders-to-parquet-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["extract", "transform", "load"], "timeout": null, "outputs": {"written": ["load", "written"]}, "hooks": false, "schedule": null, "waits": {"transform": ["extract"], "load": ["transform"]}, "digest": "fc203ca0510f83ca636e12bc17482c0f785b37cd845e379e98feba3ccae8d47f"}
