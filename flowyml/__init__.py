"""Write a pipeline once, choose the engine when you submit it.

Importing this package loads the standard library and a few small modules of its own; engines and heavy libraries
are loaded where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._version import __version__
from flowyml.authoring.cache import Cache
from flowyml.authoring.context import Context, context
from flowyml.authoring.flow import cleanup, either, elif_, for_each, gather, otherwise, when
from flowyml.authoring.function_pipeline import pipeline
from flowyml.authoring.named_conditions import If
from flowyml.authoring.pipeline import Pipeline
from flowyml.authoring.placeholders import all_of, any_of, is_in, not_
from flowyml.authoring.steps import step
from flowyml.core.dates import DATA_INTERVAL_END, DATA_INTERVAL_START, LOGICAL_DATE
from flowyml.core.logs import get_logger
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.runtime.reporting import report
from flowyml.runtime.running_step import CurrentRun, current_run

if TYPE_CHECKING:
    from flowyml.core.schedule import Schedule

__all__ = [
    "DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "Cache", "Context", "CurrentRun", "If",
    "OrchestratorRetryPolicy", "Pipeline", "Schedule", "__version__", "all_of", "any_of", "cleanup", "context",
    "current_run", "either", "elif_", "for_each", "gather", "get_logger", "is_in", "not_", "otherwise", "pipeline",
    "report", "step", "when",
]  # fmt: skip

_REMOVED = {
    "register_callback": "Subclass flowyml.core.hooks.PipelineHook and pass it: Pipeline(name, hooks=[MyHook()])",
}


def __getattr__(name: str) -> Any:
    if name == "Schedule":  # most pipelines declare none, and it takes a thirtieth of the import
        from flowyml.core.schedule import Schedule

        return Schedule
    if name in _REMOVED:
        raise ImportError(f"flowyml.{name} was removed in 1.0. {_REMOVED[name]}.", name=__name__)
    raise AttributeError(f"module 'flowyml' has no attribute {name!r}")
