"""Airflow as an orchestrator of FlowyML."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.core.credentials import AuthLike
from flowyml.core.errors import ConfigurationError, EngineError, FlowymlError, RetryRefusedError, ScheduleError
from flowyml.core.following import command_on
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import Run
from flowyml.core.submission_result import SubmissionResult
from flowyml.core.tls import Tls
from flowyml.orchestrators.base import Health, Orchestrator
from flowyml.orchestrators.handover import ForeignSchedule
from flowyml.orchestrators.http import is_this_machine
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.orchestrators.scheduler import declared_schedule
from flowyml.orchestrators.submission import new_run_id, submit_once
from flowyml.orchestrators.workflows import Workflow
from flowyml.runtime.execution import TAKEN_FILE
from flowyml_airflow.backfills import backfill
from flowyml_airflow.cancelling import cancel
from flowyml_airflow.capabilities import CAPABILITIES
from flowyml_airflow.client import AirflowClient, ConflictError, NotThereError
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.compiler import CompiledDag
from flowyml_airflow.connection import Connection
from flowyml_airflow.deployed_dag import Deployed, check_runnable, facts_of, has_schedule, schedule_of
from flowyml_airflow.deployer import AirflowDeployer
from flowyml_airflow.folder import open_folder
from flowyml_airflow.handover import DagSchedule, runs_by_time, workflows
from flowyml_airflow.names import (
    CODE_KEY,
    REVISION_KEY,
    RUN_ID_KEY,
    TAKES_KEY,
    airflow_run_id,
    dag_id,
    development_id,
)
from flowyml_airflow.parameters import check_carried, conf_of
from flowyml_airflow.pruning import prunable
from flowyml_airflow.reader import AirflowReader
from flowyml_airflow.retrying import ended_run, run_again
from flowyml_airflow.scheduler import AirflowScheduler
from flowyml_airflow.secrets import place_of
from flowyml_airflow.stalled import RunWarnings
from flowyml_airflow.transport import Transport

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

    from flowyml.core.pruning import Bounds, Prunable
    from flowyml.orchestrators.new_code import EndedRun
    from flowyml.orchestrators.probe import Site
    from flowyml.plan.bundle import Bundle

__all__ = ["AirflowOrchestrator"]


class AirflowOrchestrator(Orchestrator):
    """Runs pipelines as Airflow DAGs, on Airflow 3, and on 2.11 as far as its API allows.

    ``url`` is the address of Airflow's UI, by default ``FLOWYML_AIRFLOW_URL``. ``auth`` is ``(username, password)``, a
    token, or an ``Auth``, by default that of ``FLOWYML_AIRFLOW_USERNAME``, ``_PASSWORD``, ``_TOKEN`` and so on, which
    are sent only to ``FLOWYML_AIRFLOW_URL``. ``tls`` says whom TLS trusts. ``timeout`` is how long one call may wait
    for Airflow, in seconds. ``dags_folder`` is the folder that Airflow reads its DAGs from, as a path or an fsspec URL;
    runs of what is already deployed do not need it.

    ``python`` is the interpreter on the workers that runs the steps, by default Airflow's own. ``artifacts`` is the
    store of large outputs, which this machine must reach too; ``artifact_links`` is the address of an output for a
    browser, with ``{key}`` in it. A run unpauses a DAG that has been paused since Airflow made it. ``unpause=True``
    also unpauses one that was paused on purpose, or has a schedule, which then fires again; ``unpause=False`` refuses
    every paused DAG. ``deploy_timeout`` is how long a deployment waits until Airflow has parsed the file, by default as
    long as Airflow's settings let that take, in seconds. ``retry_policy`` retries failed steps, and calls to an Airflow
    that does not answer. Steps that only count retries wait ``retry_delay`` seconds before each, and no step waits less
    than ``least_retry_delay``.
    """

    name = "airflow"
    capabilities = CAPABILITIES
    engine_package = "httpx"
    extra = "airflow"

    def __init__(
        self,
        url: str | None = None,
        *,
        auth: AuthLike | None = None,
        tls: Tls | None = None,
        timeout: float = 30,
        dags_folder: str | os.PathLike[str] | None = None,
        python: str | None = None,
        artifacts: str | None = None,
        artifact_links: str | None = None,
        unpause: bool | None = None,
        deploy_timeout: float | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
        retry_delay: float = 0,
        least_retry_delay: float = 0,
        secrets: Mapping[str, str] = {},
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        for name, seconds in (("retry_delay", retry_delay), ("least_retry_delay", least_retry_delay)):
            if not 0 <= seconds < float("inf"):
                raise ConfigurationError(f"{name}={seconds!r} must be seconds, 0 or more.")
        self.retry_delay, self.least_retry_delay = retry_delay, least_retry_delay
        self.connection = Connection.to(url, auth, tls)
        self.auth = self.connection.auth
        self.unpause = unpause
        self._transport = Transport(self.connection, timeout=timeout, policy=retry_policy)
        place = dags_folder or os.environ.get("FLOWYML_AIRFLOW_DAGS_FOLDER")
        self._deployer = AirflowDeployer(
            lambda: self.client, open_folder(place), deploy_timeout, python, artifacts, artifact_links
        )
        self._client: AirflowClient | None = None
        self._about_dags: dict[Any, Any] = {}
        self._warnings = RunWarnings()
        self._lock = threading.Lock()

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """Recognize Airflow by its version page, which needs no login."""
        return any("git_version" in (site.get(f"/api/{v}/version").json() or ()) for v in ("v2", "v1"))

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        return self._deployer.compiled(bundle, declared_schedule(bundle.plan)).files

    @property
    def client(self) -> AirflowClient:
        """The client for the major version of this Airflow. Raises ``EngineUnreachableError``."""
        with self._lock:
            if self._client is None:
                self._client = _client(self._transport)
                self._client.command = partial(command_on, self)
                self._client.dags_folder = self._deployer.folder.name if self._deployer.folder else ""
            return self._client

    def api_client(self) -> ApiClient:
        """Return Airflow's own Python client, signed in, for what FlowyML lacks: pools, variables, connections, …

        ``apache-airflow-client`` documents it. Its token is new and expires as Airflow's settings say, by default after
        a day: call this again then. Raises ``UnsupportedFeatureError`` on Airflow 2.
        """
        return self.client.api_client()

    @property
    def artifact_place(self) -> str | None:
        """The store of outputs on the workers; None for their default."""
        return self._deployer.artifacts

    @property
    def has_default_store(self) -> bool:
        """True if ``FLOWYML_ARTIFACTS`` names a store here: workers of an Airflow elsewhere have their own default."""
        return bool(os.environ.get("FLOWYML_ARTIFACTS")) or is_this_machine(self.connection.url)

    @property
    def reader(self) -> AirflowReader:
        """A reader of runs, which remembers for one call what it has read."""
        return AirflowReader(self.client, self._deployer.artifacts, self._about_dags, warnings=self._warnings)

    @property
    def deployer(self) -> AirflowDeployer:
        """Deploys to this Airflow."""
        return self._deployer

    @property
    def scheduler(self) -> AirflowScheduler:
        """Schedules on this Airflow."""
        return AirflowScheduler(self._deployer)

    # Housekeeping.

    def prunable(self, bounds: Bounds) -> Iterator[Prunable]:
        """Yield the bundles in the DAGs folder. Raises ``ConfigurationError`` without a DAGs folder."""
        yield from prunable(self._deployer.folder, lambda: self.client, bounds)
        yield from super().prunable(bounds)

    # Runs.

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        """Run the pipeline's DAG; deploy it first if it has no schedule.

        Only a deployment changes the DAG of a schedule. Code that is not deployed runs as a DAG of its own. So does
        deployed code, if Airflow would give the run no tasks before the schedule starts or after its end.
        """
        check_carried(parameters, self.client.integers)
        dag_run_id = airflow_run_id(run_id)

        def find() -> Run | None:
            for dag in (dag_id(bundle.plan.name), development_id(bundle.plan.name)):
                with suppress(NotThereError):
                    return self.reader.identified(self.client.run(dag, dag_run_id))
            return None

        def create() -> str | None:
            compiled, deployed = self._to_run(bundle, force)
            if deployed:
                deployed.check_has_tasks()
            check_runnable(deployed, run_id, True if force else self.unpause)
            if self._deployer.write(compiled, deployed, force=force) or deployed is None:
                deployed = self._deployer.existing(compiled.dag_id)
            deployed = self._deployer.shown(deployed, compiled.structure)
            if deployed.dag["is_paused"]:
                self.client.pause(compiled.dag_id, False)
            conf = {**conf_of(parameters), CODE_KEY: bundle.code_digest}
            if dag_run_id != run_id:
                conf[RUN_ID_KEY] = run_id
            if bundle.revision:
                conf[REVISION_KEY] = bundle.revision
            if TAKEN_FILE in bundle.files:
                conf[TAKES_KEY] = "yes"
            try:
                self.client.trigger(compiled.dag_id, dag_run_id, conf, is_dated=deployed.needs_date)
            except ConflictError:
                return None
            return f"{compiled.dag_id}/{dag_run_id}"

        return submit_once(bundle, run_id, parameters, find=find, create=create)

    def _to_run(self, bundle: Bundle, force: bool) -> tuple[CompiledDag, Deployed | None]:
        """Return the DAG for a run of this bundle: as it must be, and as it is in Airflow."""
        own = self._deployer.found(dag_id(bundle.plan.name))
        compiled = self._deployer.kept(bundle, own)
        scheduled = (own and has_schedule(own.dag)) or schedule_of(facts_of(compiled.text))
        if not scheduled or (self._deployer.is_there(compiled, own) and self._has_tasks(own)):
            return compiled, own
        if own:
            check_replaceable(own.origin, bundle.origin, f"the DAG {compiled.dag_id!r}", force=force)
        compiled = self._deployer.compiled(bundle, None, development=True)
        return compiled, self._deployer.found(compiled.dag_id)

    def _has_tasks(self, own: Deployed | None) -> bool:
        """Return True if a run that is started now has tasks, or if FlowyML cannot write another DAG for it."""
        with suppress(ScheduleError):
            if own and self._deployer.folder:
                own.check_has_tasks()
            return True
        return False

    def cancel(self, job_id: str) -> bool:
        """Cancel a run: Airflow marks it as failed, and a note says that it was cancelled.

        The workers stop the tasks at their next heartbeat; until then the run is RUNNING.
        """
        return cancel(self.client, self.reader.fetch(job_id))

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        """Return the references that Airflow's database lacks.

        Its API reads neither secrets backends nor the workers' environment.
        """
        places = {reference: place_of(reference) for reference in references}
        return {
            reference: f"{reference}: Airflow's database has no {place}. A secrets backend may have it."
            for reference, place in places.items()
            if not (self.client.has_connection(place.name) if place.field else self.client.has_variable(place.name))
        }

    def health(self) -> Health:
        try:
            client = self.client
            parts = client.health()
        except FlowymlError as error:
            return Health(reachable=False, url=self.connection.url, detail=str(error))
        ill = [f"{name} is {word}" for name, word in parts.items() if word != "healthy"]
        return Health(
            reachable=True, version=client.version, url=self.connection.url, detail="; ".join(ill), facts=parts
        )

    def foreign_schedule(self, name: str) -> ForeignSchedule:
        return DagSchedule(self.client, name, self.reader)

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> Mapping[datetime, Run]:
        return runs_by_time(self.reader, self.client.runs([dag_id(pipeline)], limit))

    def workflows(self, *, last: int = 25) -> list[Workflow]:
        return workflows(self.client, last)

    # Any DAG, FlowyML's own or not.

    def trigger(
        self, name: str, run_id: str | None = None, *, parameters: Mapping[str, Any] | None = None
    ) -> SubmissionResult:
        """Start a run of a deployed pipeline, or of any DAG by its id. The same run id returns the same run.

        Raises ``RunNotFoundError``, ``ParameterError``, and ``OwnershipError`` for a DAG that was paused on purpose.
        """
        deployed, parameters = self._shown(name), parameters or {}
        deployed.check_parameters(parameters)
        conf = conf_of(parameters) if deployed.is_ours else dict(parameters)
        run_id = run_id or new_run_id(deployed.facts.get("pipeline", name))
        dag, dag_run_id = deployed.dag["dag_id"], airflow_run_id(run_id)
        deployed.check_has_tasks()
        check_runnable(deployed, run_id, self.unpause)
        if deployed.dag["is_paused"]:
            self.client.pause(dag, False)
        if dag_run_id != run_id:
            conf[RUN_ID_KEY] = run_id
        with suppress(ConflictError):
            self.client.trigger(dag, dag_run_id, conf, is_dated=deployed.needs_date)
        return self.attach(f"{dag}/{dag_run_id}")

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        """Clear tasks, as in Airflow's UI. On 2.11, instead of one item of a loop, all failed items are cleared."""
        run_again(self.reader, self._deployer, job_id, steps)

    def bundle_of(self, job_id: str) -> Bundle:
        """Return the bundle in ``dags_folder``, until a deployment replaces it."""
        reader = self.reader
        dag_run = reader.fetch(job_id)
        return self._deployer.bundle_of_run(reader.dags.facts(dag_run), reader.identified(dag_run))

    def ended_run(self, job_id: str) -> EndedRun:
        return ended_run(self.reader, self.bundle_of(job_id), job_id)

    def clear(self, job_id: str, *, failed_only: bool = True) -> None:
        """Run the tasks of a run again: those that failed and those that waited for them, or all.

        They run the DAG's code of now, even if the run was submitted with other code. Raises ``RunNotFoundError``, and
        ``RetryRefusedError`` if there is nothing to run again.
        """
        dag_run = self.reader.fetch(job_id)
        if not self.client.clear(dag_run["dag_id"], dag_run["dag_run_id"], failed_only):
            raise RetryRefusedError(
                f"Run {job_id!r} has no {'failed tasks' if failed_only else 'tasks'} to run again."
                + (" failed_only=False, or --all, runs all of them." if failed_only else "")
            )

    def backfill(
        self,
        name: str,
        start: date,
        end: date,
        *,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[SubmissionResult]:
        """Run what a pipeline with a schedule, or any DAG, has missed in a date range, by Airflow's own backfill.

        ``start`` and ``end`` are both included: a date is its whole day in the time zone of the schedule, a
        ``datetime`` that moment, in UTC if it has no time zone. ``options`` are those of Airflow's API:
        ``run_backwards``, ``reprocess_behavior``, ``max_active_runs``. Returns the runs that were created; none, with a
        warning in the log, if all exist. Raises ``ScheduleError`` for a range without a time of the schedule,
        ``ParameterError`` for a parameter that the pipeline does not have, and ``UnsupportedFeatureError`` on Airflow
        2.
        """
        reader = self.reader
        dag_runs = backfill(self._shown(name), start, end, parameters or {}, **options)
        runs = [reader.record(run, whole=False) for run in dag_runs]
        return [SubmissionResult(self, run.job_id, run=run) for run in runs]

    def _shown(self, name: str) -> Deployed:
        """Return the DAG of a pipeline, or the DAG of this id, once Airflow shows its file's structure."""
        deployed = self._deployer.dag_of(name)
        return self._deployer.shown(deployed, deployed.structure)

    def __repr__(self) -> str:
        return f"<AirflowOrchestrator {self.connection.url}>"


def _client(transport: Transport) -> AirflowClient:
    """Return the client for Airflow 3 or 2, by the version page."""
    for kind in (AirflowClient, Airflow2Client):
        try:
            version = transport.call("GET", f"{kind.api}/version", anonymous=True)
        except NotThereError:
            continue
        if isinstance(version, dict) and "version" in version:
            return kind(transport, str(version["version"]))
    raise EngineError(f"{transport.connection.url} responds, but is not Airflow. Is the URL right?")
