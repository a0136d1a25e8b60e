"""``flowyml run`` and ``flowyml deploy``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from flowyml.cli.failures import FAILED, UsageError
from flowyml.cli.options import AsJson, File, Force, On, Option, Parameters, Timeout
from flowyml.cli.output import Output, note, tell_error
from flowyml.cli.records import plain_outputs, plain_run, plain_step, shown, status_word
from flowyml.cli.source import load, read_parameters
from flowyml.core.runs import Outputs, Run
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator, RunnablePipeline
from flowyml.orchestrators.registry import resolve

__all__ = ["deploy", "run", "tell_outputs", "wait"]


def run(
    file: File,
    on: On = None,
    parameters: Parameters = None,
    run_id: Annotated[
        str | None,
        Option(("--run-id",), "The same id twice gives the same run.", metavar="ID"),
    ] = None,
    detach: Annotated[bool, Option(("--detach", "-d"), "Submit the run and do not wait for it.")] = False,
    timeout: Timeout = None,
    force: Force = False,
    as_json: AsJson = False,
) -> int:
    """Run a pipeline, by default here and now.

    Without --detach it waits for the end, and the exit code says how the run ended.
    """
    if detach and timeout is not None:
        raise UsageError("--timeout limits the waiting, and with --detach there is none. Leave one of them out.")
    if run_id == "":
        raise UsageError("--run-id is empty. Leave it out, and the run gets an id of its own.")
    with Output(as_json, shared=True) as out:
        pipeline = load(file)
        values = read_parameters(pipeline.compile(), parameters or ())
        orchestrator = resolve(on)
        if detach:
            submission = orchestrator.run_pipeline(pipeline, run_id, parameters=values, force=force)
            _tell_submission(out, submission, orchestrator, on)
            return 0
        if timeout is None and _runs_here(orchestrator):
            return _run_here(out, orchestrator, pipeline, values, run_id)
        submission = orchestrator.run_pipeline(pipeline, run_id, parameters=values, force=force)
        if not as_json:
            _tell_start(submission, on)
        return wait(out, submission, orchestrator, on, timeout)


def deploy(
    file: File,
    on: On = None,
    dry_run: Annotated[bool, Option(("--dry-run",), "Show what would change, and change nothing.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a pipeline known to an engine without running it."""
    with Output(as_json) as out:
        orchestrator, pipeline = resolve(on), load(file)
        if dry_run:
            _tell_difference(out, orchestrator.diff(pipeline.bundle(orchestrator.plan(pipeline))))
            return
        deployment = orchestrator.deploy_pipeline(pipeline, force=force)
        if as_json:
            out.document(asdict(deployment))
            return
        word = "deployed" if deployment.changed else "already deployed"
        out.line(f"{deployment.name} {word}, version {deployment.digest[:8]}")
        if deployment.url:
            out.line(deployment.url)


def _tell_difference(out: Output, difference: str) -> None:
    if out.as_json:
        out.document({"diff": difference})
    else:
        out.line(difference.rstrip("\n") or "Nothing would change.")


def wait(
    out: Output, submission: SubmissionResult, orchestrator: Orchestrator, on: str | None, timeout: float | None
) -> int:
    """Wait for a submitted run with progress on the terminal, and tell how it ended."""
    if submission.url:
        note(submission.url)
    limit = float("inf") if timeout is None else timeout
    try:
        submission.wait_for_completion(timeout=limit, poll_interval=1, progress=None if not out.as_json else False)
    except KeyboardInterrupt:
        where = f" --on {on}" if on else ""
        note(f"\nThe run goes on. To see it again: flowyml watch {submission.job_id}{where}")
        raise
    return tell_end(out, submission.run, orchestrator, submission.outputs)


def tell_end(out: Output, run: Run, orchestrator: Orchestrator, outputs: Outputs) -> int:
    """Print an ended run; gives the exit code."""
    if out.as_json:
        steps = [plain_step(step) for step in orchestrator.step_runs(run.job_id)]
        out.document({**plain_run(run, orchestrator.name), "steps": steps, "outputs": plain_outputs(outputs)})
    else:
        word = out.styled(status_word(run.status))
        out.line(f"{run.pipeline} {word} in {run.duration_seconds:.1f} s, run {run.run_id}")
        tell_outputs(out, outputs)
        if run.error:
            tell_error(run.error)
    return 0 if run.status.is_successful else FAILED


def tell_outputs(out: Output, outputs: Outputs) -> None:
    """A line for each output."""
    for name, value in outputs.items():
        out.line(f"  {name} = {shown(value)}")
    for name in outputs.not_kept:
        out.line(f"  {name} was not kept")


def _runs_here(orchestrator: Orchestrator) -> bool:
    """Whether waiting for the run means working on it in this process."""
    from flowyml.orchestrators.local import LocalOrchestrator

    return isinstance(orchestrator, LocalOrchestrator)


def _run_here(
    out: Output, orchestrator: Orchestrator, pipeline: RunnablePipeline, values: dict[str, Any], run_id: str | None
) -> int:
    from flowyml.orchestrators.base import new_run_id

    checked = pipeline.check_parameters(values)
    result = orchestrator.execute(pipeline, run_id or new_run_id(pipeline.name), checked)
    return tell_end(out, orchestrator.get_run(result.run_id), orchestrator, result.outputs)


def _tell_start(submission: SubmissionResult, on: str | None) -> None:
    where = f" on {on}" if on else ""
    note(f"run {submission.run_id}{where}, job {submission.job_id}")


def _tell_submission(out: Output, submission: SubmissionResult, orchestrator: Orchestrator, on: str | None) -> None:
    run = submission.run
    if out.as_json:
        out.document(plain_run(run, orchestrator.name))
        return
    out.line(run.job_id)
    where = f" --on {on}" if on else ""
    note(f"submitted; watch it with: flowyml watch {run.job_id}{where}")
    if run.url:
        note(run.url)
