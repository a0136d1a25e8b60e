submission = orchestrator.run_pipeline(pipeline, run_id="...")
job_id = submission.job_id
