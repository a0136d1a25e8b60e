job_id = orchestrator.run_pipeline(pipeline)
