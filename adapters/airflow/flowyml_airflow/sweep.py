"""Old bundles go once nothing can need them: no DAG file, no task, no version that Airflow may still be reading."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from flowyml.plan.names import slug
from flowyml_airflow.client import AirflowClient
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import BUNDLES_FOLDER, dag_id, development_id

__all__ = ["remove_old_bundles"]


def remove_old_bundles(folder: Folder, client: AirflowClient, pipeline: str, keep: Collection[str]) -> Sequence[str]:
    """Remove a pipeline's bundles, except those that a DAG file names and those to ``keep``; gives what was removed.

    ``keep`` holds the bundle that was just deployed and the one before it, which a task that is starting or a callback
    of a run that has just ended may be loading. While a run of the pipeline is under way nothing is removed: its tasks
    may have begun with any version.
    """
    ours = re.compile(rf"{re.escape(slug(pipeline))}-[0-9a-f]{{8}}\.pyz")
    old = [name for name in folder.names(BUNDLES_FOLDER) if ours.fullmatch(name) and name not in keep]
    if not old or client.is_busy([dag_id(pipeline), development_id(pipeline)]):
        return ()
    sources = folder.read_all([name for name in folder.names() if name.endswith(".py")])
    gone = [name for name in old if not any(name.encode() in data for data in sources)]
    for name in gone:
        folder.remove(f"{BUNDLES_FOLDER}/{name}")
    return gone
