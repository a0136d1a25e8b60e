"""Pipeline 'sales-by-country' as an Airflow DAG, version 1fa74095ad34, structure 5c81d877700b.

Two countries at a time.

```text
╭───────────╮
│ extract ⟳ │
╰─────┬─────╯
╭─────▼─────╮
│ convert ⟳ │
╰─────┬─────╯
 ╭────▼────╮
 │ load ⟳  │
 ╰────┬────╯
 ╭────▼────╮
 │ report  │
 ╰─────────╯

⟳ each item of country, 2 at a time: extract, convert, load
```

| Parameter | Type | Default |
| --- | --- | --- |
| `day` | string | `"2026-01-31"` |
| `countries` | array | `["AT", "CL", "JP", "US"]` |

| Step | Takes | Gives |
| --- | --- | --- |
| `extract` | an item of `country`, parameter `day` | `prices` |
| `convert` | an item of `country`, `prices` of `extract` | `euros` |
| `load` | an item of `country`, `euros` of `convert` | `sales` |
| `report` | `sales` of `load`, parameter `day` | `report` |

| Output | XCom | Task |
| --- | --- | --- |
| `report` | `report` | `report` |

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

try:
    from airflow.sdk import task_group
except ImportError:  # Airflow 2
    from airflow.decorators import task_group

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "sales-by-country-c08cc470.pyz"
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


class ItemStep(Step):
    """A step in a loop, mapped over the labels of its items. It takes its own item of each list, by its map index."""

    template_fields = ("inputs", "item")

    def __init__(self, *, item, **arguments):
        super().__init__(**arguments)
        self.item = item


class Items(BaseOperator):
    """Lists the items of a loop by their labels, over which its tasks are mapped."""

    template_fields = ("inputs",)

    def __init__(self, *, loop, inputs=None, **arguments):
        super().__init__(**arguments)
        self.loop = loop
        self.inputs = inputs or {}

    def execute(self, context):
        return worker().list_items(self, context, BUNDLE, PYTHON, ARTIFACTS)

    def on_kill(self):
        stop()


with DAG(
    dag_id="sales-by-country",
    description="Two countries at a time.",
    doc_md=__doc__,
    tags=["sales", "flowyml", "flowyml:1fa74095ad34"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={
        "day": Param("2026-01-31", type="string"),
        "countries": Param(["AT", "CL", "JP", "US"], items={"type": "string"}, type="array"),
    },
):
    country_items = Items(task_id="country_items", loop="country")

    @task_group(group_id="country", prefix_group_id=False, tooltip="country")
    def country(item):
        extract = ItemStep(
            task_id="extract",
            step="extract",
            doc_md="The prices of the day's orders, in the money of the country.",
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=2,
        )
        convert = ItemStep(
            task_id="convert",
            step="convert",
            inputs={"prices": extract.output["prices"]},
            doc_md="The same in euros.",
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=2,
        )
        load = ItemStep(
            task_id="load",
            step="load",
            inputs={"euros": convert.output["euros"]},
            doc_md="Into the warehouse; here they are only added up.",
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=2,
        )
        return extract, convert, load

    extract, convert, load = country.expand(item=country_items.output)
    report = Step(
        task_id="report",
        step="report",
        inputs={"sales": load.output["sales"]},
        doc_md="All countries together, once each is done.",
        trigger_rule="none_failed",
    )

# flowyml: {"pipeline": "sales-by-country", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "1fa74095ad34", "structure": "5c81d877700b", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "sales-by-country-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["extract", "convert", "load", "report"], "timeout": null, "outputs": {"report": ["report", "report"]}, "hooks": false, "schedule": null, "helpers": ["country_items"], "loops": {"country": {"items": "country_items", "tasks": ["extract", "convert", "load"]}}, "waits": {"extract": ["country_items"], "convert": ["extract", "country_items"], "load": ["convert", "country_items"], "report": ["load"]}, "digest": "bb16c3e373bdcf4b8ddb721ecea95598c56d415a6caf7d2b52f6c4a64f840f6d"}
