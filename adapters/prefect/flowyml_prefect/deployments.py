"""A bundle becomes a Prefect deployment: one for each pipeline and target, changed in place."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flowyml.artifacts import default_url, open_store
from flowyml.core.errors import ConfigurationError
from flowyml.plan.model import Plan
from flowyml.plan.names import slug
from flowyml_prefect.client import TAG, PrefectClient
from flowyml_prefect.compiler import compile_flow, flow_function, flow_name, plan_key, task_functions
from flowyml_prefect.parameters import parameter_schema
from flowyml_prefect.server import prefect_home
from flowyml_prefect.zombies import AUTOMATIONS, DETACHED_TAG, HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = ["Deployed", "Deployments", "Target"]

# Where the first part of a URL is a bucket, which is what Prefect's own pull step takes it for.
_BUCKETS = ("s3://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
_COMPARED = ("version", "entrypoint", "pull_steps", "job_variables", "tags")


@dataclass(frozen=True, slots=True)
class Target:
    """Who executes a deployment's runs, and where their large outputs go. No pool: processes on this machine."""

    pool: str | None
    artifacts: str | None

    @property
    def store(self) -> str:
        """Where large outputs go."""
        return self.artifacts or default_url()

    @property
    def takes_code(self) -> bool:
        """Whether workers fetch the code from where the outputs go; else they must see this machine's folder of it."""
        return self.pool is not None and self.store.startswith(_BUCKETS)

    @property
    def environment(self) -> dict[str, str]:
        """Settings of the process of a flow."""
        return {
            "FLOWYML_ARTIFACTS": self.store,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A deployment as it stands on the server."""

    id: str
    name: str
    url: str
    entrypoint: str
    labels: Mapping[str, str]
    changed: bool


@dataclass
class Deployments:
    """What was deployed to one server. What is known to stand there is not asked for again."""

    client: PrefectClient
    _known: dict[tuple[str, Target], Deployed] = field(default_factory=dict, init=False)

    def deployed(self, bundle: Bundle, target: Target) -> Deployed:
        """Deploy, unless this very version is deployed."""
        key = (bundle.digest, target)
        if known := self._known.get(key):
            return known
        made = self._deploy(bundle, target)
        self._known = {
            other: deployed for other, deployed in self._known.items() if deployed.id != made.id
        }  # what stood there before does so no more
        self._known[key] = _unchanged(made)
        return made

    def _deploy(self, bundle: Bundle, target: Target) -> Deployed:
        plan, client = bundle.plan, self.client
        if target.pool is not None and client.work_pool(target.pool) is None:
            raise ConfigurationError(
                f"Prefect at {client.connection.ui_url} has no work pool {target.pool!r}. "
                f"`prefect work-pool create {shlex.quote(target.pool)} --type process` makes one."
            )
        folder = _published(bundle)
        labels = {"flowyml.pipeline": plan.name}
        flow, name = flow_name(plan.name), deployment_name(plan.name, target)
        body = _body(bundle, target, folder)
        found = client.deployment(flow, name)
        changed = found is None or any(found.get(part) != body[part] for part in _COMPARED)
        if changed and target.takes_code:
            _upload(folder, bundle, target.store)
        if found is None:
            flow_id = client.create_flow(flow, labels)
            found = client.create_deployment({**body, "name": name, "flow_id": flow_id, "labels": labels})
        elif changed:
            client.update_deployment(found["id"], body)
        if changed:
            self._keep_plan(plan, body["version"])
            for automation in AUTOMATIONS:
                client.ensure_automation(automation)
        url = f"{client.connection.ui_url}/deployments/deployment/{found['id']}"
        entrypoint = f"{folder / 'flow.py'}:{flow_function(plan)}"
        return Deployed(
            id=found["id"], name=f"{flow}/{name}", url=url, entrypoint=entrypoint, labels=labels, changed=changed
        )

    def _keep_plan(self, plan: Plan, version: str) -> None:
        """The steps of each version as an artifact: for people, and for handles in processes that have no plan."""
        functions = task_functions(plan)
        table = [{"step": step.name, "after": ", ".join(step.upstream), "task": functions[step.name]} for step in plan]
        self.client.create_artifact(
            {"key": plan_key(plan.name), "type": "table", "data": table, "description": version}
        )


def deployment_name(pipeline: str, target: Target) -> str:
    """The pipeline's name; a work pool makes it another deployment."""
    name = flow_name(pipeline)
    return name if target.pool is None else f"{name} on {target.pool}"


def _body(bundle: Bundle, target: Target, folder: Path) -> dict[str, Any]:
    plan = bundle.plan
    tags = [TAG, *plan.tags, *([DETACHED_TAG] if target.pool is None else [])]
    body: dict[str, Any] = {
        "version": bundle.digest[:16],
        "description": plan.description,
        "tags": list(dict.fromkeys(tags)),
        "entrypoint": f"flow.py:{flow_function(plan)}",
        "pull_steps": [_pull_step(target, folder)],
        "parameter_openapi_schema": parameter_schema(plan),
        "enforce_parameter_schema": True,
        "job_variables": {},
    }
    if target.pool is not None:
        body |= {"work_pool_name": target.pool, "job_variables": {"env": target.environment}}
    return body


def _pull_step(target: Target, folder: Path) -> dict[str, dict[str, str]]:
    """How a worker comes to the code: one of Prefect's own steps, which needs no FlowyML there."""
    if target.takes_code:
        url = f"{target.store.rstrip('/')}/{_key(folder)}"
        return {"prefect.deployments.steps.pull_from_remote_storage": {"url": url}}
    return {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}


def _upload(folder: Path, bundle: Bundle, store: str) -> None:
    """Put the code beside the outputs. A version has a place of its own there too."""
    place = open_store(store)
    for name in (bundle.filename, "flow.py"):
        place.write(f"{_key(folder)}/{name}", partial(_copy, folder / name))


def _copy(path: Path, file: BinaryIO) -> None:
    file.write(path.read_bytes())


def _key(folder: Path) -> str:
    return f"flows/{folder.name}"


def _published(bundle: Bundle) -> Path:
    """The folder with flow.py and the bundle. A version has its own, so that a run under way keeps its code."""
    folder = prefect_home() / "flows" / f"{slug(bundle.plan.name)}-{bundle.digest[:16]}"
    text = compile_flow(bundle)
    bundle.write(folder)
    path = folder / "flow.py"
    if not path.is_file() or path.read_text("utf-8") != text:
        fresh = folder / f".flow-{os.getpid()}.py"
        fresh.write_text(text, "utf-8")
        fresh.replace(path)
    return folder


def _unchanged(deployed: Deployed) -> Deployed:
    from dataclasses import replace

    return replace(deployed, changed=False)
