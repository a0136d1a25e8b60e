"""Kubeflow Pipelines as an orchestrator: on a cluster, or on this machine by KFP's own local runner."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from flowyml.core.capabilities import Capabilities
from flowyml.core.credentials import Secret
from flowyml.core.errors import ConfigurationError, UnsupportedFeatureError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import LogLine, Outputs, Run, StepRun
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.core.tls import ClientCertificate, Tls
from flowyml.core.urls import refuse_credentials, without_credentials
from flowyml.orchestrators.base import Deployment, Health, Orchestrator
from flowyml_kubeflow import capabilities
from flowyml_kubeflow.connection import SignIn

if TYPE_CHECKING:
    from flowyml.orchestrators.probe import Site
    from flowyml.plan.bundle import Bundle
    from flowyml_kubeflow.local.orchestrator import LocalRuns
    from flowyml_kubeflow.reading import Cluster

__all__ = ["KubeflowOrchestrator"]

RUNNERS = ("subprocess", "docker")


class KubeflowOrchestrator(Orchestrator):
    """Runs pipelines on the Kubeflow Pipelines at ``url``, or without a cluster by KFP's local ``runner``.

    ``namespace`` is the user's on a KFP of several. ``token`` is a bearer token, ``token_file`` the file that holds it,
    ``token_command`` a command that prints it, and ``credentials`` an object of ``kfp.client`` that gives it.
    ``cookies`` are those of a login in front of KFP, ``cookies_file`` the file that holds them. Files and commands are
    read again when what they gave is refused. ``ca_file`` is a file with the authorities to trust for TLS,
    ``client_cert`` a file with a certificate and its key, or the two files; with ``verify=False`` everybody is trusted.
    ``service_account`` is that of the pods. ``experiment`` is where runs are filed. ``runner``
    is ``"subprocess"``, in processes of this machine's Python, or ``"docker"``, in containers; ``runner_options``
    are then those of Docker's ``containers.run``. ``artifacts`` is a store that both the steps and you can reach,
    ``form`` that of the components, ``timeout`` the seconds that one call to KFP may take. With neither ``url`` nor
    ``runner``, it is the subprocess runner.
    """

    name: ClassVar[str] = "kubeflow"
    capabilities: Capabilities = capabilities.CLUSTER  # type: ignore[misc]  # of an instance: its runner's
    engine_package: ClassVar[str | None] = "kfp"
    extra: ClassVar[str | None] = "kubeflow"

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token_command: str | Sequence[str] | None = None,
        credentials: Any = None,
        cookies: str | None = None,
        cookies_file: str | os.PathLike[str] | None = None,
        verify: bool | str = True,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: ClientCertificate | None = None,
        service_account: str | None = None,
        experiment: str = "Default",
        runner: str | None = None,
        runner_options: Mapping[str, Any] = {},
        artifacts: str | None = None,
        form: str | None = None,
        timeout: float = 30,
        retry_policy: OrchestratorRetryPolicy | None = None,
    ) -> None:
        super().__init__(retry_policy=retry_policy)
        if url is not None and runner is not None:
            raise ConfigurationError(f"runner={runner!r} is for runs without a cluster: give it, or url, and not both.")
        if url is None and runner not in (None, *RUNNERS):
            raise ConfigurationError(f"runner={runner!r}: KFP's local runners are {' and '.join(map(repr, RUNNERS))}.")
        refuse_credentials(artifacts or "", "artifacts")
        self.url = None if url is None else without_credentials(url)
        self.runner = runner or (None if url else RUNNERS[0])
        self.runner_options = dict(runner_options)
        self._options: dict[str, Any] = {
            "namespace": namespace, "service_account": service_account, "experiment": experiment,
            "artifacts": artifacts, "form": form, "timeout": timeout,
            "sign_in": SignIn(
                Secret("token", token, token_file, token_command), credentials, Secret("cookies", cookies, cookies_file)
            ).beside(url or ""),
            "tls": Tls(verify, ca_file, client_cert),
        }  # fmt: skip
        if self.runner:
            self.capabilities = capabilities.LOCAL_RUNNER

    @cached_property
    def engine(self) -> Cluster | LocalRuns:
        """Who does the work."""
        if self.runner:
            from flowyml_kubeflow.local.orchestrator import LocalRuns

            return LocalRuns(self.runner, self.runner_options)
        from flowyml_kubeflow.reading import Cluster

        assert self.url is not None
        return Cluster(self.url, retry_policy=self.retry_policy, **self._options)

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """KFP's API tells its version to everybody, itself or behind its UI."""
        pages = ("/apis/v2beta1/healthz", "/pipeline/apis/v2beta1/healthz")
        return any(_is_healthz(site.get(page).json()) for page in pages)

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        """``NAME.yaml``, and the bundle beside it when the pipeline keeps its code in a store."""
        from flowyml_kubeflow import names, spec
        from flowyml_kubeflow.compiler import compile_pipeline

        compiled = compile_pipeline(bundle, form=self._options["form"], artifacts=self._options["artifacts"])
        spec.validate(compiled)
        if warning := spec.size_warning(compiled):
            warnings.warn(warning, UserWarning, stacklevel=2)
        files = {f"{names.pipeline(bundle.plan.name)}.yaml": spec.text(compiled).encode()}
        return {**files, compiled.bundle.filename: compiled.bundle.data} if compiled.bundle_url else files

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        return self.engine.submit(bundle, run_id, parameters, force=force)

    def get_run(self, job_id: str) -> Run:
        return self.engine.get_run(job_id)

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        return self.engine.runs(pipeline, limit)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        return self.engine.step_runs(job_id)

    def outputs(self, job_id: str) -> Outputs:
        return self.engine.outputs(job_id)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        return self.engine.logs(job_id, follow)

    def cancel(self, job_id: str) -> bool:
        return self.engine.cancel(job_id)

    def retry_run(self, job_id: str) -> None:
        """Run a failed run again from where it failed: what had completed is kept."""
        self.engine.retry_run(job_id)

    def health(self) -> Health:
        return self.engine.health()

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        return self._cluster("deployments").deploy(bundle, force=force)

    def diff(self, bundle: Bundle) -> str:
        return self._cluster("deployments").diff(bundle)

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        return self._cluster("schedules").recurring.create_schedule(bundle, schedule, force=force)

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        return self._cluster("schedules").recurring.schedules(pipeline)

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._cluster("schedules").recurring.pause_schedule(schedule_id)

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        return self._cluster("schedules").recurring.resume_schedule(schedule_id)

    def delete_schedule(self, schedule_id: str) -> None:
        self._cluster("schedules").recurring.delete_schedule(schedule_id)

    def _cluster(self, what: str) -> Cluster:
        from flowyml_kubeflow.reading import Cluster

        if not isinstance(self.engine, Cluster):
            raise UnsupportedFeatureError(f"KFP's local runner has no {what}. Give url=… for a cluster that has.")
        return self.engine


def _is_healthz(answer: Any) -> bool:
    return isinstance(answer, Mapping) and "multi_user" in answer
