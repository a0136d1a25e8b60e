"""What Airflow can do. Imports no Airflow."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, partly, yes

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    "airflow",
    dict.fromkeys(Feature, yes)
    | {
        Feature.PARAMETERS: partly(
            "Airflow 3 carries integers of 64 bits: from `-2**63` to `2**64 - 1`; no character zero."
        ),
        Feature.STEP_RETRY: partly(
            "Airflow waits in whole seconds and, where the delay grows, up to twice as long; before 3.2 it doubles, "
            "whatever the factor."
        ),
        Feature.HOOKS: partly(
            "The hook on_pipeline_end runs in Airflow's DAG processor, and not for a run that was cancelled: Airflow "
            "calls no callback then."
        ),
        Feature.FAN_OUT: partly("A loop in a loop is refused: Airflow expands no task group within an expanded one."),
        Feature.MAX_PARALLEL: partly(
            "Of each step of a loop: two steps of it may be at work at once, for different items."
        ),
        Feature.RUN_IF: partly("`one_done` does not count a step that did not run since another failed."),
        Feature.CLEANUP: partly(
            "Refused for a pipeline with a timeout: Airflow runs no teardown when a run has taken too long."
        ),
        Feature.EXECUTION_GROUPS: partly(
            "The group is one task: what takes an output of it waits for all its steps, and does not run when one "
            "failed."
        ),
        Feature.RETRY_RUN: partly(
            "Refused where the DAG has other code by now, which Airflow would run. On 2.11, where one item of a loop "
            "is to run again, all items that failed do. An execution group runs again as a whole."
        ),
        Feature.ARTIFACTS: partly("An output whose name Airflow does not take as a key is listed by its XCom's key."),
        Feature.SCHEDULE_CATCH_UP: partly(
            "Without catch-up, Airflow still fires the last time that was missed: at once when a schedule is resumed, "
            "or made with a start that has passed."
        ),
        Feature.RESOURCES_CPU_MEMORY: partly("Reserved by the KubernetesExecutor; other executors do not look at it."),
        Feature.RESOURCES_GPU: partly("Reserved by the KubernetesExecutor; other executors do not look at it."),
    },
)
