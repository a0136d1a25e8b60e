"""``flowyml compare``: the differences of two runs: code, parameters, data, packages, metrics, statuses and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flowyml.cli.caches import Artifacts, differences, entries_of, result_store
from flowyml.cli.errors import UsageError
from flowyml.cli.finding import find_run, short_id
from flowyml.cli.options import AsJson, Job, On
from flowyml.cli.output import Output, Word, note
from flowyml.cli.records import format_value, metrics_of, plain_run, plain_step, status_word
from flowyml.core.durations import span_text
from flowyml.core.errors import RetryRefusedError, UnsupportedFeatureError
from flowyml.core.runs import Run, StepRun, folded
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.targets import resolve
from flowyml.plan.differences import changed_files
from flowyml.runtime.caching import Entry

__all__ = ["compare"]


class _Side(NamedTuple):
    """One of the two runs, with what its engine records."""

    run: Run
    steps: Mapping[str, StepRun]
    metrics: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    """The dependencies of the cached results of its steps, by step."""


def compare(first: Job, second: Job, on: On = None, artifacts: Artifacts = None, as_json: AsJson = False) -> None:
    """Show what differs between two runs: code, parameters, data, packages, metrics, statuses and times.

    Which files of the code differ is known where the code of both runs is still there. Versions are those of the
    packages that the code imports: local runs, and Prefect's without a work pool, record them, others only for cached
    steps. Data files are those that cached steps depend on. A note says what is not recorded.
    """
    with Output(as_json) as out:
        target = resolve(on)
        runs = find_run(target, first), find_run(target, second)
        lacks: list[str] = []
        sides = _side(target, runs[0], artifacts, lacks), _side(target, runs[1], artifacts, lacks)
        changes_by_part = {
            "code": list(_code(target, sides, lacks)),
            "parameters": _changed(*(side.run.parameters for side in sides)),
            "data": _data(sides),
            "packages": _packages(sides, lacks),
            "metrics": _changed(*(side.metrics for side in sides)),
        }
        if as_json:
            plain = [plain_run(side.run, target.name) for side in sides]
            steps = [[plain_step(step) for step in side.steps.values()] for side in sides]
            out.document({"runs": plain, **changes_by_part, "steps": steps, "not_recorded": list(dict.fromkeys(lacks))})
            return
        headers = ("", *(short_id(run) for run in runs))
        rows: list[tuple[str | Word, ...]] = [
            ("pipeline", *(side.run.pipeline for side in sides)),
            ("status", *(status_word(side.run.status) for side in sides)),
            ("took", *(span_text(side.run.duration_seconds) if side.run.started_at else "" for side in sides)),
        ]
        words = {
            "parameters": "parameter", "packages": "package", "metrics": "metric", "code": "code", "data": "data",
        }  # fmt: skip
        for part, changes in changes_by_part.items():
            for change in changes:
                name = change["name"]
                is_plan = (part, name) == ("code", "plan.json")
                label = "plan of the steps" if is_plan else f"{words[part]} {name}".rstrip()
                rows.append((label, *(_cell(change[side]) for side in ("before", "after"))))
        names = dict.fromkeys([*sides[0].steps, *sides[1].steps])
        rows += [(f"step {name}", *(_ended(side.steps.get(name)) for side in sides)) for name in names]
        out.table(headers, rows)
        out.stream.flush()
        for lack in dict.fromkeys(lacks):
            note(lack)


def _side(target: Orchestrator, run: Run, artifacts: str | None, lacks: list[str]) -> _Side:
    steps = {step.name: step for step in folded(target.step_runs(run.job_id))}
    sources = {name: {run.run_id, step.cached_from} for name, step in steps.items()}
    entries: Iterable[tuple[str, Entry | None]] = ()
    try:
        entries = entries_of(result_store(target, artifacts), run.pipeline, None)
    except UsageError as error:
        if not run.packages:
            lacks.append(f"versions of packages: {error}")
    results = {
        entry.step: entry.depends for _, entry in entries if entry and entry.run_id in sources.get(entry.step, ())
    }
    return _Side(run, steps, metrics_of(target, run, lacks), results)


def _code(target: Orchestrator, sides: tuple[_Side, _Side], lacks: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the commits, then the files that differ; where the code is not kept, its digests."""
    before_run, after_run = (side.run for side in sides)
    if before_run.revision != after_run.revision:
        yield {"name": "commit", "before": before_run.revision, "after": after_run.revision}
    if before_run.code_digest and before_run.code_digest == after_run.code_digest:
        return
    try:
        for path, before, after in changed_files(*(target.bundle_of(run.job_id) for run in (before_run, after_run))):
            yield {"name": path.removeprefix("code/"), "before": before, "after": after}
        return
    except (RetryRefusedError, UnsupportedFeatureError) as error:
        lacks.append(f"which files of the code differ: {error}")
    if before_run.code_digest or after_run.code_digest:
        yield {"name": "", "before": _digest(before_run.code_digest), "after": _digest(after_run.code_digest)}
    for step in sorted(sides[0].results.keys() & sides[1].results.keys()):
        results = [side.results[step] for side in sides]
        if any(change["part"] == "code" for change in differences(*results)):
            digests = (_digest(depends.get("code")) for depends in results)
            yield {"name": f"of step {step}", **dict(zip(("before", "after"), digests, strict=True))}


def _packages(sides: tuple[_Side, _Side], lacks: list[str]) -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = [dict(side.run.packages) for side in sides]
    for known, side in zip(versions, sides, strict=True):
        for depends in side.results.values():
            packages = depends.get("packages")
            known.update(packages if isinstance(packages, Mapping) else {})
    if not all(versions):
        only = (f"{short_id(side.run)} only" for known, side in zip(versions, sides, strict=True) if known)
        lacks.append(f"versions of packages: recorded for {next(only, 'neither run')}")
        return []
    before, after = versions
    both = sorted(before.keys() & after.keys())  # one that is recorded for one run alone may have been there for both
    return _changed({name: before[name] for name in both}, {name: after[name] for name in both})


def _data(sides: tuple[_Side, _Side]) -> list[dict[str, Any]]:
    """Return the data files that differ, with digests: those of steps that were cached in both runs."""
    found = dict[str, dict[str, Any]]()
    for step in sorted(sides[0].results.keys() & sides[1].results.keys()):
        results = [side.results[step] for side in sides]
        for change in differences(*results):
            if (part := change["part"]) in ("data", "files"):
                name = change["name"] if part == "data" else f"of {step}.{change['name']}"
                digests = (_digest((depends.get(part) or {}).get(change["name"])) for depends in results)
                found[name] = {"name": name, **dict(zip(("before", "after"), digests, strict=True))}
    return [*found.values()]


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "before": before.get(name), "after": after.get(name)}
        for name in dict.fromkeys([*before, *after])
        if name not in before or name not in after or before[name] != after[name]
    ]


def _digest(digest: object) -> str | None:
    return str(digest)[:12] if digest else None


def _cell(value: object) -> str:
    return "–" if value is None else value if isinstance(value, str) else format_value(value)


def _ended(step: StepRun | None) -> str | Word:
    if step is None:
        return "–"
    word = status_word(step.status)
    took = span_text(step.duration_seconds) if step.started_at else ""
    return Word(" ".join(filter(None, (word.text, took, "" if step.error else step.note))), word.style)
