"""Pipeline 'kleine Strecke/1' as an Airflow DAG, structure 87df93d77b9f.

Values of all kinds, and hooks.

```text
   ╭─────────╮
   │ nothing │
   ╰────┬────╯
   ╭────▼────╮
   │ values  │
   ╰────┬────╯
╭───────▼───────╮
│ Prüfung/3 '"  │
╰───────────────╯
```

| Parameter | Type | Default |
| --- | --- | --- |
| `rows` | integer | `3` |

| Step | Takes | Gives |
| --- | --- | --- |
| `nothing` | parameter `rows` | `nothing` |
| `values` | `nothing` of `nothing` | `plain`, `large` |
| `Prüfung/3 '"` | `plain` of `values`, `large` of `values` | `Prüfung/3 '"` |

| Output | XCom | Task |
| --- | --- | --- |
| `Prüfung/3 '"` | `return_value` | `prufung_3_de015b7c` |

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the files beside it, in a process of its own.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from runpy import run_path

try:
    from airflow.sdk import DAG, BaseOperator, Param
except ImportError:  # Airflow 2
    from airflow.models import DAG, BaseOperator, Param

try:
    from airflow.sdk import DeltaTriggerTimetable
except ImportError:  # before Airflow 3.2
    from airflow.timetables.trigger import DeltaTriggerTimetable

RUNTIME = Path(__file__).parent / "flowyml_bundles" / "flowyml-VERSION-DIGEST.pyz"
CODE = "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8"  # of the files of the steps
PYTHON = sys.executable  # runs the steps
ARTIFACTS = None  # takes large outputs; None: as FLOWYML_ARTIFACTS says on the workers


def worker(context=None):
    """FlowyML's side of a task: checked, unpacked and loaded when a task runs, not when this file is parsed."""
    try:
        if "flowyml_airflow" not in sys.modules:
            if sha256(RUNTIME.read_bytes()).hexdigest()[:32] != RUNTIME.stem[-32:]:
                raise ImportError(f"{RUNTIME} is not what its name says: it was replaced or cut short")
            run_path(str(RUNTIME), run_name="bundle")["make_importable"](RUNTIME)
        from flowyml_airflow import worker
    except Exception as error:
        if context:  # FlowyML reads the error of a task from this XCom, and needs no log
            said = {"class": type(error).__name__, "said": str(error), "try": context["ti"].try_number}
            context["ti"].xcom_push(key="flowyml.error", value=said)
        raise
    return worker


def bundle():
    """The folder of the steps' code, checked and copied to this machine when a task runs."""
    from flowyml_airflow.beside import unpacked

    return unpacked(Path(__file__), RUNTIME, CODE, PYTHON)


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
        super().__init__(**arguments)
        self.step = step
        self.inputs = inputs or {}

    def execute(self, context):
        return worker(context).run_step(self, context, bundle, PYTHON, ARTIFACTS)

    def on_kill(self):
        stop()


class Start(BaseOperator):
    """Fires ``on_pipeline_start`` of the pipeline's hooks."""

    def execute(self, context):
        worker(context).start_run(self, context, bundle, PYTHON)


def on_end(context):
    """Fire ``on_pipeline_end`` of the pipeline's hooks."""
    worker().finish_run(context, bundle(), PYTHON)


with DAG(
    dag_id="kleine_strecke_1_f589eb17",
    dag_display_name="kleine Strecke/1",
    description="Values of all kinds, and hooks. (version VERSION)",
    doc_md=__doc__,
    tags=["tests", "flowyml"],
    schedule=DeltaTriggerTimetable(timedelta(minutes=90)),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"rows": Param(3, type="integer")},
    on_success_callback=on_end,
    on_failure_callback=on_end,
):
    nothing = Step(task_id="nothing", step="nothing")
    values = Step(task_id="values", step="values", multiple_outputs=True, inputs={"nothing": nothing.output})
    Prufung_3_de015b7c = Step(
        task_id="prufung_3_de015b7c",
        task_display_name="Prüfung/3 '\"",
        step="Prüfung/3 '\"",
        inputs={"plain": values.output["plain"], "large": values.output["large"]},
    )
    start = Start(task_id="on_pipeline_start")

    start >> nothing

# flowyml: {"pipeline": "kleine Strecke/1", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "VERSION", "structure": "87df93d77b9f", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "kleine-strecke-1-f589eb17-c08cc470.pyz", "runtime": "flowyml-VERSION-DIGEST.pyz", "files": ["flowyml_bundles/kleine_strecke_1_f589eb17/code/m.py"], "python": null, "artifacts": null, "steps": ["nothing", "values", "prufung_3_de015b7c"], "timeout": null, "outputs": {"Pr\u00fcfung/3 '\"": ["prufung_3_de015b7c", "return_value"]}, "xcoms": {"nothing": {"nothing": "return_value"}, "values": {"plain": "plain", "large": "large"}, "prufung_3_de015b7c": {"Pr\u00fcfung/3 '\"": "return_value"}}, "hooks": true, "schedule": {"timezone": "UTC", "interval_seconds": 5400, "start": "2026-01-01T00:00:00+00:00"}, "waits": {"nothing": ["on_pipeline_start"], "values": ["nothing"], "prufung_3_de015b7c": ["values"]}, "digest": "DIGEST"}
