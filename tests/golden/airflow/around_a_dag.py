"""Pipeline 'around-a-dag' as an Airflow DAG, version 8dd2419ea239, structure 3957115aa0ca.

```text
           ╭─────────╮
           │ choose  │
           ╰────┬────╯
         ╭──────┴─────╮
╭────────▼────────╮   │
│ load_warehouse  │   │
╰────────────────┬╯   │
                 │   ╭╯
             ╭───▼───▼───╮
             │ announce  │
             ╰───────────╯
```

| Step | Takes | Gives |
| --- | --- | --- |
| `choose` |  | `tables` |
| `load_warehouse` | `tables` of `choose` | `load_warehouse` |
| `announce` | `load_warehouse` of `load_warehouse`, `tables` of `choose` | `message` |

| Output | XCom | Task |
| --- | --- | --- |
| `message` | `message` | `announce` |

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the bundle beside it, in a process of its own.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from runpy import run_path

try:
    from airflow.sdk import DAG, BaseOperator
except ImportError:  # Airflow 2
    from airflow.models import DAG, BaseOperator

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "around-a-dag-c08cc470.pyz"
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
    dag_id="around-a-dag",
    doc_md=__doc__,
    tags=["flowyml", "flowyml:8dd2419ea239"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
):
    choose = Step(task_id="choose", step="choose", doc_md="What is to be loaded; the DAG finds it in its `conf`.")
    load_warehouse = Step(
        task_id="load_warehouse",
        step="load_warehouse",
        inputs={"tables": choose.output["tables"]},
        doc_md="Runs the Airflow DAG load_warehouse, waits for it and fails with it.",
        retries=1,
        retry_delay=timedelta(seconds=0),
        execution_timeout=timedelta(hours=1),
    )
    announce = Step(
        task_id="announce",
        step="announce",
        inputs={"load_warehouse": load_warehouse.output["load_warehouse"], "tables": choose.output["tables"]},
        doc_md="What the DAG's run was, and where to look at it.",
    )

# flowyml: {"pipeline": "around-a-dag", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "8dd2419ea239", "structure": "3957115aa0ca", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "around-a-dag-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["choose", "load_warehouse", "announce"], "timeout": null, "outputs": {"message": ["announce", "message"]}, "hooks": false, "schedule": null, "waits": {"load_warehouse": ["choose"], "announce": ["load_warehouse", "choose"]}, "digest": "7f83a62c0a99bb741ba60de50b4042e6d9df73c683bcf181b32fe2f392b1eabb"}
