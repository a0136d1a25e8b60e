"""A step that runs an existing DAG, from any pipeline on any engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowyml.core.credentials import AUTH_OPTIONS
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.urls import checked_url, refuse_credentials

if TYPE_CHECKING:
    from flowyml.authoring.steps import Step

__all__ = ["external_dag", "run_dag"]

_VARIABLE = "FLOWYML_AIRFLOW_"


def external_dag(
    dag_id: str,
    *,
    conf: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    name: str | None = None,
    url: str | None = None,
    poll_interval: float = 5,
    patience: float = 600,
    after: Sequence[str] | str = (),
    retry: int | OrchestratorRetryPolicy | None = None,
    timeout: float | None = None,
    resources: ResourceRequirements | None = None,
    secrets: Mapping[str, str] = {},
) -> Step[..., dict[str, Any]]:
    """Return a step that triggers an existing Airflow DAG, waits for its end, and fails if the DAG's run fails.

    ``conf`` is passed to the DAG; ``inputs`` names outputs of other steps, or parameters, to add to it. The step's
    output, named like the step, has ``dag_id``, ``run_id``, ``state`` and ``url`` of the DAG's run; ``url`` is empty if
    the address of Airflow is among the step's secrets.

    However often the step is tried, one run of the pipeline starts one run of the DAG, and another only if that failed:
    the DAG's run id is made from the pipeline's. A step that is asked to stop fails the DAG's run too; one that is
    killed leaves it running.

    On Airflow, a step without ``url``, ``secrets`` and ``timeout``, and outside of loops, runs a DAG of that very
    Airflow: its task is Airflow's ``TriggerDagRunOperator``, which needs no login, and waits in the triggerer. Another
    try clears the DAG's run.

    Otherwise the worker needs only Python. On it, ``FLOWYML_AIRFLOW_URL`` is the address of Airflow, and
    ``FLOWYML_AIRFLOW_USERNAME`` and ``_PASSWORD``, or ``_TOKEN``, are the credentials, so the pipeline has none; as
    ``secrets``, they come from the engine: ``{"FLOWYML_AIRFLOW_TOKEN": "reports/password"}``. With a ``url``, they are
    sent only if they are ``secrets``, or if it equals ``FLOWYML_AIRFLOW_URL``. A paused DAG is refused, since its run
    would wait forever; so is a DAG before its start date or after its end date, since its run would have no tasks.
    ``poll_interval`` is in seconds, as is ``patience``, the time for which Airflow may not answer. Raises
    ``ConfigurationError`` for a ``url`` with credentials.

    >>> from flowyml import Pipeline
    >>> report = external_dag("nightly_report", conf={"day": "monday"})
    >>> Pipeline("week").add_step(report).compile().steps[0].outputs
    ('nightly_report',)
    """
    from flowyml import step

    _refuse_credentials("external_dag", dag_id, url)
    login = tuple(name for name in secrets if name.removeprefix(_VARIABLE).lower() in AUTH_OPTIONS)
    here = {"trigger_dag_id": dag_id, "conf": dict(conf or {}), "poke_interval": poll_interval}
    decorate: Callable[..., Any] = step(
        name=name or dag_id, inputs=list(inputs), outputs=[name or dag_id], after=after, retry=retry, timeout=timeout,
        resources=resources, secrets=secrets, airflow={} if url else {"external_dag": here},
        description=f"Runs the Airflow DAG {dag_id}, waits for it and fails with it.",
    )  # fmt: skip
    waiting: Step[..., dict[str, Any]] = decorate(
        _waiting(dag_id, dict(conf or {}), url, poll_interval, patience, login)
    )
    return waiting


def run_dag(
    dag_id: str,
    conf: Mapping[str, Any] | None = None,
    *,
    url: str | None = None,
    poll_interval: float = 5,
    patience: float = 600,
) -> dict[str, Any]:
    """Trigger an existing Airflow DAG from within a step, wait for its end, and fail if the DAG's run fails.

    Like ``external_dag``, for a ``conf`` that the step computes; ``conf`` is plain JSON. Call it once for each step and
    DAG: a second call with the same ``conf`` waits for the run of the first. Returns ``dag_id``, ``run_id``, ``state``
    and ``url`` of the DAG's run. Raises ``RuntimeError`` if that run fails or the DAG is paused, and
    ``ConfigurationError`` for a ``url`` with credentials.
    """
    from flowyml_airflow.external_run import External

    _refuse_credentials("run_dag", dag_id, url)
    return External(dag_id, dict(conf or {}), url, poll_interval, patience).run({})


def _refuse_credentials(function: str, dag_id: str, url: str | None) -> None:
    if url is not None:
        refuse_credentials(
            checked_url(url), f"{function}({dag_id!r}, url=…)",
            "Give FLOWYML_AIRFLOW_USERNAME and _PASSWORD, or _TOKEN, as secrets, or set them on the workers.",
        )  # fmt: skip


def _waiting(
    dag_id: str, conf: dict[str, Any], url: str | None, poll_interval: float, patience: float, login: tuple[str, ...]
) -> Callable[..., dict[str, Any]]:
    """Return the function of the step. It is pickled by value, and the bundle contains the package that it uses."""

    def run_external_dag(**inputs: Any) -> dict[str, Any]:
        from flowyml_airflow.external_run import External

        return External(dag_id, conf, url, poll_interval, patience, login).run(inputs)

    return run_external_dag
