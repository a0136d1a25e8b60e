"""The names of a pipeline's objects in Prefect: flow, deployments, artifacts, and functions in a file."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata

from flowyml.core.errors import DefinitionError
from flowyml.plan.layout import FreeNames
from flowyml.plan.model import Parameter, Plan
from flowyml.plan.names import identifier, slug

__all__ = [
    "PIPELINE", "RUN_ID", "FlowNames", "deployment_name", "flow_name", "is_of_one_version", "outputs_key", "plan_key",
    "version_name",
]  # fmt: skip

PIPELINE = "flowyml.pipeline"
"""The label of a flow, a deployment and a run with the pipeline's own name."""
RUN_ID = "flowyml.run_id"
"""The label of a run with its id, as it was submitted."""

_DEFINED = frozenset({
    "Any", "BUNDLE", "DIGEST", "FlowPipeline", "GRACE", "Path", "State", "StepTask", "Values", "flow", "json",
    "exact_parameters", "retry_on", "run_path", "sha256", "sys", "task",
})  # fmt: skip
"""Names that a compiled flow imports and defines, beside those that are called in its functions."""
_RESERVED = frozenset({"PIPELINE", "finish_run", "run_all", "run_step", "return_state", "wait_for"})
"""Names that are called in the functions of a compiled flow, and arguments of a call that Prefect uses itself."""
_BANNED_IN_NAMES = frozenset("/%&<>")  # source: prefect.types.names


def flow_name(pipeline: str) -> str:
    """Return the name of the flow in Prefect: the pipeline's own, unless Prefect forbids one of its characters."""
    return slug(pipeline) if _BANNED_IN_NAMES & set(pipeline) else pipeline


def outputs_key(pipeline: str) -> str:
    return f"{slug(pipeline)}-outputs"


def plan_key(pipeline: str) -> str:
    """Return the key of the artifacts with the steps of each deployed version."""
    return f"{slug(pipeline)}-plan"


def deployment_name(pipeline: str, pool: str | None) -> str:
    """Return the name of a deployment: the pipeline's, and the work pool's if there is one."""
    name = flow_name(pipeline)
    return name if pool is None else f"{name} on {pool}"


def version_name(deployment: str, version: str) -> str:
    """Return the name of a deployment for the runs of one version of a pipeline on a work pool."""
    return f"{deployment}, version {version}"


def is_of_one_version(name: str, version: str) -> bool:
    """Return whether a deployment of this name and version is for the runs of that version."""
    return name.endswith(version_name("", version))


class FlowNames(FreeNames):
    """Identifiers for the functions and variables of a compiled flow: all different, and none hides another name.

    Raises ``DefinitionError`` for a parameter whose name a flow cannot have.
    """

    def __init__(self, plan: Plan) -> None:
        self.parameters = [_checked_parameter(parameter) for parameter in plan.parameters]
        # A retry compiles a plan without control flow like one with it, so the names of both are reserved.
        super().__init__([*self.parameters, *_RESERVED, *_DEFINED, *keyword.kwlist, *dir(builtins)])
        self.flow = self.fresh(_readable(plan.name))
        self.tasks = {step.name: self.fresh(_readable(step.name)) for step in plan}
        self.futures = {name: self.fresh(f"{task}_future") for name, task in self.tasks.items()}


def _readable(name: str) -> str:
    """Return an identifier that resembles the name; two names may share it."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-z0-9]+", "_", ascii_name.lower()).strip("_")[:50]
    return plain if plain.isidentifier() else identifier(name)


def _checked_parameter(parameter: Parameter) -> str:
    name = parameter.name
    if not name.isidentifier() or keyword.iskeyword(name) or name in _RESERVED or name.startswith("_"):
        raise DefinitionError(f"A Prefect flow cannot have a parameter called {name!r}. Choose another name.")
    return name
