"""Checks that a DAG that was paused on purpose stays paused."""

from __future__ import annotations

from flowyml.core.errors import OwnershipError
from flowyml_airflow.deployed_dag import Deployed, has_schedule

__all__ = ["check_resumable", "check_runnable"]


def check_resumable(found: Deployed) -> None:
    """Refuse to schedule a DAG that was paused by hand: scheduling it would resume it."""
    dag, client = found.dag["dag_id"], found.client
    if not found.dag["is_paused"] or client.pause_we_set(dag) or not client.was_paused_by_hand(dag):
        return
    raise OwnershipError(
        f"DAG {dag!r} was paused in Airflow, and not by FlowyML; scheduling it would resume it. Resume it first, "
        f"in Airflow or by `{client.command('schedule resume', dag)}`, or use --force (force=True)."
    )


def check_runnable(found: Deployed | None, run_id: str, unpause: bool | None) -> None:
    """Refuse a DAG that was paused on purpose, since the run would stay queued; ``unpause`` is the user's choice.

    A DAG that has been paused since Airflow created it is unpaused by its first run, unless ``unpause`` is False.
    """
    if found is None or not found.dag["is_paused"] or unpause:
        return
    dag, client = found.dag["dag_id"], found.client
    if unpause is False:
        why = " and unpause=False"
    elif has_schedule(found.dag):
        why = ", and resuming it would start its schedule again"
    elif client.was_paused_by_hand(dag) and client.dag(dag)["is_paused"]:  # or another run has resumed it
        why = " on purpose, since it was paused after Airflow made it"
    else:
        return
    raise OwnershipError(
        f"DAG {dag!r} is paused{why}: run {run_id!r} would stay queued. Resume it in Airflow, or by "
        f"`{client.command('schedule resume', dag)}` if it has a schedule. To let this run resume it: --force, "
        f"force=True, or AirflowOrchestrator(unpause=True)."
    )
