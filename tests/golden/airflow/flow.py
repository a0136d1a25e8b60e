"""Pipeline 'flow' as an Airflow DAG, structure 93ecc487d560.

Loops, branches, a handler of failures, a pipeline in the pipeline, and clean-up.

```text
        ╭───────────╮   ╭─────────────╮   ╭───────────────╮   ╭───────────╮
        │ measure ⟳ │   │ tolerant ⟳  │   │ drop_each ⏏⟳  │   │ survey ⊞  │
        ╰─────┬─────╯   ╰─────────────╯   ╰───────────────╯   ╰─────┬─────╯
      ╭───────┴─────────╮                  ╭─────────────────┬──────┴───────┬────────────╮
╭─────▼─────╮   ╭───────▼───────╮   ╭──────▼──────╮   ╭──────▼──────╮   ╭───▼───╮   ╭────▼────╮
│ refine ⟳? │   │ tell_short ⟳? │   │ tell_many ? │   │ tell_few ?  │   │ page  │   │ drop ⏏  │
╰─────┬─────╯   ╰────┬──────────╯   ╰──────┬──────╯   ╰─────┬───────╯   ╰───────╯   ╰─────────╯
      ╰──────────╮   │                     ╰────────────╮   │
           ╭─────▼───▼─────╮                        ╭───▼───▼───╮
           │ tell_either ⟳ │                        │ tell_all  │
           ╰───────────────╯                        ╰───────────╯

⟳ each item of letters, 1 at a time: measure, tell_either, if measure > 1 (long), otherwise (short)
? if measure > 1 (long): refine
? otherwise (short): tell_short
? if sum_of > limit (many): tell_many
? otherwise (few): tell_few
⟳ each city: tolerant
⏏ clean-up: drop, each name
⟳ each name: drop_each
⊞ pipeline survey: survey.cities, survey.measure, survey.sum_of
```

| Parameter | Type | Default |
| --- | --- | --- |
| `count` | integer | `3` |
| `limit` | integer | `100` |

| Step | Takes | Gives |
| --- | --- | --- |
| `survey.cities` | parameter `count` | `cities` |
| `measure` | an item of `letters` | `measure` |
| `tolerant` | an item of `tolerant` | `tolerant` |
| `survey.measure` | an item of `survey.measure` | `measure` |
| `refine` | `measure` of `measure` | `refine` |
| `tell_short` | an item of `letters`, `measure` of `measure` | `tell_short` |
| `survey.sum_of` | `measure` of `survey.measure` | `sum_of` |
| `tell_either` | `refine` of `refine` or `tell_short` of `tell_short` | `tell_either` |
| `tell_many` | `sum_of` of `survey.sum_of` | `tell_many` |
| `tell_few` | `sum_of` of `survey.sum_of` | `tell_few` |
| `page` | `sum_of` of `survey.sum_of` |  |
| `tell_all` | `tell_many` of `tell_many` or `tell_few` of `tell_few` | `tell_all` |
| `drop_each` | an item of `drop_each` |  |
| `drop` | `sum_of` of `survey.sum_of` |  |

| Output | XCom | Task |
| --- | --- | --- |
| `said` | `return_value` | `tell_all` |
| `letters` | `return_value` | `tell_either` |
| `tolerant` | `return_value` | `tolerant` |

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
    from airflow.sdk import Label
    from airflow.sdk.bases.branch import BaseBranchOperator
except ImportError:  # Airflow 2
    from airflow.operators.branch import BaseBranchOperator
    from airflow.utils.edgemodifier import Label

try:
    from airflow.sdk import task_group
except ImportError:  # Airflow 2
    from airflow.decorators import task_group

try:
    from airflow.sdk import TaskGroup
except ImportError:  # Airflow 2
    from airflow.utils.task_group import TaskGroup

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
        return worker(context).list_items(self, context, bundle, PYTHON, ARTIFACTS)

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
        return self.branches.get(worker(context).choose(self, context, bundle, PYTHON, ARTIFACTS), [])

    def on_kill(self):
        stop()


class Settled(BaseOperator):
    """Comes after items that may fail without failing the run."""

    def execute(self, context):
        pass


class Watcher(BaseOperator):
    """Fails the run when a step failed, whatever ran after it."""

    def execute(self, context):
        raise RuntimeError("A step of this run failed.")


class Start(BaseOperator):
    """Fires ``on_pipeline_start`` of the pipeline's hooks."""

    def execute(self, context):
        worker(context).start_run(self, context, bundle, PYTHON)


def on_end(context):
    """Fire ``on_pipeline_end`` of the pipeline's hooks."""
    worker().finish_run(context, bundle(), PYTHON)


with DAG(
    dag_id="flow",
    description="Loops, branches, a handler of failures, a pipeline in the pipeline, and clean-up. (version VERSION)",
    doc_md=__doc__,
    tags=["flowyml"],
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 0},
    params={"count": Param(3, type="integer"), "limit": Param(100, type="integer")},
    on_success_callback=on_end,
    on_failure_callback=on_end,
):
    survey = TaskGroup("survey", prefix_group_id=False, tooltip="Measures cities.")
    survey_cities_4b1da184 = Step(task_id="survey.cities", step="survey.cities", task_group=survey)
    letters_items = Items(task_id="letters_items", loop="letters")

    @task_group(group_id="letters", prefix_group_id=False, tooltip="letters")
    def letters(item):
        measure = ItemStep(
            task_id="measure",
            step="measure",
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=1,
        )
        choose_long = Choose(
            task_id="choose_long",
            task_display_name="long?",
            choice="long",
            branches={"long": ["refine"], "short": ["tell_short"]},
            inputs={"measure.measure": measure.output},
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=1,
            item=item,
        )
        refine = ItemStep(
            task_id="refine",
            step="refine",
            inputs={"value": measure.output},
            retries=2,
            retry_delay=timedelta(seconds=0),
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=1,
        )
        tell_short = ItemStep(
            task_id="tell_short",
            step="tell_short",
            inputs={"value": measure.output},
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=1,
        )
        tell_either = ItemStep(
            task_id="tell_either",
            step="tell_either",
            inputs={"value": [refine.output, tell_short.output]},
            trigger_rule="none_failed",
            item=item,
            map_index_template="{{ task.item }}",
            max_active_tis_per_dagrun=1,
        )
        return measure, choose_long, refine, tell_short, tell_either

    measure, choose_long, refine, tell_short, tell_either = letters.expand(item=letters_items.output)
    tolerant = ItemStep.partial(
        task_id="tolerant",
        step="tolerant",
        map_index_template="{{ task.item }}",
    ).expand(item=["x", "y"])
    survey_measure_items = Items(
        task_id="survey_measure_items",
        loop="survey.measure",
        inputs={"survey.cities.cities": survey_cities_4b1da184.output},
        task_group=survey,
    )
    survey_measure_c3fffa40 = ItemStep.partial(
        task_id="survey.measure",
        step="survey.measure",
        inputs={"city": survey_cities_4b1da184.output},
        map_index_template="{{ task.item }}",
        max_active_tis_per_dagrun=2,
        task_group=survey,
    ).expand(item=survey_measure_items.output)
    survey_sum_of_a194c3e0 = Step(
        task_id="survey.sum_of",
        step="survey.sum_of",
        inputs={"values": survey_measure_c3fffa40.output},
        trigger_rule="none_failed",
        task_group=survey,
    )
    choose_many = Choose(
        task_id="choose_many",
        task_display_name="many?",
        choice="many",
        branches={"many": ["tell_many"], "few": ["tell_few"]},
        inputs={"survey.sum_of.sum_of": survey_sum_of_a194c3e0.output},
    )
    tell_many = Step(task_id="tell_many", step="tell_many", inputs={"value": survey_sum_of_a194c3e0.output})
    tell_few = Step(task_id="tell_few", step="tell_few", inputs={"value": survey_sum_of_a194c3e0.output})
    page = Step(task_id="page", step="page", inputs={"value": survey_sum_of_a194c3e0.output}, trigger_rule="one_failed")
    tell_all = Step(
        task_id="tell_all",
        step="tell_all",
        inputs={"what": [tell_many.output, tell_few.output]},
        trigger_rule="none_failed_min_one_success",
    )
    drop_each = ItemStep.partial(
        task_id="drop_each",
        step="drop_each",
        map_index_template="{{ task.item }}",
    ).expand(item=["one", "two"])
    drop_each.as_teardown()
    drop = Step(task_id="drop", step="drop", inputs={"value": survey_sum_of_a194c3e0.output}).as_teardown()
    start = Start(task_id="on_pipeline_start", retries=2, retry_delay=timedelta(seconds=0))
    settled = Settled(task_id="settled", trigger_rule="all_done")
    watcher = Watcher(task_id="watcher", trigger_rule="one_failed")

    start >> [survey_cities_4b1da184, letters_items, tolerant]
    choose_long >> Label("long") >> refine
    choose_long >> Label("short") >> tell_short
    choose_many >> Label("many") >> tell_many
    choose_many >> Label("few") >> tell_few
    tolerant >> settled
    [tell_either, tell_many, tell_few, page, tell_all] >> watcher
    others = [
        survey_cities_4b1da184,
        letters_items,
        measure,
        tolerant,
        survey_measure_items,
        survey_measure_c3fffa40,
        refine,
        tell_short,
        survey_sum_of_a194c3e0,
        tell_either,
        tell_many,
        tell_few,
        page,
        tell_all,
    ]
    others >> drop_each
    others >> drop

# flowyml: {"pipeline": "flow", "origin": null, "code": "0000000000000000000000000000000000000000000000000000000000000000", "version": "VERSION", "structure": "93ecc487d560", "bundle": "c08cc470e55afcf25b8b395fb2632d3d543329eae74bac7ef60315d8d0ecd9f8", "bundle_file": "flow-c08cc470.pyz", "runtime": "flowyml-VERSION-DIGEST.pyz", "files": ["flowyml_bundles/flow/code/m.py"], "python": null, "artifacts": null, "steps": ["survey.cities", "measure", "tolerant", "survey.measure", "refine", "tell_short", "survey.sum_of", "tell_either", "tell_many", "tell_few", "page", "tell_all", "drop_each", "drop"], "timeout": null, "outputs": {"said": ["tell_all", "return_value"], "letters": ["tell_either", "return_value", "letters"], "tolerant": ["tolerant", "return_value", "tolerant"]}, "xcoms": {"survey.cities": {"cities": "return_value"}, "measure": {"measure": "return_value"}, "tolerant": {"tolerant": "return_value"}, "survey.measure": {"measure": "return_value"}, "refine": {"refine": "return_value"}, "tell_short": {"tell_short": "return_value"}, "survey.sum_of": {"sum_of": "return_value"}, "tell_either": {"tell_either": "return_value"}, "tell_many": {"tell_many": "return_value"}, "tell_few": {"tell_few": "return_value"}, "page": {}, "tell_all": {"tell_all": "return_value"}, "drop_each": {}, "drop": {}}, "hooks": true, "schedule": null, "helpers": ["letters_items", "survey_measure_items", "choose_long", "choose_many", "settled", "watcher"], "watcher": "watcher", "cleanup": ["drop_each", "drop"], "loops": {"survey.measure": {"items": "survey_measure_items", "tasks": ["survey.measure"]}, "letters": {"items": "letters_items", "tasks": ["measure", "choose_long", "refine", "tell_short", "tell_either"]}, "tolerant": {"items": null, "tasks": ["tolerant"], "goes_on": true}, "drop_each": {"items": null, "tasks": ["drop_each"]}}, "waits": {"survey.cities": ["on_pipeline_start"], "letters_items": ["on_pipeline_start"], "measure": ["letters_items"], "tolerant": ["on_pipeline_start"], "survey_measure_items": ["survey.cities"], "survey.measure": ["survey.cities", "survey_measure_items"], "choose_long": ["measure", "letters_items"], "refine": ["measure", "choose_long", "letters_items"], "tell_short": ["measure", "choose_long", "letters_items"], "survey.sum_of": ["survey.measure"], "tell_either": ["refine", "tell_short", "letters_items"], "choose_many": ["survey.sum_of"], "tell_many": ["survey.sum_of", "choose_many"], "tell_few": ["survey.sum_of", "choose_many"], "page": ["survey.sum_of"], "tell_all": ["tell_many", "tell_few"], "drop": ["survey.sum_of"]}, "digest": "DIGEST"}
