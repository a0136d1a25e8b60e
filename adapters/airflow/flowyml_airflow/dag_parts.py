"""The parts of a compiled DAG file that are the same for every pipeline.

They are text: they run in Airflow's environment, which is not this one, on Airflow 3 and 2.11.
"""

from __future__ import annotations

__all__ = ["BACKOFF", "CALLBACK", "HOOKS", "IMPORTS", "NOTE", "POD", "STEP", "TIMETABLE", "WORKER"]

NOTE = """\
FlowyML compiled this file: change the pipeline and compile again, rather than edit it. Each task runs one step from
the bundle beside it, in a process of its own.
"""

IMPORTS = """\
from __future__ import annotations

import sys
from datetime import {datetime}
from pathlib import Path
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

WORKER = '''\
def worker():
    """FlowyML's side of a task, from the bundle: unpacked and loaded when a task runs, not when this file is parsed."""
    if "flowyml_airflow" not in sys.modules:
        run_path(str(BUNDLE), run_name="bundle")["make_importable"](BUNDLE)
    from flowyml_airflow import worker

    return worker
'''

STEP = '''\
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
        worker().stop_step()
'''

HOOKS = '''\
class Start(BaseOperator):
    """Fires ``on_pipeline_start`` of the pipeline's hooks."""

    def execute(self, context):
        worker().start_run(context, BUNDLE, PYTHON)


def on_end(context):
    """Fire ``on_pipeline_end`` of the pipeline's hooks."""
    worker().finish_run(context, BUNDLE, PYTHON)
'''

BACKOFF = '''\
def backoff(factor):
    """How the delay grows with every retry. Before Airflow 3.2 it could only double."""
    return factor if type(getattr(BaseOperator, "retry_exponential_backoff", False)) is not bool else True
'''

POD = '''\
def pod(*, selector=None, limits=None, **requests):
    """What a step asks of its pod, for an executor that makes pods. Others need neither it nor the slow import."""
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
