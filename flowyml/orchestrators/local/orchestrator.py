"""The local orchestrator: no server, no daemon, one SQLite file."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flowyml._version import __version__
from flowyml.core.dates import RunDates
from flowyml.core.errors import ConfigurationError, DefinitionError, PlanError, RetryRefusedError, ScheduleError
from flowyml.core.home import home
from flowyml.core.modules import installed_versions
from flowyml.core.observability import measure
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.base import Health, Orchestrator, RunnablePipeline, located
from flowyml.orchestrators.local.capabilities import CAPABILITIES
from flowyml.orchestrators.local.host import Host
from flowyml.orchestrators.submission import check_same_run, claim_new, submit_once
from flowyml.plan.names import check_name, slug
from flowyml.plan.parameters import days_of
from flowyml.runtime.code import Code
from flowyml.runtime.loading import is_loading

if TYPE_CHECKING:
    from datetime import datetime

    from flowyml.core.pruning import Bounds, Prunable
    from flowyml.core.runs import PipelineResult, Run
    from flowyml.core.submission_result import SubmissionResult
    from flowyml.orchestrators.local.deployer import LocalDeployer
    from flowyml.orchestrators.local.reader import LocalReader
    from flowyml.orchestrators.local.retrying import Past
    from flowyml.orchestrators.local.run import LocalRun, Settings
    from flowyml.orchestrators.local.scheduler import LocalScheduler
    from flowyml.orchestrators.local.schedules import ScheduleStore
    from flowyml.orchestrators.local.secrets import LocalSecrets
    from flowyml.orchestrators.local.store import RunStore
    from flowyml.orchestrators.new_code import EndedRun
    from flowyml.plan.bundle import Bundle
    from flowyml.plan.model import Plan
    from flowyml.runtime.fork_client import Server

__all__ = ["LocalOrchestrator"]

logger = logging.getLogger("flowyml.local")

_WORKERS = {"threads": 32, "processes": os.cpu_count() or 1}


class LocalOrchestrator(Orchestrator):
    """Runs pipelines on this machine.

    ``execute``, which ``pipeline.run()`` calls, works in the caller's process; a submitted run gets its own process and
    continues when the caller ends. Steps run in threads. No step sees another one's changes to a value: the last step
    that takes the value gets it, the others get copies. With ``share=True`` all steps get the same object;
    ``@step(local={"share": True})`` does so for the outputs of one step. With ``workers="processes"``, each step runs
    in its own process. Steps with secrets, and steps that may have to be killed, always do: those with a timeout, and
    all steps of a pipeline with a timeout. ``max_workers`` limits the number of steps that run at a time, by default 32
    threads, or as many processes as there are CPUs.

    Runs are recorded in ``store``, a SQLite file, by default ``runs.db`` in FlowyML's data folder. Small outputs are
    recorded too. Large outputs go to the artifact store: by default those of submitted runs and of `flowyml run`, up to
    1 GB each, because there is no other way to read them; with ``keep_outputs=True`` those of all runs, whatever their
    size; with False none.

    A secret is looked up in the environment (``FLOWYML_SECRET_WAREHOUSE_PASSWORD`` for ``"warehouse/password"``), then
    in the file ``dotenv``, then in the system's keyring. ``secrets`` maps names in pipelines to other names.
    """

    name = "local"
    capabilities = CAPABILITIES
    host: Host = Host()
    """The process that executes the runs. Set by ``flowyml.orchestrators.local.detached``."""

    def __init__(
        self,
        *,
        workers: Literal["threads", "processes"] = "threads",
        max_workers: int | None = None,
        keep_outputs: bool | None = None,
        share: bool = False,
        store: str | os.PathLike[str] | None = None,
        dotenv: str | os.PathLike[str] | None = None,
        secrets: Mapping[str, str] = {},
        retry_policy: OrchestratorRetryPolicy | None = None,
    ) -> None:
        super().__init__(retry_policy=retry_policy, secrets=secrets)
        if workers not in _WORKERS:
            raise ConfigurationError(f"LocalOrchestrator: workers={workers!r} must be 'threads' or 'processes'.")
        if not _is_count(max_workers):
            raise ConfigurationError(f"LocalOrchestrator: max_workers={max_workers!r} must be a whole number from 1.")
        self.workers = workers
        self.max_workers = _WORKERS[workers] if max_workers is None else max_workers
        self.keep_outputs = keep_outputs
        self.share = share
        self._store = None if store is None else Path(store).expanduser().absolute()
        self._dotenv = None if dotenv is None else Path(dotenv).expanduser().absolute()
        if not is_loading():  # workers import the modules of pipelines, and run none
            import_module("flowyml.orchestrators.local.run")  # now rather than in the first run

    @property
    def store(self) -> RunStore:
        """The database of the runs."""
        from flowyml.orchestrators.local.store import RunStore

        return RunStore(home() / "runs.db" if self._store is None else self._store)

    # Running.

    def execute(
        self, pipeline: RunnablePipeline, run_id: str, context: Mapping[str, Any], *, force: bool = False
    ) -> PipelineResult:
        """Run in this process and wait for the end; if ``run_id`` is known, wait for the end of that run instead.

        Subclasses override it to do something before and after; it is called for submitted runs too, in their process.
        Ctrl-C stops the run, records it as cancelled, and is raised again. A local run replaces no deployment, so
        ``force`` has no effect.
        """
        from flowyml.orchestrators.local.run import LocalRun
        from flowyml.orchestrators.local.step_call import goes_apart
        from flowyml.runtime.processes import starting_ahead

        plan = self.plan(pipeline)
        parameters = pipeline.check_parameters(context)
        dates = self.host.dates or RunDates()
        filled = dates.filled(parameters, days_of(plan.parameters))
        check_name(run_id, "run")
        store = self.store
        apart = goes_apart(plan, self.workers)
        # A process has the effects of a hook at the start of the pipeline, such as variables in os.environ, only if it
        # is started afterwards.
        with starting_ahead() if apart and not plan.hooks else nullcontext() as started:
            bundle = self._bundle(pipeline, plan, run_id, apart)
            settings = self._settings(pipeline, plan, run_id, apart, bundle, started, dates)
            code_digest = bundle.code_digest if bundle else None
            with store.session():
                if self._begin(store, plan, run_id, parameters, pipeline, code_digest):
                    measure("run_started", plan.name, run_id, self.name)
                    with suppress(OSError, SyntaxError, ValueError):  # of a file that changed since it was imported
                        store.note_packages(run_id, installed_versions(pipeline.imports()))
                    run = LocalRun(plan, store.get(run_id), filled, store, settings)
                    if self.host.keeps and not self.host.alone:
                        self._keep_job(pipeline, run, bundle, dates)
                    try:
                        result = run.execute()
                    finally:
                        if not run.is_completed and not self.host.keeps:
                            self._keep_job(pipeline, run, bundle, dates)
                    if self.keep_outputs is None and not self.host.keeps:
                        _say_once_what_goes(run)
                    return result
        recorded = self.get_run(run_id)
        check_same_run(recorded, plan.name, parameters, origin=pipeline.origin, code_digest=code_digest)
        return self.attach(run_id).wait_for_completion(timeout=float("inf"), poll_interval=0.5).result()

    def plan(self, pipeline: RunnablePipeline) -> Plan:
        """Return the plan. Checks the options of its steps under ``local``, too."""
        from flowyml.orchestrators.local.options import check_plan

        plan = super().plan(pipeline)
        with located(pipeline):
            check_plan(plan)
        return plan

    def submit(self, bundle: Bundle, run_id: str, parameters: Mapping[str, Any], *, force: bool = False) -> str:
        """Start a process for the run, which no longer depends on this one."""
        from flowyml.orchestrators.local import detached

        def create() -> str | None:
            path, orchestrator = self._write_bundle(bundle), self._described()
            is_new = detached.start_run(self.store, path, bundle, run_id, parameters, orchestrator)
            return run_id if is_new else None

        return submit_once(bundle, run_id, parameters, find=lambda: self.get_run(run_id), create=create)

    def run_again(self, job_id: str, steps: Sequence[str] | None) -> None:
        """Start a process that continues the run, whichever process it ran in before."""
        from flowyml.orchestrators.local import detached

        detached.start_again(self.store, self.store.get(job_id), steps)

    def bundle_of(self, job_id: str) -> Bundle:
        """Return the bundle in FlowyML's data folder, until `flowyml prune` removes it."""
        from flowyml.orchestrators.local import detached
        from flowyml.plan.bundle import Bundle

        row = self.store.get(job_id)
        try:
            return Bundle.read(detached.kept_job(self.store, row)[0]["bundle"])
        except RetryRefusedError:  # a completed run has no job, but may have its bundle
            for path in (home() / "bundles").glob(f"{slug(row.pipeline)}-*.pyz") if row.code_digest else ():
                with suppress(OSError, PlanError):
                    if (bundle := Bundle.read(path)).code_digest == row.code_digest:
                        return bundle
            raise

    def ended_run(self, job_id: str) -> EndedRun:
        """Return what the database has of an ended run, with the bundle that it ran."""
        from flowyml.orchestrators.new_code import EndedRun

        row, bundle = self.store.get(job_id), self.bundle_of(job_id)
        steps, outputs = self.step_runs(job_id), dict(self.reader.recorded_outputs(job_id))
        for step in steps:
            names = bundle.plan.by_name[step.name].outputs if step.name in bundle.plan.by_name else ()
            gone = {
                "not_kept": f"The output of step {step.label!r} of run {row.run_id!r} was not kept: it was large, or a "
                f"step in a thread may have changed it."
            }
            outputs[step.name, step.index] = {**dict.fromkeys(names, gone), **outputs.get((step.name, step.index), {})}
        return EndedRun.of(self.get_run(job_id), bundle, steps, outputs)

    def read_recorded(self, job_id: str, packed: Any) -> Any:
        from flowyml.core.errors import ArtifactError, OutputNotKeptError
        from flowyml.orchestrators.local.outputs import value_of
        from flowyml.runtime.tracebacks import described

        if reason := packed.get("not_kept"):
            raise OutputNotKeptError(reason)
        try:
            return value_of(packed)
        except ArtifactError:
            raise
        except Exception as error:  # whatever the class of the value raises when it is read
            raise ArtifactError(f"The output was kept, but cannot be read here: {described(error)}") from error

    def _keep_job(self, pipeline: RunnablePipeline, run: LocalRun, bundle: Bundle | None, dates: RunDates) -> None:
        """Save the data for a retry of a run in this process: code and orchestrator, or why they are missing."""
        from flowyml.orchestrators.local import detached

        job: dict[str, Any]
        code_digest = None
        try:
            packed = bundle or pipeline.bundle(run.plan)
            job, orchestrator = detached.job_of(self._write_bundle(packed), dates), self._described()
            code_digest = packed.code_digest
        except Exception as error:  # whatever the class of a value raises that functions refer to
            job, orchestrator = {"lacks": str(error)}, b""
        with suppress(sqlite3.Error, ConfigurationError):  # as with the end of the run: its result is worth more
            self.store.keep_job(run.row.run_id, job, orchestrator, code_digest)

    def _described(self) -> bytes:
        """Serialize this orchestrator, for another process that executes runs in the same way."""
        from flowyml.orchestrators.local import detached

        if type(self) is not LocalOrchestrator:
            return detached.described(self, None)
        plain = {name: getattr(self, name) for name in ("workers", "max_workers", "keep_outputs", "share")}
        paths = {name: path and str(path) for name, path in (("store", self._store), ("dotenv", self._dotenv))}
        return detached.described(self, {**plain, **paths})

    def cancel(self, job_id: str) -> bool:
        """Stop a run: a submitted one and all its children within seconds; for others see ``capabilities``."""
        from flowyml.orchestrators.local import detached

        self.store.get(job_id)
        if not self.store.request_cancel(job_id):
            return False
        detached.end_process(self.store, self.store.get(job_id))
        return True

    def _bundle(self, pipeline: RunnablePipeline, plan: Plan, run_id: str, apart: frozenset[str]) -> Bundle | None:
        """Return the bundle for steps in processes, which also shows whether a run id is reused for other code.

        Steps in threads run without one: a generated run id is not reused, and code that cannot travel may run.
        """
        is_new = claim_new(run_id) and not self.host.keeps
        if apart:
            return pipeline.bundle(plan)
        if is_new:
            return None
        with suppress(DefinitionError):
            return pipeline.bundle(plan)
        return None

    def _settings(
        self, pipeline: RunnablePipeline, plan: Plan, run_id: str, apart: frozenset[str], bundle: Bundle | None,
        started: Server | None, dates: RunDates,
    ) -> Settings:  # fmt: skip
        from flowyml.orchestrators.local.run import Settings

        needs_code = len(apart) < len(plan.steps) or plan.hooks
        return Settings(
            max_workers=self.max_workers,
            max_output_bytes=self._max_output_bytes(),
            folder=self.store.folder_of(run_id),
            code=pipeline.code if needs_code else lambda: Code({}),
            apart=apart,
            bundle=self._write_bundle(bundle) if bundle and apart else None,
            started=started,
            host=self.host,
            dates=dates,
            share=self.share,
            past=self._past(plan, run_id),
            read_secret=self._read_secret,
        )

    def _past(self, plan: Plan, run_id: str) -> Past:
        """Return the results of earlier tries of this process's run: a retried run begins with rows of steps."""
        from flowyml.orchestrators.local.retrying import Past, past_of

        if self.host.run_id != run_id:
            return Past()
        number = self.store.get(run_id).number
        rows = self.store.steps(number)
        return past_of(plan, rows, self.store.kept(number)) if rows else Past()

    @property
    def _read_secret(self) -> LocalSecrets:
        from flowyml.orchestrators.local.secrets import LocalSecrets

        return LocalSecrets(self._dotenv)

    def missing_secrets(self, references: Collection[str]) -> dict[str, str]:
        """Return the secrets that are missing here, each with advice.

        A submitted run has the environment of this process.
        """
        from flowyml.runtime.secrets import missing

        return missing(references, self._read_secret)

    def _max_output_bytes(self) -> float:
        """Return the largest size in bytes of an output that is stored as an artifact."""
        from flowyml.orchestrators.local.outputs import MAX_KEPT_BYTES

        if self.keep_outputs is None:
            return MAX_KEPT_BYTES if self.host.keeps else 0
        return float("inf") if self.keep_outputs else 0

    def _begin(
        self, store: RunStore, plan: Plan, run_id: str, parameters: Mapping[str, Any], pipeline: RunnablePipeline,
        code_digest: str | None,
    ) -> bool:  # fmt: skip
        """Return True if this process runs it."""
        from flowyml.core.process_identity import this_process
        from flowyml.orchestrators.local.store import Ending

        if self.host.run_id != run_id:
            names = [step.name for step in plan]
            return store.add(
                run_id, plan.name, names, parameters, this_process(),
                detached=False, origin=pipeline.origin, code_digest=code_digest, revision=pipeline.revision,
            )  # fmt: skip
        begun = store.begin(run_id, this_process())
        if not begun:
            store.finish(run_id, Ending("CANCELLED", "cancelled", "The run was cancelled before it began."))
        return begun

    @property
    def reader(self) -> LocalReader:
        """The reader of the runs in ``store``."""
        from flowyml.orchestrators.local.reader import LocalReader

        return LocalReader(self.store)

    def health(self) -> Health:
        """Return whether the database can be read and written."""
        path = str(self.store.path)
        try:
            with self.store.session() as db:
                count = db.execute("SELECT count(*) FROM runs").fetchone()[0]
        except (sqlite3.Error, ConfigurationError) as error:
            return Health(reachable=False, version=__version__, url=path, detail=str(error))
        return Health(reachable=True, version=__version__, url=path, facts={"runs": count})

    def prunable(self, bounds: Bounds) -> Iterator[Prunable]:
        """Yield runs with their logs and outputs, bundles, unpacked code, and cached results."""
        from flowyml.orchestrators.local.pruning import prunable

        yield from prunable(self.store, home(), bounds)
        yield from super().prunable(bounds)

    def pruning(self) -> AbstractContextManager[object]:
        """Hold a connection to the database: the last one to close tidies the file, which takes 20 ms a run."""
        return self.store.session()

    def _write_bundle(self, bundle: Bundle) -> Path:
        """Return the bundle's file in FlowyML's data folder. Raises ``ConfigurationError`` if it cannot be written."""
        from flowyml.orchestrators.local.bundles import note_record

        try:
            path = bundle.write(home() / "bundles")
            if self._store is not None:
                note_record(path.parent, self._store)
        except OSError as error:
            raise ConfigurationError(
                f"The bundle of {bundle.plan.name!r} cannot be written to {home()}: {error}. Set FLOWYML_HOME to a "
                f"folder that you can write to."
            ) from error
        return path

    # Deployments and schedules.

    @property
    def deployer(self) -> LocalDeployer:
        """Stores bundles."""
        from flowyml.orchestrators.local.deployer import LocalDeployer

        return LocalDeployer(self._schedules, self._write_bundle)

    @property
    def scheduler(self) -> LocalScheduler:
        """Schedules in ``store``."""
        from flowyml.orchestrators.local.scheduler import LocalScheduler

        return LocalScheduler(self._schedules, self._write_bundle, self._described)

    def check_fires(self) -> None:
        """Raise unless a process serves the schedules of this store."""
        if not self._schedules.is_served():
            raise ScheduleError("Nothing fires local schedules now. Start it first: flowyml schedule serve")

    def run_missed(self, schedule_id: str, time: datetime) -> SubmissionResult:
        """Start the run that `flowyml schedule serve` would have started, under the same id."""
        from flowyml.orchestrators.local.scheduled_runs import run_id_of, start

        item = self._schedules.get(schedule_id)
        start(self.store, item, time)
        return self.attach(run_id_of(item.schedule_id, time))

    def scheduled_runs(self, pipeline: str, *, limit: int = 100) -> Mapping[datetime, Run]:
        """Return the runs with the ids of scheduled runs, by time."""
        from flowyml.orchestrators.local.scheduled_runs import runs_by_time

        return runs_by_time(self._schedules, pipeline, limit)

    @property
    def _schedules(self) -> ScheduleStore:
        from flowyml.orchestrators.local.schedules import ScheduleStore

        return ScheduleStore(self.store)


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and value >= 1)


_SAID: set[str] = set()
"""The pipelines about which this process has logged that."""


def _say_once_what_goes(run: LocalRun) -> None:
    """Log which outputs end with this process, the first time that a pipeline has such outputs."""
    if run.not_kept and run.plan.name not in _SAID:
        _SAID.add(run.plan.name)
        logger.warning(
            "Only this process has %s of run %r, since run() keeps only small values. `flowyml run`, submit() and "
            "LocalOrchestrator(keep_outputs=True) keep them; keep_outputs=False says nothing.",
            ", ".join(map(repr, run.not_kept)), run.row.run_id,
        )  # fmt: skip
