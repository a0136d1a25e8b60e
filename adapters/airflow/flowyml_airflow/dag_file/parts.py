"""The parts of a compiled DAG file that are the same for every pipeline.

They are text, since they run in Airflow's environment and not in this one, on Airflow 3 and 2.11.
"""

from __future__ import annotations

__all__ = [
    "BACKOFF", "BRANCH_IMPORTS", "CALLBACK", "CHOOSE",
    "CODE", "EXTERNAL", "EXTERNAL_IMPORTS", "GROUP_IMPORTS", "HOOKS", "IMPORTS", "ITEMS", "ITEM_STEP",
    "ITEM_TOGETHER", "NOTE", "POD", "SECTION_IMPORTS", "SETTLED", "STEP", "TIMETABLE", "TOGETHER", "TOGETHER_NOTE",
    "WATCHER", "WORKER",
]  # fmt: skip

NOTE = """\
FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the files beside it, in a process of its own.
"""

TOGETHER_NOTE = """\
The steps of an execution group share a task and its process, one after the other.
"""

IMPORTS = """\
from __future__ import annotations

import sys
from datetime import {datetime}
from hashlib import sha256
{inspect}from pathlib import Path
from runpy import run_path

try:
    from airflow.sdk import {airflow}
except ImportError:  # Airflow 2
    from airflow.models import {airflow}
"""

TIMETABLE = """\
try:
    from airflow.sdk import {timetable}
except ImportError:  # before Airflow 3.2
    from airflow.timetables.trigger import {timetable}
"""

ASSETS = """\
try:
    from airflow.sdk import {asset}
except ImportError:  # Airflow 2
    from airflow.datasets import {dataset}
"""
# Airflow 2 identifies an asset by its URI alone.
NAMED_ASSETS = """
    def Asset(name, uri=None):
        return Dataset(uri or name)

"""

BRANCH_IMPORTS = """\
try:
    from airflow.sdk import Label
    from airflow.sdk.bases.branch import BaseBranchOperator
except ImportError:  # Airflow 2
    from airflow.operators.branch import BaseBranchOperator
    from airflow.utils.edgemodifier import Label
"""

GROUP_IMPORTS = """\
try:
    from airflow.sdk import task_group
except ImportError:  # Airflow 2
    from airflow.decorators import task_group
"""

EXTERNAL_IMPORTS = """\
try:
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
except ImportError:  # an Airflow that has it in itself
    from airflow.operators.trigger_dagrun import TriggerDagRunOperator
"""

SECTION_IMPORTS = """\
try:
    from airflow.sdk import TaskGroup
except ImportError:  # Airflow 2
    from airflow.utils.task_group import TaskGroup
"""

WORKER = '''\
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
'''

STEP = '''\
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
'''

EXTERNAL = '''\
class ExternalDag(TriggerDagRunOperator):
    """Runs another DAG of this Airflow, and waits for its end in the triggerer: no worker waits."""

    template_fields = ("inputs",)

    def __init__(self, *, step, inputs=None, **arguments):
        super().__init__(reset_dag_run=True, wait_for_completion=True, deferrable=True, **arguments)
        self.step = step
        self.inputs = inputs or {}

    def execute(self, context):
        self.fail_when_dag_is_paused = hasattr(context["ti"], "get_dag")  # since Airflow 3.2
        worker(context).trigger(self, context, bundle, PYTHON, ARTIFACTS, super().execute)

    def execute_complete(self, context, event):
        return worker(context).triggered(self, context, bundle, super().execute_complete, event)
'''

TOGETHER = '''\
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
'''

ITEM_TOGETHER = '''\
class ItemTogether(Together):
    """An execution group in a loop, mapped over the labels of its items."""

    template_fields = ("inputs", "item")

    def __init__(self, *, item, **arguments):
        super().__init__(**arguments)
        self.item = item
'''

CODE = '''\
class Code:
    """A function of the pipeline's own code, loaded from the bundle when it is needed, not when this file is parsed."""

    def __init__(self, place):
        self.place = place
        self.__name__ = self.__qualname__ = place.rpartition(":")[2]

    @property
    def __signature__(self):
        return signature(worker().function(bundle(), self.place))

    def __call__(self, *args, **kwargs):
        return worker().function(bundle(), self.place)(*args, **kwargs)
'''

ITEM_STEP = '''\
class ItemStep(Step):
    """A step in a loop, mapped over the labels of its items. It takes its own item of each list, by its map index."""

    template_fields = ("inputs", "item")

    def __init__(self, *, item, **arguments):
        super().__init__(**arguments)
        self.item = item
'''

ITEMS = '''\
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
'''

CHOOSE = '''\
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
'''

WATCHER = '''\
class Watcher(BaseOperator):
    """Fails the run when a step failed, whatever ran after it."""

    def execute(self, context):
        raise RuntimeError("A step of this run failed.")
'''

SETTLED = '''\
class Settled(BaseOperator):
    """Comes after items that may fail without failing the run."""

    def execute(self, context):
        pass
'''

HOOKS = '''\
class Start(BaseOperator):
    """Fires ``on_pipeline_start`` of the pipeline's hooks."""

    def execute(self, context):
        worker(context).start_run(self, context, bundle, PYTHON)


def on_end(context):
    """Fire ``on_pipeline_end`` of the pipeline's hooks."""
    worker().finish_run(context, bundle(), PYTHON)
'''

BACKOFF = '''\
def backoff(factor):
    """Return how the delay grows with every retry. Before Airflow 3.2 it could only double."""
    return factor if type(getattr(BaseOperator, "retry_exponential_backoff", False)) is not bool else True
'''

POD = '''\
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
'''

CALLBACK = '''\
def callback(place, arguments=None):
    """A function or a notifier of Airflow's environment, imported when it is called, not when this file is parsed."""

    def call(context):
        from importlib import import_module

        module, _, name = place.rpartition(".")
        found = getattr(import_module(module), name)
        return found(context) if arguments is None else found(**arguments)(context)

    return call
'''
