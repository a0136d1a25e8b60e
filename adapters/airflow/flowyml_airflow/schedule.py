"""Write a schedule as arguments of a DAG: timetable, start, end and catch-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from flowyml.core.errors import ScheduleError
from flowyml.core.schedule import Schedule
from flowyml.plan.layout import Group, Pair, Part, text_literal, value
from flowyml.plan.model import Plan

__all__ = [
    "asset_classes",
    "check_schedule",
    "delta",
    "has_named_assets",
    "schedule_arguments",
    "timetable_class",
]

_NO_START = datetime(2020, 1, 1, tzinfo=UTC)  # Airflow wants a date in the past


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


def _own(schedule: Any) -> Part:
    if schedule is None or isinstance(schedule, str):
        return value(schedule)
    return (
        Group("[", [_asset(item) for item in schedule], "]") if isinstance(schedule, list | tuple) else _asset(schedule)
    )


def _asset(asset: str | Mapping[str, Any]) -> Part:
    if isinstance(asset, str):
        return f"Asset({text_literal(asset)})"
    for word in ("all", "any"):
        if word in asset:
            return Group(f"Asset{word.title()}(", [_asset(part) for part in asset[word]], ")")
    if "alias" in asset:
        return f"AssetAlias({text_literal(asset['alias'])})"
    return Group("Asset(", [text_literal(asset[name]) for name in ("name", "uri") if name in asset], ")")


def asset_classes(schedule: Any) -> list[str]:
    """Return the asset classes in a schedule of assets."""
    if schedule is None or (isinstance(schedule, str) and schedule.startswith("@")):
        return []
    classes = (
        {"Asset"}
        if isinstance(schedule, str) or (isinstance(schedule, Mapping) and {"name", "uri"} & schedule.keys())
        else set()
    )
    if isinstance(schedule, Mapping):
        classes |= {f"Asset{word.title()}" for word in ("alias", "all", "any") if word in schedule}
        schedule = [*schedule.get("all", ()), *schedule.get("any", ())]
    if not isinstance(schedule, str):
        classes |= {name for asset in schedule for name in asset_classes(asset)}
    return sorted(classes)


def has_named_assets(schedule: Any) -> bool:
    """Return whether an asset in a schedule has a name beside its URI."""
    if isinstance(schedule, Mapping):
        parts = [*schedule.get("all", ()), *schedule.get("any", ())]
        return {"name", "uri"} <= schedule.keys() or any(map(has_named_assets, parts))
    return isinstance(schedule, list | tuple) and any(map(has_named_assets, schedule))


def timetable_class(schedule: Schedule) -> str:
    """Return the name of the timetable with these times."""
    return "CronTriggerTimetable" if schedule.cron is not None else "DeltaTriggerTimetable"


def _written(when: datetime) -> str:
    moment = when.astimezone(UTC)
    parts = [moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond]
    while len(parts) > 3 and parts[-1] == 0:
        parts.pop()
    return f"datetime({', '.join(map(str, parts))}, tzinfo=timezone.utc)"


def delta(seconds: float) -> str:
    """Write a ``timedelta`` in the largest unit that is a whole number."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1)):
        if seconds and seconds % length == 0:
            return f"timedelta({unit}={int(seconds / length)})"
    return f"timedelta(seconds={seconds!r})"
