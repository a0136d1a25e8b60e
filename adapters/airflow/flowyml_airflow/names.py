"""Map FlowyML's names to Airflow's: stable, within Airflow's rules, and different for different names.

A name that is a valid id stays as it is. Any other name is changed into an id and becomes the display name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowyml.plan.groups import Branch, Loop, Section
from flowyml.plan.model import Plan
from flowyml.plan.names import slug

__all__ = [
    "BUNDLES_FOLDER", "CACHED_KEY", "CODE_KEY", "CONF_KEYS", "ERROR_KEY", "EXACT_KEY", "RETURNED", "REVISION_KEY",
    "RUN_ID_KEY", "START_TASK", "STEPS_KEY", "STEP_MARKER", "TAG", "TAKES_KEY", "TIMED_OUT", "UPSTREAM_FAILED", "Ids",
    "airflow_run_id", "dag_file", "dag_id", "development_id", "development_name", "given_run_id", "pipeline_of",
    "task_id", "version_note", "xcom_key",
]  # fmt: skip

# Beside the DAG files. Airflow takes any zip file for a DAG file, unless an `.airflowignore` says otherwise.
BUNDLES_FOLDER = "flowyml_bundles"
# The tag of every DAG that FlowyML compiled.
TAG = "flowyml"
# The task that fires `on_pipeline_start`; a step of this name gets another id.
START_TASK = "on_pipeline_start"
# The class of the exception of a task whose step took too long and is not retried; the log shows it to the reader.
TIMED_OUT = "StepTimedOut"
# The class of the exception of a task that Airflow started although a step that it waits for failed.
UPSTREAM_FAILED = "UpstreamFailed"
# The XCom in which a group's task records its steps; outputs of such a task have a dot in their keys.
STEPS_KEY = "steps"
# Begins a marker in the log of a group's task, with JSON that says which step wrote the following lines. No line of a
# user's begins with it: see `together.printed`.
STEP_MARKER = "flowyml-turn "
# Airflow allows few characters in a run id; the run's conf has the user's own. No parameter has a dot in its name.
RUN_ID_KEY, REVISION_KEY = "flowyml.run_id", "flowyml.revision"
# The digest of the code that the run was submitted with: Airflow 2 does not version DAGs, and Airflow 3 puts the text
# of a new file into the last version if that is not `[core] min_serialized_dag_update_interval` old, usually 30 s.
CODE_KEY = "flowyml.code"
# Airflow's key for what a task returns.
RETURNED = "return_value"
# The XCom with the run that the outputs of a cached step are from.
CACHED_KEY = "flowyml.cached_from"
# The XCom with the error of a task that failed: the log of a pod that has ended may be gone.
ERROR_KEY = "flowyml.error"
TAKES_KEY = "flowyml.takes"
"""The conf key of a run that takes results of another one: its tasks say which, under ``CACHED_KEY``."""

EXACT_KEY = "flowyml.exact"
"""The conf key with the JSON of those parameters that PostgreSQL would change or sort."""
CONF_KEYS = (RUN_ID_KEY, REVISION_KEY, CODE_KEY, TAKES_KEY, EXACT_KEY)

# Airflow's default of [scheduler] allowed_run_id_pattern. Airflow also refuses ids that begin like those that it makes
# itself. Source: airflow.utils.types.DagRunType, of 3 and 2.
_RUN_ID = re.compile(
    r"(?!.*\.\.)(?!(?:scheduled|backfill|operator_triggered|asset_triggered|asset_materialization|dataset_triggered)__)"
    r"[A-Za-z0-9_.~:+-]{1,200}"
)
_DEVELOPMENT, _SHOWN_DEVELOPMENT = "__dev", " (development)"

_FINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_DOTTED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
_ENDS_AS_OURS = re.compile(rf"(^|[_-])[0-9a-f]{{8}}$|{_DEVELOPMENT}$")


def dag_id(pipeline: str) -> str:
    """Return the id of a pipeline's DAG.

    >>> dag_id("train-classifier"), dag_id("sales.daily"), dag_id("Train/Model ü")
    ('train-classifier', 'sales.daily', 'train_model_u_b0ce1989')
    """
    return _dotted(pipeline)


def development_id(pipeline: str) -> str:
    """Return the id of the DAG for code that is not deployed, used while the pipeline's own DAG has a schedule.

    >>> development_id("train-classifier"), dag_id("train-classifier__dev")
    ('train-classifier__dev', 'train_classifier_dev_7ff5b69e')
    """
    return dag_id(pipeline) + _DEVELOPMENT


def development_name(pipeline: str) -> str:
    """Return the display name of that DAG."""
    return pipeline + _SHOWN_DEVELOPMENT


def pipeline_of(dag: str, display_name: str) -> str:
    """Return the pipeline of a DAG, by its id and display name.

    >>> pipeline_of("train_model_u_b0ce1989__dev", "Train/Model ü (development)"), pipeline_of("train", "train")
    ('Train/Model ü', 'train')
    """
    return display_name.removesuffix(_SHOWN_DEVELOPMENT) if dag.endswith(_DEVELOPMENT) else display_name


def task_id(step: str) -> str:
    """Return the id of a step's task. A dot stays: in Airflow it separates a task from its group.

    >>> task_id("Load"), task_id("prepare.load"), task_id("load it.now")
    ('Load', 'prepare.load', 'load_it_now_35cc32da')
    """
    return _dotted(step if step != START_TASK else f"{step} ")


def version_note(version: str) -> str:
    """Return the end of the description of a DAG: the version of its file that Airflow has parsed."""
    return f"(version {version})"


class Ids:
    """The ids of tasks and groups other than those of single steps: all different.

    ``together`` has those of the tasks of execution groups, ``items`` of the tasks that count the items of a loop,
    ``choices`` of those that choose a branch, and ``groups`` of the task groups for loops and for pipelines within
    pipelines; ``watcher`` fails a run in which a step failed, and ``settled`` comes after items that may fail. The
    compiler and the worker derive the same ids from the same plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._taken = {START_TASK, *(task_id(step.name) for step in plan if not step.execution_group)}
        self.together = {name: self._free(_short(name)) for name in plan.structure.execution_groups}
        self.items: dict[str, str] = {}
        self.choices: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        for group in plan.groups:
            if isinstance(group, Loop):
                self.items[group.name] = self._free(f"{_short(group.name)}_items")
                self.groups[group.name] = self._free(_short(group.name))
            elif isinstance(group, Section):
                self.groups[group.name] = self._free(_short(group.name))
            elif isinstance(group, Branch) and group.choice not in self.choices:
                self.choices[group.choice] = self._free(f"choose_{_short(group.choice)}")
        self.watcher, self.settled = self._free("watcher"), self._free("settled")

    def _free(self, name: str) -> str:
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free


def dag_file(pipeline: str) -> str:
    """Return the name of the DAG file.

    >>> dag_file("train-classifier")
    'train-classifier.py'
    """
    return f"{dag_id(pipeline)}.py"


def xcom_key(output: str) -> str:
    """Return the XCom key of an output. It is part of URLs, and ``RETURNED`` is Airflow's own.

    >>> xcom_key("model"), xcom_key("größe")
    ('model', 'groe_d353a267')
    """
    return _id(output if output != RETURNED else f"{output} ")


def airflow_run_id(run_id: str) -> str:
    """Return the user's run id in a form that Airflow accepts.

    >>> airflow_run_id("nightly-1"), airflow_run_id("mine & yours")
    ('nightly-1', 'mine-yours-d8361812')
    """
    return run_id if _RUN_ID.fullmatch(run_id) and run_id not in (".", "..", "~") else slug(run_id, max_length=100)


def given_run_id(conf: Mapping[str, Any] | None, run_id: str) -> str:
    """Return the user's run id from the conf of a run; else Airflow's id.

    >>> given_run_id({"rows": 3, "flowyml.run_id": "mine & yours"}, "mine_yours_a3b1f7aa"), given_run_id(None, "mine")
    ('mine & yours', 'mine')
    """
    return str((conf or {}).get(RUN_ID_KEY, run_id))


def _short(name: str) -> str:
    """Return a readable part of an id. Two names may share it."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")
    return plain[:60] or "group"


def _dotted(name: str) -> str:
    """Return the id of a DAG or a task: a dot within it stays, too."""
    return name if _DOTTED.fullmatch(name) and not _ENDS_AS_OURS.search(name) else _id(name)


def _id(name: str) -> str:
    """Replace characters of an id: only letters, digits, ``_`` and ``-`` stay."""
    if _FINE.fullmatch(name) and not _ENDS_AS_OURS.search(name):
        return name
    return slug(name, separator="_", max_length=100)
