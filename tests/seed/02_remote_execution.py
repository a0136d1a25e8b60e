# 1.0 — Non-blocking, returns a SubmissionResult
from flowyml import Pipeline
from flowyml.orchestrators import RemoteOrchestrator

orchestrator = RemoteOrchestrator(url="http://server:8000")

# Returns immediately with a SubmissionResult
submission = orchestrator.run_pipeline(pipeline, run_id="my-run-001")

# Access the job ID
print(f"Job ID: {submission.job_id}")
print(f"Status: {submission.status}")

# If you need blocking behavior, explicitly wait:
submission.wait_for_completion(timeout=3600)  # Wait up to 1 hour
print(f"Final status: {submission.status}")
print(f"Duration: {submission.duration_seconds:.1f}s")
