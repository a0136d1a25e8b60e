"""Deploying on this machine: a bundle in FlowyML's data folder, which the pipeline's schedule runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowyml.core.home import home
from flowyml.orchestrators.deployer import Deployer, Deployment
from flowyml.orchestrators.local.schedules import ScheduleStore
from flowyml.plan.bundle import Bundle
from flowyml.plan.differences import bundle_difference

__all__ = ["LocalDeployer"]


@dataclass(frozen=True)
class LocalDeployer(Deployer):
    """Stores bundles by ``write_bundle``, which returns the path."""

    store: ScheduleStore
    write_bundle: Callable[[Bundle], Path]

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        is_new = not (home() / "bundles" / bundle.filename).exists()
        path = self.write_bundle(bundle)
        moved = self.store.move(bundle.plan, str(path), bundle.origin, force=force)
        return Deployment(
            name=bundle.plan.name, digest=bundle.digest, changed=is_new or bool(moved), url=path.as_uri(),
            also=tuple(f"schedule {schedule_id!r}" for schedule_id in moved),
        )  # fmt: skip

    def diff(self, bundle: Bundle) -> str:
        """Return the changes between the bundle that the pipeline's schedule runs now and this one."""
        scheduled = self.store.all(bundle.plan.name)
        if scheduled:
            return bundle_difference(Bundle.read(scheduled[0].bundle), bundle)
        path = home() / "bundles" / bundle.filename
        return "" if path.exists() else f"A new bundle, {path}. No schedule runs this pipeline.\n"

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        self.store.check_move(bundle.plan, bundle.origin, force=force)
