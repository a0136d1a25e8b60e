"""Compare what Airflow finds in a DAG file and in the file that was compiled from its pipeline.

Airflow's own DagBag loads both, in an interpreter that has it, in a process for each side. This is the one place where
a DAG file is executed, and only on request.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar

from flowyml.core.durations import span_text
from flowyml.core.errors import EngineError
from flowyml.migration.airflow.reader.files import Files, find_root
from flowyml.migration.airflow.writer.notes import DagResult, FileResult, Kind
from flowyml.plan.marks import mark_of

__all__ = ["Difference", "compare", "load_dags", "verify"]

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

_LOADER = """
import inspect, json, os, sys, tempfile
from datetime import timezone
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()
paths, folders = json.loads(sys.argv[1])
root = os.path.dirname(paths[0])
sys.path += folders  # at the end, as Airflow does
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = root
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
import warnings
warnings.simplefilter("ignore")
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models import DagBag

OPTIONS = ("owner", "pool", "queue", "depends_on_past")
OF_FUNCTIONS = ("python_callable", "op_args", "op_kwargs")

def seconds(value):
    return value.total_seconds() if hasattr(value, "total_seconds") else value

def plain(value, depth=0):  # as JSON: a function by its name, and any other object by its class
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth > 9:
        return "..."
    if isinstance(value, dict):
        return {str(key): plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [plain(each, depth + 1) for each in value]
        return items if isinstance(value, (list, tuple)) else {"set": sorted(items, key=repr)}
    if hasattr(value, "total_seconds"):
        return f"{value.total_seconds():g} s"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    name = type(value).__name__
    if inspect.isroutine(value) or name == "Code":
        return "function " + getattr(value, "__name__", "").replace("<lambda>", "")
    return name.replace("Dataset", "Asset")

def arguments(found):  # beside those that all operators have
    fixed = getattr(found, "partial_kwargs", None)
    kinds = type(found).__mro__
    base = next((kind for kind in kinds if kind.__name__ == "BaseOperator"), None)
    if fixed is not None or base is None:
        return {name: plain(value) for name, value in (fixed or {}).items() if name in OF_FUNCTIONS}
    common = inspect.signature(base.__init__).parameters
    names = {name for kind in kinds[: kinds.index(base)] for name in inspect.signature(kind.__init__).parameters}
    names = {*names, *found.template_fields} - {*common}
    return {name: plain(getattr(found, name, None)) for name in sorted(names)}

def moment(value):
    return value.astimezone(timezone.utc).isoformat() if value else None

def values(params):
    return {name: plain(getattr(each, "value", each)) for name, each in (params or {}).items()}

def in_mapped(group):
    return group is not None and (group.__class__.__name__ == "MappedTaskGroup" or in_mapped(group.parent_group))

def task(found):
    rule = getattr(found, "trigger_rule", "all_success")
    given = getattr(found, "expand_input", None) or getattr(found, "op_kwargs_expand_input", None)
    value = getattr(given, "value", None)
    delay = getattr(found, "retry_delay", None)
    return {
        "operator": getattr(found, "task_type", type(found).__name__),
        "task_id": found.task_id, "shown": getattr(found, "task_display_name", None) or found.task_id,
        "upstream": sorted(found.upstream_task_ids),
        "trigger_rule": str(getattr(rule, "value", rule)),
        "retries": getattr(found, "retries", 0) or 0,
        "retry_delay": seconds(delay) if getattr(found, "retries", 0) else None,
        "execution_timeout": seconds(getattr(found, "execution_timeout", None)),
        "mapped": given is not None or in_mapped(found.task_group),
        **{name: getattr(found, name, None) for name in OPTIONS},
        "over": sorted(value) if isinstance(value, dict) else None,
        "arguments": arguments(found),
        "start_date": moment(getattr(found, "start_date", None)),
        "params": values(getattr(found, "params", None)),
    }

def assets(of):
    parts = getattr(of, "objects", None)
    if parts is not None:
        return type(of).__name__.replace("Dataset", "Asset") + "(" + ",".join(sorted(map(assets, parts))) + ")"
    return str(getattr(of, "name", None) or getattr(of, "uri", of))

def schedule(dag):
    table = dag.timetable
    of = getattr(table, "asset_condition", None) or getattr(table, "dataset_condition", None)
    if of is not None and type(table).__name__ in ("AssetTriggeredTimetable", "DatasetTriggeredTimetable"):
        return "assets:" + assets(of)
    inner = getattr(table, "_expression", None) or getattr(table, "expression", None)
    if inner is not None:
        zone = getattr(table, "_timezone", None) or getattr(table, "timezone", None)
        return f"cron:{inner} {getattr(zone, 'name', zone)}"
    delta = getattr(table, "_delta", None) or getattr(table, "delta", None)
    if delta is not None:
        return f"delta:{seconds(delta)}"
    name = type(table).__name__
    return "None" if name == "NullTimetable" else "timetable:" + name

real, sys.stdout = sys.stdout, sys.stderr
known = inspect.signature(DagBag).parameters
given = {"include_examples": False} if "include_examples" in known else {}
bag = DagBag(root, collect_dags=False, **given)
errors = {}
for path in paths:  # one by one: each version of Airflow names the file of an error in its own way
    before = dict(bag.import_errors)
    bag.process_file(path, only_if_updated=False)
    new = [str(error)[-600:] for file, error in bag.import_errors.items() if before.get(file) != error]
    if new:
        errors[path] = "\\n".join(new)
dags = {
    dag.dag_id: {
        "dag_id": dag.dag_id, "shown": getattr(dag, "dag_display_name", None) or dag.dag_id,
        "file": dag.fileloc, "schedule": schedule(dag), "catchup": bool(dag.catchup),
        "start_date": min(
            (moment(each.start_date) for each in (dag, *dag.tasks) if getattr(each, "start_date", None)), default=None
        ),
        "tags": sorted(dag.tags or ()), "params": values(dag.params),
        "tasks": {each.task_id: task(each) for each in dag.tasks},
    }
    for dag in bag.dags.values()
}
real.write("\\n" + json.dumps({"dags": dags, "errors": errors}) + "\\n")
real.flush()  # Airflow may end the process by itself
"""


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


def load_dags(python: str, paths: Sequence[Path], folders: Sequence[Path] = ()) -> Mapping[str, Any]:
    """Load files with the DagBag of an interpreter's Airflow, and return its findings. Raises ``EngineError``.

    They import modules from ``folders``, and from their own.
    """
    interpreter = Path(shutil.which(python) or python).absolute()  # not resolved: a link in a venv identifies the venv
    shown = f"{len(paths)} files" if len(paths) != 1 else str(paths[0])
    with tempfile.TemporaryDirectory() as home:
        script = Path(home) / "load_dags.py"
        script.write_text(_LOADER, encoding="utf-8")
        places = dict.fromkeys(map(str, [*folders, *(each.parent for each in paths)]))
        given = json.dumps([[*map(str, paths)], [*places]])
        try:
            ended = subprocess.run(
                [interpreter, "-I", script, given],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                cwd=home,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{python} did not load {shown}: {error}") from error
    last = ended.stdout.strip().rpartition("\n")[2]
    try:
        found: Mapping[str, Any] = json.loads(last)
    except ValueError:
        raise EngineError(f"{python} has no Airflow that loads {shown}: {_last_line(ended.stderr)[-800:]}") from None
    return found


def compare(
    original: Mapping[str, Any],
    compiled: Mapping[str, Any],
    schedule: str,
    helpers: Collection[str] = (),
    added: Collection[str] = (),
) -> Iterator[Difference]:
    """Yield the differences between a DAG and the DAG that was compiled from its pipeline.

    ``schedule`` is that of the pipeline's module, which also has start and catch-up; ``helpers`` are ids of tasks that
    run no step; ``added`` has the names of steps without a task in the DAG. Tasks are compared by display name. Tasks
    that only the compiled DAG has, such as those for branches, are removed from its graph, and their successors wait
    for their predecessors. A dependency that also exists through another task is left out.
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
    if original["schedule"] != schedule:
        yield Difference(dag, "", "schedule", original["schedule"], schedule)
    if dag != compiled["dag_id"]:
        yield Difference(dag, "", "dag_id", dag, compiled["dag_id"])
    ours = {tag for tag in compiled["tags"] if tag.partition(":")[0] == _TAG}
    if (other := {*original["tags"]} ^ {*compiled["tags"]}) - ours:
        yield Difference(dag, "", "tags", original["tags"], sorted({*original["tags"]} ^ (other - ours)))
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
    # Airflow starts no task before its DAG, and a pipeline's DAG gets its start with the schedule
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
    """Return the tasks that a task waits for, directly or through removed tasks."""
    found = _before(tasks, name, extra) - extra
    by_way = found - {*tasks[name]["upstream"], *wanted}
    implied = {each for other in found for each in _before(tasks, other, set(tasks))}
    return sorted(found - (by_way & implied))


def _before(tasks: Mapping[str, Any], name: str, through: set[str]) -> set[str]:
    """Return the tasks that a task waits for, and those that the ones in ``through`` among them wait for."""
    found: set[str] = set()
    waiting = list(tasks[name]["upstream"])
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += tasks[each]["upstream"] if each in through else []
    return found


def verify(
    python: str,
    results: Sequence[FileResult],
    folder: Path,
    count: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[FileResult, DagResult, Sequence[Difference] | str]]:
    """Yield each DAG with its differences from the one that is compiled from its module below ``folder``.

    A text instead of differences says why they could not be compared. A DAG without a pipeline is left out.
    """
    pairs = [(file, dag) for file in results for dag in file.dags if dag.pipeline]
    with tempfile.TemporaryDirectory() as made:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            texts = list(_counted(pool.map(lambda pair: _compiled(folder, *pair), pairs), count))
        compiled = Path(made) / "dags"
        compiled.mkdir()
        for number, text in enumerate(texts):
            if text.returncode == 0:
                (compiled / f"dag_{number}.py").write_text(text.stdout, encoding="utf-8")
        if not pairs:
            return
        files = sorted(compiled.iterdir())
        originals = list(dict.fromkeys(Path(file.path).resolve() for file, _ in pairs))
        folders = list(dict.fromkeys(each for path in originals for each in Files(find_root(path), path).path()))
        after = load_dags(python, files, folders) if files else {"dags": {}}
        by_file = {Path(dag["file"]).name: dag for dag in after["dags"].values()}
        before = load_dags(python, originals, folders)
        errors: Mapping[str, str] = {**before["errors"], **after.get("errors", {})}
        for number, (file, dag) in enumerate(pairs):
            sides = Path(file.path).resolve(), compiled / f"dag_{number}.py"
            said = [errors.get(str(path), "") for path in sides]
            yield file, dag, _compared(before, by_file.get(sides[1].name), dag, texts[number], *said)


def _compared(
    before: Mapping[str, Any], after: Mapping[str, Any] | None, dag: DagResult, text: subprocess.CompletedProcess[str],
    error_before: str, error_after: str,
) -> Sequence[Difference] | str:  # fmt: skip
    if dag.dag_id not in before["dags"]:
        return f"Airflow does not load the DAG file: {_last_line(error_before)[-300:] or 'it has no such DAG'}"
    if after is None:
        why = _last_line(text.stderr) or _last_line(error_after) or "it has an error"
        return f"Airflow does not load the compiled DAG: {why}"
    mark = mark_of(text.stdout.encode())
    helpers = mark.facts.get("helpers", ()) if mark else ()
    original = before["dags"][dag.dag_id]
    schedule = after["schedule"] if dag.schedule == "None" else dag.schedule  # one of Airflow's is in the options
    found = (*compare(original, after, schedule, helpers, dag.added), *_of_start(original, after, dag))
    changed = {note.construct for note in dag.notes if note.kind is Kind.CHANGED}
    if after["schedule"] != "None":
        changed.discard("schedule")  # it is Airflow's own, in the options: changed for other engines only
    return [each for each in found if not changed & {*_constructs(each)}]


def _of_start(before: Mapping[str, Any], after: Mapping[str, Any], dag: DagResult) -> Iterator[Difference]:
    """Yield the differences of start and catch-up, for schedules that depend on them."""
    if dag.schedule != "None":
        start = dag.start and (dag.start if dag.start.tzinfo else dag.start.replace(tzinfo=UTC))
        text = start and start.astimezone(UTC).isoformat()
        if before["start_date"] != text:
            yield Difference(dag.dag_id, "", "start_date", before["start_date"], text)
        if before["catchup"] != dag.catch_up:
            yield Difference(dag.dag_id, "", "catchup", before["catchup"], dag.catch_up)
    elif before["schedule"] in _FROM_START and before["start_date"] != after["start_date"]:
        yield Difference(dag.dag_id, "", "start_date", before["start_date"], after["start_date"])


def _constructs(found: Difference) -> Iterator[str]:
    """Yield the constructs of the report's notes that explain a difference."""
    what = found.what.removeprefix("argument ")
    yield f"default argument {what}"
    if not found.task_id:
        yield from (what, f"{what} of the DAG", f"default of {what}")
        return
    yield from (f"{what} {found.task_id}", f"{what} of {found.task_id}", f"default argument {what} of {found.task_id}")
    parts = found.task_id.split(".")
    groups = [".".join(parts[:number]) for number in range(1, len(parts))]
    yield from (f"default argument {what} of task group {group}" for group in groups)
    if what == "trigger_rule":
        yield f"teardown of {found.task_id}"


def _last_line(text: str) -> str:
    """Return the last line of a traceback."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _compiled(folder: Path, file: FileResult, dag: DagResult) -> subprocess.CompletedProcess[str]:
    """Return the DAG file that FlowyML compiles from a pipeline, in a process of its own, which imports the module."""
    command = [sys.executable, "-m", "flowyml", "compile", f"{folder / file.module}:{dag.pipeline}", "--to", "airflow"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 1, "", f"it is not compiled after {span_text(error.timeout)}")


T = TypeVar("T")


def _counted(items: Iterable[T], count: Callable[[int], None]) -> Iterator[T]:
    for number, item in enumerate(items, 1):
        count(number)
        yield item
