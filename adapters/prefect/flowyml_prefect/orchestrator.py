"""Prefect as an orchestrator of FlowyML."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.core.credentials import Auth, AuthLike
from flowyml.core.errors import ConfigurationError, EngineError
from flowyml.core.following import command_on
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import Run
from flowyml.core.submission_result import SubmissionResult
from flowyml.core.tls import Tls
from flowyml.core.urls import refuse_credentials, without_credentials
from flowyml.orchestrators.base import Health, Orchestrator, SignIn
from flowyml.orchestrators.http import is_this_machine
from flowyml.orchestrators.submission import check_same_run, submit_once
from flowyml.plan.secrets import slug_of
from flowyml_prefect.capabilities import CAPABILITIES
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.compiler import compile_flow, with_worker
from flowyml_prefect.connection import Connection
from flowyml_prefect.deployer import PrefectDeployer, Target
from flowyml_prefect.names import RUN_ID
from flowyml_prefect.parameters import given_parameters
from flowyml_prefect.pruning import Leftovers
from flowyml_prefect.reader import PrefectReader, code_labels, package_labels
from flowyml_prefect.retrying import schedule_again
from flowyml_prefect.scheduler import PrefectScheduler
from flowyml_prefect.server import (
    embedded_server,
    is_embedded,
    one_writer,
    prefect_home,
    server_name,
    stop_embedded_server,
)
from flowyml_prefect.status import status_of

if TYPE_CHECKING:
    from flowyml.core.pruning import Bounds, Prunable
    from flowyml.orchestrators.new_code import EndedRun
    from flowyml.orchestrators.probe import Site
    from flowyml.plan.bundle import Bundle

__all__ = ["PrefectOrchestrator"]


class PrefectOrchestrator(Orchestrator):
    """Runs pipelines as Prefect flows.

    ``url`` is the address of a Prefect server, with or without ``/api``; without it, Prefect's own settings apply
    (``PREFECT_API_URL``, a profile), and without those, an embedded Prefect on SQLite is started on this machine.
    ``auth`` is a key of Prefect Cloud, ``(username, password)`` for a server with basic authentication, or an ``Auth``;
    user and password may also be in the URL, which FlowyML always shows without them. ``tls`` says whom TLS trusts.
    ``timeout`` is how long one call may wait for the server, in seconds.

    ``work_pool`` names the pool whose workers execute the runs. Without one, each run is executed on this machine, in a
    separate process that outlives the caller. ``artifacts`` is the folder or URL of large outputs, which the workers
    must reach too. ``retry_policy`` retries failed steps, and calls to a server that does not answer.
    """

    name = "prefect"
    capabilities = CAPABILITIES
    engine_package = "prefect"
    extra = "prefect"

    def __init__(
        self,
        url: str | None = None,
        work_pool: str | None = None,
        *,
        auth: AuthLike | None = None,
        tls: Tls | None = None,
        timeout: float = 30,
        artifacts: str | os.PathLike[str] | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
        secrets: Mapping[str, str] = {},
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        self._asks = Auth.of(auth)
        unknown_to_prefect = {"client_cert": tls is not None and tls.client_cert, "cookies": self._asks.cookies}
        if work_pool is None and (options := [option for option, value in unknown_to_prefect.items() if value]):
            raise ConfigurationError(
                f"{options[0]}: without a work pool, runs are executed on this machine by Prefect's own client, which "
                "sends no client certificate and no cookies. Give work_pool=… too."
            )
        self.url = None if url is None else without_credentials(url)
        self.work_pool = work_pool
        self.artifacts = None if artifacts is None else refuse_credentials(os.fspath(artifacts), "artifacts")
        self._tls = tls
        self._timeout = timeout
        self._connection = Connection.to(url, self._asks, tls) if url is not None else None
        self.auth = self._connection.auth if self._connection else self._asks
        self._settings_read = False
        self._client: PrefectClient | None = None
        self._deployer: PrefectDeployer | None = None
        self._reader: PrefectReader | None = None
        self._just_made: dict[str, Run] = {}

    # Runs.

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        bundle, pipeline = with_worker(bundle), bundle.plan.name
        request = {
            "name": run_id,
            "idempotency_key": run_id,
            "parameters": given_parameters(parameters),
            "enforce_parameter_schema": False,  # they were checked; the server would first check the schema itself
            "labels": {
                RUN_ID: run_id,
                **code_labels(bundle),
                **(package_labels(bundle) if self.work_pool is None else {}),  # a pool's workers have their own
            },
        }

        def find() -> Run | None:
            """Return another pipeline's run of this id, which counts for all flows, Prefect's idempotency keys for one.

            Of two pipelines that are submitted under one id at the same moment, both run.
            """
            return next((run for run in self.reader.named(run_id) if run.pipeline != pipeline), None)

        def create() -> str:
            run, deployed = self.deployer.make_run(bundle, request, one_writer if self._is_embedded() else nullcontext)
            record = self.reader.record(run)
            check_same_run(record, pipeline, parameters, origin=bundle.origin, code_digest=bundle.code_digest)
            if self.work_pool is None and run.state_type == "SCHEDULED":
                self._launch(run.id, deployed.entrypoint)
            self._just_made = {run.id: record}
            return run.id

        return submit_once(bundle, run_id, parameters, find=find, create=create)

    def attach(self, job_id: str) -> SubmissionResult:
        record = self._just_made.pop(job_id, None)
        return SubmissionResult(self, job_id, run=record or self.get_run(job_id))

    def cancel(self, job_id: str) -> bool:
        run = self.reader.fetch(job_id)
        if status_of(run.state_type, run.state_name).is_terminal:
            return False
        message = "Cancelled by FlowyML."
        if self.reader.is_abandoned(run):
            message = "Cancelled by FlowyML, again, since nothing was heard of the process of the run."
            state = {"type": "CANCELLED", "name": "Cancelled", "message": message}
            return self.client.set_state(run.id, state, force=True) == "ACCEPT"
        answer = self.client.set_state(run.id, {"type": "CANCELLING", "name": "Cancelling", "message": message})
        if answer != "ABORT":
            return True
        return not self.get_run(job_id).status.is_terminal

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        run = self.reader.fetch(job_id)
        if entrypoint := schedule_again(self.reader, self.deployer, run.id, steps):
            self._launch(run.id, entrypoint)

    def bundle_of(self, job_id: str) -> Bundle:
        """Return the bundle in this machine's folder."""
        run = self.reader.fetch(job_id)
        return self.deployer.bundle_of(self.reader.record(run), run.version or "")

    def ended_run(self, job_id: str) -> EndedRun:
        """Return what Prefect and the artifact store have of an ended run, with the bundle in this machine's folder."""
        from flowyml.orchestrators.new_code import EndedRun

        reader, run = self.reader, self.reader.fetch(job_id)
        record = reader.record(run)
        bundle, outputs = self.deployer.bundle_of(record, run.version or ""), reader.recorded_outputs(job_id)
        return EndedRun.of(record, bundle, reader.step_runs(job_id), outputs, reader.place_of(run))

    def _launch(self, run_id: str, entrypoint: str) -> None:
        """Start a process on this machine that executes a run."""
        from flowyml_prefect import runner

        environment = {**self.client.connection.environment, **self._target.environment}
        runner.launch(run_id, entrypoint, environment, prefect_home() / "runs")

    # The engine.

    @property
    def has_default_store(self) -> bool:
        """True if ``FLOWYML_ARTIFACTS`` names a store here and no work pool is used, whose workers may be elsewhere."""
        if self.work_pool is None or os.environ.get("FLOWYML_ARTIFACTS") or self._is_embedded():
            return True
        return self._connection is not None and is_this_machine(self._connection.api_url)

    def prunable(self, bounds: Bounds) -> Iterator[Prunable]:
        """Yield compiled flows and logs on this machine; for the embedded server its runs too, with their outputs."""
        if prefect_home().exists() or self._connection:
            name = server_name(self.client.connection)
            store = self._target.store
            yield from Leftovers(self.reader, prefect_home(), name, store, bounds, is_own=is_embedded(name))
        yield from super().prunable(bounds)

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        """Return the references without a Secret block."""
        names = {reference: slug_of(reference) for reference in references}
        return {
            reference: f"{reference}: Prefect has no Secret block {name!r}. Create it in Prefect's UI, under Blocks."
            for reference, name in names.items()
            if not self.client.has_secret_block(name)
        }

    def health(self) -> Health:
        try:
            client = self._client_if_there()
            if client is None:
                return Health(reachable=False, detail="No Prefect is configured; an embedded one starts when needed.")
            return Health(reachable=True, version=client.version(), url=client.connection.server_url)
        except (EngineError, ValueError) as error:
            return Health(reachable=False, url=self.url, detail=str(error))

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """Recognize Prefect: its health page is ``true``, its version page a bare version or a login demand."""
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
        bundle = with_worker(bundle)
        return {"flow.py": compile_flow(bundle).encode(), bundle.filename: bundle.data}

    @property
    def client(self) -> PrefectClient:
        """The client, with its persistent connection.

        Starts the embedded server if that is the target and not running.
        """
        client = self._client_if_there()
        if client is None:
            server = embedded_server()
            assert server is not None
            client = self._use(server.connection)
        return client

    @property
    def deployer(self) -> PrefectDeployer:
        """Deploys to the server."""
        client = self.client
        if self._deployer is None or self._deployer.client is not client:
            self._deployer = PrefectDeployer(client, self._target)
        return self._deployer

    @property
    def scheduler(self) -> PrefectScheduler:
        """Schedules on the server."""
        return PrefectScheduler(self.deployer, is_embedded=self._is_embedded())

    @property
    def reader(self) -> PrefectReader:
        """The reader of runs."""
        client = self.client
        if self._reader is None or self._reader.client is not client:
            self._reader = PrefectReader(client, self.artifacts)
        return self._reader

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._client is not None:
            self._client.close()

    def _client_if_there(self) -> PrefectClient | None:
        connection = None if self._is_embedded() else self._connection
        server = embedded_server(start=False) if connection is None or not connection.auth else None
        if server is not None and (connection is None or connection.api_url == server.connection.api_url):
            return self._use(server.connection)  # its password comes along, also where its URL is given
        return None if connection is None else self._use(connection)

    def _use(self, connection: Connection) -> PrefectClient:
        if self._client is None or self._client.connection != connection:
            self._client = PrefectClient(connection, self.retry_policy, timeout=self._timeout)
            self._client.command = partial(command_on, self)
        return self._client

    def _is_embedded(self) -> bool:
        """Return whether neither the caller nor Prefect's settings name a server."""
        if self._connection is None and not self._settings_read:
            configured = Connection.configured()
            if configured is not None:
                self._connection = Connection.to(configured.api_url, self._asks, self._tls)
            self._settings_read = True
        return self._connection is None

    def run_missed(self, schedule_id: str, time: datetime) -> SubmissionResult:
        run = self.scheduler.run_missed(schedule_id, time)
        return SubmissionResult(self, run.id, run=self.reader.record(run))

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> Mapping[datetime, Run]:
        return self.reader.scheduled_runs(pipeline, limit)

    @property
    def _target(self) -> Target:
        return Target(self.work_pool, self.artifacts)
