"""The features that running on this machine supports."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, no, partly, yes

__all__ = ["CAPABILITIES"]

_WHILE_SERVED = "Schedules fire while `flowyml schedule serve` runs on this machine."

CAPABILITIES = Capabilities(
    "local",
    {
        Feature.PARALLEL_STEPS: yes,
        Feature.PARAMETERS: yes,
        Feature.STEP_RETRY: yes,
        Feature.RETRYABLE_ERRORS: yes,
        Feature.STEP_TIMEOUT: yes,
        Feature.PIPELINE_TIMEOUT: yes,
        Feature.HOOKS: yes,
        Feature.RESOURCES_CPU_MEMORY: partly("Recorded, not reserved: steps share this machine."),
        Feature.RESOURCES_GPU: partly("Not reserved: each step sees all GPUs of this machine, or that it has none."),
        Feature.CANCEL: partly(
            "A submitted run is killed. In a blocking run() a step in a thread ends at its next Python instruction, so "
            "one call into C code is waited for; with workers='processes' or a timeout it is killed."
        ),
        Feature.LOGS: yes,
        Feature.OUTPUTS: partly(
            "`flowyml run` and submit() keep up to 1 GB each, run() small ones; keep_outputs=True all."
        ),
        Feature.STEP_OUTPUTS: partly(
            "Of runs that did not complete: small values, and large ones that a step still needs; else the pipeline's."
        ),
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: yes,
        Feature.MAX_PARALLEL: yes,
        Feature.BRANCHES: yes,
        Feature.RUN_IF: yes,
        Feature.CLEANUP: yes,
        Feature.SUB_PIPELINES: yes,
        Feature.EXECUTION_GROUPS: partly(
            "In processes: one process for the group. In threads: one thread, one step after another."
        ),
        Feature.RETRY_RUN: partly(
            "A step that completed runs again if its result is too large for the record, or if a step in a thread may "
            "have changed the result before that step failed."
        ),
        Feature.RETRY_NEW_CODE: partly(
            "As for a retry: a result that was too large for the record, or that a step in a thread may have changed, "
            "is computed again if a step that runs needs it."
        ),
        Feature.SECRETS: yes,
        Feature.ARTIFACTS: partly("When the run has ended. Only outputs of the pipeline that are kept have a URL."),
        Feature.OPERATORS: no("They run only on Airflow."),
        Feature.CACHING: yes,
        Feature.SCHEDULE_CRON: partly(_WHILE_SERVED),
        Feature.SCHEDULE_INTERVAL: partly(_WHILE_SERVED),
        Feature.SCHEDULE_TIMEZONE: yes,
        Feature.SCHEDULE_CATCH_UP: partly("Missed runs start when the server runs again, one after another."),
        Feature.SCHEDULE_PAUSE: yes,
    },
)
