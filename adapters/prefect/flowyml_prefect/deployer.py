"""Deploy a bundle to Prefect: one deployment for each pipeline and target, changed in place.

Only deploying and scheduling change a deployment or a schedule. A run of other code, or of another project's pipeline
of the same name, gets a deployment of its own. The owner of a deployment is recorded in its parameter schema, under a
key that begins with ``x-`` like OpenAPI's extensions: Prefect keeps such keys, and its labels cannot be changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any

from flowyml.artifacts import default_url, open_store
from flowyml.artifacts.store import Written
from flowyml.core.errors import ArtifactError, ConfigurationError, EngineError, RetryRefusedError
from flowyml.core.files import write_whole
from flowyml.core.origin import Origin
from flowyml.core.runs import Run
from flowyml.core.urls import refuse_credentials
from flowyml.orchestrators.deployer import Deployer, Deployment
from flowyml.orchestrators.http import NotFoundError
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.plan.differences import bundle_difference, difference
from flowyml.plan.model import Plan
from flowyml.plan.names import slug
from flowyml.runtime.kept_outputs import KEEP
from flowyml_prefect.automations import AUTOMATIONS, DETACHED_TAG, HEARTBEAT_SECONDS
from flowyml_prefect.client import TAG, PrefectClient
from flowyml_prefect.compiler import compile_flow, flow_function, is_walked, task_functions, with_worker
from flowyml_prefect.names import PIPELINE, deployment_name, flow_name, plan_key, version_name
from flowyml_prefect.parameters import parameter_schema
from flowyml_prefect.pruning import flow_places, note_server, version_folder
from flowyml_prefect.reader import is_of_its_version
from flowyml_prefect.records import FlowRun
from flowyml_prefect.schedule import SET, is_ours
from flowyml_prefect.server import prefect_home, server_name
from flowyml_prefect.step_runs import planned_rows

if TYPE_CHECKING:
    from flowyml.plan.bundle import Bundle

__all__ = ["Deployed", "Owner", "PrefectDeployer", "Target", "published_folder"]

logger = logging.getLogger("flowyml.prefect")

# Schemes of URLs that begin with a bucket, as Prefect's own pull step assumes.
_BUCKETS = ("s3://", "gs://", "gcs://", "az://", "abfs://", "abfss://")
_COMPARED = ("version", "entrypoint", "pull_steps", "job_variables", "tags")
_OWNER = "x-flowyml"
_TRIES = 3  # at a run, where another version is deployed each time


@dataclass(frozen=True, slots=True)
class Target:
    """The executor of a deployment's runs, and the store of their large outputs. No pool: processes on this machine."""

    pool: str | None
    artifacts: str | None

    @property
    def store(self) -> str:
        """The store of large outputs.

        Raises ``ConfigurationError`` for credentials in it: all users of the server see it.
        """
        return refuse_credentials(self.artifacts or default_url(), "artifacts")

    @property
    def takes_code(self) -> bool:
        """True if workers fetch the code from the store of outputs; otherwise they must see this machine's folder."""
        return self.pool is not None and self.store.startswith(_BUCKETS)

    @property
    def environment(self) -> dict[str, str]:
        """Settings of the process of a flow."""
        return {
            "FLOWYML_ARTIFACTS": self.store,
            KEEP: "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        }


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a deployment: the origin of its pipeline, and whether it was deployed or only created for a run."""

    origin: Origin | None
    is_deployed: bool

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> Owner:
        """Read the owner.

        If another tool has rewritten the parameters, a deployment with a schedule counts as deployed.
        """
        plain = (deployment.get("parameter_openapi_schema") or {}).get(_OWNER)
        if not isinstance(plain, Mapping):
            return cls(None, any(is_ours(schedule) for schedule in deployment.get("schedules") or ()))
        return cls(Origin.from_dict(plain.get("origin")), bool(plain.get("deployed")))

    def to_dict(self) -> dict[str, Any]:
        return {"origin": self.origin.to_dict() if self.origin else None, "deployed": self.is_deployed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed(Deployment):
    """A deployment on the server."""

    id: str
    entrypoint: str
    labels: Mapping[str, str]


@dataclass
class PrefectDeployer(Deployer):
    """Deploys to one server. Deployments that are known to be up to date are not requested again.

    ``target`` is where runs are executed, unless a call names another target.
    """

    client: PrefectClient
    target: Target
    _known: dict[tuple[str, Target], Deployed] = field(default_factory=dict, init=False)

    def make_run(
        self,
        bundle: Bundle,
        request: Mapping[str, Any],
        writing: Callable[[], AbstractContextManager[object]],
    ) -> tuple[FlowRun, Deployed]:
        """Create a run, or return the run that has this idempotency key, and its deployment. ``writing`` is a lock.

        Another process may have deployed another version since the deployment was read, or deleted it. A run of another
        version would execute other code than it says, so it is withdrawn. Raises ``EngineError`` if that is too late,
        or if the deployment changes at each try.
        """
        for _ in range(_TRIES):
            deployed = self.for_run(bundle)
            labels = {**deployed.labels, **request["labels"]}
            try:
                with writing():
                    run = self.client.create_run(deployed.id, {**request, "labels": labels})
            except NotFoundError:
                self._forget(deployed)
                continue
            if is_of_its_version(run):
                return run, deployed
            self._forget(deployed)
            if run.state_type != "SCHEDULED":
                raise EngineError(
                    f"Run {request['name']!r} is of version {run.version} of {bundle.plan.name!r}, not of the code "
                    f"that was submitted: that version was deployed meanwhile. Submit it again under another run id."
                )
            self.client.delete_run(run.id)
        raise EngineError(
            f"The deployment of {bundle.plan.name!r} was replaced or deleted {_TRIES} times while run "
            f"{request['name']!r} was submitted. Submit it again."
        )

    def for_run(self, bundle: Bundle) -> Deployed:
        """Return the deployment of a run: the pipeline's own if this very version is deployed.

        Otherwise one that is created for runs. The workers of a pool find the code by the deployment, and only when a
        run begins; so on a pool each version has a deployment of its own, which stays unchanged for the runs that wait.
        """
        target = self.target
        key = (bundle.digest, target)
        if known := self._known.get(key):
            with suppress(OSError):  # used again: `prune` leaves it
                os.utime(published_folder(bundle))
            return known
        self._check_pool(target)
        ours = Owner(bundle.origin, is_deployed=False)
        flow, name = flow_name(bundle.plan.name), deployment_name(bundle.plan.name, target.pool)
        existing = self.client.deployment(flow, name)
        owner = Owner.of(existing) if existing else ours
        if (
            existing
            and owner != ours
            and not _changes(existing, _body(bundle, target, published_folder(bundle), owner, existing))
        ):
            ours = owner
        elif target.pool is not None:
            name = version_name(name, bundle.digest[:16])
            existing = self.client.deployment(flow, name)
        elif owner != ours and (owner.is_deployed or owner.origin is not None):
            name = f"{name}, runs of {slug(str(bundle.origin or 'a bundle'))}"
            existing = self.client.deployment(flow, name)
        return self._remember(key, self._put(bundle, target, name, existing, ours))

    def bundle_of(self, run: Run, version: str) -> Bundle:
        """Return the bundle of a run, if this machine has it. Raises ``RetryRefusedError``."""
        from flowyml.plan.bundle import Bundle

        folder = _folder(run.pipeline, version)
        path = next(folder.glob("*.pyz"), None)
        if path is None:
            raise RetryRefusedError(
                f"The code of run {run.run_id!r} is not in {folder}: it is on another machine, or was deleted. "
                f"Retry or compare the run there, or start a new run."
            )
        return Bundle.read(path)

    def entrypoint_of(self, run: Run, version: str, *, pooled: bool) -> str:
        """Return the entrypoint of the flow that continues a run. Raises ``RetryRefusedError``.

        A flow without control flow cannot continue a run, since it does not read earlier results. So another flow is
        written beside it.
        """
        folder, bundle = _folder(run.pipeline, version), self.bundle_of(run, version)
        if is_walked(bundle.plan):
            return f"{folder / 'flow.py'}:{flow_function(bundle.plan)}"
        if pooled:
            raise RetryRefusedError(
                f"Run {run.run_id!r} cannot be retried from its failed steps: its flow has no loop, branch, run_if, "
                f"clean-up or execution group, so a worker would run all steps again. Prefect's own Retry does that."
            )
        path = folder / "again.py"
        write_whole(path, compile_flow(bundle, walks=True).encode())
        return f"{path}:{flow_function(bundle.plan)}"

    def deploy(self, bundle: Bundle, *, force: bool = False, target: Target | None = None) -> Deployed:
        """Deploy, and move all deployments of this pipeline on other targets to this version too.

        Raises ``OwnershipError`` if another project's pipeline of this name is deployed, unless ``force``.
        """
        bundle, target = with_worker(bundle), target or self.target
        existing = self._replaceable(bundle, target, force)
        ours = Owner(bundle.origin, is_deployed=True)
        flow, name = flow_name(bundle.plan.name), deployment_name(bundle.plan.name, target.pool)
        result = self._put(bundle, target, name, existing, ours)
        others = [other for other in self.client.deployments(flow) if other["id"] != result.id]
        moved = [self._move(other, bundle, ours, force) for other in others if Owner.of(other).is_deployed]
        also = tuple(filter(None, moved))
        return self._remember((bundle.digest, target), replace(result, also=also, changed=result.changed or bool(also)))

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        self._replaceable(bundle, self.target, force)

    def _replaceable(self, bundle: Bundle, target: Target, force: bool) -> dict[str, Any] | None:
        """Return the deployment of this name on this target. Raises what ``deploy`` raises, and changes nothing."""
        self._check_pool(target)
        flow, name = flow_name(bundle.plan.name), deployment_name(bundle.plan.name, target.pool)
        existing = self.client.deployment(flow, name)
        if existing is not None and (owner := Owner.of(existing)).is_deployed:
            check_replaceable(owner.origin, bundle.origin, f"the deployment {flow}/{name}", force=force)
        return existing

    def diff(self, bundle: Bundle) -> str:
        bundle = with_worker(bundle)
        flow, name = flow_name(bundle.plan.name), deployment_name(bundle.plan.name, self.target.pool)
        existing = self.client.deployment(flow, name)
        first = [_difference(name, bundle, self.target, existing)]
        others = [other for other in self.client.deployments(flow) if existing is None or other["id"] != existing["id"]]
        moved = [other for other in others if Owner.of(other).is_deployed]
        return "".join(first + [_difference(other["name"], bundle, _target_of(other), other) for other in moved])

    def _move(self, existing: Mapping[str, Any], bundle: Bundle, ours: Owner, force: bool) -> str | None:
        """Move a deployment on another target to this version; return its name if it had to be moved."""
        origin = Owner.of(existing).origin
        if not force and origin not in (None, bundle.origin):
            logger.warning("The deployment %r comes from %s and is left unchanged.", existing["name"], origin)
            return None
        moved = self._put(bundle, _target_of(existing), existing["name"], existing, ours)
        self._forget(moved)
        return moved.name if moved.changed else None

    def _remember(self, key: tuple[str, Target], deployed: Deployed) -> Deployed:
        self._forget(deployed)  # it has replaced the former deployment
        self._known[key] = replace(deployed, changed=False, also=())
        return deployed

    def _forget(self, replacement: Deployed) -> None:
        self._known = {key: known for key, known in self._known.items() if known.id != replacement.id}

    def _check_pool(self, target: Target) -> None:
        if target.pool is not None and self.client.work_pool(target.pool) is None:
            raise ConfigurationError(
                f"Prefect at {self.client.connection.ui_url} has no work pool {target.pool!r}. "
                f"`prefect work-pool create {shlex.quote(target.pool)} --type process` makes one."
            )

    def _put(
        self, bundle: Bundle, target: Target, name: str, former: Mapping[str, Any] | None, owner: Owner
    ) -> Deployed:
        """Create the deployment of this name, or change it if it differs."""
        plan, client = bundle.plan, self.client
        folder = _publish(bundle)
        note_server(folder, server_name(client.connection))
        labels = {PIPELINE: plan.name}
        flow = flow_name(plan.name)
        body = _body(bundle, target, folder, owner, former)
        changed = former is None or _changes(former, body)
        if target.takes_code:
            _upload(folder, bundle, target.store)
        if changed:  # a failure repeats all of it: the deployment, which records the state, is written last
            self._keep_plan(plan, body["version"])
            for automation in AUTOMATIONS:
                client.ensure_automation(automation)
        if former is None:
            flow_id = client.create_flow(flow, labels)
            pool = {} if target.pool is None else {"work_pool_name": target.pool}
            request = {**body, **pool, "name": name, "flow_id": flow_id, "labels": labels}
            former = client.create_deployment(request)
        elif changed or Owner.of(former) != owner:
            client.update_deployment(former["id"], body)
        url = f"{client.connection.ui_url}/deployments/deployment/{former['id']}"
        entrypoint = f"{folder / 'flow.py'}:{flow_function(plan)}"
        return Deployed(
            id=former["id"], name=f"{flow}/{name}", digest=bundle.digest, url=url, entrypoint=entrypoint, labels=labels,
            changed=changed,
        )  # fmt: skip

    def _keep_plan(self, plan: Plan, version: str) -> None:
        """Store the steps of a version as an artifact: for people, and for handles in processes that have no plan."""
        table = planned_rows(plan, task_functions(plan))
        self.client.create_artifact(
            {"key": plan_key(plan.name), "type": "table", "data": table, "description": version}
        )


def _body(
    bundle: Bundle, target: Target, folder: Path, owner: Owner, existing: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the fields of a deployment that FlowyML sets. Job variables that others have set stay as they are."""
    plan = bundle.plan
    tags = [TAG, *plan.tags, *([DETACHED_TAG] if target.pool is None else [])]
    variables = dict((existing or {}).get("job_variables") or {})
    noted = ((existing or {}).get("parameter_openapi_schema") or {}).get(SET)
    schema = {**parameter_schema(plan), _OWNER: owner.to_dict(), **({SET: noted} if noted else {})}
    if target.pool is not None:
        variables["env"] = {**(variables.get("env") or {}), **target.environment}
    return {
        "version": bundle.digest[:16],
        "description": plan.description,
        "tags": list(dict.fromkeys(tags)),
        "entrypoint": f"flow.py:{flow_function(plan)}",
        "pull_steps": [_pull_step(target, folder)],
        "parameter_openapi_schema": schema,
        "enforce_parameter_schema": True,
        "job_variables": variables,
    }


def _target_of(existing: Mapping[str, Any]) -> Target:
    variables = (existing.get("job_variables") or {}).get("env") or {}
    return Target(existing.get("work_pool_name"), variables.get("FLOWYML_ARTIFACTS"))


def _difference(name: str, bundle: Bundle, target: Target, former: Mapping[str, Any] | None) -> str:
    body = _body(bundle, target, published_folder(bundle), Owner(bundle.origin, is_deployed=True), former)
    if former is None:
        return difference(f"{name}.json", "", _options(body))
    if not _changes(former, body):
        return ""
    old = _bundle_of(former)
    code = bundle_difference(old, bundle) if old else f"{name}: the code of version {former['version']} is not here.\n"
    return difference(f"{name}.json", _options(former), _options(body)) + code


def _options(deployment: Mapping[str, Any]) -> str:
    """Return the fields that people set and read, as text to compare. PostgreSQL does not keep the order of names."""
    options = {part: deployment.get(part) for part in ("version", "description", "tags", "job_variables")}
    schema = deployment.get("parameter_openapi_schema") or {}
    origin = Owner.of(deployment).origin
    options |= {"parameters": schema.get("properties"), "from": str(origin) if origin else None}
    return json.dumps(options, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _bundle_of(existing: Mapping[str, Any]) -> Bundle | None:
    """Return the deployed bundle, if this machine has it."""
    from flowyml.plan.bundle import Bundle

    for place in flow_places(existing):
        for path in (prefect_home() / "flows" / place.name).glob("*.pyz"):
            return Bundle.read(path)
    return None


def _changes(existing: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    return any(existing.get(part) != body[part] for part in _COMPARED)


def _pull_step(target: Target, folder: Path) -> dict[str, dict[str, str]]:
    """Return the step by which a worker gets the code: one of Prefect's own, which needs no FlowyML there."""
    if target.takes_code:
        url = f"{target.store.rstrip('/')}/{_key(folder)}"
        return {"prefect.deployments.steps.pull_from_remote_storage": {"url": url}}
    return {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}


def _upload(folder: Path, bundle: Bundle, store: str) -> None:
    """Upload the code beside the outputs, each version into a folder of its own, unless it is there, unchanged.

    A lifecycle rule of the store may have deleted it.
    """
    place = open_store(store)
    for name in (bundle.filename, "flow.py"):
        key, data = f"{_key(folder)}/{name}", (folder / name).read_bytes()
        there = Written(f"{place.url}/{key}", hashlib.sha256(data).hexdigest(), len(data))
        try:
            with place.fetch(there):
                pass
        except ArtifactError:
            place.write(key, partial(copyfileobj, BytesIO(data)))


def _key(folder: Path) -> str:
    return f"flows/{folder.name}"


def published_folder(bundle: Bundle) -> Path:
    """Return the folder for flow.py and the bundle. Each version has its own, so that an active run keeps its code."""
    return _folder(bundle.plan.name, bundle.digest[:16])


def _folder(pipeline: str, version: str) -> Path:
    return prefect_home() / "flows" / version_folder(pipeline, version)


def _publish(bundle: Bundle) -> Path:
    """Write the compiled flow and its bundle into that folder."""
    folder = published_folder(bundle)
    text = compile_flow(bundle)
    bundle.write(folder)
    path = folder / "flow.py"
    if not path.is_file() or path.read_text("utf-8") != text:
        write_whole(path, text.encode())
    return folder
