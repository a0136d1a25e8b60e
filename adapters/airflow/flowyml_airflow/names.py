"""FlowyML's names as Airflow's: stable, within Airflow's rules, and never the same for two.

A name that is a fine id stays as it is. Any other becomes one, and is shown as the display name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowyml.plan.names import slug

__all__ = [
    "BUNDLES_FOLDER", "RUN_ID_KEY", "START_TASK", "dag_file", "dag_id", "given_run_id", "parameters_of", "task_id",
    "xcom_key",
]  # fmt: skip

# Beside the DAG files. Airflow takes any zip file for a DAG file, unless an `.airflowignore` says otherwise.
BUNDLES_FOLDER = "flowyml_bundles"
# The task that fires `on_pipeline_start`; a step of this name gets another id.
START_TASK = "on_pipeline_start"
# Airflow takes few characters in a run id; the run's conf holds the one that the user gave. No parameter has a dot.
RUN_ID_KEY = "flowyml.run_id"

_FINE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_ENDS_IN_DIGEST = re.compile(r"(^|[_-])[0-9a-f]{8}$")


def dag_id(pipeline: str) -> str:
    """The id of a pipeline's DAG.

    >>> dag_id("train-classifier"), dag_id("Train/Model ü")
    ('train-classifier', 'train_model_u_b0ce1989')
    """
    return _id(pipeline)


def task_id(step: str) -> str:
    """The id of a step's task. It has no dot, which in Airflow parts a task from its group.

    >>> task_id("Load"), task_id("v1.load")
    ('Load', 'v1_load_0c0a2722')
    """
    return _id(step if step != START_TASK else f"{step} ")


def dag_file(pipeline: str) -> str:
    """The name of the DAG file.

    >>> dag_file("train-classifier")
    'train-classifier.py'
    """
    return f"{dag_id(pipeline)}.py"


def xcom_key(output: str) -> str:
    """The XCom key of an output. It stands in URLs, and ``return_value`` is Airflow's own.

    >>> xcom_key("model"), xcom_key("größe")
    ('model', 'groe_d353a267')
    """
    return _id(output if output != "return_value" else f"{output} ")


def given_run_id(conf: Mapping[str, Any] | None, run_id: str) -> str:
    """The run id that the user gave.

    >>> given_run_id({"rows": 3, "flowyml.run_id": "mine & yours"}, "mine_yours_a3b1f7aa"), given_run_id(None, "mine")
    ('mine & yours', 'mine')
    """
    return str((conf or {}).get(RUN_ID_KEY, run_id))


def parameters_of(conf: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of the pipeline in the conf of a run, or among the params of a task.

    >>> parameters_of({"rows": 3, "flowyml.run_id": "mine & yours"})
    {'rows': 3}
    """
    return {name: value for name, value in (conf or {}).items() if name != RUN_ID_KEY}


def _id(name: str) -> str:
    """Letters, digits, ``_`` and ``-``; Airflow would take dots as well."""
    if _FINE.fullmatch(name) and not _ENDS_IN_DIGEST.search(name):
        return name
    return slug(name, separator="_", max_length=100)
