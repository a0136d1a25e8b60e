"""The meaning of import paths: operators, DAGs, groups, libraries that create no tasks."""

from __future__ import annotations

import re
import sys

from flowyml.migration.airflow.reader.values import Arguments, hard

__all__ = ["harmless", "is_dag", "is_group", "is_operator", "looks_like_dag", "only_shows"]

_HARMLESS = frozenset(
    {"airflow", "attr", "attrs", "boto3", "botocore", "builtins", "cosmos", "dateutil", "dbt", "google", "jinja2"}
    | {"kubernetes", "loguru", "numpy", "pandas", "pendulum", "pydantic", "pytz", "requests", "slack_sdk", "sqlalchemy"}
    | {"structlog", "yaml"}
)
"""Libraries whose functions create no tasks unless they are operators."""
_SHOWS = frozenset({"logging", "loguru", "pprint", "structlog", "warnings"})


def is_operator(path: str) -> bool:
    """Return whether an import path is an operator's: by its name, or by its module and a class's name."""
    module, _, name = path.rpartition(".")
    if not name[:1].isupper() or name.isupper():
        return False
    if re.search(r"(Operator|Sensor)(Async)?\d*$", name) or name == "ExternalTaskMarker":
        return True
    if not re.search(r"\.(operators|sensors|transfers)\b", module) or name.endswith(
        ("Link", "Mode", "Trigger", "Hook")
    ):
        return False
    return bool(re.search(r"(Operator|Sensor|Transfer|To[A-Z]\w+)", name))


def is_dag(path: str) -> bool:
    return path.rpartition(".")[2] == "DAG"


def is_group(path: str) -> bool:
    return path.rpartition(".")[2] == "TaskGroup"


def looks_like_dag(path: str, arguments: Arguments) -> bool:
    name = path.rpartition(".")[2]
    if not name[:1].isupper() or not name.upper().endswith("DAG"):
        return False
    return "dag_id" in arguments.named or (
        bool(arguments.positional) and isinstance(hard(arguments.positional[0].value), str)
    )


def only_shows(path: str) -> bool:
    """Return whether a function only writes its arguments."""
    top, _, rest = path.partition(".")
    return top in _SHOWS or rest.endswith(("info", "debug", "warning"))


def harmless(path: str) -> bool:
    top = path.partition(".")[0]
    return top in _HARMLESS or top in sys.stdlib_module_names
