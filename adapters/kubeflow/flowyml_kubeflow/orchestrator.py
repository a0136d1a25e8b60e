"""Kubeflow Pipelines as an orchestrator, over its API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from flowyml.artifacts import Store, open_store
from flowyml.core.capabilities import Capabilities
from flowyml.core.credentials import AuthLike
from flowyml.core.errors import (
    ConfigurationError,
    EngineError,
    EngineUnreachableError,
    RetryRefusedError,
    UnsupportedFeatureError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import Run
from flowyml.core.tls import Tls
from flowyml.core.urls import refuse_credentials, without_credentials
from flowyml.orchestrators.base import Health, Orchestrator
from flowyml.orchestrators.submission import submit_once
from flowyml.plan.marks import marked
from flowyml_kubeflow.capabilities import CLUSTER
from flowyml_kubeflow.connection import HEALTHZ, About, Connection

if TYPE_CHECKING:
    from datetime import datetime

    from flowyml.orchestrators.probe import Site
    from flowyml.plan.bundle import Bundle
    from flowyml_kubeflow.client import Client
    from flowyml_kubeflow.deployer import KubeflowDeployer, Pipelines
    from flowyml_kubeflow.reader import KubeflowReader
    from flowyml_kubeflow.scheduler import KubeflowScheduler

__all__ = ["KubeflowOrchestrator"]

_LONGEST_EXPERIMENT = 128  # bytes; source: KFP, apiserver/validation/length.go
_OLDEST = (2, 14)  # release of KFP


class KubeflowOrchestrator(Orchestrator):
    """Runs pipelines on the Kubeflow Pipelines at ``url``. Compiling needs no ``url``.

    ``auth`` is a bearer token, ``(username, password)`` for a proxy in front of KFP with basic authentication, or an
    ``Auth``, which also takes the cookies of a login in front of KFP. ``tls`` says whom TLS trusts. ``timeout`` is how
    long one call may wait for KFP, in seconds. ``namespace`` is the user's namespace on a multi-user KFP,
    ``service_account`` the service account of the pods, ``experiment`` the experiment of the runs, and ``artifacts`` a
    store that both the steps and you can reach. ``release`` is that of the KFP for which files are compiled where none
    can be asked, such as "2.16".
    """

    name: ClassVar[str] = "kubeflow"
    capabilities: ClassVar[Capabilities] = CLUSTER
    engine_package: ClassVar[str | None] = "kfp"
    extra: ClassVar[str | None] = "kubeflow"

    def __init__(
        self,
        url: str | None = None,
        *,
        auth: AuthLike | None = None,
        tls: Tls | None = None,
        timeout: float = 30,
        namespace: str | None = None,
        service_account: str | None = None,
        experiment: str = "Default",
        artifacts: str | None = None,
        release: str | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
        secrets: Mapping[str, str] = {},
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        refuse_credentials(artifacts or "", "artifacts")
        self._connection = Connection(url, auth, tls, namespace=namespace, timeout=timeout) if url else None
        self.auth = self._connection.auth if self._connection else None
        self.url = None if url is None else without_credentials(url)
        self.service_account = service_account
        self.experiment = _checked_experiment(experiment)
        self.artifacts = artifacts
        self.release = _checked_release(release)

    @cached_property
    def client(self) -> Client:
        from flowyml_kubeflow.client import Client

        if self._connection is None:
            raise ConfigurationError(
                "No Kubeflow Pipelines URL is set. Give url='http://…', or url = \"http://…\" in flowyml.toml. To run "
                "without a cluster, by KFP's local runner, use the orchestrator 'kubeflow-local'."
            )
        return Client(self._connection)

    @cached_property
    def pipelines(self) -> Pipelines:
        from flowyml_kubeflow.deployer import Pipelines

        return Pipelines(self.client, self.experiment, self.artifacts, self.service_account)

    @cached_property
    def reader(self) -> KubeflowReader:
        from flowyml_kubeflow.reader import KubeflowReader

        return KubeflowReader(self.pipelines, self.artifacts)

    @cached_property
    def scheduler(self) -> KubeflowScheduler:
        from flowyml_kubeflow.scheduler import KubeflowScheduler

        return KubeflowScheduler(self.pipelines)

    @cached_property
    def deployer(self) -> KubeflowDeployer:
        from flowyml_kubeflow.deployer import KubeflowDeployer

        return KubeflowDeployer(self.scheduler)

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """Recognize KFP: its API reports its version without a login, itself or behind its UI."""
        return any(About.of(site.get(page).json()) for page in (HEALTHZ, f"/pipeline{HEALTHZ}"))

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        """Return ``NAME.yaml``, and the bundle beside it if the pipeline stores its code; the mark says at which URL.

        Without a ``release``, KFP is asked for it only if the workflow is too large for those whose workflows are
        largest.
        """
        from flowyml_kubeflow import names, spec
        from flowyml_kubeflow.compiler import compile_pipeline

        compiled = compile_pipeline(bundle, artifacts=self.artifacts, release=self.release)
        spec.validate(compiled)
        spec.check_fields(compiled, self.release)
        try:
            spec.check_size(compiled, self.release)
        except UnsupportedFeatureError:
            if self.release or not (release := self._release()):
                raise
            spec.check_size(compiled, release)
        name, data = f"{names.pipeline(bundle.plan.name)}.yaml", spec.text(compiled).encode()
        if not compiled.bundle_url:
            return {name: data}
        code = compiled.bundle.filename
        return {name: marked(data, name, {"copy": {code: compiled.bundle_url}}), code: compiled.bundle.data}

    def _release(self) -> tuple[int, ...]:
        """Return KFP's release; empty without a URL, or if no KFP answers."""
        try:
            return self._connection.release() if self._connection else ()
        except EngineUnreachableError:
            return ()

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        from flowyml_kubeflow.deployer import one_at_a_time
        from flowyml_kubeflow.idempotency import RunsByName
        from flowyml_kubeflow.parameters import arguments

        values, runs = arguments(bundle.plan, parameters), RunsByName(self.reader, run_id)

        def create() -> str | None:
            return runs.create(self._new_run(bundle, run_id, values), bundle.plan.name, bundle.revision)

        with one_at_a_time(run_id):
            return submit_once(bundle, run_id, parameters, find=runs.find, create=create)

    def _new_run(self, bundle: Bundle, run_id: str, values: Mapping[str, Any]) -> Any:
        return self.client.model(
            "V2beta1Run", display_name=run_id, experiment_id=self.pipelines.experiment_id(),
            pipeline_version_reference=self.pipelines.ensure_uploaded(bundle, values)[0],
            runtime_config=self.client.model("V2beta1RuntimeConfig", parameters=values),
            service_account=self.service_account,
        )  # fmt: skip

    def artifact_stores(self, job_id: str) -> Sequence[Store]:
        from flowyml_kubeflow.ui_store import UiStore

        return (open_store(self.artifacts), UiStore(self.client, job_id))

    def cancel(self, job_id: str) -> bool:
        """Cancel the run; KFP refuses that for a run that has ended meanwhile, or is being terminated already."""
        runs = self.reader
        before = runs.fetch(job_id)
        if runs.status(before).is_terminal:
            return False
        try:
            self.client.call_once("run_service_terminate_run", job_id)
        except EngineError:
            run = runs.fetch(job_id)
            if runs.status(run).is_terminal:
                return runs.status(run) is ExecutionStatus.CANCELLED
            if run.state != "CANCELING":
                self.client.call_once("run_service_terminate_run", job_id)
        runs.note_stopped(before)
        return True

    def bundle_of(self, job_id: str) -> Bundle:
        """Return the bundle in the version of the pipeline."""
        return self.pipelines.bundle_of(self.reader.fetch(job_id))

    def retry_run(self, job_id: str) -> None:
        """Have KFP run the failed tasks of a run again: it keeps those that completed."""
        run = self.reader.fetch(job_id)
        if not self.reader.status(run).is_terminal or run.state == "SUCCEEDED":
            raise EngineError(f"Run {job_id!r} is {run.state}; only a run that failed or was stopped can be retried.")
        self.client.call_once("run_service_retry_run", job_id)

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        """Retry a run. Raises ``RetryRefusedError`` if KFP would run something else."""
        if steps is not None:
            raise RetryRefusedError(
                "KFP cannot retry single steps: it retries everything that failed. Retry the run without steps=… or "
                "--step."
            )
        if self.reader.failed_at_its_end(job_id):
            raise RetryRefusedError(
                "Some steps failed although their pods succeeded, as steps in loops do, and KFP retries only failed "
                "pods. Start a new run."
            )
        self.retry_run(job_id)

    @property
    def has_default_store(self) -> bool:
        """False: pods never write to this machine's default store."""
        return False

    def health(self) -> Health:
        connection = self.client.connection
        try:
            page = connection.site(connection.host).get(HEALTHZ)
        except EngineUnreachableError as error:
            return Health(reachable=False, url=connection.where, detail=str(error))
        about = About.of(page.json())
        if about is None:
            detail = f"A proxy or a login, not KFP, answered: {page}. Check the URL and the token."
            return Health(reachable=False, url=connection.where, detail=detail)
        if not about.is_ready:
            detail = "KFP's UI answers, but its API server does not. Is the deployment ml-pipeline running?"
            return Health(reachable=False, url=connection.where, detail=detail)
        facts = {"multi_user": about.has_users}
        return Health(reachable=True, version=about.version, url=connection.where, facts=facts)

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> Mapping[datetime, Run]:
        return self.reader.scheduled_runs(pipeline, limit)


def _checked_experiment(name: str) -> str:
    if 1 <= len(name.encode()) <= _LONGEST_EXPERIMENT:
        return name
    raise ConfigurationError(
        f"experiment={name!r} has {len(name.encode())} bytes; KFP takes names of 1 to {_LONGEST_EXPERIMENT}."
    )


def _checked_release(release: str | None) -> tuple[int, ...]:
    """Return the numbers of a release, as ``Connection.release`` returns them; empty for None."""
    if release is None:
        return ()
    if match := re.fullmatch(r"([0-9]+)\.([0-9]+)(\.[0-9]+)?", release):
        numbers = int(match[1]), int(match[2])
        if numbers < _OLDEST:
            raise ConfigurationError(f"release={release!r} is too old: FlowyML needs KFP 2.14 or newer.")
        return numbers
    raise ConfigurationError(f"release={release!r} is not a release of KFP. Write it like '2.16'.")
