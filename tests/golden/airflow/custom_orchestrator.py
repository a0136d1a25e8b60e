"""Pipeline 'migrate-table' as an Airflow DAG, version a13a396ddf66, structure df9b3821a393.

Something that two processes had better not do at once.

```text
 ╭───────╮
 │ read  │
 ╰───┬───╯
╭────▼────╮
│ add_up  │
╰─────────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `rows` | integer | `5` |

| Step | Takes | Gives |
| --- | --- | --- |
| `read` | parameter `rows` | `rows` |
| `add_up` | `rows` of `read` | `total` |

| Output | XCom | Task |
| --- | --- | --- |
| `total` | `total` | `add_up` |

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

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "migrate-table-c08cc470.pyz"
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
    dag_id="migrate-table",
    description="Something that two processes had better not do at once.",
    doc_md=__doc__,
    tags=["flowyml", "flowyml:a13a396ddf66"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"rows": Param(5, type="integer")},
):
    read = Step(task_id="read", step="read")
    add_up = Step(task_id="add_up", step="add_up", inputs={"rows": read.output["rows"]})

# flowyml: {"pipeline": "migrate-table", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "a13a396ddf66", "structure": "df9b3821a393", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "migrate-table-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["read", "add_up"], "timeout": null, "outputs": {"total": ["add_up", "total"]}, "hooks": false, "schedule": null, "waits": {"add_up": ["read"]}, "digest": "9059d40377ad9f359a1776f3f2dff1dcdf26de31585a4ecf91295e1fd1966204"}
