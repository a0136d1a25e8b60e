"""Prefect as an orchestrator of FlowyML."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowyml.artifacts import Store, open_store
from flowyml.core.credentials import Login
from flowyml.core.errors import (
    ConfigurationError,
    EngineError,
    OwnershipError,
    RunNotFoundError,
    ScheduleError,
    ScheduleNotFoundError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import Artifact, LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.core.submission_result import SubmissionResult
from flowyml.core.tls import ClientCertificate, Tls
from flowyml.core.urls import refuse_credentials, without_credentials
from flowyml.orchestrators.base import Deployment, Health, Orchestrator, SignIn, check_same_run, claim_new
from flowyml.orchestrators.http import ConflictError, NotFoundError, is_this_machine
from flowyml.plan.secrets import slug_of
from flowyml_prefect.capabilities import CAPABILITIES
from flowyml_prefect.client import FlowRun, PrefectClient, as_id
from flowyml_prefect.compiler import compile_flow
from flowyml_prefect.connection import Connection, login_of
from flowyml_prefect.deploy import Deployed, Deployments, Target
from flowyml_prefect.names import RUN_ID, deployment_name, flow_name
from flowyml_prefect.parameters import given_parameters
from flowyml_prefect.pruning import Leftovers
from flowyml_prefect.reading import RunReader, code_labels
from flowyml_prefect.retrying import schedule_again
from flowyml_prefect.schedule import (
    MADE_UP,
    SET,
    as_set,
    from_prefect,
    is_active,
    own_schedule,
    schedule_info,
    to_prefect,
    was_edited,
)
from flowyml_prefect.server import (
    POOL,
    embedded_server,
    ensure_worker,
    is_embedded,
    prefect_home,
    server_name,
    stop_embedded_server,
    turn,
)
from flowyml_prefect.status import status_of

if TYPE_CHECKING:
    from flowyml.core.pruning import Bounds, Prunable
    from flowyml.orchestrators.probe import Site
    from flowyml.plan.bundle import Bundle

__all__ = ["PrefectOrchestrator"]

_SHOWN = 10
"""How many of the planned runs of a schedule are shown."""


class PrefectOrchestrator(Orchestrator):
    """Runs pipelines as Prefect flows.

    ``url`` is that of a Prefect server, with or without ``/api``; without it Prefect's own settings count
    (``PREFECT_API_URL``, a profile), and without those an embedded Prefect on SQLite is started on this machine.
    ``token`` is a key of Prefect Cloud, ``username`` and ``password`` are those of a server with basic authentication,
    which may also stand in the URL; wherever FlowyML shows that, it leaves them out. Instead of a token or a password,
    a file that holds it or a command that prints it can be given. ``api_key`` is another name of ``token``, or
    ``"user:password"``. ``ca_file`` is a file with the authorities to trust for TLS,
    ``client_cert`` a file with a certificate and its key, or the two files; ``verify=False`` trusts any server.

    ``work_pool`` names the pool whose workers execute the runs. Without one each run is executed on this machine, in a
    process of its own that outlives the caller. ``artifacts`` is the folder or URL of large outputs, which the workers
    must reach too. ``retry_policy`` retries failed steps, and calls to a server that does not answer.
    """

    name = "prefect"
    capabilities = CAPABILITIES
    engine_package = "prefect"
    extra = "prefect"
    makes_up = True

    def __init__(
        self,
        url: str | None = None,
        work_pool: str | None = None,
        *,
        retry_policy: OrchestratorRetryPolicy | None = None,
        secrets: Mapping[str, str] = {},
        api_key: str | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token_command: str | Sequence[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
        password_command: str | Sequence[str] | None = None,
        verify: bool | str = True,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: ClientCertificate | None = None,
        artifacts: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        login = Login.of(
            token=token, token_file=token_file, token_command=token_command, username=username,
            password=password, password_file=password_file, password_command=password_command,
        )  # fmt: skip
        if api_key and (login or login.password):
            raise ConfigurationError("api_key is another name of token, or of username and password. Give one of them.")
        if login.password and username is None:
            raise ConfigurationError("password needs username=… beside it.")
        if client_cert is not None and work_pool is None:
            raise ConfigurationError(
                "client_cert: without a work pool, runs are executed on this machine by Prefect's own client, which "
                "presents no certificate. Give work_pool=… too."
            )
        self.url = None if url is None else without_credentials(url)
        self.work_pool = work_pool
        self.artifacts = None if artifacts is None else refuse_credentials(os.fspath(artifacts), "artifacts")
        self._asks = login_of(api_key) if api_key else login
        self._tls = Tls.of(verify, ca_file, client_cert)
        self._connection = Connection.to(url, self._asks, self._tls) if url is not None else None
        self.login = self._connection.login if self._connection else self._asks
        self._settings_read = False
        self._client: PrefectClient | None = None
        self._deployments: Deployments | None = None
        self._reader: RunReader | None = None
        self._just_made: dict[str, Run] = {}

    # Runs.

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        target, pipeline, given = self._target(), bundle.plan.name, given_parameters(parameters)
        if not claim_new(run_id):
            self._check_free(run_id, pipeline)
        request = {
            "name": run_id,
            "idempotency_key": run_id,
            "parameters": given,
            "enforce_parameter_schema": False,  # they were checked; the server would first check the schema itself
            "labels": {RUN_ID: run_id, **code_labels(bundle)},
        }
        made, deployed = self.deployments.make_run(
            bundle, target, request, turn if self._is_embedded() else nullcontext
        )
        record = self.reader.record(made)
        check_same_run(record, pipeline, parameters, origin=bundle.origin, code_digest=bundle.code_digest)
        if target.pool is None and made.state_type == "SCHEDULED":
            self._launch(made.id, deployed.entrypoint)
        self._just_made = {made.id: record}
        return made.id

    def _check_free(self, run_id: str, pipeline: str) -> None:
        """Prefect's idempotency keys count for one flow, a run id counts for all: no other pipeline may have it.

        Raises ``DefinitionError``. Of two pipelines that are submitted under one id at the same moment, both run.
        """
        for found in self.reader.named(run_id):
            if found.pipeline != pipeline:
                check_same_run(found, pipeline, {})

    def attach(self, job_id: str) -> SubmissionResult:
        made = self._just_made.pop(job_id, None)
        return SubmissionResult(self, job_id, run=made or self.get_run(job_id))

    def get_run(self, job_id: str) -> Run:
        return self.reader.record(self._flow_run(job_id))

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return self.reader.runs(pipeline, limit)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return self.reader.step_runs(self._flow_run(job_id))

    def outputs(self, job_id: str) -> Outputs:
        return self.reader.outputs(self._flow_run(job_id), self.artifacts)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        return self.reader.listed(self._flow_run(job_id))

    def artifact_stores(self, job_id: str) -> Sequence[Store]:
        return (open_store(self.artifacts),)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        return self.reader.logs(self._flow_run(job_id).id, follow=follow)

    def cancel(self, job_id: str) -> bool:
        run = self._flow_run(job_id)
        if status_of(run.state_type, run.state_name).is_terminal:
            return False
        message = "Cancelled by FlowyML."
        answer = self.client.set_state(run.id, {"type": "CANCELLING", "name": "Cancelling", "message": message})
        if answer != "ABORT":
            return True
        return not self.get_run(job_id).status.is_terminal

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        run = self._flow_run(job_id)
        if entrypoint := schedule_again(self.reader, self.deployments, run.id, steps):
            self._launch(run.id, entrypoint)

    def _launch(self, run_id: str, entrypoint: str) -> None:
        """Have a process on this machine execute a run."""
        from flowyml_prefect import runner

        environment = {**self.client.connection.environment, **self._target().environment}
        runner.launch(run_id, entrypoint, environment, prefect_home() / "runs")

    # The engine.

    @property
    def has_default_store(self) -> bool:
        """A work pool's workers may be on other machines; here ``FLOWYML_ARTIFACTS`` names their store."""
        if self.work_pool is None or os.environ.get("FLOWYML_ARTIFACTS") or self._is_embedded():
            return True
        return self._connection is not None and is_this_machine(self._connection.api_url)

    def prunable(self, bounds: Bounds) -> Iterator[Prunable]:
        """Compiled flows and logs on this machine; of the embedded server its runs too, with their outputs."""
        if prefect_home().exists() or self._connection:
            name = server_name(self.client.connection)
            store = self._target().store
            yield from Leftovers(self.reader, prefect_home(), name, store, bounds, is_own=is_embedded(name))
        yield from super().prunable(bounds)

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        """Those without a Secret block."""
        names = {reference: slug_of(reference) for reference in references}
        return {
            reference: f"{reference}: Prefect has no Secret block {name!r}. Create it."
            for reference, name in names.items()
            if not self.client.has_secret_block(name)
        }

    def health(self) -> Health:
        try:
            client = self._client_if_there()
            if client is None:
                return Health(
                    reachable=False, detail="No Prefect is configured; an embedded one starts when it is needed."
                )
            return Health(reachable=True, version=client.version(), url=client.connection.server_url)
        except (EngineError, ValueError) as error:
            return Health(reachable=False, url=self.url, detail=str(error))

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """Prefect's health page says ``true``, and its version page a bare version, or that it wants a password."""
        base = "" if site.url.endswith("/api") else "/api"
        version = site.get(f"{base}/admin/version")
        refused = version.status == 401 and "exception_message" in (version.content or ())
        return (refused or isinstance(version.json(), str)) and site.get(f"{base}/health").json() is True

    @classmethod
    def stop_server(cls) -> bool:
        return stop_embedded_server()

    @classmethod
    def sign_in(cls) -> SignIn | None:
        server = embedded_server(start=False)
        password = server.connection.password if server else None
        return SignIn(url=server.connection.ui_url, password=password) if server and password else None

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        return {"flow.py": compile_flow(bundle).encode(), bundle.filename: bundle.data}

    @property
    def client(self) -> PrefectClient:
        """The kept connection; the embedded server is started, or started again, if it is the one meant."""
        client = self._client_if_there()
        if client is None:
            server = embedded_server()
            assert server is not None
            client = self._use(server.connection)
        return client

    @property
    def deployments(self) -> Deployments:
        """What was deployed through this orchestrator."""
        client = self.client
        if self._deployments is None or self._deployments.client is not client:
            self._deployments = Deployments(client)
        return self._deployments

    @property
    def reader(self) -> RunReader:
        """What reads runs."""
        client = self.client
        if self._reader is None or self._reader.client is not client:
            self._reader = RunReader(client)
        return self._reader

    def close(self) -> None:
        """End the connection; the next call opens a new one."""
        if self._client is not None:
            self._client.close()

    def _client_if_there(self) -> PrefectClient | None:
        given = None if self._is_embedded() else self._connection
        server = embedded_server(start=False) if given is None or not given.login else None
        if server is not None and (given is None or given.api_url == server.connection.api_url):
            return self._use(server.connection)  # its password comes along, also where its URL is given
        return None if given is None else self._use(given)

    def _use(self, connection: Connection) -> PrefectClient:
        if self._client is None or self._client.connection != connection:
            self._client = PrefectClient(connection, self.retry_policy)
        return self._client

    def _is_embedded(self) -> bool:
        """Whether neither the caller nor Prefect's settings name a server."""
        if self._connection is None and not self._settings_read:
            configured = Connection.configured()
            if configured is not None:
                self._connection = Connection.to(configured.api_url, self._asks, self._tls)
            self._settings_read = True
        return self._connection is None

    def _flow_run(self, job_id: str) -> FlowRun:
        if run_id := as_id(job_id):
            try:
                return self.client.run(run_id)
            except NotFoundError as error:
                raise RunNotFoundError(self._unknown("run", job_id)) from error
        raise RunNotFoundError(self._never_given("run", job_id, "flowyml runs --on …"))

    def _unknown(self, what: str, name: str) -> str:
        return f"Prefect at {self.client.connection.ui_url} has no {what} {name!r}."

    def _never_given(self, what: str, name: str, listing: str) -> str:
        """The same for a text that cannot be an id of Prefect's. Raises what asking the server raises, if it does."""
        self.client.version()
        return f"{self._unknown(what, name)} Its id is a UUID, as `{listing}` shows it."

    # Deployments and schedules.

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        made = self.deployments.deploy(bundle, self._target(), force=force)
        return Deployment(
            name=made.name, digest=bundle.digest, changed=made.changed or bool(made.also), url=made.url, also=made.also
        )

    def diff(self, bundle: Bundle) -> str:
        return self.deployments.difference(bundle, self._target())

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        self.deployments.check(bundle, self._target(), force=force)

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        body = {**to_prefect(schedule), "parameters": given_parameters(schedule.parameters)}
        deployed = self._deploy_scheduled(bundle, body, force=force)
        try:
            self._save_schedule(deployed.id, body)
        except ConflictError:  # created since the look-up, by another process or by a call whose answer was lost
            self._save_schedule(deployed.id, body)
        self._note_schedule(deployed.id)
        return self._schedule(deployed.id)

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        flow = None if pipeline is None else flow_name(pipeline)
        found = [plain for plain in self.client.deployments(flow) if own_schedule(plain)]
        active = [plain["id"] for plain in found if is_active(plain)]
        planned = self.client.planned(active, _SHOWN)
        return [schedule_info(plain, planned.get(plain["id"], [])[:_SHOWN]) for plain in found]

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._change_schedule(schedule_id, active=False)

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._change_schedule(schedule_id, active=True)

    def delete_schedule(self, schedule_id: str) -> None:
        schedule = self._own(schedule_id)
        self.client.delete_schedule(schedule["deployment_id"], schedule["id"])

    def make_up(self, schedule_id: str, time: datetime) -> SubmissionResult:
        """Prefect makes one run for each idempotency key. It is late from its first moment on, so it runs at once."""
        schedule = self._own(schedule_id)
        deployment = self.client.deployment_by_id(schedule["deployment_id"])
        at = time.astimezone(UTC).isoformat()
        request = {
            "name": f"{deployment['name']} for {at}",
            "idempotency_key": f"flowyml schedule {at}",
            "parameters": schedule.get("parameters") or {},
            "enforce_parameter_schema": False,
            "tags": [MADE_UP],
            "labels": {**(deployment.get("labels") or {}), MADE_UP: at},
            "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": at}},
        }
        made = self.client.create_run(deployment["id"], request)
        return SubmissionResult(self, made.id, run=self.reader.record(made))

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> Mapping[datetime, Run]:
        return self.reader.scheduled(pipeline, limit)

    def _target(self) -> Target:
        return Target(self.work_pool, self.artifacts)

    def _deploy_scheduled(self, bundle: Bundle, body: Mapping[str, Any], *, force: bool) -> Deployed:
        """The deployment that a schedule belongs to: one whose runs a worker executes."""
        pool = self.work_pool
        if pool is None:
            if not self._is_embedded():
                raise ScheduleError(
                    f"The schedule of {bundle.plan.name!r} needs a work pool, whose workers run it. Pass work_pool=…; "
                    f"`prefect work-pool create NAME --type process` makes one, `prefect worker start --pool NAME` "
                    f"serves it."
                )
            pool = POOL
            self.client.ensure_process_pool(pool)
            ensure_worker()
        if not force:
            self._check_unedited(bundle.plan.name, pool, body)
        return self.deployments.deploy(bundle, Target(pool, self.artifacts), force=force)

    def _check_unedited(self, pipeline: str, pool: str, body: Mapping[str, Any]) -> None:
        """Raise ``OwnershipError`` where the schedule was changed by hand, unless to what it is to be."""
        found = self.client.deployment(flow_name(pipeline), deployment_name(pipeline, pool))
        if found is None or not was_edited(found):
            return
        there = own_schedule(found)
        if there is not None and from_prefect(there) != from_prefect(body):
            raise OwnershipError(
                f"The schedule of {pipeline!r} on Prefect was changed by hand since FlowyML set it: it is "
                f"{from_prefect(there)}, and the change would be lost. Put it into the pipeline's schedule, or use "
                f"--force (force=True) to replace it."
            )

    def _note_schedule(self, deployment_id: str) -> None:
        found = self.client.deployment_by_id(deployment_id)
        schema, schedule = dict(found.get("parameter_openapi_schema") or {}), own_schedule(found)
        if schedule is not None and schema.get(SET) != as_set(schedule):
            self.client.update_deployment(
                deployment_id, {"parameter_openapi_schema": {**schema, SET: as_set(schedule)}}
            )
            if schedule["active"]:
                self.client.plan_runs(deployment_id)

    def _save_schedule(self, deployment_id: str, body: Mapping[str, Any]) -> None:
        """A new schedule is active; one that is there stays paused if it was: what changes is when it fires."""
        existing = own_schedule(self.client.deployment_by_id(deployment_id))
        active = existing["active"] if existing else True
        self.client.save_schedule(deployment_id, {**body, "active": active}, existing["id"] if existing else None)

    def _change_schedule(self, schedule_id: str, *, active: bool) -> ScheduleInfo:
        schedule = self._own(schedule_id)
        # A change without parameters would drop those that are there; source: Prefect 3.9, update_deployment_schedule.
        body = {"active": active, "parameters": schedule.get("parameters") or {}}
        self.client.save_schedule(schedule["deployment_id"], body, schedule["id"])
        return self._schedule(schedule["deployment_id"])

    def _schedule(self, deployment_id: str) -> ScheduleInfo:
        planned = self.client.planned([deployment_id], _SHOWN)
        return schedule_info(self.client.deployment_by_id(deployment_id), planned[deployment_id][:_SHOWN])

    def _own(self, schedule_id: str) -> Mapping[str, Any]:
        """The Prefect schedule of a deployment: a pipeline has one, so that the deployment's id names it."""
        deployment_id = as_id(schedule_id)
        if deployment_id is None:
            raise ScheduleNotFoundError(self._never_given("schedule", schedule_id, "flowyml schedule list --on …"))
        try:
            schedule = own_schedule(self.client.deployment_by_id(deployment_id))
        except NotFoundError:
            schedule = None
        if schedule is None:
            raise ScheduleNotFoundError(self._unknown("schedule", schedule_id))
        return schedule
