"""The features that Airflow supports. Imports no Airflow."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, partly, yes

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    "airflow",
    {
        Feature.PARALLEL_STEPS: yes,
        Feature.PARAMETERS: partly(
            "Airflow 3 carries 64-bit integers: from `-2**63` to `2**64 - 1`, and no larger float without a fraction, "
            "such as `1e22`; no NUL characters."
        ),
        Feature.STEP_RETRY: partly(
            "Airflow waits in whole seconds and, where the delay grows, up to twice as long; before 3.2 it doubles, "
            "whatever the factor."
        ),
        Feature.RETRYABLE_ERRORS: yes,
        Feature.STEP_TIMEOUT: yes,
        Feature.PIPELINE_TIMEOUT: yes,
        Feature.HOOKS: partly(
            "The hook on_pipeline_end runs in Airflow's DAG processor, but not for a cancelled run, for which Airflow "
            "calls no callback."
        ),
        Feature.RESOURCES_CPU_MEMORY: partly("Reserved by the KubernetesExecutor; other executors ignore them."),
        Feature.RESOURCES_GPU: partly("Reserved by the KubernetesExecutor; other executors ignore them."),
        Feature.CANCEL: yes,
        Feature.LOGS: yes,
        Feature.OUTPUTS: yes,
        Feature.STEP_OUTPUTS: yes,
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: partly("A loop in a loop is refused: Airflow cannot expand a task group in another one."),
        Feature.MAX_PARALLEL: partly(
            "Limits each step of a loop: two steps of it may run at the same time, for different items."
        ),
        Feature.BRANCHES: yes,
        Feature.RUN_IF: partly("`one_done` does not count a step that did not run because another failed."),
        Feature.CLEANUP: partly(
            "Refused for a pipeline with a timeout: Airflow runs no teardown after a run has timed out."
        ),
        Feature.SUB_PIPELINES: yes,
        Feature.EXECUTION_GROUPS: partly(
            "The group is one task: a step that takes an output of it waits for all its steps, and does not run if one "
            "failed."
        ),
        Feature.RETRY_RUN: partly(
            "Refused if the DAG has been deployed with new code since, because Airflow would run the new code. On "
            "2.11, a retry of one item of a loop runs all its failed items. An execution group runs again as a whole."
        ),
        Feature.RETRY_NEW_CODE: partly(
            "If dags_folder has the bundle of the old run: deploying removes old ones. Operators of Airflow's own run "
            "again, and the steps after them."
        ),
        Feature.SECRETS: yes,
        Feature.ARTIFACTS: yes,
        Feature.OPERATORS: yes,
        Feature.CACHING: yes,
        Feature.SCHEDULE_CRON: yes,
        Feature.SCHEDULE_INTERVAL: yes,
        Feature.SCHEDULE_TIMEZONE: yes,
        Feature.SCHEDULE_CATCH_UP: partly(
            "Without catch-up, Airflow still makes up the last missed run: at once, when a schedule is resumed or "
            "created with a start in the past."
        ),
        Feature.SCHEDULE_PAUSE: yes,
    },
)
