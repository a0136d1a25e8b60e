"""``flowyml run`` and ``flowyml deploy``."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard
from warnings import catch_warnings

from flowyml.cli.errors import FAILED, UsageError
from flowyml.cli.log_lines import LogPrinter
from flowyml.cli.options import AsJson, File, Force, On, Option, Parameters, RunId, Timeout
from flowyml.cli.output import Output, discard_output, note, print_error, print_info_of_logging
from flowyml.cli.records import format_value, holds_copies, plain_outputs, plain_run, plain_step, status_word
from flowyml.cli.source import load, read_parameters
from flowyml.core.durations import counted, span_text
from flowyml.core.errors import EngineError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.following import command_for, command_on
from flowyml.core.observability import get_metrics_collector
from flowyml.core.runs import Outputs, Run
from flowyml.core.submission_result import RunOperations, SubmissionResult
from flowyml.core.urls import without_credentials as shown_url
from flowyml.orchestrators.base import Orchestrator, RunnablePipeline, located
from flowyml.orchestrators.targets import resolve

if TYPE_CHECKING:
    from flowyml.orchestrators.local import LocalOrchestrator
    from flowyml.plan.bundle import Bundle

__all__ = ["deploy", "run", "print_outputs", "runs_here", "print_submission", "wait"]

_TABLES = 3
"""The most tables of a list that are shown."""

_RAN_BEFORE = "a run with this id has already ended, and this is its result; use another --run-id for a new run"


def run(
    file: File,
    on: On = None,
    parameters: Parameters = None,
    run_id: RunId = None,
    detach: Annotated[bool, Option(("--detach", "-d"), "Submit the run and do not wait for it.")] = False,
    timeout: Timeout = None,
    force: Force = False,
    refresh: Annotated[bool, Option(("--refresh",), "Run cached steps again, for new results.")] = False,
    refresh_step: Annotated[
        list[str] | None,
        Option(("--refresh-step",), "Run this cached step again, for a new result. Repeatable.", metavar="NAME"),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run a pipeline, by default here and now.

    Without --detach it waits for the end, and the exit code says how the run ended.
    """
    if detach and timeout is not None:
        raise UsageError("--timeout limits how long to wait, and --detach does not wait. Use only one of them.")
    if run_id == "":
        raise UsageError("--run-id is empty. Leave it out to get a new id.")
    with Output(as_json, shared=True) as out:
        pipeline = load(file)
        if collector := get_metrics_collector():  # set while the file was loaded, when it was not asked
            collector.check()
        if refresh or refresh_step:
            pipeline = pipeline.refreshed(True if refresh else refresh_step or ())
        values = read_parameters(pipeline.compile(), parameters or ())
        orchestrator = resolve(on)
        if detach:
            submission = orchestrator.run_pipeline(pipeline, run_id, parameters=values, force=force)
            print_submission(out, submission, run_id)
            return 0
        if timeout is None and runs_here(orchestrator):
            return _run_here(out, orchestrator, pipeline, values, run_id)
        submission = orchestrator.run_pipeline(pipeline, run_id, parameters=values, force=force)
        if run_id is not None and submission.run.status.is_terminal:
            note(_RAN_BEFORE)
        elif not as_json:
            place = f" on {shown_url(on)}" if on else ""
            note(f"run {submission.run_id}{place}, job {submission.job_id}")
        return wait(out, submission, timeout, stops=True)


def deploy(
    file: File,
    on: On = None,
    dry_run: Annotated[bool, Option(("--dry-run",), "Show what would change, and change nothing.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Deploy a pipeline to an engine, without running it."""
    with Output(as_json) as out:
        orchestrator, pipeline = resolve(on), load(file)
        if dry_run:
            with located(pipeline):
                bundle = pipeline.bundle(orchestrator.plan(pipeline))
                difference = orchestrator.diff(bundle)
            if as_json:
                out.document({"diff": difference})
            else:
                out.text(difference.rstrip("\n") or "Nothing would change.")
            _check_deployable(orchestrator, bundle, force)
            return
        deployment = orchestrator.deploy_pipeline(pipeline, force=force)
        word = "deployed" if deployment.changed else "already deployed"
        lines = [f"{deployment.name} {word}, version {deployment.digest[:8]}"]
        if deployment.scheduled:
            lines.append(f"scheduled: {deployment.scheduled}")
        lines += [f"{name} moved to this version too" for name in deployment.also]
        out.answer(asdict(deployment), *lines, *filter(None, [deployment.url]))


def _check_deployable(orchestrator: Orchestrator, bundle: Bundle, force: bool) -> None:
    from flowyml.core.errors import EngineUnreachableError, FlowymlError, OwnershipError, ServerTroubleError

    try:
        with catch_warnings(action="ignore"):  # warnings that something is replaced
            orchestrator.check_deployable(bundle, force=force)
    except (EngineUnreachableError, ServerTroubleError):
        raise
    except OwnershipError as error:
        raise OwnershipError(f"Without --force, this deployment would be refused. {error}") from error
    except FlowymlError:
        note("this deployment would be refused:")
        raise


def wait(out: Output, submission: SubmissionResult, timeout: float | None, *, stops: bool = False) -> int:
    """Wait for a submitted run with progress on the terminal, and print its end.

    With ``stops``, for commands that started the run, Ctrl-C cancels it, and the output of its steps is shown.
    """
    from flowyml.core.following import cancel_on_interrupt, printing_logs

    if submission.url:
        note(submission.url)
    limit = float("inf") if timeout is None else timeout
    labels: Sequence[str] = ()
    with suppress(EngineError):  # one that does not answer now is waited for below
        labels = [step.label for step in submission.step_runs()] if stops else ()
    printer = LogPrinter(note if out.as_json else out.log_line, labels=labels, brief=True)
    try:
        with ExitStack() as stack:
            if stops:
                stack.enter_context(cancel_on_interrupt(submission, note))
                stack.enter_context(printing_logs(submission, printer, note))
            submission.wait_for_completion(timeout=limit, poll_interval=1, progress=False if out.as_json else None)
    except KeyboardInterrupt:
        if not stops:
            note(f"\nThe run goes on. To see it again: {command_for('watch', submission)}")
        raise
    return print_end(out, submission.orchestrator, submission.run, submission.outputs)


def print_end(out: Output, orchestrator: RunOperations, run: Run, outputs: Outputs) -> int:
    """Print an ended run; return the exit code, even if the output has no reader or is closed by a step."""
    try:
        _print_end(out, orchestrator, run, outputs)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EBADF):
            raise
        if error.errno == errno.EBADF:
            seen = command_on(orchestrator, "status", run.job_id)
            note(f"a step has closed standard output; how the run ended: {seen}")
        discard_output()
    except ValueError:
        if not out.stream.closed:
            raise
    return 0 if run.status.is_successful else FAILED


def _print_end(out: Output, orchestrator: RunOperations, run: Run, outputs: Outputs) -> None:
    if out.as_json:
        steps = [plain_step(step) for step in orchestrator.step_runs(run.job_id)]
        out.document({**plain_run(run, orchestrator.name), "steps": steps, "outputs": plain_outputs(outputs)})
        return
    out.line(run.pipeline, " ", status_word(run.status), f" in {span_text(run.duration_seconds)}, run {run.run_id}")
    print_outputs(out, orchestrator, run.job_id, outputs)
    out.stream.flush()
    if run.error:
        print_error(run.error)
    if run.status in (ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT):
        note(f"its log, with the traceback: {command_on(orchestrator, 'logs', run.job_id)}")


def print_outputs(out: Output, orchestrator: RunOperations, job_id: str, outputs: Outputs) -> None:
    """Print a line for each output, the heads of tables, why an output cannot be read, and how to download files."""
    from flowyml.plan.kinds import kind_of

    for name, value in outputs.items():
        if type(value) is list and value and all(kind_of(item) == "table" for item in value):
            for index, item in enumerate(value[:_TABLES]):
                _print_output(out, f"{name}[{index}]", item)
            if len(value) > _TABLES:
                out.line(f"  {name}: {counted(len(value) - _TABLES, 'more table')}")
        else:
            _print_output(out, name, value)
    for name, reason in outputs.not_kept.items():
        out.line(f"  {name}: {reason}")
    if any(map(holds_copies, outputs.values())):
        note(f"to write the files to a folder: {command_on(orchestrator, 'outputs', job_id)} --download DIR")


def _print_output(out: Output, name: str, value: Any) -> None:
    from flowyml.artifacts.previews import preview_of
    from flowyml.plan.kinds import kind_of

    table = preview_of(value, None, str) if kind_of(value) == "table" else {}
    if head := table.get("head"):
        facts = table["metadata"]
        size = f"{counted(facts['rows'], 'row')} and {counted(facts['columns'], 'column')}"
        out.line(f"  {name} is a table of {size}:")
        out.table(head["columns"], head["rows"])
    else:
        out.line(f"  {name} = {format_value(value)}")


def runs_here(orchestrator: object) -> TypeGuard[LocalOrchestrator]:
    """Return whether the run is executed in this process while it is waited for."""
    from flowyml.orchestrators.local import LocalOrchestrator

    return isinstance(orchestrator, LocalOrchestrator)


def _run_here(
    out: Output, orchestrator: LocalOrchestrator, pipeline: RunnablePipeline, values: dict[str, Any], run_id: str | None
) -> int:
    from flowyml.orchestrators.local.host import Foreground
    from flowyml.orchestrators.submission import new_run_id

    orchestrator.host = Foreground()
    checked = pipeline.check_parameters(values)
    print_info_of_logging()
    began = datetime.now(UTC)
    result = orchestrator.execute(pipeline, run_id or new_run_id(pipeline.name), checked)
    run = orchestrator.get_run(result.run_id)
    if not run.status.is_terminal:  # its end could not be recorded
        run = replace(run, status=result.status, error=result.error)
    if run.ended_at and run.ended_at < began:
        note(_RAN_BEFORE)
    return print_end(out, orchestrator, run, result.outputs)


def print_submission(out: Output, submission: SubmissionResult, run_id: str | None = None) -> None:
    """Print the run that a command has started, or that has its ``run_id`` already, and commands for details."""
    run = submission.run
    if out.as_json:
        out.document(plain_run(run, submission.orchestrator.name))
        return
    out.line(run.job_id)
    if run_id is not None and run.status.is_terminal:
        note(f"a run with this id has already ended ({run.status}); use another --run-id for a new run")
    else:
        started = "submitted; " if run_id is None else ""  # a run of that id may have been there
        note(f"{started}watch it with: {command_for('watch', submission)}")
    if run.url:
        note(run.url)
