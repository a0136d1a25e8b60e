"""What KFP can do for FlowyML: on a cluster, and by its local runner."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, no, partly, yes

__all__ = ["CLUSTER", "LOCAL_RUNNER"]

_LISTED = (
    "as long as the pods' logs are kept; without a URL in pipelines with loops, branches or run_if, whose values "
    "stand in the pods' own files"
)
_BY_NAME = "its steps stand among the others, under its name: `prepare.load`"
_FILE_ONLY = "its local runner keeps no schedules; use a cluster, or `flowyml schedule` on 'local'"

CLUSTER = Capabilities(
    "kubeflow",
    {
        Feature.PARALLEL_STEPS: yes,
        Feature.PARAMETERS: partly(
            "KFP carries numbers as doubles: integers up to 2**53; in a list or dict that says no type, 2.0 becomes 2"
        ),
        Feature.STEP_RETRY: partly(
            "delays in whole seconds; KFP multiplies them by whole numbers only and caps none, so that retries with "
            "other delays happen inside the step's pod"
        ),
        Feature.RETRYABLE_ERRORS: partly(
            "KFP has no condition for retries, so these retries happen inside the step's pod"
        ),
        Feature.STEP_TIMEOUT: partly("KFP reports the step as FAILED; its log names the timeout"),
        Feature.PIPELINE_TIMEOUT: no("KFP has none for a pipeline; give the steps timeouts"),
        Feature.HOOKS: partly(
            "as tasks before and after the steps, the last in an exit handler; they cost two pods, and `retry_run` "
            "calls on_pipeline_end again only if its task had failed"
        ),
        Feature.RESOURCES_CPU_MEMORY: yes,
        Feature.RESOURCES_GPU: yes,
        Feature.CANCEL: partly("KFP calls a stopped run FAILED; FlowyML reads the run's history"),
        Feature.LOGS: partly("while KFP has the logs of the pods"),
        Feature.OUTPUTS: partly(
            "from the steps' logs; large ones through KFP's UI, or from an artifact store that you can read too"
        ),
        Feature.IDEMPOTENT_SUBMIT: partly(
            "KFP has no unique names: of submissions at once one run is kept, unless one dies meanwhile"
        ),
        Feature.ATTACH: yes,
        Feature.FAN_OUT: partly(
            "in 50 pods of a step at most, each of which works on its items one after another; loops within a loop run "
            "inside those pods; an item that fails fails the last task of the run, and not its pod"
        ),
        Feature.MAX_PARALLEL: partly("so many pods of the loop, each of which works on its items one after another"),
        Feature.BRANCHES: partly(
            "the pod of each step decides whether it runs, and KFP shows a skipped step as done: what waits for a task "
            "that KFP skips never starts, and of outputs of which one came to be KFP before 2.17 takes the last"
        ),
        Feature.RUN_IF: partly(
            "a step that fails fails the last task of the run, and not its pod; not after a pod was lost: KFP starts "
            "nothing that waits for a task that failed"
        ),
        Feature.CLEANUP: partly("not after the run was stopped, a pod was lost or an image could not be pulled"),
        Feature.SUB_PIPELINES: partly(_BY_NAME),
        Feature.EXECUTION_GROUPS: partly(
            "one pod, which waits for what any of its steps waits for; a step that fails fails the last task of the "
            "run, and not its pod; KFP's cache keeps none of them"
        ),
        Feature.RETRY_RUN: partly(
            "all that failed, and no single steps; not where steps failed whose pods succeeded, as those in loops"
        ),
        Feature.SECRETS: partly("a secret is named 'name-of-the-secret/key'"),
        Feature.ARTIFACTS: partly(_LISTED),
        Feature.OPERATORS: no("they run on Airflow alone"),
        Feature.CACHING: partly(
            "where the pods share a store, kubeflow={'env': {'FLOWYML_ARTIFACTS': 's3://…'}}; else each step runs"
        ),
        Feature.SCHEDULE_CRON: yes,
        Feature.SCHEDULE_INTERVAL: yes,
        Feature.SCHEDULE_TIMEZONE: partly("only with a fixed offset: KFP's time zone is the server's"),
        Feature.SCHEDULE_CATCH_UP: yes,
        Feature.SCHEDULE_PAUSE: partly(
            "after a pause KFP makes up for missed runs: with one run at once, from which an interval then counts, or "
            "with all of them where the schedule catches up"
        ),
    },
)

LOCAL_RUNNER = Capabilities(
    "kubeflow-local",
    {
        Feature.PARALLEL_STEPS: no("KFP's local runner runs one task after another"),
        Feature.PARAMETERS: yes,
        Feature.STEP_RETRY: partly("delays in whole seconds"),
        Feature.RETRYABLE_ERRORS: yes,
        Feature.STEP_TIMEOUT: yes,
        Feature.PIPELINE_TIMEOUT: yes,
        Feature.HOOKS: yes,
        Feature.RESOURCES_CPU_MEMORY: partly("KFP's local runner ignores them"),
        Feature.RESOURCES_GPU: partly("KFP's local runner reserves none"),
        Feature.CANCEL: yes,
        Feature.LOGS: yes,
        Feature.OUTPUTS: yes,
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: yes,
        Feature.MAX_PARALLEL: partly("two pods of a loop at a time, whatever more it allows"),
        Feature.BRANCHES: yes,
        Feature.RUN_IF: yes,
        Feature.CLEANUP: yes,
        Feature.SUB_PIPELINES: partly(_BY_NAME),
        Feature.EXECUTION_GROUPS: yes,
        Feature.RETRY_RUN: partly("all that did not complete, and no single steps"),
        Feature.SECRETS: partly("from the environment of the process that submits, and not in containers"),
        Feature.ARTIFACTS: partly(_LISTED),
        Feature.OPERATORS: no("they run on Airflow alone"),
        Feature.CACHING: partly("not in containers, unless FLOWYML_ARTIFACTS names a store that they reach"),
        Feature.SCHEDULE_CRON: no(_FILE_ONLY),
        Feature.SCHEDULE_INTERVAL: no(_FILE_ONLY),
        Feature.SCHEDULE_TIMEZONE: no(_FILE_ONLY),
        Feature.SCHEDULE_CATCH_UP: no(_FILE_ONLY),
        Feature.SCHEDULE_PAUSE: no(_FILE_ONLY),
    },
)
