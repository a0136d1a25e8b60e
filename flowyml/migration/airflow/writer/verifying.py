"""Whether Airflow finds the same in a DAG file and in what was compiled from its pipeline.

Airflow's own DagBag loads both, in an interpreter that has it, in a process for each side; so this is the one place
where a DAG file is executed, and only when it is asked for.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowyml.core.errors import EngineError

__all__ = ["Difference", "compare", "load_dags"]

_SECONDS = 600
_FIELDS = ("operator", "trigger_rule", "retries", "execution_timeout", "mapped")
_STEP = ("Step", "ItemStep")
# Trigger rules that FlowyML widens where a step may be skipped, and decides by itself: see docs/control-flow.md.
_WIDER = {("all_success", "none_failed"), ("all_success", "none_failed_min_one_success")}

_LOADER = '''
import json, os, sys, tempfile
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp()
root = sys.argv[1] if os.path.isdir(sys.argv[1]) else os.path.dirname(sys.argv[1])
sys.path.insert(0, root)
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

def seconds(value):
    return value.total_seconds() if hasattr(value, "total_seconds") else value

def task(found):
    rule = getattr(found, "trigger_rule", "all_success")
    mapped = bool(getattr(found, "is_mapped", False))
    given = getattr(found, "expand_input", None) or getattr(found, "op_kwargs_expand_input", None)
    value = getattr(given, "value", None)
    delay = getattr(found, "retry_delay", None)
    return {
        "operator": getattr(found, "task_type", type(found).__name__),
        "shown": getattr(found, "task_display_name", None) or found.task_id,
        "upstream": sorted(found.upstream_task_ids),
        "trigger_rule": str(getattr(rule, "value", rule)),
        "retries": getattr(found, "retries", 0) or 0,
        "retry_delay": seconds(delay) if getattr(found, "retries", 0) else None,
        "execution_timeout": seconds(getattr(found, "execution_timeout", None)),
        "mapped": mapped,
        "over": sorted(value) if isinstance(value, dict) else None,
    }

def schedule(dag):
    table = dag.timetable
    inner = getattr(table, "_expression", None)
    if inner is not None:
        zone = getattr(table, "_timezone", None)
        return f"cron:{inner} {getattr(zone, 'name', zone)}"
    delta = getattr(table, "_delta", None)
    if delta is not None:
        return f"delta:{seconds(delta)}"
    name = type(table).__name__
    return "None" if name == "NullTimetable" else "timetable:" + name

real, sys.stdout = sys.stdout, sys.stderr
import inspect
known = inspect.signature(DagBag).parameters
bag = DagBag(sys.argv[1], **{"include_examples": False} if "include_examples" in known else {})
dags = {
    dag.dag_id: {
        "shown": getattr(dag, "dag_display_name", None) or dag.dag_id,
        "file": dag.fileloc, "schedule": schedule(dag), "catchup": bool(dag.catchup),
        "tasks": {each.task_id: task(each) for each in dag.tasks},
    }
    for dag in bag.dags.values()
}
real.write("\\n" + json.dumps({"dags": dags, "errors": {str(k): str(v)[-600:] for k, v in bag.import_errors.items()}}) + "\\n")
'''


@dataclass(frozen=True, slots=True)
class Difference:
    """What Airflow finds otherwise in a DAG: of which task, if of one, and on either side."""

    dag_id: str
    task_id: str
    what: str
    original: Any
    compiled: Any

    def __str__(self) -> str:
        where = f"{self.dag_id}.{self.task_id}" if self.task_id else self.dag_id
        return f"{where}: {self.what}: {self.original!r} in the DAG file, {self.compiled!r} in the compiled one"


def load_dags(python: str, folder: Path) -> Mapping[str, Any]:
    """What the DagBag of an interpreter's Airflow finds in a file or folder. Raises ``EngineError``."""
    with tempfile.TemporaryDirectory() as home:
        script = Path(home) / "load_dags.py"
        script.write_text(_LOADER, encoding="utf-8")
        try:
            ended = subprocess.run(
                [python, "-I", script, folder], capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=home
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{python} did not load {folder}: {error}") from error
    last = ended.stdout.strip().rpartition("\n")[2]
    try:
        found: Mapping[str, Any] = json.loads(last)
    except ValueError:
        raise EngineError(f"{python} has no Airflow that loads {folder}: {ended.stderr[-800:]}") from None
    return found


def compare(
    original: Mapping[str, Any], compiled: Mapping[str, Any], helpers: Sequence[str] = (), *, schedule: bool = True
) -> Iterator[Difference]:
    """The differences between a DAG and the one that was compiled from its pipeline.

    Tasks are known by the name that Airflow shows. Those that only the compiled one has, for branches, say, are taken
    out of its graph, as if what waits for them waited for what they wait for.
    """
    dag = original["shown"]
    before = {name: each for name, each in original["tasks"].items()}
    after = _by_shown(compiled["tasks"])
    extra = [name for name in after if name not in before]
    for name in before.keys() - after.keys():
        yield Difference(dag, name, "task", "there", "missing")
    for name in extra:
        if name not in helpers:
            yield Difference(dag, name, "task", "missing", "there")
    for name in before.keys() & after.keys():
        yield from _of_task(dag, name, before[name], after[name], _upstream(after, name, set(extra)))
    if schedule:
        for what in ("schedule", "catchup"):
            if original[what] != compiled[what]:
                yield Difference(dag, "", what, original[what], compiled[what])


def _of_task(
    dag: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any], upstream: Sequence[str]
) -> Iterator[Difference]:
    if before["upstream"] != upstream:
        yield Difference(dag, name, "upstream", before["upstream"], upstream)
    for what in (*_FIELDS, "retry_delay"):
        one, other = before[what], after[what]
        if one == other or (what == "operator" and other in _STEP):
            continue
        if what == "operator" and other == one.strip("_").replace("Decorated", ""):
            continue
        if what == "trigger_rule" and (one, other) in _WIDER and after["operator"] in _STEP:
            continue
        yield Difference(dag, name, what, one, other)
    if after["operator"] not in _STEP and before["over"] != after["over"]:
        yield Difference(dag, name, "mapped arguments", before["over"], after["over"])


def _by_shown(tasks: Mapping[str, Any]) -> dict[str, Any]:
    names = {task: each["shown"] for task, each in tasks.items()}
    return {
        each["shown"]: {**each, "upstream": sorted(names[name] for name in each["upstream"])} for each in tasks.values()
    }


def _upstream(tasks: Mapping[str, Any], name: str, extra: set[str]) -> list[str]:
    found: set[str] = set()
    waiting, seen = list(tasks[name]["upstream"]), set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        if each in extra:
            waiting += tasks[each]["upstream"]
        else:
            found.add(each)
    return sorted(found)
