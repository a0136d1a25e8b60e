"""A pipeline read from its bundle, which runs like the original."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

from flowyml.core.errors import DefinitionError
from flowyml.core.origin import Origin
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan
from flowyml.plan.parameters import check_values
from flowyml.runtime.code import Code
from flowyml.runtime.loading import load_code
from flowyml.runtime.unpacking import unpack_bundle_bytes

__all__ = ["BundledPipeline"]


class BundledPipeline:
    """A pipeline from a bundle's file: ``orchestrator.run_pipeline(BundledPipeline("training-1f3a9c2e.pyz"))``.

    Raises ``PlanError`` if the file is not a bundle.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._bundle = Bundle.read(self.path)

    @property
    def name(self) -> str:
        """The name of the pipeline."""
        return self._bundle.plan.name

    @property
    def origin(self) -> Origin | None:
        """The origin of the pipeline; None if the bundle does not record it."""
        return self._bundle.origin

    revision: str | None = None
    """None: a bundle does not record its commit."""

    @cached_property
    def folder(self) -> Path:
        """The folder of the unpacked bundle."""
        return unpack_bundle_bytes(self._bundle.data)

    def compile(self) -> Plan:
        """Return the plan in the bundle."""
        return self._bundle.plan

    def refreshed(self, refresh: bool | str | Iterable[str]) -> BundledPipeline:
        """Return a copy whose cached steps run again and save their new results: all of them, or the named ones."""
        fresh = copy(self)
        fresh._bundle = self._bundle.with_plan(self._bundle.plan.with_refresh(refresh))
        fresh.__dict__.pop("folder", None)
        return fresh

    def code(self) -> Code:
        """Return the functions and hooks, loaded into this process."""
        return load_code(self.folder, self._bundle.plan)

    def bundle(self, plan: Plan | None = None) -> Bundle:
        """Return the bundle itself, or the same code with another plan."""
        return self._bundle if plan is None else self._bundle.with_plan(plan)

    def imports(self) -> set[str]:
        """Return the packages that the code in the bundle imports."""
        return self._bundle.imports()

    def check_parameters(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return all parameters of a run, defaults filled in. Raises ``ParameterError``."""
        return check_values(self.name, self._bundle.plan.parameters, values)

    def locate(self, error: DefinitionError) -> None:
        """Do nothing: a bundle does not record the lines of its steps."""
