"""Commands about runs that exist: ``runs``, ``status``, ``watch``, ``logs``, ``outputs``, ``cancel``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from flowyml.cli.failures import UsageError
from flowyml.cli.options import Argument, AsJson, Job, OfPipeline, On, Option, Timeout
from flowyml.cli.output import Output, note, tell_error
from flowyml.cli.records import plain_log, plain_outputs, plain_run, plain_step, status_word
from flowyml.core.errors import FlowymlError
from flowyml.core.runs import LogLine, StepRun
from flowyml.orchestrators.registry import resolve

__all__ = ["cancel", "logs", "outputs", "runs", "status", "watch"]


def runs(
    on: On = None,
    pipeline: OfPipeline = None,
    limit: Annotated[int, Option(("--limit", "-n"), "How many, newest first.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        found = orchestrator.runs(pipeline, limit=limit)
        if as_json:
            out.document([plain_run(run, orchestrator.name) for run in found])
        elif not found:
            note("no runs yet")
        else:
            same = all(run.job_id == run.run_id for run in found)
            ids = ("JOB",) if same else ("JOB", "RUN")
            out.table(
                (*ids, "PIPELINE", "STATUS", "STARTED", "TOOK"),
                (
                    (
                        *((run.job_id,) if same else (run.job_id, run.run_id)),
                        run.pipeline,
                        status_word(run.status),
                        _local_time(run.started_at or run.created_at),
                        f"{run.duration_seconds:.1f} s" if run.started_at else "",
                    )
                    for run in found
                ),
            )


def status(job: Job, on: On = None, as_json: AsJson = False) -> None:
    """Show where a run stands, step by step."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        run = orchestrator.get_run(job)
        steps = orchestrator.step_runs(job)
        if as_json:
            out.document({**plain_run(run, orchestrator.name), "steps": [plain_step(step) for step in steps]})
            return
        word = out.styled(status_word(run.status))
        out.line(f"{run.pipeline} {word} {run.duration_seconds:.1f} s, run {run.run_id}")
        if run.url:
            out.line(run.url)
        out.table(
            ("STEP", "STATUS", "TOOK", "ATTEMPT", ""),
            (
                (
                    step.name,
                    status_word(step.status),
                    f"{step.duration_seconds:.1f} s" if step.started_at else "",
                    step.attempt or "",
                    (step.error or "").partition("\n")[0],
                )
                for step in steps
            ),
        )
        if run.error:
            tell_error(run.error)


def watch(job: Job, on: On = None, timeout: Timeout = None, as_json: AsJson = False) -> int:
    """Follow a run until it ends; the exit code says how it ended."""
    from flowyml.cli.running import wait

    with Output(as_json) as out:
        orchestrator = resolve(on)
        return wait(out, orchestrator.attach(job), orchestrator, on, timeout)


def logs(
    job: Job,
    on: On = None,
    follow: Annotated[bool, Option(("--follow", "-f"), "Go on until the run ends.")] = False,
    step: Annotated[str | None, Option(("--step",), "Only the lines of one step.", metavar="NAME")] = None,
    as_json: Annotated[bool, Option(("--json",), "Print a JSON object for each line.")] = False,
) -> None:
    """Print what a run printed and logged."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        if step is not None:
            _check_step(step, orchestrator.step_runs(job))
        for line in orchestrator.logs(job, follow=follow):
            if step is not None and line.step != step:
                continue
            if as_json:
                out.json_line(plain_log(line))
            else:
                out.line(_log_text(out, line))
                out.stream.flush()


def outputs(
    job: Job,
    name: Annotated[str | None, Argument("[NAME]", "Only this one.")] = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Read back the outputs of a completed run."""
    from flowyml.cli.running import tell_outputs

    with Output(as_json) as out:
        submission = resolve(on).attach(job)
        if not submission.run.status.is_successful:
            state = submission.run.status
            raise FlowymlError(f"run {submission.run_id} is {state}: only a completed run has outputs.")
        values = submission.outputs
        if name is not None:
            if name not in {*values, *values.not_kept}:
                raise UsageError(f"This run has no output {name!r}. It has: {', '.join([*values, *values.not_kept])}.")
            values = type(values)({name: values[name]})
        if as_json:
            out.document(plain_outputs(values))
        elif name is not None:
            value = values[name]
            out.line(value if isinstance(value, str) else repr(value))
        else:
            tell_outputs(out, values)


def cancel(job: Job, on: On = None, as_json: AsJson = False) -> None:
    """Stop a run and its work. Engines take a moment for that: `flowyml watch` waits for the end."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        done = orchestrator.cancel(job)
        status = orchestrator.get_run(job).status
        if as_json:
            out.document({"job_id": job, "cancelled": done, "status": status.name})
        elif not done:
            out.line(f"nothing to cancel: it is {status}")
        else:
            out.line("cancelled" if status.is_terminal else "being cancelled: its work is told to stop")


def _check_step(name: str, steps: Sequence[StepRun]) -> None:
    names = [step.name for step in steps]
    if names and name not in names:
        raise UsageError(f"This run has no step {name!r}. It has: {', '.join(names)}.")


def _log_text(out: Output, line: LogLine) -> str:
    time = f"{line.time.astimezone():%H:%M:%S} " if line.time else ""
    level = f"{line.level} " if line.level not in ("INFO", "") else ""
    step = f"{out.styled(line.step, 'cyan')} │ " if line.step else ""
    return f"{out.styled(time, 'dim')}{step}{level}{line.message}"


def _local_time(time: datetime | None) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""
