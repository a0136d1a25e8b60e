"""Airflow as an orchestrator of FlowyML."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import EngineError, FlowymlError, RunNotFoundError, ScheduleNotFoundError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.core.submission_result import SubmissionResult
from flowyml.core.tls import ClientCertificate, Tls
from flowyml.orchestrators.base import Deployment, Health, Orchestrator, check_same_run
from flowyml.plan.names import slug
from flowyml_airflow.capabilities import CAPABILITIES
from flowyml_airflow.client import AirflowClient, usable_id
from flowyml_airflow.client_v1 import Airflow2Client
from flowyml_airflow.compiler import TAG
from flowyml_airflow.connection import Connection
from flowyml_airflow.deploy import Deployed, Deployer, has_schedule
from flowyml_airflow.folder import open_folder
from flowyml_airflow.names import RUN_ID_KEY, dag_id
from flowyml_airflow.reading import RunReader
from flowyml_airflow.schedule import info, since
from flowyml_airflow.status import DAG_RUN, cancelled_note, was_cancelled
from flowyml_airflow.transport import ConflictError, NotThereError, Transport

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

    from flowyml.orchestrators.probe import Site
    from flowyml.plan.bundle import Bundle

__all__ = ["AirflowOrchestrator"]

# Airflow's default of [scheduler] allowed_run_id_pattern; and what begins like the ids that Airflow makes itself, it
# refuses. Source: airflow.utils.types.DagRunType, of 3 and 2.
_RUN_ID = re.compile(
    r"(?!.*\.\.)(?!(?:scheduled|backfill|operator_triggered|asset_triggered|asset_materialization|dataset_triggered)__)"
    r"[A-Za-z0-9_.~:+-]{1,200}"
)


class AirflowOrchestrator(Orchestrator):
    """Runs pipelines as Airflow DAGs, on Airflow 3, and on 2.11 with what its API can do.

    ``url`` is that of Airflow's UI, by default ``FLOWYML_AIRFLOW_URL``. Credentials are a user name and a password, or
    a token, by default ``FLOWYML_AIRFLOW_USERNAME``, ``_PASSWORD`` and ``_TOKEN``, which are sent to
    ``FLOWYML_AIRFLOW_URL`` alone. ``password_file`` and ``token_file`` name a file that holds one, ``password_command``
    and ``token_command`` a command that prints one; both are read again when Airflow refuses it. ``dags_folder`` is the
    folder that Airflow reads its DAGs from, as a path or an fsspec URL; runs of what is deployed already need none.

    ``python`` is the interpreter on the workers that runs the steps, by default Airflow's own. ``artifacts`` is where
    large outputs go, which this machine must reach too. ``unpause`` lets a run unpause its DAG; one whose schedule is
    paused only when it is True, since the schedule then fires again; with False every paused DAG is refused.
    ``deploy_timeout`` is how long a deployment waits until Airflow has parsed the file, ``timeout`` how long one call
    may wait for Airflow, both in seconds. ``ca_file`` is a file with the authorities to trust for TLS, ``client_cert``
    a file with a certificate and its key, or the two files; with ``verify=False`` everybody is trusted.
    ``retry_policy`` retries failed steps, and calls to an Airflow that does not answer.
    """

    name = "airflow"
    capabilities = CAPABILITIES
    engine_package = "httpx"
    extra = "airflow"

    def __init__(
        self,
        url: str | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
        password_command: str | Sequence[str] | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token_command: str | Sequence[str] | None = None,
        dags_folder: str | os.PathLike[str] | None = None,
        python: str | None = None,
        artifacts: str | None = None,
        unpause: bool | None = None,
        deploy_timeout: float = 60,
        timeout: float = 30,
        verify: bool | str = True,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: ClientCertificate | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
    ) -> None:
        super().__init__(retry_policy=retry_policy)
        self.connection = Connection.to(
            url, Tls.of(verify, ca_file, client_cert), username=username,
            password=password, password_file=password_file, password_command=password_command,
            token=token, token_file=token_file, token_command=token_command,
        )  # fmt: skip
        self.login = self.connection.login
        self.unpause = unpause
        self._transport = Transport(self.connection, timeout=timeout, policy=retry_policy)
        place = dags_folder or os.environ.get("FLOWYML_AIRFLOW_DAGS_FOLDER")
        self._deployer = Deployer(lambda: self.client, open_folder(place), deploy_timeout, python, artifacts)
        self._client: AirflowClient | None = None
        self._about_dags: dict[Any, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """By the version page, which Airflow shows to everybody."""
        return any("git_version" in (site.get(f"/api/{v}/version").json() or ()) for v in ("v2", "v1"))

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        return self._deployer.compiled(bundle, None).files

    @property
    def client(self) -> AirflowClient:
        """The client for the major version that answers. Raises ``EngineUnreachableError``."""
        with self._lock:
            if self._client is None:
                self._client = _client(self._transport)
                self._client.dags_folder = self._deployer.folder.name if self._deployer.folder else ""
            return self._client

    def api_client(self) -> ApiClient:
        """Airflow's own Python client, signed in, for what FlowyML does not cover: pools, variables, connections, …

        ``apache-airflow-client`` documents it. Its token is new, and ends when Airflow's settings say so, by default
        after a day: ask for another client then. Raises ``UnsupportedFeatureError`` on Airflow 2.
        """
        return self.client.api_client()

    @property
    def _reader(self) -> RunReader:
        return RunReader(self.client, self._deployer.artifacts, self._about_dags)

    # Runs.

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        dag, dag_run_id = dag_id(bundle.plan.name), _airflow_run_id(run_id)
        given = {} if dag_run_id == run_id else {RUN_ID_KEY: run_id}
        found = self._deployer.found(dag)
        compiled = self._deployer.kept(bundle, found)
        if self._deployer.deploy(compiled, found, force=True) or found is None:
            found = self._found(dag)
        if found.dag["is_paused"] and self._is_there(dag, dag_run_id, parameters):
            return f"{dag}/{dag_run_id}"
        self._make_runnable(found, run_id)
        try:
            self.client.trigger(dag, dag_run_id, {**parameters, **given})
        except ConflictError:
            self._is_there(dag, dag_run_id, parameters)
        return f"{dag}/{dag_run_id}"

    def get_run(self, job_id: str) -> Run:
        return self._reader.run(self._run(job_id))

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        """Runs of a pipeline, or of a DAG by its id, or of all DAGs; foreign ones too."""
        dags = None if pipeline is None else sorted({dag_id(pipeline), pipeline})
        reader = self._reader
        return [reader.run(found, whole=False) for found in self.client.runs(dags, limit)]

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return self._reader.steps(self._run(job_id))

    def outputs(self, job_id: str) -> Outputs:
        return self._reader.outputs(self._run(job_id))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        return self._reader.logs(self._run(job_id), follow=follow)

    def cancel(self, job_id: str) -> bool:
        """Airflow marks the run as failed, and a note on it tells that it was cancelled.

        Its workers stop the tasks at their next heartbeat; until then the run is RUNNING.
        """
        found = self._run(job_id)
        if DAG_RUN.get(found["state"]) is None or DAG_RUN[found["state"]].is_terminal:
            return False
        dag, run_id = found["dag_id"], found["dag_run_id"]
        failed = [task["task_id"] for task in self.client.task_instances(dag, run_id) if task["state"] == "failed"]
        self.client.note(dag, run_id, cancelled_note(found, failed))
        ended = self.client.fail(dag, run_id)
        if not was_cancelled(ended):  # Airflow 2 tells no `queued_at`, and the run has started meanwhile
            self.client.note(dag, run_id, cancelled_note(ended, failed))
        return True

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

    # Deployments and schedules.

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        """Write the DAG file and its bundle, and wait until Airflow has parsed them; a schedule stays as it is."""
        found = self._deployer.found(dag_id(bundle.plan.name))
        compiled = self._deployer.kept(bundle, found)
        changed = self._deployer.deploy(compiled, found, force=True)
        return Deployment(
            name=bundle.plan.name, digest=compiled.version, changed=changed, url=self.client.dag_url(compiled.dag_id)
        )

    def diff(self, bundle: Bundle) -> str:
        found = self._deployer.found(dag_id(bundle.plan.name))
        return self._deployer.diff(self._deployer.kept(bundle, found), found)

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        found = self._deployer.found(dag_id(bundle.plan.name))
        wanted = since(schedule, found.schedule if found else None)
        compiled = self._deployer.compiled(bundle, wanted)
        self._deployer.deploy(compiled, found, force=True)
        self.client.pause(compiled.dag_id, False)
        return self._info(compiled.dag_id)

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        client = self.client
        if pipeline is not None:
            one = self._deployer.found(dag_id(pipeline))
            found = [one] if one else []
        else:
            found = [Deployed(dag, client) for dag in client.dags(TAG) if has_schedule(dag)]
        return [made for item in found if (made := info(item, self._deployer.folder))]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._info(schedule_id)
        self.client.pause(schedule_id, True)
        return self._info(schedule_id)

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        self._info(schedule_id)
        self.client.pause(schedule_id, False)
        return self._info(schedule_id)

    def delete_schedule(self, schedule_id: str) -> None:
        """Deploy the DAG again without a schedule. The DAG, its runs, and all else in its file stay."""
        self._info(schedule_id)
        found = self._found(schedule_id)
        facts = found.facts
        deployer = replace(self._deployer, python=facts.get("python"), artifacts=facts.get("artifacts"))
        deployer.deploy(deployer.compiled(deployer.deployed_bundle(found), None), found, force=True)

    def backfill(
        self,
        pipeline: str,
        start: datetime,
        end: datetime,
        *,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[SubmissionResult]:
        """The runs of a date range that a scheduled pipeline, or any DAG, has missed, by Airflow's own backfill.

        ``start`` and ``end`` are both included; those without a time zone are in UTC. ``options`` are those of
        Airflow's API: ``run_backwards``, ``reprocess_behavior``, ``max_active_runs``.
        """
        client, dag, dates = self.client, self._dag_of(pipeline), (_aware(start), _aware(end))
        before = {_identity(run) for run in client.runs([dag], None, dates)} if client.can_backfill else set()
        number = client.backfill(dag, *dates, parameters or {}, **options)
        made = [
            run
            for run in client.runs([dag], None, dates)
            if run.get("run_type") == "backfill" and _identity(run) not in before
        ]
        if not made:
            raise EngineError(
                f"Backfill {number} of {dag!r} made no run: its schedule has no time in that range, or each of them "
                f"has its run. reprocess_behavior='failed' or 'completed' runs those again."
            )
        reader = self._reader
        return [SubmissionResult(self, f"{dag}/{run['dag_run_id']}", run=reader.run(run, whole=False)) for run in made]

    def _dag_of(self, pipeline: str) -> str:
        for candidate in (dag_id(pipeline), pipeline):
            if usable_id(candidate) and self._deployer.found(candidate):
                return candidate
        raise RunNotFoundError(f"Airflow at {self.connection.url} has no DAG of {pipeline!r}. Deploy it first.")

    def _make_runnable(self, found: Deployed, run_id: str) -> None:
        """The run of a paused DAG would stay queued."""
        if not found.dag["is_paused"]:
            return
        scheduled = has_schedule(found.dag)
        if self.unpause is False or (self.unpause is None and scheduled):
            why = "and its schedule would fire again if it were not" if scheduled else "and unpause=False"
            raise EngineError(
                f"DAG {found.dag['dag_id']!r} is paused {why}: run {run_id!r} would stay queued. Resume it, or give "
                f"AirflowOrchestrator(unpause=True)."
            )
        self.client.pause(found.dag["dag_id"], False)

    def _is_there(self, dag: str, dag_run_id: str, parameters: Mapping[str, Any]) -> bool:
        """Whether the same run was submitted before; other parameters are worth a warning."""
        try:
            found = self._reader.run(self.client.run(dag, dag_run_id), whole=False)
        except NotThereError:
            return False
        check_same_run(found, found.pipeline, parameters)  # the run ids of a DAG are those of one pipeline
        return True

    def _run(self, job_id: str) -> dict[str, Any]:
        dag, _, run_id = job_id.partition("/")
        if usable_id(dag) and usable_id(run_id):
            try:
                return self.client.run(dag, run_id)
            except NotThereError:
                pass
        raise RunNotFoundError(f"Airflow at {self.connection.url} knows no run {job_id!r}. Job ids read DAG_ID/RUN_ID.")

    def _found(self, dag: str) -> Deployed:
        found = self._deployer.found(dag) if usable_id(dag) else None
        if found is None:
            raise EngineError(f"Airflow at {self.connection.url} has no DAG {dag!r}.")
        return found

    def _info(self, schedule_id: str) -> ScheduleInfo:
        found = self._deployer.found(schedule_id) if usable_id(schedule_id) else None
        made = info(found, self._deployer.folder) if found else None
        if made is None:
            raise ScheduleNotFoundError(
                f"Airflow at {self.connection.url} keeps no schedule {schedule_id!r} of FlowyML. "
                "See `flowyml schedule list`."
            )
        return made

    def __repr__(self) -> str:
        return f"<AirflowOrchestrator {self.connection.url}>"


def _client(transport: Transport) -> AirflowClient:
    """Airflow 3 or 2, by the version page."""
    for kind in (AirflowClient, Airflow2Client):
        try:
            version = transport.call("GET", f"{kind.api}/version", anonymous=True)
        except NotThereError:
            continue
        if isinstance(version, dict) and "version" in version:
            return kind(transport, str(version["version"]))
    raise EngineError(f"{transport.connection.url} answers, but not as Airflow does. Is the address right?")


def _airflow_run_id(run_id: str) -> str:
    """A run id that Airflow takes."""
    return run_id if _RUN_ID.fullmatch(run_id) and usable_id(run_id) else slug(run_id, max_length=100)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _identity(run: Mapping[str, Any]) -> tuple[str, str | None]:
    """A run, and when it was queued: a backfill may run one again that was there."""
    return run["dag_run_id"], run.get("queued_at")
