"""A DAG in Airflow, and the facts that FlowyML wrote into its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from flowyml.core.errors import OwnershipError, ScheduleError
from flowyml.core.origin import Origin
from flowyml.core.schedule import Schedule
from flowyml.plan.marks import mark_of
from flowyml.plan.parameters import check_values
from flowyml_airflow.client import AirflowClient, NotThereError
from flowyml_airflow.names import TAG, version_note
from flowyml_airflow.parameters import check_carried, declared
from flowyml_airflow.status import no_tasks_at, timeout_of

__all__ = [
    "About", "DagVersions", "Deployed", "bundles_needed", "check_resumable", "check_runnable", "facts_of",
    "has_schedule", "is_untouched", "schedule_of", "version_of",
]  # fmt: skip


@dataclass(frozen=True)
class Deployed:
    """A DAG in Airflow. ``facts`` are those that FlowyML wrote into its file; empty for a foreign DAG."""

    dag: Mapping[str, Any]
    client: AirflowClient

    @property
    def is_ours(self) -> bool:
        """True if FlowyML compiled the DAG."""
        return TAG in tags_of(self.dag)

    @property
    def place(self) -> str:
        """The path of its file within the DAGs folder; with Airflow 2 a path on Airflow's own machine."""
        return str(self.dag.get("relative_fileloc") or self.dag.get("fileloc") or "")

    @cached_property
    def source(self) -> str:
        """The text of its file."""
        return self.client.source(self.dag)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """The facts that FlowyML wrote into the file."""
        return facts_of(self.source) if self.is_ours else {}

    @property
    def needs_date(self) -> bool:
        """True if templates of operators may use the logical date of a run, as ``{{ ds }}`` does."""
        return not self.is_ours or "operators" in self.facts

    def why_no_tasks(self, date: datetime) -> str:
        """Say why a run of this date has no tasks, and what to do; empty if it has tasks."""
        why = no_tasks_at(date, self.dag)
        run = f", or run the pipeline's file: {self.client.command('run', 'FILE')}" if self.is_ours else ""
        return f"{why} Change its dates{run}." if why else ""

    def check_has_tasks(self) -> None:
        """Raise ``ScheduleError`` if a run that is started now would complete without running anything."""
        if (self.needs_date or self.client.dates_all_runs) and (why := self.why_no_tasks(datetime.now(UTC))):
            raise ScheduleError(f"The run was not started: it would complete without running any step. {why}")

    @property
    def origin(self) -> Origin | None:
        """The origin of the pipeline."""
        return Origin.from_dict(self.facts.get("origin"))

    @property
    def schedule(self) -> Schedule | None:
        """The schedule, if FlowyML set one."""
        return schedule_of(self.facts)

    @property
    def structure(self) -> str | None:
        """The structure of the DAG in the file; None for a foreign DAG, or if the file was edited."""
        return self.facts.get("structure") if self.is_ours and is_untouched(self.source) else None

    def has_parsed(self, version: str) -> bool:
        """Return whether Airflow has parsed this version of the file: it stores the description of a DAG at once.

        DAG files of 1.0.0rc1 have a tag with the version instead.
        """
        return version_note(version) in (self.dag.get("description") or "") or f"{TAG}:{version}" in tags_of(self.dag)

    def shows(self, structure: str | None) -> bool:
        """Return whether Airflow has the tasks, parameters and schedule of this structure; True for None.

        Airflow stores them in its database together with the docs of the DAG, which name the structure: see
        ``dag_docs``.
        """
        return structure is None or structure in (self.dag.get("doc_md") or "").partition("\n")[0]

    def check_parameters(self, values: Mapping[str, Any]) -> None:
        """Raise ``ParameterError`` for a parameter that the pipeline lacks or a value that Airflow does not carry.

        A foreign DAG takes any conf.
        """
        check_carried(values, self.client.integers)
        if self.is_ours:
            name = self.facts.get("pipeline", self.dag["dag_id"])
            check_values(name, declared(self.dag.get("params")), values)


class About(NamedTuple):
    """``dagrun_timeout`` and name of a DAG, and whether it is that of a pipeline with a clean-up."""

    timeout: timedelta | None
    name: str
    cleans_up: bool = False


class DagVersions:
    """Reads the facts of the DAG versions of runs.

    ``known`` caches what is known ``About`` versions, which do not change, and may outlive this object. DAGs without
    versions may change.
    """

    def __init__(self, client: AirflowClient, known: dict[tuple[str, int | None], About]) -> None:
        self._client = client
        self._known = known
        self._known_now: dict[tuple[str, int | None], About] = {}

    def facts(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the facts in the last line of the run's DAG file.

        Empty if FlowyML did not write the file, or Airflow has deleted it.
        """
        version = version_of(run)
        try:
            dag = {"dag_id": run["dag_id"]} if version else self._client.dag(run["dag_id"])
            return facts_of(self._client.source(dag, version))
        except NotThereError:
            return {}

    def about(self, run: Mapping[str, Any]) -> About:
        """Return what is known about a DAG, in the version of the run.

        Airflow shows the timeout of the newest version only, so that of a FlowyML DAG is read from the source.
        """
        version = version_of(run)
        known, key = self._known if version else self._known_now, (run["dag_id"], version)
        if key not in known:
            known[key] = self._read_about(run)
        return known[key]

    def _read_about(self, run: Mapping[str, Any]) -> About:
        if facts := self.facts(run):
            seconds = facts.get("timeout")
            timeout = timedelta(seconds=seconds) if seconds is not None else None
            return About(timeout, facts["pipeline"], bool(facts.get("cleanup")))
        try:
            dag = self._client.dag(run["dag_id"])
        except NotThereError:
            return About(None, run["dag_id"])
        return About(timeout_of(dag), dag.get("dag_display_name") or run["dag_id"])


def tags_of(dag: Mapping[str, Any]) -> set[str]:
    """Return the names of a DAG's tags."""
    return {tag["name"] for tag in dag.get("tags") or ()}


def facts_of(source: str) -> Mapping[str, Any]:
    """Read the facts that FlowyML wrote into a DAG file; empty if FlowyML did not write the file."""
    mark = mark_of(source.encode())
    return mark.facts if mark else {}


def schedule_of(facts: Mapping[str, Any]) -> Schedule | None:
    """Read the schedule from the facts in a DAG file."""
    plain = facts.get("schedule")
    return Schedule.from_dict(plain) if plain else None


def is_untouched(source: str) -> bool:
    """Return whether a DAG file is unchanged since FlowyML wrote it."""
    mark = mark_of(source.encode())
    return mark is not None and mark.is_untouched


def bundles_needed(bundles: Iterable[str], sources: Iterable[bytes]) -> set[str]:
    """Return the bundles that Python files in the DAGs folder need.

    The facts of a DAG file name its bundle. A file that was edited, or that FlowyML did not write, may need each bundle
    whose name occurs anywhere in it.
    """
    bundles = list(bundles)
    needed: set[str] = set()
    for data in sources:
        mark = mark_of(data)
        if mark and mark.is_untouched and "bundle_file" in mark.facts:
            needed |= {mark.facts["bundle_file"], mark.facts.get("runtime", "")}
        else:
            needed.update(name for name in bundles if name.encode() in data)
    return needed.intersection(bundles)


def has_schedule(dag: Mapping[str, Any]) -> bool:
    """Return whether a DAG has a schedule."""
    return dag.get("timetable_summary") not in (None, "None") or bool(dag.get("schedule_interval"))


def version_of(run: Mapping[str, Any]) -> int | None:
    """Return the newest version of the DAG in a run; None on Airflow 2, which does not version DAGs."""
    return max((item["version_number"] for item in run.get("dag_versions") or ()), default=None)


def check_resumable(deployed: Deployed) -> None:
    """Refuse to schedule a DAG that was paused by hand: scheduling it would resume it."""
    dag, client = deployed.dag["dag_id"], deployed.client
    if not deployed.dag["is_paused"] or client.pause_we_set(dag) or not client.was_paused_by_hand(dag):
        return
    raise OwnershipError(
        f"DAG {dag!r} was paused in Airflow, and not by FlowyML; scheduling it would resume it. Resume it first, "
        f"in Airflow or by `{client.command('schedule resume', dag)}`, or use --force (force=True)."
    )


def check_runnable(deployed: Deployed | None, run_id: str, unpause: bool | None) -> None:
    """Refuse a DAG that was paused on purpose, since the run would stay queued; ``unpause`` is the user's choice.

    A DAG that has been paused since Airflow created it is unpaused by its first run, unless ``unpause`` is False.
    """
    if deployed is None or not deployed.dag["is_paused"] or unpause:
        return
    dag, client = deployed.dag["dag_id"], deployed.client
    if unpause is False:
        why = " and unpause=False"
    elif has_schedule(deployed.dag):
        why = ", and resuming it would start its schedule again"
    elif client.was_paused_by_hand(dag) and client.dag(dag)["is_paused"]:  # or another run has resumed it
        why = " on purpose, since it was paused after Airflow made it"
    else:
        return
    raise OwnershipError(
        f"DAG {dag!r} is paused{why}: run {run_id!r} would stay queued. Resume it in Airflow, or by "
        f"`{client.command('schedule resume', dag)}` if it has a schedule. To let this run resume it: --force, "
        f"force=True, or AirflowOrchestrator(unpause=True)."
    )
