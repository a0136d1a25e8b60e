"""Pipelines, their versions and experiments on a KFP: made when they are missing, found when they are there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from flowyml.artifacts import open_store
from flowyml.core.errors import EngineError, EngineUnreachableError
from flowyml.core.home import home
from flowyml.core.origin import Origin
from flowyml.orchestrators.base import Deployment
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow import names, spec
from flowyml_kubeflow.client import Client, NotFoundError, equals
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.parameters import argument, told
from flowyml_kubeflow.tasks import inputs_of

__all__ = ["Pipelines", "about", "arguments", "facts", "one_at_a_time", "origin_of"]

Json = dict[str, Any]

_ABOUT = "FlowyML: "
_LONGEST = 255  # characters of a description, in MySQL; source: KFP, model/job.go
_OF_A_RUN = "-run"  # ends the name of a version that was neither deployed nor scheduled


class Pipelines:
    """What a KFP knows of pipelines."""

    def __init__(
        self, client: Client, experiment: str, form: str | None, artifacts: str | None, service_account: str | None
    ) -> None:
        self.client = client
        self.service_account = service_account
        self.artifacts = artifacts
        self.experiment = experiment
        self.form = form
        self._experiments: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._versions: dict[tuple[str, str], Any] = {}

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        version, digest, changed = self.deployed(bundle, owns=True, force=force)
        url = self.client.page(f"pipelines/details/{version.pipeline_id}/version/{version.pipeline_version_id}")
        return Deployment(name=bundle.plan.name, digest=digest, changed=changed, url=url)

    def deployed(self, bundle: Bundle, *, owns: bool = False, force: bool = False) -> tuple[Any, str, bool]:
        """The version of the pipeline that is these very bytes; uploads it if KFP has none.

        A version that is deployed or scheduled ``owns`` the pipeline's name: raises ``OwnershipError`` where the
        newest of them comes from another project. One that only a run needs is named so, and owns nothing.
        """
        compiled = self.compiled(bundle)
        if warning := spec.size_warning(compiled):
            warnings.warn(warning, UserWarning, stacklevel=6)
        if compiled.bundle_url:
            _put(compiled.bundle, compiled.bundle_url)
        text = spec.text(compiled)
        digest = hashlib.sha256(text.encode()).hexdigest()
        pipeline = self._pipeline_id(bundle.plan)
        if owns and (newest := self.newest(bundle.plan)):
            what = f"the pipeline {bundle.plan.name!r} on KFP"
            check_replaceable(origin_of(newest), bundle.origin, what, force=force)
        usable = [digest[:16]] if owns else [digest[:16], f"{digest[:16]}{_OF_A_RUN}"]
        found = next((version for name in usable if (version := self._version(pipeline, name))), None)
        made = found or self._uploaded(pipeline, usable[-1], text, _version_description(bundle))
        return self._reference(pipeline, made), digest, found is None

    def compiled(self, bundle: Bundle) -> Compiled:
        """The pipeline as this KFP would get it."""
        compiled = compile_pipeline(bundle, form=self.form, artifacts=self.artifacts)
        spec.validate(compiled)
        return compiled

    def newest(self, plan: Plan) -> Any:
        """The version of a pipeline that was deployed or scheduled last; None where there is none."""
        pipeline = self._pipeline_named(names.pipeline(plan.name))
        if pipeline is None:
            return None
        versions = self.client.pages(
            lambda api: partial(api._pipelines_api.pipeline_service_list_pipeline_versions, pipeline),
            "pipeline_versions", sort_by="created_at desc",
        )  # fmt: skip
        return next((item for item in versions if not str(item.display_name).endswith(_OF_A_RUN)), None)

    def _reference(self, pipeline: str, version: str) -> Any:
        return self.model("V2beta1PipelineVersionReference")(pipeline_id=pipeline, pipeline_version_id=version)

    def _pipeline_id(self, plan: Plan) -> str:
        name = names.pipeline(plan.name)
        if found := self._pipeline_named(name):
            return found
        body = self.model("V2beta1Pipeline")(
            name=name, display_name=name, description=about({"pipeline": plan.name}), **self.scope
        )
        try:
            made = self.client.write(
                lambda api: api._pipelines_api.pipeline_service_create_pipeline(body, **self.client.limits)
            )
            return str(made.pipeline_id)
        except EngineError:
            if found := self._pipeline_named(name):  # another process was faster, or the answer was lost
                return found
            raise

    def pipeline_of(self, run: Any) -> str:
        """The name of a run's pipeline. A scheduled run has no description of its own, so the pipeline's is asked."""
        if told := facts(run.description).get("pipeline"):
            return str(told)
        reference = run.pipeline_version_reference
        if reference is None or not reference.pipeline_id:
            return ""
        if reference.pipeline_id not in self._names:
            self._names[reference.pipeline_id] = self._name_of(reference.pipeline_id)
        return self._names[reference.pipeline_id]

    def _name_of(self, pipeline_id: str) -> str:
        try:
            found = self.client.read(
                lambda api: api._pipelines_api.pipeline_service_get_pipeline(pipeline_id, **self.client.limits)
            )
        except NotFoundError:
            return ""
        return str(facts(found.description).get("pipeline") or found.display_name or "")

    def _pipeline_named(self, name: str) -> str | None:
        try:
            found = self.client.read(
                lambda api: api._pipelines_api.pipeline_service_get_pipeline_by_name(
                    name, **self.scope, **self.client.limits
                )
            )
        except NotFoundError:
            return None
        return str(found.pipeline_id)

    def _version(self, pipeline: str, name: str) -> str | None:
        answer = self.client.read(
            lambda api: api._pipelines_api.pipeline_service_list_pipeline_versions(
                pipeline, page_size=10, filter=equals(name=name), **self.client.limits
            )
        )
        found = [item for item in answer.pipeline_versions or () if name in (item.name, item.display_name)]
        return str(found[0].pipeline_version_id) if found else None  # servers before 2.14 know display names only

    def _uploaded(self, pipeline: str, name: str, text: str, description: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(text, "utf-8")
            try:
                made = self.client.write(
                    lambda api: api._upload_api.upload_pipeline_version(
                        str(path), name=name, pipelineid=pipeline, description=description, **self.client.limits
                    )
                )
                return str(made.pipeline_version_id)
            except EngineError:
                if found := self._version(pipeline, name):
                    return found
                raise

    def spec_of(self, run: Any) -> Json:
        """The pipeline of a run and its platform, as KFP keeps them; those of KFP 1 have none."""
        return dict(run.pipeline_spec or self.version_of(run).pipeline_spec or {})

    def version_of(self, run: Any) -> Any:
        """The version of a pipeline that a run or recurring run is of."""
        reference = run.pipeline_version_reference
        key = (reference.pipeline_id, reference.pipeline_version_id)
        if key not in self._versions:
            self._versions[key] = self.client.read(
                lambda api: api._pipelines_api.pipeline_service_get_pipeline_version(*key, **self.client.limits)
            )
        return self._versions[key]

    def told_parameters(self, item: Any, given: Json) -> Json:
        """The parameters of a run or recurring run by the names and with the types that they have in FlowyML, which the
        pipeline's file tells."""
        reference = item.pipeline_version_reference
        if not given or not (item.pipeline_spec or (reference and reference.pipeline_version_id)):
            return given
        try:
            defined = inputs_of(self.spec_of(item))
        except EngineUnreachableError:
            raise
        except EngineError:  # the version was deleted, or is not for this user to read
            return given
        return dict(told(port, value, defined.get(port, {})) for port, value in given.items())

    def experiment_id(self) -> str:
        if self.experiment not in self._experiments:
            self._experiments[self.experiment] = self._experiment_named() or self._new_experiment()
        return self._experiments[self.experiment]

    def _experiment_named(self) -> str | None:
        found = self.client.pages(
            lambda api: api._experiment_api.experiment_service_list_experiments, "experiments",
            filter=equals(display_name=self.experiment), **self.scope,
        )  # fmt: skip
        return next((str(item.experiment_id) for item in found if item.display_name == self.experiment), None)

    def _new_experiment(self) -> str:
        body = self.model("V2beta1Experiment")(display_name=self.experiment, **self.scope)
        try:
            made = self.client.write(
                lambda api: api._experiment_api.experiment_service_create_experiment(body, **self.client.limits)
            )
            return str(made.experiment_id)
        except EngineError:
            if found := self._experiment_named():
                return found
            raise

    @property
    def scope(self) -> Json:
        """The namespace, for what takes one."""
        return {"namespace": namespace} if (namespace := self.client.namespace) else {}

    def model(self, name: str) -> Any:
        """A class of the official client's models."""
        import kfp_server_api  # type: ignore[import-untyped]  # ships no types

        return getattr(kfp_server_api, name)


def arguments(plan: Plan, parameters: Mapping[str, Any]) -> Json:
    by_name = {item.name: item for item in plan.parameters}
    return {names.port(name): argument(value, by_name[name]) for name, value in parameters.items()}


def about(told: Mapping[str, Any]) -> str:
    """A description that people and FlowyML can read: KFP has no better place for the names of users."""
    return _ABOUT + json.dumps(told, ensure_ascii=False)


def facts(description: str | None) -> Json:
    if not description or not description.startswith(_ABOUT):
        return {}
    try:
        told: Json = json.loads(description.removeprefix(_ABOUT))
    except ValueError:
        return {}
    return told


def origin_of(version: Any) -> Origin | None:
    """Where a version of a pipeline comes from, as far as it was recorded."""
    return Origin.from_dict(facts(version.description).get("origin"))


def _version_description(bundle: Bundle) -> str:
    told: Json = {"code": bundle.code_digest}
    text = about({**told, "origin": bundle.origin.to_dict()} if bundle.origin else told)
    return text if len(text) <= _LONGEST else about(told)


def _put(bundle: Bundle, url: str) -> None:
    """The bundle into its store; its name holds its digest, so what is there is the same."""

    def produce(file: BinaryIO) -> None:
        file.write(bundle.data)

    open_store(url.removesuffix(f"/{bundle.filename}")).write(bundle.filename, produce)


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """On this machine, nobody else creates the same thing meanwhile."""
    folder = home() / "kubeflow" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / hashlib.sha256(what.encode()).hexdigest()[:32]).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
