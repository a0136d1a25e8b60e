"""The features that Prefect supports. Imports no Prefect."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, no, partly, yes

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    "prefect",
    {
        Feature.PARALLEL_STEPS: yes,
        Feature.PARAMETERS: yes,
        Feature.STEP_RETRY: yes,
        Feature.RETRYABLE_ERRORS: yes,
        Feature.STEP_TIMEOUT: yes,
        Feature.PIPELINE_TIMEOUT: yes,
        Feature.HOOKS: yes,
        Feature.RESOURCES_CPU_MEMORY: partly(
            "Recorded, not reserved: the steps of a run share the machine of its flow, which the work pool sizes."
        ),
        Feature.RESOURCES_GPU: partly(
            "Not reserved: each step sees all GPUs of its machine. Use a work pool whose machines have GPUs."
        ),
        Feature.CANCEL: yes,
        Feature.LOGS: yes,
        Feature.OUTPUTS: yes,
        Feature.STEP_OUTPUTS: yes,
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: yes,
        Feature.MAX_PARALLEL: yes,
        Feature.BRANCHES: yes,
        Feature.RUN_IF: yes,
        Feature.CLEANUP: yes,
        Feature.SUB_PIPELINES: partly("Its steps are listed with the others, under its name: `prepare.load`."),
        Feature.EXECUTION_GROUPS: partly("One process for them, each with its own task run."),
        Feature.RETRY_RUN: partly(
            "If the folder of the run's code is on this machine. With a work pool only pipelines with a loop, a "
            "branch, run_if, clean-up or an execution group: Prefect's workers would run all steps of others again."
        ),
        Feature.RETRY_NEW_CODE: partly(
            "If the folder of the old run's code is on this machine, and this machine reaches the artifact store."
        ),
        Feature.SECRETS: yes,
        Feature.ARTIFACTS: yes,
        Feature.OPERATORS: no("They run only on Airflow."),
        Feature.CACHING: yes,
        Feature.SCHEDULE_CRON: yes,
        Feature.SCHEDULE_INTERVAL: yes,
        Feature.SCHEDULE_TIMEZONE: yes,
        Feature.SCHEDULE_CATCH_UP: partly(
            "Prefect plans runs ahead, and runs late every run that became due while no worker was running, with or "
            "without catch-up. While its server is down it plans no runs, and these are not made up."
        ),
        Feature.SCHEDULE_PAUSE: yes,
    },
)
