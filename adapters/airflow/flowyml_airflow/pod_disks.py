"""Refuse values that only the disk of a pod has: it goes with the pod, and no other task can read it.

This file travels in the bundle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flowyml.artifacts import is_reference
from flowyml.core.errors import StepFailedError

__all__ = ["check_outlives_pod"]

_IN_POD = "AIRFLOW_IS_K8S_EXECUTOR_POD"  # set by the KubernetesExecutor; source: its PodGenerator


def check_outlives_pod(step: str, outputs: Mapping[str, Any], artifacts: str | None) -> None:
    """Raise ``StepFailedError`` for an output that a pod keeps in the default store, on its own disk.

    Another try would keep it there, too, so it counts as Airflow's ``AirflowFailException``.
    """
    if not os.environ.get(_IN_POD) or artifacts or os.environ.get("FLOWYML_ARTIFACTS"):
        return
    for name, packed in outputs.items():
        if is_reference(packed):
            error = StepFailedError(
                f"step {step!r}: output {name!r} is not plain JSON of up to 64 KiB, so it is stored, and the store is "
                f"a folder of this pod, which ends with it. Give a store that all pods reach: airflow={{'artifacts': "
                f"'s3://…'}} for the pipeline, artifacts for the target, or FLOWYML_ARTIFACTS in the pods."
            )
            error.names = ("AirflowFailException",)
            raise error
