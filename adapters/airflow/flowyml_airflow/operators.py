"""A step that is an Airflow operator: its import path and its arguments, as in a DAG file."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import FunctionType
from typing import TYPE_CHECKING, Any

from flowyml.core.errors import DefinitionError
from flowyml.core.modules import shipped_name
from flowyml.plan.model import RUN_IF
from flowyml.plan.names import check_name
from flowyml.plan.parameters import is_json, is_too_deep

if TYPE_CHECKING:
    from flowyml.authoring.steps import Step

__all__ = ["ARGUMENTS", "Imported", "Made", "Returned", "airflow_operator", "imported", "is_path", "split", "xcom"]

ARGUMENTS = "arguments"
"""The key of the operator's arguments among the options of a step, beside ``operator``."""

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_OURS = ("dag", "task_group")
_RULES_OF_AIRFLOW = ("all_skipped",)  # that `run_if` has no word for


@dataclass(frozen=True, slots=True)
class Imported:
    """An object that Airflow's workers import. Call it to have them call it, too. Created by ``imported``."""

    path: str

    def __call__(self, *args: Any, **kwargs: Any) -> Made:
        return Made(self, args, kwargs)


@dataclass(frozen=True, slots=True)
class Made:
    """The result of an imported object that is called with these arguments."""

    of: Imported
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def imported(path: str) -> Imported:
    """Return an operator's argument that is not a plain value: ``imported("airflow.models:Variable.get")("bucket")``.

    ``path`` is the path of a name in a module; a colon marks the end of the module. Without a colon, the last name is
    imported from the rest. Airflow imports and calls it when it reads the DAG file. Raises ``DefinitionError``.
    """
    if not is_path(path):
        raise DefinitionError(f"imported({path!r:.80}) needs the path of a name in a module: 'package.module.Name'.")
    return Imported(path)


@dataclass(frozen=True, slots=True)
class Returned:
    """The return value, or an XCom, of another step's task. Created by ``xcom``."""

    step: str
    key: str = "return_value"


def xcom(step: str, key: str = "return_value") -> Returned:
    """Return an operator's argument, or a part of one, that is another step's return value or an XCom of its operator.

    The operator waits for that step. The argument is Airflow's own ``XComArg``: it works in arguments that have
    templates.
    """
    return Returned(check_name(step, "step"), key)


def airflow_operator(operator: str, /, *, task_id: str, **arguments: Any) -> Step[..., Any]:
    """Return a step that is an Airflow operator, by its import path and its arguments as in a DAG file.

    Compiled to Airflow, the step is that very operator; any other engine refuses the pipeline, and suggests a
    replacement. Arguments are plain JSON, including Jinja templates, and also tuples, sets, ``timedelta`` and
    ``datetime``, and functions of your own modules, which travel in the bundle; ``imported`` stands for everything
    else, and ``xcom`` for another step's return value. ``task_id`` is the name of the step. ``trigger_rule`` is its
    ``run_if``. All others reach the operator unchanged: ``retries``, ``pool``, ``execution_timeout``. To wait for steps
    without taking values, use ``.options(after=…)``.

    In the function of a pipeline, call the step, with outputs of other steps for arguments that take them:
    ``fetch(data=load())``. Its output is the operator's return value, which must be plain JSON if a step takes it.
    Hooks of steps do not run for it. Raises ``DefinitionError``.

    >>> fetch = airflow_operator("airflow.providers.standard.operators.bash.BashOperator", task_id="fetch",
    ...                          bash_command="date -d {{ ds }}", retries=2)
    >>> fetch.name, fetch.outputs
    ('fetch', ('fetch',))
    """
    from flowyml import step

    subject = f"airflow_operator({operator!r:.80})"
    if not is_path(operator) or ":" in operator:
        raise DefinitionError(f"{subject} needs the import path of an operator: 'package.module.Operator'.")
    if ours := [name for name in _OURS if name in arguments]:
        raise DefinitionError(f"{subject}: leave {ours[0]!r} out. The pipeline decides where the task is.")
    rule = arguments.pop("trigger_rule", "all_success")
    rule = str(getattr(rule, "value", rule))
    options: dict[str, Any] = {
        "operator": operator,
        ARGUMENTS: {name: encoded(value, subject) for name, value in arguments.items()},
    }
    if rule not in RUN_IF and rule not in _RULES_OF_AIRFLOW:
        raise DefinitionError(
            f"{subject}: trigger_rule={rule!r} is not one of {', '.join((*RUN_IF, *_RULES_OF_AIRFLOW))}."
        )
    if rule in _RULES_OF_AIRFLOW:
        options["trigger_rule"] = rule
    decorate: Any = step(
        name=task_id, outputs=[task_id], inputs={},
        after=_taken_from(options[ARGUMENTS]), run_if=rule if rule in RUN_IF else "all_success",
        description=str(arguments.get("doc_md") or ""), airflow=options,
    )  # fmt: skip
    operator_step: Step[..., Any] = decorate(_stand_in)
    return operator_step


def _stand_in(**arguments: Any) -> Any:
    """Stand in for the function. The plan says that only Airflow can run the step, so no other engine calls this."""
    raise DefinitionError("This step is an Airflow operator, and runs only on Airflow.")


_stand_in.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # inspect reads it from any function
    [inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)]
)


def is_path(path: object) -> bool:
    """Return whether an object is the path of a name in a module, without Python keywords."""
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        return False
    return not any(part == "__debug__" or keyword.iskeyword(part) for part in re.split("[.:]", path))


def _taken_from(encoded: Any) -> list[str]:
    """Return the steps whose values occur in the arguments."""
    if isinstance(encoded, dict):
        own = [encoded["$xcom"][0]] if "$xcom" in encoded else []
        return list(dict.fromkeys([*own, *(name for item in encoded.values() for name in _taken_from(item))]))
    if isinstance(encoded, list):
        return list(dict.fromkeys(name for item in encoded for name in _taken_from(item)))
    return []


def split(path: str) -> tuple[str, str, str]:
    """Split a path: the module, the name to import from it, and the rest after that name.

    >>> split("airflow.models:Variable.get"), split("our.hooks.Hook")
    (('airflow.models', 'Variable', '.get'), ('our.hooks', 'Hook', ''))
    """
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    first, dot, rest = name.partition(".")
    return module, first, dot + rest


def encoded(value: Any, subject: str) -> Any:
    """Encode an argument as plain JSON. A value that JSON lacks becomes a dict with one key that begins with ``$``.

    >>> encoded({"wait": timedelta(minutes=1), "of": ("a", 1)}, "")
    {'wait': {'$timedelta': 60.0}, 'of': {'$tuple': ['a', 1]}}
    """
    if is_too_deep(value):
        raise DefinitionError(f"{subject}: an argument is nested too deeply.")
    if isinstance(value, list | tuple):
        items = [encoded(item, subject) for item in value]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict):
        pairs = {key: encoded(item, subject) for key, item in value.items()}
        if any(not isinstance(key, str) or key.startswith("$") for key in pairs):
            return {"$dict": [[encoded(key, subject), item] for key, item in pairs.items()]}
        return pairs
    return value if is_json(value) else _tagged(value, subject)


def _place(function: FunctionType) -> str | None:
    """Return the import path of a function on a worker; None if a worker cannot import it."""
    module = shipped_name(function.__module__)
    path = f"{module}:{function.__qualname__}"
    return path if module and is_path(path) else None


def _tagged(value: Any, subject: str) -> dict[str, Any]:
    match value:
        case Imported(path):
            return {"$import": path}
        case Made(of, args, kwargs):
            arguments = {name: encoded(item, subject) for name, item in kwargs.items()}
            return {"$call": [of.path, [encoded(item, subject) for item in args], arguments]}
        case Returned(step, key):
            return {"$xcom": [step, key]}
        case FunctionType() if (place := _place(value)) is not None:
            return {"$code": place}
        case timedelta():
            return {"$timedelta": value.total_seconds()}
        case datetime():
            return {"$datetime": value.isoformat()}
        case set() | frozenset():
            return {"$set": [encoded(item, subject) for item in sorted(value, key=repr)]}
    raise DefinitionError(
        f"{subject}: an argument is {value!r:.80}, which is not plain data. Name what Airflow should import: "
        f"imported('module.name'), or imported('module.Class')(…)."
    )
