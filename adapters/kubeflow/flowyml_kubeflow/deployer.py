"""Deploy to KFP: find pipelines, versions and experiments, and create missing ones; show the changes beforehand."""

from __future__ import annotations

import base64
import bz2
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flowyml.artifacts import open_store
from flowyml.core.errors import EngineError, PlanError, RetryRefusedError
from flowyml.core.home import home
from flowyml.core.locks import held
from flowyml.core.origin import Origin
from flowyml.core.web import parsed
from flowyml.orchestrators.deployer import Deployer, Deployment
from flowyml.orchestrators.http import NotFoundError
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml_kubeflow import names, spec
from flowyml_kubeflow.client import MAYBE_DONE, Client, equals
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.parameters import read_back

if TYPE_CHECKING:
    from flowyml_kubeflow.scheduler import KubeflowScheduler

__all__ = [
    "LONGEST_DESCRIPTION", "KubeflowDeployer", "Pipelines", "description", "difference", "facts", "one_at_a_time",
    "origin_of",
]  # fmt: skip

Json = dict[str, Any]
Texts = dict[str, list[str]]

LONGEST_DESCRIPTION = 255  # characters, in MySQL; source: KFP, model/run.go and model/job.go

_LARGEST_CODE = 1 << 26  # bytes of a bundle in a file, unpacked: Argo takes files of 1 MiB
_ABOUT = "FlowyML: "
_SHOWN = ("code/", "objects/", "plan.json")  # FlowyML's own part of a bundle changes with FlowyML
_DIGEST = re.compile("[0-9a-f]{64}")
_OF_A_RUN = "-run"  # ends the name of a version that was neither deployed nor scheduled


class KubeflowDeployer(Deployer):
    """Deploys to a KFP: uploads a new version, which the pipeline's schedule runs from now on."""

    def __init__(self, scheduler: KubeflowScheduler) -> None:
        self.scheduler = scheduler
        self.pipelines = scheduler.pipelines

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        version, digest, changed = self.pipelines.ensure_uploaded(bundle, owns=True, force=force)
        page = f"pipelines/details/{version.pipeline_id}/version/{version.pipeline_version_id}"
        self.scheduler.move(bundle, force=force)
        url = self.pipelines.client.connection.page(page)
        return Deployment(name=bundle.plan.name, digest=digest, changed=changed, url=url)

    def diff(self, bundle: Bundle) -> str:
        newest = self.pipelines.newest(bundle.plan)
        changes = difference(newest.pipeline_spec if newest else None, self.pipelines.compiled(bundle))
        return f"{changes}{self.scheduler.moved(bundle.plan)}" if changes else ""

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        self.pipelines.checked(bundle)
        self.pipelines.check_owner(bundle, force=force)
        self.scheduler.check_move(bundle, force=force)


class Pipelines:
    """The pipelines on a KFP."""

    def __init__(self, client: Client, experiment: str, artifacts: str | None, service_account: str | None) -> None:
        self.client = client
        self.service_account = service_account
        self.artifacts = artifacts
        self.experiment = experiment
        self._experiments: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._versions: dict[tuple[str, str], Any] = {}

    def ensure_uploaded(
        self, bundle: Bundle, parameters: Mapping[str, Any] | None = None, *, owns: bool = False, force: bool = False
    ) -> tuple[Any, str, bool]:
        """Return the version of the pipeline with exactly these bytes; uploaded if KFP has none.

        Raises ``UnsupportedFeatureError`` if a run with these parameters would be too large.

        A version that is deployed or scheduled ``owns`` the pipeline's name: raises ``OwnershipError`` if the newest of
        them is from another project. A version for a run only is named accordingly, and owns nothing.
        """
        compiled = self.checked(bundle, parameters)
        if compiled.bundle_url:
            _put(compiled.bundle, compiled.bundle_url)
        text = spec.compact(compiled)
        digest = hashlib.sha256(text.encode()).hexdigest()
        pipeline = self._pipeline_id(bundle.plan)
        if owns:
            self.check_owner(bundle, force=force)
        usable = [digest[:16]] if owns else [digest[:16], f"{digest[:16]}{_OF_A_RUN}"]
        existing = next((version for name in usable if (version := self._version(pipeline, name))), None)
        version_id = existing or self._upload(pipeline, usable[-1], text, _version_description(bundle))
        reference = self.client.model(
            "V2beta1PipelineVersionReference", pipeline_id=pipeline, pipeline_version_id=version_id
        )  # fmt: skip
        return reference, digest, existing is None

    def check_owner(self, bundle: Bundle, *, force: bool = False) -> None:
        """Raise ``OwnershipError`` if the newest version that was deployed or scheduled is another project's."""
        if newest := self.newest(bundle.plan):
            what = f"the pipeline {bundle.plan.name!r} on KFP"
            check_replaceable(origin_of(newest), bundle.origin, what, force=force)

    def compiled(self, bundle: Bundle, release: tuple[int, ...] | None = None) -> Compiled:
        """Return the pipeline as this KFP would get it, whose release is asked where it is not given."""
        release = self.client.connection.release() if release is None else release
        compiled = compile_pipeline(bundle, artifacts=self.artifacts, release=release)
        spec.validate(compiled)
        return compiled

    def checked(self, bundle: Bundle, parameters: Mapping[str, Any] | None = None) -> Compiled:
        """Return the compiled pipeline if this KFP can run it. Raises ``UnsupportedFeatureError``."""
        release = self.client.connection.release()
        compiled = self.compiled(bundle, release)
        spec.check_fields(compiled, release)
        spec.check_size(compiled, release, parameters)
        return compiled

    def newest(self, plan: Plan) -> Any:
        """Return the version of a pipeline that was deployed or scheduled last; None if there is none."""
        pipeline = self._pipeline_named(names.pipeline(plan.name))
        if pipeline is None:
            return None
        versions = self.client.pages(
            "pipeline_service_list_pipeline_versions", "pipeline_versions", pipeline, sort_by="created_at desc",
        )  # fmt: skip
        return next((item for item in versions if not str(item.display_name).endswith(_OF_A_RUN)), None)

    def _pipeline_id(self, plan: Plan) -> str:
        name = names.pipeline(plan.name)
        if existing := self._pipeline_named(name):
            return existing
        body = self.client.model(
            "V2beta1Pipeline",
            name=name,
            display_name=name,
            description=description({"pipeline": plan.name}),
            **self.client.connection.scope,
        )
        try:
            pipeline = self.client.call_once("pipeline_service_create_pipeline", body)
            return str(pipeline.pipeline_id)
        except EngineError:
            if existing := self._pipeline_named(name):  # another process was faster, or the answer was lost
                return existing
            raise

    def pipeline_of(self, run: Any) -> str:
        """Return the name of a run's pipeline. A scheduled run has no description, so the pipeline's is read."""
        if name := facts(run.description).get("pipeline"):
            return str(name)
        reference = run.pipeline_version_reference
        if reference is None or not reference.pipeline_id:
            return ""
        if reference.pipeline_id not in self._names:
            self._names[reference.pipeline_id] = self._name_of(reference.pipeline_id)
        return self._names[reference.pipeline_id]

    def _name_of(self, pipeline_id: str) -> str:
        try:
            pipeline = self.client.call("pipeline_service_get_pipeline", pipeline_id)
        except NotFoundError:
            return ""
        return str(facts(pipeline.description).get("pipeline") or pipeline.display_name or "")

    def _pipeline_named(self, name: str) -> str | None:
        try:
            pipeline = self.client.call("pipeline_service_get_pipeline_by_name", name, **self.client.connection.scope)
        except NotFoundError:
            return None
        return str(pipeline.pipeline_id)

    def _version(self, pipeline: str, name: str) -> str | None:
        answer = self.client.call(
            "pipeline_service_list_pipeline_versions", pipeline, page_size=10, filter=equals(name=name)
        )
        versions = [item for item in answer.pipeline_versions or () if name in (item.name, item.display_name)]
        return str(versions[0].pipeline_version_id) if versions else None  # servers before 2.14 know display names only

    def _upload(self, pipeline: str, name: str, text: str, description: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(text, "utf-8")
            try:
                version = self.client.call_once(
                    "upload_pipeline_version", str(path), name=name, pipelineid=pipeline, description=description
                )
                return str(version.pipeline_version_id)
            except EngineError:
                if existing := self._version(pipeline, name):
                    return existing
                raise

    def spec_of(self, run: Any) -> Json:
        """Return the pipeline of a run and its platform, from KFP; runs of KFP 1 have none.

        Raises ``NotFoundError`` if the version of the pipeline was deleted, which alone has them.
        """
        version = None if run.pipeline_spec else self.version_of(run)
        if document := run.pipeline_spec or (version and version.pipeline_spec):
            return dict(document)
        raise NotFoundError(
            f"The pipeline version of run {run.display_name!r} was deleted from KFP at "
            f"{self.client.connection.where}, and with it what KFP knew of its steps."
        )

    def bundle_of(self, run: Any) -> Bundle:
        """Return the bundle in the pipeline of a run. Raises ``RetryRefusedError`` if it is elsewhere, or deleted."""
        try:
            bundle = _bundle_in(_parts(*spec.documents(self.spec_of(run)))[0])
        except NotFoundError as error:
            raise RetryRefusedError(str(error)) from error
        if bundle is None:
            raise RetryRefusedError(
                f"The code of run {run.display_name!r} is not in its pipeline on KFP: it is in a store, or another "
                f"FlowyML packed it. To retry the run with new code, start a new run."
            )
        return bundle

    def version_of(self, run: Any) -> Any:
        """Return the version of a pipeline of a run or recurring run.

        None if it was deleted, or never existed since the run was created from a file.
        """
        reference = run.pipeline_version_reference
        if reference is None:
            return None
        key = (reference.pipeline_id, reference.pipeline_version_id)
        if key not in self._versions:
            try:
                self._versions[key] = self.client.call("pipeline_service_get_pipeline_version", *key)
            except NotFoundError:
                self._versions[key] = None
        return self._versions[key]

    def parameters_of(self, item: Any) -> Json:
        """Return the parameters of a run or recurring run, with names and types from the pipeline's file."""
        parameters: Json = (item.runtime_config.parameters or {}) if item.runtime_config else {}
        if not parameters:
            return parameters
        try:
            defined = spec.inputs_of(self.spec_of(item))
            return dict(read_back(port, value, defined.get(port, {})) for port, value in parameters.items())
        except MAYBE_DONE:
            raise
        except (EngineError, LookupError, TypeError, ValueError, AttributeError):
            return parameters  # the version was deleted, this user may not read it, or FlowyML did not make it
        except RecursionError:  # such a value must not spoil a list of runs
            return {}

    def experiment_id(self) -> str:
        if self.experiment not in self._experiments:
            self._experiments[self.experiment] = self._experiment_named() or self._create_experiment()
        return self._experiments[self.experiment]

    def _experiment_named(self) -> str | None:
        experiments = self.client.pages(
            "experiment_service_list_experiments", "experiments",
            filter=equals(display_name=self.experiment), **self.client.connection.scope,
        )  # fmt: skip
        return next((str(item.experiment_id) for item in experiments if item.display_name == self.experiment), None)

    def _create_experiment(self) -> str:
        body = self.client.model("V2beta1Experiment", display_name=self.experiment, **self.client.connection.scope)
        try:
            experiment = self.client.call_once("experiment_service_create_experiment", body)
            return str(experiment.experiment_id)
        except EngineError:
            if existing := self._experiment_named():
                return existing
            raise


def description(facts: Mapping[str, Any]) -> str:
    """Return a description for people and FlowyML: KFP has no better field for the users' names."""
    return _ABOUT + json.dumps(facts, ensure_ascii=False)


def facts(text: str | None) -> Json:
    """Read the output of ``description``; empty for any other text."""
    if not text or not text.startswith(_ABOUT):
        return {}
    try:
        document = parsed(text.removeprefix(_ABOUT).encode())
    except (ValueError, EngineError):
        return {}
    return document if isinstance(document, dict) else {}


def origin_of(version: Any) -> Origin | None:
    """Return the origin of a version of a pipeline, if it was recorded and exists; see ``version_of``."""
    return Origin.from_dict(facts(version.description).get("origin")) if version else None


def _version_description(bundle: Bundle) -> str:
    code: Json = {"code": bundle.code_digest}
    text = description({**code, "origin": bundle.origin.to_dict()} if bundle.origin else code)
    return text if len(text) <= LONGEST_DESCRIPTION else description(code)


def _put(bundle: Bundle, url: str) -> None:
    """Upload the bundle to its store; its name includes its digest, so an existing one is the same."""

    def produce(file: BinaryIO) -> None:
        file.write(bundle.data)

    open_store(url.removesuffix(f"/{bundle.filename}")).write(bundle.filename, produce)


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Prevent other processes of this user on this machine from creating the same object meanwhile.

    There are 256 locks, so that their files stay few; sometimes one object waits for another.
    """
    folder = home() / "kubeflow" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / hashlib.sha256(what.encode()).hexdigest()[:2], wait=None):
        yield


def difference(deployed: Mapping[str, Any] | None, compiled: Compiled) -> str:
    """Return a unified diff from the version in KFP, if there is one, to the compiled one; empty if they are the same.

    The code of KFP's version is compared if it is in the version's file; for code in a store, its digest.
    """
    before: Texts = {}
    words, after = _parts(compiled.spec, compiled.platform)
    if deployed:
        old_words, before = _parts(*spec.documents(deployed))
        if old_bundle := _bundle_in(old_words):
            before, after = {**before, **_files(old_bundle)}, {**after, **_files(compiled.bundle)}
        else:
            before, after = {**before, "code": [_digest_in(old_words)]}, {**after, "code": [_digest_in(words)]}
    else:
        after = {**after, **_files(compiled.bundle)}
    lines = [
        line
        for name in sorted(before.keys() | after.keys())
        for line in unified_diff(before.get(name, []), after.get(name, []), f"KFP/{name}", f"new/{name}", lineterm="")
    ]
    return "".join(f"{line}\n" for line in lines)


def _parts(pipeline: Json, platform: Json) -> tuple[list[list[str]], Texts]:
    """Return the arguments with the code, from its digest on, each once; and everything else as lines."""
    pipeline = json.loads(json.dumps(pipeline))
    executors = pipeline.get("deploymentSpec", {}).get("executors", {})
    every = [executor.get("container", {}) for executor in executors.values()]
    words = []
    for container in (*spec.code_containers(pipeline), *every):
        arguments = [str(word) for word in container.get("args", ())]
        start = next((number for number, word in enumerate(arguments) if _DIGEST.fullmatch(word)), len(arguments))
        container["args"] = arguments[:start]
        words += [arguments[start:]] if arguments[start:] else []
    different = [list(argument) for argument in dict.fromkeys(map(tuple, words))]
    return different, {"pipeline": _plain(pipeline), "kubernetes": _plain(platform)}


def _files(bundle: Bundle) -> Texts:
    return {path: _lines(data) for path, data in bundle.files.items() if path.startswith(_SHOWN)}


def _bundle_in(words: list[list[str]]) -> Bundle | None:
    """Return the bundle in the arguments of the tasks that provide it."""
    texts = ["".join(word for word in argument if len(word) > 64 and "://" not in word) for argument in words]
    try:
        unpack = bz2.BZ2Decompressor()
        data = unpack.decompress(b"".join(map(base64.b64decode, texts)), _LARGEST_CODE)
        return Bundle.of(data) if unpack.eof else None
    except (OSError, ValueError, PlanError):  # of a FlowyML that packs it in another way
        return None


def _digest_in(words: list[list[str]]) -> str:
    return next((word for word in (words[-1] if words else ()) if len(word) == 64), "")


def _plain(document: Json) -> list[str]:
    return json.dumps(_numbers(document), indent=1, sort_keys=True, ensure_ascii=False).splitlines() if document else []


def _numbers(value: Any) -> Any:
    """Normalize numbers: KFP carries them as doubles, so 3 comes back as 3.0."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lines(data: bytes) -> list[str]:
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        return [f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}"]
