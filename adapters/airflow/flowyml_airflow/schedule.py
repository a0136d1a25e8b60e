"""Write a schedule as arguments of a DAG: timetable, start, end and catch-up; and read it back from Airflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flowyml.core.errors import ScheduleError
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.plan.layout import Group, Pair, Part, text_literal, value
from flowyml.plan.model import Plan
from flowyml_airflow.deployed_dag import Deployed, has_schedule, is_untouched, tags_of
from flowyml_airflow.folder import Folder
from flowyml_airflow.names import version_tag
from flowyml_airflow.status import moment

__all__ = [
    "asset_classes",
    "check_schedule",
    "delta",
    "drift",
    "has_named_assets",
    "schedule_arguments",
    "schedule_info",
    "since",
    "timetable_class",
]

_NO_START = datetime(2020, 1, 1, tzinfo=UTC)  # Airflow wants a date in the past


def since(schedule: Schedule, before: Schedule | None) -> Schedule:
    """Give a schedule without a start the current time as its start: Airflow would run the last missed time at once.

    A schedule that is declared again keeps its start, so that the DAG file stays the same.
    """
    if schedule.start is not None:
        return schedule
    if before is not None and before.start is not None and replace(schedule, start=before.start) == before:
        return before
    now = datetime.now(UTC).replace(microsecond=0)
    wait = timedelta(seconds=schedule.interval_seconds or 0)  # an interval begins with a run at its start
    return replace(schedule, start=now + wait)


def check_schedule(plan: Plan, schedule: Schedule | None) -> None:
    """Raise ``ScheduleError`` for a schedule that Airflow cannot follow for this plan."""
    if schedule is None:
        return
    if schedule.catch_up and schedule.start is None:
        raise ScheduleError(f"The schedule of {plan.name!r} has catch_up=True, so it needs a start: give start=….")
    for parameter in plan.parameters:
        if parameter.required and parameter.name not in schedule.parameters:
            raise ScheduleError(
                f"Parameter {parameter.name!r} of {plan.name!r} has no default, and a scheduled run on Airflow takes "
                f"the defaults. Give it a default, or give parameters={{{parameter.name!r}: …}} to the schedule."
            )


def schedule_arguments(schedule: Schedule | None, own: Any = None) -> Iterator[Part]:
    """Write the arguments of a DAG for its schedule. ``own`` is a schedule of Airflow's own kinds."""
    if schedule is None:
        yield Pair("schedule=", _own(own))
        yield f"start_date={_written(_NO_START)}"
        yield "catchup=False"
        return
    if schedule.cron is not None:
        timetable = [text_literal(schedule.cron), f"timezone={text_literal(schedule.timezone)}"]
    else:
        assert schedule.interval_seconds is not None
        timetable = [delta(schedule.interval_seconds)]
    yield Pair("schedule=", Group(f"{timetable_class(schedule)}(", timetable, ")"))
    yield f"start_date={_written(schedule.start or _NO_START)}"
    if schedule.end:
        yield f"end_date={_written(schedule.end)}"
    yield f"catchup={schedule.catch_up}"


def _own(given: Any) -> Part:
    if given is None or isinstance(given, str):
        return value(given)
    return Group("[", [_asset(each) for each in given], "]") if isinstance(given, list | tuple) else _asset(given)


def _asset(given: str | Mapping[str, Any]) -> Part:
    if isinstance(given, str):
        return f"Asset({text_literal(given)})"
    for word in ("all", "any"):
        if word in given:
            return Group(f"Asset{word.title()}(", [_asset(each) for each in given[word]], ")")
    if "alias" in given:
        return f"AssetAlias({text_literal(given['alias'])})"
    return Group("Asset(", [text_literal(given[name]) for name in ("name", "uri") if name in given], ")")


def asset_classes(given: Any) -> list[str]:
    """Return the asset classes in a schedule of assets."""
    if given is None or (isinstance(given, str) and given.startswith("@")):
        return []
    found = (
        {"Asset"}
        if isinstance(given, str) or (isinstance(given, Mapping) and {"name", "uri"} & given.keys())
        else set()
    )
    if isinstance(given, Mapping):
        found |= {f"Asset{word.title()}" for word in ("alias", "all", "any") if word in given}
        given = [*given.get("all", ()), *given.get("any", ())]
    if not isinstance(given, str):
        found |= {name for each in given for name in asset_classes(each)}
    return sorted(found)


def has_named_assets(given: Any) -> bool:
    """Return whether an asset in a schedule has a name beside its URI."""
    if isinstance(given, Mapping):
        parts = [*given.get("all", ()), *given.get("any", ())]
        return {"name", "uri"} <= given.keys() or any(map(has_named_assets, parts))
    return isinstance(given, list | tuple) and any(map(has_named_assets, given))


def timetable_class(schedule: Schedule) -> str:
    """Return the name of the timetable with these times."""
    return "CronTriggerTimetable" if schedule.cron is not None else "DeltaTriggerTimetable"


def _written(when: datetime) -> str:
    at = when.astimezone(UTC)
    parts = [at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond]
    while len(parts) > 3 and parts[-1] == 0:
        parts.pop()
    return f"datetime({', '.join(map(str, parts))}, tzinfo=timezone.utc)"


def delta(seconds: float) -> str:
    """Write a ``timedelta`` in the largest unit that is a whole number."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
        if seconds and seconds % length == 0:
            return f"timedelta({unit}={int(seconds / length)})"
    return f"timedelta(seconds={seconds!r})"


def schedule_info(found: Deployed, folder: Folder | None = None) -> ScheduleInfo | None:
    """Return the schedule of a DAG; None if it has none, or FlowyML did not set it."""
    schedule = found.schedule
    if schedule is None or not has_schedule(found.dag):
        return None
    following = moment(found.dag.get("next_dagrun_run_after") or found.dag.get("next_dagrun_create_after"))
    return ScheduleInfo(
        schedule_id=found.dag["dag_id"],
        pipeline=found.facts.get("pipeline", found.dag["dag_id"]),
        schedule=schedule,
        paused=bool(found.dag["is_paused"]),
        next_runs=(following,) if following else (),
        drift=tuple(drift(found, folder)),
    )


def drift(found: Deployed, folder: Folder | None) -> Iterator[str]:
    """Yield the changes that were made outside of FlowyML, by hand or by Airflow itself."""
    filename = str(found.dag.get("relative_fileloc") or found.dag["fileloc"]).rpartition("/")[2]
    if not is_untouched(found.source) or version_tag(found.facts.get("version", "")) not in tags_of(found.dag):
        yield f"{filename} was changed by hand: deploy again, or put the change into the pipeline."
    elif folder is not None and folder.read(filename) not in (None, found.source.encode()):
        yield f"{filename} in the DAGs folder is not what Airflow has read."
    ours, paused = found.client.pause_we_set(found.dag["dag_id"]), bool(found.dag["is_paused"])
    if ours is not None and ours != paused:
        itself = ", or by Airflow itself, after max_consecutive_failed_dag_runs" if paused else ""
        how = f"in Airflow's UI, API or command line{itself}"
        yield f"it was {'paused' if paused else 'resumed'} outside FlowyML: {how}."
