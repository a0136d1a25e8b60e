"""A DAG's schedule in the words of `flowyml.migration.airflow.model.DagModel`."""

from __future__ import annotations

import datetime
import zoneinfo
from contextlib import suppress
from typing import Any

from flowyml.migration.airflow.model import AssetRef
from flowyml.migration.airflow.reader.nodes import Asset
from flowyml.migration.airflow.reader.values import Class, ForeignValue, Instance, hard, shape

_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_CRON = {"CronTriggerTimetable", "CronDataIntervalTimetable", "CronPartitionTimetable"}
_DELTA = {"DeltaTriggerTimetable", "DeltaDataIntervalTimetable"}
_FIXED = {"NullTimetable": "None", "OnceTimetable": "@once", "ContinuousTimetable": "@continuous"}
_WITH_ASSETS = {"AssetOrTimeSchedule", "DatasetOrTimeSchedule", "PartitionedAssetTimetable", "AssetTriggeredTimetable"}


def words(value: Any) -> str | None:
    """Return a schedule in words; None if it is unknown."""
    value = hard(value)
    if value is None:
        return "None"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime.timedelta):
        return f"delta:{value.total_seconds():g}"
    if isinstance(value, Asset):
        return f"dataset:{asset_ref(value)}"
    if isinstance(value, (list, tuple, set)):
        return _assets(list(value))
    if isinstance(value, ForeignValue):
        return _timetable(value)
    if isinstance(value, Instance) and isinstance(value.cls, Class):
        return f"timetable:{value.cls.name}"
    return None


def _text(value: str) -> str | None:
    """Return None for a text that Airflow refuses as a cron expression: "", "None", "@none"."""
    if value in ("@once", "@continuous"):
        return value
    if value.strip().lower() not in _PRESETS and len(value.split()) not in (5, 6, 7):
        return None
    return "cron:" + _PRESETS.get(value, value)


def _assets(parts: list[Any]) -> str | None:
    parts = [hard(one) for one in parts]
    if not all(isinstance(one, Asset) for one in parts):
        return None
    return f"dataset:{AssetRef('all', parts=tuple(asset_ref(one) for one in parts))}"


def asset_ref(value: Any) -> AssetRef:
    """Convert an asset to the model; an unknown name keeps its source in braces."""
    value = hard(value)
    if not isinstance(value, Asset):
        return AssetRef("asset", shape(value))
    return AssetRef(value.kind, shape(value.name), shape(value.uri), tuple(asset_ref(one) for one in value.parts),
                    value.more)  # fmt: skip


def _timetable(value: ForeignValue) -> str | None:
    name = value.path.rpartition(".")[2]
    arguments = value.arguments
    if name in _FIXED:
        return _FIXED[name]
    if arguments is not None and name in _CRON:
        inner = hard(arguments.value("cron", 0))
        return words(inner) if isinstance(inner, str) else None
    if arguments is not None and name == "MultipleCronTriggerTimetable":
        lines = [hard(given.value) for given in arguments.positional]
        return "crons:" + ",".join(lines) if all(isinstance(one, str) for one in lines) else None
    if arguments is not None and name in _DELTA:
        return words(arguments.value("delta", 0))
    if arguments is not None and name in _WITH_ASSETS:
        inner = hard(arguments.value("assets", None, arguments.value("datasets")))
        found = words(inner)
        return found if found != "None" else None
    if name == "relativedelta":
        return _relative(value)
    return f"timetable:{name}" if name[:1].isupper() else None


def _relative(value: ForeignValue) -> str | None:
    arguments = value.arguments
    units = {"days", "hours", "minutes", "seconds", "weeks"}
    if arguments is None or arguments.positional or not set(arguments.named) <= units:
        return "timetable:relativedelta"
    parts = {name: hard(given.value) for name, given in arguments.named.items()}
    if not all(isinstance(one, (int, float)) for one in parts.values()):
        return None
    return words(datetime.timedelta(**parts))


def timezone(start: Any) -> str:
    """Return the time zone of a DAG with this start."""
    value = hard(start)
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.datetime.fromisoformat(value)
    zone = value.tzinfo if isinstance(value, datetime.datetime) else getattr(value, "zone", None)
    return "UTC" if zone is None else zone_name(zone)


def zone_name(zone: datetime.tzinfo) -> str:
    """Return a time zone in Airflow's words; a zone without a name by its offset, such as "+02:00"."""
    if isinstance(zone, zoneinfo.ZoneInfo):
        return zone.key
    minutes = int((zone.utcoffset(None) or datetime.timedelta()).total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "UTC"
