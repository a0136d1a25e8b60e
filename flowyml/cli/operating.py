"""``flowyml trigger``, ``clear`` and ``backfill``: runs of workflows that are on an engine; and ``undeploy``."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from flowyml.cli.errors import UsageError
from flowyml.cli.finding import find_run
from flowyml.cli.options import Argument, AsJson, Job, On, Option, Parameters, RunId
from flowyml.cli.output import Output, note
from flowyml.cli.records import plain_run
from flowyml.cli.running import print_submission
from flowyml.cli.source import read_values
from flowyml.core.following import command_on
from flowyml.orchestrators.targets import resolve

__all__ = ["backfill", "clear", "trigger", "undeploy"]

Deployed = Annotated[str, Argument("NAME", "A deployed pipeline, or its name in the engine: a DAG's id.")]


def trigger(
    name: Deployed,
    on: On = None,
    parameters: Parameters = None,
    run_id: RunId = None,
    as_json: AsJson = False,
) -> None:
    """Start a run of a deployed workflow, without its code, and do not wait for it."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        print_submission(out, orchestrator.trigger(name, run_id, parameters=read_values(parameters or ())), run_id)


def clear(
    job: Job,
    on: On = None,
    everything: Annotated[bool, Option(("--all",), "All steps, not only those that did not succeed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the failed steps of a run again, and the steps after them."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        job_id = find_run(orchestrator, job).job_id
        orchestrator.clear(job_id, failed_only=not everything)
        print_submission(out, orchestrator.attach(job_id))


def backfill(
    name: Deployed,
    start: Annotated[str, Argument("START", "The first day, or an ISO 8601 time.")],
    end: Annotated[str, Argument("END", "The last day (inclusive), or an ISO 8601 time.")],
    on: On = None,
    parameters: Parameters = None,
    as_json: AsJson = False,
) -> None:
    """Create the runs that a schedule has missed in a range of dates, if any."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        days = _moment("START", start), _moment("END", end)
        made = orchestrator.backfill(name, *days, parameters=read_values(parameters or ()))
        if out.as_json:
            out.document([plain_run(one.run, orchestrator.name) for one in made])
            return
        for one in made:
            out.line(one.job_id)
        if made:
            note(f"submitted; watch one with: {command_on(orchestrator, 'watch', 'JOB')}")


def undeploy(
    name: Annotated[str, Argument("NAME", "The pipeline.")],
    on: On = None,
    output: Annotated[
        str | None,
        Option(("--output", "-o"), "A folder that compile wrote; the engine is not asked.", metavar="FOLDER"),
    ] = None,
    runs: Annotated[bool, Option(("--runs",), "Delete the records of its runs, too; none may be in progress.")] = False,
    dry_run: Annotated[bool, Option(("--dry-run",), "Show what would be removed; remove nothing.")] = False,
    force: Annotated[bool, Option(("--force",), "Even if it was changed by hand, or has runs in progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a pipeline from an engine: on Airflow its DAG file and the code beside it.

    Nothing that FlowyML did not write is removed, and nothing that another pipeline needs.
    """
    with Output(as_json) as out:
        removed = resolve(on).deployer.undeploy(name, folder=output, runs=runs, dry_run=dry_run, force=force)
        if out.as_json:
            out.document({"dry_run": dry_run, "removed": list(removed)})
            return
        for each in removed:
            out.line(each)
        note(f"{'would remove' if dry_run else 'removed'} {name}")


def _moment(what: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{what} {text!r} is not a date. Write it like 2026-01-31 or 2026-01-31T09:00.") from None
