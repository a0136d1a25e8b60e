# 0.x — Blocking call, returned a raw job ID string
from flowyml import Pipeline
from flowyml.orchestrators import RemoteOrchestrator

orchestrator = RemoteOrchestrator(url="http://server:8000")

# Blocked until pipeline finished — no way to cancel or check progress
job_id = orchestrator.run_pipeline(pipeline)
print(f"Job completed: {job_id}")
