"""Check keywords: an unknown one raises an error that names the nearest known one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, get_overloads

from flowyml.authoring.source_lines import adds_source_line
from flowyml.core.errors import DefinitionError, UnknownOptionError
from flowyml.core.near_names import did_you_mean
from flowyml.plan.parameters import is_json, is_too_deep, too_deep

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["engine_options", "names_unknown_options", "takes_a_dict"]


def names_unknown_options(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a callable so that an unknown keyword raises ``UnknownOptionError`` with the nearest known one.

    Like every ``DefinitionError`` of the callable, the error names the line of the call.

    The name of an orchestrator is a known keyword: ``airflow={"pool": "gpu"}`` is for that engine only.

    An overloaded function takes all options as one mapping; their names, types and defaults are those of its overloads.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signatures = [inspect.signature(overload) for overload in get_overloads(function) or [function]]
        parameters = [parameter for signature in signatures for parameter in signature.parameters.values()]
        known = [item.name for item in parameters if item.kind is not item.VAR_KEYWORD and item.name != "self"]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in known and not _is_engine(name):
                    raise _unknown(what, name, known)
            return function(*args, **kwargs)

        checked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what help() shows
        return adds_source_line(checked)

    return decorate


def takes_a_dict(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method that takes the parameters of a run as a dict: keywords raise an error that says so."""
    known = list(inspect.signature(function).parameters)[1:]

    @adds_source_line
    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if unknown := {name: value for name, value in kwargs.items() if name not in known}:
            name, verb = next(iter(unknown)), function.__name__
            example = ", ".join(f"{key!r}: {value!r:.40}" for key, value in unknown.items())
            raise UnknownOptionError(
                f"{verb}() has no option {name!r}.{did_you_mean(name, known)} It takes {', '.join(known)}. Parameters "
                f"of the run go into a dict: {verb}({'parameters=' if known[0] != 'parameters' else ''}{{{example}}})."
            )
        return function(*args, **kwargs)

    return checked


def _unknown(what: str, name: str, known: Sequence[str]) -> UnknownOptionError:
    from flowyml.orchestrators.local.options import STEP_OPTIONS

    hint = did_you_mean(name, known)
    if what == "step" and name in STEP_OPTIONS:
        hint = f' It is one of the local engine: @step(local={{"{name}": True}}).'
    return UnknownOptionError(
        f"{what} has no option {name!r}.{hint} It takes {', '.join(known)}, and options for one engine under the "
        f"engine's name."
    )


def engine_options(options_of: Mapping[str, object], subject: str) -> dict[str, dict[str, Any]]:
    """Check that options for single engines are plain JSON, as the plan must be; the engine checks the rest."""
    checked: dict[str, dict[str, Any]] = {}
    for engine, options in options_of.items():
        if is_too_deep(options):
            raise DefinitionError(too_deep(f"{subject}: {engine}=…"))
        if not isinstance(options, Mapping) or not is_json(options):
            raise DefinitionError(
                f"{subject}: {engine}={options!r:.80} must be a dict of plain JSON, option by option."
            )
        checked[engine] = dict(options)
    return checked


def _is_engine(name: str) -> bool:
    """Return True for every declared orchestrator; a worker has no declarations and trusts the compiled plan."""
    from flowyml.core.loading import is_loading_on_worker

    if is_loading_on_worker():
        return True
    from flowyml.orchestrators.registry import declared

    return name in declared()
