"""Deploying: the part of an adapter that puts pipelines on an engine without running them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flowyml.core.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = ["Deployer", "Deployment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployed pipeline. ``changed`` is False if the engine already had this very version.

    ``also`` names the pipeline's other deployments that were moved to this version, on an engine that can have several.
    ``scheduled`` is the declared schedule if this deployment has set it.
    """

    name: str
    digest: str
    changed: bool
    url: str | None = None
    also: tuple[str, ...] = ()
    scheduled: str = ""


class Deployer(Protocol):
    """Deploys bundles to one engine. ``ownership.check_replaceable`` decides what a deployment may replace."""

    @abstractmethod
    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        """Deploy a bundle. Raises ``OwnershipError`` if that would replace another pipeline's deployment."""

    def diff(self, bundle: Bundle) -> str:
        """Return the changes that deploying this bundle would make, as a unified diff; empty if there are none."""
        raise UnsupportedFeatureError("deploy --dry-run is not available on this engine.")

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        """Raise what ``deploy`` would raise, as far as possible without changing anything."""

    def undeploy(
        self, pipeline: str, *, folder: str | None = None, runs: bool = False, dry_run: bool = False,
        force: bool = False,
    ) -> Sequence[str]:  # fmt: skip
        """Remove a pipeline, with ``runs`` also its records; return what was, or with ``dry_run`` would be, removed.

        The records can also be removed when the pipeline is gone. ``folder`` is one that ``compile`` wrote: then the
        engine is not asked. Raises ``DeploymentError`` if the pipeline is not there, and while runs are in progress,
        unless ``force`` is set without ``runs``; and ``OwnershipError`` for what was changed by hand, without
        ``force``.
        """
        raise UnsupportedFeatureError(
            "undeploy is not available on this engine. For files of Airflow, add --on airflow."
        )
