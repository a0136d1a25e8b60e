# Launches the nightly run and waits for it.
from flowyml.core.orchestrator import LocalOrchestrator
from nightly.pipelines import forecast
import json
import time

orchestrator = LocalOrchestrator()

TERMINAL = ("SUCCEEDED", "FAILED", "CANCELED")


def current(job_id):
    return orchestrator.get_run_status(job_id)


def launch():
    job_id = orchestrator.run_pipeline(forecast)  # blocks
    print(f"Job completed: {job_id}")
    return job_id


def wait(job_id):
    status = "QUEUED"
    while status not in TERMINAL:
        status = current(job_id)
        if status.lower() == "running":
            time.sleep(0.1)
    return status


def tell(job_id):
    status = current(job_id)
    match status:
        case "SUCCEEDED" | "COMPLETED":
            print("all is well")
        case "FAILED":
            print("all is lost")
        case _:
            print("neither: " + status)
    return json.dumps({"job": str(job_id)})


def all_done(job_ids):
    statuses = {job: orchestrator.get_run_status(job) for job in job_ids}
    if "FAILED" in statuses.values():
        return False
    return all(status == 'SUCCEEDED' for status in statuses.values())


def main():
    job = launch()
    wait(job)
    tell(job)
    assert all_done([job])
    others = [orchestrator.run_pipeline(forecast) for _ in range(2)]
    print(len(set(others)), "more")


if __name__ == "__main__":
    main()
