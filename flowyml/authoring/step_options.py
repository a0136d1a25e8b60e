"""The options of steps, and checks of them, which raise ``DefinitionError``. ``subject`` begins the messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flowyml.authoring.cache import Cache, check_cache
from flowyml.authoring.options import engine_options
from flowyml.core.errors import DefinitionError
from flowyml.core.near_names import did_you_mean
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.model import RUN_IF
from flowyml.plan.names import check_name
from flowyml.plan.secrets import check_reference

if TYPE_CHECKING:
    from flowyml.authoring.steps import Step

__all__ = [
    "StepOptions", "check_item_error", "check_max_parallel", "check_names", "check_timeout", "checked_options",
]  # fmt: skip

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """The options of ``@step``.

    ``inputs`` maps parameters to the names of outputs; None means that each parameter takes the output of its name.
    """

    name: str
    inputs: Mapping[str, str | tuple[str, ...]] | None = None
    outputs: tuple[str, ...] | None = None
    after: tuple[str, ...] = ()
    retry: OrchestratorRetryPolicy | None = None
    timeout: float | None = None
    resources: ResourceRequirements | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    run_if: str = "all_success"
    max_parallel: int | None = None
    on_item_error: str = "fail"
    secrets: Mapping[str, str] = field(default_factory=dict)
    execution_group: str = ""
    cache: Cache | bool | None = None
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def checked_options(step: Step[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check options of a step, and return them as ``StepOptions`` has them; None means that one was not given.

    Any other keyword is the name of an engine, with the options for it.
    """
    subject = f"step {step.name!r}"
    checks: dict[str, Callable[[Any], Any]] = {
        "name": lambda name: check_name(name, "step"),
        "inputs": lambda names: _inputs(names, step, subject),
        "outputs": lambda names: check_names(names, "outputs", subject),
        "after": lambda names: check_names(names, "after", subject),
        "retry": lambda retry: _retry(retry, subject),
        "timeout": lambda seconds: check_timeout(seconds, subject),
        "resources": lambda requirements: requirements,
        "tags": lambda names: check_names(names, "tags", subject),
        "description": lambda text: text,
        "run_if": lambda rule: check_run_if(rule, subject),
        "max_parallel": lambda number: check_max_parallel(number, subject),
        "on_item_error": lambda rule: check_item_error(rule, subject),
        "secrets": lambda names: _secrets(names, step, subject),
        "execution_group": lambda group: check_name(group, "execution group") if group else "",
        "cache": lambda cache: check_cache(cache, subject, step.signature.parameters),
    }
    options = {name: check(given[name]) for name, check in checks.items() if given.get(name) is not None}
    if engines := {name: value for name, value in given.items() if name not in checks}:
        options["engines"] = engine_options(engines, subject)
    return options


def check_timeout(seconds: object, subject: str) -> float | None:
    """Return the seconds if they are a number above 0, or None."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise DefinitionError(f"{subject}: timeout={seconds!r} must be a number of seconds above 0.")
    return seconds


def check_run_if(rule: str, subject: str) -> str:
    """Return the rule if it is one of ``RUN_IF``."""
    if rule not in RUN_IF:
        raise DefinitionError(f"{subject}: run_if={rule!r} must be one of {', '.join(RUN_IF)}.")
    return rule


def _secrets(secrets: object, step: Step[..., Any], subject: str) -> dict[str, str]:
    """Return names of secrets, by the parameter or environment variable to fill."""
    if not isinstance(secrets, Mapping):
        raise DefinitionError(
            f"{subject}: secrets={secrets!r:.80} must be a dict: {{'password': 'warehouse/password'}}."
        )
    parameters = step.signature.parameters if secrets else {}
    for name, reference in secrets.items():
        try:
            check_reference(reference, f"{subject}: secrets")
        except ValueError as error:
            raise DefinitionError(str(error)) from None
        if name not in parameters and not (isinstance(name, str) and _VARIABLE.fullmatch(name)):
            raise DefinitionError(
                f"{subject}: secrets names {name!r}, which is neither a parameter of the function nor an "
                f"environment variable in capitals.{did_you_mean(str(name), parameters)}"
            )
    return dict(secrets)


def check_max_parallel(number: object, subject: str) -> int | None:
    """Return the number if it is a valid limit of items, or None."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise DefinitionError(f"{subject}: max_parallel={number!r} must be a number of items, at least 1.")
    return number


def check_item_error(rule: str, subject: str) -> str:
    """Return the rule if it is ``"fail"`` or ``"continue"``."""
    if rule not in ("fail", "continue"):
        raise DefinitionError(f"{subject}: on_item_error={rule!r} must be 'fail' or 'continue'.")
    return rule


def _inputs(inputs: object, step: Step[..., Any], subject: str) -> Mapping[str, str | tuple[str, ...]]:
    """Return the outputs that fill parameters, by parameter."""
    pairs: dict[str, str | tuple[str, ...]] = {}
    if isinstance(inputs, Mapping):
        for name, wanted in inputs.items():
            single = isinstance(wanted, str)
            pairs[name] = wanted if single else check_names(wanted, f"inputs[{name!r}]", subject)
            if not pairs[name]:
                raise DefinitionError(f"{subject}: inputs[{name!r}] names no output.")
    else:
        pairs.update({name: name for name in check_names(inputs, "inputs", subject)})
    parameters = step.signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return pairs
    if unknown := [name for name in pairs if name not in parameters]:
        raise DefinitionError(
            f"{subject}: inputs names {', '.join(map(repr, unknown))}, but the function takes "
            f"({', '.join(parameters)}). Name its parameters, or map them: inputs={{'parameter': 'output'}}."
        )
    return pairs


def check_names(value: object, option: str, subject: str) -> tuple[str, ...]:
    """Return the names given to an option, as a tuple even for a single one. Raises ``DefinitionError``."""
    if not isinstance(value, Iterable):
        raise DefinitionError(f"{subject}: {option}={value!r:.80} must be a list of names.")
    names = (value,) if isinstance(value, str) else tuple(cast(Iterable[str], value))
    for name in names:
        check_name(name, f"{subject}: {option}")
    if len(set(names)) < len(names):
        raise DefinitionError(f"{subject}: {option} repeats a name: {', '.join(map(repr, names))}.")
    return names


def _retry(retry: object, subject: str) -> OrchestratorRetryPolicy:
    if isinstance(retry, OrchestratorRetryPolicy):
        return retry
    if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
        raise DefinitionError(f"{subject}: retry={retry!r} must be a number of retries or an OrchestratorRetryPolicy.")
    return OrchestratorRetryPolicy(max_attempts=retry + 1, initial_delay_seconds=0)
