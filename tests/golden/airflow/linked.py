"""Pipeline 'grouped' as an Airflow DAG, structure 24384c090459.

Several steps in one task, and in one for each item.

```text
            ╭─────────╮
            │ read ▤  │
            ╰────┬────╯
            ╭────┴───╮
       ╭────▼────╮   │
       │ clean ▤ │   │
       ╰────┬────╯   │
    ╭───────┼──────╮ ╰─╮
╭───▼───╮   │   ╭──▼───▼──╮
│ alarm │   │   │ half ⟳▤ │
╰───────╯   │   ╰────┬────╯
           ╭╯  ╭─────╯
       ╭───▼───▼───╮
       │ shown ⟳▤  │
       ╰─────┬─────╯
        ╭────▼────╮
        │ page_of │
        ╰─────────╯

⟳ each item of rows: execution group each
▤ execution group prepare: read, clean
▤ execution group each: half, shown
```

| Parameter | Type | Default |
| --- | --- | --- |
| `rows` | integer | `10` |

| Step | Takes | Gives |
| --- | --- | --- |
| `read` | parameter `rows` | `read` |
| `clean` | `read` of `read` | `clean` |
| `half` | an item of `rows`, `read` of `read` | `half` |
| `alarm` | `clean` of `clean` |  |
| `shown` | `half` of `half` | `shown` |
| `page_of` | `shown` of `shown` | `page_of` |

| Output | XCom | Task |
| --- | --- | --- |
| `page` | `return_value` | `page_of` |
| `texts` | `shown.shown` | `each` |

FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the files beside it, in a process of its own.
The steps of an execution group share a task and its process, one after the other.
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
    from airflow.sdk import BaseOperatorLink
except ImportError:  # Airflow 2, which takes links from plugins alone
    BaseOperatorLink = None

RUNTIME = Path(__file__).parent / "flowyml_bundles" / "flowyml-VERSION-DIGEST.pyz"
CODE = "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8"  # of the files of the steps
PYTHON = sys.executable  # runs the steps
ARTIFACTS = None  # takes large outputs; None: as FLOWYML_ARTIFACTS says on the workers
ARTIFACT_LINKS = "https://files.example.org/{key}"  # where a browser finds them


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


class Together(BaseOperator):
    """Steps of an execution group, one after the other in one process. Its inputs are outputs of other steps."""

    template_fields = ("inputs",)
    ui_color = "#e3f0ea"

    def __init__(self, *, steps, inputs=None, **arguments):
        super().__init__(multiple_outputs=True, **arguments)
        self.steps = steps
        self.inputs = inputs or {}

    def execute(self, context):
        return worker(context).run_together(self, context, bundle, PYTHON, ARTIFACTS)

    def on_kill(self):
        stop()


class ItemTogether(Together):
    """An execution group in a loop, mapped over the labels of its items."""

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
        return worker(context).list_items(self, context, bundle, PYTHON, ARTIFACTS)

    def on_kill(self):
        stop()


class Link(BaseOperatorLink or object):
    """A button on the page of a task that leads to an output of its step."""

    template = ARTIFACT_LINKS

    def __init__(self, output, page=""):
        self.output = output
        self.page = page

    @property
    def name(self):
        return self.output

    @property
    def xcom_key(self):
        return f"flowyml.link.{self.output}"

    def get_link(self, operator, *, ti_key):
        return self.page


def with_links(task, outputs):
    """Announce the buttons of a task, where Airflow can show them; when it has run, they have pages."""
    if BaseOperatorLink:
        task.operator_extra_links = [Link(output) for output in outputs]


Step.link = Together.link = Link if BaseOperatorLink else None


def pod(*, selector=None, limits=None, **requests):
    """Return a step's pod, for an executor that makes pods. Others need neither it nor the slow import."""
    from airflow.configuration import conf

    if "kubernetes" not in conf.get("core", "executor").lower():
        return None
    try:
        from kubernetes.client import models as k8s
    except ImportError:  # a worker of another executor
        return None
    resources = k8s.V1ResourceRequirements(requests=requests, limits=limits)
    spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=resources)], node_selector=selector)
    return {"pod_override": k8s.V1Pod(spec=spec)}


with DAG(
    dag_id="grouped",
    description="Several steps in one task, and in one for each item. (version VERSION)",
    doc_md=__doc__,
    tags=["flowyml"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"rows": Param(10, type="integer")},
):
    prepare = Together(
        task_id="prepare",
        steps=["read", "clean"],
        doc_md="- `read`: Reads rows.\n- `clean`\n\nTags: quick",
        execution_timeout=timedelta(seconds=130),
        pool="small",
        executor_config=pod(cpu="1", memory="2Gi", limits={"memory": "2Gi"}),
    )
    rows_items = Items(task_id="rows_items", loop="rows", inputs={"clean.clean": prepare.output["clean.clean"]})
    each = ItemTogether.partial(
        task_id="each",
        steps=["half", "shown"],
        inputs={"clean.clean": prepare.output["clean.clean"], "read.read": prepare.output["read.read"]},
        doc_md="- `half`\n- `shown`",
        map_index_template="{{ task.item }}",
    ).expand(item=rows_items.output)
    alarm = Step(
        task_id="alarm",
        step="alarm",
        inputs={"clean": prepare.output["clean.clean"]},
        trigger_rule="all_done",
    )
    page_of = Step(
        task_id="page_of",
        step="page_of",
        inputs={"shown": each.output["shown.shown"]},
        trigger_rule="none_failed",
    )

    with_links(prepare, ["read.read", "clean.clean"])
    with_links(each, ["half.half", "shown.shown"])
    with_links(page_of, ["page_of"])

# flowyml: {"pipeline": "grouped", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "VERSION", "structure": "24384c090459", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "grouped-c08cc470.pyz", "runtime": "flowyml-VERSION-DIGEST.pyz", "files": ["flowyml_bundles/grouped/code/m.py"], "python": null, "artifacts": null, "artifact_links": "https://files.example.org/{key}", "steps": ["prepare", "each", "alarm", "page_of"], "timeout": null, "outputs": {"page": ["page_of", "return_value"], "texts": ["each", "shown.shown", "rows"]}, "xcoms": {"alarm": {}, "page_of": {"page_of": "return_value"}}, "hooks": false, "schedule": null, "together": {"prepare": ["read", "clean"], "each": ["half", "shown"]}, "helpers": ["rows_items"], "loops": {"rows": {"items": "rows_items", "tasks": ["each"]}}, "waits": {"rows_items": ["prepare"], "each": ["prepare", "rows_items"], "alarm": ["prepare"], "page_of": ["each"]}, "digest": "DIGEST"}
