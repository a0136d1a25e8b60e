"""The interface of an orchestrator: the methods that users call, and those that an adapter provides.

An adapter subclasses ``Orchestrator`` and implements the methods under "Methods for adapters to implement"; three of
them return its parts: a ``RunReader``, a ``Deployer`` and a ``Scheduler``. The rest is implemented in terms of those.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from flowyml.core.capabilities import Capabilities, Feature, Level
from flowyml.core.dates import RunDates
from flowyml.core.errors import NoFileFormatError, RetryRefusedError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.observability import measure
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.health import Health, SignIn
from flowyml.orchestrators.needs import first_of_each, schedule_needs
from flowyml.orchestrators.runnable import RunnablePipeline, about_step, located
from flowyml.orchestrators.scheduler import schedule_to_set
from flowyml.orchestrators.submission import check_run_id, claim_new, new_run_id
from flowyml.plan.differences import difference
from flowyml.plan.marks import mark_of, marked
from flowyml.plan.secrets import check_names
from flowyml.runtime.loading import stop_if_loading

if TYPE_CHECKING:
    from datetime import date

    from flowyml.artifacts.store import Store
    from flowyml.core.credentials import Auth
    from flowyml.core.pruning import Bounds, Prunable, Pruned
    from flowyml.core.runs import Artifact, LogLine, Outputs, PipelineResult, Run, StepRun
    from flowyml.core.schedule import Schedule, ScheduleInfo
    from flowyml.core.submission_result import SubmissionResult
    from flowyml.orchestrators.deployer import Deployer, Deployment
    from flowyml.orchestrators.new_code import EndedRun
    from flowyml.orchestrators.probe import Site
    from flowyml.orchestrators.reader import RunReader
    from flowyml.orchestrators.scheduler import Scheduler
    from flowyml.plan.bundle import Bundle
    from flowyml.plan.model import Plan

__all__ = ["Health", "Orchestrator", "RunnablePipeline", "SignIn", "about_step", "located"]

logger = logging.getLogger("flowyml.orchestrators")


class Orchestrator(ABC):
    """Runs pipelines on one engine. Job ids are the engine's own, run ids are the user's.

    The module of an adapter imports its engine where it uses it, never at the top, so that the class works without the
    engine installed. ``engine_package`` is the import name of the engine's client library and ``extra`` the extra of
    FlowyML that brings it; ``flowyml.orchestrators.registry`` checks them before it constructs one. A script may import
    the class to choose its engine, and workers import that script. So if a pipeline's code names the adapter's
    top-level package, this package and those in ``worker_packages`` travel in the bundle. They must be pure Python:
    only their ``.py`` files travel.
    """

    name: ClassVar[str]
    """The name for ``--on``, which is that of the entry point. Each adapter sets it."""
    capabilities: ClassVar[Capabilities]
    """The features that the engine supports. Each adapter sets it."""
    engine_package: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None
    worker_packages: ClassVar[tuple[str, ...]] = ()
    target: str | None = None
    """The value of ``--on`` for this orchestrator, if that is not ``name``: a configured target, a URL."""

    retry_delay: float = 0
    least_retry_delay: float = 0
    """Seconds before retries of steps that say no delay, and at least before all retries; an adapter may set them."""

    def __init__(self, *, retry_policy: OrchestratorRetryPolicy | None = None, secrets: Mapping[str, str] = {}) -> None:
        self.retry_policy = retry_policy
        self.secrets = check_names(secrets)
        """Names in this engine's store of secrets, by the different names in pipelines."""
        self.auth: Auth | None = None  # an adapter that signs in sets it

    @property
    def artifact_place(self) -> str | None:
        """The store of steps' outputs and cached results: a folder or a URL; None for the default.

        It is the attribute ``artifacts``, if the adapter has one.
        """
        return getattr(self, "artifacts", None)

    @property
    def has_default_store(self) -> bool:
        """True if outputs of steps are in this machine's default store when ``artifact_place`` names no other.

        False if steps may run on other machines.
        """
        return True

    # Methods for users.

    def run_pipeline(
        self,
        pipeline: RunnablePipeline,
        run_id: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> SubmissionResult:
        """Submit a run and return at once. Submitting a ``run_id`` again returns the same run, never a second one.

        Raises ``DefinitionError``, ``ParameterError`` and ``UnsupportedFeatureError`` before anything is sent, and
        ``OwnershipError`` if the run would have to replace another pipeline's deployment; ``force`` does so.
        """
        stop_if_loading(pipeline.name, "submit")
        run_id = new_run_id(pipeline.name) if run_id is None else check_run_id(run_id)
        plan = self.plan(pipeline)
        return self._send(pipeline, plan, run_id, pipeline.check_parameters(parameters), force=force)

    def _send(
        self, pipeline: RunnablePipeline, plan: Plan, run_id: str, values: Mapping[str, Any], *, force: bool = False,
        files: Mapping[str, bytes] = {},
    ) -> SubmissionResult:  # fmt: skip
        """Submit a run; ``files`` are additional ones in its bundle."""
        RunDates().filled(values)  # a run by hand has none of a schedule: refused here, before its steps begin
        with located(pipeline):
            bundle = pipeline.bundle(plan)
            job_id = self.submit(bundle.with_files(files) if files else bundle, run_id, values, force=force)
        claim_new(run_id)  # unless the adapter did: from now on the engine has it
        measure("run_started", plan.name, run_id, self.name)
        return self.attach(job_id)

    def execute(
        self, pipeline: RunnablePipeline, run_id: str, context: Mapping[str, Any], *, force: bool = False
    ) -> PipelineResult:
        """Run and wait for the end. ``context`` has the parameters of this run, ``force`` is ``run_pipeline``'s.

        Ctrl-C cancels the run, prints its ids, and is raised again. An override may leave ``force`` out: it is passed
        only if the user asks for it.
        """
        from flowyml.core.following import cancel_on_interrupt, command_for

        submission = self.run_pipeline(pipeline, run_id, parameters=context, force=force)
        with cancel_on_interrupt(submission):
            result = submission.wait_for_completion(timeout=float("inf"), poll_interval=1).result()
        if not result.success:
            logger.error(
                "Run %r of %r ended %s: %s\nIts log, with the traceback: %s",
                run_id, pipeline.name, result.status, result.error, command_for("logs", submission),
            )  # fmt: skip
        return result

    def attach(self, job_id: str) -> SubmissionResult:
        """Return the handle of a run, rebuilt only from its job id. Raises ``RunNotFoundError``."""
        from flowyml.core.submission_result import SubmissionResult

        return SubmissionResult(self, job_id, run=self.get_run(job_id))

    def step_outputs(self, job_id: str) -> Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]:
        """Return what steps have returned, by name and index; ``SubmissionResult.step_outputs`` reads the values."""
        self.capabilities.require({Feature.STEP_OUTPUTS: f"outputs of steps of run {job_id!r}"})
        return self.reader.recorded_outputs(job_id)

    def get_run_status(self, job_id: str) -> ExecutionStatus:
        """Return the status of a run. Raises ``RunNotFoundError``."""
        return self.get_run(job_id).status

    def retry(
        self, job_id: str, *, steps: Sequence[str] | None = None, with_new_code: RunnablePipeline | None = None,
        parameters: Mapping[str, Any] = {},
    ) -> SubmissionResult:  # fmt: skip
        """Run the failed steps of a run again; see ``SubmissionResult.retry``. Raises ``RunNotFoundError`` too."""
        from flowyml.orchestrators.retrying import check_retry

        feature = Feature.RETRY_RUN if with_new_code is None else Feature.RETRY_NEW_CODE
        self.capabilities.require({feature: f"retry of run {job_id!r}"})
        run = self.get_run(job_id)
        steps = (steps,) if isinstance(steps, str) else steps
        check_retry(run, steps, parameters if with_new_code is None else {}, self.step_runs)
        if with_new_code is not None:
            return self._run_new_code(run, with_new_code, steps, parameters)
        self.run_again(job_id, None if steps is None else tuple(steps))
        measure("run_started", run.pipeline, run.run_id, self.name)
        return self.attach(job_id)

    def _run_new_code(
        self, run: Run, pipeline: RunnablePipeline, steps: Sequence[str] | None, parameters: Mapping[str, Any]
    ) -> SubmissionResult:
        from flowyml.orchestrators.new_code import NewRun
        from flowyml.runtime.execution import TAKEN_FILE

        stop_if_loading(pipeline.name, "submit")
        if pipeline.name != run.pipeline:
            raise RetryRefusedError(f"Run {run.run_id!r} is of pipeline {run.pipeline!r}, not of {pipeline.name!r}.")
        plan = self.plan(pipeline)
        before = {item.name: run.parameters[item.name] for item in plan.parameters if item.name in run.parameters}
        values = pipeline.check_parameters({**before, **parameters})
        ended, run_id = self.ended_run(run.job_id), new_run_id(pipeline.name)
        new = NewRun.of(ended, plan, values, steps)
        submission = self._send(pipeline, plan, run_id, values, files={TAKEN_FILE: new.taken.written(run_id)})
        logger.warning("%s", new.summary(ended, pipeline.bundle(plan), run_id))
        return submission

    def schedule_pipeline(self, pipeline: RunnablePipeline, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """Deploy the pipeline with a schedule; doing so again updates it in place.

        Raises ``OwnershipError`` if that would replace another pipeline's deployment; ``force`` replaces it.
        """
        stop_if_loading(pipeline.name, "schedule")
        schedule.check_future()
        plan = self.plan(pipeline)
        self.capabilities.require(schedule_needs(plan, schedule))
        checked = pipeline.check_parameters(schedule.parameters)
        schedule = replace(schedule, parameters={name: checked[name] for name in schedule.parameters})
        with located(pipeline):
            return self.create_schedule(pipeline.bundle(plan), schedule, force=force)

    def deploy_pipeline(self, pipeline: RunnablePipeline, *, force: bool = False) -> Deployment:
        """Deploy the pipeline to the engine without running it, with the schedule that it declares.

        A pipeline that declares none keeps the schedule that it has there. Raises ``OwnershipError`` if the deployment
        would replace another pipeline's; ``force`` replaces it. Raises ``UnsupportedFeatureError`` for a schedule that
        the engine cannot follow.
        """
        stop_if_loading(pipeline.name, "deploy")
        plan = self.plan(pipeline)
        with located(pipeline):
            bundle = pipeline.bundle(plan)
            schedule = schedule_to_set(self, plan)
            created = self.create_schedule(bundle, schedule, force=force) if schedule else None
            deployment = self.deploy(bundle, force=force)
        return replace(deployment, changed=True, scheduled=str(created.schedule)) if created else deployment

    def compile_pipeline(self, pipeline: RunnablePipeline) -> Mapping[str, bytes]:
        """Return the files that the engine would get, by name, the main file first, each with FlowyML's mark.

        Files that the mark of the main file lists as its own are as they are: they are the user's code.

        They are for the engine itself, so the capabilities of the class apply, even if this object runs pipelines in a
        way that supports more or less. Raises ``UnsupportedFeatureError``.
        """
        plan = self._own_plan(pipeline)
        type(self).capabilities.require(first_of_each(plan))
        with located(pipeline):
            files = self.compile_files(pipeline.bundle(plan))
        mark = mark_of(next(iter(files.values())))
        listed = mark.facts.get("files", ()) if mark else ()
        return {name: data if name in listed else marked(data, name) for name, data in files.items()}

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        """Return the plan as this orchestrator would run it: with its retries, within its capabilities."""
        plan = self._own_plan(pipeline)
        self.capabilities.require(first_of_each(plan))
        return plan

    def _own_plan(self, pipeline: RunnablePipeline) -> Plan:
        plan = pipeline.compile().with_retry_policy(self.retry_policy)
        return plan.with_retry_delays(self.retry_delay, self.least_retry_delay).with_secret_names(self.secrets)

    # Reading, deploying and scheduling are done by the parts of an adapter.

    def get_run(self, job_id: str) -> Run:
        """Return a run. Raises ``RunNotFoundError``, ``EngineUnreachableError``, ``UnknownStateError``."""
        return self.reader.get_run(job_id)

    def runs(self, pipeline: str | None = None, *, limit: int = 50) -> list[Run]:
        """Return runs of this engine, newest first."""
        return self.reader.runs(pipeline, limit=limit)

    def step_runs(self, job_id: str) -> tuple[StepRun, ...]:
        """Return every step of the run in the plan's order, including those that have not begun."""
        return self.reader.step_runs(job_id)

    def outputs(self, job_id: str) -> Outputs:
        """Return the outputs of a completed run."""
        return self.reader.outputs(job_id)

    def run_artifacts(self, job_id: str) -> list[Artifact]:
        """Return the artifacts and metrics that the steps of a run have produced so far, in the order of the steps."""
        if self.capabilities[Feature.ARTIFACTS].level is Level.NO:
            raise self._lacks("listing artifacts")
        return self.reader.run_artifacts(job_id)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Return the lines so far, oldest first; with ``follow`` until the run ends."""
        return self.reader.logs(job_id, follow=follow)

    def logs_of_step(
        self, job_id: str, step: str, index: tuple[int, ...], *, follow: bool = False
    ) -> Iterator[LogLine]:
        """Return the lines of one step, or of one item with its ``index``."""
        return self.reader.logs_of_step(job_id, step, index, follow=follow)

    def why_waiting(self, job_id: str) -> str:
        """Say why a run that has not ended does not progress, and what to do; empty if the engine does not say."""
        return self.reader.why_waiting(job_id)

    def why_no_lines(self, job_id: str) -> str:
        """Say why the engine has no line of a run whose steps ran; empty if it does not say."""
        return self.reader.why_no_lines(job_id)

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        """Deploy a bundle to the engine."""
        return self.deployer.deploy(bundle, force=force)

    def diff(self, bundle: Bundle) -> str:
        """Return the changes that deploying this bundle would make, as a unified diff; empty if there are none."""
        changes = self.deployer.diff(bundle)
        if schedule := schedule_to_set(self, bundle.plan):
            before = [json.dumps(info.schedule.to_dict(), indent=2) for info in self.schedules(bundle.plan.name)]
            changes += difference("schedule", "".join(before), json.dumps(schedule.to_dict(), indent=2))
        return changes

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        """Raise what ``deploy`` would raise, as far as possible without changing anything."""
        self.deployer.check_deployable(bundle, force=force)

    def create_schedule(self, bundle: Bundle, schedule: Schedule, *, force: bool = False) -> ScheduleInfo:
        """Create or update the schedule of the bundle's pipeline, by the same rule as ``deploy``."""
        return self.scheduler.create_schedule(bundle, schedule, force=force)

    def schedules(self, pipeline: str | None = None) -> list[ScheduleInfo]:
        """Return the schedules that FlowyML created on this engine."""
        return self.scheduler.schedules(pipeline)

    def pause_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Pause a schedule. Raises ``ScheduleNotFoundError``."""
        return self.scheduler.pause_schedule(schedule_id)

    def resume_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Resume a paused schedule. Raises ``ScheduleNotFoundError``."""
        return self.scheduler.resume_schedule(schedule_id)

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove the schedule. Raises ``ScheduleNotFoundError``."""
        self.scheduler.delete_schedule(schedule_id)

    # Methods for adapters to implement.

    @property
    @abstractmethod
    def reader(self) -> RunReader:
        """The reader of this engine's runs."""

    @property
    def deployer(self) -> Deployer:
        """The part that deploys. Raises ``UnsupportedFeatureError`` for an engine without deployments."""
        raise self._lacks("deployments")

    @property
    def scheduler(self) -> Scheduler:
        """The part that schedules. Raises ``UnsupportedFeatureError`` for an engine without schedules."""
        raise self._lacks("schedules")

    @classmethod
    def recognizes(cls, site: Site) -> bool:
        """Return whether this engine answers at a URL, by its unauthenticated pages.

        For example ``site.get("/api/health").json()``. Needs no client library of the engine. Leave it out for an
        engine that has no URL.
        """
        return False

    def compile_files(self, bundle: Bundle) -> Mapping[str, bytes]:
        """Return the files that this engine would get, by name, the main file first.

        Pure: needs no engine and no network.
        """
        raise NoFileFormatError(f"{self.name!r} has no file format to compile to. Run the pipeline on it instead.")

    @classmethod
    def stop_server(cls) -> bool:
        """Stop the server of this engine that FlowyML started on this machine. Return False if none is running."""
        return False

    @classmethod
    def sign_in(cls) -> SignIn | None:
        """Return the login for the UI of the server that FlowyML started; None if none is running."""
        return None

    @abstractmethod
    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        """Start a run without waiting for it and return its job id; attach if ``run_id`` exists.

        ``submit_once`` does the latter. An engine that runs only deployed pipelines calls
        ``flowyml.orchestrators.ownership`` before it replaces a deployment.
        """

    def artifact_stores(self, job_id: str) -> Sequence[Store]:
        """Return the stores that may contain artifacts of a run, by default that of ``artifact_place``."""
        from flowyml.artifacts import open_store

        return (open_store(self.artifact_place),)

    @abstractmethod
    def cancel(self, job_id: str) -> bool:
        """Stop a run and its work; return when the engine has accepted that, False if the run had already ended."""

    @abstractmethod
    def health(self) -> Health:
        """Return whether the engine answers. Never raises for an engine that is down."""

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        """Start the failed steps of an ended run again, and return when the engine has accepted the request.

        From then on the run is not terminal. ``steps`` are names of steps and labels of items of the run; None means
        all that did not complete. Raises ``RetryRefusedError`` for a retry that the engine cannot do. Not called for an
        engine that does not support ``RETRY_RUN``.
        """
        raise self._lacks("retrying a run")

    def bundle_of(self, job_id: str) -> Bundle:
        """Return the bundle that a run was started with. Raises ``RetryRefusedError`` if it is gone."""
        raise self._lacks("reading the code of a run")

    def ended_run(self, job_id: str) -> EndedRun:
        """Return what a retry with new code needs of an ended run. Raises ``RetryRefusedError`` if it is gone.

        Not called for an engine that does not support ``RETRY_NEW_CODE``.
        """
        raise self._lacks("retrying a run with new code")

    def read_recorded(self, job_id: str, packed: Any) -> Any:
        """Return the value of one of ``step_outputs``. Raises ``ArtifactError``, ``OutputNotKeptError``."""
        from flowyml.artifacts import unpack

        return unpack(packed, *self.artifact_stores(job_id))

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        """Return the secrets among these that the engine's store lacks, each with advice."""
        raise UnsupportedFeatureError(f"{self.name!r} cannot look secrets up from here.")

    def trigger(
        self, name: str, run_id: str | None = None, *, parameters: Mapping[str, Any] | None = None
    ) -> SubmissionResult:
        """Start a run of the deployment of a name, without its code, and return at once.

        Raises ``RunNotFoundError`` if nothing is deployed under that name, and ``ParameterError``.
        """
        raise self._lacks("runs of an existing deployment")

    def clear(self, job_id: str, *, failed_only: bool = True) -> None:
        """Run all steps of a run again, or only those that did not succeed. Raises ``RunNotFoundError``."""
        if self.capabilities[Feature.RETRY_RUN].level is not Level.NO:
            raise UnsupportedFeatureError(
                f"{self.name!r} cannot clear steps. To run the failed steps of a run again, use retry."
            )
        raise self._lacks("clearing steps")

    def backfill(
        self, name: str, start: date, end: date, *, parameters: Mapping[str, Any] | None = None, **options: Any
    ) -> list[SubmissionResult]:
        """Create the runs that a schedule missed from ``start`` to ``end``, inclusive; a date is a whole day.

        Returns the created runs. If each scheduled time has a run already, it returns none and logs that. ``options``
        are the engine's own. Raises ``ScheduleError`` if the range contains no scheduled time.
        """
        raise self._lacks("backfills")

    def prunable(self, bounds: Bounds) -> Iterator[Prunable]:
        """Yield the data that FlowyML stored for this engine's runs, each item with the reason if it must stay.

        Whatever its age, data that is still needed stays: for a run in progress, a schedule, a deployment, a run that
        can be retried. ``Prunable.remove`` checks again, because runs begin and end in the meantime.

        An override extends this list, which has the cached results in the engine's store, if that store is known.
        """
        from flowyml.orchestrators.cache_pruning import results_of, store_of

        store = store_of(self.artifact_place, has_default=self.has_default_store)
        yield from results_of(store, self.target or self.name, bounds)

    def prune(
        self, *, older_than: float = 30 * 86_400, max_bytes: int = 10_000_000_000, dry_run: bool = False
    ) -> list[Pruned]:
        """Remove data that was not used for ``older_than`` seconds and is no longer needed.

        Returns one record for each item that was removed, or could not be. Of data that can be recreated, such as
        unpacked code, at most ``max_bytes`` stay, the most recently used. With ``dry_run`` nothing is removed, and
        ``freed`` has the bytes that would be.
        """
        from flowyml.core.pruning import Bounds, Pruned, prune

        prunable = self.prunable(Bounds(older_than=older_than, max_bytes=max_bytes))
        if dry_run:
            return [Pruned(item=item, freed=item.bytes) for item in prunable if not item.kept]
        return list(prune(list(prunable), self.pruning()))

    def pruning(self) -> AbstractContextManager[object]:
        """Return a context for removing several items, such as a connection that they share."""
        return nullcontext()

    def _lacks(self, what: str) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(
            f"{self.name!r} does not support {what}. `flowyml backends` shows what an engine can do."
        )
