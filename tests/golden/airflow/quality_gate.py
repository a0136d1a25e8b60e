"""Pipeline 'quality-gate' as an Airflow DAG, version d093c71f8e57, structure 3c450ae420c3.

Publish, hold back or refuse, by the share of readings that can be used.

```text
                      ╭───────╮
                      │ load  │
                      ╰───┬───╯
                      ╭───▼───╮
                      │ check │
                      ╰───┬───╯
      ╭──────────────┬────┴────────┬────────╮
╭─────▼─────╮   ╭────▼────╮   ╭────▼────╮   │
│ publish ? │   │ hold ?  │   │ alert ? │   │
╰─────┬─────╯   ╰─────────╯   ╰─────────╯   │
      ╰──────────────────────╮   ╭──────────╯
                        ╭────▼───▼────╮
                        │ describe ?  │
                        ╰─────────────╯

? if share >= limit (good): publish, describe
? else if share >= lowest (doubtful): hold
? otherwise (bad): alert
```

| Parameter | Type | Default |
| --- | --- | --- |
| `count` | integer | `1000` |
| `broken` | integer | `3` |
| `limit` | number | `0.9` |
| `lowest` | number | `0.7` |

| Step | Takes | Gives |
| --- | --- | --- |
| `load` | parameter `count`, parameter `broken` | `readings` |
| `check` | `readings` of `load` | `good`, `share` |
| `publish` | `good` of `check` | `mean` |
| `hold` | `share` of `check` | `message` |
| `alert` | `share` of `check`, parameter `lowest` | `message` |
| `describe` | `mean` of `publish` | `message` |

| Output | XCom | Task |
| --- | --- | --- |
| `message` | `message` | `describe` or `hold` or `alert` |

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

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "quality-gate-c08cc470.pyz"
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
    dag_id="quality-gate",
    description="Publish, hold back or refuse, by the share of readings that can be used.",
    doc_md=__doc__,
    tags=["sensors", "flowyml", "flowyml:d093c71f8e57"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={
        "count": Param(1000, type="integer"),
        "broken": Param(3, type="integer"),
        "limit": Param(0.9, type="number"),
        "lowest": Param(0.7, type="number"),
    },
):
    load = Step(
        task_id="load",
        step="load",
        doc_md="Readings around 20 degrees; the first ``broken`` of 100 are missing.",
    )
    check = Step(
        task_id="check",
        step="check",
        inputs={"readings": load.output["readings"]},
        doc_md="The readings that can be used, and which share of all they are.",
    )
    choose_good = Choose(
        task_id="choose_good",
        task_display_name="good?",
        choice="good",
        branches={"good": ["publish"], "doubtful": ["hold"], "bad": ["alert"]},
        inputs={"check.share": check.output["share"]},
    )
    publish = Step(
        task_id="publish",
        step="publish",
        inputs={"good": check.output["good"]},
        doc_md="The mean, which is what the others wait for.",
    )
    hold = Step(
        task_id="hold",
        step="hold",
        inputs={"share": check.output["share"]},
        doc_md="Keep the data back until a person has corrected it.",
    )
    alert = Step(
        task_id="alert",
        step="alert",
        inputs={"share": check.output["share"]},
        doc_md="Somebody has to look at it now. A real one would post to a channel, see ``alert_webhook.py``.",
    )
    describe = Step(
        task_id="describe",
        step="describe",
        inputs={"mean": publish.output["mean"]},
        doc_md="What was published.",
    )
    watcher = Watcher(task_id="watcher", trigger_rule="one_failed")

    choose_good >> Label("good") >> publish
    choose_good >> Label("doubtful") >> hold
    choose_good >> Label("bad") >> alert
    [load, check, publish, hold, alert, describe] >> watcher

# flowyml: {"pipeline": "quality-gate", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "d093c71f8e57", "structure": "3c450ae420c3", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "quality-gate-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["load", "check", "publish", "hold", "alert", "describe"], "timeout": null, "outputs": {"message": {"either": [["describe", "message"], ["hold", "message"], ["alert", "message"]]}}, "hooks": false, "schedule": null, "helpers": ["choose_good", "watcher"], "watcher": "watcher", "waits": {"check": ["load"], "choose_good": ["check"], "publish": ["check", "choose_good"], "hold": ["check", "choose_good"], "alert": ["check", "choose_good"], "describe": ["publish", "choose_good"]}, "digest": "9b19ceabb468cfae07ce30581f12c8d16f74b3f279bd366ad60289fe53f03336"}
