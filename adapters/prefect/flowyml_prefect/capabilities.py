"""What Prefect can do. Imports no Prefect."""

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
            "Taken note of, not reserved: the steps of a run share the machine of its flow, which the work pool sizes."
        ),
        Feature.RESOURCES_GPU: partly(
            "Not reserved: each step sees all that its machine has. Take a work pool whose machines have them."
        ),
        Feature.CANCEL: yes,
        Feature.LOGS: yes,
        Feature.OUTPUTS: yes,
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: yes,
        Feature.MAX_PARALLEL: yes,
        Feature.BRANCHES: yes,
        Feature.RUN_IF: yes,
        Feature.CLEANUP: yes,
        Feature.SUB_PIPELINES: partly("Its steps stand among the others, under its name: `prepare.load`."),
        Feature.EXECUTION_GROUPS: partly("One process for them, each in a task run of its own; not on Windows."),
        Feature.RETRY_RUN: partly(
            "Where the folder of the run's code is on this machine. With a work pool only pipelines with a loop, a "
            "branch, run_if or clean-up: of others Prefect's workers would run all steps again."
        ),
        Feature.SECRETS: yes,
        Feature.ARTIFACTS: yes,
        Feature.OPERATORS: no("They run on Airflow alone."),
        Feature.CACHING: yes,
        Feature.SCHEDULE_CRON: yes,
        Feature.SCHEDULE_INTERVAL: yes,
        Feature.SCHEDULE_TIMEZONE: yes,
        Feature.SCHEDULE_CATCH_UP: partly(
            "Prefect plans runs ahead, and runs those late whose time came while no worker was there, asked or not. "
            "While its server is down it plans none, and those are not made up for."
        ),
        Feature.SCHEDULE_PAUSE: yes,
    },
)
