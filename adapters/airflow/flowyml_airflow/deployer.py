"""Deploy: write a DAG file, wait until Airflow has read it, remove old bundles; and show the changes beforehand."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from flowyml.core.durations import span_text
from flowyml.core.errors import (
    ConfigurationError,
    DeploymentError,
    EngineError,
    OwnershipError,
    RetryRefusedError,
    RunNotFoundError,
    WaitTimeoutError,
)
from flowyml.core.origin import Origin
from flowyml.core.progress import show_waiting
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.deployer import Deployer, Deployment
from flowyml.orchestrators.ownership import check_replaceable
from flowyml.plan.bundle import Bundle
from flowyml.plan.differences import bundle_difference, difference
from flowyml.plan.marks import mark_of, objection
from flowyml_airflow.beside import bundle_in, kept_path
from flowyml_airflow.client import AirflowClient, NotThereError, usable_id
from flowyml_airflow.compiler import CompiledDag, compile_dag
from flowyml_airflow.deployed_dag import (
    Deployed,
    facts_of,
    has_schedule,
    is_untouched,
    schedule_of,
)
from flowyml_airflow.folder import Folder, open_folder
from flowyml_airflow.names import dag_file, dag_id, development_id
from flowyml_airflow.options import pipeline_options, step_options
from flowyml_airflow.parameters import check_carried
from flowyml_airflow.stalled import is_gone
from flowyml_airflow.undeploying import files_of, known_dags, remove_old_bundles, take_away

__all__ = ["AirflowDeployer"]

logger = logging.getLogger("flowyml.airflow")
_PARSING = 60  # seconds that reading a file may take once Airflow has found it
_WRITE_AGAIN = 10  # seconds after which a file that Airflow has not read is written once more


@dataclass(frozen=True)
class AirflowDeployer(Deployer):
    """Writes bundles and DAG files into ``folder``, and waits at most ``timeout`` seconds until they are parsed.

    ``timeout`` is None to wait as long as Airflow's own settings allow.
    """

    client: Callable[[], AirflowClient]
    folder: Folder | None
    timeout: float | None = None
    python: str | None = None
    artifacts: str | None = None
    artifact_links: str | None = None
    _proved: dict[str, str] = field(default_factory=dict)

    def found(self, dag: str) -> Deployed | None:
        """Return the DAG of that id; None if Airflow does not know it, or no longer."""
        client = self.client()
        try:
            deployed = Deployed(client.dag(dag), client)
        except NotThereError:
            return None
        return None if is_gone(deployed.dag) else deployed

    def existing(self, dag: str) -> Deployed:
        """Return the DAG of that id. Raises ``EngineError`` if Airflow does not have it."""
        deployed = self.found(dag)
        if deployed is None:
            raise EngineError(f"Airflow at {self.client().transport.connection.url} has no DAG {dag!r}.")
        return deployed

    def dag_of(self, pipeline: str) -> Deployed:
        """Return the DAG of a pipeline, or the DAG of this id. Raises ``RunNotFoundError``."""
        for dag in (dag_id(pipeline), pipeline):
            if usable_id(dag) and (deployed := self.found(dag)):
                return deployed
        where = self.client().transport.connection.url
        raise RunNotFoundError(f"Airflow at {where} has no DAG of {pipeline!r}. Deploy it first.")

    def compiled(self, bundle: Bundle, schedule: Schedule | None, *, development: bool = False) -> CompiledDag:
        """Return the DAG file and its bundle; compiled once."""
        options = (("python", self.python), ("artifacts", self.artifacts), ("artifact_links", self.artifact_links))
        return _compiled(bundle.data, _plain(schedule), options, development)

    def schedule(self, pipeline: str, deployed: Deployed | None) -> Schedule | None:
        """Return the schedule of a pipeline: that in its file, which Airflow may not have read yet, else Airflow's."""
        data = self.folder.read(dag_file(pipeline)) if self.folder else None
        if data is not None and (mark := mark_of(data)):
            return schedule_of(mark.facts)
        return deployed.schedule if deployed and has_schedule(deployed.dag) else None

    def kept(self, bundle: Bundle, deployed: Deployed | None) -> CompiledDag:
        """Compile with the schedule that is deployed now.

        Raises ``ConfigurationError`` if that schedule is unreadable.
        """
        if deployed and has_schedule(deployed.dag) and deployed.is_ours and not deployed.facts:
            raise ConfigurationError(
                f"{deployed.place} was changed by hand, and its last line, `# flowyml: …`, is gone or broken, so its "
                f"schedule cannot be kept. Put the line back, or move the file away and schedule {bundle.plan.name!r} "
                f"again."
            )
        return self.compiled(bundle, self.schedule(bundle.plan.name, deployed))

    def deploy(self, bundle: Bundle, *, force: bool = False) -> Deployment:
        """Write the DAG file and its bundle, and wait until Airflow has parsed them. The schedule stays unchanged."""
        deployed = self.found(dag_id(bundle.plan.name))
        compiled = self.kept(bundle, deployed)
        changed = self.write(compiled, deployed, force=force)
        url = self.client().dag_url(compiled.dag_id)
        return Deployment(name=bundle.plan.name, digest=compiled.version, changed=changed, url=url)

    def check_deployable(self, bundle: Bundle, *, force: bool = False) -> None:
        """Raise what ``deploy`` raises before it writes the DAG file: other owners, and what Airflow lacks."""
        deployed = self.found(dag_id(bundle.plan.name))
        compiled = self.kept(bundle, deployed)
        if not self.is_there(compiled, deployed):
            self._check(compiled, deployed, force)

    def write(self, compiled: CompiledDag, deployed: Deployed | None, *, force: bool = False) -> bool:
        """Make Airflow know this version; return False if it knows it already.

        Raises ``EngineError`` with Airflow's traceback if the file cannot be parsed, ``WaitTimeoutError`` if Airflow
        does not read it, ``ConfigurationError`` if it cannot be written or would replace a file that is not FlowyML's,
        ``OwnershipError`` if it would replace another pipeline's file or an edited one (``force`` replaces both), and
        ``ParameterError`` for a default that Airflow does not carry. If a deployment fails, the former DAG file stays.
        """
        if self.is_there(compiled, deployed):
            return False
        folder = self._check(compiled, deployed, force)
        self._proved.pop(compiled.dag_id, None)  # a file that was changed by hand carries the version, too
        replaced = str(deployed.facts.get("bundle_file", "")) if deployed else ""
        before = self.client().import_error(compiled.filename)
        self._check_place(compiled, deployed, force)  # once more: another project may have written the file meanwhile
        with self._put_back_on_failure(folder, compiled):
            obsolete = self._keep_replaced(folder, compiled)
            for path, data in reversed(list(compiled.files.items())):
                if folder.read(path) != data:
                    folder.write(path, data)
            self._wait_until_parsed(folder, compiled, before)
        self._remove_old_bundles(folder, compiled, replaced, obsolete)
        return True

    @staticmethod
    def _keep_replaced(folder: Folder, compiled: CompiledDag) -> list[str]:
        """Keep the version that is there now as a zip file; return those of its files that the new one lacks."""
        data = folder.read(compiled.filename)
        facts = mark.facts if data and (mark := mark_of(data)) and mark.is_untouched else {}
        bundle = bundle_in(folder.read, facts)
        if bundle is None or facts["bundle"] == compiled.bundle.digest:
            return []
        if folder.read(kept_path(facts)) != bundle:
            folder.write(kept_path(facts), bundle)
        return [path for path in facts.get("files", ()) if path not in compiled.files]

    def _check(self, compiled: CompiledDag, deployed: Deployed | None, force: bool) -> Folder:
        """Raise what ``write`` raises before it writes, and change nothing; return the folder that it would write to.

        Warns about runs that would continue with other code.
        """
        self._check_place(compiled, deployed, force)
        if self.folder is None:
            raise ConfigurationError(
                f"Airflow does not have this version of {compiled.bundle.plan.name!r}, and code cannot be "
                f"uploaded over its REST API. Give AirflowOrchestrator(dags_folder=…): the folder, path or URL, that "
                f"Airflow reads its DAGs from."
            )
        check_carried({item.name: item.default for item in compiled.bundle.plan.parameters}, self.client().integers)
        self._check_pools(compiled)
        self._warn_runs(compiled, deployed)
        return self.folder

    def undeploy(
        self, pipeline: str, *, folder: str | None = None, runs: bool = False, dry_run: bool = False,
        force: bool = False,
    ) -> Sequence[str]:  # fmt: skip
        place, dags = open_folder(folder) or self.folder, [dag_id(pipeline), development_id(pipeline)]
        if folder and runs:
            raise ConfigurationError("A folder has no runs: leave out --runs or --output.")
        known = known_dags(self.client(), dags) if runs else []
        is_over = bool(known) and all(map(is_gone, known))
        if place is None and not is_over:
            raise ConfigurationError("The pipeline's files are in the DAGs folder: give dags_folder=…, or --output.")
        client = None if folder else self.client
        paths = files_of(place, pipeline, client, force=force, may_be_none=is_over) if place else []
        # Airflow keeps the records while a task runs.
        if not folder and (runs or not force) and (busy := self.client().unfinished(dags)):
            forced = ", or use --force: they wait forever then, since Airflow starts no task without a DAG file"
            raise DeploymentError(
                f"{pipeline!r} has runs that have not ended, such as {busy[0]['dag_run_id']!r}. Cancel them "
                f"first{'' if runs else forced}."
            )
        if not dry_run:
            if place:
                take_away(place, paths)
            for dag in known:
                self.client().delete(dag["dag_id"])
        return [*paths, *(f"DAG {dag['dag_id']} in Airflow, with its runs" for dag in known)]

    def shown(self, deployed: Deployed, structure: str | None) -> Deployed:
        """Return the DAG once Airflow's API has it with this structure. Raises ``WaitTimeoutError``.

        Until then Airflow refuses new parameters and a backfill of a new schedule, and creates runs without new tasks.
        """
        dag = deployed.dag["dag_id"]
        if deployed.shows(structure):
            return deployed
        seconds = self.timeout if self.timeout is not None else self.client().shows_changes_within + _PARSING
        deadline = time.monotonic() + seconds
        what = (
            f"waiting for Airflow to show the tasks and parameters of {dag!r} as deployed, for up to "
            f"{span_text(seconds)}"
        )
        with show_waiting(what) as show:
            while time.monotonic() < deadline:
                show()
                time.sleep(0.5)
                now = self.found(dag)
                if now and now.shows(structure):
                    return now
        raise WaitTimeoutError(
            f"Airflow has read {deployed.place}, but after {span_text(seconds)} its API still shows the old tasks, "
            f"parameters or schedule of DAG {dag!r}, so a run would not have your changes. Is its "
            f"{'DAG processor' if self.client().can_backfill else 'scheduler'} running? Try again."
        )

    def diff(self, bundle: Bundle) -> str:
        """Show as a unified diff how deploying would change the DAG file and the code in its bundle.

        Parameters, schedule and options are part of the DAG file. Empty if nothing would change.
        """
        deployed = self.found(dag_id(bundle.plan.name))
        compiled = self.kept(bundle, deployed)
        self._check_place(compiled, deployed, force=True)
        path = compiled.filename
        now = self.folder.read(path) if self.folder else None
        if now is not None:
            old = now.decode("utf-8", "replace")
        else:
            old = deployed.source if deployed and not self.folder else ""
        return difference(path, old, compiled.text) + self._code_diff(old, compiled.bundle)

    def _code_diff(self, old: str, bundle: Bundle) -> str:
        """Show the changes of the code; empty without a deployed bundle, or if it cannot be read from here."""
        data = bundle_in(self.folder.read, facts_of(old)) if self.folder else None
        if data is None or data == bundle.data:
            return ""
        return bundle_difference(Bundle.of(data), bundle)

    def deployed_bundle(self, deployed: Deployed) -> Bundle:
        """Return the bundle of a deployed DAG. Raises ``ConfigurationError`` if the folder lacks it."""
        name = deployed.facts.get("pipeline", deployed.dag["dag_id"])
        if self.folder is None:
            raise ConfigurationError(
                f"Changing the schedule of {name!r} means writing its DAG file: give dags_folder=…."
            )
        data = bundle_in(self.folder.read, deployed.facts)
        if data is None:
            raise ConfigurationError(
                f"The code of {name!r} is not in dags_folder={self.folder.name!r}, or was changed there. Does Airflow "
                f"read this folder?"
            )
        return Bundle.of(data, name)

    def bundle_of_run(self, facts: Mapping[str, Any], run: Run) -> Bundle:
        """Return the bundle of a run, by the facts of its DAG. Raises ``RetryRefusedError`` if it is gone."""
        data = bundle_in(self.folder.read, facts) if self.folder else None
        bundle = None if data is None else Bundle.of(data)
        if bundle is None or run.code_digest not in (None, bundle.code_digest):
            raise RetryRefusedError(
                f"The code of run {run.job_id!r} is not in dags_folder: it was replaced by a later deployment, or "
                f"dags_folder=… is missing. Pass dags_folder=…, or start a new run."
            )
        return bundle

    def is_there(self, compiled: CompiledDag, deployed: Deployed | None) -> bool:
        """Return whether Airflow has parsed this version, and the folder has its files."""
        if deployed is None or not self._has_parsed(compiled, deployed):
            return False
        return self.folder is None or all(self.folder.read(path) == data for path, data in compiled.files.items())

    def _has_parsed(self, compiled: CompiledDag, deployed: Deployed) -> bool:
        """Return whether Airflow has parsed this version. The description alone does not prove it.

        Airflow writes that at once, but a new version of a DAG only every 30 seconds. Source: Airflow, ``[core]
        min_serialized_dag_update_interval``.
        """
        if not deployed.has_parsed(compiled.version) or deployed.dag.get("has_import_errors"):
            return False
        if self._proved.get(compiled.dag_id) != compiled.version:
            if deployed.facts.get("version") != compiled.version or not is_untouched(deployed.source):
                return False
            self._proved[compiled.dag_id] = compiled.version
        return True

    def _check_place(self, compiled: CompiledDag, deployed: Deployed | None, force: bool) -> None:
        """Refuse to replace a file or DAG that is not FlowyML's or was edited, and to have one DAG in two files."""
        pipeline, path = compiled.bundle.plan.name, compiled.filename
        elsewhere = self.folder is not None and deployed is not None and _is_elsewhere(deployed, self.folder, path)
        if deployed and (elsewhere or not deployed.is_ours):
            whose = "" if deployed.is_ours else ", which FlowyML did not write"
            as_well = f"{path} in dags_folder={self.folder.name!r}" if self.folder else path
            raise ConfigurationError(
                f"Airflow already has a DAG {compiled.dag_id!r} from {deployed.place}{whose}. If FlowyML also wrote "
                f"{as_well}, the two files would keep replacing each other. Set dags_folder=… to the folder of that "
                f"file, rename pipeline {pipeline!r}, or remove the file first."
            )
        if deployed and deployed.facts:
            check_replaceable(deployed.origin, compiled.bundle.origin, f"the DAG {compiled.dag_id!r}", force=force)
        for name, data in compiled.files.items():
            is_marked = name == compiled.filename or name.endswith(".airflowignore")
            there = self.folder.read(name) if self.folder and is_marked else None
            if self.folder is None or there is None:  # the other files are those that the DAG file names
                continue
            what = f"{name} in dags_folder={self.folder.name!r}"
            mark = mark_of(there)
            if mark and "origin" in mark.facts:  # Airflow may have yet to read it
                written_by = Origin.from_dict(mark.facts["origin"])
                check_replaceable(written_by, compiled.bundle.origin, f"the file {what}", force=force)
            if reason := objection(there, data, force=force):
                raise (OwnershipError if mark else ConfigurationError)(f"{what} {reason}")

    def _check_pools(self, compiled: CompiledDag) -> None:
        """Refuse a pool that Airflow lacks: tasks would wait forever, without a message."""
        plan = compiled.bundle.plan
        pool_of = {f"pipeline {plan.name!r}": pipeline_options(plan).get("pool")}
        pool_of |= {f"step {step.name!r}": step_options(step).get("pool") for step in plan}
        client = self.client()
        for pool in sorted({pool for pool in pool_of.values() if pool}):
            if not client.has_pool(pool):
                subject = next(subject for subject, other_pool in pool_of.items() if other_pool == pool)
                raise ConfigurationError(
                    f"{subject} asks for the pool {pool!r}, but Airflow at {client.transport.connection.url} has no "
                    f"pool of that name: its tasks would wait forever. Create it, in Airflow's UI under Admin, Pools, "
                    f"or by `airflow pools set {shlex.quote(pool)} SLOTS DESCRIPTION`."
                )

    def _warn_runs(self, compiled: CompiledDag, deployed: Deployed | None) -> None:
        """Warn about runs that continue with the new code: a task takes its bundle from the DAG file when it starts.

        Airflow ends a task that the new version lacks, even while it runs, and then decides by the other tasks.
        """
        if deployed is None or deployed.facts.get("bundle_file") in (None, compiled.bundle.filename):
            return
        kept = facts_of(compiled.text)["steps"]
        dropped = ", ".join(repr(task) for task in deployed.facts.get("steps", ()) if task not in kept)
        ends = (
            f" The new version lacks {dropped}: Airflow stops such a task even while it runs, and the run may complete."
        )
        for run in self.client().unfinished([compiled.dag_id]):
            logger.warning(
                "Run %r of %r has not ended, and this deployment changes the code of its DAG: tasks that have not "
                "started will run the new code.%s To avoid that, deploy after the run has ended, or cancel it first: "
                "%s",
                run["dag_run_id"], compiled.bundle.plan.name, ends if dropped else "",
                self.client().command("cancel", f"{compiled.dag_id}/{run['dag_run_id']}"),
            )  # fmt: skip

    def _remove_old_bundles(
        self, folder: Folder, compiled: CompiledDag, replaced: str, obsolete: Iterable[str]
    ) -> None:  # fmt: skip
        """Remove files that are not needed any more. A failure is only logged, since a file left over does no harm."""
        try:
            for path in obsolete:
                folder.remove_own(path)
            remove_old_bundles(folder, self.client(), compiled.bundle.plan.name, {compiled.bundle.filename, replaced})
        except (EngineError, ConfigurationError) as error:
            logger.info("Old bundles in dags_folder=%r stay there: %s", folder.name, error)

    @staticmethod
    @contextmanager
    def _put_back_on_failure(folder: Folder, compiled: CompiledDag) -> Iterator[None]:
        """Restore the DAG file if the block fails, unless the file was changed again meanwhile.

        A file that Airflow has not read yet stays: deploy again to wait for it.
        """
        path = compiled.filename
        before, after = folder.read(path), compiled.files[path]
        try:
            yield
        except WaitTimeoutError:
            raise
        except BaseException:
            if before != after and folder.read(path) == after:
                folder.remove(path) if before is None else folder.write(path, before)
            raise

    def _wait_until_parsed(self, folder: Folder, compiled: CompiledDag, before: Mapping[str, Any] | None) -> None:
        """Wait until Airflow has read the new file, without an import error.

        An earlier error may be reported once more while the new file arrives: then only the next one counts. For
        ``min_file_process_interval`` Airflow overlooks a change that is older than the end of its last reading, and so
        a change that was made during the reading. So the file is written again, at growing intervals. Source: Airflow's
        ``DagFileProcessorManager._sort_by_mtime``, on 2.11 ``prepare_file_path_queue``.
        """
        seconds = self.timeout if self.timeout is not None else self.client().reads_new_files_within + _PARSING
        deadline, pause = time.monotonic() + seconds, 0.4
        patience, written = _WRITE_AGAIN, time.monotonic()
        errors = {before["timestamp"]: before} if before else {}
        what = f"waiting for Airflow to read {compiled.filename} from {folder.name}, for up to {span_text(seconds)}"
        with show_waiting(what) as show:
            while time.monotonic() < deadline and len(errors) < (3 if before else 1):
                deployed = self.found(compiled.dag_id)
                if deployed and self._has_parsed(compiled, deployed):
                    return
                self._check_still_ours(folder, compiled)
                if error := self.client().import_error(compiled.filename):
                    errors[error["timestamp"]] = error
                if time.monotonic() > written + patience:
                    folder.write(compiled.filename, compiled.files[compiled.filename])
                    patience, written = patience * 2, time.monotonic()
                show()
                time.sleep(pause)
                pause = min(pause * 1.5, 1)
        raise self._unparsed(folder, compiled, [error for error in errors.values() if error is not before], seconds)

    def _check_still_ours(self, folder: Folder, compiled: CompiledDag) -> None:
        if folder.read(compiled.filename) != compiled.files[compiled.filename]:
            raise EngineError(
                f"Another deployment of {compiled.bundle.plan.name!r} replaced this one before Airflow had read it. "
                f"Deploy again to replace that one."
            )

    def _unparsed(
        self, folder: Folder, compiled: CompiledDag, errors: list[Mapping[str, Any]], seconds: float
    ) -> Exception:
        if errors:
            return EngineError(f"Airflow cannot import {compiled.filename}:\n{errors[-1]['stack_trace']}")
        return WaitTimeoutError(
            f"Airflow at {self.client().transport.connection.url} has not read {compiled.filename} within "
            f"{span_text(seconds)} from dags_folder={folder.name!r}. The file stays there; deploy again to keep "
            f"waiting for it. Is this the folder that Airflow reads its DAGs from, and is its DAG processor running? "
            f"It looks for files every 5 minutes unless [dag_processor] refresh_interval says otherwise, on 2.11 "
            f"[scheduler] dag_dir_list_interval."
        )


def _is_elsewhere(deployed: Deployed, folder: Folder, path: str) -> bool:
    """Return whether the DAG is in another file than the one that is written.

    That is certain if Airflow's file can be seen from here. Otherwise the folder may be mounted under another name:
    then the end of the path known here must equal Airflow's path within the folder that it reads, unless the file
    exists.
    """
    theirs = PurePosixPath(deployed.place)
    if theirs.name != path:
        return True
    seen, ours = Path(str(deployed.dag.get("fileloc") or "")), folder.local(path)
    with suppress(OSError):
        if ours is not None and seen.is_file():
            return not (ours.exists() and ours.samefile(seen))
    if theirs.is_absolute() or folder.read(path) is not None:
        return False
    return PurePosixPath(folder.name, path).parts[-len(theirs.parts) :] != theirs.parts


@lru_cache(maxsize=32)
def _compiled(data: bytes, schedule: str, options: Iterable[tuple[str, str | None]], development: bool) -> CompiledDag:
    when = Schedule.from_dict(json.loads(schedule)) if schedule else None
    return compile_dag(Bundle.of(data), schedule=when, development=development, **dict(options))


def _plain(schedule: Schedule | None) -> str:
    return json.dumps(schedule.to_dict(declared=True), sort_keys=True) if schedule else ""
