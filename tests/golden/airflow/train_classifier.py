"""Pipeline 'train-classifier' as an Airflow DAG, version e5ec8de7a383, structure e2f3f506418a.

Train two classifiers side by side, keep the better one.

```text
                      ╭───────╮
                      │ load  │
                      ╰───┬───╯
                      ╭───▼───╮
                      │ split │
                      ╰───┬───╯
        ╭─────────────────┴──┬────────────╮
╭───────▼───────╮   ╭────────▼────────╮   │
│ train_forest  │   │ train_logistic  │   │
╰───────┬───────╯   ╰───────┬─────────╯   │
        ╰───────────────╮   │   ╭────┬────╯
                       ╭▼───▼───▼╮   │
                       │ choose  │   │
                       ╰───┬─────╯   │
                           │   ╭─────┴────────╮
                   ╭───────┼───│──────────╮   │
                   │   ╭───▼───▼───╮    ╭─▼───▼─╮
                   │   │ evaluate  │    │ draw  │
                   │   ╰──┬────────╯    ╰───────╯
                   ╰──╮   │
                  ╭───▼───▼───╮
                  │ summarize │
                  ╰───────────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `trees` | integer | `200` |
| `test_share` | number | `0.25` |
| `seed` | integer | `7` |

| Step | Takes | Gives |
| --- | --- | --- |
| `load` |  | `features`, `labels` |
| `split` | `features` of `load`, `labels` of `load`, parameter `test_share`, parameter `seed` | `train_x`, `test_x`, `train_y`, `test_y` |
| `train_forest` | `train_x` of `split`, `train_y` of `split`, parameter `trees`, parameter `seed` | `train_forest` |
| `train_logistic` | `train_x` of `split`, `train_y` of `split` | `train_logistic` |
| `choose` | `train_forest` of `train_forest`, `train_logistic` of `train_logistic`, `train_x` of `split`, `train_y` of `split` | `model`, `scores` |
| `evaluate` | `model` of `choose`, `test_x` of `split`, `test_y` of `split` | `evaluate` |
| `draw` | `model` of `choose`, `test_x` of `split`, `test_y` of `split` | `draw` |
| `summarize` | `scores` of `choose`, `evaluate` of `evaluate` | `summarize` |

| Output | XCom | Task |
| --- | --- | --- |
| `metrics` | `evaluate` | `evaluate` |
| `scores` | `scores` | `choose` |
| `report` | `summarize` | `summarize` |

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

BUNDLE = Path(__file__).parent / "flowyml_bundles" / "train-classifier-c08cc470.pyz"
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
    dag_id="train-classifier",
    description="Train two classifiers side by side, keep the better one.",
    doc_md=__doc__,
    tags=["demo", "flowyml", "flowyml:e5ec8de7a383"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={
        "trees": Param(200, type="integer"),
        "test_share": Param(0.25, type="number"),
        "seed": Param(7, type="integer"),
    },
):
    load = Step(task_id="load", step="load", doc_md="Measurements, and 1 for a benign tumour.")
    split = Step(
        task_id="split",
        step="split",
        inputs={"features": load.output["features"], "labels": load.output["labels"]},
        doc_md="A part of the tumours is kept back for the test.",
    )
    train_forest = Step(
        task_id="train_forest",
        step="train_forest",
        inputs={"train_x": split.output["train_x"], "train_y": split.output["train_y"]},
        doc_md="Many decision trees that vote.",
    )
    train_logistic = Step(
        task_id="train_logistic",
        step="train_logistic",
        inputs={"train_x": split.output["train_x"], "train_y": split.output["train_y"]},
        doc_md="A linear model of scaled measurements.",
    )
    choose = Step(
        task_id="choose",
        step="choose",
        inputs={
            "forest": train_forest.output["train_forest"],
            "logistic": train_logistic.output["train_logistic"],
            "train_x": split.output["train_x"],
            "train_y": split.output["train_y"],
        },
        doc_md="The model that does better in cross-validation; the test data stays unseen.",
    )
    evaluate = Step(
        task_id="evaluate",
        step="evaluate",
        inputs={"model": choose.output["model"], "test_x": split.output["test_x"], "test_y": split.output["test_y"]},
        doc_md="How the chosen model does on data that it has never seen.",
    )
    draw = Step(
        task_id="draw",
        step="draw",
        inputs={"model": choose.output["model"], "test_x": split.output["test_x"], "test_y": split.output["test_y"]},
        doc_md="How many benign tumours are found, for each share of the others that is taken for benign.",
    )
    summarize = Step(
        task_id="summarize",
        step="summarize",
        inputs={"scores": choose.output["scores"], "metrics": evaluate.output["evaluate"]},
        doc_md="One sentence for people.",
    )

# flowyml: {"pipeline": "train-classifier", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "e5ec8de7a383", "structure": "e2f3f506418a", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "train-classifier-c08cc470.pyz", "python": null, "artifacts": null, "steps": ["load", "split", "train_forest", "train_logistic", "choose", "evaluate", "draw", "summarize"], "timeout": null, "outputs": {"metrics": ["evaluate", "evaluate"], "scores": ["choose", "scores"], "report": ["summarize", "summarize"]}, "hooks": false, "schedule": null, "waits": {"split": ["load"], "train_forest": ["split"], "train_logistic": ["split"], "choose": ["train_forest", "train_logistic", "split"], "evaluate": ["choose", "split"], "draw": ["choose", "split"], "summarize": ["choose", "evaluate"]}, "digest": "552216a2ac14741348be2a2a20b91d38a8fac2a0c98a5259d68689755717138f"}
