"""A step of a plan, and the sources of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.values import Source, steps_of

__all__ = ["FLAT_FIELDS", "RUN_IF", "Caching", "Input", "Step"]

RUN_IF = (
    "all_success", "all_done", "all_failed", "one_failed", "one_success", "one_done", "none_failed",
    "none_failed_min_one_success", "none_skipped", "always",
)  # fmt: skip
"""The conditions on the ends of earlier steps for running a step, in Airflow's words."""


FLAT_FIELDS = (
    "name", "function", "inputs", "outputs", "after", "retry", "timeout_seconds", "resources", "tags", "description",
    "options",
)  # fmt: skip
"""The fields of ``Step`` in the first schema of plans. Any other makes the plan one of a newer schema."""


@dataclass(frozen=True, slots=True)
class Input:
    """The source of a step's argument ``name``.

    An argument that takes several outputs as a list has an input for each, in order: ``into`` is then the name of the
    argument, and ``name`` that of the input alone. A ``typed`` input is JSON that becomes a value of the function's
    annotated type: see ``flowyml.plan.types``.
    """

    name: str
    source: Source
    into: str = ""
    typed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """The parts of the key by which a step's results are cached.

    ``code`` is a digest of the code that the step can reach, ``data`` those of the data files that this code names, by
    their names, ``makers`` a digest of the code of all earlier steps, which counts if an input may have code of its
    own. ``arguments`` are those that count; None means all.
    ``environment`` and ``packages`` name variables and packages of the worker that count; ``dates`` is True if the
    run's dates count. ``paths`` are the inputs whose text names files. Results older than ``ttl_seconds`` do not count.
    With ``refresh``, none does, and a new result replaces it.
    """

    code: str
    data: Mapping[str, str] = field(default_factory=dict)
    makers: str = ""
    version: str = ""
    ttl_seconds: float | None = None
    arguments: tuple[str, ...] | None = None
    environment: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    dates: bool = False
    paths: tuple[str, ...] = ()
    refresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node of the graph.

    ``function`` is the function that the runtime calls: ``"module:qualified.name"``, or ``"pickle:KEY"`` for a function
    that no worker could import, which then travels in the bundle. ``after`` names steps that come first without passing
    data. ``options`` are for single engines, by the engine's name.

    ``group`` is the innermost group around it, ``run_if`` one of ``RUN_IF``. ``secrets`` are names of secrets, by the
    argument or the environment variable to fill on the worker. Steps of one ``execution_group`` run in one task,
    process or pod: see ``flowyml.plan.groups.ExecutionGroup``. ``kinds`` are the kinds of outputs that annotations
    name: see ``flowyml.plan.kinds``. ``caching`` is None for a step that always runs.
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
        """The steps that must end first, without duplicates, in order of first mention; not those of its groups."""
        names = [name for item in self.inputs for name in steps_of(item.source)]
        return tuple(dict.fromkeys((*names, *self.after)))

    @property
    def operator(self) -> tuple[str, str] | None:
        """The engine whose own operator the step is, and the operator's import path; None for a user's function.

        It is in the options, like everything for a single engine: ``{"airflow": {"operator": "…BashOperator"}}``.
        """
        for engine, options in self.options.items():
            if isinstance(path := options.get("operator"), str):
                return engine, path
        return None
