"""An orchestrator that finds out which engine answers at a URL, and then acts as that engine's adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property, wraps
from operator import attrgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any

from flowyml.core.capabilities import Capabilities
from flowyml.core.credentials import Auth
from flowyml.core.errors import (
    AuthenticationError,
    EngineError,
    EngineUnreachableError,
    MissingExtraError,
    OrchestratorNotFoundError,
)
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.submission_result import SubmissionResult
from flowyml.core.tls import Tls, tls_cause
from flowyml.core.urls import checked_url, redact_url
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Health, Orchestrator, RunnablePipeline
from flowyml.orchestrators.probe import Site
from flowyml.orchestrators.reader import RunReader
from flowyml.runtime.loading import stop_if_loading

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = ["RemoteOrchestrator"]

_COMPOSED = (
    "get_run_status",
    "retry",
    "step_outputs",
    "schedule_pipeline",
    "deploy_pipeline",
    "prune",
)  # of what is forwarded


class RemoteOrchestrator(Orchestrator):
    """The engine that answers at ``url``. Constructing one needs no network: the URL is requested at first use.

    ``engine`` names the adapter and skips the detection. ``options`` are further keywords of that adapter; ``auth`` and
    ``tls`` also apply to the detection. Methods that only this engine's adapter has, such as Airflow's
    ``backfill``, can be called here as well.

    Raises, at the first use, ``EngineUnreachableError`` if nothing answers, ``AuthenticationError`` if the server
    requires credentials before it shows which engine it is, ``OrchestratorNotFoundError`` if no known engine answers,
    and ``MissingExtraError`` if the engine's client library is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        engine: str | None = None,
        retry_policy: OrchestratorRetryPolicy | None = None,
        secrets: Mapping[str, str] = {},
        **options: Any,
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        self.url = checked_url(url)
        self.target = redact_url(self.url)
        self.engine = engine
        self._options = options

    @cached_property
    def adapter(self) -> Orchestrator:
        """The engine's own orchestrator."""
        name = self.engine or self._recognized()
        factory = registry.load(name)
        if command := registry.missing(factory):
            raise MissingExtraError(
                f"{name!r} answers at {redact_url(self.url)}, but its extra is not installed: {command}"
                if self.engine is None
                else f"{name!r} needs an extra that is not installed: {command}"
            )
        made = factory(url=self.url, retry_policy=self.retry_policy, secrets=self.secrets, **self._options)
        made.target = self.target
        return made

    def _recognized(self) -> str:
        """Return the engine that answers at the URL, with the same retries as everything else."""
        delays = iter(self.retry_policy.delays if self.retry_policy else ())
        while True:
            try:
                auth = Auth.merged(self._options.get("auth"), Auth.in_url(self.url))
                return recognized_engine(self.url, headers=auth.headers(), tls=self._options.get("tls"))
            except EngineUnreachableError as error:
                if (delay := next(delays, None)) is None or tls_cause(error):
                    raise
                time.sleep(delay)

    @property
    def name(self) -> str:  # type: ignore[override]  # a class variable of the others; here the adapter's
        """The engine's name."""
        return self.adapter.name

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # as above
        """The features that the engine supports."""
        return self.adapter.capabilities

    @property
    def reader(self) -> RunReader:
        return self.adapter.reader

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        return self.adapter.submit(bundle, run_id, parameters, force=force)

    def cancel(self, job_id: str) -> bool:
        return self.adapter.cancel(job_id)

    def run_pipeline(
        self,
        pipeline: RunnablePipeline,
        run_id: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> SubmissionResult:
        stop_if_loading(pipeline.name, "submit")  # before the URL is asked
        return self.adapter.run_pipeline(pipeline, run_id, parameters=parameters, force=force)

    def health(self) -> Health:
        try:
            return self.adapter.health()
        except (EngineError, OrchestratorNotFoundError, MissingExtraError) as error:
            return Health(reachable=False, url=redact_url(self.url), detail=str(error))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of this engine's adapter alone.

        Private names never contact the URL: copying and printing use those.
        """
        asks = not name.startswith("_") and name != "adapter" and "_options" in self.__dict__
        if asks and hasattr(self.adapter, name):
            return getattr(self.adapter, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<RemoteOrchestrator {redact_url(self.url)}>"


def _forward(name: str, item: Any) -> Any:
    """Return a method or property of the class that is that of its adapter."""
    if isinstance(item, property):
        return property(attrgetter(f"adapter.{name}"), doc=item.__doc__)

    @wraps(item)
    def call(self: RemoteOrchestrator, *args: Any, **options: Any) -> Any:
        return getattr(self.adapter, name)(*args, **options)

    return call


for _name, _item in vars(Orchestrator).items():
    is_public = isinstance(_item, FunctionType | property) and not _name.startswith("_")
    if is_public and _name not in {*vars(RemoteOrchestrator), *_COMPOSED}:
        setattr(RemoteOrchestrator, _name, _forward(_name, _item))


def recognized_engine(url: str, *, headers: Mapping[str, str] = {}, tls: Tls | None = None) -> str:
    """Return the name of the engine that answers at a URL.

    Every declared orchestrator is asked whether it recognizes it.
    """
    from flowyml.orchestrators.http import BUSY

    site = Site(url, headers=headers, tls=tls)
    site.get("/")
    broken: dict[str, Exception] = {}
    for name in registry.declared():
        try:
            factory = registry.load(name)
            if isinstance(factory, type) and issubclass(factory, Orchestrator) and factory.recognizes(site):
                return name
        except EngineUnreachableError:
            raise
        except Exception as error:  # a plugin's own trouble must not hide the other engines
            broken[name] = error
    if any(answer.status in (401, 403) for answer in site.seen.values()):
        raise AuthenticationError(
            f"{site.url} requires credentials before it shows which engine it is. Checked:\n"
            f"{_seen(site, broken)}\n"
            f"Name the engine and give its credentials: RemoteOrchestrator(url, engine=…, …) takes the options of that "
            f"engine's orchestrator, and so does a target in flowyml.toml."
        )
    if any(answer.status in BUSY for answer in site.seen.values()):
        raise EngineUnreachableError(
            f"{site.url} is busy, or a proxy there cannot reach the engine. Asked:\n"
            f"{_seen(site, broken)}\n"
            f"Is the server running? Try again, or name the engine yourself with engine=…."
        )
    raise OrchestratorNotFoundError(
        f"No known engine answers at {site.url}. Asked:\n"
        f"{_seen(site, broken)}\n"
        f"Check the address, or name the engine yourself with engine=…."
    )


def _seen(site: Site, broken: Mapping[str, Exception]) -> str:
    seen = [f"  {url} answered {answer}" for url, answer in site.seen.items()]
    unasked = [f"  {name} could not be checked: {error}" for name, error in broken.items()]
    return "\n".join((*seen, *unasked))
