"""Pipeline 'search-rates' as an Airflow DAG, version 810b6cb7deb9, structure 484d83582bd7.

Search for a learning rate, more finely if need be.

```text
               ╭───────╮
               │ grid  │
               ╰───┬───╯
              ╭────▼────╮
              │ train ⟳ │
              ╰────┬────╯
               ╭───▼───╮
               │ pick  │
               ╰───┬───╯
      ╭────────────┼──────────╮
╭─────▼─────╮   ╭──▼──────╮   │
│ report ?  │   │ near ?  │   │
╰───────────╯   ╰────┬────╯   │
             ╭───────╯        │
             │   ╭─────────┬──╯
       ╭─────▼───▼─────╮   │
       │ train_near ?⟳ │   │
       ╰──────┬────────╯   │
              │   ╭────────┤
         ╭────▼───▼────╮   │
         │ pick_near ? │   │
         ╰──────┬──────╯   │
                ╰──────╮   │
                 ╭─────▼───▼─────╮
                 │ report_near ? │
                 ╰───────────────╯

⟳ each rate of rates, 4 at a time: train
? if error <= target (good enough): report
? otherwise (search more finely): near, pick_near, report_near, each rate of rates, 4 at a time
⟳ each rate of rates, 4 at a time: train_near
```

| Parameter | Type | Default |
| --- | --- | --- |
| `lowest` | number | `0.001` |
| `count` | integer | `5` |
| `rounds` | integer | `10` |
| `target` | number | `0.1` |

| Step | Takes | Gives |
| --- | --- | --- |
| `grid` | parameter `lowest`, parameter `count` | `rates` |
| `train` | an item of `train`, parameter `rounds` | `trial` |
| `pick` | `trial` of `train` | `rate`, `error` |
| `report` | `rate` of `pick`, `error` of `pick` | `report` |
| `near` | `rate` of `pick` | `rates` |
| `train_near` | an item of `train_near`, parameter `rounds` | `trial` |
| `pick_near` | `trial` of `train_near` | `rate`, `error` |
| `report_near` | `rate` of `pick_near`, `error` of `pick_near` | `report` |

| Output | XCom | Task |
| --- | --- | --- |
| `report` | `report` | `report` or `report_near` |

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
    from airflow.sdk import Label
    from airflow.sdk.bases.branch import BaseBranchOperator
except ImportError:  # Airflow 2
    from airflow.operators.branch import BaseBranchOperator
    from airflow.utils.edgemodifier import Label

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "search-rates-c08cc470.pyz"
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


class Choose(BaseBranchOperator):
    """Takes the first branch whose condition holds; the others are skipped."""

    template_fields = ("inputs", "item")

    def __init__(self, *, choice, branches, inputs=None, item=None, **arguments):
        super().__init__(**arguments)
        self.choice = choice
        self.branches = branches
        self.inputs = inputs or {}
        self.item = item

    def choose_branch(self, context):
        return self.branches.get(worker().choose(self, context, BUNDLE, PYTHON, ARTIFACTS), [])

    def on_kill(self):
        stop()


class Watcher(BaseOperator):
    """Fails the run when a step failed, whatever ran after it."""

    def execute(self, context):
        raise RuntimeError("A step of this run failed.")


with DAG(
    dag_id="search-rates",
    description="Search for a learning rate, more finely if need be.",
    doc_md=__doc__,
    tags=["flowyml", "flowyml:810b6cb7deb9"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={
        "lowest": Param(0.001, type="number"),
        "count": Param(5, type="integer"),
        "rounds": Param(10, type="integer"),
        "target": Param(0.1, type="number"),
    },
):
    grid = Step(task_id="grid", step="grid", doc_md="Rates to begin with, each twice the one before.")
    train_items = Items(task_id="train_items", loop="train", inputs={"grid.rates": grid.output["rates"]})
    train = ItemStep.partial(
        task_id="train",
        step="train",
        inputs={"rate": grid.output["rates"]},
        doc_md="Gradient descent towards y = 3 x + 1, until the error falls by less than a thousandth in a round.",
        map_index_template="{{ task.item }}",
        max_active_tis_per_dagrun=4,
    ).expand(item=train_items.output)
    pick = Step(
        task_id="pick",
        step="pick",
        inputs={"trials": train.output["trial"]},
        doc_md="The rate whose error is smallest.",
        trigger_rule="none_failed",
    )
    choose_good_enough = Choose(
        task_id="choose_good_enough",
        task_display_name="good enough?",
        choice="good enough",
        branches={"good enough": ["report"], "search more finely": ["near", "train_near_items", "pick_near"]},
        inputs={"pick.error": pick.output["error"]},
    )
    report = Step(
        task_id="report",
        step="report",
        inputs={"rate": pick.output["rate"], "error": pick.output["error"]},
        doc_md="The words for people.",
    )
    near = Step(
        task_id="near",
        step="near",
        inputs={"rate": pick.output["rate"]},
        doc_md="Rates on both sides of the one that was best so far.",
    )
    train_near_items = Items(task_id="train_near_items", loop="train_near", inputs={"near.rates": near.output["rates"]})
    train_near = ItemStep.partial(
        task_id="train_near",
        step="train_near",
        inputs={"rate": near.output["rates"]},
        doc_md="Gradient descent towards y = 3 x + 1, until the error falls by less than a thousandth in a round.",
        map_index_template="{{ task.item }}",
        max_active_tis_per_dagrun=4,
    ).expand(item=train_near_items.output)
    pick_near = Step(
        task_id="pick_near",
        step="pick_near",
        inputs={"trials": train_near.output["trial"]},
        doc_md="The rate whose error is smallest.",
        trigger_rule="none_failed",
    )
    report_near = Step(
        task_id="report_near",
        step="report_near",
        inputs={"rate": pick_near.output["rate"], "error": pick_near.output["error"]},
        doc_md="The words for people.",
    )
    watcher = Watcher(task_id="watcher", trigger_rule="one_failed")

    choose_good_enough >> Label("good enough") >> report
    choose_good_enough >> Label("search more finely") >> [near, train_near_items, pick_near]
    [grid, train_items, train, pick, report, near, train_near_items, train_near, pick_near, report_near] >> watcher

# flowyml: {"pipeline": "search-rates", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "810b6cb7deb9", "structure": "484d83582bd7", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "search-rates-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["grid", "train", "pick", "report", "near", "train_near", "pick_near", "report_near"], "timeout": null, "outputs": {"report": {"either": [["report", "report"], ["report_near", "report"]]}}, "hooks": false, "schedule": null, "cached": ["train", "train_near"], "helpers": ["train_items", "choose_good_enough", "train_near_items", "watcher"], "watcher": "watcher", "loops": {"train": {"items": "train_items", "tasks": ["train"]}, "train_near": {"items": "train_near_items", "tasks": ["train_near"]}}, "waits": {"train_items": ["grid"], "train": ["grid", "train_items"], "pick": ["train"], "choose_good_enough": ["pick"], "report": ["pick", "choose_good_enough"], "near": ["pick", "choose_good_enough"], "train_near_items": ["near", "choose_good_enough"], "train_near": ["near", "train_near_items"], "pick_near": ["train_near", "choose_good_enough"], "report_near": ["pick_near", "choose_good_enough"]}, "digest": "df63db9369175ff62061005dad763881309be983879fcf942db58c86ce2fb3fd"}
