"""A step of a plan, and what fills its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.values import Source, steps_of

__all__ = ["RUN_IF", "Caching", "Input", "Step"]

RUN_IF = (
    "all_success", "all_done", "all_failed", "one_failed", "one_success", "one_done", "none_failed",
    "none_failed_min_one_success", "none_skipped", "always",
)  # fmt: skip
"""When a step runs, in Airflow's words, by how the steps that it waits for ended."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a step's argument ``name`` is filled with.

    An argument that takes several outputs as a list has an input for each, in their order: ``into`` is then the name of
    the argument, and ``name`` that of the input alone. A ``typed`` one is JSON that the function's annotation turns
    into a value: see ``flowyml.plan.types``.
    """

    name: str
    source: Source
    into: str = ""
    typed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """How a step's results are kept for later runs, and found again.

    ``code`` is a digest of the code that the step can reach, ``makers`` one of the code of all steps before it, which
    counts if an input is an object with methods. ``arguments`` are those that count; None means all. ``environment``
    and ``packages`` name variables and packages of the worker that count, ``dates`` says whether the run's do. Results
    older than ``ttl_seconds`` do not count. With ``refresh``, none does, and a new result replaces it.
    """

    code: str
    makers: str = ""
    version: str = ""
    ttl_seconds: float | None = None
    arguments: tuple[str, ...] | None = None
    environment: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    dates: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node of the graph.

    ``function`` says what the runtime calls: ``"module:qualified.name"``, or ``"pickle:KEY"`` for a function that
    no worker could import, which then travels in the bundle. ``after`` names steps that come first without passing
    data. ``options`` are for single engines, by the engine's name.

    ``group`` is the innermost group that it is in, ``run_if`` one of ``RUN_IF``. ``secrets`` are names of secrets, by
    the argument or the environment variable that each fills on the worker. Steps of one ``execution_group`` run in one
    task, process or pod: see ``flowyml.plan.groups.Together``. ``kinds`` are the kinds of outputs whose annotation
    names one: see ``flowyml.plan.kinds``. ``caching`` is None for a step that always runs.
    """

    name: str
    function: str
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    retry: OrchestratorRetryPolicy | None = None
    timeout_seconds: float | None = None
    resources: ResourceRequirements | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    group: str = ""
    run_if: str = "all_success"
    secrets: Mapping[str, str] = field(default_factory=dict)
    execution_group: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)
    caching: Caching | None = None

    @property
    def upstream(self) -> tuple[str, ...]:
        """The steps that must end first, each once, in the order of first mention, without those of its groups."""
        names = [name for item in self.inputs for name in steps_of(item.source)]
        return tuple(dict.fromkeys((*names, *self.after)))

    @property
    def operator(self) -> tuple[str, str] | None:
        """The engine whose own step this is, and the import path of its operator; None for a user's function.

        It is in the options, like everything for a single engine: ``{"airflow": {"operator": "…BashOperator"}}``.
        """
        for engine, options in self.options.items():
            if isinstance(path := options.get("operator"), str):
                return engine, path
        return None
