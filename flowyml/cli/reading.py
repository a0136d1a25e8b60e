"""Commands about runs that exist: ``runs``, ``status``, ``watch``, ``logs``, ``outputs``, ``cancel``, ``retry``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from flowyml.artifacts import open_store
from flowyml.artifacts.packing import is_reference, unpack
from flowyml.artifacts.plain import with_floats
from flowyml.cli.errors import UsageError
from flowyml.cli.finding import find_run, short_id
from flowyml.cli.options import Argument, AsJson, Job, OfPipeline, On, Option, Parameters, Timeout
from flowyml.cli.output import Output, Word, note, print_error
from flowyml.cli.records import (
    format_value,
    metrics_of,
    plain_artifact,
    plain_log,
    plain_outputs,
    plain_run,
    plain_step,
    status_word,
    without_copies,
)
from flowyml.core.capabilities import Feature, Level
from flowyml.core.durations import size_text, span_text, zone_text
from flowyml.core.errors import ArtifactError, FlowymlError, OutputNotKeptError
from flowyml.core.following import command_for, command_on
from flowyml.core.runs import Artifact, Artifacts, Outputs, Run, StepRun, opened
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.targets import resolve

__all__ = ["artifacts", "cancel", "logs", "outputs", "retry", "runs", "status", "watch"]

_WIDE = 70
"""The number of terminal columns from which `runs` shows whole times and durations, and `status` a table."""

_WHOLE = "%Y-%m-%d %H:%M:%S"

_NO_FILE = "no stored file"
"""Of an output that only passed between steps, such as in the pods' own files."""

_FOR_FACTS = 24
"""The least number of columns for the facts about an artifact."""


def runs(
    on: On = None,
    pipeline: OfPipeline = None,
    limit: Annotated[int, Option(("--limit", "-n"), "How many runs, newest first.", min=1)] = 20,
    parameters: Annotated[bool, Option(("--parameters",), "Also the parameters of each run.")] = False,
    metrics: Annotated[
        bool, Option(("--metrics",), "Also the metrics that its steps returned: one more request for each run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first. Every command takes the short id of the first column."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        listed = orchestrator.runs(pipeline, limit=limit)
        lacks: list[str] = []
        returned = [metrics_of(orchestrator, run, lacks) for run in listed] if metrics else []
        if as_json:
            plain = [plain_run(run, orchestrator.name) for run in listed]
            for run, values in zip(plain, returned, strict=False):
                run["metrics"] = values
            out.document(plain)
        elif not listed:
            note("no runs yet")
        else:
            more = {"PARAMETERS": [_pairs(run.parameters) for run in listed]} if parameters else {}
            _list_runs(out, listed, more | ({"METRICS": list(map(_pairs, returned))} if metrics else {}))
        for lack in dict.fromkeys(lacks):
            note(lack)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


def status(job: Job, on: On = None, as_json: AsJson = False) -> None:
    """Show the status of a run, step by step."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        run = find_run(orchestrator, job)
        steps = orchestrator.step_runs(run.job_id)
        if as_json:
            plain_steps = [plain_step(step) for step in steps]
            out.document({**plain_run(run, orchestrator.name), "steps": plain_steps, "not_kept": dict(run.not_kept)})
            return
        out.line(run.pipeline, " ", status_word(run.status), f" {span_text(run.duration_seconds)}, run {run.run_id}")
        if run.url:
            out.line(run.url)
        if run.revision:
            out.line(f"code of commit {run.revision}")
        _list_steps(out, steps)
        for name, reason in run.not_kept.items():
            out.line(f"output {name}: {reason}")
        if run.error:
            out.stream.flush()  # so that the error comes last
            print_error(run.error)


def _list_steps(out: Output, steps: Sequence[StepRun]) -> None:
    """Print a table; on a narrow terminal one line for each step, and its note below."""
    rows = [(step, status_word(step.status), about) for step, about in opened(steps)]
    if out.columns is None or out.columns >= _WIDE:
        headers = ("STEP", "STATUS", "TOOK", "ATTEMPT", "NOTE")
        out.table(headers, [(s.label, word, _took(s), s.attempt or "", about) for s, word, about in rows])
        return
    for step, word, about in rows:
        out.line(step.short_label(out.columns - len(word.text) - 1), " ", word)
        if about:
            out.line("  ", about)


def _took(step: StepRun) -> str:
    return span_text(step.duration_seconds) if step.started_at else ""


def watch(job: Job, on: On = None, timeout: Timeout = None, as_json: AsJson = False) -> int:
    """Follow a run until it ends; the exit code says how it ended."""
    from flowyml.cli.running import wait

    with Output(as_json) as out:
        return wait(out, _attached(resolve(on), job), timeout)


def logs(
    job: Job,
    on: On = None,
    follow: Annotated[bool, Option(("--follow", "-f"), "Keep printing until the run ends.")] = False,
    step: Annotated[
        str | None, Option(("--step",), "Only the lines of one step, or of one item: train[3].", metavar="NAME")
    ] = None,
    index: Annotated[
        str | None,
        Option(("--index",), "With --step, only the lines of one item; 1,2 in nested loops.", metavar="NUMBER"),
    ] = None,
    verbose: Annotated[
        bool, Option(("--verbose",), "Also the engine's own lines, such as those of KFP's launcher.")
    ] = False,
    as_json: Annotated[bool, Option(("--json",), "Print a JSON object for each line.")] = False,
) -> None:
    """Print the log of a run."""
    from flowyml.cli.log_lines import LogPrinter

    with Output(as_json) as out:
        if index is not None and step is None:
            raise UsageError("--index selects an item of a step: name the step with --step.")
        submission = _attached(resolve(on), job)
        lines = submission.logs(follow=follow, step=step, index=_numbers(index), verbose=verbose)
        labels = [run.label for run in submission.step_runs() if step in (None, run.name)] if not as_json else []
        printer = LogPrinter(out.log_line, labels=labels, head=note)
        line = None
        for line in lines:
            if as_json:
                out.json_line(plain_log(line))
            else:
                printer(line)
        if line is None and (why := submission.orchestrator.why_no_lines(submission.job_id)):
            note(why)


def outputs(
    job: Job,
    name: Annotated[
        str | None, Argument("[NAME]", "Only this output, of the pipeline, or a stored one of a step: STEP.OUTPUT.")
    ] = None,
    on: On = None,
    download: Annotated[
        Path | None, Option(("--download",), "Write the stored outputs of all steps to this folder.", metavar="DIR")
    ] = None,
    partial: Annotated[
        bool, Option(("--partial",), "What completed steps and items of a run have returned, by STEP.OUTPUT.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Read back the outputs of a completed run; with --partial, those of completed steps of any run."""
    from flowyml.cli.running import print_outputs

    with Output(as_json) as out:
        orchestrator = resolve(on)
        submission = _attached(orchestrator, job)
        support = orchestrator.capabilities[Feature.STEP_OUTPUTS]
        has_partial = support.level is not Level.NO
        if download is not None:
            hint = has_partial and not partial
            return _download(out, submission, download, name, partial=partial, hint=hint, as_json=as_json)
        state = submission.run.status
        if not partial and not state.is_successful:
            partly = f"{command_on(orchestrator, 'outputs', submission.job_id)} --partial"
            advice = f"Those of steps that have completed: {partly}" if has_partial else support.sentence
            raise FlowymlError(f"run {submission.run_id} is {state}: only a completed run has outputs. {advice}")
        values = _partial_outputs(submission, name) if partial else submission.outputs
        if name is not None:
            if name not in values:
                stores = submission.orchestrator.artifact_stores(submission.job_id)
                stored = _stored(submission, name, submission.artifacts())
                values = Outputs({name: unpack(stored[0].packed, *stores)})
            values = Outputs({name: values[name]})
        if as_json:
            out.document(plain_outputs(values))
        elif name is not None:
            value = without_copies(values[name])
            out.raw(f"{value if isinstance(value, str) else repr(value)}\n".encode("utf-8", "backslashreplace"))
        else:
            print_outputs(out, orchestrator, submission.job_id, values)
        return 0


def _partial_outputs(submission: SubmissionResult, name: str | None) -> Outputs:
    """Return what completed steps and items returned, by ``STEP.OUTPUT``; only one with a ``name``."""
    values: dict[str, Any] = {}
    lost: dict[str, str] = {}
    recorded = submission.step_outputs().items()
    places = {f"{label}.{output}": (outputs, output) for label, outputs in recorded for output in outputs}
    if name is not None and name not in places:
        raise UsageError(f"No completed step of this run has an output {name!r}. Known: {', '.join(places)}.")
    for place in places if name is None else (name,):
        outputs, output = places[place]
        try:
            values[place] = outputs[output]
        except (ArtifactError, OutputNotKeptError) as error:
            lost[place] = str(error)
    return Outputs(values, not_kept=lost)


def _download(
    out: Output,
    submission: SubmissionResult,
    folder: Path,
    name: str | None,
    *,
    partial: bool,
    hint: bool,
    as_json: bool,
) -> int:
    """Write and list what can be read; then say of the rest why it is missing. 1 if an artifact could not be read.

    ``partial`` writes files of recorded outputs that have none, too; ``hint`` names it where a failed run has some.
    """
    from flowyml.cli.running import runs_here
    from flowyml.orchestrators.downloading import download, stored_anew

    artifacts = submission.artifacts()
    stores = [*submission.orchestrator.artifact_stores(submission.job_id)]
    errors: list[str] = []
    with ExitStack() as until_written:
        if partial:
            fresh = open_store(until_written.enter_context(TemporaryDirectory(prefix="flowyml-")))
            artifacts = Artifacts(stored_anew(artifacts, submission.step_outputs(), fresh))
            stores.append(fresh)
        wanted = artifacts if name is None else _stored(submission, name, artifacts)
        written = download(
            artifacts, stores, folder, wanted=lambda item: item in wanted, note=note,
            failed=lambda artifact, error: errors.append(f"{artifact.label}: {error}"),
        )  # fmt: skip
    paths = list(map(str, written))
    out.answer(paths, *paths)
    out.stream.flush()  # so that the errors come last
    unstored = [item.label for item in wanted if not _has_file(item)]
    if unstored:
        note(f"{_NO_FILE}: {', '.join(unstored)}")
    if not as_json and (unstored or not wanted):
        if not submission.run.status.is_successful:
            if hint:
                note("with --partial, what its completed steps returned is written, too")
        else:
            local = "; `flowyml run` and submit() also store large outputs of a local run, pipeline.run() does not"
            more = local if runs_here(submission.orchestrator) else ""
            note(f"`flowyml outputs` also shows the outputs that this run kept without storing a file{more}")
    for error in errors:
        print_error(error)
    return 1 if errors else 0


def _stored(submission: SubmissionResult, name: str, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Return those artifacts of an output: one of the pipeline, or else of a step, as OUTPUT or STEP.OUTPUT.

    Raises ``UsageError`` with the names that exist.
    """
    from flowyml.orchestrators.run_outputs import packed_outputs

    returned = packed_outputs(lambda: submission.outputs)
    digests = set(_digests(dict(returned).get(name)))
    if wanted := [item for item in artifacts if item.digest in digests]:
        return wanted
    if wanted := [item for item in artifacts if name in (item.name, item.label)]:
        return wanted
    if name in returned:
        raise UsageError(f"Output {name!r} has no stored file: `flowyml outputs` shows it.")
    names = {
        "pipeline": [*returned, *returned.not_kept],
        "steps' stored outputs": [item.label for item in artifacts],
    }
    has = "; ".join(f"of the {of}: {', '.join(item)}" for of, item in names.items() if item) or "none"
    raise UsageError(f"This run has no output {name!r}. It has these, {has}.")


def _digests(packed: Any) -> Iterator[str]:
    if is_reference(packed):
        yield packed["$artifact"]["sha256"]
    elif isinstance(packed, list | tuple):
        for item in packed:
            yield from _digests(item)


def artifacts(job: Job, on: On = None, as_json: AsJson = False) -> None:
    """List the artifacts of a run's steps, and their metrics: type, size, facts and location."""
    with Output(as_json) as out:
        listed = _attached(resolve(on), job).artifacts()
        if as_json:
            out.document([plain_artifact(artifact) for artifact in listed])
        elif not listed:
            note("this run has stored nothing")
        else:
            _list_artifacts(out, listed)


def _list_artifacts(out: Output, listed: Sequence[Artifact]) -> None:
    """Print a table; on a narrow terminal, the names, with the rest below each."""
    from textwrap import wrap

    from flowyml.graph.text import width

    headers = ("OUTPUT", "TYPE", "SIZE", "DIGEST", "FACTS")
    rows = [
        (
            artifact.label,
            artifact.type,
            "" if artifact.size is None else size_text(artifact.size),
            (artifact.digest or "")[:12],
            _facts(artifact),
        )
        for artifact in listed
    ]
    taken = sum(max(map(width, column)) + 2 for column in zip(headers[:-1], *(row[:-1] for row in rows), strict=True))
    if out.columns is None or taken + _FOR_FACTS <= out.columns:
        out.table(headers, rows, cut="FACTS")
        return
    for label, kind, size, _, facts in rows:
        out.line(label)
        for line in wrap(", ".join(filter(None, (kind, size, facts))), max(_FOR_FACTS, out.columns - 2)):
            out.line("  ", line)


def _has_file(artifact: Artifact) -> bool:
    return artifact.url is not None or artifact.type == "metrics"


def _facts(artifact: Artifact) -> str:
    facts = ((name, with_floats(fact) if isinstance(fact, dict) else fact) for name, fact in artifact.metadata.items())
    return ", ".join([*([] if _has_file(artifact) else [_NO_FILE]), *(f"{name}={fact}" for name, fact in facts)])[:200]


def cancel(job: Job, on: On = None, as_json: AsJson = False) -> None:
    """Stop a run and its work. Engines take a moment for that: `flowyml watch` waits for the end."""
    with Output(as_json) as out:
        orchestrator = resolve(on)
        job_id = find_run(orchestrator, job).job_id
        done = orchestrator.cancel(job_id)
        status = orchestrator.get_run(job_id).status
        stopping = "cancelled" if status.is_terminal else "being cancelled: its work has been asked to stop"
        line = stopping if done else f"nothing to cancel: it is {status}"
        out.answer({"job_id": job_id, "cancelled": done, "status": status.name}, line)


def retry(
    job: Job,
    on: On = None,
    step: Annotated[
        list[str] | None,
        Option(("--step",), "Only this step, or one item of it: train[3]. Repeatable.", metavar="NAME"),
    ] = None,
    with_new_code: Annotated[
        str | None,
        Option(
            ("--with-new-code",),
            "Start a new run of this file's pipeline instead, which takes the completed steps that fit and runs the "
            "rest, and each --step.",
            metavar="FILE[:NAME]",
        ),
    ] = None,
    parameters: Parameters = None,
    as_json: AsJson = False,
) -> None:
    """Run the failed steps of a run again, and those that wait for them, under the same id; do not wait for the end.

    They run the code that the run was started with. --with-new-code runs them with the edited file, in a new run
    with the same parameters, apart from each -p.
    """
    with Output(as_json) as out:
        from flowyml.cli.source import load, read_parameters

        pipeline = None if with_new_code is None else load(with_new_code)
        if pipeline is None and parameters:
            raise UsageError("-p needs --with-new-code: a retry has the parameters that its run was started with.")
        values = read_parameters(pipeline.compile(), parameters or ()) if pipeline else {}
        orchestrator = resolve(on)
        again = _attached(orchestrator, job).retry(step or None, with_new_code=pipeline, parameters=values)
        if as_json:
            out.document(plain_run(again.run, orchestrator.name))
            return
        out.line(again.job_id)
        if pipeline is None:
            note("running again, with the code that the run was started with")
        note(f"watch it with: {command_for('watch', again)}")
        if pipeline is None and orchestrator.capabilities[Feature.RETRY_NEW_CODE].level is not Level.NO:
            note(f"to run edited code, when it has ended: {command_for('retry', again)} --with-new-code FILE")


def _attached(orchestrator: Orchestrator, identifier: str) -> SubmissionResult:
    run = find_run(orchestrator, identifier)
    return SubmissionResult(orchestrator, run.job_id, run=run)


def _numbers(index: str | None) -> tuple[int, ...] | None:
    if index is None:
        return None
    try:
        return tuple(map(int, index.split(",")))
    except ValueError:
        raise UsageError(f"--index {index!r} is neither a number nor two numbers separated by a comma.") from None


def _list_runs(out: Output, runs: Sequence[Run], more: Mapping[str, Sequence[str]]) -> None:
    """Print one line for each run. A terminal gets what fits; other outputs also have the engine's own ids.

    With ``more`` columns, cells are wrapped, or stacked on a narrow terminal.
    """
    listed = list(zip(runs, *more.values(), strict=True))
    zone = zone_text(began for run in runs if (began := run.started_at or run.created_at))
    headers = ["ID", "PIPELINE", "STATUS", f"STARTED ({zone})" if zone else "STARTED", "TOOK"]
    if out.columns is None:
        ids = ["JOB"] if all(run.job_id == run.run_id for run in runs) else ["JOB", "RUN"]
        rows = [(*_row(run, _WHOLE), *cells, *(run.job_id, run.run_id)[: len(ids)]) for run, *cells in listed]
        out.table([*headers, *more, *ids], rows)
        return
    if more:
        out.table([*headers, *more], [(*_row(run, _WHOLE), *cells) for run, *cells in listed])
        return
    wide = out.columns >= _WIDE
    if not wide:
        headers = [*headers[:3], f"AT {datetime.now().astimezone():%Z}"]  # only those of today show a time
    rows = [_row(run, _time_format(run, wide))[: len(headers)] for run in runs]
    out.table(headers, rows, cut="PIPELINE")


def _row(run: Run, time: str) -> tuple[str | Word, ...]:
    began = run.started_at or run.created_at
    return (
        short_id(run),
        run.pipeline,
        status_word(run.status),
        f"{began.astimezone():{time}}" if began else "",
        span_text(run.duration_seconds) if run.started_at else "",
    )


def _time_format(run: Run, wide: bool) -> str:
    """Return the format of times: in full if there is room; else the time for a run of today, the date for another."""
    if wide:
        return _WHOLE
    began = run.started_at or run.created_at
    return "%H:%M" if began and began.astimezone().date() == datetime.now().astimezone().date() else "%d %b"
