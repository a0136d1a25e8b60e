"""Compare what Airflow finds in a DAG file and in the file that was compiled from its pipeline.

Airflow's own DagBag loads both; with a date, Airflow also runs both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flowyml.artifacts import is_reference
from flowyml.core.durations import span_text
from flowyml.core.errors import EngineError
from flowyml.migration.airflow.reader.files import Files, find_root
from flowyml.migration.airflow.writer.asking import last_line, load_dags, run_dag
from flowyml.migration.airflow.writer.notes import DagResult, FileResult, Kind, Verdict
from flowyml.migration.reach import reached
from flowyml.plan.marks import mark_of

_SECONDS = 600
_OPTIONS = ("owner", "pool", "queue", "depends_on_past")
_FIELDS = ("operator", "trigger_rule", "retries", "retry_delay", "execution_timeout", "mapped", *_OPTIONS)
_STEP = ("Step", "ItemStep")
# The operator of a decorated task, if its name differs: docs/migrate-from-airflow.md has each conversion.
_OPERATORS = {"DecoratedSensorOperator": "PythonSensor"}
# Trigger rules that FlowyML widens if a step may be skipped, and decides itself: see docs/control-flow.md.
_WIDER = {("all_success", "none_failed"), ("all_success", "none_failed_min_one_success")}

# Schedules of Airflow's own whose runs are dated by the start of the DAG.
_FROM_START = ("timetable:OnceTimetable", "timetable:ContinuousTimetable")
_TAG = "flowyml"  # of each compiled DAG; source: flowyml_airflow.compiler


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of a DAG: its task, if it is about a task, and the value on either side."""

    dag_id: str
    task_id: str
    what: str
    original: Any
    compiled: Any

    def __str__(self) -> str:
        where = f"{self.dag_id}.{self.task_id}" if self.task_id else self.dag_id
        return f"{where}: {self.what}: {self.original!r} in the DAG file, {self.compiled!r} in the compiled one"


def compare(
    original: Mapping[str, Any],
    compiled: Mapping[str, Any],
    helpers: Collection[str] = (),
    added: Collection[str] = (),
) -> Iterator[Difference]:
    """Yield the differences between a DAG and the DAG that was compiled from its pipeline.

    ``helpers`` are ids of tasks that run no step; ``added`` has the names of steps without a task in the DAG. Tasks are
    compared by display name. Tasks that only the compiled DAG has, such as those for branches, are removed from its
    graph, and their successors wait for their predecessors. A dependency that also exists through another task is left
    out. Start and catch-up are compared where the schedule depends on them.
    """
    dag, before = original["dag_id"], original["tasks"]
    after = _by_shown(compiled["tasks"])
    extra = [name for name in after if name not in before]
    for name in before.keys() - after.keys():
        yield Difference(dag, name, "task", "there", "missing")
    known = {each["shown"] for task, each in compiled["tasks"].items() if task in helpers} | set(added)
    for name in extra:
        if name not in known:
            yield Difference(dag, name, "task", "missing", "there")
    for name in before.keys() & after.keys():
        yield from _of_task(
            dag, name, before[name], after[name], _upstream(after, name, set(extra), before[name]["upstream"])
        )
    dated = original["schedule"].startswith(("cron:", "delta:"))
    compared = ["schedule", *(["catchup"] if dated else [])]
    # Without a start, a DAG file of FlowyML's has one in the past: it changes nothing then
    compared += ["start_date"] if original["start_date"] and (dated or original["schedule"] in _FROM_START) else []
    for what in compared:
        if original[what] != compiled[what]:
            yield Difference(dag, "", what, original[what], compiled[what])
    if dag != compiled["dag_id"]:
        yield Difference(dag, "", "dag_id", dag, compiled["dag_id"])
    if (other := {*original["tags"]} ^ {*compiled["tags"]}) - {_TAG}:
        yield Difference(dag, "", "tags", original["tags"], sorted({*original["tags"]} ^ (other - {_TAG})))
    for name, value in original["params"].items():
        if name not in compiled["params"] or value != compiled["params"][name]:
            yield Difference(dag, "", f"parameter {name}", value, compiled["params"].get(name, "missing"))
    for name in before.keys() & after.keys():
        yield from _own_of_task(dag, name, (original, before[name]), (compiled, after[name]))


def _own_of_task(
    dag: str, name: str, before: tuple[Mapping[str, Any], ...], after: tuple[Mapping[str, Any], ...]
) -> Iterator[Difference]:
    """Yield the differences of a task's id, and of what it has beside its DAG's start and params."""
    if name != after[1]["task_id"]:
        yield Difference(dag, name, "task_id", name, after[1]["task_id"])
    starts = [task["start_date"] if task["start_date"] != dag["start_date"] else None for dag, task in (before, after)]
    # Airflow starts no task before its DAG
    if starts[0] != starts[1] and (starts[0] or "") > (after[0]["start_date"] or ""):
        yield Difference(dag, name, "start_date", *starts)
    own = [
        dict(each for each in task["params"].items() if each not in dag["params"].items())
        for dag, task in (before, after)
    ]
    if own[0] != own[1]:
        yield Difference(dag, name, "params", *own)


def _of_task(
    dag: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any], upstream: Sequence[str]
) -> Iterator[Difference]:
    if before["upstream"] != upstream:
        yield Difference(dag, name, "upstream", before["upstream"], upstream)
    for what in _FIELDS:
        one, other = before[what], after[what]
        if one == other or (what == "operator" and other in _STEP):
            continue
        if what == "operator" and other == _OPERATORS.get(one, one.strip("_").replace("Decorated", "")):
            continue
        if what == "trigger_rule" and (one, other) in _WIDER and after["operator"] in _STEP:
            continue
        yield Difference(dag, name, what, one, other)
    if after["operator"] not in _STEP and before["over"] != after["over"]:
        yield Difference(dag, name, "mapped arguments", before["over"], after["over"])
    for each, value in before["arguments"].items():
        if after["operator"] not in _STEP and each in after["arguments"] and value != after["arguments"][each]:
            yield Difference(dag, name, f"argument {each}", value, after["arguments"][each])


def _by_shown(tasks: Mapping[str, Any]) -> dict[str, Any]:
    names = {task: each["shown"] for task, each in tasks.items()}
    return {
        each["shown"]: {**each, "upstream": sorted(names[name] for name in each["upstream"])} for each in tasks.values()
    }


def _upstream(tasks: Mapping[str, Any], name: str, extra: set[str], wanted: Sequence[str]) -> list[str]:
    """Return the tasks that a task waits for, directly or through removed tasks.

    Without those that are not ``wanted`` and that another one of them needs to succeed: a value was taken from them.
    """
    found = _before(tasks, name, extra) - extra
    by_way = found - {*tasks[name]["upstream"], *wanted}
    implied = {each for other in found for each in _before(tasks, other, set(tasks))}
    sure = {each for each, task in tasks.items() if task["trigger_rule"] == "all_success"}
    taken = {each for other in found & sure for each in _before(tasks, other, sure)} if name in sure else set()
    return sorted(found - (by_way & implied) - (taken - {*wanted}))


def _before(tasks: Mapping[str, Any], name: str, through: set[str]) -> set[str]:
    """Return the tasks that a task waits for, and those that the ones in ``through`` among them wait for."""
    return {*reached(tasks[name]["upstream"], lambda each: tasks[each]["upstream"] if each in through else ())}


def verify(
    python: str,
    results: Sequence[FileResult],
    folder: Path,
    count: Callable[[int], None] = lambda done: None,
    moment: datetime | None = None,
) -> Iterator[tuple[FileResult, DagResult, Sequence[Difference] | str]]:
    """Yield each DAG with its differences from the one that is compiled from its module below ``folder``.

    A text instead of differences says why they could not be compared. A DAG without a pipeline is left out. With a
    ``moment``, both also run for it, one after the other, unless a task was refused.
    """
    pairs = [(file, dag) for file in results for dag in file.dags if dag.pipeline]
    with tempfile.TemporaryDirectory() as made:
        compiled = [Path(made) / f"dag_{number}.py" for number in range(len(pairs))]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            texts = list(_counted(pool.map(partial(_compiled, folder), pairs, compiled), count))
        if not pairs:
            return
        files = [path for path in compiled if path.exists()]
        originals = list(dict.fromkeys(Path(file.path).resolve() for file, _ in pairs))
        folders = list(dict.fromkeys(each for path in originals for each in Files(find_root(path), path).path()))
        after = load_dags(python, files, folders) if files else {"dags": {}}
        by_file = {Path(dag["file"]).name: dag for dag in after["dags"].values()}
        before = load_dags(python, originals, folders)
        errors: Mapping[str, str] = {**before["errors"], **after.get("errors", {})}
        for (file, dag), path, text in zip(pairs, compiled, texts, strict=True):
            original = Path(file.path).resolve()
            said = [errors.get(str(each), "") for each in (original, path)]
            found = _compared(before, by_file.get(path.name), dag, path, text.stderr, *said)
            if moment and not isinstance(found, str) and dag.verdict is not Verdict.HAND:
                try:
                    first = run_dag(python, original, folders, dag.dag_id, moment)
                    conf = first["interval"]  # a run by hand has none of its own
                    second = run_dag(python, path, folders, by_file[path.name]["dag_id"], moment, conf)
                    found = [*found, *_unexplained(compare_runs(dag.dag_id, first, second), dag)]
                except EngineError as error:
                    found = str(error)
            yield file, dag, found


def _compared(
    before: Mapping[str, Any], after: Mapping[str, Any] | None, dag: DagResult, compiled: Path, not_compiled: str,
    error_before: str, error_after: str,
) -> Sequence[Difference] | str:  # fmt: skip
    if dag.dag_id not in before["dags"]:
        return f"Airflow does not load the DAG file: {last_line(error_before)[-300:] or 'it has no such DAG'}"
    if after is None:
        why = last_line(not_compiled) or last_line(error_after) or "it has an error"
        return f"Airflow does not load the compiled DAG: {why}"
    mark = mark_of(compiled.read_bytes())
    helpers = mark.facts.get("helpers", ()) if mark else ()
    original = before["dags"][dag.dag_id]
    found = compare(original, after, helpers, dag.added)
    # Airflow's own schedule, in the options, is changed for other engines only
    return _unexplained(found, dag, () if after["schedule"] == "None" else ("schedule",))


def _unexplained(found: Iterable[Difference], dag: DagResult, but: Collection[str] = ()) -> list[Difference]:
    """Return the differences that no note of the report calls changed or refused, ``but`` for some of the notes."""
    changed = {note.construct for note in dag.notes if note.kind in (Kind.CHANGED, Kind.REFUSED)} - {*but}
    return [each for each in found if not changed & {*_constructs(each)}]


def compare_runs(dag: str, original: Mapping[str, Any], compiled: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the differences of two runs, as ``run_dag`` returns them: outcomes, states and XComs of the tasks of both.

    A step's output is compared with the XCom ``return_value``. Not compared are values that are stored elsewhere, what
    Airflow itself pushes for links, and what a task returns that chooses branches: Airflow 3 does not push it.
    """
    if original["outcome"] != compiled["outcome"]:
        yield Difference(dag, "", "outcome of the run", original["outcome"], compiled["outcome"])
    both = {name for name, *_ in original["states"]} & {name for name, *_ in compiled["states"]}
    states = [{(name, index): state for name, index, state in run["states"]} for run in (original, compiled)]
    choices = {(name, index) for name, index, key, _ in original["xcoms"] if key == "skipmixin_key"}
    values = [_values(run, choices) for run in (original, compiled)]
    for what, (before, after) in (("state", states), ("XCom", values)):
        for key in sorted(before.keys() | after.keys()):
            name, index, *more = key
            one, other = before.get(key), after.get(key)
            if name in both and one != other and not is_reference(other):
                item = f" of item {index}" if index >= 0 else ""
                yield Difference(dag, name, " ".join([what, *more]) + item, one, other)


def _values(run: Mapping[str, Any], choices: Collection[tuple[str, int]]) -> dict[tuple[Any, ...], Any]:
    """Return the XComs of a run by task, map index and key; of a step that of its output."""
    found: dict[tuple[Any, ...], Any] = {}
    for name, index, key, pushed in run["xcoms"]:
        is_output = name in run["steps"] and key == "return_value"
        is_of_task = name not in run["steps"] and not key.startswith("_link")
        value = _restored(pushed) if is_output else pushed
        if (is_output or is_of_task) and value is not None and (name, index) not in choices:
            found[name, index, key] = value
    return found


def _restored(value: Any) -> Any:
    """Return an output as it was before ``flowyml_airflow.xcoms.carried`` encoded it."""
    return json.loads(value["$json"]) if isinstance(value, dict) and value.keys() == {"$json"} else value


def _constructs(found: Difference) -> Iterator[str]:
    """Yield the constructs of the report's notes that explain a difference."""
    what = found.what.removeprefix("argument ")
    yield f"default argument {what}"
    if what.startswith("XCom "):
        yield f"state of {found.task_id}"
    if what.startswith("XCom ") and not what.startswith("XCom return_value"):
        yield f"keys of {found.task_id}"
    if not found.task_id:
        yield from (what, f"{what} of the DAG", f"default of {what}")
        yield from ("start_date", "schedule") if what in ("catchup", "start_date") else ()
        return
    yield f"task {found.task_id}"  # which was refused
    yield from (f"{what} {found.task_id}", f"{what} of {found.task_id}", f"default argument {what} of {found.task_id}")
    parts = found.task_id.split(".")
    groups = [".".join(parts[:number]) for number in range(1, len(parts))]
    yield from (f"default argument {what} of task group {group}" for group in groups)
    if what == "trigger_rule":
        yield f"teardown of {found.task_id}"


def _compiled(folder: Path, pair: tuple[FileResult, DagResult], path: Path) -> subprocess.CompletedProcess[str]:
    """Compile a pipeline to a DAG file at a path, in a process of its own, which imports the module."""
    file, dag = pair
    module = f"{folder / file.module}:{dag.pipeline}"
    command = [sys.executable, "-m", "flowyml", "compile", module, "--to", "airflow", "-o", str(path)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 1, "", f"it is not compiled after {span_text(error.timeout)}")


T = TypeVar("T")


def _counted(items: Iterable[T], count: Callable[[int], None]) -> Iterator[T]:
    for number, item in enumerate(items, 1):
        count(number)
        yield item
