"""Ask an interpreter that has Airflow: what it finds in DAG files, and what a run of a DAG does.

These are the places where a DAG file is executed, and only on request. Each question is a process of its own, with its
own ``AIRFLOW_HOME``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from flowyml.core.errors import EngineError

_SECONDS = 600
_VARIABLES = ("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_CMD", "SQL_ALCHEMY_CONN_SECRET", "EXECUTOR")
"""Settings that lead to the database and the workers of a real Airflow."""

_HEAD = """
import inspect, json, os, sys
from datetime import timedelta, timezone
os.environ["AIRFLOW_HOME"] = os.getcwd()
paths, folders, *more = json.loads(sys.argv[1])
root = os.path.dirname(paths[0])
sys.path += folders  # at the end, as Airflow does
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = root
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "0"  # none: a slow machine is not a difference
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
import warnings
warnings.simplefilter("ignore")
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models import DagBag

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

real, sys.stdout = sys.stdout, sys.stderr
bag = DagBag(root, collect_dags=False)
"""

_LOAD = """
OPTIONS = ("owner", "pool", "queue", "depends_on_past")
OF_FUNCTIONS = ("python_callable", "op_args", "op_kwargs")

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
    if parts is not None and len(parts) == 1:
        return assets(parts[0])
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
        return f"cron:{' '.join(str(inner).split())} {getattr(zone, 'name', zone)}"
    delta = getattr(table, "_delta", None) or getattr(table, "delta", None)
    if delta is not None:
        return f"delta:{seconds(delta)}"
    name = type(table).__name__
    return "None" if name == "NullTimetable" else "timetable:" + name

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

_RUN = """
from airflow import settings
from airflow.models import DagRun, TaskInstance
from airflow.models import xcom
from airflow.utils import db, timezone

def value_of(row):  # Airflow 2 decodes it when it reads the row
    return row.value if hasattr(row, "orm_deserialize_value") else xcom.XComModel.deserialize_value(row)

db.initdb()
bag.process_file(paths[0], only_if_updated=False)
dag_id, day, conf = more
dag = bag.dags[dag_id]
for task in dag.tasks:
    task.retry_delay = timedelta(0)
parameters = inspect.signature(dag.test).parameters
name = "logical_date" if "logical_date" in parameters else "execution_date"
dag.test(**{name: timezone.parse(day)}, run_conf={name: value for name, value in conf.items() if name in dag.params})
session = settings.Session()
run = session.query(DagRun).filter(DagRun.dag_id == dag_id).order_by(DagRun.id).first()
XCom = getattr(xcom, "XComModel", None) or xcom.XCom
rows, values = (session.query(of).filter_by(dag_id=dag_id, run_id=run.run_id) for of in (TaskInstance, XCom))
shown = {task.task_id: getattr(task, "task_display_name", None) or task.task_id for task in dag.tasks}
print(json.dumps({
    "outcome": run.state,
    "interval": {name: plain(getattr(run, name)) for name in ("data_interval_start", "data_interval_end")},
    "steps": [shown[task.task_id] for task in dag.tasks if task.task_type in ("Step", "ItemStep")],
    "states": [[shown[row.task_id], row.map_index, row.state] for row in rows if row.task_id in shown],
    "xcoms": [
        [shown[row.task_id], row.map_index, row.key, plain(value_of(row))] for row in values if row.task_id in shown
    ],
}), file=real, flush=True)
"""


def load_dags(python: str, paths: Sequence[Path], folders: Sequence[Path] = ()) -> Mapping[str, Any]:
    """Load files with the DagBag of an interpreter's Airflow, and return its findings. Raises ``EngineError``.

    They import modules from ``folders``, and from their own.
    """
    shown = f"{len(paths)} files" if len(paths) != 1 else str(paths[0])
    return _answer(python, _LOAD, paths, folders, f"load {shown}")


def run_dag(
    python: str, path: Path, folders: Sequence[Path], dag_id: str, moment: datetime, conf: Mapping[str, Any] = {}
) -> Mapping[str, Any]:
    """Run a DAG of a file by ``dag.test()``, in a new SQLite database. Raises ``EngineError``.

    Retries have no delay. Returns the run's outcome and interval, and the states and XComs of its tasks, which have
    their display names and map indexes. ``conf`` is for the params that the DAG declares.
    """
    request = [dag_id, moment.isoformat(), dict(conf)]
    return _answer(python, _RUN, [path], folders, f"run {dag_id} of {path}", request)


def _answer(
    python: str, script: str, paths: Sequence[Path], folders: Sequence[Path], what: str, more: Sequence[Any] = ()
) -> Mapping[str, Any]:
    interpreter = Path(shutil.which(python) or python).absolute()  # not resolved: a link in a venv identifies the venv
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "asked.py"
        file.write_text(_HEAD + script, encoding="utf-8")
        places = dict.fromkeys(map(str, [*folders, *(each.parent for each in paths)]))
        command = [str(interpreter), "-I", str(file), json.dumps([[*map(str, paths)], [*places], *more])]
        variables = {name: value for name, value in os.environ.items() if not (more and name.endswith(_VARIABLES))}
        try:
            ended = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                cwd=home,
                env=variables,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{python} did not {what}: {error}") from error
    try:
        found: Mapping[str, Any] = json.loads(ended.stdout.strip().rpartition("\n")[2])
    except ValueError:
        raise EngineError(f"{python} has no Airflow that can {what}: {last_line(ended.stderr)[-800:]}") from None
    return found


def last_line(text: str) -> str:
    """Return the last line of a traceback."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
