"""``flowyml cache``: the cached results of steps."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import dropwhile, groupby
from typing import Annotated, Any

from flowyml.artifacts import Store, open_store
from flowyml.cli.errors import NOT_FOUND, UsageError
from flowyml.cli.options import Argument, AsJson, OfPipeline, On, Option
from flowyml.cli.output import Output, note, print_error
from flowyml.core.durations import counted, seconds_of, size_text, span_text, zone_text
from flowyml.core.errors import PlanError, RetryRefusedError, UnsupportedFeatureError
from flowyml.core.runs import Run, StepRun
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.cache_pruning import bytes_in, store_of
from flowyml.orchestrators.targets import resolve
from flowyml.plan.differences import changed_files
from flowyml.runtime.caching import Entry, entries_in

__all__ = ["Artifacts", "clear", "differences", "entries_of", "explain", "list_", "result_store", "show"]

_COLUMNS = {"KEY": 0, "PIPELINE": 60, "STEP": 0, "FROM RUN": 120, "CREATED": 80, "TOOK": 60, "SIZE": 0}
"""The columns of the table of results, and how wide a terminal must be to show each."""

_IN_WORDS = {
    "code": "its code", "data": "{}", "makers": "the code of the steps before", "inputs": "input {!r}",
    "files": "a file that input {!r} names", "held": "the state of its code in the calling process",
    "packages": "package {}", "environment": "variable {}", "secrets": "secret {}", "dates": "the run's {}",
}  # fmt: skip

OfStep = Annotated[str | None, Option(("--step",), "Only results of this step.", metavar="NAME")]
Artifacts = Annotated[
    str | None, Option(("--artifacts",), "The store: a folder or URL; by default the target's.", metavar="URL")
]


def list_(
    on: On = None,
    artifacts: Artifacts = None,
    pipeline: OfPipeline = None,
    step: OfStep = None,
    as_json: AsJson = False,
) -> None:
    """List the cached results, newest first."""
    with Output(as_json) as out:
        store = result_store(resolve(on), artifacts)
        entries = list(entries_of(store, pipeline, step))
        found = sorted(filter(None, (entry for _, entry in entries)), key=lambda entry: entry.created, reverse=True)
        unreadable = sum(entry is None and bytes_in(store, folder) > 0 for folder, entry in entries)
        if as_json:
            out.document([_plain(entry) for entry in found])
        elif found:
            _list(out, found)
        elif not unreadable:
            note(f"nothing is cached in {store.url}")
        if unreadable:
            note(
                f"{counted(unreadable, 'result')} in {store.url} cannot be read here: written by another user or "
                f"another version of FlowyML, or damaged. `flowyml cache clear --all` deletes those that you may delete"
            )


def _list(out: Output, found: Sequence[Entry]) -> None:
    """Print one line for each result. A narrow terminal gets the columns that fit."""
    kept = [name for name, least in _COLUMNS.items() if out.columns is None or out.columns >= least]
    long = "FROM RUN" if "FROM RUN" in kept else "STEP"
    places = [[*_COLUMNS].index(name) for name in kept]
    zone = zone_text(_created(entry) for entry in found)
    headers = [f"{name} ({zone})" if name == "CREATED" else name for name in kept]
    out.table(headers, [[row[place] for place in places] for row in map(_row, found)], cut=long)


def show(
    key: Annotated[str, Argument("KEY", "The key, or its beginning, as `cache list` shows it.")],
    on: On = None,
    artifacts: Artifacts = None,
    as_json: AsJson = False,
) -> int:
    """Show the dependencies of one result: digests of its code and inputs, and what else its step declares."""
    with Output(as_json) as out:
        entry = _one(result_store(resolve(on), artifacts), key)
        if entry is None:
            print_error(f"No cached result has a key that begins with {key!r}. `flowyml cache list` shows all.")
            return NOT_FOUND
        if as_json:
            out.document({**_plain(entry), "depends": entry.depends})
            return 0
        shown = {**_plain(entry), "bytes": f"{entry.size:,}", "seconds": f"{entry.seconds:.3g}", **entry.depends}
        for name, value in shown.items():
            out.line(f"{name:12} {value}")
        return 0


def explain(
    step: Annotated[str, Argument("STEP", "The step's name.")],
    run_id: Annotated[
        str | None, Option(("--run",), "The run; by default the last one with this step.", metavar="ID")
    ] = None,
    on: On = None,
    artifacts: Artifacts = None,
    pipeline: OfPipeline = None,
    as_json: AsJson = False,
) -> int:
    """Say why a cached step ran, or where its result is from: what differs from its earlier results."""
    with Output(as_json) as out:
        target = resolve(on)
        store = result_store(target, artifacts)
        run, steps = _last(target, step, run_id, pipeline)
        if run is None:
            which = f"Run {run_id!r} is not among the last 50 runs, or has" if run_id else "The last 50 runs have"
            print_error(f"{which} no step {step!r}. `flowyml runs` lists the runs.")
            return NOT_FOUND
        entries = [entry for _, entry in entries_of(store, run.pipeline, step) if entry]
        outcomes = list(_explained(target, run, steps, sorted(entries, key=lambda entry: -entry.created)))
        outcomes = [{"step": each["step"], "explained_run_id": run.run_id, **each} for each in outcomes]
        if as_json:
            out.document(outcomes)
            return 0
        # Items of a loop mostly ran, or did not, for the same reason.
        same = [list(group) for _, group in groupby(outcomes, lambda each: {**each, "step": step})]
        for outcome, *others in same:
            which = f"{step} ({len(others) + 1} items)" if others else outcome["step"]
            ends = ":" * bool(outcome["changed"])
            out.line(f"{which} of run {run.run_id}: {outcome['why']}{ends}")
            for change in outcome["changed"]:
                values = f" ({change['before']} → {change['after']})" if "before" in change else ""
                files = f": {', '.join(change['files'])}" if change.get("files") else ""
                out.line(f"  {change['what']} {change['how']}{values}{files}")
        return 0


def _last(
    target: Orchestrator, step: str, run_id: str | None, pipeline: str | None
) -> tuple[Run | None, Sequence[StepRun]]:
    """Return the newest run that has the step, and the runs of the step or of its items."""
    for run in target.runs(pipeline):
        if run_id in (None, run.run_id, run.job_id):
            steps = [each for each in target.step_runs(run.job_id) if each.name == step]
            if steps:
                return run, steps
    return None, ()


def _explained(
    target: Orchestrator, run: Run, steps: Sequence[StepRun], entries: Sequence[Entry]
) -> Iterator[dict[str, Any]]:
    """Yield the run of each step or item that was a hit, the differences of each new result from the most similar one
    of the run before, or else of any earlier run, and the log's reason for the rest.
    """
    for step in steps:
        if step.is_cached:
            why = f"a hit: the result of run {step.cached_from}, since nothing that it depends on has changed"
            yield _outcome(step.label, "hit", why, step.cached_from)
    ran = [step for step in steps if not step.is_cached]
    own = [entry for entry in entries if entry.run_id == run.run_id]
    before = _sources_before(target, run, steps) if any(not entry.is_refreshed for entry in own) else set()
    for entry in own:
        earlier = [each for each in entries if each.run_id != run.run_id and each.created < entry.created]
        earlier = [each for each in earlier if each.run_id in before] or earlier
        if entry.is_refreshed:
            yield _outcome(entry.step, "miss", "it ran because of --refresh")
        elif not earlier:
            yield _outcome(entry.step, "miss", "it ran, since no earlier result was stored, or its `ttl` was over")
        else:
            changes = [(differences(each.depends, entry.depends), each) for each in earlier]
            changed, nearest = min(changes, key=lambda change: len(change[0]))
            why = f"it ran, because this has changed since run {nearest.run_id}"
            yield _outcome(entry.step, "miss", why, nearest.run_id, _with_files(target, nearest, run, changed))
    if len(own) == len(ran):
        return
    reasons = {step.label: _reason_not_cached(target, run, step) for step in ran}  # an entry does not name its item
    why = "it ran, and no result of it is cached: it failed, or an item with equal inputs ran first"
    known = {label: reason for label, reason in reasons.items() if reason}
    for label, reason in (known or dict.fromkeys([*reasons][len(own) :], why)).items():
        yield _outcome(label, "not cached", reason)


def _outcome(
    step: str, outcome: str, why: str, run_id: str | None = None, changed: Iterable[dict[str, Any]] = ()
) -> dict[str, Any]:
    return {"step": step, "outcome": outcome, "run_id": run_id, "why": why, "changed": list(changed)}


def _sources_before(target: Orchestrator, run: Run, steps: Sequence[StepRun]) -> set[str]:
    """Return the runs that the results of a step in the run before come from; empty if no run before has it."""
    for earlier in dropwhile(lambda each: each.job_id != run.job_id, target.runs(run.pipeline)):
        if earlier.job_id == run.job_id:
            continue
        found = [each for each in target.step_runs(earlier.job_id) if each.name == steps[0].name]
        if sources := {each.cached_from or earlier.run_id for each in found if each.status.is_successful}:
            return sources
    return set()


def _with_files(
    target: Orchestrator, before: Entry, run: Run, changes: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the changes; one of code has the ``files`` that differ, where the code of both runs is still there."""
    files: list[str] = []
    if any(change["part"] in ("code", "makers") for change in changes):
        with suppress(RetryRefusedError, UnsupportedFeatureError, PlanError, OSError):
            ids = [each.job_id for each in target.runs(run.pipeline) if each.run_id == before.run_id]
            found = changed_files(*(target.bundle_of(job_id) for job_id in (*ids[:1], run.job_id))) if ids else ()
            files = [path.removeprefix("code/") for path, *_ in found if path.startswith("code/")]
    for change in changes:
        yield {**change, "files": files} if files and change["part"] in ("code", "makers") else change


def _reason_not_cached(target: Orchestrator, run: Run, step: StepRun) -> str:
    """Return what the step's log says about it; empty if it says nothing."""
    lines = (line.message for line in target.logs_of_step(run.job_id, step.name, step.index))
    return next((line for line in lines if "not cached: " in line), "")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what differs in the dependencies of two results: ``part``, ``name``, ``what`` in words, and ``how``.

    Versions of packages are not secret, so they are there as ``before`` and ``after``.
    """
    changes = []
    for part in sorted(before.keys() | after.keys()):
        old, new = ((side.get(part) or {}) for side in (before, after))
        if not isinstance(old or new, Mapping):
            old, new = {part: old}, {part: new}
        elif not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            continue  # a damaged record
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) == new.get(name):
                continue
            how = "is new" if name not in old else "is gone" if name not in new else "changed"
            shown = {"before": old.get(name), "after": new.get(name)} if part == "packages" else {}
            what = _IN_WORDS.get(part, "{}").format(name)
            changes.append({"part": part, "name": name, "what": what, "how": how, **shown})
    return changes


def clear(
    on: On = None,
    artifacts: Artifacts = None,
    pipeline: OfPipeline = None,
    step: OfStep = None,
    older_than: Annotated[
        str | None, Option(("--older-than",), "Only results older than this: 12h, 7d, 4w.", metavar="TIME")
    ] = None,
    everything: Annotated[bool, Option(("--all",), "All results in the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete cached results, so that their steps run again."""
    if not (pipeline or step or older_than or everything):
        raise UsageError("Say which: --pipeline NAME, --step NAME, --older-than TIME, or --all.")
    with Output(as_json) as out:
        store = result_store(resolve(on), artifacts)
        before = None if older_than is None else time.time() - seconds_of(older_than)
        count = 0
        for folder, entry in list(entries_of(store, pipeline, step)):
            if before is None or (entry is not None and entry.created < before):
                store.remove(folder)
                count += 1
        out.answer({"removed": count}, f"{counted(count, 'cached result')} deleted from {store.url}")


def result_store(target: Orchestrator, artifacts: str | None) -> Store:
    """Return the store of a target's cached results. Raises ``UsageError`` if nothing names it."""
    if artifacts is not None:
        return open_store(artifacts)
    store = store_of(target.artifact_place, has_default=target.has_default_store)
    if store is None:
        raise UsageError(
            f"Steps on {target.target or target.name} may run on other machines, and nothing names the store of their "
            f"results. Name it: --artifacts URL, or `artifacts` of the target in flowyml.toml."
        )
    return store


def entries_of(store: Store, pipeline: str | None, step: str | None) -> Iterator[tuple[str, Entry | None]]:
    """Yield the entries of a pipeline and a step; an unreadable one belongs to neither."""
    for folder, entry in entries_in(store):
        if entry is None:
            if pipeline is None and step is None:
                yield folder, None
        elif pipeline in (None, entry.pipeline) and step in (None, entry.step):
            yield folder, entry


def _one(store: Store, key: str) -> Entry | None:
    if not re.fullmatch(r"[0-9a-f]{4,64}", key):
        raise UsageError(f"{key!r} is not the beginning of a key: at least four digits of 0 to 9 and a to f.")
    found = [entry for folder, entry in entries_in(store) if entry and folder.rpartition("/")[2].startswith(key)]
    if len(found) > 1:
        raise UsageError(f"{len(found)} keys begin with {key!r}. Write more of it.")
    return found[0] if found else None


def _created(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.created, UTC)


def _row(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.key[:12],
        entry.pipeline,
        entry.step,
        entry.run_id,
        f"{_created(entry).astimezone():%Y-%m-%d %H:%M:%S}",
        span_text(entry.seconds),
        size_text(entry.size),
    )


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key, "pipeline": entry.pipeline, "step": entry.step, "run_id": entry.run_id,
        "created": _created(entry).isoformat(), "seconds": entry.seconds,
        "bytes": entry.size, "outputs": sorted(entry.outputs),
    }  # fmt: skip
