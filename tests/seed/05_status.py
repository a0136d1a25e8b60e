# 1.0 — Typed enum with convenience properties
from flowyml.core.execution_status import ExecutionStatus

status = orchestrator.get_run_status(job_id)
if status == ExecutionStatus.RUNNING:
    print("Still running...")
elif status.is_successful:  # True for COMPLETED / SUCCEEDED
    print("Done!")
elif status.is_failed:  # True for FAILED / ERROR
    print("Something went wrong")
elif status.is_terminal:  # True for any final state
    print("Execution finished")
elif status == ExecutionStatus.QUEUED:
    print("Waiting in queue...")
