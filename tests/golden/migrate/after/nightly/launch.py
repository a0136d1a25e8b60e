# Launches the nightly run and waits for it.
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators import LocalOrchestrator
from nightly.pipelines import forecast
import json
import time

orchestrator = LocalOrchestrator()

TERMINAL = (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


def current(job_id):
    return orchestrator.get_run_status(job_id)


def launch():
    submission = orchestrator.run_pipeline(forecast)  # blocks
    submission.wait_for_completion(timeout=float("inf"))
    job_id = submission.job_id
    print(f"Job completed: {job_id}")
    return job_id


def wait(job_id):
    status = ExecutionStatus.QUEUED
    while status not in TERMINAL:
        status = current(job_id)
        if status == ExecutionStatus.RUNNING:
            time.sleep(0.1)
    return status


def tell(job_id):
    status = current(job_id)
    match status:
        case ExecutionStatus.SUCCEEDED | ExecutionStatus.COMPLETED:
            print("all is well")
        case ExecutionStatus.FAILED:
            print("all is lost")
        case _:
            print("neither: " + str(status))
    return json.dumps({"job": str(job_id)})


def all_done(job_ids):
    statuses = {job: orchestrator.get_run_status(job) for job in job_ids}
    if ExecutionStatus.FAILED in statuses.values():
        return False
    return all(status == ExecutionStatus.SUCCEEDED for status in statuses.values())


def main():
    job = launch()
    wait(job)
    tell(job)
    assert all_done([job])
    others = [orchestrator.run_pipeline(forecast).wait_for_completion(timeout=float("inf")).job_id for _ in range(2)]
    print(len(set(others)), "more")


if __name__ == "__main__":
    main()
