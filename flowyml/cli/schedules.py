"""``flowyml schedule``: the engine's own schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from flowyml.cli.errors import UsageError
from flowyml.cli.options import Argument, AsJson, File, Force, OfPipeline, On, Option, Parameters
from flowyml.cli.output import Notes, Output, note
from flowyml.cli.records import plain_schedule
from flowyml.cli.source import load, read_parameters
from flowyml.core.errors import ScheduleNotFoundError
from flowyml.core.schedule import MOST_MISSED, Schedule, ScheduleInfo
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.targets import resolve

Answer = TypeVar("Answer")

__all__ = ["create", "delete", "list_", "pause", "resume", "serve"]

Id = Annotated[str, Argument("ID", "The id that `schedule list` shows, or the name of its pipeline.")]


def create(
    file: File,
    schedule_type: Annotated[
        Literal["hourly", "daily", "weekly", "cron", "interval"],
        Argument("TYPE", "hourly, daily, weekly, cron or interval."),
    ],
    value: Annotated[
        str,
        Argument("VALUE", "A minute; an hour or HH:MM; MON:09:00; five cron fields; seconds."),
    ],
    on: On = None,
    parameters: Parameters = None,
    timezone: Annotated[str, Option(("--timezone",), "Such as Europe/Berlin.")] = "UTC",
    start: Annotated[str | None, Option(("--start",), "ISO 8601.", metavar="TIME")] = None,
    end: Annotated[str | None, Option(("--end",), "ISO 8601.", metavar="TIME")] = None,
    catch_up: Annotated[bool, Option(("--catch-up",), "Make up for runs that were missed, from --start on.")] = False,
    paused: Annotated[bool, Option(("--paused",), "Create it paused.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Create the schedule of a pipeline, or change it in place.

    If the pipeline declares another schedule, its next deployment puts that one back.
    """
    with Output(as_json) as out:
        pipeline = load(file)
        schedule = Schedule.of(
            schedule_type,
            _seconds(value) if schedule_type == "interval" else value,
            timezone=timezone,
            start=_moment("--start", start),
            end=_moment("--end", end),
            catch_up=catch_up,
            parameters=read_parameters(pipeline.compile(), parameters or ()),
            paused=paused,
        )
        orchestrator = resolve(on)
        _print_schedule(out, orchestrator.schedule_pipeline(pipeline, schedule, force=force), orchestrator)


def list_(
    on: On = None,
    pipeline: OfPipeline = None,
    as_json: AsJson = False,
) -> None:
    """List schedules with the times that come next."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        listed = orchestrator.schedules(pipeline)
        if as_json:
            out.document([plain_schedule(info, orchestrator.name) for info in listed])
        elif not listed:
            note("no schedules yet")
        else:
            headers = ("ID", "PIPELINE", "SCHEDULE", "NEXT")
            out.table(headers, ((item.schedule_id, item.pipeline, str(item.schedule), _next(item)) for item in listed))


def pause(schedule: Id, on: On = None, as_json: AsJson = False) -> None:
    """Pause a schedule."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        _print_schedule(out, _with_id(orchestrator, schedule, orchestrator.pause_schedule), orchestrator)


def resume(schedule: Id, on: On = None, as_json: AsJson = False) -> None:
    """Resume a paused schedule."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        _print_schedule(out, _with_id(orchestrator, schedule, orchestrator.resume_schedule), orchestrator)


def delete(schedule: Id, on: On = None, as_json: AsJson = False) -> None:
    """Remove a schedule."""
    with Output(as_json) as out:
        orchestrator = resolve(on)

        def delete_it(schedule_id: str) -> str:
            orchestrator.delete_schedule(schedule_id)
            return schedule_id

        deleted = _with_id(orchestrator, schedule, delete_it)
        out.answer({"schedule_id": deleted, "deleted": True}, f"deleted {deleted}")


def serve(on: On = None) -> None:
    """Start the due runs of the local orchestrator's schedules, until Ctrl-C.

    Engines have their own schedulers and do not need this.
    """
    import logging

    from flowyml.orchestrators.local import LocalOrchestrator
    from flowyml.orchestrators.local.schedule_server import serve_schedules

    orchestrator = resolve(on or "local")
    if not isinstance(orchestrator, LocalOrchestrator):
        raise UsageError(f"{orchestrator.name!r} fires its schedules itself. Serve only those of 'local'.")
    form, time = "%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S %Z"
    logging.basicConfig(level=logging.INFO, handlers=[Notes()], format=form, datefmt=time)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    path = orchestrator.store.path
    note(f"serving the schedules in {path}; Ctrl-C stops it")
    serve_schedules(path)


def _with_id(orchestrator: Orchestrator, schedule: str, change: Callable[[str], Answer]) -> Answer:
    """Change the schedule of this id or, if there is none, the only schedule of the pipeline of this name."""
    try:
        return change(schedule)
    except ScheduleNotFoundError:
        matches = orchestrator.schedules(schedule)
        if not matches:
            raise
        if len(matches) > 1:
            ids = ", ".join(item.schedule_id for item in matches)
            raise UsageError(f"Pipeline {schedule!r} has several schedules. Give the id of one: {ids}.") from None
        return change(matches[0].schedule_id)


def _print_schedule(out: Output, info: ScheduleInfo, orchestrator: Orchestrator) -> None:
    state = _next(info) if info.paused else f"next {_next(info)}"
    line = f"{info.schedule_id}: {info.pipeline}, {info.schedule}, {state}"
    out.answer(plain_schedule(info, orchestrator.name), line)


def _next(info: ScheduleInfo) -> str:
    planned = f"{info.next_runs[0]:%Y-%m-%d %H:%M:%S %Z}" if info.next_runs else "never"
    if info.missed:
        number = f"{MOST_MISSED} or more" if info.missed >= MOST_MISSED else str(info.missed)
        planned += f", after {number} {'run that was' if info.missed == 1 else 'runs that were'} missed"
    drift = f" ({' '.join(info.drift)})" if info.drift else ""
    return ("paused" if info.paused else planned) + drift


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"interval takes seconds, such as 3600, not {text!r}.") from None


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a time. Write it like 2026-01-31T09:00.") from None
