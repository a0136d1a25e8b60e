# 0.x — Raw strings, provider-specific and error-prone
status = orchestrator.get_run_status(job_id)
if status == "RUNNING":
    print("Still running...")
elif status == "SUCCEEDED":
    print("Done!")
elif status == "FAILED":
    print("Something went wrong")
# What about "QUEUED"? "CANCELLING"? Easy to miss cases.
