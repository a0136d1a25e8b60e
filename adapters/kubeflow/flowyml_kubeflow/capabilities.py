"""The features that KFP supports: on a cluster, and by its local runner."""

from __future__ import annotations

from flowyml.core.capabilities import Capabilities, Feature, no, partly, yes

__all__ = ["CLUSTER", "LOCAL_RUNNER"]

_LISTED = (
    "As long as the pods' logs are kept; without a URL in pipelines with loops, branches or run_if, whose values "
    "are in the pods' own files."
)
_BY_NAME = "Its steps are listed with the others, under its name: `prepare.load`."
_FILE_ONLY = "KFP's local runner keeps no schedules. Use a cluster, or `flowyml schedule` on 'local'."

CLUSTER = Capabilities(
    "kubeflow",
    {
        Feature.PARALLEL_STEPS: yes,
        Feature.PARAMETERS: partly(
            "KFP carries numbers as doubles: integers up to 2**53; in a list or dict without a type, 2.0 becomes 2."
        ),
        Feature.STEP_RETRY: partly(
            "In the step's pod, as the policy says, but not once the pod itself is lost: KFP 2.17 as it is shipped "
            "retries nothing that fails by itself."
        ),
        Feature.RETRYABLE_ERRORS: partly("As all retries, in the step's pod."),
        Feature.STEP_TIMEOUT: partly("KFP reports the step as FAILED; its log names the timeout."),
        Feature.PIPELINE_TIMEOUT: no("KFP has no timeout of a pipeline; give the steps timeouts."),
        Feature.HOOKS: partly(
            "As tasks before and after the steps, the last in an exit handler; they cost two pods, and `retry_run` "
            "calls on_pipeline_end again only if its task had failed."
        ),
        Feature.RESOURCES_CPU_MEMORY: yes,
        Feature.RESOURCES_GPU: yes,
        Feature.CANCEL: partly("KFP calls a stopped run FAILED; FlowyML reads the run's history."),
        Feature.LOGS: partly("While KFP has the logs of the pods."),
        Feature.OUTPUTS: partly(
            "From the steps' logs; large ones through KFP's UI, or from an artifact store that you can read too."
        ),
        Feature.STEP_OUTPUTS: no(
            "Pods log only the outputs of the pipeline. Stored outputs of all steps: `artifacts`, `outputs --download`."
        ),
        Feature.IDEMPOTENT_SUBMIT: partly(
            "KFP does not enforce unique names: of simultaneous submissions, FlowyML keeps one run, unless a "
            "submitting process dies meanwhile."
        ),
        Feature.ATTACH: yes,
        Feature.FAN_OUT: partly(
            "In at most 50 pods for each step, each of which works on its items one after another; loops within a loop "
            "run inside those pods; a failed item fails the last task of the run, not its pod."
        ),
        Feature.MAX_PARALLEL: partly(
            "Limits the pods of the loop, each of which works on its items one after another."
        ),
        Feature.BRANCHES: partly(
            "Each step's pod decides whether the step runs, so KFP shows a skipped step as succeeded; KFP's own "
            "conditions are not used: tasks after a skipped task never start, and KFP before 2.17 reads `either(…)` "
            "from the branch named last."
        ),
        Feature.RUN_IF: partly(
            "A failed step fails the last task of the run, not its pod; not after a pod was lost: KFP starts nothing "
            "that waits for a failed task."
        ),
        Feature.CLEANUP: partly("Not after the run was stopped, a pod was lost or an image could not be pulled."),
        Feature.SUB_PIPELINES: partly(_BY_NAME),
        Feature.EXECUTION_GROUPS: partly(
            "One pod, which waits for every step that one of its steps waits for; a failed step fails the last task of "
            "the run, not its pod; KFP's cache does not keep their results."
        ),
        Feature.RETRY_RUN: partly(
            "All failed steps together, not single steps; refused if steps failed although their pods succeeded, as "
            "steps in loops do."
        ),
        Feature.RETRY_NEW_CODE: no(
            "KFP's API gives a new run no results of another one. Use cached steps, `@step(cache=True)`, whose results "
            "the next run takes if their code is the same."
        ),
        Feature.SECRETS: partly("A secret is named 'name-of-the-secret/key'."),
        Feature.ARTIFACTS: partly(_LISTED),
        Feature.OPERATORS: no("They run only on Airflow."),
        Feature.CACHING: partly(
            "Where the pods share a store, kubeflow={'env': {'FLOWYML_ARTIFACTS': 's3://…'}}; otherwise each step runs."
        ),
        Feature.SCHEDULE_CRON: yes,
        Feature.SCHEDULE_INTERVAL: yes,
        Feature.SCHEDULE_TIMEZONE: partly("Only with a fixed offset: KFP's time zone is the server's."),
        Feature.SCHEDULE_CATCH_UP: yes,
        Feature.SCHEDULE_PAUSE: partly(
            "After a pause KFP makes up missed runs: with one run at once, from which an interval then counts, or with "
            "all of them if the schedule catches up."
        ),
    },
)

LOCAL_RUNNER = Capabilities(
    "kubeflow-local",
    {
        Feature.PARALLEL_STEPS: no("KFP's local runner runs one task after another."),
        Feature.PARAMETERS: yes,
        Feature.STEP_RETRY: yes,
        Feature.RETRYABLE_ERRORS: yes,
        Feature.STEP_TIMEOUT: yes,
        Feature.PIPELINE_TIMEOUT: yes,
        Feature.HOOKS: partly("Not on_pipeline_end of a run that was stopped."),
        Feature.RESOURCES_CPU_MEMORY: partly("KFP's local runner ignores them."),
        Feature.RESOURCES_GPU: partly("KFP's local runner reserves none."),
        Feature.CANCEL: yes,
        Feature.LOGS: yes,
        Feature.OUTPUTS: yes,
        Feature.STEP_OUTPUTS: no(
            "Pods log only the outputs of the pipeline. Stored outputs of all steps: `artifacts`, `outputs --download`."
        ),
        Feature.IDEMPOTENT_SUBMIT: yes,
        Feature.ATTACH: yes,
        Feature.FAN_OUT: yes,
        Feature.MAX_PARALLEL: partly("At most two pods of a loop at a time."),
        Feature.BRANCHES: yes,
        Feature.RUN_IF: yes,
        Feature.CLEANUP: partly("Not after the run was stopped."),
        Feature.SUB_PIPELINES: partly(_BY_NAME),
        Feature.EXECUTION_GROUPS: yes,
        Feature.RETRY_RUN: no("Run the pipeline again."),
        Feature.RETRY_NEW_CODE: no("Run the pipeline again; cached steps, `@step(cache=True)`, give their results."),
        Feature.SECRETS: partly("From the environment of the process that submits, and not in containers."),
        Feature.ARTIFACTS: partly(_LISTED),
        Feature.OPERATORS: no("They run only on Airflow."),
        Feature.CACHING: partly("Not in containers, unless FLOWYML_ARTIFACTS names a store that they reach."),
        Feature.SCHEDULE_CRON: no(_FILE_ONLY),
        Feature.SCHEDULE_INTERVAL: no(_FILE_ONLY),
        Feature.SCHEDULE_TIMEZONE: no(_FILE_ONLY),
        Feature.SCHEDULE_CATCH_UP: no(_FILE_ONLY),
        Feature.SCHEDULE_PAUSE: no(_FILE_ONLY),
    },
)
