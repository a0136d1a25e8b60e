"""The features that an orchestrator supports, as data: FlowyML refuses pipelines and generates docs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from flowyml.core.errors import UnsupportedFeatureError

__all__ = ["Capabilities", "Feature", "Support", "no", "partly", "yes"]


class Feature(StrEnum):
    """A feature that a pipeline or its user may request of an engine. The value is its title in the docs."""

    PARALLEL_STEPS = "Independent steps at the same time"
    PARAMETERS = "Parameters for each run"
    STEP_RETRY = "Retries of a step with backoff"
    RETRYABLE_ERRORS = "Retries only after certain errors"
    STEP_TIMEOUT = "Step timeout"
    PIPELINE_TIMEOUT = "Pipeline timeout"
    HOOKS = "Lifecycle hooks"
    RESOURCES_CPU_MEMORY = "CPU and memory requests"
    RESOURCES_GPU = "GPU requests"
    CANCEL = "Cancel stops the work"
    LOGS = "Logs of a run"
    OUTPUTS = "Outputs read back"
    STEP_OUTPUTS = "Outputs of single steps, also of a failed run (outputs --partial)"
    IDEMPOTENT_SUBMIT = "The same run id never runs twice"
    ATTACH = "A handle from another process"
    FAN_OUT = "Fan-out over a list (map, for_each)"
    MAX_PARALLEL = "A limit on items at a time (max_parallel)"
    BRANCHES = "Branches (when, either)"
    RUN_IF = "Steps that run after failures or skips (run_if)"
    CLEANUP = "Clean-up, however the run ends"
    SUB_PIPELINES = "Pipelines in pipelines"
    EXECUTION_GROUPS = "Several steps in one task or process (execution_group)"
    RETRY_RUN = "Retry of a failed run (retry)"
    RETRY_NEW_CODE = "Retry with new code, which takes completed steps (retry --with-new-code)"
    SECRETS = "Secrets by name"
    ARTIFACTS = "Artifacts listed and shown (report)"
    OPERATORS = "Airflow operators as steps (airflow_operator)"
    CACHING = "Step results reused by later runs (cache)"
    SCHEDULE_CRON = "Cron schedule"
    SCHEDULE_INTERVAL = "Interval schedule"
    SCHEDULE_TIMEZONE = "Schedule in a time zone"
    SCHEDULE_CATCH_UP = "Catch-up of missed runs"
    SCHEDULE_PAUSE = "Pause and resume a schedule"


class Level(Enum):
    """The degree to which a feature is supported."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Support:
    """A level and, unless it is a plain yes, the sentence that explains it."""

    level: Level
    note: str = ""

    @property
    def sentence(self) -> str:
        """The note, from its capital letter to its full stop; empty without one."""
        return f"{self.note[:1].upper()}{self.note[1:].removesuffix('.')}." if self.note else ""


yes = Support(Level.YES)


def partly(note: str) -> Support:
    """Return support within the limits that ``note`` states."""
    return Support(Level.PARTLY, note)


def no(reason: str) -> Support:
    """Return no support, for this reason."""
    return Support(Level.NO, reason)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The support of one orchestrator for each ``Feature``; a feature without an entry is unsupported."""

    orchestrator: str
    support: Mapping[Feature, Support]

    def __getitem__(self, feature: Feature) -> Support:
        return self.support.get(feature, no(f"{self.orchestrator!r} does not declare it."))

    def require(self, needs: Mapping[Feature, str]) -> None:
        """Raise one ``UnsupportedFeatureError`` for all missing features.

        ``needs`` names the requester: ``"step 'train' …"``.
        """
        lacks = tuple(
            f"{subject}: {feature.value.lower()}; {self.orchestrator!r} cannot: {self[feature].note}"
            for feature, subject in needs.items()
            if self[feature].level is Level.NO
        )
        if lacks:
            error = UnsupportedFeatureError("\n".join(lacks))
            error.lacks = lacks
            raise error
